//! Everything that is held of one account, for its owner: which tables, which columns, what is shown of each.
//!
//! One list says it for both backends, and a test holds it against the live schema: a column that is neither here nor
//! excepted there with a reason fails it. Rows come in parts that have a bound, so that however much an account has, little
//! of it is in memory; and each part is given to whoever is still the device that asks, so that what a number's next
//! registration brings is never shown to the one before.

use async_trait::async_trait;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, ValueRef as _};
use uuid::Uuid;

use super::StorageError;
use crate::domain::{Actor, AttachmentName, DeviceId, QuotaBucket};

/// What is held of an account.
#[async_trait]
pub trait ExportStore: Send + Sync {
    /// The rows of a part, with a cell for each of its table's columns; none if the device that asks is gone.
    async fn rows(&self, by: &Actor, part: &Part<'_>) -> Result<Vec<Vec<Cell>>, StorageError>;
}

/// A part of what is held of an account. Those that may be long come in pages, of which the last is not full.
#[derive(Clone, Copy, Debug)]
pub enum Part<'a> {
    /// The account's own row.
    Account,
    /// Its devices.
    Devices,
    /// The counters of their queues.
    Mailboxes,
    /// A page of what waits for a device, behind that number.
    Envelopes(DeviceId, i64),
    /// The keys of a device that are handed out again and again.
    SignedKeys(DeviceId),
    /// One-time EC keys of a device that are left.
    OneTimeEcKeys(DeviceId),
    /// One-time Kyber keys of a device that are left.
    OneTimeKyberKeys(DeviceId),
    /// A page of the ids of keys of a device that were handed out, behind that place; the first is behind -1.
    SpentKeys(DeviceId, i64),
    /// Offers to link a device.
    LinkOffers,
    /// Sessions of its devices with tokens.
    TokenSessions,
    /// A page of verification sessions of its number, behind that key.
    Sessions(&'a [u8]),
    /// Names that are its own, reserved for it or held for it.
    Usernames,
    /// The link to its name.
    UsernameLinks,
    /// Versions of its profile.
    Profiles,
    /// The counters of what it keeps for its own devices.
    DataCounters,
    /// A page of what it keeps, behind that key.
    Data(&'a [u8]),
    /// The attachment of that name.
    Attachment(&'a AttachmentName),
    /// The parts of the attachment of that name.
    Segments(&'a AttachmentName),
    /// The budget that is counted there.
    Budget(&'a QuotaBucket),
}

/// A table, as far as an account's owner is shown it.
#[derive(Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// Its columns, all of them.
    pub columns: &'static [Column],
}

impl Table {
    /// Where among its cells a column is.
    pub fn place_of(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|known| known.name == column)
    }
}

/// A column of a table.
#[derive(Debug)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// What is shown of it.
    pub shown: Shown,
    kind: Kind,
}

/// What is shown of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Its value.
    Whole,
    /// Whether there is a value; why not more.
    Held(&'static str),
    /// How many bytes it has; why not more.
    Length(&'static str),
}

/// How a column is stored, on both backends.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Bool,
    Small,
    Int,
    Big,
    /// A number that was drawn at random. Not every reader of JSON can take it as a number.
    Random,
    Text,
    Bytes,
    Id,
}

/// One value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// There is none.
    Nothing,
    /// Yes or no.
    Bool(bool),
    /// A number.
    Number(i64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// An id.
    Id(Uuid),
}

macro_rules! tables {
    ($($constant:ident = $table:literal [$($column:literal $kind:ident $($shown:ident($why:expr))?,)*];)*) => {
        $(
            #[doc = concat!("`", $table, "`")]
            pub const $constant: Table = Table {
                name: $table,
                columns: &[$(Column { name: $column, shown: shown!($($shown($why))?), kind: Kind::$kind }),*],
            };
        )*

        /// Every table that holds something of accounts, in the order in which it is told of.
        pub const TABLES: &[&Table] = &[$(&$constant),*];
    };
}

macro_rules! shown {
    () => {
        Shown::Whole
    };
    ($shown:ident($why:expr)) => {
        Shown::$shown($why)
    };
}

tables! {
    ACCOUNTS = "accounts" [
        "aci" Id,
        "pni" Id,
        "number_hash" Bytes,
        "aci_identity" Bytes,
        "pni_identity" Bytes,
        "access_key" Bytes,
        "unrestricted" Bool,
        "discoverable" Bool,
        "recovery_salt" Bool Held(GUESSES),
        "recovery_hash" Bool Held(GUESSES),
        "lock_salt" Bool Held(GUESSES),
        "lock_hash" Bool Held(GUESSES),
        "suspended" Bool,
        "blocks" Int Length("16 for each id that is blocked, from which nobody can tell whose it is"),
    ];
    DEVICES = "devices" [
        "aci" Id,
        "device_id" Small,
        "mailbox" Random,
        "registration_id" Int,
        "pni_registration_id" Int,
        "name" Bytes,
        "credential_salt" Bool Held(GUESSES),
        "credential_hash" Bool Held(GUESSES),
        "sealed_number" Bool Held(NUMBER),
        "fetches_messages" Bool,
        "capabilities" Big,
        "last_seen" Int,
        "created_at" Bytes,
    ];
    MAILBOXES = "mailboxes" [
        "id" Random,
        "last_seq" Big,
        "envelopes" Big,
        "bytes" Big,
        "queue_key" Bytes,
        "interim_key" Bool Held("opens what waits for the device, which gets it by its connection"),
    ];
    ENVELOPES = "envelopes" [
        "mailbox" Random,
        "seq" Big,
        "bucket" Small,
        "sealed" Int Length("sealed to the device, which gets it by its connection and can open it"),
        "expires" Int,
    ];
    SIGNED_KEYS = "signed_keys" [
        "aci" Id,
        "device_id" Small,
        "kind" Small,
        "signed_id" Big,
        "signed_key" Bytes,
        "signed_signature" Bytes,
        "last_resort_id" Big,
        "last_resort_key" Bytes,
        "last_resort_signature" Bytes,
    ];
    ONE_TIME_EC_KEYS = "one_time_ec_keys" [
        "aci" Id,
        "device_id" Small,
        "kind" Small,
        "position" Int,
        "key_id" Big,
        "key" Bytes,
    ];
    ONE_TIME_KYBER_KEYS = "one_time_kyber_keys" [
        "aci" Id,
        "device_id" Small,
        "kind" Small,
        "position" Int,
        "key_id" Big,
        "key" Bytes,
        "signature" Bytes,
    ];
    SPENT_KEYS = "spent_keys" [
        "aci" Id,
        "device_id" Small,
        "kind" Small,
        "kyber" Bool,
        "key_id" Big,
        "tail" Bytes,
        "day" Int,
    ];
    LINK_OFFERS = "link_offers" [
        "key" Bytes,
        "aci" Id,
        "sealed_number" Bool Held(NUMBER),
        "device_id" Small,
        "expires" Big,
    ];
    TOKEN_SESSIONS = "token_sessions" [
        "id" Id,
        "mailbox" Random,
        "refresh" Bytes,
        "created" Int,
        "expires" Int,
    ];
    SESSIONS = "verification_sessions" [
        "key" Bytes,
        "number_hash" Bytes,
        "sealed_number" Bool Held(NUMBER),
        "verified" Bool,
        "attempts" Int,
        "expires" Big,
        "code_hash" Bool Held(CODE),
        "codes_sent" Int,
        "next_code" Big,
        "worked" Bool,
        "new_only" Bool,
    ];
    USERNAMES = "usernames" [
        "hash" Bytes,
        "aci" Id,
        "owned" Bool,
        "reserved_until" Big,
        "held_until" Int,
    ];
    USERNAME_LINKS = "username_links" [
        "handle" Id,
        "aci" Id,
        "encrypted" Bytes,
    ];
    PROFILES = "profiles" [
        "aci" Id,
        "version" Bytes,
        "age" Small,
        "commitment" Bytes,
        "name" Bytes,
        "about" Bytes,
        "about_emoji" Bytes,
        "payment_address" Bytes,
        "phone_number_sharing" Bytes,
        "avatar" Text,
    ];
    DATA_COUNTERS = "account_data_counters" [
        "aci" Id,
        "revision" Big,
        "entries" Big,
        "bytes" Big,
        "deletions" Big,
        "horizon" Big,
    ];
    DATA = "account_data" [
        "aci" Id,
        "key" Bytes,
        "version" Big,
        "value" Bytes,
    ];
    ATTACHMENTS = "attachments" [
        "name" Bytes,
        "state" Small,
        "length" Big,
        "stored" Big,
        "charged" Big,
        "turn" Big,
        "drop_at" Big,
        "expires" Int,
    ];
    SEGMENTS = "attachment_segments" [
        "name" Bytes,
        "start" Big,
        "length" Big,
        "tag" Random,
    ];
    BUDGETS = "attachment_budgets" [
        "bucket" Bytes,
        "day" Int,
        "bytes" Big,
    ];
}

/// Who has the credentials of one device must not get what other secrets can be guessed with.
const CODE: &str = "a keyed hash of the code that is waited for: it is what the code must prove";
const GUESSES: &str = "a salted hash of a secret: whoever had it could try out guesses";
const NUMBER: &str = "the phone number, sealed to a secret of a device or client, which could be guessed with it";

/// Ends a statement whose first parameters are the device that asks.
macro_rules! for_caller {
    ($select:literal) => {
        for_caller!($select, "")
    };
    ($select:literal, $rest:literal) => {
        concat!(
            $select,
            " AND EXISTS (SELECT 1 FROM devices AS asking \
             WHERE asking.aci = $1 AND asking.device_id = $2 AND asking.mailbox = $3) ",
            $rest
        )
    };
}

impl Part<'_> {
    /// Whose rows they are.
    pub fn table(&self) -> &'static Table {
        match self {
            Self::Account => &ACCOUNTS,
            Self::Devices => &DEVICES,
            Self::Mailboxes => &MAILBOXES,
            Self::Envelopes(..) => &ENVELOPES,
            Self::SignedKeys(_) => &SIGNED_KEYS,
            Self::OneTimeEcKeys(_) => &ONE_TIME_EC_KEYS,
            Self::OneTimeKyberKeys(_) => &ONE_TIME_KYBER_KEYS,
            Self::SpentKeys(..) => &SPENT_KEYS,
            Self::LinkOffers => &LINK_OFFERS,
            Self::TokenSessions => &TOKEN_SESSIONS,
            Self::Sessions(_) => &SESSIONS,
            Self::Usernames => &USERNAMES,
            Self::UsernameLinks => &USERNAME_LINKS,
            Self::Profiles => &PROFILES,
            Self::DataCounters => &DATA_COUNTERS,
            Self::Data(_) => &DATA,
            Self::Attachment(_) => &ATTACHMENTS,
            Self::Segments(_) => &SEGMENTS,
            Self::Budget(_) => &BUDGETS,
        }
    }

    /// The most rows of a page, if it is one.
    pub fn page(&self) -> Option<usize> {
        match self {
            Self::Envelopes(..) => Some(ENVELOPES_PER_PAGE),
            Self::SpentKeys(..) => Some(SPENT_PER_PAGE),
            Self::Sessions(_) => Some(SESSIONS_PER_PAGE),
            Self::Data(_) => Some(ENTRIES_PER_PAGE),
            _ => None,
        }
    }

    /// Behind what the next page begins, if there may be one.
    pub fn goes_on(&self, rows: &[Vec<Cell>]) -> Option<Cell> {
        let last = rows.last().filter(|_| Some(rows.len()) == self.page())?;
        if matches!(self, Self::SpentKeys(..)) {
            return self.spent_place(last);
        }
        let place = if matches!(self, Self::Envelopes(..)) {
            "seq"
        } else {
            "key"
        };
        last.get(self.table().place_of(place)?).cloned()
    }

    /// Where a row stands among those that were handed out: namespace, kind of key and id in one number.
    fn spent_place(&self, row: &[Cell]) -> Option<Cell> {
        let of = |column| row.get(self.table().place_of(column)?);
        match (of("kind")?, of("kyber")?, of("key_id")?) {
            (Cell::Number(kind), Cell::Bool(kyber), Cell::Number(id)) => {
                Some(Cell::Number((kind << 33) | (i64::from(*kyber) << 32) | id))
            }
            _ => None,
        }
    }

    /// The statement for both backends. $1 to $3 are the device that asks, $4 and $5 what the part names, $6 the most rows.
    pub(super) fn statement(&self) -> &'static str {
        match self {
            Self::Account => ACCOUNT_ROW,
            Self::Devices => DEVICE_ROWS,
            Self::Mailboxes => MAILBOX_ROWS,
            Self::Envelopes(..) => ENVELOPE_ROWS,
            Self::SignedKeys(_) => SIGNED_KEY_ROWS,
            Self::OneTimeEcKeys(_) => ONE_TIME_EC_KEY_ROWS,
            Self::OneTimeKyberKeys(_) => ONE_TIME_KYBER_KEY_ROWS,
            Self::SpentKeys(..) => SPENT_KEY_ROWS,
            Self::LinkOffers => LINK_OFFER_ROWS,
            Self::TokenSessions => TOKEN_SESSION_ROWS,
            Self::Sessions(_) => SESSION_ROWS,
            Self::Usernames => USERNAME_ROWS,
            Self::UsernameLinks => USERNAME_LINK_ROWS,
            Self::Profiles => PROFILE_ROWS,
            Self::DataCounters => DATA_COUNTER_ROWS,
            Self::Data(_) => DATA_ROWS,
            Self::Attachment(_) => ATTACHMENT_ROWS,
            Self::Segments(_) => SEGMENT_ROWS,
            Self::Budget(_) => BUDGET_ROWS,
        }
    }
}

/// What a part names, for the parameters behind the device that asks.
pub(super) enum Named<'a> {
    Nothing,
    Device(i16),
    DeviceFrom(i16, i64, i64),
    Bytes(&'a [u8]),
    BytesFrom(&'a [u8], i64),
}

impl<'a> Part<'a> {
    pub(super) fn named(&self) -> Named<'a> {
        let most = i64::try_from(self.page().unwrap_or_default()).unwrap_or(i64::MAX);
        let device = |id: DeviceId| i16::from(id.get());
        match *self {
            Self::Envelopes(id, after) | Self::SpentKeys(id, after) => Named::DeviceFrom(device(id), after, most),
            Self::SignedKeys(id) | Self::OneTimeEcKeys(id) | Self::OneTimeKyberKeys(id) => Named::Device(device(id)),
            Self::Sessions(after) | Self::Data(after) => Named::BytesFrom(after, most),
            Self::Attachment(name) | Self::Segments(name) => Named::Bytes(&name.0),
            Self::Budget(bucket) => Named::Bytes(&bucket.0),
            _ => Named::Nothing,
        }
    }
}

/// Asks a backend for the rows of a part.
macro_rules! fetch {
    ($database:expr, $by:expr, $part:expr) => {{
        let asked = sqlx::query($part.statement())
            .bind($by.address.aci.as_uuid())
            .bind(i16::from($by.address.device_id.get()))
            .bind($by.mailbox.0);
        let asked = match $part.named() {
            Named::Nothing => asked,
            Named::Device(id) => asked.bind(id),
            Named::DeviceFrom(id, after, most) => asked.bind(id).bind(after).bind(most),
            Named::Bytes(bytes) => asked.bind(bytes),
            Named::BytesFrom(after, most) => asked.bind(after).bind(most),
        };
        let rows = asked.fetch_all($database).await?;
        let columns = $part.table().columns;
        rows.iter()
            .map(|row| columns.iter().map(|column| Ok(row.cell(column)?)).collect())
            .collect::<Result<Vec<Vec<Cell>>, StorageError>>()
    }};
}
pub(super) use fetch;

/// A row of either backend.
pub(super) trait Cells {
    /// What is in a column.
    fn cell(&self, column: &Column) -> sqlx::Result<Cell>;
}

macro_rules! cells {
    ($row:ty) => {
        impl Cells for $row {
            fn cell(&self, column: &Column) -> sqlx::Result<Cell> {
                let name = column.name;
                if self.try_get_raw(name)?.is_null() {
                    return Ok(Cell::Nothing);
                }
                Ok(match column.kind {
                    Kind::Bool => Cell::Bool(self.try_get(name)?),
                    Kind::Small => Cell::Number(self.try_get::<i16, _>(name)?.into()),
                    Kind::Int => Cell::Number(self.try_get::<i32, _>(name)?.into()),
                    Kind::Big => Cell::Number(self.try_get(name)?),
                    Kind::Random => Cell::Text(self.try_get::<i64, _>(name)?.to_string()),
                    Kind::Text => Cell::Text(self.try_get(name)?),
                    Kind::Bytes => Cell::Bytes(self.try_get(name)?),
                    Kind::Id => Cell::Id(self.try_get(name)?),
                })
            }
        }
    };
}
cells!(SqliteRow);
cells!(PgRow);

const ACCOUNT_ROW: &str = for_caller!(
    "SELECT aci, pni, number_hash, aci_identity, pni_identity, access_key, unrestricted, discoverable, \
        recovery_salt IS NOT NULL AS recovery_salt, recovery_hash IS NOT NULL AS recovery_hash, \
        lock_salt IS NOT NULL AS lock_salt, lock_hash IS NOT NULL AS lock_hash, length(blocks) AS blocks, suspended \
    FROM accounts WHERE aci = $1"
);
const DEVICE_ROWS: &str = for_caller!(
    "SELECT aci, device_id, mailbox, registration_id, pni_registration_id, name, \
        credential_salt IS NOT NULL AS credential_salt, credential_hash IS NOT NULL AS credential_hash, \
        sealed_number IS NOT NULL AS sealed_number, fetches_messages, capabilities, last_seen, created_at \
    FROM devices WHERE aci = $1",
    "ORDER BY device_id"
);
const MAILBOX_ROWS: &str = for_caller!(
    "SELECT id, last_seq, envelopes, bytes, queue_key, interim_key IS NOT NULL AS interim_key \
    FROM mailboxes WHERE id IN (SELECT mailbox FROM devices WHERE aci = $1)",
    "ORDER BY id"
);
const ENVELOPE_ROWS: &str = for_caller!(
    "SELECT mailbox, seq, bucket, length(sealed) AS sealed, expires FROM envelopes \
    WHERE mailbox = (SELECT mailbox FROM devices WHERE aci = $1 AND device_id = $4) AND seq > $5",
    "ORDER BY seq LIMIT $6"
);
const SIGNED_KEY_ROWS: &str = for_caller!(
    "SELECT aci, device_id, kind, signed_id, signed_key, signed_signature, last_resort_id, last_resort_key, \
        last_resort_signature \
    FROM signed_keys WHERE aci = $1 AND device_id = $4",
    "ORDER BY kind"
);
const ONE_TIME_EC_KEY_ROWS: &str = for_caller!(
    "SELECT aci, device_id, kind, position, key_id, key FROM one_time_ec_keys WHERE aci = $1 AND device_id = $4",
    "ORDER BY kind, position"
);
const ONE_TIME_KYBER_KEY_ROWS: &str = for_caller!(
    "SELECT aci, device_id, kind, position, key_id, key, signature FROM one_time_kyber_keys \
    WHERE aci = $1 AND device_id = $4",
    "ORDER BY kind, position"
);
const SPENT_KEY_ROWS: &str = for_caller!(
    "SELECT aci, device_id, kind, kyber, key_id, tail, day FROM spent_keys \
    WHERE aci = $1 AND device_id = $4 \
        AND (kind, kyber, key_id) > ($5 >> 33, (($5 >> 32) & 1) = 1, $5 & 4294967295)",
    "ORDER BY kind, kyber, key_id LIMIT $6"
);
const LINK_OFFER_ROWS: &str = for_caller!(
    "SELECT key, aci, sealed_number IS NOT NULL AS sealed_number, device_id, expires FROM link_offers WHERE aci = $1",
    "ORDER BY key"
);
const TOKEN_SESSION_ROWS: &str = for_caller!(
    "SELECT id, mailbox, refresh, created, expires FROM token_sessions \
    WHERE mailbox IN (SELECT mailbox FROM devices WHERE aci = $1)",
    "ORDER BY created, id"
);
const SESSION_ROWS: &str = for_caller!(
    "SELECT key, number_hash, sealed_number IS NOT NULL AS sealed_number, verified, attempts, expires, \
        code_hash IS NOT NULL AS code_hash, codes_sent, next_code, worked, new_only \
    FROM verification_sessions \
    WHERE number_hash = (SELECT number_hash FROM accounts WHERE aci = $1) AND key > $4",
    "ORDER BY key LIMIT $5"
);
const USERNAME_ROWS: &str = for_caller!(
    "SELECT hash, aci, owned, reserved_until, held_until FROM usernames WHERE aci = $1",
    "ORDER BY hash"
);
const USERNAME_LINK_ROWS: &str = for_caller!("SELECT handle, aci, encrypted FROM username_links WHERE aci = $1");
const PROFILE_ROWS: &str = for_caller!(
    "SELECT aci, version, age, commitment, name, about, about_emoji, payment_address, phone_number_sharing, avatar \
    FROM profiles WHERE aci = $1",
    "ORDER BY age, version"
);
const DATA_COUNTER_ROWS: &str =
    for_caller!("SELECT aci, revision, entries, bytes, deletions, horizon FROM account_data_counters WHERE aci = $1");
const DATA_ROWS: &str = for_caller!(
    "SELECT aci, key, version, value FROM account_data WHERE aci = $1 AND key > $4",
    "ORDER BY key LIMIT $5"
);
const ATTACHMENT_ROWS: &str =
    for_caller!("SELECT name, state, length, stored, charged, turn, drop_at, expires FROM attachments WHERE name = $4");
const SEGMENT_ROWS: &str = for_caller!(
    "SELECT name, start, length, tag FROM attachment_segments WHERE name = $4",
    "ORDER BY start"
);
const BUDGET_ROWS: &str = for_caller!("SELECT bucket, day, bytes FROM attachment_budgets WHERE bucket = $4");

/// About 100 bytes each.
const ENVELOPES_PER_PAGE: usize = 500;
const SPENT_PER_PAGE: usize = 500;
/// Anyone may open sessions of a number.
const SESSIONS_PER_PAGE: usize = 100;
/// Of the largest value that the settings allow, 256 KiB each.
const ENTRIES_PER_PAGE: usize = 4;
