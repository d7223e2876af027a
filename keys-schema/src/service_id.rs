//! Names of accounts: an ACI, or a PNI.
//!
//! Both are UUIDs and every account has one of the first kind, so the kind must survive each encoding. There are three:
//! the string of paths and JSON, the compact bytes of envelopes, and the fixed-width bytes of multi-recipient messages.

use std::fmt;

use bytes::Bytes;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use crate::DecodeError;
use crate::opaque_debug::opaque_debug;

/// An account's own identifier (libsignal's ACI).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Aci(Uuid);

/// An account's identifier under its phone number (libsignal's PNI).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pni(Uuid);

/// Either identifier of an account, with its kind. All ACIs sort before all PNIs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ServiceId {
    /// The account's own identifier.
    Aci(Aci),
    /// The account's identifier under its phone number.
    Pni(Pni),
}

impl Aci {
    /// Takes a UUID for an ACI.
    #[must_use]
    pub const fn new(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The UUID alone, as databases store it.
    #[must_use]
    pub const fn as_uuid(&self) -> &Uuid {
        &self.0
    }

    /// The UUID as 16 big-endian bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl Pni {
    /// Takes a UUID for a PNI.
    #[must_use]
    pub const fn new(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The UUID alone, as databases store it.
    #[must_use]
    pub const fn as_uuid(&self) -> &Uuid {
        &self.0
    }

    /// The UUID as 16 big-endian bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl ServiceId {
    /// Reads the string form: a hyphenated UUID of 36 characters in either case for an ACI, `PNI:` in capitals and such
    /// a UUID for a PNI.
    ///
    /// # Errors
    ///
    /// [`DecodeError::ServiceIdForm`] for any other spelling, including the braced, simple and URN forms of a UUID and
    /// surrounding whitespace.
    pub fn parse(text: &str) -> Result<Self, DecodeError> {
        match text.strip_prefix(PNI_PREFIX) {
            Some(uuid) => Ok(Self::Pni(Pni(parse_hyphenated(uuid)?))),
            None => Ok(Self::Aci(Aci(parse_hyphenated(text)?))),
        }
    }

    /// Reads the compact form: 16 bytes for an ACI, 0x01 and 16 bytes for a PNI.
    ///
    /// # Errors
    ///
    /// [`DecodeError::ServiceIdForm`] for anything else. An ACI in the fixed-width form is refused too, so that each
    /// identifier has one compact encoding.
    pub fn from_compact(bytes: &[u8]) -> Result<Self, DecodeError> {
        if let Ok(uuid) = <[u8; 16]>::try_from(bytes) {
            return Ok(Self::Aci(Aci(Uuid::from_bytes(uuid))));
        }
        let fixed_width = bytes.try_into().map_err(|_| DecodeError::ServiceIdForm)?;
        Self::from_fixed_width(fixed_width).and_then(|id| match id {
            Self::Aci(_) => Err(DecodeError::ServiceIdForm),
            Self::Pni(_) => Ok(id),
        })
    }

    /// The compact form, as [`from_compact`](Self::from_compact) reads it.
    #[must_use]
    pub fn to_compact(&self) -> CompactServiceId {
        CompactServiceId(self.to_fixed_width())
    }

    /// Reads the fixed-width form: 0x00 for an ACI or 0x01 for a PNI, then 16 bytes.
    ///
    /// # Errors
    ///
    /// [`DecodeError::ServiceIdForm`] for any other first byte.
    pub fn from_fixed_width(bytes: &[u8; 17]) -> Result<Self, DecodeError> {
        let [kind, uuid @ ..] = *bytes;
        let uuid = Uuid::from_bytes(uuid);
        match kind {
            ACI_KIND => Ok(Self::Aci(Aci(uuid))),
            PNI_KIND => Ok(Self::Pni(Pni(uuid))),
            _ => Err(DecodeError::ServiceIdForm),
        }
    }

    /// The fixed-width form, as [`from_fixed_width`](Self::from_fixed_width) reads it.
    #[must_use]
    pub fn to_fixed_width(&self) -> [u8; 17] {
        let (kind, uuid) = match self {
            Self::Aci(aci) => (ACI_KIND, aci.as_bytes()),
            Self::Pni(pni) => (PNI_KIND, pni.as_bytes()),
        };
        let mut bytes = [kind; 17];
        bytes[1..].copy_from_slice(uuid);
        bytes
    }

    /// The UUID without its kind. Not an identity by itself: an ACI and a PNI may share it.
    #[must_use]
    pub const fn as_uuid(&self) -> &Uuid {
        match self {
            Self::Aci(aci) => aci.as_uuid(),
            Self::Pni(pni) => pni.as_uuid(),
        }
    }

    /// Whether this is a PNI.
    #[must_use]
    pub const fn is_pni(&self) -> bool {
        matches!(self, Self::Pni(_))
    }
}

/// The compact bytes of a [`ServiceId`]: 16 for an ACI, 17 for a PNI.
///
/// Held as the fixed-width form, of which the compact form of an ACI is the tail.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CompactServiceId([u8; 17]);

impl CompactServiceId {
    /// The 16 or 17 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            [ACI_KIND, uuid @ ..] => uuid,
            prefixed => prefixed,
        }
    }
}

impl AsRef<[u8]> for CompactServiceId {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl From<CompactServiceId> for Bytes {
    fn from(id: CompactServiceId) -> Self {
        Self::copy_from_slice(id.as_bytes())
    }
}

impl From<Aci> for ServiceId {
    fn from(aci: Aci) -> Self {
        Self::Aci(aci)
    }
}

impl From<Pni> for ServiceId {
    fn from(pni: Pni) -> Self {
        Self::Pni(pni)
    }
}

/// The bare lower-case hyphenated UUID.
impl fmt::Display for Aci {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.0.as_hyphenated(), f)
    }
}

/// The bare lower-case hyphenated UUID, as JSON's `pni` fields want it. The prefixed form is [`ServiceId`]'s.
impl fmt::Display for Pni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.0.as_hyphenated(), f)
    }
}

/// The string form, as [`ServiceId::parse`] reads it, in lower case.
impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aci(aci) => fmt::Display::fmt(aci, f),
            Self::Pni(pni) => write!(f, "{PNI_PREFIX}{pni}"),
        }
    }
}

opaque_debug!(Aci, Pni, ServiceId, CompactServiceId);

const PNI_PREFIX: &str = "PNI:";
const ACI_KIND: u8 = 0x00;
const PNI_KIND: u8 = 0x01;

// `Uuid`'s own parser would also take the braced, simple and URN forms.
fn parse_hyphenated(text: &str) -> Result<Uuid, DecodeError> {
    match text.parse::<Hyphenated>() {
        Ok(uuid) => Ok(uuid.into_uuid()),
        Err(_) => Err(DecodeError::ServiceIdForm),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "00112233-4455-6677-8899-aabbccddeeff";
    const UUID: [u8; 16] = [
        0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff,
    ];

    fn aci() -> ServiceId {
        Aci::new(Uuid::from_bytes(UUID)).into()
    }

    fn pni() -> ServiceId {
        Pni::new(Uuid::from_bytes(UUID)).into()
    }

    fn prefixed(kind: u8) -> [u8; 17] {
        let mut bytes = [kind; 17];
        bytes[1..].copy_from_slice(&UUID);
        bytes
    }

    #[test]
    fn strings_are_the_wire_form() {
        assert_eq!(aci().to_string(), TEXT);
        assert_eq!(pni().to_string(), format!("PNI:{TEXT}"));
        assert_eq!(ServiceId::parse(TEXT), Ok(aci()));
        assert_eq!(ServiceId::parse(&format!("PNI:{TEXT}")), Ok(pni()));
    }

    #[test]
    fn a_pni_alone_displays_without_prefix() {
        assert_eq!(Pni::new(Uuid::from_bytes(UUID)).to_string(), TEXT);
        assert_eq!(Aci::new(Uuid::from_bytes(UUID)).to_string(), TEXT);
    }

    #[test]
    fn uuid_digits_may_be_upper_case_and_come_out_lower() {
        let upper = TEXT.to_uppercase();
        assert_eq!(ServiceId::parse(&upper), Ok(aci()));
        assert_eq!(ServiceId::parse(&format!("PNI:{upper}")), Ok(pni()));
        assert_eq!(ServiceId::parse(&upper).expect("parses").to_string(), TEXT);
    }

    #[test]
    fn refuses_every_other_spelling() {
        let simple = TEXT.replace('-', "");
        for text in [
            String::new(),
            "PNI:".to_owned(),
            "PNI".to_owned(),
            simple.clone(),
            format!("PNI:{simple}"),
            format!("{{{TEXT}}}"),
            format!("PNI:{{{TEXT}}}"),
            format!("urn:uuid:{TEXT}"),
            format!("PNI:urn:uuid:{TEXT}"),
            format!("pni:{TEXT}"),
            format!("Pni:{TEXT}"),
            format!("ACI:{TEXT}"),
            format!("PNI:PNI:{TEXT}"),
            format!("PNI: {TEXT}"),
            format!("PNI%3A{TEXT}"),
            format!(" {TEXT}"),
            format!("{TEXT} "),
            format!("{TEXT}\n"),
            format!("{TEXT}\0"),
            TEXT.replace('-', "_"),
            TEXT.replace('f', "g"),
            TEXT[1..].to_owned(),
            format!("0{TEXT}"),
            // 36 characters with the hyphens elsewhere.
            "001122334-455-6677-8899-aabbccddeeff".to_owned(),
            "+0112233-4455-6677-8899-aabbccddeeff".to_owned(),
            // 36 bytes, 35 characters.
            TEXT.replace("ff", "\u{e9}"),
        ] {
            assert_eq!(ServiceId::parse(&text), Err(DecodeError::ServiceIdForm), "{text:?}");
        }
    }

    #[test]
    fn compact_bytes_leave_out_the_kind_of_an_aci() {
        assert_eq!(aci().to_compact().as_bytes(), UUID);
        assert_eq!(pni().to_compact().as_bytes(), prefixed(0x01));
        assert_eq!(ServiceId::from_compact(&UUID), Ok(aci()));
        assert_eq!(ServiceId::from_compact(&prefixed(0x01)), Ok(pni()));
        assert_eq!(Bytes::from(pni().to_compact()), prefixed(0x01).as_slice());
    }

    #[test]
    fn an_aci_beginning_with_the_pni_kind_keeps_its_kind() {
        let id = ServiceId::from(Aci::new(Uuid::from_bytes([0x01; 16])));
        assert_eq!(ServiceId::from_compact(id.to_compact().as_bytes()), Ok(id));
        assert_eq!(ServiceId::from_fixed_width(&id.to_fixed_width()), Ok(id));
    }

    #[test]
    fn compact_bytes_have_one_form_for_each_id() {
        assert_eq!(
            ServiceId::from_compact(&prefixed(0x00)),
            Err(DecodeError::ServiceIdForm)
        );
        for length in (0..40).filter(|length| !matches!(length, 16 | 17)) {
            assert_eq!(
                ServiceId::from_compact(&vec![0x01; length]),
                Err(DecodeError::ServiceIdForm)
            );
        }
    }

    #[test]
    fn fixed_width_bytes_begin_with_the_kind() {
        assert_eq!(aci().to_fixed_width(), prefixed(0x00));
        assert_eq!(pni().to_fixed_width(), prefixed(0x01));
        assert_eq!(ServiceId::from_fixed_width(&prefixed(0x00)), Ok(aci()));
        assert_eq!(ServiceId::from_fixed_width(&prefixed(0x01)), Ok(pni()));
        for kind in 0x02..=0xff {
            assert_eq!(
                ServiceId::from_fixed_width(&prefixed(kind)),
                Err(DecodeError::ServiceIdForm)
            );
        }
    }

    #[test]
    fn the_kind_is_part_of_the_identity() {
        assert_ne!(aci(), pni());
        assert_eq!(aci().as_uuid(), pni().as_uuid());
        assert!(pni().is_pni());
        assert!(!aci().is_pni());
    }

    #[test]
    fn debug_shows_no_identifier() {
        assert_eq!(format!("{:?}", aci()), "ServiceId");
        assert_eq!(format!("{:?}", Aci::new(Uuid::from_bytes(UUID))), "Aci");
        assert_eq!(format!("{:?}", Pni::new(Uuid::from_bytes(UUID))), "Pni");
        assert_eq!(
            format!("{:#?}", Some(pni().to_compact())),
            "Some(\n    CompactServiceId,\n)"
        );
    }
}
