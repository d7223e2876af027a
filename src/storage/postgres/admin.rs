//! The operator's acts on Postgres.
//!
//! The row that holds the ends of the log is locked by whoever writes to it, after every other row, until its commit: so
//! the log is one chain, and its places have no gaps.

use async_trait::async_trait;
use sqlx::PgConnection;

use super::accounts::erase;
use super::invites;
use super::{Database, retrying};
use crate::domain::{
    AccountGlance, Aci, AdminOutcome, AdminRecord, ChainEnds, Erased, Invite, InviteHash, InviteId, LogPage, MailboxId,
    Pseudonym, Sums,
};
use crate::storage::rows::{self, AdminEntryRow, GlanceRow};
use crate::storage::{AdminStore, StorageError};

/// The operator's acts in one database, shared by every node.
pub(super) struct PgAdmin {
    database: Database,
}

impl PgAdmin {
    pub(super) fn new(database: Database) -> Self {
        Self { database }
    }

    async fn try_record(&self, record: &AdminRecord, outcome: AdminOutcome) -> Result<(), StorageError> {
        let mut tx = self.database.begin().await?;
        append(&mut tx, record, outcome).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn try_glance(&self, account: Aci, record: &AdminRecord) -> Result<Option<AccountGlance>, StorageError> {
        let mut tx = self.database.begin().await?;
        let row: Option<GlanceRow> = sqlx::query_as(GLANCE)
            .bind(account.as_uuid())
            .fetch_optional(&mut *tx)
            .await?;
        append(&mut tx, record, found(row.is_some())).await?;
        tx.commit().await?;
        Ok(row.map(GlanceRow::into_glance))
    }

    async fn try_set_suspended(
        &self,
        account: Aci,
        suspended: bool,
        record: &AdminRecord,
    ) -> Result<Option<Vec<MailboxId>>, StorageError> {
        let mut tx = self.database.begin().await?;
        // Waits for a registration that starts the account over to end, and has the next one look again.
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

    async fn try_erase(&self, account: Aci, record: &AdminRecord) -> Result<Erased, StorageError> {
        let mut tx = self.database.begin().await?;
        sqlx::query(LOCK_ACCOUNT)
            .bind(account.as_uuid())
            .execute(&mut *tx)
            .await?;
        let erased = erase(&mut tx, account).await?;
        // An account has a device.
        append(&mut tx, record, found(!erased.mailboxes.is_empty())).await?;
        tx.commit().await?;
        Ok(erased)
    }

    async fn try_create_invite(
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

    async fn try_revoke_invite(&self, id: &InviteId, record: &AdminRecord) -> Result<bool, StorageError> {
        let mut tx = self.database.begin().await?;
        let revoked = invites::revoke(&mut tx, id).await?;
        append(&mut tx, record, found(revoked)).await?;
        tx.commit().await?;
        Ok(revoked)
    }

    async fn try_expire_log(&self, before: i64, limit: u32) -> Result<u64, StorageError> {
        let mut tx = self.database.begin().await?;
        let ends = hold_ends(&mut tx).await?;
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

#[async_trait]
impl AdminStore for PgAdmin {
    #[tracing::instrument(name = "db.admin.record", level = "debug", skip_all)]
    async fn record(&self, record: &AdminRecord, outcome: AdminOutcome) -> Result<(), StorageError> {
        retrying!(self.try_record(record, outcome).await)
    }

    #[tracing::instrument(name = "db.admin.glance", level = "debug", skip_all)]
    async fn glance(&self, account: Aci, record: &AdminRecord) -> Result<Option<AccountGlance>, StorageError> {
        retrying!(self.try_glance(account, record).await)
    }

    #[tracing::instrument(name = "db.admin.set_suspended", level = "debug", skip_all)]
    async fn set_suspended(
        &self,
        account: Aci,
        suspended: bool,
        record: &AdminRecord,
    ) -> Result<Option<Vec<MailboxId>>, StorageError> {
        retrying!(self.try_set_suspended(account, suspended, record).await)
    }

    #[tracing::instrument(name = "db.admin.erase", level = "debug", skip_all)]
    async fn erase(&self, account: Aci, record: &AdminRecord) -> Result<Erased, StorageError> {
        retrying!(self.try_erase(account, record).await)
    }

    #[tracing::instrument(name = "db.admin.create_invite", level = "debug", skip_all)]
    async fn create_invite(
        &self,
        code: &InviteHash,
        invite: &Invite,
        record: &AdminRecord,
    ) -> Result<bool, StorageError> {
        retrying!(self.try_create_invite(code, invite, record).await)
    }

    #[tracing::instrument(name = "db.admin.revoke_invite", level = "debug", skip_all)]
    async fn revoke_invite(&self, id: &InviteId, record: &AdminRecord) -> Result<bool, StorageError> {
        retrying!(self.try_revoke_invite(id, record).await)
    }

    #[tracing::instrument(name = "db.admin.sums", level = "debug", skip_all)]
    async fn sums(&self) -> Result<Sums, StorageError> {
        let pool = &self.database.pool;
        let (accounts, suspended): (i64, i64) = sqlx::query_as(COUNT_ACCOUNTS).fetch_one(pool).await?;
        let (devices, ec_keys, kyber_keys): (i64, i64, i64) = sqlx::query_as(COUNT_OTHERS).fetch_one(pool).await?;
        let queued: Vec<(i64, i64)> = sqlx::query_as(COUNT_QUEUED).fetch_all(pool).await?;
        let database_bytes: i64 = sqlx::query_scalar(SIZE).fetch_one(pool).await?;
        Ok(rows::sums(
            [accounts, suspended, devices, ec_keys, kyber_keys, database_bytes],
            queued,
        ))
    }

    #[tracing::instrument(name = "db.admin.log", level = "debug", skip_all)]
    async fn log(&self, after: i64, limit: u32, about: Option<&Pseudonym>) -> Result<LogPage, StorageError> {
        let mut tx = self.database.begin().await?;
        // Both as of one moment.
        sqlx::query(ONE_MOMENT).execute(&mut *tx).await?;
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
        tx.commit().await?;
        Ok(LogPage {
            entries: entries.into_iter().map(AdminEntryRow::into_entry).collect(),
            ends: rows::chain_ends(stored.as_deref())?,
        })
    }

    #[tracing::instrument(name = "db.admin.expire_log", level = "debug", skip_all)]
    async fn expire_log(&self, before: i64, limit: u32) -> Result<u64, StorageError> {
        let due: bool = sqlx::query_scalar(ANY_DUE)
            .bind(before)
            .fetch_one(&self.database.pool)
            .await?;
        if !due {
            return Ok(0);
        }
        retrying!(self.try_expire_log(before, limit).await)
    }
}

/// Puts an act at the end of the chain. To be called last: whoever holds the ends waits for nobody.
async fn append(db: &mut PgConnection, record: &AdminRecord, outcome: AdminOutcome) -> Result<(), StorageError> {
    let ends = hold_ends(&mut *db).await?;
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

/// The ends, which stay as they are until the transaction is over.
async fn hold_ends(db: &mut PgConnection) -> Result<ChainEnds, StorageError> {
    // Waits for whoever else makes the row, so that there is one to lock.
    sqlx::query(MAKE_ENDS)
        .bind(ChainEnds::EMPTY.to_bytes().as_slice())
        .execute(&mut *db)
        .await?;
    let stored: Option<Vec<u8>> = sqlx::query_scalar(HOLD_ENDS).fetch_optional(db).await?;
    rows::chain_ends(stored.as_deref())
}

async fn save(db: &mut PgConnection, ends: &ChainEnds) -> Result<(), StorageError> {
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
const LOCK_ACCOUNT: &str = "SELECT 1 FROM accounts WHERE aci = $1 FOR UPDATE";
const MAILBOXES: &str = "SELECT mailbox FROM devices WHERE aci = $1 ORDER BY mailbox";
const COUNT_ACCOUNTS: &str = "SELECT count(*), count(*) FILTER (WHERE suspended) FROM accounts";
const COUNT_OTHERS: &str = "SELECT (SELECT count(*) FROM devices), (SELECT count(*) FROM one_time_ec_keys), \
    (SELECT count(*) FROM one_time_kyber_keys)";
const COUNT_QUEUED: &str = "SELECT bucket::bigint, count(*) FROM envelopes GROUP BY bucket ORDER BY bucket";
const SIZE: &str = "SELECT pg_database_size(current_database())";
const ONE_MOMENT: &str = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ";
const LOG: &str = "SELECT seq, minute, act, outcome, target, uid, hash FROM admin_log WHERE seq > $1 \
    ORDER BY seq LIMIT $2";
const LOG_ABOUT: &str = "SELECT seq, minute, act, outcome, target, uid, hash FROM admin_log \
    WHERE seq > $1 AND target = $3 ORDER BY seq LIMIT $2";
const APPEND: &str = "INSERT INTO admin_log (seq, minute, act, outcome, target, uid, hash) \
    VALUES ($1, $2, $3, $4, $5, $6, $7)";
const ENDS: &str = "SELECT value FROM settings WHERE name = 'admin_log'";
const HOLD_ENDS: &str = "SELECT value FROM settings WHERE name = 'admin_log' FOR UPDATE";
const MAKE_ENDS: &str = "INSERT INTO settings (name, value) VALUES ('admin_log', $1) ON CONFLICT DO NOTHING";
const SAVE_ENDS: &str = "UPDATE settings SET value = $1 WHERE name = 'admin_log'";
const ANY_DUE: &str =
    "SELECT EXISTS (SELECT 1 FROM (SELECT minute FROM admin_log ORDER BY seq LIMIT 1) AS oldest WHERE minute < $1)";
const CUT: &str = "DELETE FROM admin_log WHERE seq <= $1";

#[cfg(test)]
mod tests {
    crate::storage::conformance::admin_store_suite!(crate::storage::testing::postgres);
}
