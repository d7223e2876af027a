//! Why a database was not opened. For an operator at start-up: each message says the cause and what to do next, and none
//! repeats a URL, which may hold a password.

use std::path::{Path, PathBuf};

use sqlx::postgres::PgDatabaseError;

use super::error::safe_kind;

/// A database that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the SQLite file open.
    #[error("{} is in use by another server; stop that one, or give this one its own data directory", .path.display())]
    InUse {
        /// The database file.
        path: PathBuf,
    },
    /// The file system refuses.
    #[error("cannot open {}: {source}; see that the directory exists and this user may write to it", .path.display())]
    File {
        /// The file in question.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// SQLite refuses.
    #[error("cannot use {} ({kind}); see that it is a SQLite file with free space around it, or restore a backup", .path.display())]
    Sqlite {
        /// The database file.
        path: PathBuf,
        /// Code or kind of failure.
        kind: String,
    },
    /// A SQLite file that is not whole.
    #[error("{} is damaged; use another backup", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// A file that is no database of a server.
    #[error("{} is not a database of blind-relay; name a file that `blind-relay backup` wrote, or a copy of relay.db", .path.display())]
    NotOurs {
        /// The file.
        path: PathBuf,
    },
    /// The URL names no PostgreSQL database.
    #[error("the database URL is malformed; it reads postgres://user:password@host:port/database")]
    Url,
    /// PostgreSQL refuses, or nobody answers.
    #[error("cannot use the PostgreSQL database at {place} ({cause}); see that it runs, and check the database URL")]
    Postgres {
        /// Host, port and database.
        place: String,
        /// SQLSTATE with the server's message, or kind of failure.
        cause: String,
    },
    /// A newer release has written to the database.
    #[error(
        "the database is at schema version {found}, this release knows {known}; run the newer release, or restore a backup"
    )]
    Newer {
        /// The highest version in the database.
        found: i64,
        /// The highest version of this release.
        known: i64,
    },
    /// The schema was made by other migrations than ours.
    #[error(
        "schema version {version} of the database is not the one of this release; run the release that wrote it, or restore a backup"
    )]
    Changed {
        /// The version that differs or is missing.
        version: i64,
    },
    /// The database belongs to something else.
    #[error("the database has tables of the same names that blind-relay did not create; give it an empty database")]
    Foreign,
    /// Its envelopes are sealed, and an earlier release could not read them.
    #[error(
        "envelopes are waiting in the database, sealed as the release before cannot read them; stay with this release, or let \
         the devices fetch them first"
    )]
    Sealed,
    /// Keys would be kept under a pepper that is not this database's.
    #[error("the pepper is not the one that the database was made with; copy that one here, and try again")]
    OtherPepper,
    /// Migrations are waiting.
    #[error("the database is at schema version {found}, this release needs {known}; run `blind-relay migrate up`")]
    Outdated {
        /// The highest version in the database, 0 if it is empty.
        found: i64,
        /// The highest version of this release.
        known: i64,
    },
}

/// Where an error came from, for its message.
#[derive(Clone)]
pub(super) enum Place {
    Sqlite(PathBuf),
    Postgres(String),
}

impl Place {
    pub(super) fn file(path: &Path) -> Self {
        Self::Sqlite(path.to_owned())
    }

    /// The error as an operator may see it.
    pub(super) fn refused(&self, error: &sqlx::Error) -> OpenError {
        match self {
            Self::Sqlite(path) => OpenError::Sqlite {
                path: path.clone(),
                kind: safe_kind(error),
            },
            Self::Postgres(place) => OpenError::Postgres {
                place: place.clone(),
                cause: start_up_cause(error),
            },
        }
    }
}

/// At start-up no row is involved, so the server's message quotes names from the configuration at most.
fn start_up_cause(error: &sqlx::Error) -> String {
    let message = error
        .as_database_error()
        .and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
    match message {
        Some(refusal) => format!("SQLSTATE {}: {}", refusal.code(), refusal.message()),
        None => safe_kind(error),
    }
}
