//! The forms of values in JSON, paths and queries, for the document that describes the interface.
//!
//! A form says what the parser of such a value takes. It is never made: a field names it to say which form its text or
//! number has, `#[schemars(with = "EcPublicKeyText")]`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

macro_rules! forms {
    ($($(#[doc = $doc:literal])* $name:ident = $schema:tt;)*) => {$(
        $(#[doc = $doc])*
        pub enum $name {}

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let mut schema = json_schema!($schema);
                schema.insert("description".to_owned(), concat!($($doc),*).trim().into());
                schema
            }
        }
    )*};
}

forms! {
    /// A UUID, in either case; the server writes lower case.
    UuidText = { "type": "string", "pattern": "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$" };
    /// An ACI is a UUID; a PNI has `PNI:` before it.
    ServiceIdText = { "type": "string", "pattern": "^(PNI:)?[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$" };
    /// 1 to 127, without sign or leading zero.
    DeviceIdText = { "type": "string", "pattern": "^([1-9][0-9]?|1[01][0-9]|12[0-7])$" };
    /// 1 to 127, or `*` for all devices.
    DeviceSelectorText = { "type": "string", "pattern": "^([*]|[1-9][0-9]?|1[01][0-9]|12[0-7])$" };
    /// 1 is the primary.
    DeviceIdNumber = { "type": "integer", "minimum": 1, "maximum": 127 };
    /// One per device and namespace.
    RegistrationIdNumber = { "type": "integer", "minimum": 1, "maximum": 16383 };
    /// Chosen by the client.
    KeyIdNumber = { "type": "integer", "minimum": 0, "maximum": 2147483647 };
    /// What the ciphertext is: 1 of a running session, 3 the first of a session, 6 sealed, 8 a plaintext notice, 0 not said.
    MessageKindNumber = { "enum": [0, 1, 3, 6, 8] };
    /// Milliseconds since 1970.
    Millis = { "type": "integer", "minimum": 0, "maximum": 8640000000000000_u64 };
    /// A phone number in E.164 form.
    NumberText = { "type": "string", "pattern": "^[+][1-9][0-9]{4,14}$" };
    /// An e-mail address in ASCII.
    EmailText = { "type": "string", "pattern": "^[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+([.][A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*@([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?[.])+[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$", "maxLength": 254 };
    /// `aci` or `pni`, in any case.
    IdentityText = { "type": "string", "pattern": "^([aA][cC][iI]|[pP][nN][iI])$" };
    /// `true` or `false`; in any case, anything but `true` is false.
    BoolText = { "type": "string" };
    /// Any text.
    AnyText = { "type": "string" };
    /// Hash of a link token: 32 bytes in URL-safe base64.
    LinkTokenIdText = { "type": "string", "pattern": "^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]=?$" };
    /// Name of a session: 16 bytes in URL-safe base64.
    TokenSessionText = { "type": "string", "pattern": "^[A-Za-z0-9_-]{21}[AQgw](==)?$" };
    /// 16 to 64 visible ASCII characters.
    IdempotencyKeyText = { "type": "string", "minLength": 16, "maxLength": 64, "pattern": "^[!-~]*$" };
    /// 16 bytes in URL-safe base64.
    ProvisioningAddressText = { "type": "string", "pattern": "^[A-Za-z0-9_-]{21}[AQgw](==)?$" };
    /// Bytes in the standard base64 alphabet, with or without padding.
    Base64Text = { "type": "string", "contentEncoding": "base64", "pattern": "^[A-Za-z0-9+/]*={0,2}$" };
    /// 16 bytes in base64.
    Base64Of16 = { "type": "string", "contentEncoding": "base64", "pattern": "^[A-Za-z0-9+/]{21}[AQgw](==)?$" };
    /// 32 bytes in base64.
    Base64Of32 = { "type": "string", "contentEncoding": "base64", "pattern": "^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=?$" };
    /// 33 bytes in base64: 0x05 and a point of Curve25519.
    EcPublicKeyText = { "type": "string", "contentEncoding": "base64", "pattern": "^B[Q-Za-f][A-Za-z0-9+/]{42}$" };
    /// 1569 bytes in base64: 0x08 and a public key of Kyber1024.
    KyberPublicKeyText = { "type": "string", "contentEncoding": "base64", "minLength": 2092, "maxLength": 2092, "pattern": "^C[A-P][A-Za-z0-9+/]+$" };
    /// 64 bytes in base64: XEdDSA over the serialised key.
    SignatureText = { "type": "string", "contentEncoding": "base64", "pattern": "^[A-Za-z0-9+/]{85}[AQgw](==)?$" };
    /// 1 to 96 KiB in base64, framed as a Signal-protocol message of the type that is said beside it.
    ContentText = { "type": "string", "contentEncoding": "base64", "minLength": 2, "maxLength": 131072, "pattern": "^[A-Za-z0-9+/]+={0,2}$" };
    /// At most 225 bytes in base64.
    DeviceNameText = { "type": "string", "contentEncoding": "base64", "maxLength": 300, "pattern": "^[A-Za-z0-9+/]*={0,2}$" };
    /// 64 hexadecimal digits.
    RegistrationLockText = { "type": "string", "pattern": "^[0-9a-fA-F]{64}$" };
    /// 16 bytes in base64, or as an array of numbers.
    AccessKeyValue = { "anyOf": [
        { "type": "string", "contentEncoding": "base64", "pattern": "^[A-Za-z0-9+/]{21}[AQgw](==)?$" },
        { "type": "array", "minItems": 16, "maxItems": 16, "items": { "type": "integer", "minimum": 0, "maximum": 255 } }
    ] };
    /// 32 bytes in URL-safe base64.
    UrlBase64Of32 = { "type": "string", "pattern": "^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]=?$" };
    /// 1 to 128 bytes in URL-safe base64.
    EncryptedUsernameText = { "type": "string", "minLength": 2, "maxLength": 172, "pattern": "^[A-Za-z0-9_-]+={0,2}$" };
    /// 128 bytes in URL-safe base64: a proof of knowing the name behind the hash.
    UsernameProofText = { "type": "string", "pattern": "^[A-Za-z0-9_-]{170}[AEIMQUYcgkosw048]=?$" };
    /// The key of an entry: 32 bytes in URL-safe base64 without padding.
    DataKeyText = { "type": "string", "pattern": "^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$" };
    /// A version or revision; 0 is before the first.
    DataVersionNumber = { "type": "integer", "minimum": 0, "maximum": 9007199254740991_u64 };
    /// A revision, or what an earlier answer gave as `next`.
    DataCursorText = { "type": "string", "pattern": "^[0-9]{1,18}([.][0-9]{1,18})?$" };
    /// 64 hexadecimal digits, derived from a profile key.
    ProfileVersionText = { "type": "string", "pattern": "^[0-9a-fA-F]{64}$" };
    /// 97 bytes in base64.
    CommitmentText = { "type": "string", "contentEncoding": "base64", "pattern": "^[A-Za-z0-9+/]{129}[AQgw](==)?$" };
    /// 81 or 285 bytes in base64.
    ProfileNameText = { "type": "string", "contentEncoding": "base64", "pattern": "^([A-Za-z0-9+/]{108}|[A-Za-z0-9+/]{380})$" };
    /// 156, 282 or 540 bytes in base64, or none.
    AboutText = { "type": "string", "contentEncoding": "base64", "pattern": "^([A-Za-z0-9+/]{208}|[A-Za-z0-9+/]{376}|[A-Za-z0-9+/]{720})?$" };
    /// 60 bytes in base64, or none.
    AboutEmojiText = { "type": "string", "contentEncoding": "base64", "pattern": "^([A-Za-z0-9+/]{80})?$" };
    /// 582 bytes in base64, or none.
    PaymentAddressText = { "type": "string", "contentEncoding": "base64", "pattern": "^([A-Za-z0-9+/]{776})?$" };
    /// 29 bytes in base64, or none.
    PhoneNumberSharingText = { "type": "string", "contentEncoding": "base64", "pattern": "^([A-Za-z0-9+/]{38}[AEIMQUYcgkosw048]=?)?$" };
    /// The first 4 bytes of the SHA-256 of an identity key, in base64.
    FingerprintText = { "type": "string", "contentEncoding": "base64", "pattern": "^[A-Za-z0-9+/]{5}[AQgw](==)?$" };
    /// The id of a verification session: 32 bytes in URL-safe base64.
    SessionIdText = { "type": "string", "pattern": "^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]=?$" };
}
