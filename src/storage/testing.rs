//! Databases for tests: each test gets its own, and it is gone afterwards, also if the test fails.
//!
//! Postgres comes from `BLIND_RELAY_TEST_POSTGRES_URL`. Without it those tests are skipped with a printed line, or fail
//! if `BLIND_RELAY_TEST_REQUIRE_ALL=1`.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::thread;

use sqlx::migrate::MigrateDatabase;
use sqlx::{Connection, PgConnection, Postgres, SqliteConnection};
use tempfile::TempDir;

use super::migrate::{self, Location, Upgrade};
use super::{Storage, postgres, sqlite};
use crate::domain::QueueLimits;
use crate::sealing::SealingKey;
use crate::sealing::queue::InterimKeys;

/// Limits that no test reaches by accident.
pub(crate) const ROOMY: QueueLimits = QueueLimits {
    envelopes: 5_000,
    bytes: 64 * 1024 * 1024,
};

/// One test's database.
pub(crate) struct TestDatabase {
    location: Location,
    limits: QueueLimits,
    first: Option<Storage>,
    _directory: Option<TempDir>,
}

/// A fresh SQLite database.
pub(crate) async fn sqlite(limits: QueueLimits) -> Option<TestDatabase> {
    empty_sqlite(limits).open_first().await
}

/// A fresh Postgres database, if there is a server.
pub(crate) async fn postgres(limits: QueueLimits) -> Option<TestDatabase> {
    empty_postgres(limits).await?.open_first().await
}

/// Where a SQLite database may be made.
pub(crate) fn empty_sqlite(limits: QueueLimits) -> TestDatabase {
    let directory = tempfile::tempdir().unwrap();
    let location = Location::Sqlite(directory.path().join("relay.db"));
    TestDatabase {
        location,
        limits,
        first: None,
        _directory: Some(directory),
    }
}

/// A Postgres database without tables, if there is a server.
pub(crate) async fn empty_postgres(limits: QueueLimits) -> Option<TestDatabase> {
    let Ok(server) = std::env::var("BLIND_RELAY_TEST_POSTGRES_URL") else {
        let required = std::env::var("BLIND_RELAY_TEST_REQUIRE_ALL").is_ok_and(|value| value == "1");
        assert!(
            !required,
            "BLIND_RELAY_TEST_POSTGRES_URL is not set, but every backend is required"
        );
        eprintln!("skipped: BLIND_RELAY_TEST_POSTGRES_URL is not set");
        return None;
    };
    let (server, _) = server.rsplit_once('/').unwrap();
    let url = format!(
        "{server}/blind_relay_test_{:016x}",
        RandomState::new().build_hasher().finish()
    );
    Postgres::create_database(&url).await.unwrap();
    Some(TestDatabase {
        location: Location::Postgres(url),
        limits,
        first: None,
        _directory: None,
    })
}

/// What the migrations need.
pub(crate) fn upgrade() -> Upgrade {
    Upgrade {
        interim: interim_keys(),
        pepper_check: [7; 32],
    }
}

/// Of all test databases.
pub(crate) fn interim_keys() -> InterimKeys {
    InterimKeys::new(SealingKey::derive(b"pepper", b"", "test"))
}

impl TestDatabase {
    async fn open_first(mut self) -> Option<Self> {
        migrate::up(&self.location, &upgrade()).await.unwrap();
        self.first = Some(self.open().await);
        Some(self)
    }

    pub(crate) fn storage(&self) -> Storage {
        self.first.clone().expect("the database was opened")
    }

    pub(crate) fn location(&self) -> &Location {
        &self.location
    }

    /// Stops the server that holds it.
    pub(crate) async fn close(&mut self) {
        if let Some(storage) = self.first.take() {
            storage.accounts.close().await;
        }
    }

    /// Starts a server on it again.
    pub(crate) async fn reopen(&mut self) {
        self.first = Some(self.open().await);
    }

    /// What another node would hold. SQLite allows one node, which is then shared.
    pub(crate) async fn another(&self) -> Storage {
        match self.location {
            Location::Sqlite(_) => self.storage(),
            Location::Postgres(_) => self.open().await,
        }
    }

    pub(crate) async fn open(&self) -> Storage {
        match &self.location {
            Location::Sqlite(path) => sqlite::open(path, self.limits).await.unwrap(),
            Location::Postgres(url) => postgres::open(url, self.limits, 8).await.unwrap(),
        }
    }

    /// Makes the file that a first connection would make; a server is there already.
    pub(crate) async fn create_empty(&self) {
        if let Location::Sqlite(path) = &self.location {
            std::fs::File::create(path).unwrap();
        }
    }

    /// Every definition in the database, in a fixed order.
    pub(crate) async fn schema(&self) -> Vec<String> {
        match &self.location {
            Location::Sqlite(path) => {
                let mut db = SqliteConnection::connect(&sqlite_url(path)).await.unwrap();
                sqlx::query_scalar(SQLITE_SCHEMA).fetch_all(&mut db).await.unwrap()
            }
            Location::Postgres(url) => {
                let mut db = PgConnection::connect(url).await.unwrap();
                sqlx::query_scalar(POSTGRES_SCHEMA).fetch_all(&mut db).await.unwrap()
            }
        }
    }

    /// Every column of every table, as `table.column`.
    pub(crate) async fn columns(&self) -> Vec<String> {
        match &self.location {
            Location::Sqlite(path) => {
                let mut db = SqliteConnection::connect(&sqlite_url(path)).await.unwrap();
                sqlx::query_scalar(SQLITE_COLUMNS).fetch_all(&mut db).await.unwrap()
            }
            Location::Postgres(url) => {
                let mut db = PgConnection::connect(url).await.unwrap();
                sqlx::query_scalar(POSTGRES_COLUMNS).fetch_all(&mut db).await.unwrap()
            }
        }
    }

    /// Runs one statement past the storage layer.
    pub(crate) async fn execute(&self, statement: &'static str) {
        match &self.location {
            Location::Sqlite(path) => {
                let mut db = SqliteConnection::connect(&sqlite_url(path)).await.unwrap();
                sqlx::query(statement).execute(&mut db).await.unwrap();
                db.close().await.unwrap();
            }
            Location::Postgres(url) => {
                let mut db = PgConnection::connect(url).await.unwrap();
                sqlx::query(statement).execute(&mut db).await.unwrap();
                db.close().await.unwrap();
            }
        }
    }

    /// As [`Self::execute`], where the two have no words in common.
    pub(crate) async fn execute_either(&self, sqlite: &'static str, postgres: &'static str) {
        let statement = match &self.location {
            Location::Sqlite(_) => sqlite,
            Location::Postgres(_) => postgres,
        };
        self.execute(statement).await;
    }

    /// How SQLite would find what a statement asks for.
    pub(crate) async fn plan(&self, statement: &'static str) -> String {
        let Location::Sqlite(path) = &self.location else {
            panic!("a plan of SQLite");
        };
        let mut db = SqliteConnection::connect(&sqlite_url(path)).await.unwrap();
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
        let steps: Vec<(i64, i64, i64, String)> = sqlx::query_as(explain).fetch_all(&mut db).await.unwrap();
        steps.into_iter().map(|(.., step)| step + "\n").collect()
    }

    /// The single number that a statement returns.
    pub(crate) async fn number(&self, statement: &'static str) -> i64 {
        match &self.location {
            Location::Sqlite(path) => {
                let mut db = SqliteConnection::connect(&sqlite_url(path)).await.unwrap();
                sqlx::query_scalar(statement).fetch_one(&mut db).await.unwrap()
            }
            Location::Postgres(url) => {
                let mut db = PgConnection::connect(url).await.unwrap();
                sqlx::query_scalar(statement).fetch_one(&mut db).await.unwrap()
            }
        }
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let Location::Postgres(url) = self.location.clone() else {
            return;
        };
        // A runtime of its own: the test's may be ending.
        let dropped = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            // A pool that is only being closed may open one more connection in between.
            let gone = (0..5).any(|_| runtime.block_on(Postgres::force_drop_database(&url)).is_ok());
            assert!(gone, "the test's database stays behind");
        });
        drop(dropped.join());
    }
}

fn sqlite_url(path: &Path) -> String {
    format!("sqlite://{}", path.display())
}

const SQLITE_COLUMNS: &str = "SELECT t.name || '.' || c.name FROM sqlite_master AS t JOIN pragma_table_info(t.name) AS c \
    WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite@_%' ESCAPE '@' ORDER BY 1";
const POSTGRES_COLUMNS: &str = "SELECT table_name || '.' || column_name FROM information_schema.columns \
    WHERE table_schema = current_schema() ORDER BY 1";
const SQLITE_SCHEMA: &str = "SELECT type || ' ' || name || ': ' || coalesce(sql, '') FROM sqlite_master \
    WHERE name NOT LIKE '%_sqlx%' ORDER BY 1";
const POSTGRES_SCHEMA: &str = "SELECT line FROM (\
        SELECT format('column %s.%s %s %s', table_name, column_name, data_type, is_nullable) AS line \
        FROM information_schema.columns WHERE table_schema = current_schema() \
        UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = current_schema() \
        UNION ALL SELECT format('constraint %s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid)) \
        FROM pg_constraint WHERE connamespace = current_schema()::regnamespace \
        UNION ALL SELECT format('table %s %s', relname, reloptions) \
        FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r') AS everything \
    WHERE line NOT LIKE '%_sqlx%' ORDER BY line";
