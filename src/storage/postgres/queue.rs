//! The envelope queue on Postgres.
//!
//! Order is per mailbox and comes from its row in `mailboxes`, which a batch locks first and holds until commit. Numbers
//! therefore become visible in the order in which they were drawn: a reader that has seen `n` may ask for "after n"
//! without stepping over a slower sender's `n - 1`. Batches lock mailboxes in the order of their ids and touch envelopes
//! only of mailboxes they hold, so two nodes wait for one another instead of deadlocking.

use std::collections::HashMap;

use async_trait::async_trait;
use sqlx::{PgConnection, PgPool};

use super::{Database, retrying};
use crate::domain::{
    Actor, Batch, Day, Enqueued, Head, Mailbox, MailboxId, PageLimit, Placed, QueueLimits, Rekey, Seq, Stored,
};
use crate::storage::gather::Gather;
use crate::storage::ledger::{Counter, Ledger, NewRow, touched};
use crate::storage::rows::{MailboxRow, StoredRow};
use crate::storage::{EnvelopeQueue, StorageError};

/// Queues in one table, shared by every node.
pub(super) struct PgQueue {
    database: Database,
    writers: Database,
    limits: QueueLimits,
    found: Gather<MailboxId, Mailbox>,
}

impl PgQueue {
    pub(super) fn new(database: Database, writers: Database, limits: QueueLimits) -> Self {
        let pool = database.pool.clone();
        let found = Gather::new(move |ids: Vec<MailboxId>| {
            let pool = pool.clone();
            Box::pin(async move { mailboxes(&pool, &ids).await })
        });
        Self {
            database,
            writers,
            limits,
            found,
        }
    }

    async fn try_commit(&self, batch: &Batch, mailboxes: &[i64]) -> Result<Vec<Enqueued>, StorageError> {
        let mut tx = self.writers.begin().await?;
        let mut ledger = self.lock(&mut tx, mailboxes).await?;
        if !batch.acknowledgements.is_empty() {
            let (ids, numbers) = batch
                .acknowledgements
                .iter()
                .map(|ack| (ack.mailbox.0, ack.seq.0))
                .unzip();
            delete(&mut tx, ids, numbers, &mut ledger).await?;
        }
        let (outcomes, rows) = ledger.admit(&batch.deliveries);
        save(&mut tx, &ledger, &rows).await?;
        tx.commit().await?;
        Ok(outcomes)
    }

    async fn try_expire(&self, today: Day, limit: u32) -> Result<u64, StorageError> {
        let mut tx = self.writers.begin().await?;
        let due: Vec<(i64, i64)> = sqlx::query_as(DUE)
            .bind(today.0)
            .bind(i64::from(limit))
            .fetch_all(&mut *tx)
            .await?;
        if due.is_empty() {
            return Ok(0);
        }
        let (mailboxes, numbers): (Vec<_>, Vec<_>) = due.into_iter().unzip();
        let mut ledger = self.lock(&mut tx, &mailboxes).await?;
        // Less than was due if a device has acknowledged in the meantime.
        let dropped = delete(&mut tx, mailboxes, numbers, &mut ledger).await?;
        save(&mut tx, &ledger, &[]).await?;
        tx.commit().await?;
        Ok(dropped)
    }

    async fn try_rekey(&self, by: &Actor, rekey: &Rekey<'_>) -> Result<bool, StorageError> {
        let Some(mut tx) = self.database.begin_as(by).await? else {
            return Ok(false);
        };
        if let Some(credential) = &rekey.credential {
            sqlx::query(REPLACE_CREDENTIAL)
                .bind(by.mailbox.0)
                .bind(credential.verifier.salt.as_slice())
                .bind(credential.verifier.hash.as_slice())
                .bind(credential.sealed_number.0.as_slice())
                .execute(&mut *tx)
                .await?;
            // What was opened with the old password is over.
            sqlx::query(END_SESSIONS).bind(by.mailbox.0).execute(&mut *tx).await?;
        }
        // From here on no batch adds to the mailbox until this commits.
        let replaced = sqlx::query(REPLACE_KEY)
            .bind(by.mailbox.0)
            .bind(rekey.from.as_bytes().as_slice())
            .bind(rekey.to.as_bytes().as_slice())
            .execute(&mut *tx)
            .await?;
        if replaced.rows_affected() == 0 {
            return Ok(false);
        }
        let mut after = Seq::START;
        loop {
            let stored = page(&mut tx, by.mailbox, after, REKEY_PAGE).await?;
            let Some(last) = stored.last() else { break };
            after = last.seq;
            reseal(&mut tx, by.mailbox, &stored, rekey).await?;
        }
        tx.commit().await?;
        Ok(true)
    }

    async fn lock(&self, db: &mut PgConnection, mailboxes: &[i64]) -> Result<Ledger, StorageError> {
        let counters: Vec<(i64, Vec<u8>, i64, i64, i64)> =
            sqlx::query_as(LOCK_COUNTERS).bind(mailboxes).fetch_all(db).await?;
        let counter = |(mailbox, queue_key, last_seq, envelopes, bytes)| Counter {
            mailbox,
            queue_key,
            last_seq,
            envelopes,
            bytes,
        };
        Ok(Ledger::new(self.limits, counters.into_iter().map(counter)))
    }
}

async fn mailboxes(pool: &PgPool, ids: &[MailboxId]) -> Result<Vec<Option<Mailbox>>, StorageError> {
    let rows: Vec<MailboxRow> = match ids {
        [id] => sqlx::query_as(MAILBOX).bind(id.0).fetch_all(pool).await?,
        _ => {
            sqlx::query_as(SEVERAL_MAILBOXES)
                .bind(ids.iter().map(|id| id.0).collect::<Vec<_>>())
                .fetch_all(pool)
                .await?
        }
    };
    let mut found = HashMap::with_capacity(rows.len());
    for row in rows {
        found.insert(MailboxId(row.id), row.into_mailbox()?);
    }
    Ok(ids.iter().map(|id| found.remove(id)).collect())
}

#[async_trait]
impl EnvelopeQueue for PgQueue {
    #[tracing::instrument(name = "db.queue.commit", level = "debug", skip_all)]
    async fn commit(&self, batch: &Batch) -> Result<Vec<Enqueued>, StorageError> {
        let mailboxes = touched(batch);
        if mailboxes.is_empty() {
            return Ok(vec![Enqueued::At(Placed::default()); batch.deliveries.len()]);
        }
        retrying!(self.try_commit(batch, &mailboxes).await)
    }

    #[tracing::instrument(name = "db.queue.pending", level = "debug", skip_all)]
    async fn pending(&self, mailbox: MailboxId, after: Seq, limit: PageLimit) -> Result<Vec<Stored>, StorageError> {
        let mut db = self.database.pool.acquire().await?;
        page(&mut db, mailbox, after, limit).await
    }

    #[tracing::instrument(name = "db.queue.mailbox", level = "debug", skip_all)]
    async fn mailbox(&self, id: MailboxId) -> Result<Option<Mailbox>, StorageError> {
        self.found.read(id).await
    }

    #[tracing::instrument(name = "db.queue.rekey", level = "debug", skip_all)]
    async fn rekey(&self, by: &Actor, rekey: &Rekey<'_>) -> Result<bool, StorageError> {
        retrying!(self.try_rekey(by, rekey).await)
    }

    #[tracing::instrument(name = "db.queue.heads", level = "debug", skip_all)]
    async fn heads(&self, mailboxes: &[MailboxId]) -> Result<Vec<Head>, StorageError> {
        let ids: Vec<i64> = mailboxes.iter().map(|mailbox| mailbox.0).collect();
        let rows: Vec<(i64, i64)> = sqlx::query_as(HEADS).bind(ids).fetch_all(&self.database.pool).await?;
        Ok(rows
            .into_iter()
            .map(|(mailbox, last)| Head {
                mailbox: MailboxId(mailbox),
                last: Seq(last),
            })
            .collect())
    }

    #[tracing::instrument(name = "db.queue.expire", level = "debug", skip_all)]
    async fn expire(&self, today: Day, limit: u32) -> Result<u64, StorageError> {
        retrying!(self.try_expire(today, limit).await)
    }
}

async fn page(
    db: &mut PgConnection,
    mailbox: MailboxId,
    after: Seq,
    limit: PageLimit,
) -> Result<Vec<Stored>, StorageError> {
    let rows: Vec<StoredRow> = sqlx::query_as(PENDING)
        .bind(mailbox.0)
        .bind(after.0)
        .bind(i64::from(limit.envelopes.max(1)))
        .bind(i64::try_from(limit.bytes).unwrap_or(i64::MAX))
        .fetch_all(db)
        .await?;
    rows.into_iter().map(StoredRow::into_stored).collect()
}

/// Replaces those rows of a page that could be sealed anew.
async fn reseal(
    db: &mut PgConnection,
    mailbox: MailboxId,
    stored: &[Stored],
    rekey: &Rekey<'_>,
) -> Result<(), StorageError> {
    let resealed = stored
        .iter()
        .filter_map(|stored| Some((stored.seq.0, (rekey.reseal)(&stored.sealed)?.to_vec())));
    let (numbers, rows): (Vec<i64>, Vec<Vec<u8>>) = resealed.unzip();
    let reseal = sqlx::query(RESEAL).bind(mailbox.0).bind(numbers).bind(rows);
    reseal.execute(db).await?;
    Ok(())
}

/// Deletes those of the envelopes that are there and whose mailboxes are held, and says how many.
async fn delete(
    db: &mut PgConnection,
    mailboxes: Vec<i64>,
    numbers: Vec<i64>,
    ledger: &mut Ledger,
) -> Result<u64, StorageError> {
    let deleted: Vec<(i64, i64)> = sqlx::query_as(DELETE)
        .bind(mailboxes)
        .bind(numbers)
        .fetch_all(db)
        .await?;
    for (mailbox, bytes) in &deleted {
        ledger.removed(*mailbox, *bytes);
    }
    Ok(deleted.len().try_into().unwrap_or(u64::MAX))
}

/// Writes counters and envelopes back in one statement.
async fn save(db: &mut PgConnection, ledger: &Ledger, rows: &[NewRow<'_>]) -> Result<(), StorageError> {
    let saved = ledger.saved();
    if saved.is_empty() {
        return Ok(());
    }
    sqlx::query(SAVE)
        .bind(saved.iter().map(|counter| counter.mailbox).collect::<Vec<_>>())
        .bind(saved.iter().map(|counter| counter.last_seq).collect::<Vec<_>>())
        .bind(saved.iter().map(|counter| counter.envelopes).collect::<Vec<_>>())
        .bind(saved.iter().map(|counter| counter.bytes).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.mailbox).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.seq).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.bucket).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.sealed).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.expires).collect::<Vec<_>>())
        .execute(db)
        .await?;
    Ok(())
}

// Weaker than FOR UPDATE by as much as it takes not to hinder a foreign key check; writers exclude one another all the
// same.
const LOCK_COUNTERS: &str = "SELECT id, queue_key, last_seq, envelopes, bytes FROM mailboxes \
    WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE";
// Found one by one, which OFFSET says: as a join this would be planned, while the queue is empty, as a walk through all of its
// index, and the plan would stay while the queue fills. Whoever holds the mailboxes has the rows to itself.
const DELETE: &str = "DELETE FROM envelopes WHERE ctid = ANY (ARRAY(\
        SELECT e.place FROM unnest($1::bigint[], $2::bigint[]) AS named (mailbox, seq) \
        CROSS JOIN LATERAL (SELECT ctid AS place FROM envelopes AS e \
            WHERE e.mailbox = named.mailbox AND e.seq = named.seq OFFSET 0) AS e)) \
    RETURNING mailbox, bucket * 1024::bigint";
const SAVE: &str = "WITH counters AS (UPDATE mailboxes AS m \
        SET last_seq = new.last_seq, envelopes = new.envelopes, bytes = new.bytes \
        FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[]) AS new (id, last_seq, envelopes, bytes) \
        WHERE m.id = new.id) \
    INSERT INTO envelopes (mailbox, seq, bucket, sealed, expires) \
    SELECT * FROM unnest($5::bigint[], $6::bigint[], $7::smallint[], $8::bytea[], $9::integer[])";
// The size of a body is known without reading it.
const PENDING: &str = "SELECT seq, bucket, sealed FROM (\
        SELECT seq, bucket, sealed, sum(bucket * 1024::bigint) OVER sizes AS total, row_number() OVER sizes AS number \
        FROM (SELECT seq, bucket, sealed FROM envelopes WHERE mailbox = $1 AND seq > $2 ORDER BY seq LIMIT $3) AS page \
        WINDOW sizes AS (ORDER BY seq)) AS sized \
    WHERE total <= $4 OR number = 1 ORDER BY seq";
const MAILBOX: &str = "SELECT id, last_seq, queue_key, interim_key FROM mailboxes WHERE id = $1";
const SEVERAL_MAILBOXES: &str = "SELECT id, last_seq, queue_key, interim_key FROM mailboxes WHERE id = ANY($1)";
const REPLACE_KEY: &str = "UPDATE mailboxes SET queue_key = $3, interim_key = NULL WHERE id = $1 AND queue_key = $2";
const RESEAL: &str = "UPDATE envelopes AS e SET sealed = new.sealed \
    FROM unnest($2::bigint[], $3::bytea[]) AS new (seq, sealed) WHERE e.mailbox = $1 AND e.seq = new.seq";
const END_SESSIONS: &str = "DELETE FROM token_sessions WHERE mailbox = $1";
const REPLACE_CREDENTIAL: &str = "UPDATE devices \
    SET credential_salt = $2, credential_hash = $3, sealed_number = $4 WHERE mailbox = $1";
const HEADS: &str = "SELECT id, last_seq FROM mailboxes WHERE id = ANY($1)";
const DUE: &str = "SELECT mailbox, seq FROM envelopes WHERE expires <= $1 ORDER BY expires LIMIT $2";
/// What is sealed anew at a time.
const REKEY_PAGE: PageLimit = PageLimit {
    envelopes: 512,
    bytes: 2 * 1024 * 1024,
};

#[cfg(test)]
mod tests {
    crate::storage::conformance::envelope_queue_suite!(crate::storage::testing::postgres);
}
