//! Fills a database with what a server has that has been at work for long, past the server.
//!
//! Devices are copies of a registered one under other ids, with keys of the same sizes: nobody connects as one of them, but
//! envelopes can be sent to them. Queued rows are random bytes, which is what sealed rows are to whoever has no key. Ids are
//! scattered as random ones are, and each is computed from a number, so that devices and rows find one another.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use sqlx::{Connection, PgConnection, SqliteConnection};
use uuid::Uuid;

use crate::people::Person;
use crate::server::Backend;

/// The most of anything: scattered ids are all different up to there.
pub(crate) const MOST: u64 = 1_000_000_000;

/// What has been filled in so far.
pub(crate) struct Filler<'a> {
    backend: &'a Backend,
    /// Whose columns are copied.
    template: Uuid,
    devices: u64,
    rows: u64,
}

impl<'a> Filler<'a> {
    /// Copies the device of this account.
    pub(crate) fn new(backend: &'a Backend, template: &str) -> anyhow::Result<Self> {
        Ok(Self {
            backend,
            template: Uuid::parse_str(template)?,
            devices: 0,
            rows: 0,
        })
    }

    /// Whether so many devices fit the disk.
    pub(crate) async fn room_for_devices(&self, devices: u64) -> anyhow::Result<Result<(), String>> {
        self.room((devices.saturating_sub(self.devices)) * BYTES_PER_DEVICE)
            .await
    }

    /// Whether so many rows do.
    pub(crate) async fn room_for_rows(&self, rows: u64) -> anyhow::Result<Result<(), String>> {
        self.room((rows.saturating_sub(self.rows)) * BYTES_PER_ROW).await
    }

    /// As many devices as this, of which those that are there already are some.
    pub(crate) async fn devices(&mut self, devices: u64) -> anyhow::Result<()> {
        while self.devices < devices {
            let (from, to) = (self.devices + 1, devices.min(self.devices + DEVICES_AT_ONCE));
            let (first, last) = (i64::try_from(from)?, i64::try_from(to)?);
            match self.backend {
                Backend::Sqlite(_) => {
                    let mut db = self.sqlite().await?;
                    let mut tx = db.begin().await?;
                    for statement in SQLITE_DEVICES {
                        let fill = sqlx::query(statement).bind(first).bind(last).bind(self.template);
                        fill.execute(&mut *tx).await?;
                    }
                    tx.commit().await?;
                }
                Backend::Postgres { url, .. } => {
                    let mut db = PgConnection::connect(url).await?;
                    for statement in POSTGRES_DEVICES {
                        let fill = sqlx::query(statement).bind(first).bind(last).bind(self.template);
                        fill.execute(&mut db).await?;
                    }
                }
            }
            self.devices = to;
        }
        Ok(())
    }

    /// As many rows as this, in turn in the queues of so many devices.
    pub(crate) async fn rows(&mut self, rows: u64, devices: u64) -> anyhow::Result<()> {
        if rows == 0 {
            return Ok(());
        }
        let devices = i64::try_from(devices)?;
        while self.rows < rows {
            let to = rows.min(self.rows + ROWS_AT_ONCE);
            let (first, last) = (i64::try_from(self.rows)?, i64::try_from(to)?);
            // Envelopes that came at one time are due at one time.
            let days = 1 + i64::try_from(self.rows / ROWS_AT_ONCE % 29)?;
            match self.backend {
                Backend::Sqlite(_) => {
                    let mut db = self.sqlite().await?;
                    let fill = sqlx::query(SQLITE_ROWS).bind(first).bind(last);
                    fill.bind(devices).bind(days).execute(&mut db).await?;
                }
                Backend::Postgres { url, .. } => {
                    let mut db = PgConnection::connect(url).await?;
                    let fill = sqlx::query(POSTGRES_ROWS).bind(first).bind(last);
                    fill.bind(devices).bind(days).execute(&mut db).await?;
                }
            }
            self.rows = to;
        }
        let each = i64::try_from(self.rows.div_ceil(u64::try_from(devices)?))?;
        match self.backend {
            Backend::Sqlite(_) => {
                let mut db = self.sqlite().await?;
                let count = sqlx::query(SQLITE_COUNTERS).bind(each).bind(devices);
                count.execute(&mut db).await?;
            }
            Backend::Postgres { url, .. } => {
                let mut db = PgConnection::connect(url).await?;
                let count = sqlx::query(POSTGRES_COUNTERS).bind(each).bind(devices);
                count.execute(&mut db).await?;
            }
        }
        Ok(())
    }

    /// Puts the database into the state that it comes to by itself, so that what is measured next does not pay for it.
    pub(crate) async fn settle(&self) -> anyhow::Result<()> {
        match self.backend {
            Backend::Sqlite(_) => {
                let mut db = self.sqlite().await?;
                sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut db).await?;
            }
            Backend::Postgres { url, .. } => {
                let mut db = PgConnection::connect(url).await?;
                sqlx::query("VACUUM (ANALYZE)").execute(&mut db).await?;
                // Whoever may not do this waits for it instead.
                let _ = sqlx::query("CHECKPOINT").execute(&mut db).await;
            }
        }
        Ok(())
    }

    /// So many of the devices, from all over; none, if there are fewer.
    pub(crate) fn some_devices(&self, count: usize) -> Vec<Person> {
        let count = count as u64;
        let between = self.devices.checked_div(count).unwrap_or(0);
        if between == 0 {
            return Vec::new();
        }
        let all = (0..count).map(|at| Person {
            aci: aci(1 + at * between).to_string(),
            authorization: String::new(),
        });
        all.collect()
    }

    async fn sqlite(&self) -> anyhow::Result<SqliteConnection> {
        let path = self.backend.dir().join("data/relay.db");
        let mut db = SqliteConnection::connect(&format!("sqlite://{}", path.display())).await?;
        for pragma in SQLITE_PRAGMAS {
            sqlx::query(pragma).execute(&mut db).await?;
        }
        Ok(db)
    }

    async fn room(&self, wanted: u64) -> anyhow::Result<Result<(), String>> {
        let place = match self.backend {
            Backend::Sqlite(dir) => dir.path().to_owned(),
            Backend::Postgres { url, .. } => {
                let mut db = PgConnection::connect(url).await?;
                let place: Result<String, _> = sqlx::query_scalar("SHOW data_directory").fetch_one(&mut db).await;
                // Of a server elsewhere nothing is known.
                match place.map(PathBuf::from) {
                    Ok(place) if place.exists() => place,
                    _ => return Ok(Ok(())),
                }
            }
        };
        let free = free_bytes(&place)?;
        let wanted = wanted + RESERVE;
        Ok(if wanted <= free {
            Ok(())
        } else {
            Err(format!(
                "{} GB are wanted, {} GB are free",
                wanted.div_ceil(GB),
                free / GB
            ))
        })
    }
}

/// What `df` says.
fn free_bytes(place: &std::path::Path) -> anyhow::Result<u64> {
    let output = Command::new("df")
        .args(["-Pk"])
        .arg(place)
        .output()
        .context("there is no df")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let kib = text.lines().nth(1).and_then(|line| line.split_whitespace().nth(3));
    Ok(kib.context("df says how much is free")?.parse::<u64>()? * 1024)
}

/// The account of a number, as the statements below compute it.
fn aci(number: u64) -> Uuid {
    let scattered = number * 2_654_435_761 % 4_294_967_291;
    Uuid::from_u128(u128::from(scattered) << 96 | u128::from(number))
}

/// With its keys and its places in indexes.
const BYTES_PER_DEVICE: u64 = 8_000;
/// Of the smallest bucket, six to a page, and its places in indexes.
const BYTES_PER_ROW: u64 = 1_600;
/// For the log, and for those who share the disk.
const RESERVE: u64 = 4 * GB;
const GB: u64 = 1_000_000_000;
const DEVICES_AT_ONCE: u64 = 50_000;
const ROWS_AT_ONCE: u64 = 100_000;
/// The file is nobody else's meanwhile, and is worth nothing if this breaks off.
const SQLITE_PRAGMAS: [&str; 4] = [
    "PRAGMA busy_timeout = 30000",
    "PRAGMA foreign_keys = ON",
    "PRAGMA synchronous = OFF",
    "PRAGMA cache_size = -262144",
];

// Multiplied by one number and divided by a prime, different numbers leave different rests.
const SQLITE_DEVICES: [&str; 4] = [
    "WITH RECURSIVE numbers (n) AS (SELECT $1 UNION ALL SELECT n + 1 FROM numbers WHERE n < $2) \
    INSERT INTO mailboxes (id, last_seq, envelopes, bytes, queue_key) \
    SELECT n * 2654435761 % 4294967291 * 1000003, 0, 0, 0, queue_key \
    FROM numbers, mailboxes WHERE id = (SELECT mailbox FROM devices WHERE aci = $3)",
    "WITH RECURSIVE numbers (n) AS (SELECT $1 UNION ALL SELECT n + 1 FROM numbers WHERE n < $2) \
    INSERT INTO accounts (aci, pni, number_hash, aci_identity, pni_identity, access_key, unrestricted, discoverable) \
    SELECT unhex(printf('%08x%024x', n * 2654435761 % 4294967291, n)), \
        unhex(printf('%08xf%023x', n * 2654435761 % 4294967291, n)), \
        unhex(printf('%08x%056x', n * 2654435761 % 4294967291, n)), \
        aci_identity, pni_identity, access_key, unrestricted, discoverable \
    FROM numbers, accounts WHERE aci = $3",
    "WITH RECURSIVE numbers (n) AS (SELECT $1 UNION ALL SELECT n + 1 FROM numbers WHERE n < $2) \
    INSERT INTO devices (aci, device_id, mailbox, registration_id, pni_registration_id, name, credential_salt, \
        credential_hash, sealed_number, fetches_messages, capabilities, last_seen, created_at) \
    SELECT unhex(printf('%08x%024x', n * 2654435761 % 4294967291, n)), 1, n * 2654435761 % 4294967291 * 1000003, \
        registration_id, pni_registration_id, name, credential_salt, credential_hash, sealed_number, fetches_messages, \
        capabilities, last_seen, created_at \
    FROM numbers, devices WHERE aci = $3 AND device_id = 1",
    "WITH RECURSIVE numbers (n) AS (SELECT $1 UNION ALL SELECT n + 1 FROM numbers WHERE n < $2) \
    INSERT INTO signed_keys (aci, device_id, kind, signed_id, signed_key, signed_signature, last_resort_id, \
        last_resort_key, last_resort_signature) \
    SELECT unhex(printf('%08x%024x', n * 2654435761 % 4294967291, n)), 1, kind, signed_id, signed_key, \
        signed_signature, last_resort_id, last_resort_key, last_resort_signature \
    FROM numbers, signed_keys WHERE aci = $3 AND device_id = 1",
];
const POSTGRES_DEVICES: [&str; 4] = [
    "INSERT INTO mailboxes (id, last_seq, envelopes, bytes, queue_key) \
    SELECT n * 2654435761 % 4294967291 * 1000003, 0, 0, 0, queue_key \
    FROM generate_series($1::bigint, $2::bigint) AS n, mailboxes \
    WHERE id = (SELECT mailbox FROM devices WHERE aci = $3::uuid)",
    "INSERT INTO accounts (aci, pni, number_hash, aci_identity, pni_identity, access_key, unrestricted, discoverable) \
    SELECT (lpad(to_hex(n * 2654435761 % 4294967291), 8, '0') || lpad(to_hex(n), 24, '0'))::uuid, \
        (lpad(to_hex(n * 2654435761 % 4294967291), 8, '0') || 'f' || lpad(to_hex(n), 23, '0'))::uuid, \
        decode(lpad(to_hex(n * 2654435761 % 4294967291), 8, '0') || lpad(to_hex(n), 56, '0'), 'hex'), \
        aci_identity, pni_identity, access_key, unrestricted, discoverable \
    FROM generate_series($1::bigint, $2::bigint) AS n, accounts WHERE aci = $3::uuid",
    "INSERT INTO devices (aci, device_id, mailbox, registration_id, pni_registration_id, name, credential_salt, \
        credential_hash, sealed_number, fetches_messages, capabilities, last_seen, created_at) \
    SELECT (lpad(to_hex(n * 2654435761 % 4294967291), 8, '0') || lpad(to_hex(n), 24, '0'))::uuid, 1, \
        n * 2654435761 % 4294967291 * 1000003, registration_id, pni_registration_id, name, credential_salt, \
        credential_hash, sealed_number, fetches_messages, capabilities, last_seen, created_at \
    FROM generate_series($1::bigint, $2::bigint) AS n, devices WHERE aci = $3::uuid AND device_id = 1",
    "INSERT INTO signed_keys (aci, device_id, kind, signed_id, signed_key, signed_signature, last_resort_id, \
        last_resort_key, last_resort_signature) \
    SELECT (lpad(to_hex(n * 2654435761 % 4294967291), 8, '0') || lpad(to_hex(n), 24, '0'))::uuid, 1, kind, signed_id, \
        signed_key, signed_signature, last_resort_id, last_resort_key, last_resort_signature \
    FROM generate_series($1::bigint, $2::bigint) AS n, signed_keys WHERE aci = $3::uuid AND device_id = 1",
];
// From a number on to which no measurement comes; what is sent to these queues afterwards comes behind them all.
const SQLITE_ROWS: &str = "WITH RECURSIVE numbers (n) AS (SELECT $1 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < $2) \
    INSERT INTO envelopes (mailbox, seq, bucket, expires, sealed) \
    SELECT (n % $3 + 1) * 2654435761 % 4294967291 * 1000003, 100000001 + n / $3, 1, unixepoch() / 86400 + $4, \
        randomblob(1276) \
    FROM numbers";
const POSTGRES_ROWS: &str = "INSERT INTO envelopes (mailbox, seq, bucket, expires, sealed) \
    SELECT (n % $3::bigint + 1) * 2654435761 % 4294967291 * 1000003, 100000001 + n / $3::bigint, 1, \
        (extract(epoch FROM now())::bigint / 86400 + $4::bigint)::integer, \
        substring(decode(repeat(md5(n::text), 80), 'hex') FROM 1 FOR 1276) \
    FROM generate_series($1::bigint, $2::bigint - 1) AS n";
const SQLITE_COUNTERS: &str = "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < $2) \
    UPDATE mailboxes SET last_seq = max(last_seq, 200000000), envelopes = $1, bytes = $1 * 1024 \
    WHERE id IN (SELECT n * 2654435761 % 4294967291 * 1000003 FROM numbers)";
const POSTGRES_COUNTERS: &str = "UPDATE mailboxes \
    SET last_seq = greatest(last_seq, 200000000), envelopes = $1::bigint, bytes = $1::bigint * 1024 \
    WHERE id IN (SELECT n * 2654435761 % 4294967291 * 1000003 FROM generate_series(1, $2::bigint) AS n)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_from_all_over_are_different_ones() {
        let backend = Backend::sqlite().unwrap();
        let mut filler = Filler::new(&backend, "9d0652a3-dcc3-4d11-975f-74d61598733f").unwrap();
        assert!(filler.some_devices(10).is_empty());
        filler.devices = 1_000;
        let some: std::collections::BTreeSet<String> =
            filler.some_devices(10).into_iter().map(|person| person.aci).collect();
        assert_eq!(some.len(), 10);
        assert!(some.contains("9e3779b1-0000-0000-0000-000000000001"));
    }
}
