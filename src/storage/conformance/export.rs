//! What every store promises of an export, and that a deletion leaves nothing of what an export shows.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::fixtures::{
    aci, actor, claim, device_link, ec_key, kyber_key, offer, register, sealed_copy, signed_key, start_over, take_alone,
};
use crate::domain::{
    Actor, AttachmentName, Avatar, AvatarChange, Batch, BlockChange, BlockTag, BlocksChanged, Budget, DataKey,
    DataLimits, DataWrite, Day, Delivery, DeviceId, EncryptedUsername, Enqueued, IdentityKind, KeyUpload, LinkHandle,
    LinkOffer, LinkTokenHash, Linked, MailboxId, NewTokenSession, NewUpload, NumberHash, Profile, ProfileVersion,
    Published, QueueLimits, QuotaBucket, RefreshHash, Reserved, Revision, Sealed, Segment, SessionKey, Timestamp,
    TokenSessionId, Turn, UploadTimes, UsernameHash, UsernameLink, VerificationSession, Written,
};
use crate::manifest::{Manifest, Subject};
use crate::storage::ExportStore;
use crate::storage::export::{Cell, Part, Shown, TABLES};
use crate::storage::testing::{ROOMY, TestDatabase};

pub(crate) const LIMITS: QueueLimits = ROOMY;

const NOW: Timestamp = Timestamp(20_000 * 24 * 60 * 60 * 1000);
/// Tables that are about nobody by the manifest, and of which an export has the rows that a profile names.
const NAMED_BY_PROFILES: &[&str] = &["attachments", "attachment_segments"];

type Exports = Arc<dyn ExportStore>;

pub(crate) async fn every_column_is_exported_or_about_no_account(database: &TestDatabase) {
    let live: BTreeSet<String> = database.columns().await.into_iter().collect();
    assert!(live.contains("accounts.aci") && live.contains("settings.value"));
    let manifest = Manifest::embedded();
    let of_accounts: BTreeSet<_> = manifest
        .columns()
        .filter(|(table, column)| {
            manifest.subject(column) != Subject::Nobody || NAMED_BY_PROFILES.contains(&table.name.as_str())
        })
        .map(|(table, column)| format!("{}.{}", table.name, column.name))
        .collect();
    assert!(of_accounts.is_subset(&live));
    let others: BTreeSet<_> = live
        .difference(&of_accounts)
        .map(|column| column.split('.').next())
        .collect();
    assert_eq!(
        others.into_iter().flatten().collect::<Vec<_>>(),
        ["_sqlx_migrations", "admin_log", "invites", "settings", "token_keys"]
    );
    let exported: BTreeSet<_> = TABLES
        .iter()
        .flat_map(|table| {
            let columns = table.columns.iter();
            columns.map(|column| format!("{}.{}", table.name, column.name))
        })
        .collect();
    assert_eq!(exported, of_accounts);
}

pub(crate) async fn an_export_has_what_its_account_has_and_nothing_of_another(database: &TestDatabase) {
    for n in [1, 2] {
        fill(database, n).await;
    }
    let exports = database.storage().export;
    let mut told = BTreeSet::new();
    for n in [1_u8, 2] {
        for (part, rows) in parts(n) {
            let found = exports.rows(&by(n), &part.borrow()).await.unwrap();
            let table = part.borrow().table();
            told.insert(table.name);
            assert_eq!(found.len(), rows, "{} of {n}", table.name);
            for row in &found {
                assert_eq!(row.len(), table.columns.len());
                if let Some(at) = table.place_of("aci") {
                    assert_eq!(row[at], Cell::Id(*aci(n).as_uuid()), "{}", table.name);
                }
            }
        }
    }
    let all: BTreeSet<_> = TABLES.iter().map(|table| table.name).collect();
    assert_eq!(told, all);
}

pub(crate) async fn values_are_shown_as_they_are_and_secrets_as_held(database: &TestDatabase) {
    fill(database, 1).await;
    let exports = database.storage().export;
    let account = one(&exports, Part::Account).await;
    let cell = |row: &[Cell], part: Part<'_>, column: &str| row[part.table().place_of(column).unwrap()].clone();
    let of_account = |column| cell(&account, Part::Account, column);
    assert_eq!(of_account("number_hash"), Cell::Bytes(vec![1; 32]));
    assert_eq!(of_account("discoverable"), Cell::Bool(true));
    assert_eq!(of_account("recovery_hash"), Cell::Bool(true));
    assert_eq!(of_account("lock_hash"), Cell::Bool(false));
    assert_eq!(of_account("blocks"), Cell::Number(16));
    let device = one(&exports, Part::Devices).await;
    let of_device = |column| cell(&device, Part::Devices, column);
    assert_eq!(of_device("mailbox"), Cell::Text("1001".to_owned()));
    assert_eq!(of_device("name"), Cell::Bytes(vec![1; 20]));
    assert_eq!(of_device("last_seen"), Cell::Number(20_000));
    let envelope = exports
        .rows(&by(1), &Part::Envelopes(DeviceId::PRIMARY, 0))
        .await
        .unwrap()[0]
        .clone();
    let of_envelope = |column| cell(&envelope, Part::Envelopes(DeviceId::PRIMARY, 0), column);
    assert_eq!(of_envelope("seq"), Cell::Number(1));
    assert_eq!(of_envelope("bucket"), Cell::Number(1));
    assert!(matches!(of_envelope("sealed"), Cell::Number(1024..)));
    for (part, _) in parts(1) {
        for row in exports.rows(&by(1), &part.borrow()).await.unwrap() {
            for (column, cell) in part.borrow().table().columns.iter().zip(row) {
                let fits = match column.shown {
                    Shown::Whole => true,
                    Shown::Held(_) => matches!(cell, Cell::Bool(_)),
                    Shown::Length(_) => matches!(cell, Cell::Number(_)),
                };
                assert!(fits, "{}", column.name);
            }
        }
    }
}

pub(crate) async fn long_tables_come_in_pages(database: &TestDatabase) {
    register(database, 1, 1001).await;
    let storage = database.storage();
    let write = |n: u8| DataWrite {
        key: DataKey([n; 32]),
        expected: Revision(0),
        value: Some(Bytes::from(vec![n; 10])),
    };
    let writes: Vec<_> = (0..9).map(write).collect();
    storage.account_data.write(&by(1), &writes, ROOM).await.unwrap();
    let delivery = Delivery {
        copies: vec![sealed_copy(MailboxId(1001), 1, b"x")],
        expires: Day(30_000),
        ..Delivery::default()
    };
    let batch = Batch {
        deliveries: vec![delivery; 1_001],
        acknowledgements: vec![],
    };
    storage.queue.commit(&batch).await.unwrap();

    let (mut after, mut keys) = (Some(Vec::new()), Vec::new());
    while let Some(from) = after {
        let part = Part::Data(&from);
        let rows = storage.export.rows(&by(1), &part).await.unwrap();
        keys.extend(rows.iter().map(|row| row[1].clone()));
        after = match part.goes_on(&rows) {
            Some(Cell::Bytes(key)) => Some(key),
            _ => None,
        };
    }
    let expected: Vec<_> = (0..9).map(|n| Cell::Bytes(vec![n; 32])).collect();
    assert_eq!(keys, expected);

    let (mut after, mut numbers, mut pages) = (Some(0), Vec::new(), 0);
    while let Some(from) = after {
        let part = Part::Envelopes(DeviceId::PRIMARY, from);
        let rows = storage.export.rows(&by(1), &part).await.unwrap();
        numbers.extend(rows.iter().map(|row| row[1].clone()));
        pages += 1;
        after = match part.goes_on(&rows) {
            Some(Cell::Number(seq)) => Some(seq),
            _ => None,
        };
    }
    let expected: Vec<_> = (1..=1_001).map(Cell::Number).collect();
    assert_eq!(numbers, expected);
    assert_eq!(pages, 3);
}

pub(crate) async fn a_device_that_is_gone_or_replaced_is_shown_nothing(database: &TestDatabase) {
    fill(database, 1).await;
    let exports = database.storage().export;
    start_over(&*database.storage().accounts, super::fixtures::registration(1, 1_009)).await;
    for (part, _) in parts(1) {
        let rows = exports.rows(&by(1), &part.borrow()).await.unwrap();
        assert!(rows.is_empty(), "{}", part.borrow().table().name);
    }
    let now = actor(1, 1_009);
    assert_eq!(exports.rows(&now, &Part::Account).await.unwrap().len(), 1);
}

pub(crate) async fn t38_what_an_export_shows_is_gone_with_the_account(database: &TestDatabase) {
    for n in [1, 2] {
        fill(database, n).await;
    }
    let storage = database.storage();
    let before = counts(database).await;
    let erased = storage.accounts.delete(&by(1)).await.unwrap();
    let mut mailboxes = erased.mailboxes;
    mailboxes.sort();
    assert_eq!(mailboxes, [MailboxId(1001), MailboxId(1051)]);
    assert_eq!(erased.avatars, [Avatar("attachments/1".to_owned())]);
    storage
        .attachments
        .retire(&[AttachmentName([1; 32])], NOW)
        .await
        .unwrap();
    storage.attachments.drop_budgets(&[QuotaBucket([1; 16])]).await.unwrap();
    for ((table, both), (_, left)) in before.into_iter().zip(counts(database).await) {
        let expected = match table {
            // The name is held for nobody, and that of the picture is not used again.
            "usernames" | "attachments" => both,
            _ => both / 2,
        };
        assert_eq!(left, expected, "{table}");
    }
    assert_eq!(
        database
            .number("SELECT count(*) FROM usernames WHERE aci IS NULL")
            .await,
        1
    );
    assert_eq!(
        database
            .number("SELECT count(*) FROM attachments WHERE state = 2")
            .await,
        1
    );
    for (part, rows) in parts(2) {
        let found = storage.export.rows(&by(2), &part.borrow()).await.unwrap();
        assert_eq!(found.len(), rows, "{}", part.borrow().table().name);
    }
}

async fn one(exports: &Exports, part: Part<'_>) -> Vec<Cell> {
    exports.rows(&by(1), &part).await.unwrap().remove(0)
}

/// A part with what it names.
enum Owned {
    Plain(Part<'static>),
    Attachment(AttachmentName),
    Segments(AttachmentName),
    Budget(QuotaBucket),
}

impl Owned {
    fn borrow(&self) -> Part<'_> {
        match self {
            Self::Plain(part) => *part,
            Self::Attachment(name) => Part::Attachment(name),
            Self::Segments(name) => Part::Segments(name),
            Self::Budget(bucket) => Part::Budget(bucket),
        }
    }
}

/// Every part of what [`fill`] made for account `n`, with how many rows it has.
fn parts(n: u8) -> Vec<(Owned, usize)> {
    let second = DeviceId::new(2).unwrap();
    let plain = [
        (Part::Account, 1),
        (Part::Devices, 2),
        (Part::Mailboxes, 2),
        (Part::Envelopes(DeviceId::PRIMARY, 0), 1),
        (Part::Envelopes(second, 0), 1),
        (Part::SignedKeys(DeviceId::PRIMARY), 2),
        (Part::SignedKeys(second), 2),
        (Part::OneTimeEcKeys(DeviceId::PRIMARY), 3),
        (Part::OneTimeEcKeys(second), 0),
        (Part::OneTimeKyberKeys(DeviceId::PRIMARY), 2),
        (Part::OneTimeKyberKeys(second), 0),
        (Part::SpentKeys(DeviceId::PRIMARY, -1), 2),
        (Part::SpentKeys(second, -1), 0),
        (Part::LinkOffers, 2),
        (Part::TokenSessions, 1),
        (Part::Sessions(&[]), 1),
        (Part::Usernames, 1),
        (Part::UsernameLinks, 1),
        (Part::Profiles, 1),
        (Part::DataCounters, 1),
        (Part::Data(&[]), 1),
    ];
    let mut all: Vec<_> = plain.map(|(part, rows)| (Owned::Plain(part), rows)).into();
    all.push((Owned::Attachment(AttachmentName([n; 32])), 1));
    all.push((Owned::Segments(AttachmentName([n; 32])), 1));
    all.push((Owned::Budget(QuotaBucket([n; 16])), 1));
    all
}

fn by(n: u8) -> Actor {
    actor(n, 1000 + i64::from(n))
}

/// Makes account `n` with a row in every table, each of which says whose it is.
async fn fill(database: &TestDatabase, n: u8) {
    let storage = database.storage();
    let (by, mailbox, second) = (by(n), 1000 + i64::from(n), 1050 + i64::from(n));
    register(database, n, mailbox).await;
    let (upload, expires) = (
        KeyUpload {
            one_time: (1..=4).map(ec_key).collect(),
            one_time_kyber: (1..=3).map(|id| kyber_key(id, id)).collect(),
            signed: Some(signed_key(n, 9)),
            last_resort: None,
        },
        NOW.0 + 1_000,
    );
    assert_eq!(
        storage.keys.publish(&by, IdentityKind::Aci, &upload).await.unwrap(),
        Published::Done(0)
    );
    // One key of each kind is handed out.
    assert!(take_alone(&storage.keys, claim(n), NOW.day()).await.is_some());
    assert!(storage.devices.offer(&offer(n, expires), &by).await.unwrap());
    let session = NewTokenSession {
        id: TokenSessionId([n; 16]),
        refresh: RefreshHash([n; 32]),
        salt: [n; 16],
        created: NOW.day(),
        expires: NOW.day().plus(8),
    };
    storage.tokens.open(&session, &by).await.unwrap().unwrap();
    let link = device_link(n, 2, second);
    assert_eq!(storage.devices.link(&link, NOW).await.unwrap(), Linked::Done);
    let open = LinkOffer {
        key: LinkTokenHash([n + 100; 32]),
        ..offer(n, expires)
    };
    assert!(storage.devices.offer(&open, &by).await.unwrap());
    let profile = Profile {
        commitment: [n; 97],
        name: vec![n; 81].into(),
        about: None,
        about_emoji: None,
        payment_address: None,
        phone_number_sharing: None,
        avatar: None,
    };
    let avatar = AvatarChange::Replace(Avatar(format!("attachments/{n}")));
    let version = ProfileVersion([n; 32]);
    let published = storage.profiles.publish(&by, &version, &profile, &avatar);
    assert!(published.await.unwrap().is_some());
    name(database, by, n).await;
    let block = BlockChange::Add(BlockTag([n; 16]));
    assert_eq!(
        storage.devices.change_blocks(block, &by).await.unwrap(),
        BlocksChanged::Done
    );
    let write = DataWrite {
        key: DataKey([n; 32]),
        expected: Revision(0),
        value: Some(Bytes::from(vec![n; 10])),
    };
    let written = storage.account_data.write(&by, &[write], ROOM).await.unwrap();
    assert_eq!(written, Written::At(vec![Revision(1)]));
    let session = VerificationSession {
        key: SessionKey([n; 32]),
        number: NumberHash([n; 32]),
        sealed_number: Sealed(vec![n; 40]),
        verified: false,
        new_only: false,
        codes_sent: 0,
        has_code: false,
        next_code: None,
        worked: false,
        attempts: 0,
        expires: Timestamp(expires),
    };
    storage.accounts.open_session(&session).await.unwrap();
    upload_picture(database, n).await;
    let copies = [mailbox, second].map(|mailbox| sealed_copy(MailboxId(mailbox), 1, &[n]));
    let batch = Batch {
        deliveries: vec![Delivery {
            copies: copies.into(),
            expires: Day(30_000),
            ..Delivery::default()
        }],
        acknowledgements: vec![],
    };
    let outcomes = storage.queue.commit(&batch).await.unwrap();
    assert!(matches!(outcomes[..], [Enqueued::At(_)]));
}

async fn name(database: &TestDatabase, by: Actor, n: u8) {
    let names = database.storage().usernames;
    let hash = UsernameHash([n; 32]);
    assert_eq!(names.reserve(&by, &[hash], NOW).await.unwrap(), Reserved::Name(hash));
    let link = UsernameLink {
        handle: LinkHandle(Uuid::from_bytes([n; 16])),
        encrypted: EncryptedUsername::new(vec![n; 80]).unwrap(),
    };
    names.confirm(&by, &hash, Some(&link), NOW).await.unwrap();
}

/// The picture that the profile of account `n` names, and what it cost.
async fn upload_picture(database: &TestDatabase, n: u8) {
    let attachments = database.storage().attachments;
    let budget = Budget {
        bucket: QuotaBucket([n; 16]),
        day: NOW.day(),
        limit: 1_000,
        least: 0,
    };
    let times = UploadTimes {
        now: NOW,
        drop_at: Timestamp(NOW.0 + 1_000),
        expires: NOW.day().plus(400),
    };
    let (name, length) = (AttachmentName([n; 32]), Some(10));
    let upload = NewUpload {
        name,
        length,
        paid: 0,
        budget,
        times,
    };
    attachments.open(&upload).await.unwrap();
    let turn = Turn {
        at: 0,
        length,
        budget,
        times,
    };
    attachments.take_turn(&name, &turn).await.unwrap();
    let segment = Segment {
        start: 0,
        length: 10,
        tag: n.into(),
    };
    attachments.append(&name, 1, &[segment], &budget, &times).await.unwrap();
}

/// How many rows each table has that holds something of accounts.
async fn counts(database: &TestDatabase) -> Vec<(&'static str, i64)> {
    let mut counts = Vec::new();
    for (table, statement) in [
        ("accounts", "SELECT count(*) FROM accounts"),
        ("devices", "SELECT count(*) FROM devices"),
        ("mailboxes", "SELECT count(*) FROM mailboxes"),
        ("envelopes", "SELECT count(*) FROM envelopes"),
        ("signed_keys", "SELECT count(*) FROM signed_keys"),
        ("one_time_ec_keys", "SELECT count(*) FROM one_time_ec_keys"),
        ("one_time_kyber_keys", "SELECT count(*) FROM one_time_kyber_keys"),
        ("spent_keys", "SELECT count(*) FROM spent_keys"),
        ("link_offers", "SELECT count(*) FROM link_offers"),
        ("token_sessions", "SELECT count(*) FROM token_sessions"),
        ("verification_sessions", "SELECT count(*) FROM verification_sessions"),
        ("usernames", "SELECT count(*) FROM usernames"),
        ("username_links", "SELECT count(*) FROM username_links"),
        ("profiles", "SELECT count(*) FROM profiles"),
        ("account_data_counters", "SELECT count(*) FROM account_data_counters"),
        ("account_data", "SELECT count(*) FROM account_data"),
        ("attachments", "SELECT count(*) FROM attachments"),
        ("attachment_segments", "SELECT count(*) FROM attachment_segments"),
        ("attachment_budgets", "SELECT count(*) FROM attachment_budgets"),
    ] {
        counts.push((table, database.number(statement).await));
    }
    let tables: BTreeSet<_> = counts.iter().map(|(table, _)| *table).collect();
    assert_eq!(tables, TABLES.iter().map(|table| table.name).collect());
    counts
}

const ROOM: DataLimits = DataLimits {
    keys: 100,
    total_bytes: 1 << 20,
};
