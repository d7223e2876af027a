//! Account data on Postgres.
//!
//! A writer locks the account's counters before it looks at an entry and holds them until commit. Versions therefore
//! become visible in the order in which they were drawn: a device that has seen `n` may ask for what came after `n`.

use async_trait::async_trait;

use super::{Database, retrying};
use crate::domain::{Aci, Actor, DataCursor, DataEntry, DataKey, DataLimits, DataPage, DataWrite, Written};
use crate::storage::account_data::{ChangeColumns, CounterColumns, DataCounter, KnownColumns, decide, entry, page};
use crate::storage::{AccountDataStore, StorageError};

/// Entries in one database, shared by every node.
pub(super) struct PgAccountData {
    database: Database,
}

impl PgAccountData {
    pub(super) fn new(database: Database) -> Self {
        Self { database }
    }

    async fn try_write(&self, by: &Actor, writes: &[DataWrite], limits: DataLimits) -> Result<Written, StorageError> {
        let Some(mut tx) = self.database.begin_as(by).await? else {
            return Ok(Written::UnknownAccount);
        };
        let aci = by.address.aci;
        sqlx::query(INSERT_COUNTER)
            .bind(aci.as_uuid())
            .execute(&mut *tx)
            .await?;
        let counter: Option<CounterColumns> = sqlx::query_as(LOCK_COUNTER)
            .bind(aci.as_uuid())
            .fetch_optional(&mut *tx)
            .await?;
        let Some(counter) = counter else {
            return Ok(Written::UnknownAccount);
        };
        let keys: Vec<&[u8]> = writes.iter().map(|write| write.key.0.as_slice()).collect();
        let known: Vec<KnownColumns> = sqlx::query_as(KNOWN)
            .bind(aci.as_uuid())
            .bind(keys)
            .fetch_all(&mut *tx)
            .await?;
        let mut decision = match decide(DataCounter::from(counter), &known, writes, limits) {
            Ok(decision) => decision,
            Err(refused) => return Ok(refused),
        };
        let rows = &decision.rows;
        sqlx::query(SAVE)
            .bind(aci.as_uuid())
            .bind(rows.iter().map(|row| row.key.as_slice()).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.version).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.value).collect::<Vec<_>>())
            .execute(&mut *tx)
            .await?;
        if decision.counter.excess_deletions() > 0 {
            let forgotten: Vec<i64> = sqlx::query_scalar(FORGET)
                .bind(aci.as_uuid())
                .bind(decision.counter.excess_deletions())
                .fetch_all(&mut *tx)
                .await?;
            decision.counter.forgot(&forgotten);
        }
        sqlx::query(SAVE_COUNTER)
            .bind(aci.as_uuid())
            .bind(decision.counter.revision)
            .bind(decision.counter.entries)
            .bind(decision.counter.bytes)
            .bind(decision.counter.deletions)
            .bind(decision.counter.horizon)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(decision.written())
    }
}

#[async_trait]
impl AccountDataStore for PgAccountData {
    #[tracing::instrument(name = "db.data.write", level = "debug", skip_all)]
    async fn write(&self, by: &Actor, writes: &[DataWrite], limits: DataLimits) -> Result<Written, StorageError> {
        retrying!(self.try_write(by, writes, limits).await)
    }

    #[tracing::instrument(name = "db.data.find", level = "debug", skip_all)]
    async fn find(&self, aci: Aci, key: &DataKey) -> Result<Option<DataEntry>, StorageError> {
        let found: Option<(i64, Vec<u8>)> = sqlx::query_as(FIND)
            .bind(aci.as_uuid())
            .bind(key.0.as_slice())
            .fetch_optional(&self.database.pool)
            .await?;
        Ok(found.map(entry))
    }

    #[tracing::instrument(name = "db.data.changes", level = "debug", skip_all)]
    async fn changes(&self, aci: Aci, from: DataCursor, limit: u32) -> Result<DataPage, StorageError> {
        let rows: Vec<ChangeColumns> = sqlx::query_as(CHANGES)
            .bind(aci.as_uuid())
            .bind(from.after.0)
            .bind(from.since.0)
            .bind(i64::from(limit) + 1)
            .fetch_all(&self.database.pool)
            .await?;
        page(rows, from, limit)
    }
}

const INSERT_COUNTER: &str = "INSERT INTO account_data_counters (aci, revision, entries, bytes, deletions, horizon) \
    SELECT aci, 0, 0, 0, 0, 0 FROM accounts WHERE aci = $1 ON CONFLICT DO NOTHING";
// Weaker than FOR UPDATE by as much as it takes not to hinder the foreign key checks of the entries.
const LOCK_COUNTER: &str = "SELECT revision, entries, bytes, deletions, horizon FROM account_data_counters \
    WHERE aci = $1 FOR NO KEY UPDATE";
const KNOWN: &str = "SELECT key, version, octet_length(value)::bigint FROM account_data \
    WHERE aci = $1 AND key = ANY($2)";
const SAVE: &str = "INSERT INTO account_data (aci, key, version, value) \
    SELECT $1, new.key, new.version, new.value \
    FROM unnest($2::bytea[], $3::bigint[], $4::bytea[]) AS new (key, version, value) \
    ON CONFLICT (aci, key) DO UPDATE SET version = excluded.version, value = excluded.value";
const FORGET: &str = "DELETE FROM account_data WHERE aci = $1 AND version IN (\
        SELECT version FROM account_data WHERE aci = $1 AND value IS NULL ORDER BY version LIMIT $2) \
    RETURNING version";
const SAVE_COUNTER: &str = "UPDATE account_data_counters \
    SET revision = $2, entries = $3, bytes = $4, deletions = $5, horizon = $6 WHERE aci = $1";
const FIND: &str = "SELECT version, value FROM account_data WHERE aci = $1 AND key = $2 AND value IS NOT NULL";
// From the beginning if the asker may have missed a deletion or knows a revision that never was. From the beginning no
// deletions are listed. One statement, so that counters and entries are of one moment.
const CHANGES: &str = "WITH start AS (\
        SELECT aci, revision, horizon, CASE WHEN horizon > $3 OR $3 > revision THEN 0 ELSE $2::bigint END AS beyond \
        FROM account_data_counters WHERE aci = $1) \
    SELECT s.revision, s.horizon, d.key, d.version, octet_length(d.value)::bigint FROM start AS s \
    LEFT JOIN account_data AS d ON d.aci = s.aci AND d.version > s.beyond \
        AND (s.beyond > 0 OR d.value IS NOT NULL) \
    ORDER BY d.version LIMIT $4";

#[cfg(test)]
mod tests {
    crate::storage::conformance::account_data_store_suite!(crate::storage::testing::postgres);
}
