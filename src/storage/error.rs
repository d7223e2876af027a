//! Failures of storage that no caller chose.

use std::error::Error;

use sqlx::postgres::PgDatabaseError;

/// A failed promise of storage.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The database did not carry it out. Trying again later may work.
    #[error("storage is unavailable ({kind})")]
    Unavailable {
        /// SQLSTATE, SQLite code or kind of failure: safe to log.
        kind: String,
        /// The driver's error. It may quote values: never log it.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A stored value is not what this server writes.
    #[error("{table}.{column} holds a value that this server did not write")]
    Corrupt {
        /// Table.
        table: &'static str,
        /// Column.
        column: &'static str,
    },
}

impl StorageError {
    /// What may be logged of it.
    pub fn log_safe_cause(&self) -> String {
        self.to_string()
    }

    /// Whether other transactions were in the way, and nothing else: the same may succeed now.
    pub(super) fn is_contention(&self) -> bool {
        match self {
            Self::Unavailable { kind, .. } => CONTENTION.contains(&kind.as_str()),
            Self::Corrupt { .. } => false,
        }
    }
}

impl From<sqlx::Error> for StorageError {
    fn from(error: sqlx::Error) -> Self {
        Self::Unavailable {
            kind: safe_kind(&error),
            source: Box::new(error),
        }
    }
}

/// A driver's error as a code or a word: nothing of its text, which may quote values.
pub(super) fn safe_kind(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(database) => {
            let code = database.code().unwrap_or_default();
            match database.try_downcast_ref::<PgDatabaseError>() {
                Some(_) => format!("SQLSTATE {code}"),
                None => format!("SQLite {code}"),
            }
        }
        sqlx::Error::Io(io) => format!("I/O: {}", io.kind()),
        sqlx::Error::Tls(_) => "TLS".to_owned(),
        sqlx::Error::PoolTimedOut => "no free connection in time".to_owned(),
        sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => "connection closed".to_owned(),
        sqlx::Error::Configuration(_) => "configuration".to_owned(),
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => "decoding".to_owned(),
        _ => "driver".to_owned(),
    }
}

/// serialization_failure and deadlock_detected.
const CONTENTION: [&str; 2] = ["SQLSTATE 40001", "SQLSTATE 40P01"];
