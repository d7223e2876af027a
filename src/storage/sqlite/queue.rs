//! The envelope queue on SQLite.
//!
//! A batch is one transaction on the one connection that writes, so numbers are drawn and become visible in order. A
//! statement costs about as much as ten rows, therefore each step of a batch is one statement for all its rows: numbers
//! travel as JSON, bodies as one blob from which each row cuts its own.

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::{Database, json_numbers, json_rows};
use crate::domain::{Batch, Day, Enqueued, Head, MailboxId, PageLimit, QueueLimits, Queued, Seq};
use crate::storage::ledger::{Counter, Ledger, NewRow, touched};
use crate::storage::{EnvelopeQueue, StorageError};

/// Queues in one file.
pub(super) struct SqliteQueue {
    database: Database,
    limits: QueueLimits,
}

impl SqliteQueue {
    pub(super) fn new(database: Database, limits: QueueLimits) -> Self {
        Self { database, limits }
    }

    async fn load(&self, db: &mut SqliteConnection, mailboxes: Vec<i64>) -> Result<Ledger, StorageError> {
        let counters: Vec<(i64, i64, i64, i64)> = sqlx::query_as(COUNTERS)
            .bind(json_numbers(mailboxes))
            .fetch_all(db)
            .await?;
        let counter = |(mailbox, last_seq, envelopes, bytes)| Counter {
            mailbox,
            last_seq,
            envelopes,
            bytes,
        };
        Ok(Ledger::new(self.limits, counters.into_iter().map(counter)))
    }
}

#[async_trait]
impl EnvelopeQueue for SqliteQueue {
    #[tracing::instrument(name = "db.queue.commit", level = "debug", skip_all)]
    async fn commit(&self, batch: &Batch) -> Result<Vec<Enqueued>, StorageError> {
        let mailboxes = touched(batch);
        if mailboxes.is_empty() {
            return Ok(vec![Enqueued::At(Vec::new()); batch.deliveries.len()]);
        }
        let mut tx = self.database.begin().await?;
        let mut ledger = self.load(&mut tx, mailboxes).await?;
        let acknowledged: Vec<_> = batch
            .acknowledgements
            .iter()
            .map(|ack| [ack.mailbox.0, ack.seq.0])
            .collect();
        delete(&mut tx, acknowledged, &mut ledger).await?;
        let (outcomes, rows) = ledger.admit(&batch.deliveries);
        insert(&mut tx, &rows).await?;
        save(&mut tx, &ledger).await?;
        tx.commit().await?;
        Ok(outcomes)
    }

    #[tracing::instrument(name = "db.queue.pending", level = "debug", skip_all)]
    async fn pending(&self, mailbox: MailboxId, after: Seq, limit: PageLimit) -> Result<Vec<Queued>, StorageError> {
        let rows: Vec<(i64, Vec<u8>)> = sqlx::query_as(PENDING)
            .bind(mailbox.0)
            .bind(after.0)
            .bind(i64::from(limit.envelopes.max(1)))
            .bind(i64::try_from(limit.bytes).unwrap_or(i64::MAX))
            .fetch_all(&self.database.read)
            .await?;
        Ok(rows
            .into_iter()
            .map(|(seq, content)| Queued {
                seq: Seq(seq),
                content: content.into(),
            })
            .collect())
    }

    #[tracing::instrument(name = "db.queue.heads", level = "debug", skip_all)]
    async fn heads(&self, mailboxes: &[MailboxId]) -> Result<Vec<Head>, StorageError> {
        let ids = json_numbers(mailboxes.iter().map(|mailbox| mailbox.0));
        let rows: Vec<(i64, i64)> = sqlx::query_as(HEADS).bind(ids).fetch_all(&self.database.read).await?;
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
        let mut tx = self.database.begin().await?;
        let due: Vec<(i64, i64)> = sqlx::query_as(DUE)
            .bind(today.0)
            .bind(i64::from(limit))
            .fetch_all(&mut *tx)
            .await?;
        if !due.is_empty() {
            let mut ledger = self
                .load(&mut tx, due.iter().map(|(mailbox, _)| *mailbox).collect())
                .await?;
            delete(
                &mut tx,
                due.iter().map(|(mailbox, seq)| [*mailbox, *seq]).collect(),
                &mut ledger,
            )
            .await?;
            save(&mut tx, &ledger).await?;
        }
        tx.commit().await?;
        if due.len() < usize::try_from(limit).unwrap_or(usize::MAX) {
            // The log still holds what has been acknowledged since the last checkpoint. Emptying it here, where a
            // server comes by regularly, bounds how long that stays on the disk.
            sqlx::query(EMPTY_THE_LOG).execute(&self.database.write).await?;
        }
        Ok(due.len().try_into().unwrap_or(u64::MAX))
    }
}

/// Deletes those of the envelopes that are there.
async fn delete(db: &mut SqliteConnection, places: Vec<[i64; 2]>, ledger: &mut Ledger) -> Result<(), StorageError> {
    if places.is_empty() {
        return Ok(());
    }
    let deleted: Vec<(i64, i64)> = sqlx::query_as(DELETE).bind(json_rows(places)).fetch_all(db).await?;
    deleted
        .into_iter()
        .for_each(|(mailbox, bytes)| ledger.removed(mailbox, bytes));
    Ok(())
}

async fn insert(db: &mut SqliteConnection, rows: &[NewRow<'_>]) -> Result<(), StorageError> {
    let mut rest = rows;
    while !rest.is_empty() {
        let (chunk, others) = rest.split_at(fitting(rest));
        let mut contents = Vec::with_capacity(chunk.iter().map(|row| row.content.len()).sum());
        let mut places = Vec::with_capacity(chunk.len());
        for row in chunk {
            let position = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
            // `substr` counts from 1.
            let start = position(contents.len()) + 1;
            places.push([
                row.mailbox,
                row.seq,
                i64::from(row.expires),
                start,
                position(row.content.len()),
            ]);
            contents.extend_from_slice(row.content);
        }
        sqlx::query(INSERT)
            .bind(json_rows(places))
            .bind(contents)
            .execute(&mut *db)
            .await?;
        rest = others;
    }
    Ok(())
}

/// How many of the rows one statement takes: as many as stay below the size limit, and at least one.
fn fitting(rows: &[NewRow<'_>]) -> usize {
    let mut bytes = 0;
    let over = rows.iter().position(|row| {
        bytes += row.content.len();
        bytes > MAX_STATEMENT_BYTES
    });
    over.unwrap_or(rows.len()).max(1)
}

async fn save(db: &mut SqliteConnection, ledger: &Ledger) -> Result<(), StorageError> {
    let saved = ledger.saved();
    if saved.is_empty() {
        return Ok(());
    }
    let rows = saved
        .iter()
        .map(|counter| [counter.mailbox, counter.last_seq, counter.envelopes, counter.bytes]);
    sqlx::query(SAVE_COUNTERS).bind(json_rows(rows)).execute(db).await?;
    Ok(())
}

/// Far below what SQLite takes as one value, and enough for any batch of ordinary envelopes.
const MAX_STATEMENT_BYTES: usize = 16 * 1024 * 1024;

const COUNTERS: &str = "SELECT id, last_seq, envelopes, bytes FROM mailboxes \
    WHERE id IN (SELECT value FROM json_each($1))";
// CROSS JOIN fixes the order: each place is looked up in the index.
const DELETE: &str = "DELETE FROM envelopes WHERE rowid IN (\
        SELECT e.rowid FROM json_each($1) AS place \
        CROSS JOIN envelopes AS e ON e.mailbox = place.value ->> 0 AND e.seq = place.value ->> 1) \
    RETURNING mailbox, length(content)";
const INSERT: &str = "INSERT INTO envelopes (mailbox, seq, expires, content) \
    SELECT value ->> 0, value ->> 1, value ->> 2, substr($2, value ->> 3, value ->> 4) FROM json_each($1)";
const SAVE_COUNTERS: &str = "UPDATE mailboxes \
    SET last_seq = new.value ->> 1, envelopes = new.value ->> 2, bytes = new.value ->> 3 \
    FROM json_each($1) AS new WHERE mailboxes.id = new.value ->> 0";
// The sizes are summed before a body is read.
const PENDING: &str = "WITH \
        page AS (SELECT rowid AS place, seq, length(content) AS size FROM envelopes \
            WHERE mailbox = $1 AND seq > $2 ORDER BY seq LIMIT $3), \
        sized AS (SELECT place, sum(size) OVER (ORDER BY seq) AS total, \
            row_number() OVER (ORDER BY seq) AS number FROM page) \
    SELECT e.seq, e.content FROM sized CROSS JOIN envelopes AS e ON e.rowid = sized.place \
    WHERE sized.total <= $4 OR sized.number = 1 ORDER BY e.seq";
const HEADS: &str = "SELECT id, last_seq FROM mailboxes WHERE id IN (SELECT value FROM json_each($1))";
const DUE: &str = "SELECT mailbox, seq FROM envelopes WHERE expires <= $1 ORDER BY expires LIMIT $2";
const EMPTY_THE_LOG: &str = "PRAGMA wal_checkpoint(TRUNCATE)";

#[cfg(test)]
mod tests {
    crate::storage::conformance::envelope_queue_suite!(crate::storage::testing::sqlite);
}
