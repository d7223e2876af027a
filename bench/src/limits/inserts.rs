//! Inserts of rows as large as an envelope, with the durability that the server's rows have.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use tokio::io::AsyncReadExt;

use crate::cores::Side;
use crate::process::cpu_seconds;
use crate::say;
use crate::server::Backend;

/// What inserting came to.
#[derive(Clone, Copy)]
pub(crate) struct Inserts {
    /// Rows.
    pub(crate) per_second: f64,
    /// CPU seconds per 10,000 rows of whoever inserts; with SQLite, of all.
    pub(crate) cpu: f64,
    /// CPU seconds per 10,000 rows of a database that is another program.
    pub(crate) database_cpu: Option<f64>,
}

/// Transactions of one row or of a hundred, over so many connections.
pub(crate) async fn measure(
    backend: &Backend,
    connections: usize,
    batch: usize,
    time: Duration,
) -> anyhow::Result<Inserts> {
    let (place, side) = match backend {
        // Where the server would be, which does its database's work itself.
        Backend::Sqlite(dir) => (format!("sqlite {}", dir.path().display()), Side::Server),
        Backend::Postgres { url, .. } => (format!("postgres {url}"), Side::Load),
    };
    let arguments = [
        "inserts".to_owned(),
        format!("--connections={connections}"),
        format!("--batch={batch}"),
        format!("--millis={}", time.as_millis()),
    ];
    let before = backend.cpu_seconds()?;
    let output = super::output(&arguments, &place, side).await?;
    let after = backend.cpu_seconds()?;
    let output: Value = serde_json::from_str(output.trim())?;
    let number = |name: &str| output[name].as_f64().context("a number");
    let rows = number("rows")?;
    Ok(Inserts {
        per_second: rows / number("seconds")?,
        cpu: number("cpu")? / rows * 10_000.0,
        database_cpu: after
            .zip(before)
            .map(|(after, before)| (after - before) / rows * 10_000.0),
    })
}

/// The program that inserts. Prints what it did.
pub(crate) async fn be(connections: usize, batch: usize, time: Duration) -> anyhow::Result<()> {
    let mut place = String::new();
    tokio::io::stdin().read_to_string(&mut place).await?;
    let size = u32::try_from(connections)?;
    let done = match place.split_once(' ') {
        Some(("sqlite", dir)) => {
            let options = SqliteConnectOptions::new()
                .filename(std::path::Path::new(dir).join("yardstick.db"))
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full)
                .busy_timeout(Duration::from_secs(30));
            let pool = SqlitePoolOptions::new()
                .min_connections(size)
                .max_connections(size)
                .connect_with(options)
                .await?;
            on_sqlite(&pool, connections, batch, time).await?
        }
        Some(("postgres", url)) => {
            let pool = PgPoolOptions::new()
                .min_connections(size)
                .max_connections(size)
                .connect(url)
                .await?;
            on_postgres(&pool, connections, batch, time).await?
        }
        _ => bail!("standard input names no place"),
    };
    say(&done.to_string());
    Ok(())
}

async fn on_sqlite(pool: &SqlitePool, connections: usize, batch: usize, time: Duration) -> anyhow::Result<Value> {
    sqlx::query("CREATE TABLE IF NOT EXISTS yardstick (id INTEGER PRIMARY KEY, content BLOB NOT NULL)")
        .execute(pool)
        .await?;
    let statement = if batch == 1 { ONE } else { HUNDRED_ON_SQLITE };
    drive(connections, batch, time, || async {
        let content = vec![0x5a; ROW * batch];
        sqlx::query(statement).bind(content).execute(pool).await.map(|_| ())
    })
    .await
}

async fn on_postgres(pool: &PgPool, connections: usize, batch: usize, time: Duration) -> anyhow::Result<Value> {
    sqlx::query("CREATE TABLE IF NOT EXISTS yardstick (id bigserial PRIMARY KEY, content bytea NOT NULL)")
        .execute(pool)
        .await?;
    sqlx::query("ALTER TABLE yardstick ALTER COLUMN content SET STORAGE EXTERNAL")
        .execute(pool)
        .await?;
    let done = drive(connections, batch, time, || async {
        if batch == 1 {
            let content = vec![0x5a_u8; ROW];
            return sqlx::query(ONE).bind(content).execute(pool).await.map(|_| ());
        }
        let contents = vec![vec![0x5a_u8; ROW]; batch];
        sqlx::query(MANY_ON_POSTGRES)
            .bind(contents)
            .execute(pool)
            .await
            .map(|_| ())
    })
    .await?;
    sqlx::query("DROP TABLE yardstick").execute(pool).await?;
    Ok(done)
}

async fn drive<F>(tasks: usize, batch: usize, time: Duration, insert: impl Fn() -> F) -> anyhow::Result<Value>
where
    F: Future<Output = Result<(), sqlx::Error>>,
{
    let done = Arc::new(AtomicU64::new(0));
    let (began, cpu) = (Instant::now(), cpu_seconds(std::process::id())?);
    let workers = futures_util::future::try_join_all((0..tasks).map(|_| async {
        while began.elapsed() < time {
            insert().await?;
            done.fetch_add(batch as u64, Ordering::Relaxed);
        }
        Ok::<(), sqlx::Error>(())
    }));
    workers.await?;
    Ok(json!({
        "rows": done.load(Ordering::Relaxed),
        "seconds": began.elapsed().as_secs_f64(),
        "cpu": cpu_seconds(std::process::id())? - cpu,
    }))
}

/// As large as an envelope of 1 KiB.
const ROW: usize = 1100;
const ONE: &str = "INSERT INTO yardstick (content) VALUES ($1)";
/// One value for all rows: what binding a hundred values costs is the driver's, not the database's.
const HUNDRED_ON_SQLITE: &str = "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 99) \
    INSERT INTO yardstick (content) SELECT substr($1, i * 1100 + 1, 1100) FROM n";
const MANY_ON_POSTGRES: &str = "INSERT INTO yardstick (content) SELECT * FROM unnest($1::bytea[])";
