//! Uploads and attachments on PostgreSQL.
//!
//! Whoever changes an upload holds its row from reading it until commit, and takes from the budget after that, so two
//! nodes wait for one another instead of deadlocking.

use async_trait::async_trait;
use sqlx::PgConnection;

use super::{Database, retrying};
use crate::domain::{
    Appended, Attachment, AttachmentName, Budget, Day, NewUpload, Opened, QuotaBucket, REMOVED_DAYS, Segment,
    Timestamp, Turn, TurnTaken, Upload, UploadTimes,
};
use crate::storage::attachments::{Change, signed};
use crate::storage::rows::{self, SegmentRow, UploadRow};
use crate::storage::{AttachmentStore, StorageError};

/// Attachments in tables that every node shares.
pub(super) struct PgAttachments {
    database: Database,
}

impl PgAttachments {
    pub(super) fn new(database: Database) -> Self {
        Self { database }
    }

    async fn try_expire(&self, now: Timestamp, limit: u32) -> Result<u64, StorageError> {
        let mut tx = self.database.begin().await?;
        let gone: Vec<Vec<u8>> = sqlx::query_scalar(EXPIRE)
            .bind(now.0)
            .bind(now.day().0)
            .bind(now.day().plus(REMOVED_DAYS).0)
            .bind(i64::from(limit))
            .fetch_all(&mut *tx)
            .await?;
        let names = rows::names(&gone)?;
        drop_segments(&mut tx, &names).await?;
        tx.commit().await?;
        Ok(names.len().try_into().unwrap_or(u64::MAX))
    }

    async fn try_retire(&self, names: &[AttachmentName], now: Timestamp) -> Result<(), StorageError> {
        let mut tx = self.database.begin().await?;
        sqlx::query(RETIRE)
            .bind(bytes(names))
            .bind(now.day().plus(REMOVED_DAYS).0)
            .execute(&mut *tx)
            .await?;
        drop_segments(&mut tx, names).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn try_cleared(&self, names: &[AttachmentName]) -> Result<(), StorageError> {
        sqlx::query(CLEARED)
            .bind(bytes(names))
            .execute(&self.database.pool)
            .await?;
        Ok(())
    }

    async fn try_forget(&self, statement: &'static str, day: Day, limit: u32) -> Result<u64, StorageError> {
        let dropped = sqlx::query(statement)
            .bind(day.0)
            .bind(i64::from(limit))
            .execute(&self.database.pool)
            .await?;
        Ok(dropped.rows_affected())
    }
}

#[async_trait]
impl AttachmentStore for PgAttachments {
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
        let change = UploadRow::open(upload);
        if write(INSERT, &mut tx, &upload.name, &change.row).await? == 0 {
            let row = row(&mut tx, &upload.name).await?;
            return Ok(row
                .and_then(|row| row.upload(upload.times.now))
                .map_or(Opened::Gone, Opened::At));
        }
        if !charge(&mut tx, &upload.budget, change.charge).await? {
            return Ok(Opened::OverBudget);
        }
        tx.commit().await?;
        Ok(change.row.upload(upload.times.now).map_or(Opened::Gone, Opened::At))
    }

    #[tracing::instrument(name = "db.attachments.find_upload", level = "debug", skip_all)]
    async fn find_upload(&self, name: &AttachmentName, now: Timestamp) -> Result<Option<Upload>, StorageError> {
        let row: Option<UploadRow> = sqlx::query_as(UPLOAD)
            .bind(name.0.as_slice())
            .fetch_optional(&self.database.pool)
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
        sqlx::query(INSERT_SEGMENTS)
            .bind(name.0.as_slice())
            .bind(segments.iter().map(|segment| signed(segment.start)).collect::<Vec<_>>())
            .bind(
                segments
                    .iter()
                    .map(|segment| signed(segment.length))
                    .collect::<Vec<_>>(),
            )
            .bind(segments.iter().map(|segment| segment.tag).collect::<Vec<_>>())
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
            .fetch_all(&self.database.pool)
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
            drop_segments(&mut tx, &[*name]).await?;
            tx.commit().await?;
        }
        Ok(there)
    }

    #[tracing::instrument(name = "db.attachments.retire", level = "debug", skip_all)]
    async fn retire(&self, names: &[AttachmentName], now: Timestamp) -> Result<(), StorageError> {
        retrying!(self.try_retire(names, now).await)
    }

    #[tracing::instrument(name = "db.attachments.drop_budgets", level = "debug", skip_all)]
    async fn drop_budgets(&self, buckets: &[QuotaBucket]) -> Result<(), StorageError> {
        for bucket in buckets {
            sqlx::query(DROP_BUDGET)
                .bind(bucket.0.as_slice())
                .execute(&self.database.pool)
                .await?;
        }
        Ok(())
    }

    #[tracing::instrument(name = "db.attachments.expire", level = "debug", skip_all)]
    async fn expire(&self, now: Timestamp, limit: u32) -> Result<u64, StorageError> {
        retrying!(self.try_expire(now, limit).await)
    }

    #[tracing::instrument(name = "db.attachments.uncleared", level = "debug", skip_all)]
    async fn uncleared(&self, after: Option<AttachmentName>, limit: u32) -> Result<Vec<AttachmentName>, StorageError> {
        let found: Vec<Vec<u8>> = sqlx::query_scalar(UNCLEARED)
            .bind(after.as_ref().map_or(&[][..], |name| name.0.as_slice()))
            .bind(i64::from(limit))
            .fetch_all(&self.database.pool)
            .await?;
        rows::names(&found)
    }

    #[tracing::instrument(name = "db.attachments.cleared", level = "debug", skip_all)]
    async fn cleared(&self, names: &[AttachmentName]) -> Result<(), StorageError> {
        retrying!(self.try_cleared(names).await)
    }

    #[tracing::instrument(name = "db.attachments.forget", level = "debug", skip_all)]
    async fn forget(&self, today: Day, limit: u32) -> Result<u64, StorageError> {
        let mut forgotten = 0;
        for (statement, day) in [(FORGET, today), (FORGET_BUDGETS, today.plus(-REMOVED_DAYS))] {
            forgotten += retrying!(self.try_forget(statement, day, limit).await)?;
        }
        Ok(forgotten)
    }

    #[tracing::instrument(name = "db.attachments.known", level = "debug", skip_all)]
    async fn known(&self, names: &[AttachmentName]) -> Result<Vec<AttachmentName>, StorageError> {
        let found: Vec<Vec<u8>> = sqlx::query_scalar(KNOWN)
            .bind(bytes(names))
            .fetch_all(&self.database.pool)
            .await?;
        rows::names(&found)
    }
}

async fn row(db: &mut PgConnection, name: &AttachmentName) -> Result<Option<UploadRow>, StorageError> {
    Ok(sqlx::query_as(LOCK_UPLOAD)
        .bind(name.0.as_slice())
        .fetch_optional(db)
        .await?)
}

async fn charge(db: &mut PgConnection, budget: &Budget, bytes: i64) -> Result<bool, StorageError> {
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

async fn save(db: &mut PgConnection, name: &AttachmentName, row: &UploadRow) -> Result<(), StorageError> {
    write(SAVE, db, name, row).await.map(drop)
}

async fn write(
    statement: &'static str,
    db: &mut PgConnection,
    name: &AttachmentName,
    row: &UploadRow,
) -> Result<u64, StorageError> {
    let written = sqlx::query(statement)
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
    Ok(written.rows_affected())
}

async fn drop_segments(db: &mut PgConnection, names: &[AttachmentName]) -> Result<(), StorageError> {
    sqlx::query(DROP_SEGMENTS).bind(bytes(names)).execute(db).await?;
    Ok(())
}

fn bytes(names: &[AttachmentName]) -> Vec<&[u8]> {
    names.iter().map(|name| name.0.as_slice()).collect()
}

const PIN_REALM: &str = "INSERT INTO settings (name, value) VALUES ('attachment_realm', $1) ON CONFLICT DO NOTHING";
const PINNED_REALM: &str = "SELECT value FROM settings WHERE name = 'attachment_realm'";
const UPLOAD: &str = "SELECT state, length, stored, charged, turn, drop_at, expires FROM attachments WHERE name = $1";
const LOCK_UPLOAD: &str = "SELECT state, length, stored, charged, turn, drop_at, expires FROM attachments \
    WHERE name = $1 FOR UPDATE";
const INSERT: &str = "INSERT INTO attachments (name, state, length, stored, charged, turn, drop_at, expires) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (name) DO NOTHING";
const SAVE: &str = "UPDATE attachments SET state = $2, length = $3, stored = $4, charged = $5, turn = $6, drop_at = $7, \
    expires = $8 WHERE name = $1";
// One statement, so that however many requests take from a budget at once, it is not overdrawn.
const CHARGE: &str = "INSERT INTO attachment_budgets (bucket, day, bytes) SELECT $1::bytea, $2::integer, $3::bigint WHERE $3 <= $4::bigint \
    ON CONFLICT (bucket) DO UPDATE SET bytes = attachment_budgets.bytes + excluded.bytes \
    WHERE attachment_budgets.bytes + excluded.bytes <= $4 RETURNING bytes";
const INSERT_SEGMENTS: &str = "INSERT INTO attachment_segments (name, start, length, tag) \
    SELECT $1::bytea, * FROM unnest($2::bigint[], $3::bigint[], $4::bigint[])";
const COUNT_SEGMENTS: &str = "SELECT count(*) FROM attachment_segments WHERE name = $1";
const DROP_SEGMENTS: &str = "DELETE FROM attachment_segments WHERE name = ANY($1)";
const ATTACHMENT: &str = "SELECT a.stored, s.start, s.length, s.tag FROM attachments AS a \
    LEFT JOIN attachment_segments AS s ON s.name = a.name \
    WHERE a.name = $1 AND a.state = 1 AND a.expires > $2 ORDER BY s.start";
const REMOVE: &str = "UPDATE attachments SET state = 2, length = NULL, stored = 0, drop_at = NULL, expires = $4 \
    WHERE name = $1 AND ((state = 0 AND drop_at > $2) OR (state = 1 AND expires > $3))";
const EXPIRE: &str = "UPDATE attachments SET state = 2, length = NULL, stored = 0, drop_at = NULL, expires = $3 \
    WHERE name IN (SELECT name FROM (\
        SELECT name FROM attachments WHERE state = 0 AND drop_at <= $1 \
        UNION ALL SELECT name FROM attachments WHERE state = 1 AND expires <= $2) AS due LIMIT $4) \
    AND ((state = 0 AND drop_at <= $1) OR (state = 1 AND expires <= $2)) RETURNING name";
// What was complete is removed, and what never was is as if it had been. In the order of names, as others lock rows.
const RETIRE: &str = "INSERT INTO attachments (name, state, stored, charged, turn, expires) \
    SELECT name, 3, 0, 0, 0, $2::integer FROM unnest($1::bytea[]) AS given (name) ORDER BY name \
    ON CONFLICT (name) DO UPDATE SET state = 2, length = NULL, stored = 0, drop_at = NULL, expires = excluded.expires \
    WHERE attachments.state IN (0, 1)";
const UNCLEARED: &str = "SELECT name FROM attachments WHERE state = 2 AND name > $1 ORDER BY name LIMIT $2";
// What another node sweeps at the same time is left to it.
const CLEARED: &str = "UPDATE attachments SET state = 3 WHERE name IN (\
    SELECT name FROM attachments WHERE state = 2 AND name = ANY($1) ORDER BY name FOR UPDATE SKIP LOCKED)";
const FORGET: &str = "DELETE FROM attachments WHERE name IN (\
    SELECT name FROM attachments WHERE state = 3 AND expires <= $1 ORDER BY name LIMIT $2 FOR UPDATE SKIP LOCKED)";
const DROP_BUDGET: &str = "DELETE FROM attachment_budgets WHERE bucket = $1";
const FORGET_BUDGETS: &str = "DELETE FROM attachment_budgets WHERE bucket IN (\
    SELECT bucket FROM attachment_budgets WHERE day <= $1 ORDER BY bucket LIMIT $2 FOR UPDATE SKIP LOCKED)";
const KNOWN: &str = "SELECT name FROM attachments \
    WHERE state < 3 AND name = ANY($1)";

#[cfg(test)]
mod tests {
    crate::storage::conformance::attachment_store_suite!(crate::storage::testing::postgres);
}
