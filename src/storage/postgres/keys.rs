//! The key directory on Postgres.
//!
//! A bundle is taken in one statement: keys are picked, deleted and answered by the same snapshot. Rows that another
//! taker has in hand are skipped (`SKIP LOCKED`); waiting for them would end in "none left" although more keys follow.
//! Uploads of one device wait for one another on its row, so that sets never mix.

use async_trait::async_trait;
use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgConnection, Row};

use super::{Database, retrying};
use crate::domain::{
    Aci, Actor, Allowance, BundleSelector, Day, IdentityKind, KeyCount, KeyUpload, PreKeyBundle, ProtocolAddress,
    Published, SignedKeys, TakenBundles,
};
use crate::storage::rows::{
    AddressedRow, EcRow, KyberRow, SignedRow, SpentRow, bundle, identity, kind_column, reserve_column, stock,
};
use crate::storage::spent::without_spent;
use crate::storage::{KeyStore, StorageError};

/// Keys in one database, shared by every node.
pub(super) struct PgKeys {
    database: Database,
}

impl PgKeys {
    pub(super) fn new(database: Database) -> Self {
        Self { database }
    }

    async fn try_publish(&self, by: &Actor, kind: IdentityKind, upload: &KeyUpload) -> Result<Published, StorageError> {
        let mut tx = self.database.begin().await?;
        let locked: Option<i16> = sqlx::query_scalar(LOCK_DEVICE)
            .bind(by.address.aci.as_uuid())
            .bind(i16::from(by.address.device_id.get()))
            .bind(by.mailbox.0)
            .fetch_optional(&mut *tx)
            .await?;
        if locked.is_none() {
            return Ok(Published::Gone);
        }
        // First what is replaced, which waits for those that are taking one of these keys; what was handed out is asked for
        // by a statement of its own after that, and sees theirs.
        clear(&mut tx, by.address, kind, upload).await?;
        let spent = spent(&mut tx, by.address, kind, upload).await?;
        let Some((unspent, left_out)) = without_spent(upload, &spent) else {
            return Ok(Published::SpentId);
        };
        publish(&mut tx, by.address, kind, &unspent).await?;
        tx.commit().await?;
        Ok(Published::Done(left_out))
    }

    async fn try_take(
        &self,
        aci: Aci,
        kind: IdentityKind,
        selector: BundleSelector,
        allowance: &Allowance,
        today: Day,
    ) -> Result<Vec<PgRow>, StorageError> {
        let one = match selector {
            BundleSelector::All => None,
            BundleSelector::One(device) => Some(i16::from(device.get())),
        };
        let allowed = allowance.devices.as_ref().map(|devices| {
            let numbers = devices.iter().map(|device| i16::from(device.get()));
            numbers.collect::<Vec<_>>()
        });
        let rows = sqlx::query(TAKE)
            .bind(aci.as_uuid())
            .bind(kind_column(kind))
            .bind(one)
            .bind(allowed)
            .bind(reserve_column(allowance))
            .bind(today.0);
        Ok(rows.fetch_all(&self.database.pool).await?)
    }
}

#[async_trait]
impl KeyStore for PgKeys {
    #[tracing::instrument(name = "db.keys.publish", level = "debug", skip_all)]
    async fn publish(&self, by: &Actor, kind: IdentityKind, upload: &KeyUpload) -> Result<Published, StorageError> {
        retrying!(self.try_publish(by, kind, upload).await)
    }

    #[tracing::instrument(name = "db.keys.count", level = "debug", skip_all)]
    async fn count(&self, address: ProtocolAddress, kind: IdentityKind) -> Result<KeyCount, StorageError> {
        let (ec, kyber): (i64, i64) = sqlx::query_as(COUNT)
            .bind(address.aci.as_uuid())
            .bind(i16::from(address.device_id.get()))
            .bind(kind_column(kind))
            .fetch_one(&self.database.pool)
            .await?;
        let count = |rows: i64| u32::try_from(rows).unwrap_or(u32::MAX);
        Ok(KeyCount {
            ec: count(ec),
            kyber: count(kyber),
        })
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
            .fetch_optional(&self.database.pool)
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
        let rows = retrying!(self.try_take(aci, kind, selector, allowance, today).await)?;
        let Some(first) = rows.first() else { return Ok(None) };
        let identity = identity(&AddressedRow::from_row(first)?.identity, kind)?;
        let devices = rows
            .iter()
            .filter_map(|row| taken(row, allowance).transpose())
            .collect::<Result<_, _>>()?;
        Ok(Some(TakenBundles { identity, devices }))
    }

    #[tracing::instrument(name = "db.keys.forget_spent", level = "debug", skip_all)]
    async fn forget_spent(&self, before: Day, limit: u32) -> Result<u64, StorageError> {
        let forgotten = sqlx::query(FORGET_SPENT)
            .bind(before.0)
            .bind(i64::from(limit))
            .execute(&self.database.pool)
            .await?;
        Ok(forgotten.rows_affected())
    }
}

/// Stores an upload for a device that exists.
pub(super) async fn publish(
    db: &mut PgConnection,
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
        sqlx::query(INSERT_EC)
            .bind(aci)
            .bind(device)
            .bind(kind)
            .bind(
                upload
                    .one_time
                    .iter()
                    .map(|key| i64::from(key.id.get()))
                    .collect::<Vec<_>>(),
            )
            .bind(
                upload
                    .one_time
                    .iter()
                    .map(|key| key.key.serialized())
                    .collect::<Vec<_>>(),
            )
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
        sqlx::query(INSERT_KYBER)
            .bind(aci)
            .bind(device)
            .bind(kind)
            .bind(
                upload
                    .one_time_kyber
                    .iter()
                    .map(|key| i64::from(key.id.get()))
                    .collect::<Vec<_>>(),
            )
            .bind(
                upload
                    .one_time_kyber
                    .iter()
                    .map(|key| key.key.serialized())
                    .collect::<Vec<_>>(),
            )
            .bind(
                upload
                    .one_time_kyber
                    .iter()
                    .map(|key| key.signature.as_bytes().as_slice())
                    .collect::<Vec<_>>(),
            )
            .execute(&mut *db)
            .await?;
    }
    Ok(())
}

/// Drops the one-time keys that an upload replaces.
async fn clear(
    db: &mut PgConnection,
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
    db: &mut PgConnection,
    address: ProtocolAddress,
    kind: IdentityKind,
    upload: &KeyUpload,
) -> Result<Vec<SpentRow>, StorageError> {
    if upload.one_time.is_empty() && upload.one_time_kyber.is_empty() {
        return Ok(Vec::new());
    }
    let ec = upload.one_time.iter().map(|key| i64::from(key.id.get()));
    let kyber = upload.one_time_kyber.iter().map(|key| i64::from(key.id.get()));
    let rows = sqlx::query_as(SPENT)
        .bind(address.aci.as_uuid())
        .bind(i16::from(address.device_id.get()))
        .bind(kind_column(kind))
        .bind(ec.collect::<Vec<_>>())
        .bind(kyber.collect::<Vec<_>>());
    Ok(rows.fetch_all(db).await?)
}

/// The bundle of a row; `None` if the device has no signed keys, in which case nothing of it was taken.
fn taken(row: &PgRow, allowance: &Allowance) -> Result<Option<PreKeyBundle>, StorageError> {
    let Some(keys) = SignedRow::from_row(row)?.into_keys()? else {
        return Ok(None);
    };
    let ec = match (row.try_get("ec_id")?, row.try_get("ec_key")?) {
        (Some(key_id), Some(key)) => Some(EcRow { key_id, key }),
        _ => None,
    };
    let kyber = match (
        row.try_get("kyber_id")?,
        row.try_get("kyber_key")?,
        row.try_get("kyber_signature")?,
    ) {
        (Some(key_id), Some(key), Some(signature)) => Some(KyberRow { key_id, key, signature }),
        _ => None,
    };
    let device = AddressedRow::from_row(row)?;
    let stocks = [
        stock(
            allowance,
            device.device_id,
            row.try_get("ec_place")?,
            row.try_get("ec_last")?,
        ),
        stock(
            allowance,
            device.device_id,
            row.try_get("kyber_place")?,
            row.try_get("kyber_last")?,
        ),
    ];
    bundle(&device, keys, ec, kyber, stocks).map(Some)
}

const LOCK_DEVICE: &str = "SELECT device_id FROM devices \
    WHERE aci = $1 AND device_id = $2 AND mailbox = $3 FOR NO KEY UPDATE";
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
        signed_id = coalesce(excluded.signed_id, signed_keys.signed_id), \
        signed_key = coalesce(excluded.signed_key, signed_keys.signed_key), \
        signed_signature = coalesce(excluded.signed_signature, signed_keys.signed_signature), \
        last_resort_id = coalesce(excluded.last_resort_id, signed_keys.last_resort_id), \
        last_resort_key = coalesce(excluded.last_resort_key, signed_keys.last_resort_key), \
        last_resort_signature = coalesce(excluded.last_resort_signature, signed_keys.last_resort_signature)";
const DELETE_EC: &str = "DELETE FROM one_time_ec_keys WHERE aci = $1 AND device_id = $2 AND kind = $3";
const DELETE_KYBER: &str = "DELETE FROM one_time_kyber_keys WHERE aci = $1 AND device_id = $2 AND kind = $3";
const INSERT_EC: &str = "INSERT INTO one_time_ec_keys (aci, device_id, kind, position, key_id, key) \
    SELECT $1, $2, $3, k.position, k.id, k.key \
    FROM unnest($4::bigint[], $5::bytea[]) WITH ORDINALITY AS k (id, key, position)";
const INSERT_KYBER: &str = "INSERT INTO one_time_kyber_keys (aci, device_id, kind, position, key_id, key, signature) \
    SELECT $1, $2, $3, k.position, k.id, k.key, k.signature \
    FROM unnest($4::bigint[], $5::bytea[], $6::bytea[]) WITH ORDINALITY AS k (id, key, signature, position)";
const SPENT: &str = "SELECT kyber, key_id, tail FROM spent_keys \
        WHERE aci = $1 AND device_id = $2 AND kind = $3 AND NOT kyber AND key_id = ANY ($4) \
    UNION ALL SELECT kyber, key_id, tail FROM spent_keys \
        WHERE aci = $1 AND device_id = $2 AND kind = $3 AND kyber AND key_id = ANY ($5)";
// SKIP LOCKED: other nodes are sweeping as well.
const FORGET_SPENT: &str = "DELETE FROM spent_keys WHERE ctid = ANY (ARRAY(\
    SELECT ctid FROM spent_keys WHERE day < $1 ORDER BY day LIMIT $2 FOR UPDATE SKIP LOCKED))";
// MATERIALIZED: a pick that were evaluated twice would lock a second key. Keys are taken from the front and the reserve is at
// the end, so that takers at once leave it alone, whatever each of them sees of the others.
const TAKE: &str = "WITH \
        selected AS (SELECT d.aci, d.device_id, \
                CASE $2 WHEN 0 THEN a.aci_identity ELSE a.pni_identity END AS identity, \
                CASE $2 WHEN 0 THEN d.registration_id ELSE d.pni_registration_id END AS registration_id, \
                s.signed_id, s.signed_key, s.signed_signature, \
                s.last_resort_id, s.last_resort_key, s.last_resort_signature, \
                (SELECT max(position) FROM one_time_ec_keys \
                    WHERE aci = $1 AND device_id = d.device_id AND kind = $2) AS ec_last, \
                (SELECT max(position) FROM one_time_kyber_keys \
                    WHERE aci = $1 AND device_id = d.device_id AND kind = $2) AS kyber_last \
            FROM accounts AS a \
            JOIN devices AS d ON d.aci = a.aci \
            LEFT JOIN signed_keys AS s ON s.aci = d.aci AND s.device_id = d.device_id AND s.kind = $2 \
            WHERE a.aci = $1 AND ($3 IS NULL OR d.device_id = $3)), \
        ready AS (SELECT device_id, ec_last - $5 AS ec_edge, kyber_last - $5 AS kyber_edge FROM selected \
            WHERE signed_id IS NOT NULL AND last_resort_id IS NOT NULL \
                AND ($4::smallint[] IS NULL OR device_id = ANY ($4))), \
        ec_picked AS MATERIALIZED (SELECT k.device_id, k.position FROM ready AS r CROSS JOIN LATERAL (\
            SELECT device_id, position FROM one_time_ec_keys \
            WHERE aci = $1 AND device_id = r.device_id AND kind = $2 AND position <= r.ec_edge \
            ORDER BY position LIMIT 1 FOR UPDATE SKIP LOCKED) AS k), \
        ec AS (DELETE FROM one_time_ec_keys AS k USING ec_picked AS p \
            WHERE k.aci = $1 AND k.device_id = p.device_id AND k.kind = $2 AND k.position = p.position \
            RETURNING k.device_id, k.position AS ec_place, k.key_id AS ec_id, k.key AS ec_key), \
        kyber_picked AS MATERIALIZED (SELECT k.device_id, k.position FROM ready AS r CROSS JOIN LATERAL (\
            SELECT device_id, position FROM one_time_kyber_keys \
            WHERE aci = $1 AND device_id = r.device_id AND kind = $2 AND position <= r.kyber_edge \
            ORDER BY position LIMIT 1 FOR UPDATE SKIP LOCKED) AS k), \
        kyber AS (DELETE FROM one_time_kyber_keys AS k USING kyber_picked AS p \
            WHERE k.aci = $1 AND k.device_id = p.device_id AND k.kind = $2 AND k.position = p.position \
            RETURNING k.device_id, k.position AS kyber_place, \
                k.key_id AS kyber_id, k.key AS kyber_key, k.signature AS kyber_signature), \
        spent AS (INSERT INTO spent_keys (aci, device_id, kind, kyber, key_id, tail, day) \
            SELECT $1, device_id, $2, false, ec_id, substring(ec_key FROM octet_length(ec_key) - 7), $6 FROM ec \
            UNION ALL \
            SELECT $1, device_id, $2, true, kyber_id, substring(kyber_key FROM octet_length(kyber_key) - 7), $6 FROM kyber \
            ON CONFLICT DO NOTHING) \
    SELECT * FROM selected LEFT JOIN ec USING (device_id) LEFT JOIN kyber USING (device_id) ORDER BY device_id";

#[cfg(test)]
mod tests {
    crate::storage::conformance::key_store_suite!(crate::storage::testing::postgres);
}
