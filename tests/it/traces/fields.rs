//! What clients' deserialisers require of answers. They fail on a missing field, not on an unknown one.

use serde_json::Value;

use crate::support::Answer;

/// How a field has to look.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Text,
    /// A UUID without `PNI:`.
    Uuid,
    Bool,
    Int,
    Array,
    Object,
    /// Absent, null, or of that kind.
    IntOrNone,
    TextOrNone,
}

impl Kind {
    fn fits(self, value: &Value) -> bool {
        match self {
            Self::Text => value.is_string(),
            Self::Uuid => value.as_str().is_some_and(|text| {
                text.len() == 36 && uuid::Uuid::try_parse(text).is_ok_and(|uuid| uuid.to_string() == text)
            }),
            Self::Bool => value.is_boolean(),
            Self::Int => value.as_u64().is_some_and(|value| i64::try_from(value).is_ok()),
            Self::Array => value.is_array(),
            Self::Object => value.is_object(),
            // Waiting times are read as i32.
            Self::IntOrNone => value.is_null() || value.as_u64().is_some_and(|value| i32::try_from(value).is_ok()),
            Self::TextOrNone => value.is_null() || value.is_string(),
        }
    }
}

pub(super) const SESSION: &[(&str, Kind)] = &[
    ("id", Kind::Text),
    ("allowedToRequestCode", Kind::Bool),
    ("verified", Kind::Bool),
    ("nextSms", Kind::IntOrNone),
    ("nextCall", Kind::IntOrNone),
    ("nextVerificationAttempt", Kind::IntOrNone),
    ("requestedInformation", Kind::Array),
];
pub(super) const REGISTRATION: &[(&str, Kind)] = &[
    ("uuid", Kind::Uuid),
    ("pni", Kind::Uuid),
    ("storageCapable", Kind::Bool),
    ("number", Kind::Text),
];
pub(super) const WHOAMI: &[(&str, Kind)] = &[("uuid", Kind::Uuid), ("number", Kind::Text), ("pni", Kind::Uuid)];
pub(super) const KEY_COUNT: &[(&str, Kind)] = &[("count", Kind::Int), ("pqCount", Kind::Int)];
pub(super) const BUNDLES: &[(&str, Kind)] = &[("identityKey", Kind::Text), ("devices", Kind::Array)];
pub(super) const BUNDLE: &[(&str, Kind)] = &[
    ("deviceId", Kind::Int),
    ("registrationId", Kind::Int),
    ("signedPreKey", Kind::Object),
    ("pqPreKey", Kind::Object),
];
pub(super) const SIGNED_KEY: &[(&str, Kind)] = &[
    ("keyId", Kind::Int),
    ("publicKey", Kind::Text),
    ("signature", Kind::Text),
];
pub(super) const SENT: &[(&str, Kind)] = &[("needsSync", Kind::Bool)];
pub(super) const MISMATCHED: &[(&str, Kind)] = &[("missingDevices", Kind::Array), ("extraDevices", Kind::Array)];
pub(super) const STALE: &[(&str, Kind)] = &[("staleDevices", Kind::Array)];
pub(super) const CERTIFICATE: &[(&str, Kind)] = &[("certificate", Kind::Text)];
pub(super) const PROVISIONING_CODE: &[(&str, Kind)] = &[("verificationCode", Kind::Text)];
pub(super) const LINK: &[(&str, Kind)] = &[("uuid", Kind::Uuid), ("pni", Kind::Uuid), ("deviceId", Kind::Int)];
pub(super) const DEVICES: &[(&str, Kind)] = &[("devices", Kind::Array)];
pub(super) const DEVICE: &[(&str, Kind)] = &[
    ("id", Kind::Int),
    ("registrationId", Kind::Int),
    ("createdAtCiphertext", Kind::Text),
    ("lastSeen", Kind::Int),
    ("name", Kind::TextOrNone),
];
pub(super) const PROFILE: &[(&str, Kind)] = &[
    ("capabilities", Kind::Object),
    ("identityKey", Kind::TextOrNone),
    ("name", Kind::TextOrNone),
];
pub(super) const MULTI_RECIPIENT: &[(&str, Kind)] = &[("uuids404", Kind::Array)];
pub(super) const UPLOAD_FORM: &[(&str, Kind)] = &[
    ("cdn", Kind::Int),
    ("key", Kind::Text),
    ("headers", Kind::Object),
    ("signedUploadLocation", Kind::Text),
];
pub(super) const DEVICE_LIMIT: &[(&str, Kind)] = &[("current", Kind::Int), ("max", Kind::Int)];

/// The answer's JSON, which has the fields.
#[track_caller]
pub(super) fn json(answer: &Answer, status: u16, fields: &[(&str, Kind)]) -> Value {
    assert_eq!(answer.status, status, "{answer:?}");
    let json = answer.json();
    check(&json, fields);
    json
}

/// Fails unless the object has the fields.
#[track_caller]
pub(super) fn check(json: &Value, fields: &[(&str, Kind)]) {
    for (name, kind) in fields {
        assert!(kind.fits(&json[name]), "{name} is to be {kind:?}: {json}");
    }
}

/// Fails unless the answer has neither a body nor the type of one.
#[track_caller]
pub(super) fn nothing(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(answer.body.is_empty(), "{answer:?}");
    assert_eq!(answer.header("content-type"), None, "{answer:?}");
}
