//! The age of a database. Nodes look at it one after the other, so that one of them makes invalid what must be.

use async_trait::async_trait;
use sqlx::PgConnection;

use super::{Database, retrying};
use crate::domain::{Age, Aged, Day, Invalidated};
use crate::storage::age::{
    DROP_COPY_MARK, DROP_INVITES, DROP_KEYS, DROP_OFFERS, DROP_SESSIONS, DROP_TOKEN_KEYS, DROP_TOKENS, MARKS, Marks,
    PASS_NUMBERS_OVER, SET_MARK,
};
use crate::storage::{AgeStore, StorageError};

/// The age of one database, shared by every node.
pub(super) struct PgAges {
    database: Database,
}

impl PgAges {
    pub(super) fn new(database: Database) -> Self {
        Self { database }
    }

    async fn try_advance(&self, seen: Option<&Age>, told: bool, today: Day) -> Result<Aged, StorageError> {
        let mut tx = self.database.begin().await?;
        sqlx::query(ONE_AT_A_TIME).execute(&mut *tx).await?;
        let marks = Marks::read(sqlx::query_as(MARKS).fetch_all(&mut *tx).await?)?;
        let place = place(&mut tx).await?;
        let restored = marks.judge(seen, told, Some(&place));
        let age = marks.next(seen, restored);
        let mut invalidated = Invalidated::default();
        if restored.is_some() {
            sqlx::query(TAKE_YOUR_TIME).execute(&mut *tx).await?;
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
            ("database_place", &place),
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

#[async_trait]
impl AgeStore for PgAges {
    #[tracing::instrument(name = "db.age.advance", level = "debug", skip_all)]
    async fn advance(&self, seen: Option<&Age>, told: bool, today: Day) -> Result<Aged, StorageError> {
        retrying!(self.try_advance(seen, told, today).await)
    }
}

/// Where the database is. A dump that is read in makes another table, and often another database.
pub(crate) async fn place(db: &mut PgConnection) -> Result<Vec<u8>, sqlx::Error> {
    let (database, table): (i64, i64) = sqlx::query_as(PLACE).fetch_one(db).await?;
    Ok([database.to_be_bytes(), table.to_be_bytes()].concat())
}

// The number is of this statement alone; the lock goes with the transaction.
const ONE_AT_A_TIME: &str = "SELECT pg_advisory_xact_lock(6029181700414237)";
const PLACE: &str = "SELECT d.oid::bigint, 'settings'::regclass::oid::bigint \
    FROM pg_database AS d WHERE d.datname = current_database()";
// Every one-time key there is, in one transaction.
const TAKE_YOUR_TIME: &str = "SELECT set_config('statement_timeout', '0', true)";
// They may have been handed out.
const SPEND_ALL: [&str; 2] = [
    "INSERT INTO spent_keys (aci, device_id, kind, kyber, key_id, tail, day) \
        SELECT aci, device_id, kind, false, key_id, substring(key FROM octet_length(key) - 7), $1 FROM one_time_ec_keys \
        ON CONFLICT DO NOTHING",
    "INSERT INTO spent_keys (aci, device_id, kind, kyber, key_id, tail, day) \
        SELECT aci, device_id, kind, true, key_id, substring(key FROM octet_length(key) - 7), $1 FROM one_time_kyber_keys \
        ON CONFLICT DO NOTHING",
];

#[cfg(test)]
mod tests {
    crate::storage::conformance::age_store_suite!(crate::storage::testing::postgres);
}
