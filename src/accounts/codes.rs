//! Where verification codes come from: the seam for SMS, e-mail and others.

use async_trait::async_trait;

use crate::auth::Number;

/// How a client wants its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// As text.
    Sms,
    /// Read out.
    Voice,
}

/// The provider will not send a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodeRefused {
    /// Not by this transport.
    #[error("codes are not sent this way")]
    Transport,
    /// Not now.
    #[error("the code could not be sent")]
    Unavailable,
}

/// Sends codes and recognises them.
#[async_trait]
pub trait CodeProvider: Send + Sync {
    /// Sends a code to the number. The number is not kept.
    async fn send(&self, number: &Number, transport: Transport) -> Result<(), CodeRefused>;

    /// Whether this is a right code for the number.
    async fn accepts(&self, number: &Number, code: &str) -> bool;
}

/// The provider of the `open` policy: nothing is sent, and any code of a plausible form is right. Whoever can reach the
/// server can register any number.
#[derive(Clone, Copy, Debug, Default)]
pub struct DevelopmentCodes;

#[async_trait]
impl CodeProvider for DevelopmentCodes {
    async fn send(&self, _number: &Number, _transport: Transport) -> Result<(), CodeRefused> {
        Ok(())
    }

    async fn accepts(&self, _number: &Number, code: &str) -> bool {
        (1..=MAX_CODE_BYTES).contains(&code.len())
    }
}

const MAX_CODE_BYTES: usize = 64;
