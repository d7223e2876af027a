//! The fallback: looks into storage for what a lost hint left behind.
//!
//! One statement asks for a thousand mailboxes at once, so the cost of a tick follows the number of connections on this
//! node, divided by a thousand. A mailbox that is gone has lost its device, and one whose account is suspended its right: their
//! connections are dismissed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::domain::MailboxId;
use crate::storage::{DeviceStore, EnvelopeQueue, StorageError};
use crate::telemetry::metrics;

use super::presence::Presence;

/// Looks every `period` until the token is cancelled.
pub async fn run(
    period: Duration,
    queue: Arc<dyn EnvelopeQueue>,
    devices: Arc<dyn DeviceStore>,
    presence: Arc<Presence>,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        for chunk in presence.mailboxes().chunks(MAILBOXES_PER_STATEMENT) {
            if let Err(error) = look(&*queue, &*devices, &presence, chunk).await {
                tracing::warn!(
                    cause = error.log_safe_cause(),
                    "the fallback tick could not look into storage"
                );
            }
        }
    }
}

async fn look(
    queue: &dyn EnvelopeQueue,
    devices: &dyn DeviceStore,
    presence: &Presence,
    mailboxes: &[MailboxId],
) -> Result<(), StorageError> {
    let heads = queue.heads(mailboxes).await?;
    let mut missing: HashSet<MailboxId> = mailboxes.iter().copied().collect();
    for head in heads {
        missing.remove(&head.mailbox);
        if presence.head(head.mailbox, head.last) {
            metrics::woken("tick");
        }
    }
    for mailbox in missing {
        presence.gone(mailbox);
    }
    for mailbox in devices.suspended(mailboxes).await? {
        presence.gone(mailbox);
    }
    Ok(())
}

const MAILBOXES_PER_STATEMENT: usize = 1000;
