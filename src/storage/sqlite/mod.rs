//! SQLite: one file, one process.
//!
//! One connection writes and commits with a synced log; a few others only read. A lock beside the file, held for as long
//! as any part of the [`Storage`] lives, keeps a second server away: SQLite itself would let it in, and two relays would
//! each believe that they alone know who is connected. Deleted content is overwritten, and nothing is spilled into
//! temporary files.

mod account_data;
mod accounts;
mod admin;
mod age;
mod attachments;
pub mod copy;
mod devices;
mod export;
mod invites;
mod keys;
mod lock;
mod profiles;
mod queue;
mod tokens;
mod usernames;

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Sqlite, SqlitePool, Transaction};

use super::migrate::{self, Location};
use super::open::Place;
use super::{OpenError, Storage, StorageError, TokenStore};
use crate::domain::{Actor, QueueLimits};

pub(super) use lock::FileLock;

/// Opens the database at `path`. The directory must exist, and the schema must be current.
pub async fn open(path: &Path, limits: QueueLimits) -> Result<Storage, OpenError> {
    let database = Database::open(path).await?;
    Ok(Storage {
        attachments: Arc::new(attachments::SqliteAttachments::new(database.clone())),
        accounts: Arc::new(accounts::SqliteAccounts::new(database.clone())),
        admin: Arc::new(admin::SqliteAdmin::new(database.clone())),
        ages: Arc::new(age::SqliteAges::new(database.clone())),
        devices: Arc::new(devices::SqliteDevices::new(database.clone())),
        keys: Arc::new(keys::SqliteKeys::new(database.clone())),
        profiles: Arc::new(profiles::SqliteProfiles::new(database.clone())),
        tokens: Arc::new(tokens::SqliteTokens::new(database.clone())),
        usernames: Arc::new(usernames::SqliteUsernames::new(database.clone())),
        invites: Arc::new(invites::SqliteInvites::new(database.clone())),
        export: Arc::new(export::SqliteExports::new(database.clone())),
        account_data: Arc::new(account_data::SqliteAccountData::new(database.clone())),
        queue: Arc::new(queue::SqliteQueue::new(database, limits)),
    })
}

/// The sessions and token keys of a database that a server may have open: no lock is taken, and nothing else is done there.
pub async fn tokens_beside(path: &Path) -> Result<Arc<dyn TokenStore>, OpenError> {
    migrate::require_current(&Location::Sqlite(path.to_owned())).await?;
    let place = Place::file(path);
    let pool = PoolOptions::<Sqlite>::new()
        .max_connections(1)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_with(options(path).create_if_missing(false));
    let pool = pool.await.map_err(|error| place.refused(&error))?;
    Ok(Arc::new(tokens::SqliteTokens::new(Database {
        write: pool.clone(),
        read: pool,
        _lock: None,
    })))
}

/// The options of a connection that may write.
pub(super) fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        // Seven bodies of 1 KiB to a page. Takes effect when the file is created.
        .page_size(8192)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("secure_delete", "ON")
        // Intermediate results hold rows; they stay in memory.
        .pragma("temp_store", "MEMORY")
        // A disk error under a mapped file is a signal that ends the process, not an error that is answered.
        .pragma("mmap_size", "0")
        // 32 MiB, so that index pages of a busy relay stay in.
        .pragma("cache_size", "-32768")
        // 64 MiB of log between checkpoints: bodies acknowledged in the meantime never reach the main file.
        .pragma("wal_autocheckpoint", "8000")
        .disable_statement_logging()
}

/// The options of a connection that reads a database as it is, and leaves it so.
pub(super) fn look_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .busy_timeout(BUSY_TIMEOUT)
        .disable_statement_logging()
}

fn reader_options(path: &Path) -> SqliteConnectOptions {
    options(path)
        .create_if_missing(false)
        // 2 MiB for what leads to rows. The rows themselves are few hits in any cache of ours, and in the kernel's anyway.
        .pragma("cache_size", "-2048")
        .pragma("query_only", "ON")
}

/// The open file. Everything that holds a clone keeps the lock.
#[derive(Clone)]
struct Database {
    write: SqlitePool,
    read: SqlitePool,
    _lock: Option<Arc<FileLock>>,
}

impl Database {
    async fn open(path: &Path) -> Result<Self, OpenError> {
        let lock = FileLock::acquire(path)?;
        migrate::require_current(&Location::Sqlite(path.to_owned())).await?;
        let place = Place::file(path);
        let pool = |size: u32, options: SqliteConnectOptions| {
            PoolOptions::<Sqlite>::new()
                .min_connections(size)
                .max_connections(size)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .idle_timeout(None)
                .max_lifetime(None)
                // A file does not hang up.
                .test_before_acquire(false)
                .connect_with(options)
        };
        let write = pool(1, options(path)).await.map_err(|error| place.refused(&error))?;
        let read = pool(READERS, reader_options(path))
            .await
            .map_err(|error| place.refused(&error))?;
        Ok(Self {
            write,
            read,
            _lock: Some(Arc::new(lock)),
        })
    }

    /// Begins to write. No other transaction writes until it ends.
    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, StorageError> {
        let begun = self.write.begin_with(BEGIN_WRITING).await;
        if !matches!(begun, Err(sqlx::Error::InvalidSavePointStatement)) {
            return Ok(begun?);
        }
        // After some disk errors SQLite has rolled back by itself, and the driver goes on believing in a transaction.
        // Such a connection is of no more use; the next one is.
        self.write.acquire().await?.close().await?;
        Ok(self.write.begin_with(BEGIN_WRITING).await?)
    }

    /// Begins to write on behalf of a device; `None` if it is gone. Until this ends it stays.
    async fn begin_as(&self, by: &Actor) -> Result<Option<Transaction<'static, Sqlite>>, StorageError> {
        let mut tx = self.begin().await?;
        let there: bool = sqlx::query_scalar(ACTOR_EXISTS)
            .bind(by.address.aci.as_uuid())
            .bind(i16::from(by.address.device_id.get()))
            .bind(by.mailbox.0)
            .fetch_one(&mut *tx)
            .await?;
        Ok(there.then_some(tx))
    }
}

/// Rows of numbers as JSON text, `[[1,2],[3,4]]`: one parameter carries a batch of any size, where a statement per row
/// would pay the way to the driver's thread each time.
fn json_rows<const N: usize>(rows: impl IntoIterator<Item = [i64; N]>) -> String {
    let mut json = String::from("[");
    for row in rows {
        json.push_str(if json.len() == 1 { "[" } else { ",[" });
        push_numbers(&mut json, row);
        json.push(']');
    }
    json.push(']');
    json
}

/// Numbers as JSON text, `[1,2]`.
fn json_numbers(numbers: impl IntoIterator<Item = i64>) -> String {
    let mut json = String::from("[");
    push_numbers(&mut json, numbers);
    json.push(']');
    json
}

/// UUIDs as JSON text of hexadecimal strings, for `unhex`.
fn json_uuids<'a>(uuids: impl IntoIterator<Item = &'a uuid::Uuid>) -> String {
    let mut json = String::from("[");
    for uuid in uuids {
        let comma = if json.len() == 1 { "" } else { "," };
        write!(json, "{comma}\"{}\"", uuid.as_simple()).expect("a string takes whatever is written");
    }
    json.push(']');
    json
}

fn push_numbers(json: &mut String, numbers: impl IntoIterator<Item = i64>) {
    for (index, number) in numbers.into_iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(json, "{comma}{number}").expect("a string takes whatever is written");
    }
}

/// Takes the write lock at once: one taken later, after a read, can be refused.
const BEGIN_WRITING: &str = "BEGIN IMMEDIATE";
const ACTOR_EXISTS: &str = "SELECT EXISTS (SELECT 1 FROM devices WHERE aci = $1 AND device_id = $2 AND mailbox = $3)";
const READERS: u32 = 4;
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Acknowledgement, Batch, Day, Delivery, MailboxId, Seq};
    use crate::storage::EnvelopeQueue;
    use crate::storage::conformance::fixtures::{placed, queue_key, sealed_copy};
    use crate::storage::testing::{ROOMY, empty_sqlite, upgrade};

    #[tokio::test]
    async fn a_second_server_is_refused_until_the_first_is_gone() {
        let database = empty_sqlite(ROOMY);
        let Location::Sqlite(path) = database.location() else {
            panic!("it is SQLite")
        };
        migrate::up(database.location(), &upgrade()).await.unwrap();
        let first = open(path, ROOMY).await.unwrap();
        let queue = Arc::clone(&first.queue);
        drop(first);
        assert!(matches!(open(path, ROOMY).await, Err(OpenError::InUse { .. })));
        assert!(matches!(
            migrate::down(database.location()).await,
            Err(OpenError::InUse { .. })
        ));
        assert_eq!(
            migrate::check(database.location()).await.unwrap(),
            migrate::Schema::Current
        );
        drop(queue);
        let reopened = open(path, ROOMY).await.unwrap();
        assert!(reopened.queue.heads(&[MailboxId(1)]).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn an_outdated_database_is_refused() {
        let database = empty_sqlite(ROOMY);
        let Location::Sqlite(path) = database.location() else {
            panic!("it is SQLite")
        };
        assert!(matches!(
            open(path, ROOMY).await,
            Err(OpenError::Outdated { found: 0, known: 1.. })
        ));
    }

    #[tokio::test]
    async fn a_file_that_is_no_database_is_refused() {
        let database = empty_sqlite(ROOMY);
        let Location::Sqlite(path) = database.location() else {
            panic!("it is SQLite")
        };
        std::fs::write(path, "these are not the bytes of a database".repeat(100)).unwrap();
        assert!(matches!(open(path, ROOMY).await, Err(OpenError::Sqlite { .. })));
        assert!(matches!(
            open(&path.join("below/a.db"), ROOMY).await,
            Err(OpenError::File { .. })
        ));
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn the_file_and_its_log_are_for_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let database = crate::storage::testing::sqlite(ROOMY).await.unwrap();
        let Location::Sqlite(path) = database.location() else {
            panic!("it is SQLite")
        };
        database.storage().accounts.pin_pepper([1; 32]).await.unwrap();
        for suffix in ["", "-wal", "-shm", ".lock"] {
            let file = format!("{}{suffix}", path.display());
            assert_eq!(
                std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
                0o600,
                "{file}"
            );
        }
    }

    #[test]
    fn numbers_become_json() {
        assert_eq!(
            json_rows([[1, -2], [i64::MIN, i64::MAX]]),
            format!("[[1,-2],[{},{}]]", i64::MIN, i64::MAX)
        );
        assert_eq!(json_rows::<2>([]), "[]");
        assert_eq!(json_numbers([3, 4]), "[3,4]");
    }

    #[tokio::test]
    async fn a_full_disk_is_survived_without_a_restart() {
        let directory = empty_sqlite(ROOMY);
        let Location::Sqlite(path) = directory.location() else {
            panic!("it is SQLite")
        };
        migrate::up(directory.location(), &upgrade()).await.unwrap();
        let database = Database::open(path).await.unwrap();
        sqlx::query("INSERT INTO mailboxes VALUES (1, 0, 0, 0, $1, NULL)")
            .bind(queue_key(MailboxId(1)).as_bytes().as_slice())
            .execute(&database.write)
            .await
            .unwrap();
        sqlx::query("PRAGMA max_page_count = 100")
            .execute(&database.write)
            .await
            .unwrap();
        let queue = queue::SqliteQueue::new(database.clone(), ROOMY);
        let mailbox = MailboxId(1);
        let copies = vec![sealed_copy(mailbox, 96, b"")];
        let send = Batch {
            deliveries: vec![Delivery {
                copies,
                expires: Day(1),
                ..Delivery::default()
            }],
            acknowledgements: Vec::new(),
        };
        let mut stored = 0;
        let refused = loop {
            match queue.commit(&send).await {
                Ok(outcome) => stored += i64::from(outcome == [placed(vec![Seq(stored + 1)])]),
                Err(error) => break error,
            }
        };
        assert_eq!(refused.log_safe_cause(), "storage is unavailable (SQLite 13)");
        assert_eq!(queue.heads(&[mailbox]).await.unwrap()[0].last, Seq(stored));
        let acknowledgements = vec![Acknowledgement { mailbox, seq: Seq(1) }];
        queue
            .commit(&Batch {
                deliveries: Vec::new(),
                acknowledgements,
            })
            .await
            .unwrap();
        assert_eq!(queue.commit(&send).await.unwrap(), [placed(vec![Seq(stored + 1)])]);
    }

    #[tokio::test]
    async fn a_transaction_that_sqlite_ended_by_itself_does_not_block_the_next() {
        let directory = empty_sqlite(ROOMY);
        let Location::Sqlite(path) = directory.location() else {
            panic!("it is SQLite")
        };
        migrate::up(directory.location(), &upgrade()).await.unwrap();
        let database = Database::open(path).await.unwrap();
        let mut abandoned = database.begin().await.unwrap();
        sqlx::query("ROLLBACK").execute(&mut *abandoned).await.unwrap();
        drop(abandoned);
        for _ in 0..2 {
            database.begin().await.unwrap().commit().await.unwrap();
        }
    }
}
