//! The schema's history, and the way along it.
//!
//! Each step runs in one transaction together with the row that records it, on both databases, so a kill in the middle
//! leaves the database before the step or after it. A database that holds steps this release does not know, or knows
//! differently, is refused everywhere. The migrations are part of the binary.

mod seal;

use std::path::PathBuf;

use sqlx::migrate::{AppliedMigration, Migrate, MigrateError, Migration, MigrationType};
use sqlx::{ConnectOptions, Connection, PgConnection, SqlSafeStr, SqliteConnection};

use super::open::Place;
use super::sqlite::FileLock;
use super::{OpenError, postgres, sqlite};

pub use seal::Upgrade;

/// A database and how to reach it.
#[derive(Clone)]
pub enum Location {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// A PostgreSQL URL. It may hold a password.
    Postgres(String),
}

/// One step and whether the database has taken it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its number.
    pub version: i64,
    /// Its name.
    pub name: &'static str,
    /// Whether it has been applied.
    pub applied: bool,
}

/// How a database that may be used stands to this release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schema {
    /// It is what this release needs.
    Current,
    /// [`up`] has something to do. A database that does not exist yet counts as such.
    Outdated,
}

/// Takes every step that is missing. On SQLite this creates the file, and fails while a server has it open.
pub async fn up(location: &Location, upgrade: &Upgrade) -> Result<(), OpenError> {
    let mut link = Link::open(location, Access::Change).await?;
    link.lock().await?;
    let applied = link.applied().await?.len();
    let place = link.place.clone();
    let refused = |error| refused(&place, error);
    link.migrate().ensure_migrations_table(TABLE).await.map_err(refused)?;
    for step in link.steps.iter().skip(applied) {
        if step.version == UNSEALED_GONE {
            seal::seal_what_was_stored(&mut link, upgrade).await?;
        }
        let migration = migration(step, MigrationType::ReversibleUp);
        link.connection
            .migrate()
            .apply(TABLE, &migration)
            .await
            .map_err(refused)?;
    }
    link.finish().await
}

/// Takes the last step back, and with it what is stored in its tables. `None` if there was none to take back.
pub async fn down(location: &Location) -> Result<Option<Step>, OpenError> {
    let mut link = Link::open(location, Access::Change).await?;
    link.lock().await?;
    let applied = link.applied().await?.len();
    let last = applied.checked_sub(1).and_then(|index| link.steps.get(index));
    if let Some(step) = last {
        if step.version == SEALED_QUEUE && link.has_envelopes().await? {
            return Err(OpenError::Sealed);
        }
        let migration = migration(step, MigrationType::ReversibleDown);
        let reverted = link.connection.migrate().revert(TABLE, &migration).await;
        reverted.map_err(|error| refused(&link.place, error))?;
    }
    link.finish().await?;
    Ok(last.map(|step| Step {
        version: step.version,
        name: step.name,
        applied: false,
    }))
}

/// Every step this release knows, in order.
pub async fn status(location: &Location) -> Result<Vec<Step>, OpenError> {
    let steps = steps(location);
    let applied = match Link::open_existing(location).await? {
        Some(mut link) => {
            let applied = link.applied().await?.len();
            link.finish().await?;
            applied
        }
        None => 0,
    };
    let stand = |(index, step): (usize, &Embedded)| Step {
        version: step.version,
        name: step.name,
        applied: index < applied,
    };
    Ok(steps.iter().enumerate().map(stand).collect())
}

/// Whether the database may be used, and whether [`up`] is due. Changes nothing.
pub async fn check(location: &Location) -> Result<Schema, OpenError> {
    let outdated = status(location).await?.iter().any(|step| !step.applied);
    Ok(if outdated { Schema::Outdated } else { Schema::Current })
}

/// Refuses a database on which [`up`] is due.
pub(super) async fn require_current(location: &Location) -> Result<(), OpenError> {
    let steps = status(location).await?;
    let version = |step: &Step| step.version;
    if steps.iter().all(|step| step.applied) {
        return Ok(());
    }
    Err(OpenError::Outdated {
        found: steps.iter().filter(|step| step.applied).map(version).max().unwrap_or(0),
        known: steps.iter().map(version).max().unwrap_or(0),
    })
}

/// A connection of its own: a server's time limits do not suit a migration, and closing it lets go of every lock.
struct Link {
    connection: LinkConnection,
    steps: &'static [Embedded],
    place: Place,
    _lock: Option<FileLock>,
}

enum LinkConnection {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl LinkConnection {
    fn migrate(&mut self) -> &mut (dyn Migrate + Send) {
        match self {
            Self::Sqlite(connection) => connection,
            Self::Postgres(connection) => connection,
        }
    }
}

/// What the caller is up to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Look,
    Change,
}

impl Link {
    async fn open(location: &Location, access: Access) -> Result<Self, OpenError> {
        let steps = steps(location);
        match location {
            Location::Sqlite(path) => {
                let lock = if access == Access::Change {
                    Some(FileLock::acquire(path)?)
                } else {
                    None
                };
                let place = Place::file(path);
                let options = match access {
                    Access::Look => sqlite::look_options(path),
                    Access::Change => sqlite::options(path),
                };
                let connection = options.connect().await.map_err(|error| place.refused(&error))?;
                Ok(Self {
                    connection: LinkConnection::Sqlite(connection),
                    steps,
                    place,
                    _lock: lock,
                })
            }
            Location::Postgres(url) => {
                let (options, place) = postgres::options(url)?;
                let connection = options.connect().await.map_err(|error| place.refused(&error))?;
                Ok(Self {
                    connection: LinkConnection::Postgres(connection),
                    steps,
                    place,
                    _lock: None,
                })
            }
        }
    }

    /// `None` if it is a SQLite file that does not exist: looking must not create it.
    async fn open_existing(location: &Location) -> Result<Option<Self>, OpenError> {
        if let Location::Sqlite(path) = location
            && !path.exists()
        {
            return Ok(None);
        }
        Self::open(location, Access::Look).await.map(Some)
    }

    fn migrate(&mut self) -> &mut (dyn Migrate + Send) {
        self.connection.migrate()
    }

    /// Waits for other migrations of the same database to end.
    async fn lock(&mut self) -> Result<(), OpenError> {
        let locked = self.migrate().lock().await;
        locked.map_err(|error| refused(&self.place, error))
    }

    /// What has been applied: always the beginning of what this release knows, else it is refused.
    async fn applied(&mut self) -> Result<Vec<AppliedMigration>, OpenError> {
        // This first: another node may be in the middle of the first step, which makes both tables at once.
        let has_ours = self.has_table(A_TABLE_OF_OURS).await?;
        let mut applied = Vec::new();
        if self.has_table(TABLE).await? {
            let listed = self.migrate().list_applied_migrations(TABLE).await;
            applied = listed.map_err(|error| refused(&self.place, error))?;
        }
        if applied.is_empty() && has_ours {
            return Err(OpenError::Foreign);
        }
        let known = self.steps.last().map_or(0, |step| step.version);
        if let Some(newest) = applied.iter().map(|migration| migration.version).max()
            && newest > known
        {
            return Err(OpenError::Newer { found: newest, known });
        }
        for (step, found) in self.steps.iter().zip(&applied) {
            let ours = migration(step, MigrationType::ReversibleUp);
            if found.version != ours.version || found.checksum != ours.checksum {
                return Err(OpenError::Changed { version: found.version });
            }
        }
        Ok(applied)
    }

    async fn has_table(&mut self, name: &str) -> Result<bool, OpenError> {
        let found = match &mut self.connection {
            LinkConnection::Sqlite(connection) => {
                sqlx::query_scalar(SQLITE_HAS_TABLE)
                    .bind(name)
                    .fetch_one(connection)
                    .await
            }
            LinkConnection::Postgres(connection) => {
                sqlx::query_scalar(POSTGRES_HAS_TABLE)
                    .bind(name)
                    .fetch_one(connection)
                    .await
            }
        };
        found.map_err(|error| self.place.refused(&error))
    }

    async fn has_envelopes(&mut self) -> Result<bool, OpenError> {
        let found = match &mut self.connection {
            LinkConnection::Sqlite(connection) => sqlx::query_scalar(HAS_ENVELOPES).fetch_one(connection).await,
            LinkConnection::Postgres(connection) => sqlx::query_scalar(HAS_ENVELOPES).fetch_one(connection).await,
        };
        found.map_err(|error| self.place.refused(&error))
    }

    async fn finish(self) -> Result<(), OpenError> {
        let closed = match self.connection {
            LinkConnection::Sqlite(connection) => connection.close().await,
            LinkConnection::Postgres(connection) => connection.close().await,
        };
        closed.map_err(|error| self.place.refused(&error))
    }
}

fn refused(place: &Place, error: MigrateError) -> OpenError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => place.refused(&error),
        _ => place.refused(&sqlx::Error::WorkerCrashed),
    }
}

fn migration(step: &Embedded, direction: MigrationType) -> Migration {
    let sql = if direction.is_down_migration() {
        step.down
    } else {
        step.up
    };
    Migration::new(step.version, step.name.into(), direction, sql.into_sql_str(), false)
}

fn steps(location: &Location) -> &'static [Embedded] {
    match location {
        Location::Sqlite(_) => SQLITE,
        Location::Postgres(_) => POSTGRES,
    }
}

/// A migration in the binary.
struct Embedded {
    version: i64,
    name: &'static str,
    up: &'static str,
    down: &'static str,
}

/// The same numbers and names for both databases, by construction.
macro_rules! embedded {
    ($($version:literal $number:literal $name:literal),+) => {
        const SQLITE: &[Embedded] = &[$(embedded!(@ "sqlite" $version $number $name)),+];
        const POSTGRES: &[Embedded] = &[$(embedded!(@ "postgres" $version $number $name)),+];
    };
    (@ $backend:literal $version:literal $number:literal $name:literal) => {
        Embedded {
            version: $version,
            name: $name,
            up: include_str!(concat!("../../migrations/", $backend, "/", $number, "_", $name, ".up.sql")),
            down: include_str!(concat!("../../migrations/", $backend, "/", $number, "_", $name, ".down.sql")),
        }
    };
}
embedded!(
    1 "0001" "initial",
    2 "0002" "linked_devices",
    3 "0003" "usernames",
    4 "0004" "profiles",
    5 "0005" "attachments",
    6 "0006" "account_data",
    7 "0007" "sealed_queue",
    8 "0008" "unsealed_gone",
    9 "0009" "no_samples",
    10 "0010" "registration",
    11 "0011" "tokens",
    12 "0012" "spent_keys",
    13 "0013" "admin",
    14 "0014" "blocks"
);

/// From here on the queue is sealed.
const SEALED_QUEUE: i64 = 7;
/// Drops what was stored before, which must be sealed by then.
const UNSEALED_GONE: i64 = 8;
/// Where the driver records applied migrations.
const TABLE: &str = "_sqlx_migrations";
const A_TABLE_OF_OURS: &str = "accounts";
const HAS_ENVELOPES: &str = "SELECT EXISTS (SELECT 1 FROM envelopes)";
const SQLITE_HAS_TABLE: &str = "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = $1)";
// Looks along the search path only, as the migrations do.
const POSTGRES_HAS_TABLE: &str = "SELECT to_regclass($1) IS NOT NULL";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::storage::testing::{ROOMY, TestDatabase, empty_postgres, empty_sqlite, upgrade};

    /// One database of each kind that is there, without tables.
    async fn databases() -> Vec<TestDatabase> {
        let mut databases = vec![empty_sqlite(ROOMY)];
        databases.extend(empty_postgres(ROOMY).await);
        databases
    }

    #[tokio::test]
    async fn up_down_up_leaves_the_same_schema() {
        for database in databases().await {
            let at = database.location();
            assert_eq!(check(at).await.unwrap(), Schema::Outdated);
            assert!(status(at).await.unwrap().iter().all(|step| !step.applied));
            up(at, &upgrade()).await.unwrap();
            up(at, &upgrade()).await.unwrap();
            assert_eq!(check(at).await.unwrap(), Schema::Current);
            let schema = database.schema().await;
            assert!(schema.len() > 10);
            while down(at).await.unwrap().is_some() {}
            assert!(database.schema().await.is_empty());
            assert_eq!(check(at).await.unwrap(), Schema::Outdated);
            up(at, &upgrade()).await.unwrap();
            assert_eq!(database.schema().await, schema);
        }
    }

    #[tokio::test]
    async fn a_newer_database_is_refused() {
        for database in databases().await {
            let at = database.location();
            up(at, &upgrade()).await.unwrap();
            database
                .execute(
                    "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                     SELECT 9999, description, success, checksum, 0 FROM _sqlx_migrations WHERE version = 1",
                )
                .await;
            assert!(matches!(check(at).await, Err(OpenError::Newer { found: 9999, .. })));
            assert!(matches!(up(at, &upgrade()).await, Err(OpenError::Newer { .. })));
            assert!(matches!(down(at).await, Err(OpenError::Newer { .. })));
        }
    }

    #[tokio::test]
    async fn a_changed_migration_is_refused() {
        for database in databases().await {
            let at = database.location();
            up(at, &upgrade()).await.unwrap();
            database
                .execute("UPDATE _sqlx_migrations SET checksum = substr(checksum, 2)")
                .await;
            assert!(matches!(check(at).await, Err(OpenError::Changed { version: 1 })));
        }
    }

    #[tokio::test]
    async fn a_foreign_database_is_refused_and_left_alone() {
        for database in databases().await {
            database.create_empty().await;
            database.execute("CREATE TABLE accounts (id INTEGER)").await;
            assert!(matches!(
                up(database.location(), &upgrade()).await,
                Err(OpenError::Foreign)
            ));
            assert!(database.schema().await.iter().any(|line| line.contains("accounts")));
            database.execute("DROP TABLE accounts").await;
        }
    }

    #[tokio::test]
    async fn a_migration_that_fails_leaves_nothing_behind() {
        for database in databases().await {
            database.create_empty().await;
            // In the way of the last statement but not of the first.
            database
                .execute("CREATE TABLE verification_sessions (id INTEGER)")
                .await;
            let before = database.schema().await;
            assert!(up(database.location(), &upgrade()).await.is_err());
            assert_eq!(database.schema().await, before);
            database.execute("DROP TABLE verification_sessions").await;
            up(database.location(), &upgrade()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn nodes_that_start_together_migrate_once() {
        let Some(database) = empty_postgres(ROOMY).await else {
            return;
        };
        let starts: Vec<_> = (0..4)
            .map(|_| {
                let at = database.location().clone();
                tokio::spawn(async move { up(&at, &upgrade()).await })
            })
            .collect();
        for start in starts {
            start.await.unwrap().unwrap();
        }
    }

    #[test]
    fn every_file_is_embedded_on_both_sides() {
        let embedded = |steps: &[Embedded]| -> BTreeSet<String> {
            let files =
                |step: &Embedded| ["up", "down"].map(|way| format!("{:04}_{}.{way}.sql", step.version, step.name));
            steps.iter().flat_map(files).collect()
        };
        let on_disk = |backend: &str| -> BTreeSet<String> {
            let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(backend);
            let entries = directory.read_dir().unwrap();
            entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect()
        };
        assert_eq!(embedded(SQLITE), on_disk("sqlite"));
        assert_eq!(embedded(POSTGRES), on_disk("postgres"));
        assert_eq!(embedded(SQLITE), embedded(POSTGRES));
        assert!(SQLITE.is_sorted_by_key(|step| step.version));
    }
}
