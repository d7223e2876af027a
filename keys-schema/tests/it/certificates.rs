//! The official library's certificates, read and made again.

use bytes::Bytes;
use keys_schema::certificate::{Sender, SenderCertificate, ServerCertificate, Signer};
use keys_schema::{Aci, EcPublicKey, PrivateKey, ServiceId, xeddsa};
use prost::Message;
use serde_json::Value;

use crate::vectors::{bytes, flag, identity, load, text};

#[test]
fn official_chains_are_valid_as_the_library_says() {
    let vectors = load();
    let chain = &vectors["senderCertificate"];
    let official = &chain["officialValidate"];
    let (root, expires) = (key(&chain["trustRootPublic"]), expiry(chain));
    for variant in VARIANTS {
        let read = SenderCertificate::parse(bytes(&chain[variant]["serialized"]).into()).expect("parses");
        assert_eq!(read.is_valid(&root, expires - 1), flag(&official["ok"]));
        assert_eq!(read.is_valid(&root, expires), flag(&official["atExpiry"]));
        assert_eq!(read.is_valid(&root, expires + 1), flag(&official["afterExpiry"]));
        let other_root = key(&vectors["identities"][0]["publicKey"]);
        assert_eq!(read.is_valid(&other_root, expires - 1), flag(&official["otherRoot"]));
        assert_eq!(read.expires_ms(), expires);
        assert!(*read.sender() == sender(chain, variant));
        assert_eq!(read.serialized(), bytes(&chain[variant]["serialized"]));
        assert_eq!(read.signer().serialized(), bytes(&chain["serverCertificate"]));
    }
}

#[test]
fn private_keys_have_the_public_halves_that_the_library_gives_them() {
    let vectors = load();
    let chain = &vectors["senderCertificate"];
    for name in ["trustRoot", "serverKey"] {
        let private = private_key(&chain[format!("{name}Private")]);
        assert!(private.public_key() == key(&chain[format!("{name}Public")]));
    }
    let mut signs = [0, 0];
    for entry in vectors["identities"].as_array().expect("a list") {
        let private = private_key(&entry["privateKey"]);
        let public = identity(&entry["publicKey"]);
        assert!(private.public_key() == *public.as_ec());
        let signature = xeddsa::sign(&private, b"message", &[7; 64]);
        assert!(xeddsa::verify(&public, b"message", &signature));
        signs[usize::from(signature.as_bytes()[63] >> 7)] += 1;
    }
    assert!(signs[0] > 0 && signs[1] > 0, "both signs occur: {signs:?}");
}

#[test]
fn server_certificates_made_here_differ_from_official_ones_in_the_signature_alone() {
    let vectors = load();
    let chain = &vectors["senderCertificate"];
    let made = server_certificate(chain).serialized();
    let official = bytes(&chain["serverCertificate"]);
    assert_eq!(made.len(), official.len());
    assert_eq!(made[..made.len() - 64], official[..official.len() - 64]);
    assert_ne!(made, official);
}

/// The library wrote the sender's id as a string, which is field 6; here it is field 7, the bytes, and the last one.
#[test]
fn sender_certificates_made_here_sign_the_official_bytes_but_for_the_form_of_the_id() {
    let vectors = load();
    let chain = &vectors["senderCertificate"];
    let official_signer = ServerCertificate::parse(bytes(&chain["serverCertificate"]).into()).expect("parses");
    let signer = Signer::new(official_signer, private_key(&chain["serverKeyPrivate"])).expect("a pair");
    for variant in VARIANTS {
        let sender = sender(chain, variant);
        let made = signer.issue(sender.clone(), expiry(chain), &[7; 64]);
        assert!(made.is_valid(&key(&chain["trustRootPublic"]), expiry(chain)));
        let made = keys_schema::proto::SenderCertificate::decode(made.serialized()).expect("decodes");
        let mut expected = bytes(&chain[variant]["certificateData"]);
        expected.truncate(expected.len() - 38);
        expected.extend_from_slice(&[0x3a, 16]);
        expected.extend_from_slice(sender.aci.as_bytes());
        assert_eq!(made.certificate, Some(Bytes::from(expected)));
    }
}

const VARIANTS: [&str; 2] = ["withoutE164", "withE164"];

fn server_certificate(chain: &Value) -> ServerCertificate {
    let id = u32::try_from(chain["serverKeyId"].as_u64().expect("a number")).expect("32 bits");
    let root = private_key(&chain["trustRootPrivate"]);
    let made = ServerCertificate::issue(id, key(&chain["serverKeyPublic"]), &root, &[7; 64]).expect("not revoked");
    assert!(made.is_signed_by(&key(&chain["trustRootPublic"])));
    made
}

fn sender(chain: &Value, variant: &str) -> Sender {
    let Ok(ServiceId::Aci(aci)) = ServiceId::parse(text(&chain["sender"]["serviceId"])) else {
        panic!("an ACI");
    };
    Sender {
        aci: Aci::new(*aci.as_uuid()),
        device_id: u8::try_from(chain["sender"]["deviceId"].as_u64().expect("a number")).expect("a device"),
        identity_key: identity(&chain["sender"]["identityKey"]),
        e164: chain[variant]["e164"].as_str().map(str::to_owned),
    }
}

fn expiry(chain: &Value) -> u64 {
    chain["expirationMs"].as_u64().expect("a number")
}

fn key(value: &Value) -> EcPublicKey {
    EcPublicKey::parse(&bytes(value)).expect("a key")
}

fn private_key(value: &Value) -> PrivateKey {
    let private = bytes(value).try_into().expect("32 bytes");
    let key = PrivateKey::from_bytes(&private);
    assert_eq!(*key.as_bytes(), private, "the library clamps as we do");
    key
}
