//! Copies of a SQLite file: made while a server writes to it, looked at, put in its place.
//!
//! A copy is what one reading transaction sees, written anew: what was deleted is not in it, and what was committed before it
//! was begun is. It is marked, so that whoever starts on it knows that it was put back.

use std::fs;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};

use super::accounts::PINNED_PEPPER;
use super::admin::SIZE;
use super::{BUSY_TIMEOUT, FileLock, look_options, options};
use crate::domain::Age;
use crate::storage::OpenError;
use crate::storage::age::{MARKS, Marks};
use crate::storage::migrate::{self, Location};
use crate::storage::open::Place;

/// A file that no server uses while this lives.
pub struct Held {
    _lock: FileLock,
}

/// What a file holds.
#[derive(Debug)]
pub struct Looked {
    /// What tells peppers apart.
    pub pepper_check: Option<Vec<u8>>,
    /// The last step of the schema that it has taken.
    pub version: i64,
}

/// Keeps servers away from a file, unless one uses it. The directory must exist; a file that does not is made, empty.
pub fn hold(path: &Path) -> Result<Held, OpenError> {
    Ok(Held {
        _lock: FileLock::acquire(path)?,
    })
}

/// Reads all of a file, and says what it is. Refuses one that is damaged, no database of ours, or of a newer release.
pub async fn look(path: &Path) -> Result<Looked, OpenError> {
    fs::File::open(path).map_err(|source| OpenError::File {
        path: path.to_owned(),
        source,
    })?;
    let mut connection = look_options(path)
        .connect()
        .await
        .map_err(|error| unusable(path, &error))?;
    let verdict: Vec<String> = sqlx::query_scalar(QUICK_CHECK)
        .fetch_all(&mut connection)
        .await
        .map_err(|error| unusable(path, &error))?;
    if verdict != ["ok"] {
        return Err(OpenError::Damaged { path: path.to_owned() });
    }
    let steps = migrate::status(&Location::Sqlite(path.to_owned())).await?;
    let Some(version) = steps.iter().filter(|step| step.applied).map(|step| step.version).max() else {
        return Err(OpenError::NotOurs { path: path.to_owned() });
    };
    let place = Place::file(path);
    let refused = |error| place.refused(&error);
    let pepper_check = sqlx::query_scalar(PINNED_PEPPER)
        .fetch_optional(&mut connection)
        .await
        .map_err(refused)?;
    connection.close().await.map_err(refused)?;
    Ok(Looked { pepper_check, version })
}

/// What a file says of its age, if it can be read at all. A mark that cannot be read is none.
pub async fn age(path: &Path) -> Option<Age> {
    let mut connection = look_options(path).connect().await.ok()?;
    let marks = sqlx::query_as(MARKS).fetch_all(&mut connection).await.ok()?;
    Marks::read(marks).ok()?.age()
}

/// How many bytes a copy of the file has at most.
pub async fn size(path: &Path) -> Result<u64, OpenError> {
    let place = Place::file(path);
    let mut connection = look_options(path)
        .connect()
        .await
        .map_err(|error| place.refused(&error))?;
    let bytes: i64 = sqlx::query_scalar(SIZE)
        .fetch_one(&mut connection)
        .await
        .map_err(|error| place.refused(&error))?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// Writes what is in a file into another, which is there and empty.
pub async fn copy(from: &Path, to: &Path) -> Result<(), OpenError> {
    let place = Place::file(from);
    let unnamed = |source| OpenError::File {
        path: to.to_owned(),
        source,
    };
    // From the root on: SQLite takes some other names for URLs.
    let to = std::path::absolute(to).map_err(unnamed)?;
    let Some(name) = to.to_str() else {
        return Err(unnamed(Error::from(ErrorKind::InvalidFilename)));
    };
    let mut connection = look_options(from)
        .pragma("temp_store", "MEMORY")
        .connect()
        .await
        .map_err(|error| place.refused(&error))?;
    let copied = sqlx::query(COPY).bind(name).execute(&mut connection).await;
    copied.map_err(|error| Place::file(&to).refused(&error))?;
    connection.close().await.map_err(|error| place.refused(&error))
}

/// Writes into a copy that it is one.
pub async fn mark(path: &Path) -> Result<(), OpenError> {
    let place = Place::file(path);
    let refused = |error| place.refused(&error);
    let mut connection: SqliteConnection = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .busy_timeout(BUSY_TIMEOUT)
        .disable_statement_logging()
        .connect()
        .await
        .map_err(refused)?;
    sqlx::query(MARK).execute(&mut connection).await.map_err(refused)?;
    connection.close().await.map_err(refused)
}

/// Moves what is in the log of a file into the file, so that it alone is the whole database. Fails if it cannot be read.
pub async fn fold(path: &Path) -> Result<(), OpenError> {
    let place = Place::file(path);
    let refused = |error| place.refused(&error);
    let mut connection = options(path).connect().await.map_err(refused)?;
    let busy: i64 = sqlx::query_scalar(FOLD)
        .fetch_one(&mut connection)
        .await
        .map_err(refused)?;
    connection.close().await.map_err(refused)?;
    if busy == 0 && !beside(path, "-wal").exists() {
        return Ok(());
    }
    Err(OpenError::InUse { path: path.to_owned() })
}

/// A file that SQLite keeps beside another.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Why a file could not be read from end to end.
fn unusable(path: &Path, error: &sqlx::Error) -> OpenError {
    let path = path.to_owned();
    let code = error
        .as_database_error()
        .and_then(|error| error.code().map(|code| code.into_owned()));
    match code.as_deref().and_then(|code| code.parse::<i32>().ok()) {
        // An extended code keeps the plain one in its last byte.
        Some(code) if code & 0xff == NOT_A_DATABASE => OpenError::NotOurs { path },
        Some(code) if code & 0xff == CORRUPT => OpenError::Damaged { path },
        _ => Place::file(&path).refused(error),
    }
}

const CORRUPT: i32 = 11;
const NOT_A_DATABASE: i32 = 26;
const QUICK_CHECK: &str = "PRAGMA quick_check(1)";
const COPY: &str = "VACUUM INTO $1";
const MARK: &str = "INSERT INTO settings (name, value) VALUES ('backup_copy', x'01') ON CONFLICT DO NOTHING";
const FOLD: &str = "PRAGMA wal_checkpoint(TRUNCATE)";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Day;
    use crate::storage::testing::{ROOMY, sqlite};

    #[tokio::test]
    async fn a_copy_is_the_whole_database_and_says_that_it_is_one() {
        let database = sqlite(ROOMY).await.unwrap();
        let Location::Sqlite(path) = database.location() else {
            panic!("it is SQLite")
        };
        let storage = database.storage();
        storage.accounts.pin_pepper([7; 32]).await.unwrap();
        let counted = storage.ages.advance(None, false, Day(1)).await.unwrap().age;
        let to = path.with_file_name("copy");
        fs::File::create(&to).unwrap();
        copy(path, &to).await.unwrap();
        mark(&to).await.unwrap();
        mark(&to).await.unwrap();
        let looked = look(&to).await.unwrap();
        assert_eq!(looked.pepper_check.as_deref(), Some(&[7; 32][..]));
        assert_eq!(age(&to).await, Some(counted));
        assert!(fs::metadata(&to).unwrap().len() <= size(path).await.unwrap());
        for suffix in ["-wal", "-shm", "-journal"] {
            assert!(!beside(&to, suffix).exists(), "{suffix}");
        }
        // What is there is not written over.
        assert!(copy(path, &to).await.is_err());
        assert_eq!(age(&to).await, Some(counted));
    }

    #[tokio::test]
    async fn what_is_no_whole_database_of_ours_is_told_apart() {
        let database = sqlite(ROOMY).await.unwrap();
        let Location::Sqlite(path) = database.location() else {
            panic!("it is SQLite")
        };
        let at = |name| path.with_file_name(name);
        assert!(matches!(look(&at("none")).await, Err(OpenError::File { .. })));
        fs::write(at("text"), "these are not the bytes of a database".repeat(100)).unwrap();
        assert!(matches!(look(&at("text")).await, Err(OpenError::NotOurs { .. })));
        fs::write(at("empty"), "").unwrap();
        assert!(matches!(look(&at("empty")).await, Err(OpenError::NotOurs { .. })));
        fs::File::create(at("torn")).unwrap();
        copy(path, &at("torn")).await.unwrap();
        let whole = fs::read(at("torn")).unwrap();
        fs::write(at("torn"), &whole[..whole.len() / 2]).unwrap();
        assert!(matches!(look(&at("torn")).await, Err(OpenError::Damaged { .. })));
        let mut overwritten = whole;
        overwritten[8192..].fill(0x5a);
        fs::write(at("overwritten"), overwritten).unwrap();
        assert!(matches!(look(&at("overwritten")).await, Err(OpenError::Damaged { .. })));
    }
}
