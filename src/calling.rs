//! Relays for calls: what a device needs to be let in by a TURN server of the operator's.
//!
//! The TURN server and this one share a secret. A user name is the second until which it is good and a random word; its
//! password is the HMAC of all of that under the secret, as coturn's `use-auth-secret` has it. Nothing is stored, nobody is
//! told, and a user name never says whose it is: the TURN server cannot tell two devices of one account from two strangers.

use std::time::Duration;

use base64::Engine;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use zeroize::Zeroizing;

use crate::domain::Timestamp;
use crate::encoding::BASE64;

/// The operator's TURN servers.
pub struct Relays {
    /// `turn:`, `turns:` and `stun:` URLs, as clients take them.
    pub urls: Vec<String>,
    /// How long credentials are good.
    pub ttl: Duration,
    secret: Zeroizing<Vec<u8>>,
}

/// What opens a TURN server for a while.
pub struct RelayCredentials {
    /// The second until which it is good, and a random word.
    pub username: String,
    /// Base64 of the user name's HMAC.
    pub password: String,
}

impl Relays {
    /// Servers that know `secret`.
    pub fn new(urls: Vec<String>, secret: &str, ttl: Duration) -> Self {
        let secret = Zeroizing::new(secret.as_bytes().to_vec());
        Self { urls, ttl, secret }
    }

    /// Credentials that are good from now on. `word` is random and never used twice.
    pub fn credentials(&self, now: Timestamp, word: [u8; 16]) -> RelayCredentials {
        let expires = now.0 / 1000 + i64::try_from(self.ttl.as_secs()).unwrap_or(i64::MAX / 2);
        let username = format!("{expires}:{:032x}", u128::from_be_bytes(word));
        let mut mac = Hmac::<Sha1>::new_from_slice(&self.secret).expect("HMAC takes keys of any length");
        mac.update(username.as_bytes());
        let password = BASE64.encode(mac.finalize().into_bytes());
        RelayCredentials { username, password }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed by `openssl dgst -sha1 -hmac north -binary | base64` over the user name.
    #[test]
    fn credentials_are_those_that_a_turn_server_computes() {
        let relays = Relays::new(vec![], "north", Duration::from_secs(600));
        let credentials = relays.credentials(Timestamp(1_700_000_000_999), [0xa5; 16]);
        assert_eq!(credentials.username, "1700000600:a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5");
        assert_eq!(credentials.password, "xzstu1OwmtXAYUH7XHLHMrYT5MY=");
    }
}
