//! The yardstick: single-row transactions on the same database with the same durability.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use crate::server::Backend;

/// Inserts of 1.1 KB per second over so many connections.
pub(crate) async fn measure(backend: &Backend, connections: usize, seconds: u64) -> anyhow::Result<f64> {
    let size = u32::try_from(connections)?;
    match backend {
        Backend::Sqlite(dir) => {
            let options = SqliteConnectOptions::new()
                .filename(dir.path().join("yardstick.db"))
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full)
                .busy_timeout(Duration::from_secs(30));
            let pool = SqlitePoolOptions::new()
                .min_connections(size)
                .max_connections(size)
                .connect_with(options)
                .await?;
            sqlx::query("CREATE TABLE IF NOT EXISTS yardstick (id INTEGER PRIMARY KEY, content BLOB NOT NULL)")
                .execute(&pool)
                .await?;
            let rate = drive(connections, seconds, |content| {
                let pool = pool.clone();
                async move { sqlx::query(INSERT).bind(content).execute(&pool).await.map(|_| ()) }
            });
            let rate = rate.await;
            pool.close().await;
            rate
        }
        Backend::Postgres { url, .. } => {
            let pool = PgPoolOptions::new()
                .min_connections(size)
                .max_connections(size)
                .connect(url)
                .await?;
            sqlx::query("CREATE TABLE IF NOT EXISTS yardstick (id bigserial PRIMARY KEY, content bytea NOT NULL)")
                .execute(&pool)
                .await?;
            sqlx::query("ALTER TABLE yardstick ALTER COLUMN content SET STORAGE EXTERNAL")
                .execute(&pool)
                .await?;
            let rate = drive(connections, seconds, |content| {
                let pool = pool.clone();
                async move { sqlx::query(INSERT).bind(content).execute(&pool).await.map(|_| ()) }
            });
            let rate = rate.await;
            sqlx::query("DROP TABLE yardstick").execute(&pool).await?;
            pool.close().await;
            rate
        }
    }
}

async fn drive<F>(tasks: usize, seconds: u64, insert: impl Fn(Vec<u8>) -> F) -> anyhow::Result<f64>
where
    F: Future<Output = Result<(), sqlx::Error>> + Send + 'static,
{
    let done = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let end = began + Duration::from_secs(seconds);
    let workers = futures_util::future::join_all((0..tasks).map(|_| async {
        while Instant::now() < end {
            insert(vec![0x5a; 1100]).await?;
            done.fetch_add(1, Ordering::Relaxed);
        }
        Ok::<(), sqlx::Error>(())
    }));
    for worker in workers.await {
        worker?;
    }
    #[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
    Ok(done.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64())
}

const INSERT: &str = "INSERT INTO yardstick (content) VALUES ($1)";
