//! Bytes in JSON: the standard base64 alphabet, with or without padding.

use std::borrow::Cow;

use base64::Engine;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serializer, de};

use crate::encoding::{BASE64, BASE64_UNPADDED};

use super::forms::Base64Text;

/// Bytes read from a base64 string.
#[derive(Clone, PartialEq, Eq)]
pub struct Base64Bytes(pub Vec<u8>);

impl<'de> Deserialize<'de> for Base64Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Base64Bytes;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a base64 string")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Base64Bytes, E> {
                // The decoder's error names a byte of the input, so it is not passed on.
                BASE64
                    .decode(text)
                    .map(Base64Bytes)
                    .map_err(|_| E::custom("not base64"))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

impl JsonSchema for Base64Bytes {
    fn schema_name() -> Cow<'static, str> {
        Base64Text::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        Base64Text::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Base64Text::json_schema(generator)
    }
}

/// Writes padded base64.
pub fn padded<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&BASE64.encode(bytes))
}

/// Writes unpadded base64.
pub fn unpadded<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&BASE64_UNPADDED.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_optional_and_the_alphabet_standard() {
        for (text, bytes) in [
            ("\"-w==\"", None),
            ("\"+w==\"", Some(vec![0xfb])),
            ("\"+w\"", Some(vec![0xfb])),
        ] {
            assert_eq!(
                serde_json::from_str::<Base64Bytes>(text).ok().map(|read| read.0),
                bytes,
                "{text}"
            );
        }
        assert_eq!(
            serde_json::from_str::<Base64Bytes>("\"\\u002bw\"")
                .ok()
                .map(|read| read.0),
            Some(vec![0xfb])
        );
        assert!(serde_json::from_str::<Base64Bytes>("[251]").is_err());
    }
}
