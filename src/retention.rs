//! Drops what has had its time: envelopes nobody fetched, verification sessions nobody finished.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::domain::Clock;
use crate::storage::{Storage, StorageError};
use crate::telemetry::metrics;

/// Sweeps now and then every [`PERIOD`], until the token is cancelled.
pub async fn run(storage: Storage, clock: Arc<dyn Clock>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(PERIOD);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        match sweep(&storage, clock.as_ref()).await {
            Ok((envelopes, sessions)) => tracing::debug!(envelopes, sessions, "swept what had expired"),
            Err(error) => tracing::warn!(cause = error.log_safe_cause(), "expired rows could not be swept"),
        }
    }
}

/// Drops everything that has expired, in transactions small enough to let others through. Returns how many envelopes and
/// sessions went.
pub async fn sweep(storage: &Storage, clock: &dyn Clock) -> Result<(u64, u64), StorageError> {
    let mut envelopes = 0;
    loop {
        let dropped = storage.queue.expire(clock.now().day(), ROWS_PER_TRANSACTION).await?;
        envelopes += dropped;
        metrics::expired("envelope", dropped);
        if dropped < u64::from(ROWS_PER_TRANSACTION) {
            break;
        }
        tokio::task::yield_now().await;
    }
    let sessions = storage.accounts.expire_sessions(clock.now()).await?;
    metrics::expired("verification_session", sessions);
    Ok((envelopes, sessions))
}

/// How often expired rows are looked for. On SQLite a sweep also empties the write-ahead log, so what was deleted is gone
/// from the disk within about this time.
pub const PERIOD: Duration = Duration::from_secs(60);
const ROWS_PER_TRANSACTION: u32 = 1000;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::domain::{Batch, Copy, Day, Delivery, Enqueued, MailboxId, Timestamp};
    use crate::storage::conformance::fixtures::register;
    use crate::storage::testing::{ROOMY, sqlite};

    struct Midnight(Day);

    impl Clock for Midnight {
        fn now(&self) -> Timestamp {
            Timestamp(i64::from(self.0.0) * 24 * 60 * 60 * 1000)
        }
    }

    #[tokio::test]
    async fn envelopes_go_on_their_day_however_many_and_not_before() {
        let database = sqlite(ROOMY).await.unwrap();
        register(&database, 1, 10).await;
        let storage = database.storage();
        let more_than_one_transaction = ROWS_PER_TRANSACTION + 1;
        let deliveries = (0..more_than_one_transaction).map(|_| Delivery {
            copies: vec![Copy {
                mailbox: MailboxId(10),
                content: Bytes::from_static(b"ciphertext"),
            }],
            expires: Day(131),
        });
        let batch = Batch {
            deliveries: deliveries.collect(),
            acknowledgements: vec![],
        };
        let outcomes = storage.queue.commit(&batch).await.unwrap();
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Enqueued::At(_))));

        assert_eq!(sweep(&storage, &Midnight(Day(130))).await.unwrap().0, 0);
        assert_eq!(
            sweep(&storage, &Midnight(Day(131))).await.unwrap().0,
            u64::from(more_than_one_transaction)
        );
    }
}
