//! Failures of storage that no caller chose.

use std::error::Error;

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
}
