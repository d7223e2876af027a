//! Uploads and attachments on SQLite.
//!
//! Whoever changes an upload holds the one connection that writes, so its row is read and written back unchanged by
//! others.

use std::fmt::Write as _;

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::{Database, json_rows};
use crate::domain::{
    Appended, Attachment, AttachmentName, Budget, Day, NewUpload, Opened, QuotaBucket, REMOVED_DAYS, Segment,
    Timestamp, Turn, TurnTaken, Upload, UploadTimes,
};
use crate::storage::attachments::{Change, signed};
use crate::storage::rows::{self, SegmentRow, UploadRow};
use crate::storage::{AttachmentStore, StorageError};

/// Attachments in one file.
pub(super) struct SqliteAttachments {
    database: Database,
}

impl SqliteAttachments {
    pub(super) fn new(database: Database) -> Self {
        Self { database }
    }
}

#[async_trait]
impl AttachmentStore for SqliteAttachments {
    #[tracing::instrument(name = "db.attachments.realm", level = "debug", skip_all)]
    async fn realm(&self, proposed: [u8; 16]) -> Result<[u8; 16], StorageError> {
        let mut tx = self.database.begin().await?;
        sqlx::query(PIN_REALM)
            .bind(proposed.as_slice())
            .execute(&mut *tx)
            .await?;
        let pinned: Vec<u8> = sqlx::query_scalar(PINNED_REALM).fetch_one(&mut *tx).await?;
        tx.commit().await?;
        rows::realm(&pinned)
    }

    #[tracing::instrument(name = "db.attachments.reserve", level = "debug", skip_all)]
    async fn reserve(&self, budget: &Budget, bytes: u64) -> Result<bool, StorageError> {
        let mut tx = self.database.begin().await?;
        let taken = charge(&mut tx, budget, signed(bytes)).await?;
        tx.commit().await?;
        Ok(taken)
    }

    #[tracing::instrument(name = "db.attachments.open", level = "debug", skip_all)]
    async fn open(&self, upload: &NewUpload) -> Result<Opened, StorageError> {
        let mut tx = self.database.begin().await?;
        if let Some(row) = row(&mut tx, &upload.name).await? {
            return Ok(row.upload(upload.times.now).map_or(Opened::Gone, Opened::At));
        }
        let change = UploadRow::open(upload);
        if !charge(&mut tx, &upload.budget, change.charge).await? {
            return Ok(Opened::OverBudget);
        }
        insert(&mut tx, &upload.name, &change.row).await?;
        tx.commit().await?;
        Ok(change.row.upload(upload.times.now).map_or(Opened::Gone, Opened::At))
    }

    #[tracing::instrument(name = "db.attachments.find_upload", level = "debug", skip_all)]
    async fn find_upload(&self, name: &AttachmentName, now: Timestamp) -> Result<Option<Upload>, StorageError> {
        let row: Option<UploadRow> = sqlx::query_as(UPLOAD)
            .bind(name.0.as_slice())
            .fetch_optional(&self.database.read)
            .await?;
        Ok(row.and_then(|row| row.upload(now)))
    }

    #[tracing::instrument(name = "db.attachments.take_turn", level = "debug", skip_all)]
    async fn take_turn(&self, name: &AttachmentName, turn: &Turn) -> Result<TurnTaken, StorageError> {
        let mut tx = self.database.begin().await?;
        let Some(row) = row(&mut tx, name).await? else {
            return Ok(TurnTaken::Gone);
        };
        let (taken, change) = row.take_turn(turn);
        if let Some(Change { row, charge: bytes }) = change {
            if !charge(&mut tx, &turn.budget, bytes).await? {
                return Ok(TurnTaken::OverBudget);
            }
            save(&mut tx, name, &row).await?;
            tx.commit().await?;
        }
        Ok(taken)
    }

    #[tracing::instrument(name = "db.attachments.append", level = "debug", skip_all)]
    async fn append(
        &self,
        name: &AttachmentName,
        turn: i64,
        segments: &[Segment],
        budget: &Budget,
        times: &UploadTimes,
    ) -> Result<Appended, StorageError> {
        let mut tx = self.database.begin().await?;
        let Some(row) = row(&mut tx, name).await? else {
            return Ok(Appended::Overtaken);
        };
        let before: i64 = sqlx::query_scalar(COUNT_SEGMENTS)
            .bind(name.0.as_slice())
            .fetch_one(&mut *tx)
            .await?;
        let Change { row, charge: bytes } = match row.append(before, turn, segments, budget, times) {
            Ok(change) => change,
            Err(refused) => return Ok(refused),
        };
        if !charge(&mut tx, budget, bytes).await? {
            return Ok(Appended::OverBudget);
        }
        let numbers = segments
            .iter()
            .map(|segment| [signed(segment.start), signed(segment.length), segment.tag]);
        sqlx::query(INSERT_SEGMENTS)
            .bind(name.0.as_slice())
            .bind(json_rows(numbers))
            .execute(&mut *tx)
            .await?;
        save(&mut tx, name, &row).await?;
        tx.commit().await?;
        Ok(row.upload(times.now).map_or(Appended::Overtaken, Appended::At))
    }

    #[tracing::instrument(name = "db.attachments.find_attachment", level = "debug", skip_all)]
    async fn find_attachment(&self, name: &AttachmentName, today: Day) -> Result<Option<Attachment>, StorageError> {
        let found: Vec<SegmentRow> = sqlx::query_as(ATTACHMENT)
            .bind(name.0.as_slice())
            .bind(today.0)
            .fetch_all(&self.database.read)
            .await?;
        rows::attachment(found)
    }

    #[tracing::instrument(name = "db.attachments.remove", level = "debug", skip_all)]
    async fn remove(&self, name: &AttachmentName, now: Timestamp) -> Result<bool, StorageError> {
        let mut tx = self.database.begin().await?;
        let removed = sqlx::query(REMOVE)
            .bind(name.0.as_slice())
            .bind(now.0)
            .bind(now.day().0)
            .bind(now.day().plus(REMOVED_DAYS).0)
            .execute(&mut *tx)
            .await?;
        let there = removed.rows_affected() > 0;
        if there {
            drop_segments(&mut tx, &json_names([name])).await?;
            tx.commit().await?;
        }
        Ok(there)
    }

    #[tracing::instrument(name = "db.attachments.retire", level = "debug", skip_all)]
    async fn retire(&self, names: &[AttachmentName], now: Timestamp) -> Result<(), StorageError> {
        let names = json_names(names);
        let mut tx = self.database.begin().await?;
        sqlx::query(RETIRE)
            .bind(&names)
            .bind(now.day().plus(REMOVED_DAYS).0)
            .execute(&mut *tx)
            .await?;
        drop_segments(&mut tx, &names).await?;
        tx.commit().await?;
        Ok(())
    }

    #[tracing::instrument(name = "db.attachments.drop_budgets", level = "debug", skip_all)]
    async fn drop_budgets(&self, buckets: &[QuotaBucket]) -> Result<(), StorageError> {
        for bucket in buckets {
            sqlx::query(DROP_BUDGET)
                .bind(bucket.0.as_slice())
                .execute(&self.database.write)
                .await?;
        }
        Ok(())
    }

    #[tracing::instrument(name = "db.attachments.expire", level = "debug", skip_all)]
    async fn expire(&self, now: Timestamp, limit: u32) -> Result<u64, StorageError> {
        let mut tx = self.database.begin().await?;
        let gone: Vec<Vec<u8>> = sqlx::query_scalar(EXPIRE)
            .bind(now.0)
            .bind(now.day().0)
            .bind(now.day().plus(REMOVED_DAYS).0)
            .bind(i64::from(limit))
            .fetch_all(&mut *tx)
            .await?;
        let names = rows::names(&gone)?;
        drop_segments(&mut tx, &json_names(&names)).await?;
        tx.commit().await?;
        Ok(names.len().try_into().unwrap_or(u64::MAX))
    }

    #[tracing::instrument(name = "db.attachments.uncleared", level = "debug", skip_all)]
    async fn uncleared(&self, after: Option<AttachmentName>, limit: u32) -> Result<Vec<AttachmentName>, StorageError> {
        let found: Vec<Vec<u8>> = sqlx::query_scalar(UNCLEARED)
            .bind(after.as_ref().map_or(&[][..], |name| name.0.as_slice()))
            .bind(i64::from(limit))
            .fetch_all(&self.database.read)
            .await?;
        rows::names(&found)
    }

    #[tracing::instrument(name = "db.attachments.cleared", level = "debug", skip_all)]
    async fn cleared(&self, names: &[AttachmentName]) -> Result<(), StorageError> {
        sqlx::query(CLEARED)
            .bind(json_names(names))
            .execute(&self.database.write)
            .await?;
        Ok(())
    }

    #[tracing::instrument(name = "db.attachments.forget", level = "debug", skip_all)]
    async fn forget(&self, today: Day, limit: u32) -> Result<u64, StorageError> {
        let mut forgotten = 0;
        for (statement, day) in [(FORGET, today), (FORGET_BUDGETS, today.plus(-REMOVED_DAYS))] {
            let dropped = sqlx::query(statement)
                .bind(day.0)
                .bind(i64::from(limit))
                .execute(&self.database.write)
                .await?;
            forgotten += dropped.rows_affected();
        }
        Ok(forgotten)
    }

    #[tracing::instrument(name = "db.attachments.known", level = "debug", skip_all)]
    async fn known(&self, names: &[AttachmentName]) -> Result<Vec<AttachmentName>, StorageError> {
        let found: Vec<Vec<u8>> = sqlx::query_scalar(KNOWN)
            .bind(json_names(names))
            .fetch_all(&self.database.read)
            .await?;
        rows::names(&found)
    }
}

async fn row(db: &mut SqliteConnection, name: &AttachmentName) -> Result<Option<UploadRow>, StorageError> {
    Ok(sqlx::query_as(UPLOAD)
        .bind(name.0.as_slice())
        .fetch_optional(db)
        .await?)
}

async fn charge(db: &mut SqliteConnection, budget: &Budget, bytes: i64) -> Result<bool, StorageError> {
    if bytes == 0 {
        return Ok(true);
    }
    let taken: Option<i64> = sqlx::query_scalar(CHARGE)
        .bind(budget.bucket.0.as_slice())
        .bind(budget.day.0)
        .bind(bytes)
        .bind(signed(budget.limit))
        .fetch_optional(db)
        .await?;
    Ok(taken.is_some())
}

async fn insert(db: &mut SqliteConnection, name: &AttachmentName, row: &UploadRow) -> Result<(), StorageError> {
    write(INSERT, db, name, row).await
}

async fn save(db: &mut SqliteConnection, name: &AttachmentName, row: &UploadRow) -> Result<(), StorageError> {
    write(SAVE, db, name, row).await
}

async fn write(
    statement: &'static str,
    db: &mut SqliteConnection,
    name: &AttachmentName,
    row: &UploadRow,
) -> Result<(), StorageError> {
    sqlx::query(statement)
        .bind(name.0.as_slice())
        .bind(row.state)
        .bind(row.length)
        .bind(row.stored)
        .bind(row.charged)
        .bind(row.turn)
        .bind(row.drop_at)
        .bind(row.expires)
        .execute(db)
        .await?;
    Ok(())
}

async fn drop_segments(db: &mut SqliteConnection, names: &str) -> Result<(), StorageError> {
    sqlx::query(DROP_SEGMENTS).bind(names).execute(db).await?;
    Ok(())
}

/// Names as JSON text of hexadecimal strings, for `unhex`.
fn json_names<'a>(names: impl IntoIterator<Item = &'a AttachmentName>) -> String {
    let mut json = String::from("[");
    for name in names {
        json.push_str(if json.len() == 1 { "\"" } else { ",\"" });
        for byte in name.0 {
            write!(json, "{byte:02x}").expect("a string takes whatever is written");
        }
        json.push('"');
    }
    json.push(']');
    json
}

const PIN_REALM: &str = "INSERT INTO settings (name, value) VALUES ('attachment_realm', $1) ON CONFLICT DO NOTHING";
const PINNED_REALM: &str = "SELECT value FROM settings WHERE name = 'attachment_realm'";
const UPLOAD: &str = "SELECT state, length, stored, charged, turn, drop_at, expires FROM attachments WHERE name = $1";
const INSERT: &str = "INSERT INTO attachments (name, state, length, stored, charged, turn, drop_at, expires) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
const SAVE: &str = "UPDATE attachments SET state = $2, length = $3, stored = $4, charged = $5, turn = $6, drop_at = $7, \
    expires = $8 WHERE name = $1";
// One statement, so that however many requests take from a budget at once, it is not overdrawn.
const CHARGE: &str = "INSERT INTO attachment_budgets (bucket, day, bytes) SELECT $1, $2, $3 WHERE $3 <= $4 \
    ON CONFLICT (bucket) DO UPDATE SET bytes = attachment_budgets.bytes + excluded.bytes \
    WHERE attachment_budgets.bytes + excluded.bytes <= $4 RETURNING bytes";
const INSERT_SEGMENTS: &str = "INSERT INTO attachment_segments (name, start, length, tag) \
    SELECT $1, value ->> 0, value ->> 1, value ->> 2 FROM json_each($2)";
const COUNT_SEGMENTS: &str = "SELECT count(*) FROM attachment_segments WHERE name = $1";
const DROP_SEGMENTS: &str = "DELETE FROM attachment_segments WHERE name IN (SELECT unhex(value) FROM json_each($1))";
const ATTACHMENT: &str = "SELECT a.stored, s.start, s.length, s.tag FROM attachments AS a \
    LEFT JOIN attachment_segments AS s ON s.name = a.name \
    WHERE a.name = $1 AND a.state = 1 AND a.expires > $2 ORDER BY s.start";
const REMOVE: &str = "UPDATE attachments SET state = 2, length = NULL, stored = 0, drop_at = NULL, expires = $4 \
    WHERE name = $1 AND ((state = 0 AND drop_at > $2) OR (state = 1 AND expires > $3))";
// "state <> 0" says nothing new: it is by these words that SQLite finds the index that has them.
const EXPIRE: &str = "UPDATE attachments SET state = 2, length = NULL, stored = 0, drop_at = NULL, expires = $3 \
    WHERE name IN (SELECT name FROM (\
        SELECT name FROM attachments WHERE state = 0 AND drop_at <= $1 \
        UNION ALL SELECT name FROM attachments WHERE state <> 0 AND state = 1 AND expires <= $2) LIMIT $4) RETURNING name";
// What was complete is removed, and what never was is as if it had been.
const RETIRE: &str = "INSERT INTO attachments (name, state, stored, charged, turn, expires) \
    SELECT unhex(value), 3, 0, 0, 0, $2 FROM json_each($1) WHERE TRUE \
    ON CONFLICT (name) DO UPDATE SET state = 2, length = NULL, stored = 0, drop_at = NULL, expires = excluded.expires \
    WHERE attachments.state IN (0, 1)";
const UNCLEARED: &str = "SELECT name FROM attachments WHERE state = 2 AND name > $1 ORDER BY name LIMIT $2";
const CLEARED: &str = "UPDATE attachments SET state = 3 \
    WHERE state = 2 AND name IN (SELECT unhex(value) FROM json_each($1))";
const FORGET: &str = "DELETE FROM attachments WHERE name IN (\
    SELECT name FROM attachments WHERE state <> 0 AND state = 3 AND expires <= $1 LIMIT $2)";
const DROP_BUDGET: &str = "DELETE FROM attachment_budgets WHERE bucket = $1";
const FORGET_BUDGETS: &str = "DELETE FROM attachment_budgets WHERE bucket IN (\
    SELECT bucket FROM attachment_budgets WHERE day <= $1 LIMIT $2)";
const KNOWN: &str = "SELECT name FROM attachments \
    WHERE state < 3 AND name IN (SELECT unhex(value) FROM json_each($1))";

#[cfg(test)]
mod tests {
    use super::*;

    crate::storage::conformance::attachment_store_suite!(crate::storage::testing::sqlite);

    #[tokio::test]
    async fn what_is_swept_is_found_by_its_index() {
        let database = crate::storage::testing::sqlite(crate::storage::testing::ROOMY)
            .await
            .unwrap();
        let mut plans = Vec::new();
        for statement in [EXPIRE, UNCLEARED, FORGET, FORGET_BUDGETS] {
            let plan = database.plan(statement).await;
            assert!(!plan.contains("SCAN attachment"), "{statement}: {plan}");
            plans.push(plan);
        }
        let plan = plans.concat();
        for index in ["_drop_at", "_expires", "_removed", "_budgets_day"] {
            assert!(plan.contains(index), "{index}: {plan}");
        }
    }

    #[test]
    fn names_become_json() {
        let name = AttachmentName([0xab; 32]);
        assert_eq!(json_names([]), "[]");
        let one = format!("\"{}\"", "ab".repeat(32));
        assert_eq!(json_names([&name, &name]), format!("[{one},{one}]"));
    }
}
