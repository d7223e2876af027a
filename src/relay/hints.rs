//! What a node does with the hints of others.

use crate::provisioning::Registry;
use crate::storage::{AccountCache, TokenSessions};
use crate::telemetry::metrics;
use crate::wakeup::Hint;

use super::presence::Presence;

/// Acts on a hint, and says what the others are to be told in turn.
pub fn receive_hint(
    hint: Hint,
    presence: &Presence,
    accounts: &AccountCache,
    sessions: &TokenSessions,
    provisioning: &Registry,
) -> Vec<Hint> {
    match hint {
        Hint::Arrived(mailbox, seq) => {
            if presence.hinted(mailbox, seq) {
                metrics::woken("hint");
            }
        }
        Hint::Connected(mailbox, connection) => {
            let newer = presence.displaced(mailbox, connection);
            return newer.into_iter().map(|newer| Hint::Connected(mailbox, newer)).collect();
        }
        Hint::Gone(mailbox) => presence.gone(mailbox),
        Hint::Changed(account) => accounts.forget(account),
        Hint::SessionOver(session) => sessions.over(session),
        Hint::Online(mailbox, envelope) => {
            presence.online(mailbox, envelope);
        }
        Hint::Notice(mailbox, notice) => {
            presence.notice(mailbox, notice);
        }
        Hint::ProvisioningMessage {
            address,
            request,
            message,
        } => provisioning.offered(*address, request, message),
        Hint::ProvisioningTaken { request } => provisioning.taken(request),
        Hint::Missed => {
            accounts.forget_all();
            sessions.forget_all();
            presence.look_all();
            // Devices may have connected twice meanwhile, here and elsewhere.
            let here = presence.connections().into_iter();
            return here
                .map(|(mailbox, connection)| Hint::Connected(mailbox, connection))
                .collect();
        }
    }
    Vec::new()
}
