//! The key directory on Postgres.
//!
//! Bundles are taken in one statement, for a whole batch of claims: keys are picked, deleted and answered by the same
//! snapshot. Rows that another taker has in hand are skipped (`SKIP LOCKED`); waiting for them would end in "none left"
//! although more keys follow, and batches would wait for one another in circles. No more is picked than is handed out.
//! Uploads of one device wait for one another on its row, so that sets never mix.

use async_trait::async_trait;
use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgConnection, Row};

use super::{Database, retrying};
use crate::domain::{Actor, Day, IdentityKind, KeyCount, KeyUpload, ProtocolAddress, Published, SignedKeys, Take};
use crate::storage::rows::{AddressedRow, EcRow, KyberRow, SignedRow, SpentRow, kind_column};
use crate::storage::spent::without_spent;
use crate::storage::taking::{Taking, Takings, rounds};
use crate::storage::{KeyStore, StorageError};

/// Keys in one database, shared by every node.
pub(super) struct PgKeys {
    database: Database,
    /// Whose connections find rows by key.
    takers: Database,
}

impl PgKeys {
    pub(super) fn new(database: Database, takers: Database) -> Self {
        Self { database, takers }
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

    async fn try_take(&self, rounds: &[&[Take]], today: Day) -> Result<Takings, StorageError> {
        if let [only] = rounds {
            let mut db = self.takers.pool.acquire().await?;
            return take(&mut db, only, today).await;
        }
        let mut tx = self.takers.begin().await?;
        let mut takings = Takings::new();
        for round in rounds {
            takings.extend(take(&mut tx, round, today).await?);
        }
        tx.commit().await?;
        Ok(takings)
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
    async fn take_bundles(&self, takes: &[Take], today: Day) -> Result<Takings, StorageError> {
        if takes.is_empty() {
            return Ok(Takings::new());
        }
        let rounds = rounds(takes);
        retrying!(self.try_take(&rounds, today).await)
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

/// Stores an upload for a device that exists. One-time keys that it replaces are [`clear`]ed before.
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

/// Takes what one round may take, in one statement.
async fn take(db: &mut PgConnection, takes: &[Take], today: Day) -> Result<Takings, StorageError> {
    let mut taking = Taking::new(takes);
    let targets: Vec<_> = taking.targets().collect();
    let reserves = taking.reserves();
    let asked = taking.asked();
    let rows = sqlx::query(TAKE)
        .bind(asked.iter().map(|asked| number(asked.target)).collect::<Vec<_>>())
        .bind(asked.iter().map(|asked| targets[asked.target].0).collect::<Vec<_>>())
        .bind(asked.iter().map(|asked| targets[asked.target].1).collect::<Vec<_>>())
        .bind(asked.iter().map(|asked| asked.device).collect::<Vec<_>>())
        .bind(asked.iter().map(|asked| asked.keys).collect::<Vec<_>>())
        .bind(asked.iter().map(|asked| reserves[asked.target]).collect::<Vec<_>>())
        .bind(today.0);
    for row in rows.fetch_all(db).await? {
        let target: i32 = row.try_get("target")?;
        let target = usize::try_from(target).unwrap_or(usize::MAX);
        let what: i16 = row.try_get("what")?;
        match what {
            DEVICE => taking.found(
                target,
                AddressedRow::from_row(&row)?,
                SignedRow::from_row(&row)?,
                [ends(&row, "ec_last")?, ends(&row, "kyber_last")?],
            ),
            EC => taking.took_ec(
                target,
                row.try_get("device_id")?,
                row.try_get("place")?,
                EcRow::from_row(&row)?,
            ),
            _ => taking.took_kyber(
                target,
                row.try_get("device_id")?,
                row.try_get("place")?,
                KyberRow::from_row(&row)?,
            ),
        }
    }
    Ok(taking.into_takings())
}

/// The first place is nothing to go by where others take as well.
fn ends(row: &PgRow, last: &str) -> sqlx::Result<Option<(i32, i32)>> {
    Ok(row.try_get::<Option<i32>, _>(last)?.map(|last| (0, last)))
}

fn number(target: usize) -> i32 {
    i32::try_from(target).unwrap_or(i32::MAX)
}

/// What a row of [`TAKE`] is; any other is a Kyber key.
const DEVICE: i16 = 0;
const EC: i16 = 1;

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
// the end, so that takers at once leave it alone, whatever each of them sees of the others. A row that is locked stays where it
// is, so that it is found again by its place in the table.
const TAKE: &str = "WITH \
        asked AS MATERIALIZED (SELECT w.target, w.kind, d.aci, d.device_id, \
                CASE w.kind WHEN 0 THEN d.registration_id ELSE d.pni_registration_id END AS registration_id, \
                sum(w.keys) AS keys, min(w.reserve) AS reserve \
            FROM unnest($1::integer[], $2::uuid[], $3::smallint[], $4::smallint[], $5::integer[], $6::integer[]) \
                AS w (target, aci, kind, device_id, keys, reserve) \
            JOIN devices AS d ON d.aci = w.aci AND (w.device_id IS NULL OR d.device_id = w.device_id) \
            GROUP BY w.target, w.kind, d.aci, d.device_id), \
        selected AS MATERIALIZED (SELECT w.*, \
                CASE w.kind WHEN 0 THEN a.aci_identity ELSE a.pni_identity END AS identity, \
                s.signed_id, s.signed_key, s.signed_signature, \
                s.last_resort_id, s.last_resort_key, s.last_resort_signature, \
                (SELECT max(position) FROM one_time_ec_keys \
                    WHERE aci = w.aci AND device_id = w.device_id AND kind = w.kind) AS ec_last, \
                (SELECT max(position) FROM one_time_kyber_keys \
                    WHERE aci = w.aci AND device_id = w.device_id AND kind = w.kind) AS kyber_last \
            FROM asked AS w \
            JOIN accounts AS a ON a.aci = w.aci \
            LEFT JOIN signed_keys AS s ON s.aci = w.aci AND s.device_id = w.device_id AND s.kind = w.kind), \
        ready AS MATERIALIZED (SELECT target, aci, device_id, kind, keys, \
                ec_last - reserve AS ec_edge, kyber_last - reserve AS kyber_edge \
            FROM selected WHERE keys > 0 AND signed_id IS NOT NULL AND last_resort_id IS NOT NULL), \
        ec_picked AS MATERIALIZED (SELECT r.target, k.spot FROM ready AS r CROSS JOIN LATERAL (\
            SELECT ctid AS spot FROM one_time_ec_keys \
            WHERE aci = r.aci AND device_id = r.device_id AND kind = r.kind AND position <= r.ec_edge \
            ORDER BY position LIMIT r.keys FOR UPDATE SKIP LOCKED) AS k), \
        ec AS (DELETE FROM one_time_ec_keys AS k USING ec_picked AS p WHERE k.ctid = p.spot \
            RETURNING p.target, k.aci, k.device_id, k.kind, k.position, k.key_id, k.key), \
        kyber_picked AS MATERIALIZED (SELECT r.target, k.spot FROM ready AS r CROSS JOIN LATERAL (\
            SELECT ctid AS spot FROM one_time_kyber_keys \
            WHERE aci = r.aci AND device_id = r.device_id AND kind = r.kind AND position <= r.kyber_edge \
            ORDER BY position LIMIT r.keys FOR UPDATE SKIP LOCKED) AS k), \
        kyber AS (DELETE FROM one_time_kyber_keys AS k USING kyber_picked AS p WHERE k.ctid = p.spot \
            RETURNING p.target, k.aci, k.device_id, k.kind, k.position, k.key_id, k.key, k.signature), \
        spent AS (INSERT INTO spent_keys (aci, device_id, kind, kyber, key_id, tail, day) \
            SELECT aci, device_id, kind, false, key_id, substring(key FROM octet_length(key) - 7), $7 FROM ec \
            UNION ALL \
            SELECT aci, device_id, kind, true, key_id, substring(key FROM octet_length(key) - 7), $7 FROM kyber \
            ON CONFLICT DO NOTHING) \
    SELECT 0::smallint AS what, target, device_id, identity, registration_id, \
        signed_id, signed_key, signed_signature, last_resort_id, last_resort_key, last_resort_signature, \
        ec_last, kyber_last, \
        NULL::integer AS place, NULL::bigint AS key_id, NULL::bytea AS key, NULL::bytea AS signature FROM selected \
    UNION ALL SELECT 1::smallint, target, device_id, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, \
        position, key_id, key, NULL FROM ec \
    UNION ALL SELECT 2::smallint, target, device_id, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, \
        position, key_id, key, signature FROM kyber";

#[cfg(test)]
mod tests {
    crate::storage::conformance::key_store_suite!(crate::storage::testing::postgres);
}
