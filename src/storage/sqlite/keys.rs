//! The key directory on SQLite.
//!
//! A taken one-time key is deleted in the transaction that read it, and that transaction is committed before the key is
//! answered. There is one writer, so takers queue and nobody is given a key twice. A batch of them is one transaction, and
//! each step of it one statement: a statement costs about as much as ten rows.

use async_trait::async_trait;
use keys_schema::{EcPreKey, KyberPreKey};
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row, SqliteConnection};
use uuid::Uuid;

use super::{Database, json_numbers, json_rows};
use crate::domain::{Actor, Day, IdentityKind, KeyCount, KeyUpload, ProtocolAddress, Published, SignedKeys, Take};
use crate::storage::rows::{AddressedRow, EcRow, KyberRow, SignedRow, SpentRow, kind_column};
use crate::storage::spent::{tail, without_spent};
use crate::storage::taking::{Range, Taking, Takings};
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
    async fn take_bundles(&self, takes: &[Take], today: Day) -> Result<Takings, StorageError> {
        if takes.is_empty() {
            return Ok(Takings::new());
        }
        let mut taking = Taking::new(takes);
        let accounts: Vec<u8> = taking.targets().flat_map(|(aci, _)| aci.into_bytes()).collect();
        let mut tx = self.database.begin().await?;
        select(&mut tx, &mut taking, &accounts).await?;
        let [ec, kyber] = taking.ranges();
        let ec = take(&mut tx, TAKE_EC, &ec, &accounts).await?;
        let kyber = take(&mut tx, TAKE_KYBER, &kyber, &accounts).await?;
        spend(&mut tx, &taking, [&ec, &kyber], &accounts, today).await?;
        for row in &ec {
            if let Some((target, device)) = origin(&taking, row)? {
                taking.took_ec(target, device, row.try_get("position")?, EcRow::from_row(row)?);
            }
        }
        for row in &kyber {
            if let Some((target, device)) = origin(&taking, row)? {
                taking.took_kyber(target, device, row.try_get("position")?, KyberRow::from_row(row)?);
            }
        }
        tx.commit().await?;
        Ok(taking.into_takings())
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

/// Stores an upload for a device that exists. One-time keys that it replaces are [`clear`]ed before.
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

/// Reads the devices that are asked for. `accounts` are those of the targets, 16 bytes each.
async fn select(db: &mut SqliteConnection, taking: &mut Taking<'_>, accounts: &[u8]) -> Result<(), StorageError> {
    let kinds: Vec<_> = taking.targets().map(|(_, kind)| kind).collect();
    let mut whole = None;
    let mut asked = taking.asked();
    // Who asks for every device asks for each.
    asked.retain(|asked| {
        if asked.device.is_none() {
            whole = Some(asked.target);
        }
        asked.device.is_none() || whole != Some(asked.target)
    });
    let asked = asked.iter().map(|asked| {
        [
            number(asked.target),
            kinds[asked.target].into(),
            asked.device.unwrap_or(0).into(),
        ]
    });
    let rows = sqlx::query(SELECTED).bind(json_rows(asked)).bind(accounts);
    for row in rows.fetch_all(db).await? {
        let target: i64 = row.try_get("target")?;
        let ends = |first, last| -> sqlx::Result<Option<(i32, i32)>> {
            let (first, last): (Option<i32>, Option<i32>) = (row.try_get(first)?, row.try_get(last)?);
            Ok(first.zip(last))
        };
        taking.found(
            usize::try_from(target).unwrap_or(usize::MAX),
            AddressedRow::from_row(&row)?,
            SignedRow::from_row(&row)?,
            [ends("ec_first", "ec_last")?, ends("kyber_first", "kyber_last")?],
        );
    }
    Ok(())
}

/// Keeps the ids of keys that were just taken: EC keys, then Kyber keys.
async fn spend(
    db: &mut SqliteConnection,
    taking: &Taking<'_>,
    taken: [&[SqliteRow]; 2],
    accounts: &[u8],
    today: Day,
) -> Result<(), StorageError> {
    let (mut ids, mut tails) = (Vec::new(), Vec::new());
    for (kyber, rows) in (0..).zip(taken) {
        for row in rows {
            if let Some((target, device)) = origin(taking, row)? {
                let kind = row.try_get("kind")?;
                ids.push([number(target), kind, device.into(), kyber, row.try_get("key_id")?]);
                tails.extend_from_slice(tail(row.try_get("key")?));
            }
        }
    }
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query(SPEND)
        .bind(json_rows(ids))
        .bind(accounts)
        .bind(tails)
        .bind(today.0)
        .execute(db)
        .await?;
    Ok(())
}

/// Whose key was taken: the target, and the device.
fn origin(taking: &Taking<'_>, row: &SqliteRow) -> Result<Option<(usize, i16)>, StorageError> {
    let target = taking.target(row.try_get::<Uuid, _>("aci")?, row.try_get("kind")?);
    let device = row.try_get("device_id")?;
    Ok(target.map(|target| (target, device)))
}

fn number(target: usize) -> i64 {
    i64::try_from(target).unwrap_or(i64::MAX)
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
    ranges: &[Range],
    accounts: &[u8],
) -> Result<Vec<SqliteRow>, StorageError> {
    if ranges.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(statement)
        .bind(json_rows(ranges.iter().copied()))
        .bind(accounts);
    Ok(rows.fetch_all(db).await?)
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
// 16 bytes of each account, eight of each key.
const SPEND: &str = "INSERT INTO spent_keys (aci, device_id, kind, kyber, key_id, tail, day) \
    SELECT substr($2, 1 + 16 * (row.value ->> 0), 16), row.value ->> 2, row.value ->> 1, row.value ->> 3, \
        row.value ->> 4, substr($3, 1 + row.key * 8, 8), $4 \
    FROM json_each($1) AS row WHERE true ON CONFLICT DO NOTHING";
const FORGET_SPENT: &str = "DELETE FROM spent_keys WHERE rowid IN (\
    SELECT rowid FROM spent_keys WHERE day < $1 ORDER BY day LIMIT $2)";
// Device 0 is every device. CROSS JOIN fixes the order: rows are looked up for what is asked.
const SELECTED: &str = "WITH asked AS MATERIALIZED (SELECT value ->> 0 AS target, \
            substr($2, 1 + 16 * (value ->> 0), 16) AS aci, value ->> 1 AS kind, value ->> 2 AS device_id \
        FROM json_each($1)) \
    SELECT asked.target, d.device_id, \
        CASE asked.kind WHEN 0 THEN a.aci_identity ELSE a.pni_identity END AS identity, \
        CASE asked.kind WHEN 0 THEN d.registration_id ELSE d.pni_registration_id END AS registration_id, \
        s.signed_id, s.signed_key, s.signed_signature, \
        s.last_resort_id, s.last_resort_key, s.last_resort_signature, \
        (SELECT min(k.position) FROM one_time_ec_keys AS k \
            WHERE k.aci = d.aci AND k.device_id = d.device_id AND k.kind = asked.kind) AS ec_first, \
        (SELECT max(k.position) FROM one_time_ec_keys AS k \
            WHERE k.aci = d.aci AND k.device_id = d.device_id AND k.kind = asked.kind) AS ec_last, \
        (SELECT min(k.position) FROM one_time_kyber_keys AS k \
            WHERE k.aci = d.aci AND k.device_id = d.device_id AND k.kind = asked.kind) AS kyber_first, \
        (SELECT max(k.position) FROM one_time_kyber_keys AS k \
            WHERE k.aci = d.aci AND k.device_id = d.device_id AND k.kind = asked.kind) AS kyber_last \
    FROM asked \
    CROSS JOIN accounts AS a ON a.aci = asked.aci \
    CROSS JOIN devices AS d ON d.aci = asked.aci AND (asked.device_id = 0 OR d.device_id = asked.device_id) \
    LEFT JOIN signed_keys AS s ON s.aci = d.aci AND s.device_id = d.device_id AND s.kind = asked.kind";
// From the front, as far as the ranges go, which end before the reserve.
const TAKE_EC: &str = "WITH range AS MATERIALIZED (SELECT substr($2, 1 + 16 * (value ->> 0), 16) AS aci, \
            value ->> 1 AS kind, value ->> 2 AS device_id, value ->> 3 AS first, value ->> 4 AS last \
        FROM json_each($1)) \
    DELETE FROM one_time_ec_keys WHERE rowid IN (\
        SELECT k.rowid FROM range CROSS JOIN one_time_ec_keys AS k \
        ON k.aci = range.aci AND k.device_id = range.device_id AND k.kind = range.kind \
            AND k.position BETWEEN range.first AND range.last) \
    RETURNING aci, device_id, kind, position, key_id, key";
const TAKE_KYBER: &str = "WITH range AS MATERIALIZED (SELECT substr($2, 1 + 16 * (value ->> 0), 16) AS aci, \
            value ->> 1 AS kind, value ->> 2 AS device_id, value ->> 3 AS first, value ->> 4 AS last \
        FROM json_each($1)) \
    DELETE FROM one_time_kyber_keys WHERE rowid IN (\
        SELECT k.rowid FROM range CROSS JOIN one_time_kyber_keys AS k \
        ON k.aci = range.aci AND k.device_id = range.device_id AND k.kind = range.kind \
            AND k.position BETWEEN range.first AND range.last) \
    RETURNING aci, device_id, kind, position, key_id, key, signature";

#[cfg(test)]
mod tests {
    crate::storage::conformance::key_store_suite!(crate::storage::testing::sqlite);
}
