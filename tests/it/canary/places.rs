//! Where a server could leave something behind.

use std::path::{Path, PathBuf};
use std::process::Command;

use sqlx::{Connection, PgConnection, SqliteConnection};

use super::marks::Fate;
use super::search::{Hit, Search};
use super::world::World;
use crate::support::server::Place;
use crate::support::{Backend, skip};

/// The disk of a test: the directories of all nodes, and a database server's files.
pub(super) struct Disk {
    place: std::sync::Arc<Place>,
    backend: Backend,
}

impl Disk {
    pub(super) fn new(world: &World, backend: Backend) -> Self {
        Self {
            place: std::sync::Arc::clone(world.nodes[0].place()),
            backend,
        }
    }

    /// What is in every file of the nodes and of the database, with its log, and in a dump of it.
    pub(super) async fn search(&self, search: &Search) -> Vec<Hit> {
        let mut hits = search.directory(self.place.path(), &|_| true);
        if let Some(url) = self.place.database_url() {
            hits.extend(search.bytes("a dump of the database", &dump(url)));
            if let Some(files) = PostgresFiles::of(url).await {
                hits.extend(search.directory(&files.directory, &|path| files.concern(path)));
            }
        }
        hits
    }

    /// As [`Self::search`], once the database had the time to forget what was deleted; its log apart, which is sealed or
    /// recycled in a time of the database server's own.
    pub(super) async fn search_later(&self, search: &Search) -> Vec<Hit> {
        let mut hits = search.directory(self.place.path(), &|_| true);
        if let Some(url) = self.place.database_url() {
            let mut database = PgConnection::connect(url).await.unwrap();
            for statement in ["VACUUM FULL", "CHECKPOINT"] {
                sqlx::query(statement).execute(&mut database).await.unwrap();
            }
            hits.extend(search.bytes("a dump of the database", &dump(url)));
            if let Some(files) = PostgresFiles::of(url).await {
                hits.extend(search.directory(&files.own(), &|_| true));
            }
        }
        hits
    }

    /// Writes a row with these bytes, to be found.
    pub(super) async fn plant(&self, bytes: &[u8]) {
        match self.backend {
            Backend::Sqlite => {
                let url = format!("sqlite://{}", self.place.sqlite().display());
                let mut database = SqliteConnection::connect(&url).await.unwrap();
                for statement in [CREATE_ON_SQLITE, INSERT] {
                    let query = sqlx::query(statement);
                    let query = if statement == INSERT { query.bind(bytes) } else { query };
                    query.execute(&mut database).await.unwrap();
                }
            }
            Backend::Postgres => {
                let url = self.place.database_url().unwrap();
                let mut database = PgConnection::connect(url).await.unwrap();
                sqlx::query(CREATE_ON_POSTGRES).execute(&mut database).await.unwrap();
                sqlx::query(INSERT).bind(bytes).execute(&mut database).await.unwrap();
                sqlx::query("CHECKPOINT").execute(&mut database).await.unwrap();
            }
        }
        std::fs::write(self.place.path().join("data").join("planted"), bytes).unwrap();
    }
}

/// The files of a database server on this machine, if this user may read them.
struct PostgresFiles {
    directory: PathBuf,
    /// The database's number in the names of its files.
    number: i64,
}

impl PostgresFiles {
    async fn of(url: &str) -> Option<Self> {
        let mut database = PgConnection::connect(url).await.unwrap();
        let directory: String = sqlx::query_scalar("SELECT current_setting('data_directory')")
            .fetch_one(&mut database)
            .await
            .unwrap();
        let number: i64 = sqlx::query_scalar("SELECT oid::bigint FROM pg_database WHERE datname = current_database()")
            .fetch_one(&mut database)
            .await
            .unwrap();
        sqlx::query("CHECKPOINT").execute(&mut database).await.unwrap();
        let directory = PathBuf::from(directory);
        if std::fs::read_dir(directory.join("base")).is_err() {
            skip("the database server's files cannot be read by this user");
            return None;
        }
        Some(Self { directory, number })
    }

    /// The database's own directory.
    fn own(&self) -> PathBuf {
        self.directory.join("base").join(self.number.to_string())
    }

    /// All but the tables of other tests' databases.
    fn concern(&self, path: &Path) -> bool {
        !path.starts_with(self.directory.join("base")) || path.starts_with(self.own())
    }
}

/// Everything that `pg_dump` writes.
pub(super) fn dump(url: &str) -> Vec<u8> {
    let program = std::env::var("BLIND_RELAY_TEST_PG_DUMP").unwrap_or_else(|_| "pg_dump".to_owned());
    let Ok(output) = Command::new(program).arg("--dbname").arg(url).output() else {
        skip("pg_dump is not there; name it in BLIND_RELAY_TEST_PG_DUMP");
        return Vec::new();
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Logs and metrics of every node.
pub(super) async fn told(world: &World) -> String {
    let mut text = String::new();
    for node in &world.nodes {
        text.push_str(&node.log());
        text.push_str(&node.metrics().await);
    }
    text
}

/// Hits of these fates only.
pub(super) fn of(hits: Vec<Hit>, fates: &[Fate]) -> Vec<Hit> {
    hits.into_iter().filter(|hit| fates.contains(&hit.fate)).collect()
}

const CREATE_ON_SQLITE: &str = "CREATE TABLE planted (bytes BLOB)";
const CREATE_ON_POSTGRES: &str = "CREATE TABLE planted (bytes bytea)";
const INSERT: &str = "INSERT INTO planted VALUES ($1)";
