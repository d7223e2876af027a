//! Linked devices on Postgres.
//!
//! Whoever changes an account or its set of devices locks the account's row first, as a registration does, and only then
//! looks: what it sees is what there is until it commits. Two links of one account thus wait for one another, and neither
//! passes the limit or takes an id twice.

use async_trait::async_trait;

use super::accounts::{drop_mailboxes, drop_spent, insert_device};
use super::{Database, retrying};
use crate::domain::{
    Aci, Actor, BlockChange, BlocksChanged, Capabilities, Day, DeviceId, DeviceLink, DeviceName, LinkOffer,
    LinkTokenHash, Linked, MailboxId, SecretVerifier, Timestamp,
};
use crate::storage::devices::{OPEN_OFFERS, refused};
use crate::storage::rows::{OfferRow, blocks, device_id};
use crate::storage::{DeviceStore, StorageError};

/// Devices in one database, shared by every node.
pub(super) struct PgDevices {
    database: Database,
}

impl PgDevices {
    pub(super) fn new(database: Database) -> Self {
        Self { database }
    }

    async fn try_offer(&self, offer: &LinkOffer, by: &Actor) -> Result<bool, StorageError> {
        let Some(mut tx) = self.database.begin_as(by).await? else {
            return Ok(false);
        };
        sqlx::query(MAKE_ROOM)
            .bind(offer.aci.as_uuid())
            .bind(i64::from(OPEN_OFFERS - 1))
            .execute(&mut *tx)
            .await?;
        sqlx::query(OFFER)
            .bind(offer.key.0.as_slice())
            .bind(offer.aci.as_uuid())
            .bind(offer.sealed_number.0.as_slice())
            .bind(offer.expires.0)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(true)
    }

    async fn try_link(&self, link: &DeviceLink, now: Timestamp) -> Result<Linked, StorageError> {
        let mut tx = self.database.begin().await?;
        sqlx::query(LOCK_ACCOUNT)
            .bind(link.aci.as_uuid())
            .execute(&mut *tx)
            .await?;
        let open: bool = sqlx::query_scalar(OFFER_IS_OPEN)
            .bind(link.offer.0.as_slice())
            .bind(link.aci.as_uuid())
            .bind(now.0)
            .fetch_one(&mut *tx)
            .await?;
        if !open {
            return Ok(Linked::NoOffer);
        }
        let taken: Vec<i16> = sqlx::query_scalar(TAKEN_IDS)
            .bind(link.aci.as_uuid())
            .fetch_all(&mut *tx)
            .await?;
        if let Some(refused) = refused(&taken, link) {
            return Ok(refused);
        }
        insert_device(&mut tx, link.aci, &link.device, &link.aci_keys, &link.pni_keys).await?;
        let taken_up = sqlx::query(TAKE_UP)
            .bind(link.offer.0.as_slice())
            .bind(i16::from(link.device.id.get()))
            .bind(link.remembered_until.0)
            .execute(&mut *tx)
            .await?;
        if taken_up.rows_affected() != 1 {
            // The sweeper, whose clock is ahead, does not wait for the account.
            return Ok(Linked::NoOffer);
        }
        tx.commit().await?;
        Ok(Linked::Done)
    }

    async fn try_remove(&self, device: DeviceId, by: &Actor) -> Result<Vec<MailboxId>, StorageError> {
        let Some(mut tx) = self.database.begin_as(by).await? else {
            return Ok(vec![]);
        };
        let dropped: Vec<i64> = sqlx::query_scalar(REMOVE)
            .bind(by.address.aci.as_uuid())
            .bind(i16::from(device.get()))
            .fetch_all(&mut *tx)
            .await?;
        if !dropped.is_empty() {
            drop_spent(&mut tx, by.address.aci, Some(device)).await?;
        }
        drop_mailboxes(&mut tx, &dropped).await?;
        tx.commit().await?;
        Ok(dropped.into_iter().map(MailboxId).collect())
    }

    async fn try_rename(&self, device: DeviceId, name: &DeviceName, by: &Actor) -> Result<bool, StorageError> {
        let Some(mut tx) = self.database.begin_as(by).await? else {
            return Ok(false);
        };
        let renamed = sqlx::query(RENAME)
            .bind(by.address.aci.as_uuid())
            .bind(i16::from(device.get()))
            .bind(name.as_bytes())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(renamed.rows_affected() == 1)
    }

    async fn try_set_lock(&self, lock: Option<&SecretVerifier>, by: &Actor) -> Result<bool, StorageError> {
        let Some(mut tx) = self.database.begin_as(by).await? else {
            return Ok(false);
        };
        sqlx::query(SET_LOCK)
            .bind(by.address.aci.as_uuid())
            .bind(lock.map(|lock| lock.salt.as_slice()))
            .bind(lock.map(|lock| lock.hash.as_slice()))
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(true)
    }

    async fn try_set_discoverable(&self, discoverable: bool, by: &Actor) -> Result<bool, StorageError> {
        let Some(mut tx) = self.database.begin_as(by).await? else {
            return Ok(false);
        };
        sqlx::query(SET_DISCOVERABLE)
            .bind(by.address.aci.as_uuid())
            .bind(discoverable)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(true)
    }

    async fn try_change_blocks(&self, change: BlockChange, by: &Actor) -> Result<BlocksChanged, StorageError> {
        // The account's row is held from here on.
        let Some(mut tx) = self.database.begin_as(by).await? else {
            return Ok(BlocksChanged::Gone);
        };
        let stored: Option<Vec<u8>> = sqlx::query_scalar(BLOCKS)
            .bind(by.address.aci.as_uuid())
            .fetch_one(&mut *tx)
            .await?;
        let Some(changed) = blocks(stored.as_deref())?.changed(&change) else {
            return Ok(BlocksChanged::TooMany);
        };
        sqlx::query(SET_BLOCKS)
            .bind(by.address.aci.as_uuid())
            .bind(changed.to_bytes())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(BlocksChanged::Done)
    }

    async fn try_remove_idle(&self, before: Day, limit: u32) -> Result<Vec<(Aci, MailboxId)>, StorageError> {
        let mut tx = self.database.begin().await?;
        let idle: Vec<(uuid::Uuid, i64)> = sqlx::query_as(IDLE)
            .bind(before.0)
            .bind(i64::from(limit))
            .fetch_all(&mut *tx)
            .await?;
        if idle.is_empty() {
            return Ok(vec![]);
        }
        let (accounts, mailboxes): (Vec<_>, Vec<_>) = idle.into_iter().unzip();
        sqlx::query(LOCK_ACCOUNTS).bind(accounts).execute(&mut *tx).await?;
        // Fewer than were found if some were seen or removed in the meantime.
        let removed: Vec<(uuid::Uuid, i16, i64)> = sqlx::query_as(REMOVE_IDLE)
            .bind(mailboxes)
            .bind(before.0)
            .fetch_all(&mut *tx)
            .await?;
        for (aci, device, _) in &removed {
            drop_spent(&mut tx, Aci::new(*aci), Some(device_id(*device)?)).await?;
        }
        let dropped: Vec<i64> = removed.iter().map(|(.., mailbox)| *mailbox).collect();
        drop_mailboxes(&mut tx, &dropped).await?;
        tx.commit().await?;
        Ok(removed
            .into_iter()
            .map(|(aci, _, mailbox)| (Aci::new(aci), MailboxId(mailbox)))
            .collect())
    }
}

#[async_trait]
impl DeviceStore for PgDevices {
    #[tracing::instrument(name = "db.devices.offer", level = "debug", skip_all)]
    async fn offer(&self, offer: &LinkOffer, by: &Actor) -> Result<bool, StorageError> {
        retrying!(self.try_offer(offer, by).await)
    }

    #[tracing::instrument(name = "db.devices.find_offer", level = "debug", skip_all)]
    async fn find_offer(&self, key: &LinkTokenHash, now: Timestamp) -> Result<Option<LinkOffer>, StorageError> {
        let row: Option<OfferRow> = sqlx::query_as(FIND_OFFER)
            .bind(key.0.as_slice())
            .bind(now.0)
            .fetch_optional(&self.database.pool)
            .await?;
        row.map(OfferRow::into_offer).transpose()
    }

    #[tracing::instrument(name = "db.devices.link", level = "debug", skip_all)]
    async fn link(&self, link: &DeviceLink, now: Timestamp) -> Result<Linked, StorageError> {
        retrying!(self.try_link(link, now).await)
    }

    #[tracing::instrument(name = "db.devices.linked_with", level = "debug", skip_all)]
    async fn linked_with(
        &self,
        key: &LinkTokenHash,
        aci: Aci,
        now: Timestamp,
    ) -> Result<Option<DeviceId>, StorageError> {
        let id: Option<i16> = sqlx::query_scalar(LINKED_WITH)
            .bind(key.0.as_slice())
            .bind(aci.as_uuid())
            .bind(now.0)
            .fetch_optional(&self.database.pool)
            .await?;
        id.map(device_id).transpose()
    }

    #[tracing::instrument(name = "db.devices.remove", level = "debug", skip_all)]
    async fn remove(&self, device: DeviceId, by: &Actor) -> Result<Vec<MailboxId>, StorageError> {
        retrying!(self.try_remove(device, by).await)
    }

    #[tracing::instrument(name = "db.devices.rename", level = "debug", skip_all)]
    async fn rename(&self, device: DeviceId, name: &DeviceName, by: &Actor) -> Result<bool, StorageError> {
        retrying!(self.try_rename(device, name, by).await)
    }

    #[tracing::instrument(name = "db.devices.set_capabilities", level = "debug", skip_all)]
    async fn set_capabilities(&self, capabilities: Capabilities, by: &Actor) -> Result<bool, StorageError> {
        let changed = sqlx::query(SET_CAPABILITIES)
            .bind(by.address.aci.as_uuid())
            .bind(i16::from(by.address.device_id.get()))
            .bind(by.mailbox.0)
            .bind(i64::from(capabilities.bits()))
            .execute(&self.database.pool)
            .await?;
        Ok(changed.rows_affected() == 1)
    }

    #[tracing::instrument(name = "db.devices.set_lock", level = "debug", skip_all)]
    async fn set_lock(&self, lock: Option<&SecretVerifier>, by: &Actor) -> Result<bool, StorageError> {
        retrying!(self.try_set_lock(lock, by).await)
    }

    #[tracing::instrument(name = "db.devices.set_discoverable", level = "debug", skip_all)]
    async fn set_discoverable(&self, discoverable: bool, by: &Actor) -> Result<bool, StorageError> {
        retrying!(self.try_set_discoverable(discoverable, by).await)
    }

    #[tracing::instrument(name = "db.devices.change_blocks", level = "debug", skip_all)]
    async fn change_blocks(&self, change: BlockChange, by: &Actor) -> Result<BlocksChanged, StorageError> {
        retrying!(self.try_change_blocks(change, by).await)
    }

    #[tracing::instrument(name = "db.devices.seen", level = "debug", skip_all)]
    async fn seen(&self, mailboxes: &[MailboxId], today: Day) -> Result<(), StorageError> {
        let ids: Vec<i64> = mailboxes.iter().map(|mailbox| mailbox.0).collect();
        let seen = async || -> Result<(), StorageError> {
            sqlx::query(SEEN)
                .bind(&ids)
                .bind(today.0)
                .execute(&self.database.pool)
                .await?;
            Ok(())
        };
        retrying!(seen().await)
    }

    #[tracing::instrument(name = "db.devices.suspended", level = "debug", skip_all)]
    async fn suspended(&self, mailboxes: &[MailboxId]) -> Result<Vec<MailboxId>, StorageError> {
        let asked: Vec<i64> = mailboxes.iter().map(|mailbox| mailbox.0).collect();
        let suspended: Vec<i64> = sqlx::query_scalar(SUSPENDED)
            .bind(asked)
            .fetch_all(&self.database.pool)
            .await?;
        Ok(suspended.into_iter().map(MailboxId).collect())
    }

    #[tracing::instrument(name = "db.devices.remove_idle", level = "debug", skip_all)]
    async fn remove_idle(&self, before: Day, limit: u32) -> Result<Vec<(Aci, MailboxId)>, StorageError> {
        retrying!(self.try_remove_idle(before, limit).await)
    }

    #[tracing::instrument(name = "db.devices.expire_offers", level = "debug", skip_all)]
    async fn expire_offers(&self, now: Timestamp) -> Result<u64, StorageError> {
        let expired = sqlx::query(EXPIRE_OFFERS)
            .bind(now.0)
            .execute(&self.database.pool)
            .await?;
        Ok(expired.rows_affected())
    }
}

const SUSPENDED: &str = "SELECT mailbox FROM accounts JOIN devices USING (aci) WHERE suspended AND mailbox = ANY($1)";
const LOCK_ACCOUNT: &str = "SELECT 1 FROM accounts WHERE aci = $1 FOR UPDATE";
const LOCK_ACCOUNTS: &str = "SELECT 1 FROM accounts WHERE aci = ANY($1) ORDER BY aci FOR UPDATE";
const MAKE_ROOM: &str = "DELETE FROM link_offers WHERE aci = $1 AND device_id IS NULL AND key NOT IN (\
    SELECT key FROM link_offers WHERE aci = $1 AND device_id IS NULL ORDER BY expires DESC LIMIT $2)";
const OFFER: &str = "INSERT INTO link_offers (key, aci, sealed_number, device_id, expires) \
    VALUES ($1, $2, $3, NULL, $4)";
const FIND_OFFER: &str = "SELECT key, aci, sealed_number, expires FROM link_offers \
    WHERE key = $1 AND expires > $2 AND device_id IS NULL";
const OFFER_IS_OPEN: &str = "SELECT EXISTS (SELECT 1 FROM link_offers \
    WHERE key = $1 AND aci = $2 AND expires > $3 AND device_id IS NULL)";
const TAKEN_IDS: &str = "SELECT device_id FROM devices WHERE aci = $1";
const TAKE_UP: &str = "UPDATE link_offers SET device_id = $2, expires = $3, sealed_number = NULL WHERE key = $1";
const LINKED_WITH: &str = "SELECT device_id FROM link_offers \
    WHERE key = $1 AND aci = $2 AND expires > $3 AND device_id IS NOT NULL";
const REMOVE: &str = "DELETE FROM devices WHERE aci = $1 AND device_id = $2 AND device_id > 1 RETURNING mailbox";
const RENAME: &str = "UPDATE devices SET name = $3 WHERE aci = $1 AND device_id = $2";
const SET_CAPABILITIES: &str = "UPDATE devices SET capabilities = $4 \
    WHERE aci = $1 AND device_id = $2 AND mailbox = $3";
const SET_LOCK: &str = "UPDATE accounts SET lock_salt = $2, lock_hash = $3 WHERE aci = $1";
const SET_DISCOVERABLE: &str = "UPDATE accounts SET discoverable = $2 WHERE aci = $1";
const BLOCKS: &str = "SELECT blocks FROM accounts WHERE aci = $1";
const SET_BLOCKS: &str = "UPDATE accounts SET blocks = $2 WHERE aci = $1";
const SEEN: &str = "UPDATE devices SET last_seen = $2 WHERE mailbox = ANY($1) AND last_seen < $2";
const IDLE: &str = "SELECT aci, mailbox FROM devices WHERE device_id > 1 AND last_seen < $1 \
    ORDER BY last_seen LIMIT $2";
const REMOVE_IDLE: &str =
    "DELETE FROM devices WHERE mailbox = ANY($1) AND last_seen < $2 RETURNING aci, device_id, mailbox";
const EXPIRE_OFFERS: &str = "DELETE FROM link_offers WHERE expires <= $1";

#[cfg(test)]
mod tests {
    crate::storage::conformance::device_store_suite!(crate::storage::testing::postgres);
}
