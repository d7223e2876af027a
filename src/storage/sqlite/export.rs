//! What is held of an account, on SQLite.

use async_trait::async_trait;

use super::Database;
use crate::domain::Actor;
use crate::storage::export::{Cell, Cells as _, Named, Part, fetch};
use crate::storage::{ExportStore, StorageError};

/// Exports of what is in one file.
pub(super) struct SqliteExports {
    database: Database,
}

impl SqliteExports {
    pub(super) fn new(database: Database) -> Self {
        Self { database }
    }
}

#[async_trait]
impl ExportStore for SqliteExports {
    #[tracing::instrument(name = "db.export.rows", level = "debug", skip_all)]
    async fn rows(&self, by: &Actor, part: &Part<'_>) -> Result<Vec<Vec<Cell>>, StorageError> {
        fetch!(&self.database.read, by, part)
    }
}

#[cfg(test)]
mod tests {
    crate::storage::conformance::export_store_suite!(crate::storage::testing::sqlite);
}
