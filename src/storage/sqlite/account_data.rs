//! Account data on SQLite. There is one writer, so counters and entries are true until the transaction ends.

use async_trait::async_trait;

use super::{Database, json_numbers, json_rows};
use crate::domain::{Aci, Actor, DataCursor, DataEntry, DataKey, DataLimits, DataPage, DataWrite, Written};
use crate::storage::account_data::{
    ChangeColumns, CounterColumns, DataCounter, KnownColumns, NewEntry, decide, entry, page,
};
use crate::storage::{AccountDataStore, StorageError};

/// Entries in one file.
pub(super) struct SqliteAccountData {
    database: Database,
}

impl SqliteAccountData {
    pub(super) fn new(database: Database) -> Self {
        Self { database }
    }
}

#[async_trait]
impl AccountDataStore for SqliteAccountData {
    #[tracing::instrument(name = "db.data.write", level = "debug", skip_all)]
    async fn write(&self, by: &Actor, writes: &[DataWrite], limits: DataLimits) -> Result<Written, StorageError> {
        let Some(mut tx) = self.database.begin_as(by).await? else {
            return Ok(Written::UnknownAccount);
        };
        let aci = by.address.aci;
        sqlx::query(INSERT_COUNTER)
            .bind(aci.as_uuid())
            .execute(&mut *tx)
            .await?;
        let counter: Option<CounterColumns> = sqlx::query_as(FIND_COUNTER)
            .bind(aci.as_uuid())
            .fetch_optional(&mut *tx)
            .await?;
        let Some(counter) = counter else {
            return Ok(Written::UnknownAccount);
        };
        let keys: Vec<u8> = writes.iter().flat_map(|write| write.key.0).collect();
        let known: Vec<KnownColumns> = sqlx::query_as(KNOWN)
            .bind(aci.as_uuid())
            .bind(keys)
            .bind(json_numbers((0..).take(writes.len())))
            .fetch_all(&mut *tx)
            .await?;
        let mut decision = match decide(DataCounter::from(counter), &known, writes, limits) {
            Ok(decision) => decision,
            Err(refused) => return Ok(refused),
        };
        let (places, bytes) = parameters(&decision.rows);
        sqlx::query(SAVE)
            .bind(aci.as_uuid())
            .bind(places)
            .bind(bytes)
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

    #[tracing::instrument(name = "db.data.find", level = "debug", skip_all)]
    async fn find(&self, aci: Aci, key: &DataKey) -> Result<Option<DataEntry>, StorageError> {
        let found: Option<(i64, Vec<u8>)> = sqlx::query_as(FIND)
            .bind(aci.as_uuid())
            .bind(key.0.as_slice())
            .fetch_optional(&self.database.read)
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
            .fetch_all(&self.database.read)
            .await?;
        page(rows, from, limit)
    }
}

/// Per row its version and where its value lies, as JSON; then all keys, and behind them all values.
fn parameters(rows: &[NewEntry<'_>]) -> (String, Vec<u8>) {
    let mut bytes: Vec<u8> = rows.iter().flat_map(|row| *row.key).collect();
    let mut places = Vec::with_capacity(rows.len());
    for row in rows {
        // SQL counts from 1. A deletion has no length.
        let start = i64::try_from(bytes.len() + 1).unwrap_or(i64::MAX);
        let length = row
            .value
            .map_or(0, |value| i64::try_from(value.len()).unwrap_or(i64::MAX));
        bytes.extend_from_slice(row.value.unwrap_or_default());
        places.push([row.version, start, length]);
    }
    (json_rows(places), bytes)
}

const INSERT_COUNTER: &str = "INSERT INTO account_data_counters (aci, revision, entries, bytes, deletions, horizon) \
    SELECT aci, 0, 0, 0, 0, 0 FROM accounts WHERE aci = $1 ON CONFLICT DO NOTHING";
const FIND_COUNTER: &str = "SELECT revision, entries, bytes, deletions, horizon FROM account_data_counters \
    WHERE aci = $1";
const KNOWN: &str = "SELECT key, version, length(value) FROM account_data \
    WHERE aci = $1 AND key IN (SELECT substr($2, 1 + 32 * value, 32) FROM json_each($3))";
// `WHERE TRUE` keeps the parser from taking ON for a join's.
const SAVE: &str = "INSERT INTO account_data (aci, key, version, value) \
    SELECT $1, substr($3, 1 + 32 * new.key, 32), new.value ->> 0, \
        CASE WHEN new.value ->> 2 > 0 THEN substr($3, new.value ->> 1, new.value ->> 2) END \
    FROM json_each($2) AS new WHERE TRUE \
    ON CONFLICT (aci, key) DO UPDATE SET version = excluded.version, value = excluded.value";
const FORGET: &str = "DELETE FROM account_data WHERE rowid IN (\
        SELECT rowid FROM account_data WHERE aci = $1 AND value IS NULL ORDER BY version LIMIT $2) \
    RETURNING version";
const SAVE_COUNTER: &str = "UPDATE account_data_counters \
    SET revision = $2, entries = $3, bytes = $4, deletions = $5, horizon = $6 WHERE aci = $1";
const FIND: &str = "SELECT version, value FROM account_data WHERE aci = $1 AND key = $2 AND value IS NOT NULL";
// From the beginning if the asker may have missed a deletion or knows a revision that never was. From the beginning no
// deletions are listed. One statement, so that counters and entries are of one moment.
const CHANGES: &str = "WITH start AS (\
        SELECT aci, revision, horizon, CASE WHEN horizon > $3 OR $3 > revision THEN 0 ELSE $2 END AS beyond \
        FROM account_data_counters WHERE aci = $1) \
    SELECT s.revision, s.horizon, d.key, d.version, length(d.value) FROM start AS s \
    LEFT JOIN account_data AS d ON d.aci = s.aci AND d.version > s.beyond \
        AND (s.beyond > 0 OR d.value IS NOT NULL) \
    ORDER BY d.version LIMIT $4";

#[cfg(test)]
mod tests {
    crate::storage::conformance::account_data_store_suite!(crate::storage::testing::sqlite);
}
