//! Drops what has had its time: attachments, envelopes nobody fetched, verification sessions nobody finished, invites, offers
//! nobody took up, ids of one-time keys, the operator's acts, reservations and holds of user names, sessions of tokens and the
//! keys that signed them, linked devices nobody uses.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::attachments::{Attachments, Refused};
use crate::domain::{Aci, Clock, MailboxId, SPENT_DAYS};
use crate::storage::{Storage, StorageError};
use crate::telemetry::metrics;

/// Sweeps now, and again every [`PERIOD`], until the token is cancelled.
pub async fn run(storage: Storage, clock: Arc<dyn Clock>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(PERIOD);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        match sweep(&storage, clock.as_ref()).await {
            Ok((envelopes, sessions)) => tracing::debug!(envelopes, sessions, "swept what had expired"),
            Err(error) => tracing::warn!(cause = error.log_safe_cause(), "expired rows could not be swept"),
        }
    }
}

/// Drops what has expired, all but attachments and linked devices. Of what there may be much, a transaction drops few enough to
/// let others through. Returns how many envelopes and verification sessions went.
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
    let invites = storage.invites.expire(clock.now().day()).await?;
    metrics::expired("invite", invites);
    let offers = storage.devices.expire_offers(clock.now()).await?;
    metrics::expired("link_offer", offers);
    let kept_from = clock.now().day().plus(-SPENT_DAYS);
    loop {
        let forgotten = storage.keys.forget_spent(kept_from, ROWS_PER_TRANSACTION).await?;
        metrics::expired("spent_key", forgotten);
        if forgotten < u64::from(ROWS_PER_TRANSACTION) {
            break;
        }
        tokio::task::yield_now().await;
    }
    let acts = storage
        .admin
        .expire_log(clock.now().minute() - ADMIN_LOG_MINUTES, ROWS_PER_TRANSACTION)
        .await?;
    metrics::expired("admin_log", acts);
    let names = storage.usernames.expire(clock.now()).await?;
    metrics::expired("username", names);
    let tokens = storage.tokens.expire(clock.now().day()).await?;
    metrics::expired("token_session", tokens);
    let keys = storage.tokens.expire_keys(clock.now()).await?;
    metrics::expired("token_key", keys);
    Ok((envelopes, sessions))
}

/// Drops uploads that nobody finished and attachments whose days are over, now, and again every [`PERIOD`], until the token
/// is cancelled.
pub async fn run_attachments(attachments: Arc<Attachments>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(PERIOD);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        tell(sweep_attachments(&attachments).await);
    }
}

/// Drops objects that belong to nothing, an hour after the start and then once a day, until the token is cancelled. That may
/// take long, so it is left in the middle then.
pub async fn run_orphans(attachments: Arc<Attachments>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + ORPHANS_FIRST, ORPHANS_PERIOD);
    let sweeping = async {
        loop {
            ticks.tick().await;
            tell(sweep_orphans(&attachments).await);
        }
    };
    stop.run_until_cancelled(sweeping).await;
}

fn tell(swept: Result<(), Refused>) {
    match swept {
        Ok(()) => {}
        Err(Refused::Storage(error)) => {
            tracing::warn!(cause = error.log_safe_cause(), "attachments could not be swept");
        }
        Err(Refused::Blobs(error)) => tracing::warn!(cause = error.0, "attachments could not be swept"),
        Err(_) => tracing::warn!("attachments could not be swept"),
    }
}

async fn sweep_attachments(attachments: &Attachments) -> Result<(), Refused> {
    let swept = attachments.sweep().await?;
    metrics::expired("attachment", swept.expired);
    tracing::debug!(expired = swept.expired, cleared = swept.cleared, "swept attachments");
    Ok(())
}

async fn sweep_orphans(attachments: &Attachments) -> Result<(), Refused> {
    let dropped = attachments.sweep_orphans().await?;
    metrics::expired("attachment_orphan", dropped);
    Ok(())
}

/// Removes linked devices that were not seen for `days`, every [`PERIOD`], until the token is cancelled; but not within
/// `grace` of the start: after a long pause of the server no device was seen for long, and that is no fault of theirs.
/// `removed` is told of each whose queue is gone.
pub async fn run_idle(
    storage: Storage,
    clock: Arc<dyn Clock>,
    days: u16,
    grace: Duration,
    removed: impl Fn(Aci, MailboxId) + Send + Sync,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + grace, PERIOD);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        match sweep_idle(&storage, clock.as_ref(), days, &removed).await {
            Ok(devices) => tracing::debug!(devices, "removed linked devices that nobody uses"),
            Err(error) => tracing::warn!(cause = error.log_safe_cause(), "idle devices could not be removed"),
        }
    }
}

/// Removes the linked devices that were not seen for so many days, and says how many. A primary stays: it is the account.
pub async fn sweep_idle(
    storage: &Storage,
    clock: &dyn Clock,
    days: u16,
    removed: &(impl Fn(Aci, MailboxId) + Send + Sync),
) -> Result<u64, StorageError> {
    let before = clock.now().day().plus(-i32::from(days));
    let mut devices = 0;
    loop {
        let idle = storage.devices.remove_idle(before, DEVICES_PER_TRANSACTION).await?;
        for (aci, mailbox) in &idle {
            removed(*aci, *mailbox);
        }
        devices += idle.len() as u64;
        metrics::expired("linked_device", idle.len() as u64);
        if idle.is_empty() {
            return Ok(devices);
        }
        tokio::task::yield_now().await;
    }
}

/// How often expired rows are looked for. On SQLite a sweep also empties the write-ahead log, so what was deleted before is gone
/// from the disk within about this time, unless somebody reads an older state; what a sweep drops after the envelopes goes
/// with the next one.
pub const PERIOD: Duration = Duration::from_secs(30);
/// A crash leaves few objects behind, and looking for them reads the name of every object there is.
const ORPHANS_FIRST: Duration = Duration::from_secs(60 * 60);
const ORPHANS_PERIOD: Duration = Duration::from_secs(24 * 60 * 60);
const ROWS_PER_TRANSACTION: u32 = 1000;
/// A year, also one with a leap day. A sweep drops one transaction of entries, and what is left waits for the next.
const ADMIN_LOG_MINUTES: i64 = 366 * 24 * 60;
/// Each takes its keys and its queue with it.
const DEVICES_PER_TRANSACTION: u32 = 50;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Batch, Day, Delivery, Enqueued, MailboxId, Timestamp};
    use crate::storage::conformance::fixtures::{aci, add_second_device, register, sealed_copy};
    use crate::storage::testing::{ROOMY, sqlite};

    struct Midnight(Day);

    impl Clock for Midnight {
        fn now(&self) -> Timestamp {
            Timestamp(i64::from(self.0.0) * 24 * 60 * 60 * 1000)
        }
    }

    #[tokio::test]
    async fn linked_devices_go_when_they_were_not_seen_for_so_many_days() {
        let database = sqlite(ROOMY).await.unwrap();
        register(&database, 1, 1001).await;
        add_second_device(&database).await;
        let storage = database.storage();
        let gone = std::sync::Mutex::new(Vec::new());
        let removed = |aci, mailbox| gone.lock().unwrap().push((aci, mailbox));
        // Both were seen on day 20000 last.
        let sweep = async |day| sweep_idle(&storage, &Midnight(Day(day)), 45, &removed).await.unwrap();
        assert_eq!(sweep(20_045).await, 0);
        assert_eq!(sweep(20_046).await, 1);
        assert_eq!(sweep(30_000).await, 0);
        assert_eq!(*gone.lock().unwrap(), [(aci(1), MailboxId(1002))]);
    }

    #[tokio::test]
    async fn envelopes_go_on_their_day_however_many_and_not_before() {
        let database = sqlite(ROOMY).await.unwrap();
        register(&database, 1, 10).await;
        let storage = database.storage();
        let more_than_one_transaction = ROWS_PER_TRANSACTION + 1;
        let deliveries = (0..more_than_one_transaction).map(|_| Delivery {
            copies: vec![sealed_copy(MailboxId(10), 1, b"")],
            expires: Day(131),
            ..Delivery::default()
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
