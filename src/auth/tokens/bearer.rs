//! The `Authorization: Bearer` header (RFC 6750) with one of our access tokens.

use jsonwebtoken::{Algorithm, decode_header};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::auth::MalformedAuthorization;

/// An access token that has the form of one. Nothing of it is proven yet.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct BearerToken {
    token: String,
    #[zeroize(skip)]
    kid: String,
}

impl BearerToken {
    /// Parses the value of the header. What is not of the form of our tokens is refused here, before any key is looked for.
    pub fn parse(header: &[u8]) -> Result<Self, MalformedAuthorization> {
        let header = std::str::from_utf8(header).map_err(|_| MalformedAuthorization)?;
        let (scheme, token) = header.trim().split_once(' ').ok_or(MalformedAuthorization)?;
        let token = token.trim_start();
        if !scheme.eq_ignore_ascii_case("bearer") || token.len() > MAX_BYTES || !is_three_parts(token) {
            return Err(MalformedAuthorization);
        }
        let header = decode_header(token).map_err(|_| MalformedAuthorization)?;
        match (header.alg, header.kid) {
            (Algorithm::EdDSA, Some(kid)) if kid.len() <= MAX_KID => Ok(Self {
                token: token.to_owned(),
                kid,
            }),
            _ => Err(MalformedAuthorization),
        }
    }

    /// Which key it says that it is signed with.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    pub(super) fn as_str(&self) -> &str {
        &self.token
    }
}

impl std::fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BearerToken")
    }
}

fn is_three_parts(token: &str) -> bool {
    let part = |part: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !part.is_empty() && part.bytes().all(allowed)
    };
    token.split('.').count() == 3 && token.split('.').all(part)
}

/// Ours have less than half of it.
const MAX_BYTES: usize = 2048;
/// Ours are of 43 signs.
const MAX_KID: usize = 64;
