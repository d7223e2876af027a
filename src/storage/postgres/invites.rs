//! Invites on PostgreSQL. The row of an invite is what uses of it wait for.

use async_trait::async_trait;
use sqlx::PgConnection;

use super::Database;
use super::accounts::{done, session_columns};
use crate::domain::{Day, Done, Invite, InviteHash, InviteId, MAX_ATTEMPTS, MAX_INVITES, SessionKey, Timestamp};
use crate::storage::rows::{InviteRow, SessionRow};
use crate::storage::{InviteStore, StorageError};

/// Invites in one database.
pub(super) struct PgInvites {
    database: Database,
}

impl PgInvites {
    pub(super) fn new(database: Database) -> Self {
        Self { database }
    }
}

#[async_trait]
impl InviteStore for PgInvites {
    #[tracing::instrument(name = "db.invites.list", level = "debug", skip_all)]
    async fn list(&self, today: Day) -> Result<Vec<Invite>, StorageError> {
        let rows: Vec<InviteRow> = sqlx::query_as(LIST)
            .bind(today.0)
            .bind(i64::from(MAX_INVITES))
            .fetch_all(&self.database.pool)
            .await?;
        Ok(rows.into_iter().map(InviteRow::into_invite).collect())
    }

    #[tracing::instrument(name = "db.invites.verify", level = "debug", skip_all)]
    async fn verify(
        &self,
        session: &SessionKey,
        code: &InviteHash,
        now: Timestamp,
    ) -> Result<Option<Done>, StorageError> {
        let mut tx = self.database.begin().await?;
        // The session first: whoever tries the same code many times at once in it uses the invite up once.
        let counted: Option<SessionRow> = sqlx::query_as(COUNT_TRY)
            .bind(session.0.as_slice())
            .bind(now.0)
            .bind(i32::from(MAX_ATTEMPTS))
            .fetch_optional(&mut *tx)
            .await?;
        let used: Option<(bool,)> = match counted {
            Some(_) => {
                sqlx::query_as(USE)
                    .bind(code.0.as_slice())
                    .bind(now.day().0)
                    .fetch_optional(&mut *tx)
                    .await?
            }
            None => None,
        };
        let changed: Option<SessionRow> = match used {
            Some((recovers,)) => {
                sqlx::query(DROP_USED_UP)
                    .bind(code.0.as_slice())
                    .execute(&mut *tx)
                    .await?;
                sqlx::query_as(VERIFY)
                    .bind(session.0.as_slice())
                    .bind(!recovers)
                    .fetch_optional(&mut *tx)
                    .await?
            }
            None => counted,
        };
        let done = done(&mut tx, session, changed, now).await?;
        tx.commit().await?;
        Ok(done)
    }

    #[tracing::instrument(name = "db.invites.expire", level = "debug", skip_all)]
    async fn expire(&self, today: Day) -> Result<u64, StorageError> {
        let expired = sqlx::query(EXPIRE).bind(today.0).execute(&self.database.pool).await?;
        Ok(expired.rows_affected())
    }
}

/// Keeps a new invite, unless there are too many.
pub(super) async fn create(db: &mut PgConnection, code: &InviteHash, invite: &Invite) -> Result<bool, StorageError> {
    let created = sqlx::query(CREATE)
        .bind(invite.id.0)
        .bind(code.0.as_slice())
        .bind(i64::from(invite.uses_left))
        .bind(invite.recovers)
        .bind(invite.expires.0)
        .bind(invite.created.0)
        .bind(i64::from(MAX_INVITES))
        .execute(db)
        .await?;
    Ok(created.rows_affected() == 1)
}

/// Drops an invite, if there is one of that name.
pub(super) async fn revoke(db: &mut PgConnection, id: &InviteId) -> Result<bool, StorageError> {
    let revoked = sqlx::query(REVOKE).bind(id.0).execute(db).await?;
    Ok(revoked.rows_affected() == 1)
}

const CREATE: &str = "INSERT INTO invites (id, code_hash, uses_left, recovers, expires, created) \
    SELECT $1, $2, $3, $4, $5, $6 WHERE (SELECT count(*) FROM invites) < $7";
const LIST: &str = "SELECT id, uses_left, recovers, expires, created FROM invites WHERE expires >= $1 \
    ORDER BY created, id LIMIT $2";
const REVOKE: &str = "DELETE FROM invites WHERE id = $1";
const COUNT_TRY: &str = concat!(
    "UPDATE verification_sessions SET attempts = attempts + 1 \
    WHERE key = $1 AND expires > $2 AND NOT verified AND attempts < $3 \
    RETURNING ",
    session_columns!()
);
// Whoever comes while another uses it waits for the row, and then finds what is left.
const USE: &str = "UPDATE invites SET uses_left = uses_left - 1 WHERE code_hash = $1 AND expires >= $2 AND uses_left > 0 \
    RETURNING recovers";
const DROP_USED_UP: &str = "DELETE FROM invites WHERE code_hash = $1 AND uses_left = 0";
const VERIFY: &str = concat!(
    "UPDATE verification_sessions SET verified = TRUE, new_only = $2, code_hash = NULL WHERE key = $1 \
    RETURNING ",
    session_columns!()
);
const EXPIRE: &str = "DELETE FROM invites WHERE expires < $1";

#[cfg(test)]
mod tests {
    crate::storage::conformance::invite_store_suite!(crate::storage::testing::postgres);
}
