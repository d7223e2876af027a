//! The fallback: looks into storage for what a lost hint left behind.
//!
//! One statement asks for a thousand mailboxes at once, so the cost of a tick follows the number of connections on this
//! node, divided by a thousand. A mailbox that is gone has lost its device: its connection is dismissed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::domain::MailboxId;
use crate::storage::EnvelopeQueue;
use crate::telemetry::metrics;

use super::presence::Presence;

/// Looks every `period` until the token is cancelled.
pub async fn run(period: Duration, queue: Arc<dyn EnvelopeQueue>, presence: Arc<Presence>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        for chunk in presence.mailboxes().chunks(MAILBOXES_PER_STATEMENT) {
            look(queue.as_ref(), &presence, chunk).await;
        }
    }
}

async fn look(queue: &dyn EnvelopeQueue, presence: &Presence, mailboxes: &[MailboxId]) {
    let heads = match queue.heads(mailboxes).await {
        Ok(heads) => heads,
        Err(error) => {
            tracing::warn!(
                cause = error.log_safe_cause(),
                "the fallback tick could not look into storage"
            );
            return;
        }
    };
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
}

const MAILBOXES_PER_STATEMENT: usize = 1000;
