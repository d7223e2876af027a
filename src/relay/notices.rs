//! Notices: what the server itself has to tell a device that is connected.
//!
//! A notice is pushed on the device's own socket, on whichever node that is, and stored nowhere: one that finds no
//! connection is dropped. It is no envelope: it has no number, takes no place among those under way, and no answer to it
//! means anything, since the clients there are answer what they do not know with 400 or not at all. A connection holds at
//! most one of each sort, the newest, and hears that keys are low at most once an hour for each identity.

use crate::domain::MailboxId;
use crate::telemetry::metrics;
use crate::wakeup::Hint;

pub use crate::domain::Notice;

use super::Relay;

impl Relay {
    /// Tells the device, if it is connected to any node.
    pub fn notify(&self, mailbox: MailboxId, notice: Notice) {
        metrics::notice(match notice {
            Notice::PreKeysLow { .. } => "prekeys_low",
            Notice::SessionRevoked => "session_revoked",
        });
        if !self.presence.notice(mailbox, notice) && self.bus.reaches_others() {
            self.bus.publish(vec![Hint::Notice(mailbox, notice)]);
        }
    }

    /// Whether a notice to the device may find it.
    pub fn may_hear(&self, mailbox: MailboxId) -> bool {
        self.presence.is_here(mailbox) || self.bus.reaches_others()
    }
}
