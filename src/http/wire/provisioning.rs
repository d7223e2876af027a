//! The one message that a new device gets from the device that vouches for it.

use base64::Engine;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};

use crate::domain::ProvisioningAddress;
use crate::encoding::{BASE64, BASE64_URL};
use crate::http::error::ApiError;
use crate::http::extract::parse_json;

/// The body of `PUT /v1/provisioning/{address}`.
#[derive(Deserialize, JsonSchema)]
pub struct ProvisioningIn {
    /// At most 256 KiB; base64 that may be broken into lines.
    #[schemars(with = "String", length(min = 2, max = 400_000))]
    body: MimeBytes,
}

/// Bytes from base64 that may be broken into lines.
struct MimeBytes(Vec<u8>);

impl<'de> Deserialize<'de> for MimeBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut text = String::deserialize(deserializer)?;
        text.retain(|c| !c.is_ascii_whitespace());
        let bytes = BASE64.decode(text);
        // The decoder's error names a byte of the input, so it is not passed on.
        bytes.map(Self).map_err(|_| de::Error::custom("not base64"))
    }
}

/// Parses the body. What is inside is sealed to the new device and opaque here.
pub fn parse_provisioning(bytes: &[u8]) -> Result<Bytes, ApiError> {
    let ProvisioningIn {
        body: MimeBytes(message),
    } = parse_json(bytes)?;
    if message.is_empty() || message.len() > MAX_MESSAGE {
        return Err(ApiError::bad_request(
            "message_length",
            "a provisioning message has from 1 to 262144 bytes",
        ));
    }
    Ok(message.into())
}

/// An address as the new device is told it: 24 characters, padding included.
pub(crate) fn address_text(address: ProvisioningAddress) -> String {
    format!("{}==", BASE64_URL.encode(address.0))
}

/// The address of a path; `None` if it is none that was ever given out.
pub(crate) fn parse_address(text: &str) -> Option<ProvisioningAddress> {
    let bytes = BASE64_URL.decode(text).ok()?;
    bytes.try_into().ok().map(ProvisioningAddress)
}

/// 256 KiB.
const MAX_MESSAGE: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(body: &serde_json::Value) -> Result<Bytes, ApiError> {
        parse_provisioning(&serde_json::to_vec(body).unwrap())
    }

    #[test]
    fn base64_may_be_padded_or_not_and_broken_into_lines() {
        for text in ["+/9hYg==", "+/9hYg", "+/9h\r\nYg==\r\n", " +/ 9h\tYg="] {
            assert_eq!(
                parse(&json!({ "body": text, "more": null })).unwrap(),
                b"\xfb\xffab"[..]
            );
        }
        for body in [
            json!({ "body": "-_9hYg==" }),
            json!({ "body": "+/9h\u{a0}Yg" }),
            json!({ "body": null }),
            json!({ "body": [1] }),
            json!({}),
        ] {
            assert!(parse(&body).is_err(), "{body}");
        }
    }

    #[test]
    fn a_message_has_from_one_byte_to_256_kib() {
        let body = |length: usize| json!({ "body": BASE64.encode(vec![0; length]) });
        for (length, fits) in [(0, false), (1, true), (262_144, true), (262_145, false)] {
            assert_eq!(parse(&body(length)).is_ok(), fits, "{length}");
        }
    }

    #[test]
    fn addresses_read_as_written() {
        let address = ProvisioningAddress([0xff; 16]);
        let text = address_text(address);
        assert_eq!(text, "_____________________w==");
        for read in [text.as_str(), text.trim_end_matches('=')] {
            assert!(parse_address(read) == Some(address));
        }
        for text in [
            "",
            "w==",
            "/////////////////////w==",
            "_____________________w==A",
            "%5F",
        ] {
            assert!(parse_address(text).is_none(), "{text}");
        }
    }
}
