//! What every account store promises.

use std::sync::Arc;
use std::time::Duration;

use super::fixtures::{
    aci, actor, add_second_device, ec_key, identity, linked_actor, pni, primary, register, registration, sealed_copy,
    signed_keys, start_over,
};
use crate::domain::{
    Account, AttributesUpdate, Capabilities, Day, DeviceId, DeviceName, Erased, IdentityKind, KeyUpload, LockUpdate,
    MailboxId, NumberHash, Published, QueueLimits, Registered, Registration, SecretVerifier, ServiceId, Timestamp,
    UnidentifiedAccess,
};
use crate::storage::AccountStore;
use crate::storage::testing::{ROOMY, TestDatabase};

pub(crate) const LIMITS: QueueLimits = ROOMY;

const NOW: Timestamp = Timestamp(1);

pub(super) fn accounts(database: &TestDatabase) -> Arc<dyn AccountStore> {
    database.storage().accounts
}

pub(super) async fn find(database: &TestDatabase, n: u8) -> Option<Account> {
    accounts(database).find(&ServiceId::Aci(aci(n))).await.unwrap()
}

fn update() -> AttributesUpdate {
    AttributesUpdate {
        name: DeviceName::new(vec![9; 30]),
        fetches_messages: false,
        capabilities: Capabilities::from_names([("storage", true), ("ssre2", true)]),
        access: UnidentifiedAccess {
            sealed_key: None,
            unrestricted: true,
        },
        discoverable: false,
        recovery: Some(SecretVerifier {
            salt: [8; 16],
            hash: [8; 32],
        }),
        lock: LockUpdate::Keep,
    }
}

pub(crate) async fn answers_a_ping(database: &TestDatabase) {
    accounts(database).ping().await.unwrap();
}

pub(crate) async fn pins_the_first_pepper(database: &TestDatabase) {
    let accounts = accounts(database);
    assert!(accounts.pin_pepper([1; 32]).await.unwrap());
    assert!(!accounts.pin_pepper([2; 32]).await.unwrap());
    assert!(database.another().await.accounts.pin_pepper([1; 32]).await.unwrap());
}

pub(crate) async fn pins_the_first_trust_root(database: &TestDatabase) {
    let accounts = accounts(database);
    let key = |n: u8| keys_schema::PrivateKey::from_bytes(&[n; 32]).public_key();
    assert!(accounts.trust_root().await.unwrap().is_none());
    assert!(accounts.pin_trust_root(&key(10)).await.unwrap());
    assert!(!accounts.pin_trust_root(&key(20)).await.unwrap());
    let another = database.another().await.accounts;
    assert!(another.pin_trust_root(&key(10)).await.unwrap());
    assert!(another.trust_root().await.unwrap() == Some(key(10)));
    assert!(another.pin_pepper([1; 32]).await.unwrap(), "each pin is for itself");
}

pub(crate) async fn finds_what_was_registered(database: &TestDatabase) {
    let accounts = accounts(database);
    let registration = registration(1, 1001);
    assert_eq!(accounts.register(&registration, NOW).await.unwrap(), Registered::New);
    register(database, 2, 2001).await;
    for id in [ServiceId::Aci(aci(1)), ServiceId::Pni(pni(1))] {
        let account = accounts.find(&id).await.unwrap().unwrap();
        assert!(account.aci == aci(1) && account.pni == pni(1));
        assert!(account.aci_identity == identity(1) && account.pni_identity == identity(101));
        assert!(account.access.sealed_key == registration.access.sealed_key && !account.access.unrestricted);
        assert!(account.discoverable && account.recovery == registration.recovery);
        let [device] = account.devices.as_slice() else {
            panic!("there is one device")
        };
        assert!(device.id == DeviceId::PRIMARY && device.mailbox == MailboxId(1001));
        assert_eq!(
            (device.registration_id.get(), device.pni_registration_id.get()),
            (2, 1_002)
        );
        assert!(device.name == registration.device.name && device.credential == registration.device.credential);
        assert!(device.sealed_number == registration.device.sealed_number && device.fetches_messages);
        assert_eq!(
            (device.capabilities, device.last_seen),
            (registration.device.capabilities, Day(20_000))
        );
    }
    assert!(accounts.find_by_number(&registration.number).await.unwrap() == Some(aci(1)));
    let keys = database.storage().keys;
    assert_eq!(
        keys.find_signed(primary(1), IdentityKind::Aci).await.unwrap(),
        Some(signed_keys(1, 1))
    );
    assert_eq!(
        keys.find_signed(primary(1), IdentityKind::Pni).await.unwrap(),
        Some(signed_keys(1, 101))
    );
}

pub(crate) async fn finds_nobody_where_there_is_nobody(database: &TestDatabase) {
    register(database, 1, 1001).await;
    let accounts = accounts(database);
    // An ACI is not a PNI, even if the bytes are the same.
    for id in [
        ServiceId::Aci(aci(9)),
        ServiceId::Pni(pni(9)),
        ServiceId::Aci(aci(101)),
        ServiceId::Pni(pni(157)),
    ] {
        assert!(accounts.find(&id).await.unwrap().is_none());
    }
    assert!(accounts.find_by_number(&NumberHash([9; 32])).await.unwrap().is_none());
}

pub(crate) async fn finds_many_at_once(database: &TestDatabase) {
    for n in 1..=4 {
        register(database, n, i64::from(n) * 10).await;
    }
    add_second_device(database).await;
    let ids = [
        ServiceId::Aci(aci(1)),
        ServiceId::Pni(pni(1)),
        ServiceId::Aci(aci(2)),
        ServiceId::Pni(pni(3)),
        ServiceId::Aci(aci(200)),
        ServiceId::Pni(pni(201)),
        // An id of one kind says nothing about the other.
        ServiceId::Pni(keys_schema::Pni::new(*aci(4).as_uuid())),
    ];
    let mut found = accounts(database).find_all(&ids).await.unwrap();
    found.sort_by_key(|account| *account.aci.as_uuid());
    let mut expected = [aci(1), aci(2), aci(3)];
    expected.sort_by_key(|aci| *aci.as_uuid());
    assert_eq!(found.iter().map(|account| account.aci).collect::<Vec<_>>(), expected);
    for account in &found {
        let devices: Vec<_> = account.devices.iter().map(|device| device.id.get()).collect();
        assert_eq!(devices, if account.aci == aci(1) { vec![1, 2] } else { vec![1] });
    }
    assert!(accounts(database).find_all(&[]).await.unwrap().is_empty());
}

pub(crate) async fn a_registration_checked_against_an_older_state_changes_nothing(database: &TestDatabase) {
    let (storage, primary) = (database.storage(), actor(1, 1001));
    register(database, 1, 1001).await;
    let secret = SecretVerifier {
        salt: [77; 16],
        hash: [77; 32],
    };
    let checked = async || find(database, 1).await.unwrap().checked();
    let refused = async |replaces| {
        let again = Registration {
            replaces,
            ..registration(1, 1003)
        };
        assert_eq!(
            storage.accounts.register(&again, NOW).await.unwrap(),
            Registered::Changed
        );
    };
    let seen = checked().await;
    assert!(storage.devices.set_lock(Some(&secret), &primary).await.unwrap());
    refused(seen).await;
    let seen = checked().await;
    let recovery = AttributesUpdate {
        recovery: Some(secret),
        ..update()
    };
    assert!(storage.accounts.update_attributes(&primary, &recovery).await.unwrap());
    refused(seen).await;
    let seen = checked().await;
    let transfer = Capabilities::from_names([("transfer", true)]);
    assert!(storage.devices.set_capabilities(transfer, &primary).await.unwrap());
    refused(seen).await;
    // Whoever saw no account, and whoever saw another account's.
    refused(None).await;
    let mut other = registration(2, 2001);
    (other.number, other.replaces) = (NumberHash([1; 32]), checked().await);
    assert_eq!(
        storage.accounts.register(&other, NOW).await.unwrap(),
        Registered::Changed
    );
    let account = find(database, 1).await.unwrap();
    assert!(account.devices[0].mailbox == MailboxId(1001) && account.lock.is_some());
    assert!(find(database, 2).await.is_none());
    assert_eq!(database.number("SELECT count(*) FROM mailboxes").await, 1);

    let seen = checked().await;
    register(database, 1, 1002).await;
    refused(seen).await;
    // The id of an account that is gone does not come back.
    let seen = checked().await;
    assert_eq!(
        storage.accounts.delete(&actor(1, 1002)).await.unwrap().mailboxes,
        [MailboxId(1002)]
    );
    refused(seen).await;
    assert_eq!(database.number("SELECT count(*) FROM accounts").await, 0);
}

pub(crate) async fn a_lock_set_meanwhile_is_not_passed_over(database: &TestDatabase) {
    for round in 0..20_i64 {
        register(database, 1, 1_000 + round).await;
        let seen = find(database, 1).await.unwrap().checked();
        let (owner, other) = (database.another().await, database.another().await);
        let locking = tokio::spawn(async move {
            let lock = SecretVerifier {
                salt: [7; 16],
                hash: [7; 32],
            };
            let by = actor(1, 1_000 + round);
            owner.devices.set_lock(Some(&lock), &by).await.unwrap()
        });
        let again = Registration {
            replaces: seen,
            ..registration(1, 2_000 + round)
        };
        let registered = other.accounts.register(&again, NOW).await.unwrap();
        let (locked, changed) = (locking.await.unwrap(), registered == Registered::Changed);
        assert_eq!(locked, changed, "{registered:?}");
    }
}

pub(crate) async fn registering_again_keeps_both_ids(database: &TestDatabase) {
    register(database, 1, 1001).await;
    let mut again = registration(3, 3001);
    (again.number, again.aci) = (NumberHash([1; 32]), aci(1));
    again.replaces = find(database, 1).await.unwrap().checked();
    let registered = accounts(database).register(&again, NOW).await.unwrap();
    assert_eq!(
        registered,
        Registered::Again {
            pni: pni(1),
            dropped: vec![MailboxId(1001)],
            avatars: vec![],
        }
    );
    let account = find(database, 1).await.unwrap();
    assert!(account.pni == pni(1) && account.aci_identity == identity(3) && account.pni_identity == identity(103));
    assert_eq!(account.devices[0].mailbox, MailboxId(3001));
    assert!(
        accounts(database)
            .find(&ServiceId::Pni(pni(3)))
            .await
            .unwrap()
            .is_none()
    );
}

pub(crate) async fn registering_again_drops_the_rest(database: &TestDatabase) {
    let storage = database.storage();
    let address = register(database, 1, 1001).await;
    add_second_device(database).await;
    for device in [actor(1, 1001), linked_actor(1, 2, 1002)] {
        let upload = KeyUpload {
            one_time: vec![ec_key(1), ec_key(2)],
            ..KeyUpload::default()
        };
        assert_eq!(
            storage.keys.publish(&device, IdentityKind::Aci, &upload).await.unwrap(),
            Published::Done(0)
        );
    }
    fill(database, &[1001, 1002]).await;
    let again = start_over(&*storage.accounts, registration(1, 1003)).await;
    let Registered::Again { mut dropped, .. } = again else {
        panic!("the number was registered");
    };
    dropped.sort();
    assert_eq!(dropped, [MailboxId(1001), MailboxId(1002)]);
    assert_eq!(find(database, 1).await.unwrap().devices.len(), 1);
    assert_eq!(storage.keys.count(address, IdentityKind::Aci).await.unwrap().ec, 0);
    assert_eq!(database.number("SELECT count(*) FROM one_time_ec_keys").await, 0);
    assert_eq!(database.number("SELECT count(*) FROM envelopes").await, 0);
    assert_eq!(database.number("SELECT count(*) FROM mailboxes").await, 1);
    assert!(storage.keys.find_signed(address, IdentityKind::Aci).await.unwrap() == Some(signed_keys(1, 1)));
}

pub(crate) async fn registering_again_with_the_same_account_is_not_a_new_one(database: &TestDatabase) {
    register(database, 1, 1001).await;
    let outcome = start_over(&*accounts(database), registration(1, 1003)).await;
    assert!(matches!(outcome, Registered::Again { .. }));
    assert_eq!(database.number("SELECT count(*) FROM accounts").await, 1);
}

pub(crate) async fn the_same_number_at_once_makes_one_account(database: &TestDatabase) {
    let mut attempts = Vec::new();
    for n in 1..=8_u8 {
        let accounts = database.another().await.accounts;
        let mut registration = registration(n, i64::from(n));
        registration.number = NumberHash([42; 32]);
        attempts.push(tokio::spawn(async move {
            (n, accounts.register(&registration, NOW).await.unwrap())
        }));
    }
    let mut winners = Vec::new();
    for attempt in attempts {
        match attempt.await.unwrap() {
            (n, Registered::New) => winners.push(aci(n)),
            (_, refused) => assert_eq!(refused, Registered::Changed),
        }
    }
    assert_eq!(winners.len(), 1);
    let owner = accounts(database).find_by_number(&NumberHash([42; 32])).await.unwrap();
    assert!(owner == Some(winners[0]));
    assert_eq!(database.number("SELECT count(*) FROM accounts").await, 1);
    assert_eq!(database.number("SELECT count(*) FROM mailboxes").await, 1);
}

pub(crate) async fn registering_again_under_fire_ends_with_one_device(database: &TestDatabase) {
    register(database, 1, 1001).await;
    let mut attempts = Vec::new();
    for n in 0..8_i64 {
        let storage = database.another().await;
        attempts.push(tokio::spawn(async move {
            let registered = start_over(&*storage.accounts, registration(1, 5_000 + n)).await;
            assert!(matches!(registered, Registered::Again { .. }));
            // `false` if the next registration has just replaced the device.
            let by = actor(1, 5_000 + n);
            storage.accounts.update_attributes(&by, &update()).await.unwrap();
            storage.accounts.touch(primary(1), Day(20_001)).await.unwrap();
            let upload = KeyUpload {
                one_time: vec![ec_key(1)],
                ..KeyUpload::default()
            };
            let _ = storage.keys.publish(&by, IdentityKind::Aci, &upload).await.unwrap();
        }));
    }
    for attempt in attempts {
        attempt.await.unwrap();
    }
    assert_eq!(find(database, 1).await.unwrap().devices.len(), 1);
    assert_eq!(database.number("SELECT count(*) FROM mailboxes").await, 1);
}

pub(crate) async fn updates_the_device_and_the_account(database: &TestDatabase) {
    register(database, 1, 1001).await;
    add_second_device(database).await;
    let by = actor(1, 1001);
    assert!(accounts(database).update_attributes(&by, &update()).await.unwrap());
    let account = find(database, 1).await.unwrap();
    assert!(account.access.sealed_key.is_none() && account.access.unrestricted && !account.discoverable);
    assert!(account.recovery == update().recovery);
    let (first, second) = (&account.devices[0], &account.devices[1]);
    assert!(first.name == update().name && !first.fetches_messages && first.capabilities == update().capabilities);
    assert!(second.name != first.name && second.fetches_messages);
}

pub(crate) async fn an_update_without_recovery_keeps_the_old_one(database: &TestDatabase) {
    register(database, 1, 1001).await;
    let update = AttributesUpdate {
        recovery: None,
        name: None,
        ..update()
    };
    let by = actor(1, 1001);
    assert!(accounts(database).update_attributes(&by, &update).await.unwrap());
    let account = find(database, 1).await.unwrap();
    assert!(account.recovery == registration(1, 1001).recovery && account.devices[0].name.is_none());
}

pub(crate) async fn an_update_of_a_device_that_is_gone_changes_nothing(database: &TestDatabase) {
    register(database, 1, 1001).await;
    for gone in [linked_actor(1, 2, 1001), actor(9, 1001)] {
        assert!(!accounts(database).update_attributes(&gone, &update()).await.unwrap());
    }
    assert!(!find(database, 1).await.unwrap().access.unrestricted);
}

pub(crate) async fn a_replaced_device_changes_nothing(database: &TestDatabase) {
    register(database, 1, 1001).await;
    register(database, 1, 1003).await;
    let replaced = actor(1, 1001);
    let accounts = accounts(database);
    assert!(!accounts.update_attributes(&replaced, &update()).await.unwrap());
    assert_eq!(accounts.delete(&replaced).await.unwrap(), Erased::default());
    let account = find(database, 1).await.unwrap();
    let device = &account.devices[0];
    assert!(!account.access.unrestricted && account.recovery == registration(1, 1003).recovery);
    assert!(device.mailbox == MailboxId(1003) && device.name == registration(1, 1003).device.name);
    assert_eq!(database.number("SELECT count(*) FROM mailboxes").await, 1);
}

pub(crate) async fn the_last_day_only_moves_forward(database: &TestDatabase) {
    let address = register(database, 1, 1001).await;
    for (today, expected) in [(20_003, 20_003), (20_001, 20_003), (20_003, 20_003), (20_004, 20_004)] {
        accounts(database).touch(address, Day(today)).await.unwrap();
        assert_eq!(find(database, 1).await.unwrap().devices[0].last_seen, Day(expected));
    }
    accounts(database).touch(primary(9), Day(20_004)).await.unwrap();
}

pub(crate) async fn deleting_leaves_nothing(database: &TestDatabase) {
    let storage = database.storage();
    register(database, 1, 1001).await;
    add_second_device(database).await;
    let second = linked_actor(1, 2, 1002);
    register(database, 2, 2001).await;
    fill(database, &[1001, 1002, 2001]).await;
    let upload = KeyUpload {
        one_time: vec![ec_key(1)],
        ..KeyUpload::default()
    };
    assert_eq!(
        storage.keys.publish(&second, IdentityKind::Pni, &upload).await.unwrap(),
        Published::Done(0)
    );
    let mut gone = storage.accounts.delete(&actor(1, 1001)).await.unwrap().mailboxes;
    gone.sort();
    assert_eq!(gone, [MailboxId(1001), MailboxId(1002)]);
    assert!(find(database, 1).await.is_none() && find(database, 2).await.is_some());
    assert!(
        storage
            .accounts
            .find_by_number(&NumberHash([1; 32]))
            .await
            .unwrap()
            .is_none()
    );
    for (statement, left) in [
        ("SELECT count(*) FROM accounts", 1),
        ("SELECT count(*) FROM devices", 1),
        ("SELECT count(*) FROM mailboxes", 1),
        ("SELECT count(*) FROM envelopes", 1),
        ("SELECT count(*) FROM signed_keys", 2),
        ("SELECT count(*) FROM one_time_ec_keys", 0),
    ] {
        assert_eq!(database.number(statement).await, left, "{statement}");
    }
}

pub(crate) async fn deleting_twice_is_harmless(database: &TestDatabase) {
    register(database, 1, 1001).await;
    let by = actor(1, 1001);
    let erased = accounts(database).delete(&by).await.unwrap();
    assert_eq!(erased.mailboxes, [MailboxId(1001)]);
    assert_eq!(accounts(database).delete(&by).await.unwrap(), Erased::default());
    assert_eq!(
        accounts(database).register(&registration(1, 1003), NOW).await.unwrap(),
        Registered::New
    );
}

pub(crate) async fn a_dropped_registration_is_whole_or_absent(database: &TestDatabase) {
    let accounts = accounts(database);
    for n in 0..60_u8 {
        let registration = registration(n, i64::from(n));
        let limit = Duration::from_micros(u64::from(n) * 60);
        drop(tokio::time::timeout(limit, accounts.register(&registration, NOW)).await);
    }
    // Whatever was still under way has ended, or ends before this, which waits for the same rows.
    for n in 0..60_u8 {
        let registered = start_over(&*accounts, registration(n, 1_000 + i64::from(n))).await;
        assert!(matches!(registered, Registered::New | Registered::Again { .. }));
        if let Registered::Again { dropped, .. } = registered {
            assert_eq!(dropped, [MailboxId(i64::from(n))]);
        }
        assert_eq!(find(database, n).await.unwrap().devices.len(), 1);
    }
    assert_eq!(database.number("SELECT count(*) FROM mailboxes").await, 60);
    assert_eq!(database.number("SELECT count(*) FROM signed_keys").await, 120);
}

/// Puts one envelope into each mailbox.
async fn fill(database: &TestDatabase, mailboxes: &[i64]) {
    use crate::domain::{Batch, Delivery, Enqueued};
    let copy = |mailbox: &i64| sealed_copy(MailboxId(*mailbox), 1, b"x");
    let delivery = Delivery {
        copies: mailboxes.iter().map(copy).collect(),
        expires: Day(1),
        ..Delivery::default()
    };
    let batch = Batch {
        deliveries: vec![delivery],
        acknowledgements: Vec::new(),
    };
    let outcomes = database.storage().queue.commit(&batch).await.unwrap();
    assert!(matches!(outcomes[0], Enqueued::At(_)));
}
