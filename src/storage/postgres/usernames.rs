//! User names on Postgres.
//!
//! A transaction that changes an account's names locks the account first, so that the account's devices take turns, and
//! takes a name by a statement that finds the row as it is then. Between accounts the name's primary key decides.

use std::collections::HashMap;

use async_trait::async_trait;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Database, retrying};
use crate::domain::{
    Aci, Actor, Confirmed, Day, EncryptedUsername, LinkHandle, MAX_GIVEN_UP, Reserved, Timestamp, Username,
    UsernameHash, UsernameLink, held_until, reserved_until,
};
use crate::storage::usernames::{NameColumns, NameRow, NamedColumns, Standing, candidates, encrypted, hash, username};
use crate::storage::{StorageError, UsernameStore};

/// User names in one database, shared by every node.
pub(super) struct PgUsernames {
    database: Database,
}

impl PgUsernames {
    pub(super) fn new(database: Database) -> Self {
        Self { database }
    }

    async fn try_reserve(&self, by: &Actor, hashes: &[UsernameHash], now: Timestamp) -> Result<Reserved, StorageError> {
        let Some(mut tx) = self.database.begin_as(by).await? else {
            return Ok(Reserved::UnknownAccount);
        };
        let aci = by.address.aci;
        let given_up: i64 = sqlx::query_scalar(COUNT_GIVEN_UP)
            .bind(aci.as_uuid())
            .bind(now.day().0)
            .fetch_one(&mut *tx)
            .await?;
        let known = known(&mut tx, aci, hashes, now).await?;
        let found = match candidates(hashes, |hash| known.get(hash).copied(), given_up >= MAX_GIVEN_UP) {
            Ok(found) => found,
            Err(refused) => return Ok(refused),
        };
        for (name, standing) in found {
            if standing != Standing::Own && !claim(&mut tx, aci, &name, now).await? {
                // Another account was quicker.
                continue;
            }
            if standing != Standing::Own {
                for statement in DROP_OTHER_RESERVATIONS {
                    sqlx::query(statement)
                        .bind(aci.as_uuid())
                        .bind(name.0.as_slice())
                        .execute(&mut *tx)
                        .await?;
                }
            }
            tx.commit().await?;
            return Ok(Reserved::Name(name));
        }
        Ok(Reserved::AllTaken)
    }

    async fn try_confirm(
        &self,
        by: &Actor,
        hash: &UsernameHash,
        link: Option<&UsernameLink>,
        now: Timestamp,
    ) -> Result<Confirmed, StorageError> {
        let Some(mut tx) = self.database.begin_as(by).await? else {
            return Ok(Confirmed::UnknownAccount);
        };
        let aci = by.address.aci;
        let row: Option<NameColumns> = sqlx::query_as(FIND_NAME)
            .bind(hash.0.as_slice())
            .fetch_optional(&mut *tx)
            .await?;
        let handle = match row.map_or(Standing::Free, |row| NameRow::new(row).standing(aci, now)) {
            Standing::Taken => return Ok(Confirmed::Taken),
            Standing::Free | Standing::Former => return Ok(Confirmed::NotReserved),
            Standing::Own => keep_or_replace_link(&mut tx, aci, link).await?,
            Standing::Reserved => {
                give_up(&mut tx, aci, now.day()).await?;
                sqlx::query(TAKE)
                    .bind(hash.0.as_slice())
                    .bind(aci.as_uuid())
                    .execute(&mut *tx)
                    .await?;
                replace_link(&mut tx, aci, link).await?
            }
        };
        tx.commit().await?;
        Ok(Confirmed::Owned(handle))
    }

    async fn try_release(&self, by: &Actor, today: Day) -> Result<bool, StorageError> {
        let Some(mut tx) = self.database.begin_as(by).await? else {
            return Ok(false);
        };
        let aci = by.address.aci;
        give_up(&mut tx, aci, today).await?;
        replace_link(&mut tx, aci, None).await?;
        tx.commit().await?;
        Ok(true)
    }

    async fn try_set_link(
        &self,
        by: &Actor,
        link: &UsernameLink,
        keep_handle: bool,
    ) -> Result<Option<LinkHandle>, StorageError> {
        let Some(mut tx) = self.database.begin_as(by).await? else {
            return Ok(None);
        };
        let aci = by.address.aci;
        let owns: bool = sqlx::query_scalar(OWNS_A_NAME)
            .bind(aci.as_uuid())
            .fetch_one(&mut *tx)
            .await?;
        if !owns {
            return Ok(None);
        }
        let mut handle = None;
        if keep_handle {
            let kept: Option<Uuid> = sqlx::query_scalar(REWRITE_LINK)
                .bind(aci.as_uuid())
                .bind(link.encrypted.as_bytes())
                .fetch_optional(&mut *tx)
                .await?;
            handle = kept.map(LinkHandle);
        }
        if handle.is_none() {
            handle = replace_link(&mut tx, aci, Some(link)).await?;
        }
        tx.commit().await?;
        Ok(handle)
    }

    async fn try_expire(&self, now: Timestamp) -> Result<u64, StorageError> {
        let today = now.day();
        let mut tx = self.database.begin().await?;
        sqlx::query(HOLD_THE_OWNERLESS)
            .bind(held_until(today).0)
            .execute(&mut *tx)
            .await?;
        sqlx::query(END_RESERVATIONS).bind(now.0).execute(&mut *tx).await?;
        let freed = sqlx::query(FREE).bind(today.0).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(freed.rows_affected())
    }
}

#[async_trait]
impl UsernameStore for PgUsernames {
    #[tracing::instrument(name = "db.usernames.reserve", level = "debug", skip_all)]
    async fn reserve(&self, by: &Actor, hashes: &[UsernameHash], now: Timestamp) -> Result<Reserved, StorageError> {
        retrying!(self.try_reserve(by, hashes, now).await)
    }

    #[tracing::instrument(name = "db.usernames.confirm", level = "debug", skip_all)]
    async fn confirm(
        &self,
        by: &Actor,
        hash: &UsernameHash,
        link: Option<&UsernameLink>,
        now: Timestamp,
    ) -> Result<Confirmed, StorageError> {
        retrying!(self.try_confirm(by, hash, link, now).await)
    }

    #[tracing::instrument(name = "db.usernames.release", level = "debug", skip_all)]
    async fn release(&self, by: &Actor, today: Day) -> Result<bool, StorageError> {
        retrying!(self.try_release(by, today).await)
    }

    #[tracing::instrument(name = "db.usernames.set_link", level = "debug", skip_all)]
    async fn set_link(
        &self,
        by: &Actor,
        link: &UsernameLink,
        keep_handle: bool,
    ) -> Result<Option<LinkHandle>, StorageError> {
        retrying!(self.try_set_link(by, link, keep_handle).await)
    }

    #[tracing::instrument(name = "db.usernames.drop_link", level = "debug", skip_all)]
    async fn drop_link(&self, by: &Actor) -> Result<bool, StorageError> {
        let Some(mut tx) = self.database.begin_as(by).await? else {
            return Ok(false);
        };
        sqlx::query(DROP_LINK)
            .bind(by.address.aci.as_uuid())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(true)
    }

    #[tracing::instrument(name = "db.usernames.find", level = "debug", skip_all)]
    async fn find(&self, hash: &UsernameHash) -> Result<Option<Aci>, StorageError> {
        let found: Option<Uuid> = sqlx::query_scalar(FIND_OWNER)
            .bind(hash.0.as_slice())
            .fetch_optional(&self.database.pool)
            .await?;
        Ok(found.map(Aci::new))
    }

    #[tracing::instrument(name = "db.usernames.find_link", level = "debug", skip_all)]
    async fn find_link(&self, handle: &LinkHandle) -> Result<Option<EncryptedUsername>, StorageError> {
        let found: Option<Vec<u8>> = sqlx::query_scalar(FIND_LINK)
            .bind(handle.0)
            .fetch_optional(&self.database.pool)
            .await?;
        found.map(encrypted).transpose()
    }

    #[tracing::instrument(name = "db.usernames.of_account", level = "debug", skip_all)]
    async fn of_account(&self, aci: Aci) -> Result<Option<Username>, StorageError> {
        let found: Option<(Vec<u8>, Option<Uuid>)> = sqlx::query_as(OF_ACCOUNT)
            .bind(aci.as_uuid())
            .fetch_optional(&self.database.pool)
            .await?;
        found.map(username).transpose()
    }

    #[tracing::instrument(name = "db.usernames.expire", level = "debug", skip_all)]
    async fn expire(&self, now: Timestamp) -> Result<u64, StorageError> {
        retrying!(self.try_expire(now).await)
    }
}

/// Reserves the name if it is still to be had.
async fn claim(db: &mut PgConnection, aci: Aci, name: &UsernameHash, now: Timestamp) -> Result<bool, StorageError> {
    let claimed = sqlx::query(CLAIM)
        .bind(name.0.as_slice())
        .bind(aci.as_uuid())
        .bind(reserved_until(now).0)
        .bind(now.0)
        .bind(now.day().0)
        .execute(db)
        .await?;
    Ok(claimed.rows_affected() == 1)
}

/// What the table holds of these names.
async fn known(
    db: &mut PgConnection,
    aci: Aci,
    hashes: &[UsernameHash],
    now: Timestamp,
) -> Result<HashMap<UsernameHash, Standing>, StorageError> {
    let all: Vec<&[u8]> = hashes.iter().map(|hash| hash.0.as_slice()).collect();
    let rows: Vec<NamedColumns> = sqlx::query_as(FIND_NAMES).bind(all).fetch_all(db).await?;
    rows.into_iter()
        .map(|(name, holder, owned, reserved, held)| {
            let row = NameRow::new((holder, owned, reserved, held));
            Ok((hash(&name)?, row.standing(aci, now)))
        })
        .collect()
}

/// The account's name becomes one that is held for it.
async fn give_up(db: &mut PgConnection, aci: Aci, today: Day) -> Result<(), StorageError> {
    sqlx::query(GIVE_UP)
        .bind(aci.as_uuid())
        .bind(held_until(today).0)
        .execute(db)
        .await?;
    Ok(())
}

async fn replace_link(
    db: &mut PgConnection,
    aci: Aci,
    link: Option<&UsernameLink>,
) -> Result<Option<LinkHandle>, StorageError> {
    sqlx::query(DROP_LINK).bind(aci.as_uuid()).execute(&mut *db).await?;
    if let Some(link) = link {
        sqlx::query(INSERT_LINK)
            .bind(link.handle.0)
            .bind(aci.as_uuid())
            .bind(link.encrypted.as_bytes())
            .execute(db)
            .await?;
    }
    Ok(link.map(|link| link.handle))
}

/// For a confirmation that comes again: without a change nothing is replaced.
async fn keep_or_replace_link(
    db: &mut PgConnection,
    aci: Aci,
    link: Option<&UsernameLink>,
) -> Result<Option<LinkHandle>, StorageError> {
    let old: Option<(Uuid, Vec<u8>)> = sqlx::query_as(LINK_OF_ACCOUNT)
        .bind(aci.as_uuid())
        .fetch_optional(&mut *db)
        .await?;
    match (old, link) {
        (Some((handle, old)), Some(link)) if old == link.encrypted.as_bytes() => Ok(Some(LinkHandle(handle))),
        (_, Some(link)) => replace_link(db, aci, Some(link)).await,
        (old, None) => Ok(old.map(|(handle, _)| LinkHandle(handle))),
    }
}

const COUNT_GIVEN_UP: &str = "SELECT count(*) FROM usernames WHERE aci = $1 AND NOT owned AND held_until > $2";
const FIND_NAMES: &str = "SELECT hash, aci, owned, reserved_until, held_until FROM usernames WHERE hash = ANY($1)";
// Locked, so that nobody takes it over because the reservation lapses just now.
const FIND_NAME: &str = "SELECT aci, owned, reserved_until, held_until FROM usernames WHERE hash = $1 FOR UPDATE";
// A name that is held for this account stays held for it should the reservation lapse.
const CLAIM: &str = "INSERT INTO usernames AS name (hash, aci, owned, reserved_until) VALUES ($1, $2, FALSE, $3) \
    ON CONFLICT (hash) DO UPDATE SET \
        held_until = CASE WHEN name.aci = excluded.aci THEN name.held_until END, \
        aci = excluded.aci, reserved_until = excluded.reserved_until \
    WHERE NOT name.owned AND (name.aci = excluded.aci OR (\
        (name.reserved_until IS NULL OR name.reserved_until <= $4) AND \
        (name.held_until IS NULL OR name.held_until <= $5)))";
const DROP_OTHER_RESERVATIONS: [&str; 2] = [
    "DELETE FROM usernames WHERE aci = $1 AND hash <> $2 AND NOT owned AND held_until IS NULL",
    "UPDATE usernames SET reserved_until = NULL WHERE aci = $1 AND hash <> $2 AND reserved_until IS NOT NULL",
];
const GIVE_UP: &str = "UPDATE usernames SET owned = FALSE, held_until = $2 WHERE aci = $1 AND owned";
const TAKE: &str = "UPDATE usernames SET owned = TRUE, reserved_until = NULL, held_until = NULL \
    WHERE hash = $1 AND aci = $2";
const OWNS_A_NAME: &str = "SELECT EXISTS (SELECT 1 FROM usernames WHERE aci = $1 AND owned)";
const DROP_LINK: &str = "DELETE FROM username_links WHERE aci = $1";
const INSERT_LINK: &str = "INSERT INTO username_links (handle, aci, encrypted) VALUES ($1, $2, $3)";
const REWRITE_LINK: &str = "UPDATE username_links SET encrypted = $2 WHERE aci = $1 RETURNING handle";
const LINK_OF_ACCOUNT: &str = "SELECT handle, encrypted FROM username_links WHERE aci = $1";
const FIND_OWNER: &str = "SELECT aci FROM usernames WHERE hash = $1 AND owned AND aci IS NOT NULL";
const FIND_LINK: &str = "SELECT encrypted FROM username_links WHERE handle = $1";
const OF_ACCOUNT: &str = "SELECT hash, handle FROM usernames LEFT JOIN username_links USING (aci) \
    WHERE aci = $1 AND owned";
const HOLD_THE_OWNERLESS: &str = "UPDATE usernames SET owned = FALSE, held_until = $1 WHERE aci IS NULL AND owned";
// No time finer than a day is kept for longer than it is needed.
const END_RESERVATIONS: &str = "UPDATE usernames SET reserved_until = NULL WHERE NOT owned AND reserved_until <= $1";
const FREE: &str = "DELETE FROM usernames \
    WHERE NOT owned AND reserved_until IS NULL AND (held_until IS NULL OR held_until <= $1)";

#[cfg(test)]
mod tests {
    crate::storage::conformance::username_store_suite!(crate::storage::testing::postgres);
}
