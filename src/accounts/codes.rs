//! Verification codes that are sent: six digits, drawn here, delivered by somebody else.
//!
//! Whoever delivers is told the code and where it goes, and judges nothing: which code is right is known to the database
//! alone, as a hash.

use std::fmt;

use async_trait::async_trait;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::auth::Contact;

use super::invites::below;

/// How a client wants its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// As text: by SMS, or by e-mail where the session has an address.
    Sms,
    /// Read out.
    Voice,
}

/// A code of six digits.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct SentCode([u8; DIGITS]);

impl SentCode {
    /// A random one.
    pub fn draw() -> Self {
        let mut code = Self([0; DIGITS]);
        for digit in &mut code.0 {
            *digit = b"0123456789"[below(10)];
        }
        code
    }

    /// Reads what somebody typed; `None` if no code is like that.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let code = Self(text.trim().as_bytes().try_into().ok()?);
        code.0.iter().all(u8::is_ascii_digit).then_some(code)
    }

    /// Its digits.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("digits are ASCII")
    }
}

impl fmt::Debug for SentCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SentCode")
    }
}

/// A code was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodeRefused {
    /// Not there, today or tomorrow.
    #[error("no code can be sent there")]
    Rejected,
    /// Not now.
    #[error("the code could not be sent")]
    Unavailable,
    /// Too many are on their way.
    #[error("too many codes are being sent")]
    Busy,
}

/// Delivers codes.
#[async_trait]
pub trait CodeSender: Send + Sync {
    /// Whether codes go there that way.
    fn sends(&self, to: &Contact, transport: Transport) -> bool;

    /// Delivers a code, and forgets it and where it went. Returns once it is in the hands of whoever carries it on.
    async fn send(&self, to: &Contact, transport: Transport, code: &SentCode) -> Result<(), CodeRefused>;
}

const DIGITS: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_six_digits_and_read_as_they_are_written() {
        for _ in 0..100 {
            let code = SentCode::draw();
            assert_eq!(code.as_str().len(), 6);
            assert!(SentCode::parse(code.as_str()) == Some(code.clone()));
            assert!(SentCode::parse(&format!(" {}\n", code.as_str())) == Some(code));
        }
        for text in ["", "12345", "1234567", "12345a", "１２３４５６", "+12345", "123 456"] {
            assert!(SentCode::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn codes_are_spread_over_all_there_are() {
        let codes: std::collections::BTreeSet<_> = (0..1_000).map(|_| SentCode::draw().as_str().to_owned()).collect();
        assert!(codes.len() > 990, "{} of 1,000 differ", codes.len());
        assert!(codes.iter().any(|code| code.starts_with('0')));
    }
}
