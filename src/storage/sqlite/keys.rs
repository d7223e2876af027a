//! The key directory on SQLite.
//!
//! A taken one-time key is deleted in the transaction that read it, and that transaction is committed before the key is
//! answered. There is one writer, so takers queue and nobody is given a key twice.

use async_trait::async_trait;
use keys_schema::{EcPreKey, KyberPreKey};
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row, SqliteConnection};

use super::{Database, json_numbers, json_rows};
use crate::domain::{
    Aci, Actor, Allowance, BundleSelector, Day, IdentityKind, KeyCount, KeyUpload, ProtocolAddress, Published,
    SignedKeys, TakenBundles,
};
use crate::storage::rows::{
    AddressedRow, SignedRow, SpentRow, bundle, covers, identity, kind_column, reserve_column, stock,
};
use crate::storage::spent::{tail, without_spent};
use crate::storage::{KeyStore, StorageError};

/// Keys in one file.
pub(super) struct SqliteKeys {
    database: Database,
}

impl SqliteKeys {
    pub(super) fn new(database: Database) -> Self {
        Self { database }
    }
}

#[async_trait]
impl KeyStore for SqliteKeys {
    #[tracing::instrument(name = "db.keys.publish", level = "debug", skip_all)]
    async fn publish(&self, by: &Actor, kind: IdentityKind, upload: &KeyUpload) -> Result<Published, StorageError> {
        let Some(mut tx) = self.database.begin_as(by).await? else {
            return Ok(Published::Gone);
        };
        let spent = spent(&mut tx, by.address, kind, upload).await?;
        let Some((unspent, left_out)) = without_spent(upload, &spent) else {
            return Ok(Published::SpentId);
        };
        clear(&mut tx, by.address, kind, upload).await?;
        publish(&mut tx, by.address, kind, &unspent).await?;
        tx.commit().await?;
        Ok(Published::Done(left_out))
    }

    #[tracing::instrument(name = "db.keys.count", level = "debug", skip_all)]
    async fn count(&self, address: ProtocolAddress, kind: IdentityKind) -> Result<KeyCount, StorageError> {
        let (ec, kyber): (u32, u32) = sqlx::query_as(COUNT)
            .bind(address.aci.as_uuid())
            .bind(i16::from(address.device_id.get()))
            .bind(kind_column(kind))
            .fetch_one(&self.database.read)
            .await?;
        Ok(KeyCount { ec, kyber })
    }

    #[tracing::instrument(name = "db.keys.find_signed", level = "debug", skip_all)]
    async fn find_signed(
        &self,
        address: ProtocolAddress,
        kind: IdentityKind,
    ) -> Result<Option<SignedKeys>, StorageError> {
        let row: Option<SignedRow> = sqlx::query_as(FIND_SIGNED)
            .bind(address.aci.as_uuid())
            .bind(i16::from(address.device_id.get()))
            .bind(kind_column(kind))
            .fetch_optional(&self.database.read)
            .await?;
        row.map_or(Ok(None), SignedRow::into_keys)
    }

    #[tracing::instrument(name = "db.keys.take_bundles", level = "debug", skip_all)]
    async fn take_bundles(
        &self,
        aci: Aci,
        kind: IdentityKind,
        selector: BundleSelector,
        allowance: &Allowance,
        today: Day,
    ) -> Result<Option<TakenBundles>, StorageError> {
        let one = match selector {
            BundleSelector::All => None,
            BundleSelector::One(device) => Some(i16::from(device.get())),
        };
        let mut tx = self.database.begin().await?;
        let rows: Vec<SqliteRow> = sqlx::query(SELECTED)
            .bind(aci.as_uuid())
            .bind(kind_column(kind))
            .bind(one)
            .fetch_all(&mut *tx)
            .await?;
        let mut ready = Vec::with_capacity(rows.len());
        for row in &rows {
            if let Some(keys) = SignedRow::from_row(row)?.into_keys()? {
                ready.push((AddressedRow::from_row(row)?, keys, row));
            }
        }
        let Some(first) = rows.first() else { return Ok(None) };
        let identity = identity(&AddressedRow::from_row(first)?.identity, kind)?;
        let numbers = ready.iter().map(|(device, ..)| device.device_id);
        let giving = numbers.filter(|device| covers(allowance, *device));
        let ids = json_numbers(giving.map(i64::from));
        let reserve = reserve_column(allowance);
        let mut ec = take(&mut tx, TAKE_EC, aci, kind, &ids, reserve).await?;
        let mut kyber = take(&mut tx, TAKE_KYBER, aci, kind, &ids, reserve).await?;
        spend(&mut tx, aci, kind, [&ec, &kyber], today).await?;
        let mut devices = Vec::with_capacity(ready.len());
        for (device, keys, row) in ready {
            let (one_time, ec_place) = taken(&mut ec, device.device_id)?.unzip();
            let (one_time_kyber, kyber_place) = taken(&mut kyber, device.device_id)?.unzip();
            let stocks = [
                stock(allowance, device.device_id, ec_place, row.try_get("ec_last")?),
                stock(allowance, device.device_id, kyber_place, row.try_get("kyber_last")?),
            ];
            devices.push(bundle(&device, keys, one_time, one_time_kyber, stocks)?);
        }
        tx.commit().await?;
        Ok(Some(TakenBundles { identity, devices }))
    }

    #[tracing::instrument(name = "db.keys.forget_spent", level = "debug", skip_all)]
    async fn forget_spent(&self, before: Day, limit: u32) -> Result<u64, StorageError> {
        let forgotten = sqlx::query(FORGET_SPENT)
            .bind(before.0)
            .bind(limit)
            .execute(&self.database.write)
            .await?;
        Ok(forgotten.rows_affected())
    }
}

/// Stores an upload for a device that exists.
pub(super) async fn publish(
    db: &mut SqliteConnection,
    address: ProtocolAddress,
    kind: IdentityKind,
    upload: &KeyUpload,
) -> Result<(), StorageError> {
    let aci = address.aci.as_uuid();
    let device = i16::from(address.device_id.get());
    let kind = kind_column(kind);
    if upload.signed.is_some() || upload.last_resort.is_some() {
        let signed = upload.signed.as_ref();
        let last_resort = upload.last_resort.as_ref();
        sqlx::query(REPLACE_SIGNED)
            .bind(aci)
            .bind(device)
            .bind(kind)
            .bind(signed.map(|key| i64::from(key.id.get())))
            .bind(signed.map(|key| key.key.serialized()))
            .bind(signed.map(|key| key.signature.as_bytes().as_slice()))
            .bind(last_resort.map(|key| i64::from(key.id.get())))
            .bind(last_resort.map(|key| key.key.serialized()))
            .bind(last_resort.map(|key| key.signature.as_bytes().as_slice()))
            .execute(&mut *db)
            .await?;
    }
    if !upload.one_time.is_empty() {
        sqlx::query(DELETE_EC)
            .bind(aci)
            .bind(device)
            .bind(kind)
            .execute(&mut *db)
            .await?;
        let (ids, keys) = ec_parameters(&upload.one_time);
        sqlx::query(INSERT_EC)
            .bind(aci)
            .bind(device)
            .bind(kind)
            .bind(ids)
            .bind(keys)
            .execute(&mut *db)
            .await?;
    }
    if !upload.one_time_kyber.is_empty() {
        sqlx::query(DELETE_KYBER)
            .bind(aci)
            .bind(device)
            .bind(kind)
            .execute(&mut *db)
            .await?;
        let (ids, keys) = kyber_parameters(&upload.one_time_kyber);
        sqlx::query(INSERT_KYBER)
            .bind(aci)
            .bind(device)
            .bind(kind)
            .bind(ids)
            .bind(keys)
            .execute(&mut *db)
            .await?;
    }
    Ok(())
}

/// Drops the one-time keys that an upload replaces.
async fn clear(
    db: &mut SqliteConnection,
    address: ProtocolAddress,
    kind: IdentityKind,
    upload: &KeyUpload,
) -> Result<(), StorageError> {
    let replaced = [
        (DELETE_EC, upload.one_time.is_empty()),
        (DELETE_KYBER, upload.one_time_kyber.is_empty()),
    ];
    for (statement, absent) in replaced {
        if !absent {
            sqlx::query(statement)
                .bind(address.aci.as_uuid())
                .bind(i16::from(address.device_id.get()))
                .bind(kind_column(kind))
                .execute(&mut *db)
                .await?;
        }
    }
    Ok(())
}

/// What was handed out under the ids of an upload.
async fn spent(
    db: &mut SqliteConnection,
    address: ProtocolAddress,
    kind: IdentityKind,
    upload: &KeyUpload,
) -> Result<Vec<SpentRow>, StorageError> {
    if upload.one_time.is_empty() && upload.one_time_kyber.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query_as(SPENT)
        .bind(address.aci.as_uuid())
        .bind(i16::from(address.device_id.get()))
        .bind(kind_column(kind))
        .bind(json_numbers(upload.one_time.iter().map(|key| i64::from(key.id.get()))))
        .bind(json_numbers(
            upload.one_time_kyber.iter().map(|key| i64::from(key.id.get())),
        ));
    Ok(rows.fetch_all(db).await?)
}

/// Keeps the ids of keys that were just taken: EC keys, then Kyber keys.
async fn spend(
    db: &mut SqliteConnection,
    aci: Aci,
    kind: IdentityKind,
    taken: [&[SqliteRow]; 2],
    today: Day,
) -> Result<(), StorageError> {
    let (mut ids, mut tails) = (Vec::new(), Vec::new());
    for (kyber, rows) in (0..).zip(taken) {
        for row in rows {
            ids.push([row.try_get("device_id")?, kyber, row.try_get("key_id")?]);
            tails.extend_from_slice(tail(row.try_get("key")?));
        }
    }
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query(SPEND)
        .bind(aci.as_uuid())
        .bind(kind_column(kind))
        .bind(json_rows(ids))
        .bind(tails)
        .bind(today.0)
        .execute(db)
        .await?;
    Ok(())
}

/// The ids as JSON, the keys one after the other.
fn ec_parameters(keys: &[EcPreKey]) -> (String, Vec<u8>) {
    let ids = json_numbers(keys.iter().map(|key| i64::from(key.id.get())));
    (ids, keys.iter().flat_map(|key| key.key.serialized()).copied().collect())
}

/// The ids as JSON, then key, signature, key, signature, …
fn kyber_parameters(keys: &[KyberPreKey]) -> (String, Vec<u8>) {
    let ids = json_numbers(keys.iter().map(|key| i64::from(key.id.get())));
    let mut bytes = Vec::new();
    for key in keys {
        bytes.extend_from_slice(key.key.serialized());
        bytes.extend_from_slice(key.signature.as_bytes());
    }
    (ids, bytes)
}

async fn take(
    db: &mut SqliteConnection,
    statement: &'static str,
    aci: Aci,
    kind: IdentityKind,
    devices: &str,
    reserve: i32,
) -> Result<Vec<SqliteRow>, StorageError> {
    let rows = sqlx::query(statement)
        .bind(aci.as_uuid())
        .bind(kind_column(kind))
        .bind(devices)
        .bind(reserve);
    Ok(rows.fetch_all(db).await?)
}

/// Removes the row of that device from those that were taken, and says where it was.
fn taken<T>(rows: &mut Vec<SqliteRow>, device: i16) -> Result<Option<(T, i32)>, StorageError>
where
    T: for<'r> FromRow<'r, SqliteRow>,
{
    for index in 0..rows.len() {
        if rows[index].try_get::<i16, _>("device_id")? == device {
            let row = rows.swap_remove(index);
            return Ok(Some((T::from_row(&row)?, row.try_get("position")?)));
        }
    }
    Ok(None)
}

const COUNT: &str = "SELECT \
    (SELECT count(*) FROM one_time_ec_keys WHERE aci = $1 AND device_id = $2 AND kind = $3), \
    (SELECT count(*) FROM one_time_kyber_keys WHERE aci = $1 AND device_id = $2 AND kind = $3)";
const FIND_SIGNED: &str = "SELECT signed_id, signed_key, signed_signature, \
        last_resort_id, last_resort_key, last_resort_signature \
    FROM signed_keys WHERE aci = $1 AND device_id = $2 AND kind = $3";
const REPLACE_SIGNED: &str = "INSERT INTO signed_keys (aci, device_id, kind, signed_id, signed_key, signed_signature, \
        last_resort_id, last_resort_key, last_resort_signature) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
    ON CONFLICT (aci, device_id, kind) DO UPDATE SET \
        signed_id = coalesce(excluded.signed_id, signed_id), \
        signed_key = coalesce(excluded.signed_key, signed_key), \
        signed_signature = coalesce(excluded.signed_signature, signed_signature), \
        last_resort_id = coalesce(excluded.last_resort_id, last_resort_id), \
        last_resort_key = coalesce(excluded.last_resort_key, last_resort_key), \
        last_resort_signature = coalesce(excluded.last_resort_signature, last_resort_signature)";
const DELETE_EC: &str = "DELETE FROM one_time_ec_keys WHERE aci = $1 AND device_id = $2 AND kind = $3";
const DELETE_KYBER: &str = "DELETE FROM one_time_kyber_keys WHERE aci = $1 AND device_id = $2 AND kind = $3";
// 33 bytes a key; the index in the array of ids is the place in the upload.
const INSERT_EC: &str = "INSERT INTO one_time_ec_keys (aci, device_id, kind, position, key_id, key) \
    SELECT $1, $2, $3, id.key, id.value, substr($5, 1 + id.key * 33, 33) FROM json_each($4) AS id";
// 1569 bytes a key, 64 its signature.
const INSERT_KYBER: &str = "INSERT INTO one_time_kyber_keys (aci, device_id, kind, position, key_id, key, signature) \
    SELECT $1, $2, $3, id.key, id.value, \
        substr($5, 1 + id.key * 1633, 1569), substr($5, 1570 + id.key * 1633, 64) \
    FROM json_each($4) AS id";
const SPENT: &str = "SELECT kyber, key_id, tail FROM spent_keys \
        WHERE aci = $1 AND device_id = $2 AND kind = $3 AND kyber = 0 AND key_id IN (SELECT value FROM json_each($4)) \
    UNION ALL SELECT kyber, key_id, tail FROM spent_keys \
        WHERE aci = $1 AND device_id = $2 AND kind = $3 AND kyber = 1 AND key_id IN (SELECT value FROM json_each($5))";
// Eight bytes of each key.
const SPEND: &str = "INSERT INTO spent_keys (aci, device_id, kind, kyber, key_id, tail, day) \
    SELECT $1, row.value ->> 0, $2, row.value ->> 1, row.value ->> 2, substr($4, 1 + row.key * 8, 8), $5 \
    FROM json_each($3) AS row WHERE true ON CONFLICT DO NOTHING";
const FORGET_SPENT: &str = "DELETE FROM spent_keys WHERE rowid IN (\
    SELECT rowid FROM spent_keys WHERE day < $1 ORDER BY day LIMIT $2)";
const SELECTED: &str = "SELECT d.device_id, \
        CASE $2 WHEN 0 THEN a.aci_identity ELSE a.pni_identity END AS identity, \
        CASE $2 WHEN 0 THEN d.registration_id ELSE d.pni_registration_id END AS registration_id, \
        s.signed_id, s.signed_key, s.signed_signature, \
        s.last_resort_id, s.last_resort_key, s.last_resort_signature, \
        (SELECT max(k.position) FROM one_time_ec_keys AS k \
            WHERE k.aci = d.aci AND k.device_id = d.device_id AND k.kind = $2) AS ec_last, \
        (SELECT max(k.position) FROM one_time_kyber_keys AS k \
            WHERE k.aci = d.aci AND k.device_id = d.device_id AND k.kind = $2) AS kyber_last \
    FROM accounts AS a \
    JOIN devices AS d ON d.aci = a.aci \
    LEFT JOIN signed_keys AS s ON s.aci = d.aci AND s.device_id = d.device_id AND s.kind = $2 \
    WHERE a.aci = $1 AND ($3 IS NULL OR d.device_id = $3) ORDER BY d.device_id";
// Keys are taken from the front, the reserve is at the end.
const TAKE_EC: &str = "DELETE FROM one_time_ec_keys WHERE rowid IN (\
        SELECT (SELECT k.rowid FROM one_time_ec_keys AS k \
            WHERE k.aci = $1 AND k.device_id = device.value AND k.kind = $2 \
                AND k.position <= (SELECT max(last.position) FROM one_time_ec_keys AS last \
                    WHERE last.aci = $1 AND last.device_id = device.value AND last.kind = $2) - $4 \
            ORDER BY k.position LIMIT 1) \
        FROM json_each($3) AS device) \
    RETURNING device_id, position, key_id, key";
const TAKE_KYBER: &str = "DELETE FROM one_time_kyber_keys WHERE rowid IN (\
        SELECT (SELECT k.rowid FROM one_time_kyber_keys AS k \
            WHERE k.aci = $1 AND k.device_id = device.value AND k.kind = $2 \
                AND k.position <= (SELECT max(last.position) FROM one_time_kyber_keys AS last \
                    WHERE last.aci = $1 AND last.device_id = device.value AND last.kind = $2) - $4 \
            ORDER BY k.position LIMIT 1) \
        FROM json_each($3) AS device) \
    RETURNING device_id, position, key_id, key, signature";

#[cfg(test)]
mod tests {
    crate::storage::conformance::key_store_suite!(crate::storage::testing::sqlite);
}
