//! What is held of an account, on PostgreSQL.

use async_trait::async_trait;

use super::Database;
use crate::domain::Actor;
use crate::storage::export::{Cell, Cells as _, Named, Part, fetch};
use crate::storage::{ExportStore, StorageError};

/// Exports of what is in one database.
pub(super) struct PgExports {
    database: Database,
}

impl PgExports {
    pub(super) fn new(database: Database) -> Self {
        Self { database }
    }
}

#[async_trait]
impl ExportStore for PgExports {
    #[tracing::instrument(name = "db.export.rows", level = "debug", skip_all)]
    async fn rows(&self, by: &Actor, part: &Part<'_>) -> Result<Vec<Vec<Cell>>, StorageError> {
        fetch!(&self.database.pool, by, part)
    }
}

#[cfg(test)]
mod tests {
    crate::storage::conformance::export_store_suite!(crate::storage::testing::postgres);
}
