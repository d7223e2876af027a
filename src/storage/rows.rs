//! Rows as both databases return them, and the way from a row to a type of the domain.
//!
//! The columns have the same names on both sides, so one list of fields reads both. A value that does not convert was
//! not written by this server: the error names its column and never the value.

use std::collections::HashMap;

use keys_schema::sealed_queue::{Bucket, QueuePublicKey};
use keys_schema::{
    Aci, DecodeError, EcPreKey, EcPublicKey, IdentityKey, KeyId, KyberPreKey, KyberPublicKey, Pni, Signature,
    SignedEcPreKey,
};
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{ColumnIndex, Decode, FromRow, Row, Type};
use uuid::Uuid;

use super::StorageError;
use crate::domain::{
    Account, AccountGlance, AdminEntry, Allowance, Attachment, AttachmentName, Avatar, Blocks, Capabilities, ChainEnd,
    ChainEnds, CreatedAt, Day, Device, DeviceId, DeviceName, IdentityKind, Invite, InviteId, KyberSource, LinkOffer,
    LinkTokenHash, Mailbox, MailboxId, NumberHash, PreKeyBundle, Profile, Registration, RegistrationId, Sealed,
    SealedEnvelope, SecretVerifier, Segment, Seq, ServiceId, SessionKey, SignedKeys, Stock, Stored, Sums, Timestamp,
    TokenKey, TokenSession, TokenSessionId, UnidentifiedAccess, VerificationSession,
};

macro_rules! rows {
    ($($name:ident { $($field:ident: $type:ty),+ $(,)? })+) => {$(
        pub(super) struct $name { $(pub(super) $field: $type),+ }

        impl FromRow<'_, SqliteRow> for $name {
            fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
                Ok(Self { $($field: row.try_get(stringify!($field))?),+ })
            }
        }

        impl FromRow<'_, PgRow> for $name {
            fn from_row(row: &PgRow) -> sqlx::Result<Self> {
                Ok(Self { $($field: row.try_get(stringify!($field))?),+ })
            }
        }
    )+};
}

rows! {
    AccountRow {
        aci: Uuid,
        pni: Uuid,
        aci_identity: Vec<u8>,
        pni_identity: Vec<u8>,
        access_key: Option<Vec<u8>>,
        unrestricted: bool,
        discoverable: bool,
        recovery_salt: Option<Vec<u8>>,
        recovery_hash: Option<Vec<u8>>,
        lock_salt: Option<Vec<u8>>,
        lock_hash: Option<Vec<u8>>,
        blocks: Option<Vec<u8>>,
        suspended: bool,
    }
    DeviceRow {
        device_id: i16,
        mailbox: i64,
        queue_key: Vec<u8>,
        registration_id: i32,
        pni_registration_id: i32,
        name: Option<Vec<u8>>,
        credential_salt: Vec<u8>,
        credential_hash: Vec<u8>,
        sealed_number: Vec<u8>,
        fetches_messages: bool,
        capabilities: i64,
        last_seen: i32,
        created_at: Option<Vec<u8>>,
    }
    MailboxRow {
        id: i64,
        last_seq: i64,
        queue_key: Vec<u8>,
        interim_key: Option<Vec<u8>>,
    }
    StoredRow {
        seq: i64,
        bucket: i16,
        sealed: Vec<u8>,
    }
    CheckedRow {
        aci: Uuid,
        pni: Uuid,
        mailbox: i64,
        capabilities: i64,
        recovery_salt: Option<Vec<u8>>,
        lock_salt: Option<Vec<u8>>,
        suspended: bool,
    }
    TokenSessionRow {
        id: Uuid,
        mailbox: i64,
        device_id: i16,
        created: i32,
        expires: i32,
    }
    TokenKeyRow {
        public: Vec<u8>,
        sealed: Vec<u8>,
        created: i64,
        until: Option<i64>,
    }
    OfferRow {
        key: Vec<u8>,
        aci: Uuid,
        sealed_number: Vec<u8>,
        expires: i64,
    }
    SessionRow {
        key: Vec<u8>,
        number_hash: Vec<u8>,
        sealed_number: Vec<u8>,
        verified: bool,
        attempts: i32,
        expires: i64,
        has_code: bool,
        codes_sent: i32,
        next_code: Option<i64>,
        worked: bool,
        new_only: bool,
    }
    InviteRow {
        id: Uuid,
        uses_left: i32,
        recovers: bool,
        expires: i32,
        created: i32,
    }
    SignedRow {
        signed_id: Option<i64>,
        signed_key: Option<Vec<u8>>,
        signed_signature: Option<Vec<u8>>,
        last_resort_id: Option<i64>,
        last_resort_key: Option<Vec<u8>>,
        last_resort_signature: Option<Vec<u8>>,
    }
    AddressedRow {
        identity: Vec<u8>,
        device_id: i16,
        registration_id: i32,
    }
    ProfileRow {
        commitment: Vec<u8>,
        name: Vec<u8>,
        about: Option<Vec<u8>>,
        about_emoji: Option<Vec<u8>>,
        payment_address: Option<Vec<u8>>,
        phone_number_sharing: Option<Vec<u8>>,
        avatar: Option<String>,
    }
    UploadRow {
        state: i16,
        length: Option<i64>,
        stored: i64,
        charged: i64,
        turn: i64,
        drop_at: Option<i64>,
        expires: Option<i32>,
    }
    SpentRow {
        kyber: bool,
        key_id: i64,
        tail: Vec<u8>,
    }
    GlanceRow {
        suspended: bool,
        devices: i64,
        last_seen: i32,
    }
    AdminEntryRow {
        seq: i64,
        minute: i64,
        act: i64,
        outcome: i64,
        target: Option<Vec<u8>>,
        uid: i64,
        hash: Vec<u8>,
    }
    EcRow {
        key_id: i64,
        key: Vec<u8>,
    }
    KyberRow {
        key_id: i64,
        key: Vec<u8>,
        signature: Vec<u8>,
    }
}

impl GlanceRow {
    pub(super) fn into_glance(self) -> AccountGlance {
        AccountGlance {
            suspended: self.suspended,
            devices: u32::try_from(self.devices).unwrap_or(u32::MAX),
            last_seen: Day(self.last_seen),
        }
    }
}

impl AdminEntryRow {
    pub(super) fn into_entry(self) -> AdminEntry {
        AdminEntry {
            seq: self.seq,
            minute: self.minute,
            act: self.act,
            outcome: self.outcome,
            target: self.target,
            uid: self.uid,
            hash: self.hash,
        }
    }
}

/// Where the chain of the operator's log begins and ends, as `settings` holds it.
pub(super) fn chain_ends(stored: Option<&[u8]>) -> Result<ChainEnds, StorageError> {
    match stored {
        None => Ok(ChainEnds::EMPTY),
        Some(bytes) => ChainEnds::from_bytes(bytes).ok_or(corrupt("settings", "value")),
    }
}

/// The last of the oldest entries that are all from before that minute.
pub(super) fn last_before(oldest: &[AdminEntryRow], before: i64) -> Option<ChainEnd> {
    let last = oldest.iter().take_while(|entry| entry.minute < before).last()?;
    // One that was tampered with stays, so that it is found.
    let hash = last.hash.as_slice().try_into().ok()?;
    Some(ChainEnd { seq: last.seq, hash })
}

/// Accounts, suspended ones, devices, EC keys, Kyber keys and bytes, with envelopes by their bucket.
pub(super) fn sums(counts: [i64; 6], queued: Vec<(i64, i64)>) -> Sums {
    let [accounts, suspended, devices, ec_keys, kyber_keys, database_bytes] =
        counts.map(|count| u64::try_from(count).unwrap_or(0));
    let sum = |(bucket, rows)| Some((u32::try_from(bucket).ok()?, u64::try_from(rows).ok()?));
    Sums {
        accounts,
        suspended,
        devices,
        queued: queued.into_iter().filter_map(sum).collect(),
        ec_keys,
        kyber_keys,
        database_bytes,
    }
}

impl CheckedRow {
    /// Whether this is the account that the registration was checked against, as it was then.
    pub(super) fn is_replaced_by(&self, registration: &Registration) -> bool {
        let salt = |salt: &Option<[u8; 16]>| salt.map(|salt| salt.to_vec());
        registration.replaces.as_ref().is_some_and(|checked| {
            !self.suspended
                && self.aci == *registration.aci.as_uuid()
                && self.mailbox == checked.primary.0
                // As they are read: bits that this server does not know do not count.
                && u32::try_from(self.capabilities).map(Capabilities::from_bits) == Ok(checked.capabilities)
                && self.recovery_salt == salt(&checked.recovery_salt)
                && self.lock_salt == salt(&checked.lock_salt)
        })
    }
}

/// The size of an attachment beside start, length and tag of one of its segments, if it has any.
pub(super) type SegmentRow = (i64, Option<i64>, Option<i64>, Option<i64>);

/// One attachment from its size and the rows of its segments; `None` if there are no rows.
pub(super) fn attachment(rows: Vec<SegmentRow>) -> Result<Option<Attachment>, StorageError> {
    let Some((length, ..)) = rows.first() else {
        return Ok(None);
    };
    let size = |bytes: i64, column| u64::try_from(bytes).map_err(|_| corrupt("attachment_segments", column));
    let mut attachment = Attachment {
        length: size(*length, "length")?,
        segments: Vec::with_capacity(rows.len()),
    };
    for row in rows {
        // An attachment of no bytes has no segments.
        if let (_, Some(start), Some(length), Some(tag)) = row {
            attachment.segments.push(Segment {
                start: size(start, "start")?,
                length: size(length, "length")?,
                tag,
            });
        }
    }
    Ok(Some(attachment))
}

/// What tells the objects of this database from those of others, as it was pinned.
pub(super) fn realm(pinned: &[u8]) -> Result<[u8; 16], StorageError> {
    array(pinned, "settings", "value")
}

/// Names of attachments as they are stored.
pub(super) fn names(rows: &[Vec<u8>]) -> Result<Vec<AttachmentName>, StorageError> {
    rows.iter()
        .map(|name| Ok(AttachmentName(array(name, "attachments", "name")?)))
        .collect()
}

/// One account from the rows of its join with `devices`; `None` if there are none.
pub(super) fn account<R>(rows: &[R]) -> Result<Option<Account>, StorageError>
where
    R: Row,
    for<'r> AccountRow: FromRow<'r, R>,
    for<'r> DeviceRow: FromRow<'r, R>,
{
    let Some(first) = rows.first() else { return Ok(None) };
    let account = AccountRow::from_row(first)?;
    // Sized first: most accounts have one device, and thousands of accounts are remembered.
    let mut devices = Vec::with_capacity(rows.len());
    for row in rows {
        devices.push(DeviceRow::from_row(row)?.into_device()?);
    }
    Ok(Some(Account {
        aci: Aci::new(account.aci),
        pni: Pni::new(account.pni),
        aci_identity: identity(&account.aci_identity, IdentityKind::Aci)?,
        pni_identity: identity(&account.pni_identity, IdentityKind::Pni)?,
        access: UnidentifiedAccess {
            sealed_key: account.access_key.map(Sealed),
            unrestricted: account.unrestricted,
        },
        discoverable: account.discoverable,
        recovery: match (account.recovery_salt, account.recovery_hash) {
            (Some(salt), Some(hash)) => Some(SecretVerifier {
                salt: array(&salt, "accounts", "recovery_salt")?,
                hash: array(&hash, "accounts", "recovery_hash")?,
            }),
            _ => None,
        },
        lock: match (account.lock_salt, account.lock_hash) {
            (Some(salt), Some(hash)) => Some(SecretVerifier {
                salt: array(&salt, "accounts", "lock_salt")?,
                hash: array(&hash, "accounts", "lock_hash")?,
            }),
            _ => None,
        },
        blocks: blocks(account.blocks.as_deref())?,
        suspended: account.suspended,
        devices,
    }))
}

/// One answer for each of the ids, in their order.
pub(super) fn in_order(ids: &[ServiceId], accounts: Vec<Account>) -> Vec<Option<Account>> {
    let places: HashMap<ServiceId, usize> = ids.iter().enumerate().map(|(place, id)| (*id, place)).collect();
    let mut answers: Vec<Option<Account>> = ids.iter().map(|_| None).collect();
    for account in accounts {
        let aci = places.get(&ServiceId::Aci(account.aci));
        match (aci, places.get(&ServiceId::Pni(account.pni))) {
            (Some(aci), Some(pni)) => {
                answers[*pni] = Some(account.clone());
                answers[*aci] = Some(account);
            }
            (Some(place), None) | (None, Some(place)) => answers[*place] = Some(account),
            (None, None) => {}
        }
    }
    answers
}

/// Whom an account has blocked, as the column holds it.
pub(super) fn blocks(stored: Option<&[u8]>) -> Result<Blocks, StorageError> {
    Blocks::parse(stored.unwrap_or_default()).ok_or(corrupt("accounts", "blocks"))
}

/// Several accounts from the rows of their join with `devices`, in which the rows of an account are neighbours.
pub(super) fn accounts<R>(rows: &[R]) -> Result<Vec<Account>, StorageError>
where
    R: Row,
    for<'r> AccountRow: FromRow<'r, R>,
    for<'r> DeviceRow: FromRow<'r, R>,
    for<'a> &'a str: ColumnIndex<R>,
    for<'r> Uuid: Decode<'r, R::Database> + Type<R::Database>,
{
    let mut accounts = Vec::new();
    let mut rest = rows;
    while let Some(first) = rest.first() {
        let aci: Uuid = first.try_get("aci")?;
        let mut own = 1;
        while own < rest.len() && rest[own].try_get::<Uuid, _>("aci")? == aci {
            own += 1;
        }
        let (rows, others) = rest.split_at(own);
        accounts.extend(account(rows)?);
        rest = others;
    }
    Ok(accounts)
}

impl DeviceRow {
    fn into_device(self) -> Result<Device, StorageError> {
        Ok(Device {
            id: device_id(self.device_id)?,
            mailbox: MailboxId(self.mailbox),
            queue_key: queue_key(&self.queue_key)?,
            registration_id: registration_id(self.registration_id, "registration_id")?,
            pni_registration_id: registration_id(self.pni_registration_id, "pni_registration_id")?,
            name: match self.name {
                Some(name) => Some(DeviceName::new(name).ok_or(corrupt("devices", "name"))?),
                None => None,
            },
            credential: SecretVerifier {
                salt: array(&self.credential_salt, "devices", "credential_salt")?,
                hash: array(&self.credential_hash, "devices", "credential_hash")?,
            },
            sealed_number: Sealed(self.sealed_number),
            fetches_messages: self.fetches_messages,
            capabilities: Capabilities::from_bits(
                u32::try_from(self.capabilities).map_err(|_| corrupt("devices", "capabilities"))?,
            ),
            last_seen: Day(self.last_seen),
            created_at: match self.created_at {
                Some(sealed) => Some(CreatedAt(array(&sealed, "devices", "created_at")?)),
                None => None,
            },
        })
    }
}

impl MailboxRow {
    pub(super) fn into_mailbox(self) -> Result<Mailbox, StorageError> {
        Ok(Mailbox {
            last: Seq(self.last_seq),
            key: queue_key(&self.queue_key)?,
            interim: self.interim_key.map(Sealed),
        })
    }
}

impl StoredRow {
    pub(super) fn into_stored(self) -> Result<Stored, StorageError> {
        let bucket = u16::try_from(self.bucket).ok().and_then(Bucket::from_kib);
        Ok(Stored {
            seq: Seq(self.seq),
            sealed: SealedEnvelope {
                bucket: bucket.ok_or(corrupt("envelopes", "bucket"))?,
                row: self.sealed.into(),
            },
        })
    }
}

fn queue_key(bytes: &[u8]) -> Result<QueuePublicKey, StorageError> {
    Ok(QueuePublicKey::from_bytes(array(bytes, "mailboxes", "queue_key")?))
}

impl OfferRow {
    pub(super) fn into_offer(self) -> Result<LinkOffer, StorageError> {
        Ok(LinkOffer {
            key: LinkTokenHash(array(&self.key, "link_offers", "key")?),
            aci: Aci::new(self.aci),
            sealed_number: Sealed(self.sealed_number),
            expires: Timestamp(self.expires),
        })
    }
}

impl TokenSessionRow {
    pub(super) fn into_session(self) -> Result<TokenSession, StorageError> {
        Ok(TokenSession {
            id: TokenSessionId(self.id.into_bytes()),
            mailbox: MailboxId(self.mailbox),
            device: device_id(self.device_id)?,
            created: Day(self.created),
            expires: Day(self.expires),
        })
    }
}

impl TokenKeyRow {
    pub(super) fn into_key(self) -> Result<TokenKey, StorageError> {
        Ok(TokenKey {
            public: array(&self.public, "token_keys", "public")?,
            sealed: Sealed(self.sealed),
            created: Timestamp(self.created),
            until: self.until.map(Timestamp),
        })
    }
}

impl SessionRow {
    pub(super) fn into_session(self) -> Result<VerificationSession, StorageError> {
        const TABLE: &str = "verification_sessions";
        Ok(VerificationSession {
            key: SessionKey(array(&self.key, TABLE, "key")?),
            number: NumberHash(array(&self.number_hash, TABLE, "number_hash")?),
            sealed_number: Sealed(self.sealed_number),
            verified: self.verified,
            attempts: u16::try_from(self.attempts).unwrap_or(u16::MAX),
            expires: Timestamp(self.expires),
            has_code: self.has_code,
            codes_sent: u16::try_from(self.codes_sent).unwrap_or(u16::MAX),
            next_code: self.next_code.map(Timestamp),
            worked: self.worked,
            new_only: self.new_only,
        })
    }
}

impl InviteRow {
    pub(super) fn into_invite(self) -> Invite {
        Invite {
            id: InviteId(self.id),
            uses_left: u32::try_from(self.uses_left).unwrap_or(0),
            recovers: self.recovers,
            expires: Day(self.expires),
            created: Day(self.created),
        }
    }
}

impl SignedRow {
    /// Both keys, or `None` if one is missing.
    pub(super) fn into_keys(self) -> Result<Option<SignedKeys>, StorageError> {
        const TABLE: &str = "signed_keys";
        let (Some(signed_id), Some(signed_key), Some(signed_signature)) =
            (self.signed_id, self.signed_key, self.signed_signature)
        else {
            return Ok(None);
        };
        let (Some(key_id), Some(key), Some(signature)) =
            (self.last_resort_id, self.last_resort_key, self.last_resort_signature)
        else {
            return Ok(None);
        };
        let signed = SignedEcPreKey {
            id: key_number(signed_id, TABLE, "signed_id")?,
            key: parsed(EcPublicKey::parse(&signed_key), TABLE, "signed_key")?,
            signature: parsed(Signature::parse(&signed_signature), TABLE, "signed_signature")?,
        };
        let last_resort = kyber(KyberRow { key_id, key, signature }, TABLE)?;
        Ok(Some(SignedKeys { signed, last_resort }))
    }
}

impl ProfileRow {
    pub(super) fn into_profile(self) -> Result<Profile, StorageError> {
        Ok(Profile {
            commitment: array(&self.commitment, "profiles", "commitment")?,
            name: self.name.into(),
            about: self.about.map(Into::into),
            about_emoji: self.about_emoji.map(Into::into),
            payment_address: self.payment_address.map(Into::into),
            phone_number_sharing: self.phone_number_sharing.map(Into::into),
            avatar: self.avatar.map(Avatar),
        })
    }
}

impl EcRow {
    pub(super) fn into_key(self) -> Result<EcPreKey, StorageError> {
        const TABLE: &str = "one_time_ec_keys";
        Ok(EcPreKey {
            id: key_number(self.key_id, TABLE, "key_id")?,
            key: parsed(EcPublicKey::parse(&self.key), TABLE, "key")?,
        })
    }
}

impl KyberRow {
    pub(super) fn into_key(self) -> Result<KyberPreKey, StorageError> {
        kyber(self, "one_time_kyber_keys")
    }
}

/// The bundle of one device from its parts.
pub(super) fn bundle(
    device: &AddressedRow,
    keys: &SignedKeys,
    one_time: Option<EcRow>,
    one_time_kyber: Option<KyberRow>,
    [ec_stock, kyber_stock]: [Stock; 2],
) -> Result<PreKeyBundle, StorageError> {
    let (kyber, kyber_source) = match one_time_kyber {
        Some(row) => (row.into_key()?, KyberSource::OneTime),
        None => (keys.last_resort.clone(), KyberSource::LastResort),
    };
    Ok(PreKeyBundle {
        device_id: device_id(device.device_id)?,
        registration_id: registration_id(device.registration_id, "registration_id")?,
        signed: keys.signed.clone(),
        one_time: one_time.map(EcRow::into_key).transpose()?,
        kyber,
        kyber_source,
        ec_stock,
        kyber_stock,
    })
}

/// What became of the keys of one kind, of which one at this place was taken; the highest place before that was `last`.
/// Places follow one another, so that their distance says how many are left.
pub(super) fn stock(allowance: &Allowance, device: i16, taken: Option<i32>, last: Option<i32>) -> Stock {
    match (taken, last) {
        (Some(taken), last) => Stock::Left(last.map_or(0, |last| u32::try_from(last - taken).unwrap_or(0))),
        (None, _) if !covers(allowance, device) => Stock::Withheld,
        (None, Some(_)) if allowance.reserve > 0 => Stock::Reserved,
        (None, _) => Stock::Empty,
    }
}

/// Whether the device, as a column holds its number, may give its one-time keys.
pub(super) fn covers(allowance: &Allowance, device: i16) -> bool {
    device_id(device).is_ok_and(|device| allowance.covers(device))
}

/// How many places a kind's keys must not be taken from.
pub(super) fn reserve_column(allowance: &Allowance) -> i32 {
    i32::try_from(allowance.reserve).unwrap_or(i32::MAX)
}

/// The public half of the trust root, as `settings` holds it.
pub(super) fn trust_root(bytes: &[u8]) -> Result<EcPublicKey, StorageError> {
    parsed(EcPublicKey::parse(bytes), "settings", "value")
}

/// The identity key of a namespace.
pub(super) fn identity(bytes: &[u8], kind: IdentityKind) -> Result<IdentityKey, StorageError> {
    let column = match kind {
        IdentityKind::Aci => "aci_identity",
        IdentityKind::Pni => "pni_identity",
    };
    parsed(IdentityKey::parse(bytes), "accounts", column)
}

/// A namespace as the column `kind` holds it.
pub(super) fn kind_column(kind: IdentityKind) -> i16 {
    match kind {
        IdentityKind::Aci => 0,
        IdentityKind::Pni => 1,
    }
}

fn kyber(row: KyberRow, table: &'static str) -> Result<KyberPreKey, StorageError> {
    let column = |one_time, last_resort| if table == "signed_keys" { last_resort } else { one_time };
    Ok(KyberPreKey {
        id: key_number(row.key_id, table, column("key_id", "last_resort_id"))?,
        key: parsed(KyberPublicKey::parse(&row.key), table, column("key", "last_resort_key"))?,
        signature: parsed(
            Signature::parse(&row.signature),
            table,
            column("signature", "last_resort_signature"),
        )?,
    })
}

pub(super) fn device_id(id: i16) -> Result<DeviceId, StorageError> {
    let id = u64::try_from(id).map_err(|_| corrupt("devices", "device_id"))?;
    DeviceId::new(id).map_err(|_| corrupt("devices", "device_id"))
}

fn registration_id(id: i32, column: &'static str) -> Result<RegistrationId, StorageError> {
    let id = u64::try_from(id).map_err(|_| corrupt("devices", column))?;
    RegistrationId::new(id).map_err(|_| corrupt("devices", column))
}

fn key_number(id: i64, table: &'static str, column: &'static str) -> Result<KeyId, StorageError> {
    let id = u64::try_from(id).map_err(|_| corrupt(table, column))?;
    parsed(KeyId::new(id), table, column)
}

fn parsed<T>(result: Result<T, DecodeError>, table: &'static str, column: &'static str) -> Result<T, StorageError> {
    result.map_err(|_| corrupt(table, column))
}

fn array<const N: usize>(bytes: &[u8], table: &'static str, column: &'static str) -> Result<[u8; N], StorageError> {
    bytes.try_into().map_err(|_| corrupt(table, column))
}

fn corrupt(table: &'static str, column: &'static str) -> StorageError {
    StorageError::Corrupt { table, column }
}
