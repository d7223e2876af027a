//! The envelope queue on SQLite.
//!
//! A batch is one transaction on the one connection that writes, so numbers are drawn and become visible in order. A
//! statement costs about as much as ten rows, therefore each step of a batch is one statement for all its rows: numbers
//! travel as JSON, bodies as one blob from which each row cuts its own.

use std::collections::HashMap;

use async_trait::async_trait;
use sqlx::{SqliteConnection, SqlitePool};

use super::{Database, json_numbers, json_rows};
use crate::domain::{
    Actor, Batch, Day, Enqueued, Head, Mailbox, MailboxId, PageLimit, Placed, QueueLimits, Rekey, Seq, Stored,
};
use crate::storage::gather::Gather;
use crate::storage::ledger::{Counter, Ledger, NewRow, touched};
use crate::storage::rows::{MailboxRow, StoredRow};
use crate::storage::{EnvelopeQueue, StorageError};

/// Queues in one file.
pub(super) struct SqliteQueue {
    database: Database,
    limits: QueueLimits,
    found: Gather<MailboxId, Mailbox>,
}

impl SqliteQueue {
    pub(super) fn new(database: Database, limits: QueueLimits) -> Self {
        let pool = database.read.clone();
        let found = Gather::new(move |ids: Vec<MailboxId>| {
            let pool = pool.clone();
            Box::pin(async move { mailboxes(&pool, &ids).await })
        });
        Self {
            database,
            limits,
            found,
        }
    }

    async fn load(&self, db: &mut SqliteConnection, mailboxes: Vec<i64>) -> Result<Ledger, StorageError> {
        let counters: Vec<(i64, Vec<u8>, i64, i64, i64)> = sqlx::query_as(COUNTERS)
            .bind(json_numbers(mailboxes))
            .fetch_all(db)
            .await?;
        let counter = |(mailbox, queue_key, last_seq, envelopes, bytes)| Counter {
            mailbox,
            queue_key,
            last_seq,
            envelopes,
            bytes,
        };
        Ok(Ledger::new(self.limits, counters.into_iter().map(counter)))
    }

    /// Waits for whoever reads an older state, while writers wait for it: a backup that is being made is not waited for.
    async fn empty_the_log(&self) -> Result<(), StorageError> {
        let mut db = self.database.write.acquire().await?;
        sqlx::query(WAIT_BRIEFLY).execute(&mut *db).await?;
        let emptied = sqlx::query(EMPTY_THE_LOG).execute(&mut *db).await;
        // Whatever came of it: this is the connection that writes, and what it writes next waits as long as ever.
        if let Err(error) = sqlx::query(WAIT_AS_EVER).execute(&mut *db).await {
            db.close().await?;
            return Err(error.into());
        }
        emptied?;
        Ok(())
    }
}

async fn mailboxes(pool: &SqlitePool, ids: &[MailboxId]) -> Result<Vec<Option<Mailbox>>, StorageError> {
    let rows: Vec<MailboxRow> = match ids {
        [id] => sqlx::query_as(MAILBOX).bind(id.0).fetch_all(pool).await?,
        _ => {
            sqlx::query_as(SEVERAL_MAILBOXES)
                .bind(json_numbers(ids.iter().map(|id| id.0)))
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
impl EnvelopeQueue for SqliteQueue {
    #[tracing::instrument(name = "db.queue.commit", level = "debug", skip_all)]
    async fn commit(&self, batch: &Batch) -> Result<Vec<Enqueued>, StorageError> {
        let mailboxes = touched(batch);
        if mailboxes.is_empty() {
            return Ok(vec![Enqueued::At(Placed::default()); batch.deliveries.len()]);
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
    async fn pending(&self, mailbox: MailboxId, after: Seq, limit: PageLimit) -> Result<Vec<Stored>, StorageError> {
        let mut db = self.database.read.acquire().await?;
        page(&mut db, mailbox, after, limit).await
    }

    #[tracing::instrument(name = "db.queue.mailbox", level = "debug", skip_all)]
    async fn mailbox(&self, id: MailboxId) -> Result<Option<Mailbox>, StorageError> {
        self.found.read(id).await
    }

    #[tracing::instrument(name = "db.queue.rekey", level = "debug", skip_all)]
    async fn rekey(&self, by: &Actor, rekey: &Rekey<'_>) -> Result<bool, StorageError> {
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
            self.empty_the_log().await?;
        }
        Ok(due.len().try_into().unwrap_or(u64::MAX))
    }
}

async fn page(
    db: &mut SqliteConnection,
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
    db: &mut SqliteConnection,
    mailbox: MailboxId,
    stored: &[Stored],
    rekey: &Rekey<'_>,
) -> Result<(), StorageError> {
    let mut bodies = Vec::new();
    let places = stored.iter().filter_map(|stored| {
        let row = (rekey.reseal)(&stored.sealed)?;
        let [start, length] = append(&mut bodies, &row);
        Some([stored.seq.0, start, length])
    });
    let places = json_rows(places);
    let reseal = sqlx::query(RESEAL).bind(mailbox.0).bind(places).bind(bodies);
    reseal.execute(db).await?;
    Ok(())
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
        let mut bodies = Vec::with_capacity(chunk.iter().map(|row| row.sealed.len()).sum());
        let places = chunk.iter().map(|row| {
            let [start, length] = append(&mut bodies, row.sealed);
            let bucket = i64::from(row.bucket);
            [row.mailbox, row.seq, bucket, i64::from(row.expires), start, length]
        });
        let places = json_rows(places);
        sqlx::query(INSERT).bind(places).bind(bodies).execute(&mut *db).await?;
        rest = others;
    }
    Ok(())
}

/// Appends a body to others, and says where it begins and how long it is, as `substr` counts.
fn append(bodies: &mut Vec<u8>, body: &[u8]) -> [i64; 2] {
    let position = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
    let start = position(bodies.len()) + 1;
    bodies.extend_from_slice(body);
    [start, position(body.len())]
}

/// How many of the rows one statement takes: as many as stay below the size limit, and at least one.
fn fitting(rows: &[NewRow<'_>]) -> usize {
    let mut bytes = 0;
    let over = rows.iter().position(|row| {
        bytes += row.sealed.len();
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
/// What is sealed anew at a time.
const REKEY_PAGE: PageLimit = PageLimit {
    envelopes: 512,
    bytes: 2 * 1024 * 1024,
};

const COUNTERS: &str = "SELECT id, queue_key, last_seq, envelopes, bytes FROM mailboxes \
    WHERE id IN (SELECT value FROM json_each($1))";
// CROSS JOIN fixes the order: each place is looked up in the index.
const DELETE: &str = "DELETE FROM envelopes WHERE rowid IN (\
        SELECT e.rowid FROM json_each($1) AS place \
        CROSS JOIN envelopes AS e ON e.mailbox = place.value ->> 0 AND e.seq = place.value ->> 1) \
    RETURNING mailbox, bucket * 1024";
const INSERT: &str = "INSERT INTO envelopes (mailbox, seq, bucket, expires, sealed) \
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, substr($2, value ->> 4, value ->> 5) FROM json_each($1)";
const SAVE_COUNTERS: &str = "UPDATE mailboxes \
    SET last_seq = new.value ->> 1, envelopes = new.value ->> 2, bytes = new.value ->> 3 \
    FROM json_each($1) AS new WHERE mailboxes.id = new.value ->> 0";
// The sizes are summed before a body is read.
const PENDING: &str = "WITH \
        page AS (SELECT rowid AS place, seq, bucket * 1024 AS size FROM envelopes \
            WHERE mailbox = $1 AND seq > $2 ORDER BY seq LIMIT $3), \
        sized AS (SELECT place, sum(size) OVER (ORDER BY seq) AS total, \
            row_number() OVER (ORDER BY seq) AS number FROM page) \
    SELECT e.seq, e.bucket, e.sealed FROM sized CROSS JOIN envelopes AS e ON e.rowid = sized.place \
    WHERE sized.total <= $4 OR sized.number = 1 ORDER BY e.seq";
const MAILBOX: &str = "SELECT id, last_seq, queue_key, interim_key FROM mailboxes WHERE id = $1";
const SEVERAL_MAILBOXES: &str =
    "SELECT id, last_seq, queue_key, interim_key FROM mailboxes WHERE id IN (SELECT value FROM json_each($1))";
const REPLACE_KEY: &str = "UPDATE mailboxes SET queue_key = $3, interim_key = NULL WHERE id = $1 AND queue_key = $2";
const RESEAL: &str = "UPDATE envelopes SET sealed = substr($3, place.value ->> 1, place.value ->> 2) \
    FROM json_each($2) AS place WHERE mailbox = $1 AND seq = place.value ->> 0";
const END_SESSIONS: &str = "DELETE FROM token_sessions WHERE mailbox = $1";
const REPLACE_CREDENTIAL: &str = "UPDATE devices \
    SET credential_salt = $2, credential_hash = $3, sealed_number = $4 WHERE mailbox = $1";
const HEADS: &str = "SELECT id, last_seq FROM mailboxes WHERE id IN (SELECT value FROM json_each($1))";
const DUE: &str = "SELECT mailbox, seq FROM envelopes WHERE expires <= $1 ORDER BY expires LIMIT $2";
const EMPTY_THE_LOG: &str = "PRAGMA wal_checkpoint(TRUNCATE)";
const WAIT_BRIEFLY: &str = "PRAGMA busy_timeout = 250";
// As BUSY_TIMEOUT has it.
const WAIT_AS_EVER: &str = "PRAGMA busy_timeout = 5000";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::migrate::{self, Location};
    use crate::storage::testing::{ROOMY, empty_sqlite, upgrade};

    #[tokio::test]
    async fn writers_wait_as_long_as_ever_after_the_log_could_not_be_emptied() {
        let directory = empty_sqlite(ROOMY);
        let Location::Sqlite(path) = directory.location() else {
            panic!("it is SQLite")
        };
        migrate::up(directory.location(), &upgrade()).await.unwrap();
        let database = Database::open(path).await.unwrap();
        let queue = SqliteQueue::new(database.clone(), ROOMY);
        let mut emptied = Vec::new();
        // Within a transaction SQLite refuses it.
        for around in ["BEGIN IMMEDIATE", "ROLLBACK"] {
            sqlx::query(around).execute(&database.write).await.unwrap();
            emptied.push(queue.empty_the_log().await.is_ok());
            let waits: i64 = sqlx::query_scalar("PRAGMA busy_timeout")
                .fetch_one(&database.write)
                .await
                .unwrap();
            assert_eq!(u128::try_from(waits).unwrap(), super::super::BUSY_TIMEOUT.as_millis());
        }
        assert_eq!(emptied, [false, true]);
    }

    crate::storage::conformance::envelope_queue_suite!(crate::storage::testing::sqlite);
}
