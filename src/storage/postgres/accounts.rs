//! Accounts, devices and verification sessions on Postgres.
//!
//! Whoever removes devices also removes their mailboxes and envelopes, in the same transaction, and says which mailboxes
//! are gone. Keys go with their device. Rows are locked in one order everywhere, account, devices, mailboxes by id, so
//! that transactions wait for one another and rarely deadlock; the few that do are tried again.

use async_trait::async_trait;
use keys_schema::EcPublicKey;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{PgConnection, PgPool, Postgres};

use super::keys::publish;
use super::{Database, retrying};
use crate::domain::{
    Account, Aci, Actor, Attempt, AttributesUpdate, Avatar, CodeHash, Day, Device, DeviceId, Done, Erased,
    IdentityKind, KeyUpload, LockUpdate, MAX_ATTEMPTS, MAX_CODES, MailboxId, NumberHash, Pni, ProtocolAddress,
    Registered, Registration, SecretVerifier, ServiceId, SessionKey, SignedKeys, Timestamp, VerificationSession,
};
use crate::storage::gather::Gather;
use crate::storage::rows::{self, CheckedRow, SessionRow};
use crate::storage::{AccountStore, StorageError};

/// Accounts in one database, shared by every node.
pub(super) struct PgAccounts {
    database: Database,
    found: Gather<ServiceId, Account>,
}

impl PgAccounts {
    pub(super) fn new(database: Database) -> Self {
        let pool = database.pool.clone();
        let found = Gather::new(move |ids: Vec<ServiceId>| {
            let pool = pool.clone();
            Box::pin(async move {
                match ids.as_slice() {
                    [id] => Ok(vec![find(&pool, id).await?]),
                    _ => Ok(rows::in_order(&ids, find_all(&pool, &ids).await?)),
                }
            })
        });
        Self { database, found }
    }

    async fn try_register(&self, registration: &Registration, now: Timestamp) -> Result<Registered, StorageError> {
        let mut tx = self.database.begin().await?;
        // Waits for another registration with the same session to end.
        if !use_session(&mut tx, registration, now).await? {
            return Ok(Registered::NotVerified);
        }
        let registered = if registration.replaces.is_none() {
            // Waits for another registration of the same number to end.
            if !insert_account(&mut tx, registration).await? {
                return Ok(Registered::Changed);
            }
            Registered::New
        } else {
            sqlx::query(LOCK_NUMBER)
                .bind(registration.number.0.as_slice())
                .execute(&mut *tx)
                .await?;
            // A statement of its own: it sees what was committed while the lock was waited for.
            let known: Option<CheckedRow> = sqlx::query_as(FIND_CHECKED)
                .bind(registration.number.0.as_slice())
                .fetch_optional(&mut *tx)
                .await?;
            let Some(known) = known.filter(|known| known.is_replaced_by(registration)) else {
                return Ok(Registered::Changed);
            };
            let dropped = drop_devices(&mut tx, registration.aci).await?;
            let avatars = restart_account(&mut tx, registration).await?;
            Registered::Again {
                pni: Pni::new(known.pni),
                dropped,
                avatars,
            }
        };
        insert_device(
            &mut tx,
            registration.aci,
            &registration.device,
            &registration.aci_keys,
            &registration.pni_keys,
        )
        .await?;
        tx.commit().await?;
        Ok(registered)
    }

    async fn try_update(&self, by: &Actor, update: &AttributesUpdate) -> Result<bool, StorageError> {
        let Some(mut tx) = self.database.begin_as(by).await? else {
            return Ok(false);
        };
        sqlx::query(UPDATE_ACCOUNT)
            .bind(by.address.aci.as_uuid())
            .bind(update.access.sealed_key.as_ref().map(|sealed| sealed.0.as_slice()))
            .bind(update.access.unrestricted)
            .bind(update.discoverable)
            .bind(update.recovery.as_ref().map(|recovery| recovery.salt.as_slice()))
            .bind(update.recovery.as_ref().map(|recovery| recovery.hash.as_slice()))
            .bind(matches!(update.lock, LockUpdate::Keep))
            .bind(lock(&update.lock).map(|lock| lock.salt.as_slice()))
            .bind(lock(&update.lock).map(|lock| lock.hash.as_slice()))
            .execute(&mut *tx)
            .await?;
        let updated = sqlx::query(UPDATE_DEVICE)
            .bind(by.address.aci.as_uuid())
            .bind(i16::from(by.address.device_id.get()))
            .bind(by.mailbox.0)
            .bind(update.name.as_ref().map(|name| name.as_bytes()))
            .bind(update.fetches_messages)
            .bind(i64::from(update.capabilities.bits()))
            .execute(&mut *tx)
            .await?;
        if updated.rows_affected() == 0 {
            return Ok(false);
        }
        tx.commit().await?;
        Ok(true)
    }

    async fn try_delete(&self, by: &Actor) -> Result<Erased, StorageError> {
        let Some(mut tx) = self.database.begin_as(by).await? else {
            return Ok(Erased::default());
        };
        let erased = erase(&mut tx, by.address.aci).await?;
        tx.commit().await?;
        Ok(erased)
    }
}

async fn find(pool: &PgPool, id: &ServiceId) -> Result<Option<Account>, StorageError> {
    let statement = if id.is_pni() { FIND_BY_PNI } else { FIND_BY_ACI };
    let rows: Vec<PgRow> = sqlx::query(statement).bind(id.as_uuid()).fetch_all(pool).await?;
    rows::account(&rows)
}

async fn find_all(pool: &PgPool, ids: &[ServiceId]) -> Result<Vec<Account>, StorageError> {
    let (pnis, acis): (Vec<_>, Vec<_>) = ids.iter().partition(|id| id.is_pni());
    let uuids = |ids: Vec<&ServiceId>| ids.into_iter().map(|id| *id.as_uuid()).collect::<Vec<_>>();
    let rows: Vec<PgRow> = sqlx::query(FIND_ALL)
        .bind(uuids(acis))
        .bind(uuids(pnis))
        .fetch_all(pool)
        .await?;
    rows::accounts(&rows)
}

#[async_trait]
impl AccountStore for PgAccounts {
    #[tracing::instrument(name = "db.accounts.ping", level = "debug", skip_all)]
    async fn ping(&self) -> Result<(), StorageError> {
        sqlx::query(PING).fetch_optional(&self.database.pool).await?;
        Ok(())
    }

    async fn close(&self) {
        self.database.pool.close().await;
    }

    #[tracing::instrument(name = "db.accounts.pin_pepper", level = "debug", skip_all)]
    async fn pin_pepper(&self, check: [u8; 32]) -> Result<bool, StorageError> {
        let mut tx = self.database.begin().await?;
        sqlx::query(PIN_PEPPER).bind(check.as_slice()).execute(&mut *tx).await?;
        let pinned: Vec<u8> = sqlx::query_scalar(PINNED_PEPPER).fetch_one(&mut *tx).await?;
        tx.commit().await?;
        Ok(pinned == check)
    }

    #[tracing::instrument(name = "db.accounts.trust_root", level = "debug", skip_all)]
    async fn trust_root(&self) -> Result<Option<EcPublicKey>, StorageError> {
        let pinned: Option<Vec<u8>> = sqlx::query_scalar(PINNED_TRUST_ROOT)
            .fetch_optional(&self.database.pool)
            .await?;
        pinned.map(|key| rows::trust_root(&key)).transpose()
    }

    #[tracing::instrument(name = "db.accounts.pin_trust_root", level = "debug", skip_all)]
    async fn pin_trust_root(&self, key: &EcPublicKey) -> Result<bool, StorageError> {
        let mut tx = self.database.begin().await?;
        sqlx::query(PIN_TRUST_ROOT)
            .bind(key.serialized())
            .execute(&mut *tx)
            .await?;
        let pinned: Vec<u8> = sqlx::query_scalar(PINNED_TRUST_ROOT).fetch_one(&mut *tx).await?;
        tx.commit().await?;
        Ok(pinned == key.serialized())
    }

    #[tracing::instrument(name = "db.accounts.register", level = "debug", skip_all)]
    async fn register(&self, registration: &Registration, now: Timestamp) -> Result<Registered, StorageError> {
        retrying!(self.try_register(registration, now).await)
    }

    #[tracing::instrument(name = "db.accounts.find", level = "debug", skip_all)]
    async fn find(&self, id: &ServiceId) -> Result<Option<Account>, StorageError> {
        self.found.read(*id).await
    }

    #[tracing::instrument(name = "db.accounts.find_all", level = "debug", skip_all)]
    async fn find_all(&self, ids: &[ServiceId]) -> Result<Vec<Account>, StorageError> {
        find_all(&self.database.pool, ids).await
    }

    #[tracing::instrument(name = "db.accounts.find_by_number", level = "debug", skip_all)]
    async fn find_by_number(&self, number: &NumberHash) -> Result<Option<Aci>, StorageError> {
        let found: Option<(uuid::Uuid, uuid::Uuid)> = sqlx::query_as(FIND_NUMBER)
            .bind(number.0.as_slice())
            .fetch_optional(&self.database.pool)
            .await?;
        Ok(found.map(|(aci, _)| Aci::new(aci)))
    }

    #[tracing::instrument(name = "db.accounts.update_attributes", level = "debug", skip_all)]
    async fn update_attributes(&self, by: &Actor, update: &AttributesUpdate) -> Result<bool, StorageError> {
        retrying!(self.try_update(by, update).await)
    }

    #[tracing::instrument(name = "db.accounts.touch", level = "debug", skip_all)]
    async fn touch(&self, address: ProtocolAddress, today: Day) -> Result<(), StorageError> {
        sqlx::query(TOUCH)
            .bind(address.aci.as_uuid())
            .bind(i16::from(address.device_id.get()))
            .bind(today.0)
            .execute(&self.database.pool)
            .await?;
        Ok(())
    }

    #[tracing::instrument(name = "db.accounts.delete", level = "debug", skip_all)]
    async fn delete(&self, by: &Actor) -> Result<Erased, StorageError> {
        retrying!(self.try_delete(by).await)
    }

    #[tracing::instrument(name = "db.sessions.open", level = "debug", skip_all)]
    async fn open_session(&self, session: &VerificationSession) -> Result<(), StorageError> {
        sqlx::query(OPEN_SESSION)
            .bind(session.key.0.as_slice())
            .bind(session.number.0.as_slice())
            .bind(session.sealed_number.0.as_slice())
            .bind(session.verified)
            .bind(i32::from(session.attempts))
            .bind(session.expires.0)
            .execute(&self.database.pool)
            .await?;
        Ok(())
    }

    #[tracing::instrument(name = "db.sessions.find", level = "debug", skip_all)]
    async fn find_session(
        &self,
        key: &SessionKey,
        now: Timestamp,
    ) -> Result<Option<VerificationSession>, StorageError> {
        let row: Option<SessionRow> = sqlx::query_as(FIND_SESSION)
            .bind(key.0.as_slice())
            .bind(now.0)
            .fetch_optional(&self.database.pool)
            .await?;
        row.map(SessionRow::into_session).transpose()
    }

    #[tracing::instrument(name = "db.sessions.try", level = "debug", skip_all)]
    async fn try_session(
        &self,
        key: &SessionKey,
        attempt: &Attempt,
        now: Timestamp,
    ) -> Result<Option<Done>, StorageError> {
        let (right, code) = match attempt {
            Attempt::Judged(right) => (*right, None),
            Attempt::Code(code) => (false, Some(code.0.as_slice())),
        };
        let mut tx = self.database.begin().await?;
        let tried: Option<SessionRow> = sqlx::query_as(TRY_SESSION)
            .bind(key.0.as_slice())
            .bind(now.0)
            .bind(i32::from(MAX_ATTEMPTS))
            .bind(right)
            .bind(code)
            .fetch_optional(&mut *tx)
            .await?;
        let done = done(&mut tx, key, tried, now).await?;
        tx.commit().await?;
        Ok(done)
    }

    #[tracing::instrument(name = "db.sessions.send", level = "debug", skip_all)]
    async fn send_code(
        &self,
        key: &SessionKey,
        code: &CodeHash,
        next: Timestamp,
        now: Timestamp,
    ) -> Result<Option<Done>, StorageError> {
        let mut tx = self.database.begin().await?;
        let sent: Option<SessionRow> = sqlx::query_as(SEND_CODE)
            .bind(key.0.as_slice())
            .bind(now.0)
            .bind(i32::from(MAX_ATTEMPTS))
            .bind(i32::from(MAX_CODES))
            .bind(code.0.as_slice())
            .bind(next.0)
            .fetch_optional(&mut *tx)
            .await?;
        let done = done(&mut tx, key, sent, now).await?;
        tx.commit().await?;
        Ok(done)
    }

    #[tracing::instrument(name = "db.sessions.worked", level = "debug", skip_all)]
    async fn session_worked(
        &self,
        key: &SessionKey,
        now: Timestamp,
    ) -> Result<Option<VerificationSession>, StorageError> {
        let row: Option<SessionRow> = sqlx::query_as(SESSION_WORKED)
            .bind(key.0.as_slice())
            .bind(now.0)
            .fetch_optional(&self.database.pool)
            .await?;
        row.map(SessionRow::into_session).transpose()
    }

    #[tracing::instrument(name = "db.sessions.expire", level = "debug", skip_all)]
    async fn expire_sessions(&self, now: Timestamp) -> Result<u64, StorageError> {
        let expired = sqlx::query(EXPIRE_SESSIONS)
            .bind(now.0)
            .execute(&self.database.pool)
            .await?;
        Ok(expired.rows_affected())
    }
}

/// What became of the session: the row that was changed, or the row as it is because it was not changed.
pub(super) async fn done(
    db: &mut PgConnection,
    key: &SessionKey,
    changed: Option<SessionRow>,
    now: Timestamp,
) -> Result<Option<Done>, StorageError> {
    let counted = changed.is_some();
    let row = match changed {
        Some(row) => Some(row),
        None => {
            sqlx::query_as(FIND_SESSION)
                .bind(key.0.as_slice())
                .bind(now.0)
                .fetch_optional(db)
                .await?
        }
    };
    let session = row.map(SessionRow::into_session).transpose()?;
    Ok(session.map(|session| Done { counted, session }))
}

/// Removes the account with all that names it.
pub(super) async fn erase(db: &mut PgConnection, aci: Aci) -> Result<Erased, StorageError> {
    sqlx::query(DELETE_SESSIONS)
        .bind(aci.as_uuid())
        .execute(&mut *db)
        .await?;
    let avatars = drop_profiles(&mut *db, aci).await?;
    let mailboxes = drop_devices(&mut *db, aci).await?;
    sqlx::query(DELETE_ACCOUNT).bind(aci.as_uuid()).execute(db).await?;
    Ok(Erased { mailboxes, avatars })
}

/// Uses the session up that proves the number; `false` if it does not, or not any more.
async fn use_session(db: &mut PgConnection, registration: &Registration, now: Timestamp) -> Result<bool, StorageError> {
    let Some(key) = &registration.session else {
        return Ok(true);
    };
    let used = sqlx::query(USE_SESSION)
        .bind(key.0.as_slice())
        .bind(registration.number.0.as_slice())
        .bind(now.0)
        .execute(db)
        .await?;
    Ok(used.rows_affected() == 1)
}

/// `false` if the number, or an id, is taken.
async fn insert_account(db: &mut PgConnection, registration: &Registration) -> Result<bool, StorageError> {
    let inserted = with_account(sqlx::query(INSERT_ACCOUNT), registration)
        .bind(registration.pni.as_uuid())
        .bind(registration.number.0.as_slice())
        .execute(db)
        .await?;
    Ok(inserted.rows_affected() == 1)
}

/// Returns the pictures of the profiles, which start over, too.
async fn restart_account(db: &mut PgConnection, registration: &Registration) -> Result<Vec<Avatar>, StorageError> {
    with_account(sqlx::query(RESTART_ACCOUNT), registration)
        .execute(&mut *db)
        .await?;
    sqlx::query(WITHDRAW_OFFERS)
        .bind(registration.aci.as_uuid())
        .execute(&mut *db)
        .await?;
    drop_profiles(db, registration.aci).await
}

/// Drops the versions of the account's profile, and returns the pictures that they had.
async fn drop_profiles(db: &mut PgConnection, aci: Aci) -> Result<Vec<Avatar>, StorageError> {
    let avatars: Vec<Option<String>> = sqlx::query_scalar(DELETE_PROFILES)
        .bind(aci.as_uuid())
        .fetch_all(db)
        .await?;
    Ok(avatars.into_iter().flatten().map(Avatar).collect())
}

/// Binds $1 to $10, which the two statements have in common.
fn with_account<'q>(statement: AccountQuery<'q>, registration: &'q Registration) -> AccountQuery<'q> {
    statement
        .bind(registration.aci.as_uuid())
        .bind(registration.aci_identity.serialized())
        .bind(registration.pni_identity.serialized())
        .bind(
            registration
                .access
                .sealed_key
                .as_ref()
                .map(|sealed| sealed.0.as_slice()),
        )
        .bind(registration.access.unrestricted)
        .bind(registration.discoverable)
        .bind(registration.recovery.as_ref().map(|recovery| recovery.salt.as_slice()))
        .bind(registration.recovery.as_ref().map(|recovery| recovery.hash.as_slice()))
        .bind(registration.lock.as_ref().map(|lock| lock.salt.as_slice()))
        .bind(registration.lock.as_ref().map(|lock| lock.hash.as_slice()))
}

type AccountQuery<'q> = sqlx::query::Query<'q, Postgres, PgArguments>;

/// A device with its mailbox and its keys.
pub(super) async fn insert_device(
    db: &mut PgConnection,
    aci: Aci,
    device: &Device,
    aci_keys: &SignedKeys,
    pni_keys: &SignedKeys,
) -> Result<(), StorageError> {
    sqlx::query(INSERT_MAILBOX)
        .bind(device.mailbox.0)
        .bind(device.queue_key.as_bytes().as_slice())
        .execute(&mut *db)
        .await?;
    sqlx::query(INSERT_DEVICE)
        .bind(aci.as_uuid())
        .bind(i16::from(device.id.get()))
        .bind(device.mailbox.0)
        .bind(i32::from(device.registration_id.get()))
        .bind(i32::from(device.pni_registration_id.get()))
        .bind(device.name.as_ref().map(|name| name.as_bytes()))
        .bind(device.credential.salt.as_slice())
        .bind(device.credential.hash.as_slice())
        .bind(device.sealed_number.0.as_slice())
        .bind(device.fetches_messages)
        .bind(i64::from(device.capabilities.bits()))
        .bind(device.last_seen.0)
        .bind(device.created_at.as_ref().map(|sealed| sealed.0.as_slice()))
        .execute(&mut *db)
        .await?;
    let address = ProtocolAddress {
        aci,
        device_id: device.id,
    };
    publish(db, address, IdentityKind::Aci, &upload(aci_keys)).await?;
    publish(db, address, IdentityKind::Pni, &upload(pni_keys)).await
}

fn lock(update: &LockUpdate) -> Option<&SecretVerifier> {
    match update {
        LockUpdate::Keep => None,
        LockUpdate::Set(lock) => lock.as_ref(),
    }
}

fn upload(keys: &SignedKeys) -> KeyUpload {
    let SignedKeys { signed, last_resort } = keys.clone();
    KeyUpload {
        signed: Some(signed),
        last_resort: Some(last_resort),
        ..KeyUpload::default()
    }
}

async fn drop_devices(db: &mut PgConnection, aci: Aci) -> Result<Vec<MailboxId>, StorageError> {
    let dropped: Vec<i64> = sqlx::query_scalar(DELETE_DEVICES)
        .bind(aci.as_uuid())
        .fetch_all(&mut *db)
        .await?;
    drop_mailboxes(db, &dropped).await?;
    drop_spent(db, aci, None).await?;
    Ok(dropped.into_iter().map(MailboxId).collect())
}

/// Drops the ids of keys that were handed out, of one or all devices of an account that were just deleted.
pub(super) async fn drop_spent(db: &mut PgConnection, aci: Aci, device: Option<DeviceId>) -> Result<(), StorageError> {
    // Its own statement, after the other: only now are those visible that were handed out until just now.
    sqlx::query(DELETE_SPENT)
        .bind(aci.as_uuid())
        .bind(device.map(|device| i16::from(device.get())))
        .execute(db)
        .await?;
    Ok(())
}

/// Drops the queues of devices that were just deleted.
pub(super) async fn drop_mailboxes(db: &mut PgConnection, dropped: &[i64]) -> Result<(), StorageError> {
    sqlx::query(DELETE_MAILBOXES).bind(dropped).execute(&mut *db).await?;
    // Its own statement, after the other: only now are the envelopes visible of a batch that held a mailbox until just
    // now, and no further batch can find the mailbox.
    sqlx::query(DELETE_ENVELOPES).bind(dropped).execute(db).await?;
    Ok(())
}

/// What is read of a verification session.
macro_rules! session_columns {
    () => {
        "key, number_hash, sealed_number, verified, attempts, expires, \
         code_hash IS NOT NULL AS has_code, codes_sent, next_code, worked, new_only"
    };
}
pub(super) use session_columns;

const PING: &str = "SELECT name FROM settings LIMIT 1";
const PIN_PEPPER: &str = "INSERT INTO settings (name, value) VALUES ('pepper_check', $1) ON CONFLICT DO NOTHING";
const PIN_TRUST_ROOT: &str = "INSERT INTO settings (name, value) VALUES ('trust_root', $1) ON CONFLICT DO NOTHING";
const PINNED_TRUST_ROOT: &str = "SELECT value FROM settings WHERE name = 'trust_root'";
const PINNED_PEPPER: &str = "SELECT value FROM settings WHERE name = 'pepper_check'";
const FIND_NUMBER: &str = "SELECT aci, pni FROM accounts WHERE number_hash = $1";
const INSERT_ACCOUNT: &str = "INSERT INTO accounts (aci, aci_identity, pni_identity, access_key, \
        unrestricted, discoverable, recovery_salt, recovery_hash, lock_salt, lock_hash, pni, number_hash) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT DO NOTHING";
const LOCK_NUMBER: &str = "SELECT 1 FROM accounts WHERE number_hash = $1 FOR UPDATE";
const FIND_CHECKED: &str = "SELECT aci, pni, mailbox, capabilities, recovery_salt, lock_salt, suspended \
    FROM accounts JOIN devices USING (aci) WHERE number_hash = $1 AND device_id = 1";
// The number stays, and with it the PNI. Whom the account has blocked nobody can be told, so that must not outlive who did it.
const RESTART_ACCOUNT: &str = "UPDATE accounts SET aci_identity = $2, pni_identity = $3, access_key = $4, \
        unrestricted = $5, discoverable = $6, recovery_salt = $7, recovery_hash = $8, lock_salt = $9, lock_hash = $10, \
        blocks = NULL \
    WHERE aci = $1";
const DELETE_PROFILES: &str = "DELETE FROM profiles WHERE aci = $1 RETURNING avatar";
const INSERT_MAILBOX: &str =
    "INSERT INTO mailboxes (id, last_seq, envelopes, bytes, queue_key) VALUES ($1, 0, 0, 0, $2)";
const INSERT_DEVICE: &str = "INSERT INTO devices (aci, device_id, mailbox, registration_id, pni_registration_id, name, \
        credential_salt, credential_hash, sealed_number, fetches_messages, capabilities, last_seen, created_at) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
const FIND_BY_ACI: &str =
    "SELECT * FROM accounts JOIN devices USING (aci) JOIN mailboxes ON id = mailbox WHERE aci = $1 ORDER BY device_id";
const FIND_BY_PNI: &str =
    "SELECT * FROM accounts JOIN devices USING (aci) JOIN mailboxes ON id = mailbox WHERE pni = $1 ORDER BY device_id";
const FIND_ALL: &str = "SELECT * FROM accounts JOIN devices USING (aci) JOIN mailboxes ON id = mailbox \
    WHERE aci = ANY($1) OR pni = ANY($2) ORDER BY aci, device_id";
const UPDATE_DEVICE: &str = "UPDATE devices SET name = $4, fetches_messages = $5, capabilities = $6 \
    WHERE aci = $1 AND device_id = $2 AND mailbox = $3";
const UPDATE_ACCOUNT: &str = "UPDATE accounts SET access_key = $2, unrestricted = $3, discoverable = $4, \
        recovery_salt = coalesce($5, recovery_salt), recovery_hash = coalesce($6, recovery_hash), \
        lock_salt = CASE WHEN $7 THEN lock_salt ELSE $8 END, lock_hash = CASE WHEN $7 THEN lock_hash ELSE $9 END \
    WHERE aci = $1";
// A clock that is behind takes nothing back, and a second time the same day writes nothing.
const TOUCH: &str = "UPDATE devices SET last_seen = $3 WHERE aci = $1 AND device_id = $2 AND last_seen < $3";
const DELETE_DEVICES: &str = "DELETE FROM devices WHERE aci = $1 RETURNING mailbox";
const DELETE_MAILBOXES: &str = "DELETE FROM mailboxes WHERE id IN (\
    SELECT id FROM mailboxes WHERE id = ANY($1) ORDER BY id FOR UPDATE)";
const DELETE_ENVELOPES: &str = "DELETE FROM envelopes WHERE mailbox = ANY($1)";
const DELETE_SPENT: &str = "DELETE FROM spent_keys WHERE aci = $1 AND ($2 IS NULL OR device_id = $2)";
const WITHDRAW_OFFERS: &str = "DELETE FROM link_offers WHERE aci = $1";
const DELETE_ACCOUNT: &str = "DELETE FROM accounts WHERE aci = $1";
// A session that somebody else has hold of is being used up, by whoever waits for the account.
const DELETE_SESSIONS: &str = "DELETE FROM verification_sessions WHERE key IN (\
    SELECT key FROM verification_sessions WHERE number_hash = (SELECT number_hash FROM accounts WHERE aci = $1) \
    ORDER BY key FOR UPDATE SKIP LOCKED)";
const OPEN_SESSION: &str = "INSERT INTO verification_sessions \
        (key, number_hash, sealed_number, verified, attempts, expires) \
    VALUES ($1, $2, $3, $4, $5, $6)";
const FIND_SESSION: &str = concat!(
    "SELECT ",
    session_columns!(),
    " FROM verification_sessions WHERE key = $1 AND expires > $2"
);
// Whoever comes while another tries waits for the row, and then finds a session that is verified, or has no tries left.
const TRY_SESSION: &str = concat!(
    "UPDATE verification_sessions SET attempts = attempts + 1, \
        verified = $4 OR coalesce(code_hash = $5, FALSE), \
        code_hash = CASE WHEN $4 OR coalesce(code_hash = $5, FALSE) OR attempts + 1 >= $3 THEN NULL ELSE code_hash END \
    WHERE key = $1 AND expires > $2 AND NOT verified AND attempts < $3 \
    RETURNING ",
    session_columns!()
);
const SEND_CODE: &str = concat!(
    "UPDATE verification_sessions SET code_hash = $5, codes_sent = codes_sent + 1, next_code = $6 \
    WHERE key = $1 AND expires > $2 AND NOT verified AND attempts < $3 AND codes_sent < $4 \
        AND (next_code IS NULL OR next_code <= $2) \
    RETURNING ",
    session_columns!()
);
const SESSION_WORKED: &str = concat!(
    "UPDATE verification_sessions SET worked = TRUE WHERE key = $1 AND expires > $2 \
    RETURNING ",
    session_columns!()
);
const USE_SESSION: &str = "DELETE FROM verification_sessions \
    WHERE key = $1 AND number_hash = $2 AND verified AND expires > $3";
const EXPIRE_SESSIONS: &str = "DELETE FROM verification_sessions WHERE expires <= $1";

#[cfg(test)]
mod tests {
    crate::storage::conformance::account_store_suite!(crate::storage::testing::postgres);
}
