//! The carrier of a developer's machine: codes go to standard output. Not to the log, which may be kept, and without where
//! they would go to.

use std::io::Write;

use async_trait::async_trait;

use super::{Carrier, Failed, Message};

/// Writes codes to standard output.
#[derive(Clone, Copy, Debug, Default)]
pub struct Log;

#[async_trait]
impl Carrier for Log {
    fn name(&self) -> &'static str {
        "log"
    }

    fn speaks(&self) -> bool {
        true
    }

    async fn carry(&self, message: &Message<'_>) -> Result<(), Failed> {
        let mut out = std::io::stdout().lock();
        // Nobody reading it is no reason to fail.
        let _ = writeln!(out, "verification code: {}", message.code).and_then(|()| out.flush());
        Ok(())
    }
}
