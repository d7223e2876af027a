//! What a request shows to prove a device: a password or a token.

use super::{BasicCredentials, BearerToken, MalformedAuthorization};

/// What the `Authorization` header holds.
#[derive(Debug)]
pub enum Credentials {
    /// A user and a password.
    Basic(BasicCredentials),
    /// One of our access tokens, as far as its form tells.
    Bearer(BearerToken),
}

impl Credentials {
    /// Parses the value of the header. Whatever it holds besides is malformed.
    pub fn parse(header: &[u8]) -> Result<Self, MalformedAuthorization> {
        match BasicCredentials::parse(header) {
            Ok(basic) => Ok(Self::Basic(basic)),
            Err(MalformedAuthorization) => BearerToken::parse(header).map(Self::Bearer),
        }
    }
}
