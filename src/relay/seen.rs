//! Connections that last: the day on which their devices were last seen goes on, although they do not ask for anything.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::domain::Clock;
use crate::storage::DeviceStore;

use super::presence::Presence;

/// Keeps the day of every connection now and then, until the token is cancelled.
pub async fn run(
    devices: Arc<dyn DeviceStore>,
    presence: Arc<Presence>,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        for chunk in presence.mailboxes().chunks(MAILBOXES_PER_STATEMENT) {
            if let Err(error) = devices.seen(chunk, clock.now().day()).await {
                tracing::warn!(
                    cause = error.log_safe_cause(),
                    "the day of connected devices could not be kept"
                );
            }
        }
    }
}

/// Often enough for a matter of days; most times there is nothing to write.
const PERIOD: Duration = Duration::from_secs(60 * 60);
const MAILBOXES_PER_STATEMENT: usize = 1000;
