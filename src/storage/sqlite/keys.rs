//! The key directory on SQLite.
//!
//! A taken one-time key is deleted in the transaction that read it, and that transaction is committed before the key is
//! answered. There is one writer, so takers queue and nobody is given a key twice.

use async_trait::async_trait;
use keys_schema::{EcPreKey, KyberPreKey};
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row, SqliteConnection};

use super::{Database, json_numbers};
use crate::domain::{
    Aci, Actor, BundleSelector, IdentityKind, KeyCount, KeyUpload, ProtocolAddress, SignedKeys, TakenBundles,
};
use crate::storage::rows::{AddressedRow, SignedRow, bundle, identity, kind_column};
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
    async fn publish(&self, by: &Actor, kind: IdentityKind, upload: &KeyUpload) -> Result<bool, StorageError> {
        let Some(mut tx) = self.database.begin_as(by).await? else {
            return Ok(false);
        };
        publish(&mut tx, by.address, kind, upload).await?;
        tx.commit().await?;
        Ok(true)
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
                ready.push((AddressedRow::from_row(row)?, keys));
            }
        }
        let Some(first) = rows.first() else { return Ok(None) };
        let identity = identity(&AddressedRow::from_row(first)?.identity, kind)?;
        let ids = json_numbers(ready.iter().map(|(device, _)| i64::from(device.device_id)));
        let mut ec = take(&mut tx, TAKE_EC, aci, kind, &ids).await?;
        let mut kyber = take(&mut tx, TAKE_KYBER, aci, kind, &ids).await?;
        let mut devices = Vec::with_capacity(ready.len());
        for (device, keys) in ready {
            let one_time = taken(&mut ec, device.device_id)?;
            let one_time_kyber = taken(&mut kyber, device.device_id)?;
            devices.push(bundle(&device, keys, one_time, one_time_kyber)?);
        }
        tx.commit().await?;
        Ok(Some(TakenBundles { identity, devices }))
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
) -> Result<Vec<SqliteRow>, StorageError> {
    let rows = sqlx::query(statement)
        .bind(aci.as_uuid())
        .bind(kind_column(kind))
        .bind(devices);
    Ok(rows.fetch_all(db).await?)
}

/// Removes the row of that device from those that were taken.
fn taken<T>(rows: &mut Vec<SqliteRow>, device: i16) -> Result<Option<T>, StorageError>
where
    T: for<'r> FromRow<'r, SqliteRow>,
{
    for index in 0..rows.len() {
        if rows[index].try_get::<i16, _>("device_id")? == device {
            return Ok(Some(T::from_row(&rows.swap_remove(index))?));
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
const SELECTED: &str = "SELECT d.device_id, \
        CASE $2 WHEN 0 THEN a.aci_identity ELSE a.pni_identity END AS identity, \
        CASE $2 WHEN 0 THEN d.registration_id ELSE d.pni_registration_id END AS registration_id, \
        s.signed_id, s.signed_key, s.signed_signature, \
        s.last_resort_id, s.last_resort_key, s.last_resort_signature \
    FROM accounts AS a \
    JOIN devices AS d ON d.aci = a.aci \
    LEFT JOIN signed_keys AS s ON s.aci = d.aci AND s.device_id = d.device_id AND s.kind = $2 \
    WHERE a.aci = $1 AND ($3 IS NULL OR d.device_id = $3) ORDER BY d.device_id";
const TAKE_EC: &str = "DELETE FROM one_time_ec_keys WHERE rowid IN (\
        SELECT (SELECT k.rowid FROM one_time_ec_keys AS k \
            WHERE k.aci = $1 AND k.device_id = device.value AND k.kind = $2 ORDER BY k.position LIMIT 1) \
        FROM json_each($3) AS device) \
    RETURNING device_id, key_id, key";
const TAKE_KYBER: &str = "DELETE FROM one_time_kyber_keys WHERE rowid IN (\
        SELECT (SELECT k.rowid FROM one_time_kyber_keys AS k \
            WHERE k.aci = $1 AND k.device_id = device.value AND k.kind = $2 ORDER BY k.position LIMIT 1) \
        FROM json_each($3) AS device) \
    RETURNING device_id, key_id, key, signature";

#[cfg(test)]
mod tests {
    crate::storage::conformance::key_store_suite!(crate::storage::testing::sqlite);
}
