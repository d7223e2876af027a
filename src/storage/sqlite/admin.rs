//! The operator's acts on SQLite. There is one writer, so that the log is one chain.

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::Database;
use super::accounts::erase;
use super::invites;
use crate::domain::{
    AccountGlance, Aci, AdminOutcome, AdminRecord, ChainEnds, Erased, Invite, InviteHash, InviteId, LogPage, MailboxId,
    Pseudonym, Sums,
};
use crate::storage::rows::{self, AdminEntryRow, GlanceRow};
use crate::storage::{AdminStore, StorageError};

/// The operator's acts in one file.
pub(super) struct SqliteAdmin {
    database: Database,
}

impl SqliteAdmin {
    pub(super) fn new(database: Database) -> Self {
        Self { database }
    }
}

#[async_trait]
impl AdminStore for SqliteAdmin {
    #[tracing::instrument(name = "db.admin.record", level = "debug", skip_all)]
    async fn record(&self, record: &AdminRecord, outcome: AdminOutcome) -> Result<(), StorageError> {
        let mut tx = self.database.begin().await?;
        append(&mut tx, record, outcome).await?;
        tx.commit().await?;
        Ok(())
    }

    #[tracing::instrument(name = "db.admin.glance", level = "debug", skip_all)]
    async fn glance(&self, account: Aci, record: &AdminRecord) -> Result<Option<AccountGlance>, StorageError> {
        let mut tx = self.database.begin().await?;
        let row: Option<GlanceRow> = sqlx::query_as(GLANCE)
            .bind(account.as_uuid())
            .fetch_optional(&mut *tx)
            .await?;
        append(&mut tx, record, found(row.is_some())).await?;
        tx.commit().await?;
        Ok(row.map(GlanceRow::into_glance))
    }

    #[tracing::instrument(name = "db.admin.set_suspended", level = "debug", skip_all)]
    async fn set_suspended(
        &self,
        account: Aci,
        suspended: bool,
        record: &AdminRecord,
    ) -> Result<Option<Vec<MailboxId>>, StorageError> {
        let mut tx = self.database.begin().await?;
        let set = sqlx::query(SET_SUSPENDED)
            .bind(account.as_uuid())
            .bind(suspended)
            .execute(&mut *tx)
            .await?;
        let there = set.rows_affected() == 1;
        let mailboxes: Vec<i64> = sqlx::query_scalar(MAILBOXES)
            .bind(account.as_uuid())
            .fetch_all(&mut *tx)
            .await?;
        append(&mut tx, record, found(there)).await?;
        tx.commit().await?;
        Ok(there.then(|| mailboxes.into_iter().map(MailboxId).collect()))
    }

    #[tracing::instrument(name = "db.admin.erase", level = "debug", skip_all)]
    async fn erase(&self, account: Aci, record: &AdminRecord) -> Result<Erased, StorageError> {
        let mut tx = self.database.begin().await?;
        let erased = erase(&mut tx, account).await?;
        // An account has a device.
        append(&mut tx, record, found(!erased.mailboxes.is_empty())).await?;
        tx.commit().await?;
        Ok(erased)
    }

    #[tracing::instrument(name = "db.admin.create_invite", level = "debug", skip_all)]
    async fn create_invite(
        &self,
        code: &InviteHash,
        invite: &Invite,
        record: &AdminRecord,
    ) -> Result<bool, StorageError> {
        let mut tx = self.database.begin().await?;
        let created = invites::create(&mut tx, code, invite).await?;
        append(&mut tx, record, done(created)).await?;
        tx.commit().await?;
        Ok(created)
    }

    #[tracing::instrument(name = "db.admin.revoke_invite", level = "debug", skip_all)]
    async fn revoke_invite(&self, id: &InviteId, record: &AdminRecord) -> Result<bool, StorageError> {
        let mut tx = self.database.begin().await?;
        let revoked = invites::revoke(&mut tx, id).await?;
        append(&mut tx, record, found(revoked)).await?;
        tx.commit().await?;
        Ok(revoked)
    }

    #[tracing::instrument(name = "db.admin.sums", level = "debug", skip_all)]
    async fn sums(&self) -> Result<Sums, StorageError> {
        let read = &self.database.read;
        let (accounts, suspended): (i64, i64) = sqlx::query_as(COUNT_ACCOUNTS).fetch_one(read).await?;
        let (devices, ec_keys, kyber_keys): (i64, i64, i64) = sqlx::query_as(COUNT_OTHERS).fetch_one(read).await?;
        let queued: Vec<(i64, i64)> = sqlx::query_as(COUNT_QUEUED).fetch_all(read).await?;
        let database_bytes: i64 = sqlx::query_scalar(SIZE).fetch_one(read).await?;
        Ok(rows::sums(
            [accounts, suspended, devices, ec_keys, kyber_keys, database_bytes],
            queued,
        ))
    }

    #[tracing::instrument(name = "db.admin.log", level = "debug", skip_all)]
    async fn log(&self, after: i64, limit: u32, about: Option<&Pseudonym>) -> Result<LogPage, StorageError> {
        // Both as of one moment.
        let mut tx = self.database.read.begin().await?;
        let stored: Option<Vec<u8>> = sqlx::query_scalar(ENDS).fetch_optional(&mut *tx).await?;
        let entries: Vec<AdminEntryRow> = match about {
            None => sqlx::query_as(LOG).bind(after).bind(i64::from(limit)),
            Some(about) => sqlx::query_as(LOG_ABOUT)
                .bind(after)
                .bind(i64::from(limit))
                .bind(about.0.as_slice()),
        }
        .fetch_all(&mut *tx)
        .await?;
        Ok(LogPage {
            entries: entries.into_iter().map(AdminEntryRow::into_entry).collect(),
            ends: rows::chain_ends(stored.as_deref())?,
        })
    }

    #[tracing::instrument(name = "db.admin.expire_log", level = "debug", skip_all)]
    async fn expire_log(&self, before: i64, limit: u32) -> Result<u64, StorageError> {
        let due: bool = sqlx::query_scalar(ANY_DUE)
            .bind(before)
            .fetch_one(&self.database.read)
            .await?;
        if !due {
            return Ok(0);
        }
        let mut tx = self.database.begin().await?;
        let ends = ends(&mut tx).await?;
        let oldest: Vec<AdminEntryRow> = sqlx::query_as(LOG)
            .bind(ends.anchor.seq)
            .bind(i64::from(limit))
            .fetch_all(&mut *tx)
            .await?;
        let Some(anchor) = rows::last_before(&oldest, before) else {
            return Ok(0);
        };
        let dropped = sqlx::query(CUT).bind(anchor.seq).execute(&mut *tx).await?;
        save(&mut tx, &ChainEnds { anchor, ..ends }).await?;
        tx.commit().await?;
        Ok(dropped.rows_affected())
    }
}

/// Puts an act at the end of the chain.
async fn append(db: &mut SqliteConnection, record: &AdminRecord, outcome: AdminOutcome) -> Result<(), StorageError> {
    let ends = ends(&mut *db).await?;
    let (entry, head) = record.entry(outcome, &ends.head);
    sqlx::query(APPEND)
        .bind(entry.seq)
        .bind(entry.minute)
        .bind(entry.act)
        .bind(entry.outcome)
        .bind(entry.target.as_deref())
        .bind(entry.uid)
        .bind(entry.hash.as_slice())
        .execute(&mut *db)
        .await?;
    save(db, &ChainEnds { head, ..ends }).await
}

async fn ends(db: &mut SqliteConnection) -> Result<ChainEnds, StorageError> {
    let stored: Option<Vec<u8>> = sqlx::query_scalar(ENDS).fetch_optional(db).await?;
    rows::chain_ends(stored.as_deref())
}

async fn save(db: &mut SqliteConnection, ends: &ChainEnds) -> Result<(), StorageError> {
    sqlx::query(SAVE_ENDS)
        .bind(ends.to_bytes().as_slice())
        .execute(db)
        .await?;
    Ok(())
}

fn found(there: bool) -> AdminOutcome {
    if there {
        AdminOutcome::Done
    } else {
        AdminOutcome::NotFound
    }
}

fn done(done: bool) -> AdminOutcome {
    if done {
        AdminOutcome::Done
    } else {
        AdminOutcome::Refused
    }
}

const GLANCE: &str = "SELECT suspended, count(*) AS devices, max(last_seen) AS last_seen \
    FROM accounts JOIN devices USING (aci) WHERE aci = $1 GROUP BY aci, suspended";
const SET_SUSPENDED: &str = "UPDATE accounts SET suspended = $2 WHERE aci = $1";
const MAILBOXES: &str = "SELECT mailbox FROM devices WHERE aci = $1 ORDER BY mailbox";
const COUNT_ACCOUNTS: &str = "SELECT count(*), count(*) FILTER (WHERE suspended) FROM accounts";
const COUNT_OTHERS: &str = "SELECT (SELECT count(*) FROM devices), (SELECT count(*) FROM one_time_ec_keys), \
    (SELECT count(*) FROM one_time_kyber_keys)";
const COUNT_QUEUED: &str = "SELECT bucket, count(*) FROM envelopes GROUP BY bucket ORDER BY bucket";
pub(super) const SIZE: &str = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()";
const LOG: &str = "SELECT seq, minute, act, outcome, target, uid, hash FROM admin_log WHERE seq > $1 \
    ORDER BY seq LIMIT $2";
const LOG_ABOUT: &str = "SELECT seq, minute, act, outcome, target, uid, hash FROM admin_log \
    WHERE seq > $1 AND target = $3 ORDER BY seq LIMIT $2";
const APPEND: &str = "INSERT INTO admin_log (seq, minute, act, outcome, target, uid, hash) \
    VALUES ($1, $2, $3, $4, $5, $6, $7)";
const ENDS: &str = "SELECT value FROM settings WHERE name = 'admin_log'";
const SAVE_ENDS: &str = "INSERT INTO settings (name, value) VALUES ('admin_log', $1) \
    ON CONFLICT (name) DO UPDATE SET value = excluded.value";
const ANY_DUE: &str =
    "SELECT EXISTS (SELECT 1 FROM (SELECT minute FROM admin_log ORDER BY seq LIMIT 1) WHERE minute < $1)";
const CUT: &str = "DELETE FROM admin_log WHERE seq <= $1";

#[cfg(test)]
mod tests {
    crate::storage::conformance::admin_store_suite!(crate::storage::testing::sqlite);
}
