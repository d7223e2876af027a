//! How long `blind-relay audit blindness` takes over a full queue, while the server runs.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use keys_schema::sealed_queue::Bucket;
use sqlx::{Connection, PgConnection, SqliteConnection};
use tokio::process::Command;

use crate::people::{Template, register};
use crate::server::{Backend, Server};

/// What an audit of so many rows took.
pub(crate) struct Measured {
    pub(crate) took: Duration,
    pub(crate) bytes: u64,
}

/// Fills the queues of registered devices with rows of random bytes, which is what sealed rows are to whoever has no key,
/// and audits them.
pub(crate) async fn measure(
    binary: &Path,
    backend: &Backend,
    template: &Template,
    rows: u64,
) -> anyhow::Result<Measured> {
    let server = Server::start(binary, backend, Some("0")).await?;
    let devices = usize::try_from(rows.div_ceil(PER_DEVICE))?;
    register(&server, template, 3_000_000, devices).await?;
    let bytes = match backend {
        Backend::Sqlite(dir) => fill_sqlite(&dir.path().join("data/relay.db"), rows).await?,
        Backend::Postgres { url, .. } => fill_postgres(url, rows).await?,
    };

    let mut command = Command::new(binary);
    command
        .args(["audit", "blindness", "--data-dir"])
        .arg(backend.dir().join("data"))
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    if let Backend::Postgres { url, .. } = backend {
        command.env("BLIND_RELAY_DATABASE_URL", url);
    }
    let began = Instant::now();
    let output = command.output().await.context("cannot start the audit")?;
    let took = began.elapsed();
    let out = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "the audit failed: {out}");
    ensure!(
        out.lines()
            .any(|line| line.ends_with("  envelopes") && line.trim_start().starts_with(&rows.to_string())),
        "the audit read other rows: {out}"
    );
    server.stop().await?;
    Ok(Measured { took, bytes })
}

async fn fill_sqlite(path: &Path, rows: u64) -> anyhow::Result<u64> {
    let mut db = SqliteConnection::connect(&format!("sqlite://{}", path.display())).await?;
    sqlx::query("PRAGMA busy_timeout = 30000").execute(&mut db).await?;
    let mailboxes: Vec<i64> = sqlx::query_scalar(MAILBOXES).fetch_all(&mut db).await?;
    let mut bytes = 0;
    let mut rows = Rows::new(rows, mailboxes);
    while let Some(batch) = rows.next_batch() {
        let mut tx = db.begin().await?;
        for row in batch {
            bytes += row.sealed.len() as u64;
            sqlx::query(SQLITE_INSERT)
                .bind(row.mailbox)
                .bind(row.seq)
                .bind(row.bucket)
                .bind(row.sealed)
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
    }
    db.close().await?;
    Ok(bytes)
}

async fn fill_postgres(url: &str, rows: u64) -> anyhow::Result<u64> {
    let mut db = PgConnection::connect(url).await?;
    let mailboxes: Vec<i64> = sqlx::query_scalar(MAILBOXES).fetch_all(&mut db).await?;
    let mut bytes = 0;
    let mut rows = Rows::new(rows, mailboxes);
    while let Some(batch) = rows.next_batch() {
        bytes += batch.iter().map(|row| row.sealed.len() as u64).sum::<u64>();
        let column = |of: fn(&Row) -> i64| batch.iter().map(of).collect::<Vec<i64>>();
        sqlx::query(POSTGRES_INSERT)
            .bind(column(|row| row.mailbox))
            .bind(column(|row| row.seq))
            .bind(column(|row| row.bucket))
            .bind(batch.iter().map(|row| row.sealed.as_slice()).collect::<Vec<&[u8]>>())
            .execute(&mut db)
            .await?;
    }
    // So that the scan has the numbers that a database at work has.
    sqlx::query("ANALYZE envelopes").execute(&mut db).await?;
    db.close().await?;
    Ok(bytes)
}

struct Row {
    mailbox: i64,
    seq: i64,
    bucket: i64,
    sealed: Vec<u8>,
}

/// Rows as traffic makes them: most of the smallest bucket, some of the next ones.
struct Rows {
    made: u64,
    rows: u64,
    mailboxes: Vec<i64>,
    state: u64,
}

impl Rows {
    fn new(rows: u64, mailboxes: Vec<i64>) -> Self {
        Self {
            made: 0,
            rows,
            mailboxes,
            state: 1,
        }
    }

    fn next_batch(&mut self) -> Option<Vec<Row>> {
        let end = self.rows.min(self.made + BATCH);
        let batch: Vec<Row> = (self.made..end).map(|index| self.row(index)).collect();
        self.made = end;
        (!batch.is_empty()).then_some(batch)
    }

    fn row(&mut self, index: u64) -> Row {
        let kib = match index % 20 {
            0 => 4,
            1 | 2 => 2,
            _ => 1,
        };
        let length = Bucket::from_kib(kib).map_or(0, Bucket::sealed_len);
        let mut sealed = Vec::with_capacity(length + 8);
        while sealed.len() < length {
            sealed.extend(self.random().to_le_bytes());
        }
        sealed.truncate(length);
        let devices = self.mailboxes.len() as u64;
        Row {
            mailbox: usize::try_from(index % devices).map_or(0, |place| self.mailboxes[place]),
            seq: i64::try_from(index / devices + 1).unwrap_or(i64::MAX),
            bucket: kib.into(),
            sealed,
        }
    }

    /// SplitMix64: no generator for keys, and quicker than the disk.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

const PER_DEVICE: u64 = 5_000;
const BATCH: u64 = 5_000;
const MAILBOXES: &str = "SELECT id FROM mailboxes";
const SQLITE_INSERT: &str = "INSERT INTO envelopes (mailbox, seq, bucket, expires, sealed) \
    VALUES ($1, $2, $3, unixepoch() / 86400 + 20, $4)";
const POSTGRES_INSERT: &str = "INSERT INTO envelopes (mailbox, seq, bucket, expires, sealed) \
    SELECT mailbox, seq, bucket::int2, extract(epoch FROM now())::int8 / 86400 + 20, sealed \
    FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::bytea[]) AS r (mailbox, seq, bucket, sealed)";
