//! The age of a file.

use async_trait::async_trait;

use super::Database;
use crate::domain::{Age, Aged, Day, Invalidated};
use crate::storage::age::{
    DROP_COPY_MARK, DROP_INVITES, DROP_KEYS, DROP_OFFERS, DROP_SESSIONS, DROP_TOKEN_KEYS, DROP_TOKENS, MARKS, Marks,
    PASS_NUMBERS_OVER, SET_MARK,
};
use crate::storage::{AgeStore, StorageError};

/// The age of one file.
pub(super) struct SqliteAges {
    database: Database,
}

impl SqliteAges {
    pub(super) fn new(database: Database) -> Self {
        Self { database }
    }
}

#[async_trait]
impl AgeStore for SqliteAges {
    #[tracing::instrument(name = "db.age.advance", level = "debug", skip_all)]
    async fn advance(&self, seen: Option<&Age>, told: bool, today: Day) -> Result<Aged, StorageError> {
        let mut tx = self.database.begin().await?;
        let marks = Marks::read(sqlx::query_as(MARKS).fetch_all(&mut *tx).await?)?;
        let restored = marks.judge(seen, told, None);
        let age = marks.next(seen, restored);
        let mut invalidated = Invalidated::default();
        if restored.is_some() {
            for statement in SPEND_ALL {
                sqlx::query(statement).bind(today.0).execute(&mut *tx).await?;
            }
            for statement in DROP_KEYS {
                invalidated.keys += sqlx::query(statement).execute(&mut *tx).await?.rows_affected();
            }
            for (statement, count) in [
                (DROP_TOKENS, &mut invalidated.tokens),
                (DROP_SESSIONS, &mut invalidated.sessions),
                (DROP_OFFERS, &mut invalidated.offers),
                (DROP_INVITES, &mut invalidated.invites),
            ] {
                *count = sqlx::query(statement).execute(&mut *tx).await?.rows_affected();
            }
            for statement in PASS_NUMBERS_OVER {
                sqlx::query(statement).execute(&mut *tx).await?;
            }
            sqlx::query(DROP_TOKEN_KEYS).execute(&mut *tx).await?;
            sqlx::query(DROP_COPY_MARK).execute(&mut *tx).await?;
        }
        for (name, value) in [
            ("database_id", age.database.as_slice()),
            ("restore_epoch", &age.epoch.to_be_bytes()),
            ("generation", &age.generation.to_be_bytes()),
        ] {
            sqlx::query(SET_MARK).bind(name).bind(value).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(Aged {
            age,
            restored,
            invalidated,
        })
    }
}

// They may have been handed out.
const SPEND_ALL: [&str; 2] = [
    "INSERT INTO spent_keys (aci, device_id, kind, kyber, key_id, tail, day) \
        SELECT aci, device_id, kind, 0, key_id, substr(key, -8), $1 FROM one_time_ec_keys WHERE true ON CONFLICT DO NOTHING",
    "INSERT INTO spent_keys (aci, device_id, kind, kyber, key_id, tail, day) \
        SELECT aci, device_id, kind, 1, key_id, substr(key, -8), $1 FROM one_time_kyber_keys WHERE true \
        ON CONFLICT DO NOTHING",
];

#[cfg(test)]
mod tests {
    crate::storage::conformance::age_store_suite!(crate::storage::testing::sqlite);
}
