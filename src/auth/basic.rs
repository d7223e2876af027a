//! The `Authorization: Basic` header (RFC 7617) as Signal clients use it.
//!
//! The user is an account with or without a device (`<aci>`, `<aci>.2`), or a number in E.164 form before there is an
//! account. The password is everything after the first colon.

use base64::Engine;
use keys_schema::{Aci, ServiceId};
use zeroize::Zeroizing;

use crate::domain::{DeviceId, ProtocolAddress};
use crate::encoding::BASE64;

use super::{Number, Password};

/// Who a request says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BasicUser {
    /// A device of an account.
    Device(ProtocolAddress),
    /// A number that is being registered.
    Number(Number),
}

/// A user and the password to prove it.
#[derive(Clone, Debug)]
pub struct BasicCredentials {
    /// Who.
    pub user: BasicUser,
    /// The proof.
    pub password: Password,
}

/// The header is not one that any client could have meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the authorization header is not Basic credentials of a device or a number")]
pub struct MalformedAuthorization;

impl BasicCredentials {
    /// Parses the value of the header.
    pub fn parse(header: &[u8]) -> Result<Self, MalformedAuthorization> {
        let (user, password) = split(header)?;
        let user = std::str::from_utf8(&user).map_err(|_| MalformedAuthorization)?;
        Ok(Self {
            user: BasicUser::parse(user)?,
            password,
        })
    }

    /// The password alone, whoever the user is: a device that is being linked has no name yet.
    pub fn parse_password(header: &[u8]) -> Result<Password, MalformedAuthorization> {
        split(header).map(|(_, password)| password)
    }
}

/// User and password, which the first colon parts.
fn split(header: &[u8]) -> Result<(Vec<u8>, Password), MalformedAuthorization> {
    let header = std::str::from_utf8(header).map_err(|_| MalformedAuthorization)?;
    let (scheme, encoded) = header.trim().split_once(' ').ok_or(MalformedAuthorization)?;
    if !scheme.eq_ignore_ascii_case("basic") || encoded.len() > MAX_ENCODED {
        return Err(MalformedAuthorization);
    }
    let mut decoded = Zeroizing::new(BASE64.decode(encoded.trim()).map_err(|_| MalformedAuthorization)?);
    let colon = decoded
        .iter()
        .position(|byte| *byte == b':')
        .ok_or(MalformedAuthorization)?;
    let password = Password::new(&decoded[colon + 1..]).ok_or(MalformedAuthorization)?;
    decoded.truncate(colon);
    Ok((decoded.to_vec(), password))
}

impl BasicUser {
    fn parse(user: &str) -> Result<Self, MalformedAuthorization> {
        if user.starts_with('+') {
            return Number::parse(user)
                .map(Self::Number)
                .map_err(|_| MalformedAuthorization);
        }
        let (account, device_id) = match user.split_once('.') {
            Some((account, device)) => (account, DeviceId::parse(device).map_err(|_| MalformedAuthorization)?),
            None => (user, DeviceId::PRIMARY),
        };
        let aci: Aci = match ServiceId::parse(account) {
            Ok(ServiceId::Aci(aci)) => aci,
            _ => return Err(MalformedAuthorization),
        };
        Ok(Self::Device(ProtocolAddress { aci, device_id }))
    }
}

/// A user, a colon and a password of the greatest length, in base64, and then some.
const MAX_ENCODED: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    const ACI: &str = "256f1cbe-cf34-4e97-9a77-d969199ffb1b";

    fn parse(user_and_password: &str) -> Result<BasicCredentials, MalformedAuthorization> {
        BasicCredentials::parse(format!("Basic {}", BASE64.encode(user_and_password)).as_bytes())
    }

    fn device(user: &str) -> u8 {
        match parse(&format!("{user}:password")).unwrap().user {
            BasicUser::Device(address) => {
                assert_eq!(address.aci.to_string(), ACI);
                address.device_id.get()
            }
            BasicUser::Number(_) => panic!("a number"),
        }
    }

    #[test]
    fn no_device_means_the_primary() {
        assert_eq!(device(ACI), 1);
        assert_eq!(device(&format!("{ACI}.1")), 1);
        assert_eq!(device(&format!("{ACI}.127")), 127);
    }

    #[test]
    fn the_password_is_all_after_the_first_colon() {
        let credentials = parse(&format!("{ACI}:pass:word:")).unwrap();
        assert_eq!(credentials.password.as_bytes(), b"pass:word:");
    }

    #[test]
    fn a_number_is_a_user_too() {
        let user = parse("+15550100001:password").unwrap().user;
        assert_eq!(user, BasicUser::Number(Number::parse("+15550100001").unwrap()));
    }

    #[test]
    fn a_password_may_be_read_whoever_the_user_is() {
        for user in ["", "nobody", "+15550100001", "\u{e9}"] {
            let header = format!("Basic {}", BASE64.encode(format!("{user}:pass:word")));
            let password = BasicCredentials::parse_password(header.as_bytes()).unwrap();
            assert_eq!(password.as_bytes(), b"pass:word");
        }
        for header in [
            &b"Basic bm9ib2R5"[..],
            b"Basic bm9ib2R5OnNob3J0",
            b"Bearer bm9ib2R5OnBhc3N3b3Jk",
        ] {
            assert!(BasicCredentials::parse_password(header).is_err());
        }
    }

    #[test]
    fn the_scheme_is_case_insensitive_and_padding_optional() {
        let encoded = BASE64.encode(format!("{ACI}:passwords"));
        for header in [
            format!("basic {encoded}"),
            format!("BASIC {}", encoded.trim_end_matches('=')),
        ] {
            assert!(BasicCredentials::parse(header.as_bytes()).is_ok(), "{header}");
        }
    }

    #[test]
    fn refuses_what_no_client_means() {
        for user in [
            "",
            "x",
            "1",
            &format!("{ACI}.0"),
            &format!("{ACI}.128"),
            &format!("{ACI}.1.1"),
            "+1x",
            &format!("PNI:{ACI}"),
            &format!("{{{ACI}}}"),
        ] {
            assert!(parse(&format!("{user}:password")).is_err(), "{user:?}");
        }
        for header in [
            &b""[..],
            b"Basic",
            b"Basic ",
            b"Basic !!!!",
            b"Bearer abc",
            b"\xff\xfe",
            b"Basic YWJj",
        ] {
            assert!(BasicCredentials::parse(header).is_err(), "{header:?}");
        }
        assert!(parse(&format!("{ACI}:short")).is_err());
        assert!(parse(&format!("{ACI}:{}", "x".repeat(257))).is_err());
    }
}
