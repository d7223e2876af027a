//! Sessions with tokens on SQLite. There is one writer, so what a transaction looked at holds until it ends.

use async_trait::async_trait;
use uuid::Uuid;

use super::{Database, json_uuids};
use crate::domain::{
    Actor, Day, DeviceId, MailboxId, NewTokenSession, Rotated, Rotation, Timestamp, TokenKey, TokenSession,
    TokenSessionId,
};
use crate::storage::rows::{TokenKeyRow, TokenSessionRow};
use crate::storage::tokens::SESSIONS_PER_DEVICE;
use crate::storage::{StorageError, TokenStore};

/// Sessions in one file.
pub(super) struct SqliteTokens {
    database: Database,
}

impl SqliteTokens {
    pub(super) fn new(database: Database) -> Self {
        Self { database }
    }
}

#[async_trait]
impl TokenStore for SqliteTokens {
    #[tracing::instrument(name = "db.tokens.open", level = "debug", skip_all)]
    async fn open(&self, session: &NewTokenSession, by: &Actor) -> Result<Option<Vec<TokenSessionId>>, StorageError> {
        let Some(mut tx) = self.database.begin_as(by).await? else {
            return Ok(None);
        };
        let dropped: Vec<Uuid> = sqlx::query_scalar(MAKE_ROOM)
            .bind(by.mailbox.0)
            .bind(i64::from(SESSIONS_PER_DEVICE - 1))
            .fetch_all(&mut *tx)
            .await?;
        let opened = sqlx::query(OPEN)
            .bind(Uuid::from_bytes(session.id.0))
            .bind(by.mailbox.0)
            .bind(session.refresh.0.as_slice())
            .bind(session.created.0)
            .bind(session.expires.0)
            .bind(session.salt.as_slice())
            .execute(&mut *tx)
            .await?;
        if opened.rows_affected() == 0 {
            return Ok(None);
        }
        tx.commit().await?;
        Ok(Some(ids(dropped)))
    }

    #[tracing::instrument(name = "db.tokens.find", level = "debug", skip_all)]
    async fn find(&self, id: TokenSessionId, today: Day) -> Result<Option<MailboxId>, StorageError> {
        let found: Option<i64> = sqlx::query_scalar(FIND)
            .bind(Uuid::from_bytes(id.0))
            .bind(today.0)
            .fetch_optional(&self.database.read)
            .await?;
        Ok(found.map(MailboxId))
    }

    #[tracing::instrument(name = "db.tokens.alive", level = "debug", skip_all)]
    async fn alive(&self, ids: &[TokenSessionId], today: Day) -> Result<Vec<TokenSessionId>, StorageError> {
        let asked: Vec<Uuid> = ids.iter().map(|id| Uuid::from_bytes(id.0)).collect();
        let alive: Vec<Uuid> = sqlx::query_scalar(ALIVE)
            .bind(json_uuids(&asked))
            .bind(today.0)
            .fetch_all(&self.database.read)
            .await?;
        Ok(self::ids(alive))
    }

    #[tracing::instrument(name = "db.tokens.rotate", level = "debug", skip_all)]
    async fn rotate(&self, rotation: &Rotation) -> Result<Rotated, StorageError> {
        let mut tx = self.database.begin().await?;
        let done = sqlx::query(ROTATE)
            .bind(Uuid::from_bytes(rotation.id.0))
            .bind(rotation.mailbox.0)
            .bind(rotation.shown.0.as_slice())
            .bind(rotation.today.0)
            .bind(rotation.next.0.as_slice())
            .bind(rotation.expires.0)
            .execute(&mut *tx)
            .await?;
        let rotated = if done.rows_affected() == 1 {
            Rotated::Done
        } else {
            let stands: Option<(Vec<u8>, i32)> = sqlx::query_as(STANDS)
                .bind(Uuid::from_bytes(rotation.id.0))
                .bind(rotation.mailbox.0)
                .bind(rotation.today.0)
                .fetch_optional(&mut *tx)
                .await?;
            match stands {
                None => Rotated::Gone,
                Some((refresh, expires)) if refresh == rotation.next.0 => Rotated::Again(Day(expires)),
                Some(_) => {
                    sqlx::query(END)
                        .bind(Uuid::from_bytes(rotation.id.0))
                        .execute(&mut *tx)
                        .await?;
                    Rotated::Reused
                }
            }
        };
        tx.commit().await?;
        Ok(rotated)
    }

    #[tracing::instrument(name = "db.tokens.sessions", level = "debug", skip_all)]
    async fn sessions(&self, by: &Actor, today: Day) -> Result<Vec<TokenSession>, StorageError> {
        let rows: Vec<TokenSessionRow> = sqlx::query_as(SESSIONS)
            .bind(by.address.aci.as_uuid())
            .bind(by.mailbox.0)
            .bind(by.address.device_id == DeviceId::PRIMARY)
            .bind(today.0)
            .fetch_all(&self.database.read)
            .await?;
        rows.into_iter().map(TokenSessionRow::into_session).collect()
    }

    #[tracing::instrument(name = "db.tokens.revoke", level = "debug", skip_all)]
    async fn revoke(&self, by: &Actor, id: Option<TokenSessionId>) -> Result<Vec<TokenSessionId>, StorageError> {
        let Some(mut tx) = self.database.begin_as(by).await? else {
            return Ok(vec![]);
        };
        let revoked: Vec<Uuid> = sqlx::query_scalar(REVOKE)
            .bind(by.address.aci.as_uuid())
            .bind(by.mailbox.0)
            .bind(by.address.device_id == DeviceId::PRIMARY)
            .bind(id.map(|id| Uuid::from_bytes(id.0)))
            .fetch_all(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(ids(revoked))
    }

    #[tracing::instrument(name = "db.tokens.end", level = "debug", skip_all)]
    async fn end(&self, id: TokenSessionId) -> Result<bool, StorageError> {
        let ended = sqlx::query(END)
            .bind(Uuid::from_bytes(id.0))
            .execute(&self.database.write)
            .await?;
        Ok(ended.rows_affected() == 1)
    }

    #[tracing::instrument(name = "db.tokens.expire", level = "debug", skip_all)]
    async fn expire(&self, today: Day) -> Result<u64, StorageError> {
        let expired = sqlx::query(EXPIRE).bind(today.0).execute(&self.database.write).await?;
        Ok(expired.rows_affected())
    }

    #[tracing::instrument(name = "db.tokens.keys", level = "debug", skip_all)]
    async fn keys(&self, now: Timestamp) -> Result<Vec<TokenKey>, StorageError> {
        let rows: Vec<TokenKeyRow> = sqlx::query_as(KEYS).bind(now.0).fetch_all(&self.database.read).await?;
        rows.into_iter().map(TokenKeyRow::into_key).collect()
    }

    #[tracing::instrument(name = "db.tokens.first_key", level = "debug", skip_all)]
    async fn first_key(&self, key: &TokenKey) -> Result<(), StorageError> {
        sqlx::query(FIRST_KEY)
            .bind(key.public.as_slice())
            .bind(key.sealed.0.as_slice())
            .bind(key.created.0)
            .execute(&self.database.write)
            .await?;
        Ok(())
    }

    #[tracing::instrument(name = "db.tokens.rotate_key", level = "debug", skip_all)]
    async fn rotate_key(&self, key: &TokenKey, others_until: Option<Timestamp>) -> Result<(), StorageError> {
        let mut tx = self.database.begin().await?;
        let others = match others_until {
            Some(until) => sqlx::query(RETIRE_KEYS).bind(until.0),
            None => sqlx::query(DROP_KEYS),
        };
        others.execute(&mut *tx).await?;
        sqlx::query(ADD_KEY)
            .bind(key.public.as_slice())
            .bind(key.sealed.0.as_slice())
            .bind(key.created.0)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(())
    }

    #[tracing::instrument(name = "db.tokens.expire_keys", level = "debug", skip_all)]
    async fn expire_keys(&self, now: Timestamp) -> Result<u64, StorageError> {
        let expired = sqlx::query(EXPIRE_KEYS)
            .bind(now.0)
            .execute(&self.database.write)
            .await?;
        Ok(expired.rows_affected())
    }
}

fn ids(uuids: Vec<Uuid>) -> Vec<TokenSessionId> {
    uuids.into_iter().map(|id| TokenSessionId(id.into_bytes())).collect()
}

const MAKE_ROOM: &str = "DELETE FROM token_sessions WHERE mailbox = $1 AND id NOT IN (\
    SELECT id FROM token_sessions WHERE mailbox = $1 ORDER BY expires DESC, created DESC, id LIMIT $2) RETURNING id";
const OPEN: &str = "INSERT INTO token_sessions (id, mailbox, refresh, created, expires) \
    SELECT $1, mailbox, $3, $4, $5 FROM devices WHERE mailbox = $2 AND credential_salt = $6";
const FIND: &str = "SELECT mailbox FROM token_sessions WHERE id = $1 AND expires > $2";
const ALIVE: &str = "SELECT id FROM token_sessions \
    WHERE id IN (SELECT unhex(value) FROM json_each($1)) AND expires > $2";
const ROTATE: &str = "UPDATE token_sessions SET refresh = $5, expires = $6 \
    WHERE id = $1 AND mailbox = $2 AND refresh = $3 AND expires > $4";
const STANDS: &str = "SELECT refresh, expires FROM token_sessions WHERE id = $1 AND mailbox = $2 AND expires > $3";
const SESSIONS: &str = "SELECT id, mailbox, device_id, created, expires FROM token_sessions JOIN devices USING (mailbox) \
    WHERE aci = $1 AND (mailbox = $2 OR $3) AND expires > $4 \
        AND EXISTS (SELECT 1 FROM devices WHERE aci = $1 AND mailbox = $2) \
    ORDER BY device_id, created, id";
const REVOKE: &str = "DELETE FROM token_sessions \
    WHERE mailbox IN (SELECT mailbox FROM devices WHERE aci = $1 AND (mailbox = $2 OR $3)) AND ($4 IS NULL OR id = $4) \
    RETURNING id";
const END: &str = "DELETE FROM token_sessions WHERE id = $1";
const EXPIRE: &str = "DELETE FROM token_sessions WHERE expires <= $1";
const KEYS: &str = "SELECT public, sealed, created, until FROM token_keys \
    WHERE until IS NULL OR until > $1 ORDER BY created DESC, public";
const FIRST_KEY: &str = "INSERT INTO token_keys (public, sealed, created) \
    SELECT $1, $2, $3 WHERE NOT EXISTS (SELECT 1 FROM token_keys WHERE until IS NULL)";
const ADD_KEY: &str = "INSERT INTO token_keys (public, sealed, created) VALUES ($1, $2, $3)";
const RETIRE_KEYS: &str = "UPDATE token_keys SET until = $1 WHERE until IS NULL";
const DROP_KEYS: &str = "DELETE FROM token_keys";
const EXPIRE_KEYS: &str = "DELETE FROM token_keys WHERE until <= $1";

#[cfg(test)]
mod tests {
    crate::storage::conformance::token_store_suite!(crate::storage::testing::sqlite);
}
