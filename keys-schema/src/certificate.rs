//! Certificates of sealed sender, which say inside the ciphertext who sent it.
//!
//! Three keys: the **trust root**, which clients are built with, signs server certificates; the **server key** of such a
//! certificate signs sender certificates; and the **identity key** in a sender certificate is the one with which the
//! sender takes part in the seal. A recipient checks all three. Sender certificates made here carry the server
//! certificate with them, so that clients need to know the trust root alone and server keys can change.
//!
//! Reading is as strict as the clients' or stricter: a certificate that names its signer by a number is refused, because
//! those numbers stand for certificates that clients of another server were built with.

use bytes::Bytes;
use prost::Message;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use crate::opaque_debug::opaque_debug;
use crate::{Aci, DecodeError, EcPublicKey, IdentityKey, PrivateKey, Signature, proto, xeddsa};

/// Vouches for a key that signs sender certificates. Its signature is not verified by parsing.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerCertificate {
    id: u32,
    key: EcPublicKey,
    signed: Signed,
}

impl ServerCertificate {
    /// The id of a key that clients hold for lost: no certificate with it is valid.
    pub const REVOKED_ID: u32 = 0xdead_c357;

    /// Certifies `key` with the trust root. `random` must be fresh for each call, see [`xeddsa::sign`].
    ///
    /// # Errors
    ///
    /// [`DecodeError::Malformed`] for [`REVOKED_ID`](Self::REVOKED_ID).
    pub fn issue(id: u32, key: EcPublicKey, trust_root: &PrivateKey, random: &[u8; 64]) -> Result<Self, DecodeError> {
        if id == Self::REVOKED_ID {
            return Err(SERVER_MALFORMED);
        }
        let content = proto::server_certificate::Certificate {
            id: Some(id),
            key: Some(Bytes::copy_from_slice(key.serialized())),
        };
        let signed = Signed::new(content.encode_to_vec(), trust_root, random);
        Ok(Self { id, key, signed })
    }

    /// Reads a serialised certificate.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if it is not one, lacks a part or has the id of a key that is held for lost.
    pub fn parse(bytes: Bytes) -> Result<Self, DecodeError> {
        let outer = proto::ServerCertificate::decode(bytes).map_err(|_| SERVER_MALFORMED)?;
        let signed = Signed::parse(outer.certificate, outer.signature, SERVER_MALFORMED)?;
        let content =
            proto::server_certificate::Certificate::decode(signed.content.clone()).map_err(|_| SERVER_MALFORMED)?;
        let id = content.id.ok_or(SERVER_MALFORMED)?;
        if id == Self::REVOKED_ID {
            return Err(SERVER_MALFORMED);
        }
        let key = EcPublicKey::parse(&content.key.ok_or(SERVER_MALFORMED)?)?;
        Ok(Self { id, key, signed })
    }

    /// The certificate as clients read it.
    #[must_use]
    pub fn serialized(&self) -> Bytes {
        let Signed { content, signature } = &self.signed;
        proto::ServerCertificate {
            certificate: Some(content.clone()),
            signature: Some(Bytes::copy_from_slice(signature.as_bytes())),
        }
        .encode_to_vec()
        .into()
    }

    /// The number of the key among the server's.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// The key that signs sender certificates.
    #[must_use]
    pub const fn key(&self) -> &EcPublicKey {
        &self.key
    }

    /// Whether the trust root made this certificate.
    #[must_use]
    pub fn is_signed_by(&self, trust_root: &EcPublicKey) -> bool {
        self.signed.is_by(trust_root)
    }
}

/// Vouches for the account and device of a sender. Its signatures are not verified by parsing.
#[derive(Clone, PartialEq, Eq)]
pub struct SenderCertificate {
    sender: Sender,
    expires_ms: u64,
    signer: ServerCertificate,
    signed: Signed,
}

/// Whom a sender certificate vouches for.
#[derive(Clone, PartialEq, Eq)]
pub struct Sender {
    /// The account.
    pub aci: Aci,
    /// The device, 1 to 127.
    pub device_id: u8,
    /// The account's ACI identity key.
    pub identity_key: IdentityKey,
    /// The account's phone number, if recipients are to learn it.
    pub e164: Option<String>,
}

impl SenderCertificate {
    /// Reads a serialised certificate.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if it is not one, lacks a part, does not carry its signer's certificate, or names the sender in
    /// both of the possible ways.
    pub fn parse(bytes: Bytes) -> Result<Self, DecodeError> {
        let outer = proto::SenderCertificate::decode(bytes).map_err(|_| SENDER_MALFORMED)?;
        let signed = Signed::parse(outer.certificate, outer.signature, SENDER_MALFORMED)?;
        let content =
            proto::sender_certificate::Certificate::decode(signed.content.clone()).map_err(|_| SENDER_MALFORMED)?;
        if content.signer_id.is_some() {
            return Err(SENDER_MALFORMED);
        }
        let device_id = content.sender_device.and_then(|id| u8::try_from(id).ok());
        let sender = Sender {
            aci: parse_uuid(content.uuid.as_deref(), content.uuid_string.as_deref()).ok_or(SENDER_MALFORMED)?,
            device_id: device_id.filter(|id| DEVICE_IDS.contains(id)).ok_or(SENDER_MALFORMED)?,
            identity_key: IdentityKey::parse(&content.identity_key.ok_or(SENDER_MALFORMED)?)?,
            e164: content.sender_e164,
        };
        Ok(Self {
            sender,
            expires_ms: content.expires.ok_or(SENDER_MALFORMED)?,
            signer: ServerCertificate::parse(content.signer.ok_or(SENDER_MALFORMED)?)?,
            signed,
        })
    }

    /// The certificate as clients read it.
    #[must_use]
    pub fn serialized(&self) -> Bytes {
        let Signed { content, signature } = &self.signed;
        proto::SenderCertificate {
            certificate: Some(content.clone()),
            signature: Some(Bytes::copy_from_slice(signature.as_bytes())),
        }
        .encode_to_vec()
        .into()
    }

    /// Whom it vouches for.
    #[must_use]
    pub const fn sender(&self) -> &Sender {
        &self.sender
    }

    /// The last millisecond since the Unix epoch at which it is valid.
    #[must_use]
    pub const fn expires_ms(&self) -> u64 {
        self.expires_ms
    }

    /// The certificate of the key that signed it.
    #[must_use]
    pub const fn signer(&self) -> &ServerCertificate {
        &self.signer
    }

    /// Whether a client that trusts `trust_root` takes it at that time, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn is_valid(&self, trust_root: &EcPublicKey, at_ms: u64) -> bool {
        at_ms <= self.expires_ms && self.signer.is_signed_by(trust_root) && self.signed.is_by(&self.signer.key)
    }
}

/// A server key with its certificate: what issues sender certificates.
pub struct Signer {
    certificate: ServerCertificate,
    key: PrivateKey,
}

impl Signer {
    /// Joins the two, or gives `None` if the certificate is for another key.
    #[must_use]
    pub fn new(certificate: ServerCertificate, key: PrivateKey) -> Option<Self> {
        (certificate.key == key.public_key()).then_some(Self { certificate, key })
    }

    /// The certificate of the key.
    #[must_use]
    pub const fn certificate(&self) -> &ServerCertificate {
        &self.certificate
    }

    /// Vouches for a sender until the end of the millisecond `expires_ms`. `random` must be fresh for each call, see
    /// [`xeddsa::sign`].
    #[must_use]
    pub fn issue(&self, sender: Sender, expires_ms: u64, random: &[u8; 64]) -> SenderCertificate {
        let content = proto::sender_certificate::Certificate {
            sender_e164: sender.e164.clone(),
            sender_device: Some(sender.device_id.into()),
            expires: Some(expires_ms),
            identity_key: Some(Bytes::copy_from_slice(sender.identity_key.serialized())),
            signer: Some(self.certificate.serialized()),
            uuid_string: None,
            uuid: Some(Bytes::copy_from_slice(sender.aci.as_bytes())),
            signer_id: None,
        };
        SenderCertificate {
            sender,
            expires_ms,
            signer: self.certificate.clone(),
            signed: Signed::new(content.encode_to_vec(), &self.key, random),
        }
    }
}

opaque_debug!(ServerCertificate, SenderCertificate, Sender, Signer);

/// Bytes and the signature over them. The bytes are kept as they came: another encoding would not verify.
#[derive(Clone, PartialEq, Eq)]
struct Signed {
    content: Bytes,
    signature: Signature,
}

impl Signed {
    fn new(content: Vec<u8>, key: &PrivateKey, random: &[u8; 64]) -> Self {
        let signature = xeddsa::sign(key, &content, random);
        Self {
            content: content.into(),
            signature,
        }
    }

    fn parse(content: Option<Bytes>, signature: Option<Bytes>, missing: DecodeError) -> Result<Self, DecodeError> {
        Ok(Self {
            content: content.ok_or(missing)?,
            signature: Signature::parse(&signature.ok_or(missing)?)?,
        })
    }

    fn is_by(&self, key: &EcPublicKey) -> bool {
        xeddsa::verify(&IdentityKey::from(*key), &self.content, &self.signature)
    }
}

/// Exactly one of the two, the string in lower case.
fn parse_uuid(bytes: Option<&[u8]>, text: Option<&str>) -> Option<Aci> {
    let uuid = match (bytes, text) {
        (Some(bytes), None) => Uuid::from_bytes(bytes.try_into().ok()?),
        (None, Some(text)) => {
            let uuid = text.parse::<Hyphenated>().ok()?;
            if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
                return None;
            }
            uuid.into_uuid()
        }
        (Some(_), Some(_)) | (None, None) => return None,
    };
    Some(Aci::new(uuid))
}

const DEVICE_IDS: std::ops::RangeInclusive<u8> = 1..=127;
const SERVER_MALFORMED: DecodeError = DecodeError::Malformed {
    what: "server certificate",
};
const SENDER_MALFORMED: DecodeError = DecodeError::Malformed {
    what: "sender certificate",
};

#[cfg(test)]
mod tests {
    use super::*;

    const EXPIRES: u64 = 1_893_456_000_000;

    fn root() -> PrivateKey {
        PrivateKey::from_bytes(&[1; 32])
    }

    fn signer() -> Signer {
        let key = PrivateKey::from_bytes(&[2; 32]);
        let certificate = ServerCertificate::issue(7, key.public_key(), &root(), &[9; 64]).expect("not revoked");
        Signer::new(certificate, key).expect("a pair")
    }

    fn sender() -> Sender {
        Sender {
            aci: Aci::new(Uuid::from_bytes([0xab; 16])),
            device_id: 2,
            identity_key: PrivateKey::from_bytes(&[3; 32]).public_key().into(),
            e164: None,
        }
    }

    /// What `sender` signs when the change is made to what it would have signed.
    fn with(change: impl FnOnce(&mut proto::sender_certificate::Certificate)) -> Bytes {
        let Signer { certificate, key } = signer();
        let mut content = proto::sender_certificate::Certificate {
            sender_e164: None,
            sender_device: Some(2),
            expires: Some(EXPIRES),
            identity_key: Some(Bytes::copy_from_slice(sender().identity_key.serialized())),
            signer: Some(certificate.serialized()),
            uuid_string: None,
            uuid: Some(Bytes::from_static(&[0xab; 16])),
            signer_id: None,
        };
        change(&mut content);
        let signed = Signed::new(content.encode_to_vec(), &key, &[9; 64]);
        proto::SenderCertificate {
            certificate: Some(signed.content),
            signature: Some(Bytes::copy_from_slice(signed.signature.as_bytes())),
        }
        .encode_to_vec()
        .into()
    }

    #[test]
    fn what_is_issued_is_read_back_and_valid_until_it_expires() {
        for e164 in [None, Some("+15550100001".to_owned())] {
            let sender = Sender { e164, ..sender() };
            let issued = signer().issue(sender.clone(), EXPIRES, &[4; 64]);
            let read = SenderCertificate::parse(issued.serialized()).expect("parses");
            assert!(read == issued);
            assert!(*read.sender() == sender);
            assert_eq!(read.signer().id(), 7);
            let root = root().public_key();
            assert!(read.is_valid(&root, 0) && read.is_valid(&root, EXPIRES));
            assert!(!read.is_valid(&root, EXPIRES + 1));
            assert!(!read.is_valid(&PrivateKey::from_bytes(&[5; 32]).public_key(), 0));
        }
    }

    #[test]
    fn neither_signature_nor_content_can_be_exchanged() {
        let root = root().public_key();
        let issued = signer().issue(sender(), EXPIRES, &[4; 64]).serialized();
        let mut refused = 0;
        for at in 0..issued.len() {
            let mut changed = issued.to_vec();
            changed[at] ^= 1;
            let valid = SenderCertificate::parse(changed.into()).is_ok_and(|read| read.is_valid(&root, 0));
            refused += usize::from(!valid);
        }
        assert_eq!(refused, issued.len());
    }

    #[test]
    fn a_key_that_the_trust_root_did_not_certify_signs_nothing() {
        let key = PrivateKey::from_bytes(&[6; 32]);
        assert!(Signer::new(signer().certificate, PrivateKey::from_bytes(&[6; 32])).is_none());
        let own_root = PrivateKey::from_bytes(&[7; 32]);
        let certificate = ServerCertificate::issue(7, key.public_key(), &own_root, &[9; 64]).expect("not revoked");
        let forged = Signer::new(certificate, key).expect("a pair");
        let forged = forged.issue(sender(), EXPIRES, &[4; 64]);
        assert!(!forged.is_valid(&root().public_key(), 0));
        assert!(forged.is_valid(&own_root.public_key(), 0));
    }

    #[test]
    fn the_id_of_a_lost_key_is_neither_issued_nor_read() {
        let key = PrivateKey::from_bytes(&[2; 32]).public_key();
        assert!(ServerCertificate::issue(0xdead_c357, key, &root(), &[9; 64]).is_err());
        let content = proto::server_certificate::Certificate {
            id: Some(0xdead_c357),
            key: Some(Bytes::copy_from_slice(key.serialized())),
        };
        let signed = Signed::new(content.encode_to_vec(), &root(), &[9; 64]);
        let lost = ServerCertificate { id: 0, key, signed }.serialized();
        assert_eq!(ServerCertificate::parse(lost.clone()).err(), Some(SERVER_MALFORMED));
        assert!(SenderCertificate::parse(with(|content| content.signer = Some(lost))).is_err());
    }

    #[test]
    fn a_sender_is_named_in_exactly_one_way() {
        const TEXT: &str = "abababab-abab-abab-abab-abababababab";
        let read = |bytes: Option<&'static [u8]>, text: Option<&str>| {
            SenderCertificate::parse(with(|content| {
                content.uuid = bytes.map(Bytes::from_static);
                content.uuid_string = text.map(str::to_owned);
            }))
            .map(|read| read.sender == sender())
        };
        assert_eq!(read(Some(&[0xab; 16]), None), Ok(true));
        assert_eq!(read(None, Some(TEXT)), Ok(true));
        assert!(read(None, Some(&TEXT.to_uppercase())).is_err());
        assert!(read(None, Some(&TEXT.replace('-', ""))).is_err());
        assert!(read(Some(&[0xab; 17]), None).is_err());
        assert!(read(Some(&[0xab; 16]), Some(TEXT)).is_err());
        assert!(read(None, None).is_err());
    }

    #[test]
    fn what_lacks_a_part_or_has_one_out_of_range_is_refused() {
        assert!(SenderCertificate::parse(with(|_| {})).is_ok());
        for device in [None, Some(0), Some(128), Some(258)] {
            assert!(SenderCertificate::parse(with(|content| content.sender_device = device)).is_err());
        }
        assert!(SenderCertificate::parse(with(|content| content.expires = None)).is_err());
        assert!(SenderCertificate::parse(with(|content| content.identity_key = None)).is_err());
        assert!(SenderCertificate::parse(with(|content| content.identity_key = Some(Bytes::new()))).is_err());
        assert!(SenderCertificate::parse(with(|content| content.signer = None)).is_err());
        assert!(SenderCertificate::parse(with(|content| content.signer_id = Some(3))).is_err());
        assert!(SenderCertificate::parse(Bytes::new()).is_err());
        assert!(ServerCertificate::parse(Bytes::new()).is_err());
        assert!(ServerCertificate::parse(Bytes::from_static(b"\x0a\xff")).is_err());
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", signer()), "Signer");
        assert_eq!(format!("{:?}", sender()), "Sender");
        assert_eq!(format!("{:?}", signer().certificate()), "ServerCertificate");
    }
}
