//! What every device store promises.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::fixtures::{
    aci, actor, add_second_device, device_link, ec_key, linked, linked_actor, offer, register, registration,
    sealed_copy, signed_keys, start_over,
};
use crate::domain::{
    Account, Actor, Batch, BlockChange, BlockTag, Blocks, BlocksChanged, Capabilities, Day, Delivery, DeviceId,
    DeviceLink, DeviceName, Enqueued, IdentityKind, KeyUpload, LinkTokenHash, Linked, MailboxId, Published,
    QueueLimits, Registered, SecretVerifier, ServiceId, Timestamp,
};
use crate::storage::testing::{ROOMY, TestDatabase};
use crate::storage::{DeviceStore, OPEN_OFFERS};

pub(crate) const LIMITS: QueueLimits = ROOMY;

fn devices(database: &TestDatabase) -> Arc<dyn DeviceStore> {
    database.storage().devices
}

fn id(id: u64) -> DeviceId {
    DeviceId::new(id).unwrap()
}

async fn find(database: &TestDatabase, n: u8) -> Account {
    let account = database.storage().accounts.find(&ServiceId::Aci(aci(n))).await;
    account.unwrap().unwrap()
}

/// Account 1 with its primary, and an offer that stands until 1000.
async fn offered(database: &TestDatabase) -> Actor {
    register(database, 1, 1001).await;
    let by = actor(1, 1001);
    assert!(devices(database).offer(&offer(1, 1_000), &by).await.unwrap());
    by
}

/// Offer `n` of account 1.
async fn offer_again(database: &TestDatabase, n: u8, expires: i64) -> LinkTokenHash {
    let mut again = offer(1, expires);
    again.key = LinkTokenHash([n; 32]);
    assert!(devices(database).offer(&again, &actor(1, 1001)).await.unwrap());
    again.key
}

async fn open_offers(database: &TestDatabase) -> i64 {
    database
        .number("SELECT count(*) FROM link_offers WHERE device_id IS NULL")
        .await
}

pub(crate) async fn an_offer_is_found_until_it_expires_or_is_taken_up(database: &TestDatabase) {
    offered(database).await;
    let (devices, made) = (devices(database), offer(1, 1_000));
    let found = devices.find_offer(&made.key, Timestamp(999)).await.unwrap().unwrap();
    assert!(found.key == made.key && found.aci == made.aci && found.sealed_number == made.sealed_number);
    assert_eq!(found.expires, made.expires);
    let gone = devices.find_offer(&made.key, Timestamp(1_000)).await.unwrap();
    assert!(gone.is_none());
    let late = devices.link(&device_link(1, 2, 1002), Timestamp(1_000)).await.unwrap();
    assert_eq!(late, Linked::NoOffer);
    let in_time = devices.link(&device_link(1, 2, 1002), Timestamp(999)).await.unwrap();
    assert_eq!(in_time, Linked::Done);
    assert!(devices.find_offer(&made.key, Timestamp(0)).await.unwrap().is_none());
    let sealed = "SELECT count(*) FROM link_offers WHERE sealed_number IS NOT NULL";
    assert_eq!(database.number(sealed).await, 0, "the number is not needed any more");
}

pub(crate) async fn an_offer_by_a_device_that_is_gone_is_not_made(database: &TestDatabase) {
    register(database, 1, 1001).await;
    for nobody in [actor(1, 1009), actor(9, 1001)] {
        assert!(!devices(database).offer(&offer(1, 1_000), &nobody).await.unwrap());
    }
    assert_eq!(open_offers(database).await, 0);
}

pub(crate) async fn an_account_has_few_open_offers_and_the_newest_stay(database: &TestDatabase) {
    register(database, 1, 1001).await;
    let offers = u8::try_from(OPEN_OFFERS).unwrap() + 3;
    for n in 1..=offers {
        offer_again(database, n, i64::from(n)).await;
    }
    assert_eq!(open_offers(database).await, i64::from(OPEN_OFFERS));
    for n in 1..=offers {
        let found = devices(database)
            .find_offer(&LinkTokenHash([n; 32]), Timestamp(0))
            .await;
        assert_eq!(found.unwrap().is_some(), n > 3, "{n}");
    }
}

pub(crate) async fn a_linked_device_is_whole(database: &TestDatabase) {
    offered(database).await;
    let (storage, link) = (database.storage(), device_link(1, 2, 1002));
    let waiting = async |now| {
        let linked = storage.devices.linked_with(&link.offer, aci(1), Timestamp(now)).await;
        linked.unwrap()
    };
    assert_eq!(waiting(0).await, None);
    assert_eq!(storage.devices.link(&link, Timestamp(0)).await.unwrap(), Linked::Done);
    let account = find(database, 1).await;
    let device = account.device(id(2)).unwrap();
    assert!(device.mailbox == MailboxId(1002) && device.credential == link.device.credential);
    assert!(device.name == link.device.name && device.sealed_number == link.device.sealed_number);
    assert!(device.created_at == link.device.created_at && device.capabilities == link.device.capabilities);
    assert_eq!(
        (device.registration_id.get(), device.pni_registration_id.get()),
        (77, 78)
    );
    for (kind, keys) in [(IdentityKind::Aci, 201), (IdentityKind::Pni, 301)] {
        let found = storage.keys.find_signed(linked(1, 2), kind).await.unwrap();
        assert_eq!(found, Some(signed_keys(1, keys)));
    }
    let heads = storage.queue.heads(&[MailboxId(1002)]).await.unwrap();
    assert_eq!(heads.len(), 1);
    assert_eq!(waiting(0).await, Some(id(2)));
    assert_eq!(waiting(99_999).await, Some(id(2)));
    assert_eq!(waiting(100_000).await, None);
    let others = storage.devices.linked_with(&link.offer, aci(2), Timestamp(0)).await;
    assert_eq!(others.unwrap(), None);
}

pub(crate) async fn an_offer_is_taken_up_once_under_concurrency(database: &TestDatabase) {
    offered(database).await;
    let mut attempts = Vec::new();
    for n in 0..50 {
        let devices = database.another().await.devices;
        // Under ids of their own, so that nothing but the offer stands between them.
        let link = DeviceLink {
            max_devices: 127,
            ..device_link(1, 2 + n, 2_000 + i64::try_from(n).unwrap())
        };
        attempts.push(tokio::spawn(async move { devices.link(&link, Timestamp(0)).await }));
    }
    let mut outcomes = Vec::new();
    for attempt in attempts {
        outcomes.push(attempt.await.unwrap().unwrap());
    }
    let count = |outcome| outcomes.iter().filter(|other| **other == outcome).count();
    assert_eq!((count(Linked::Done), count(Linked::NoOffer)), (1, 49));
    assert_eq!(find(database, 1).await.devices.len(), 2);
    assert_eq!(database.number("SELECT count(*) FROM mailboxes").await, 2);
}

pub(crate) async fn links_at_once_never_pass_the_limit_nor_share_an_id(database: &TestDatabase) {
    register(database, 1, 1001).await;
    let mut attempts = Vec::new();
    for n in 1..=u8::try_from(OPEN_OFFERS).unwrap() {
        let offer = offer_again(database, n, 1_000).await;
        let devices = database.another().await.devices;
        attempts.push(tokio::spawn(async move {
            // All begin with the same id, as those do that looked at the same time.
            for next in 2.. {
                let link = DeviceLink {
                    offer,
                    ..device_link(1, next, 2_000 + i64::from(n))
                };
                match devices.link(&link, Timestamp(0)).await.unwrap() {
                    Linked::IdTaken => {}
                    outcome => return outcome,
                }
            }
            unreachable!("there are more ids than devices")
        }));
    }
    let mut outcomes = Vec::new();
    for attempt in attempts {
        outcomes.push(attempt.await.unwrap());
    }
    let done = outcomes.iter().filter(|outcome| **outcome == Linked::Done).count();
    let full = outcomes.iter().filter(|outcome| **outcome == Linked::Full(6)).count();
    assert_eq!((done, full), (5, 5));
    let account = find(database, 1).await;
    let ids: BTreeSet<u8> = account.devices.iter().map(|device| device.id.get()).collect();
    assert_eq!(ids, (1..=6).collect());
    assert_eq!(open_offers(database).await, 5, "who found no room may try again");
}

pub(crate) async fn an_offer_of_another_account_links_nothing(database: &TestDatabase) {
    offered(database).await;
    register(database, 2, 2001).await;
    let forged = DeviceLink {
        aci: aci(2),
        ..device_link(1, 2, 2002)
    };
    assert_eq!(
        devices(database).link(&forged, Timestamp(0)).await.unwrap(),
        Linked::NoOffer
    );
    assert_eq!(find(database, 2).await.devices.len(), 1);
    assert_eq!(open_offers(database).await, 1);
}

pub(crate) async fn registering_again_withdraws_offers_and_drops_linked_devices(database: &TestDatabase) {
    offered(database).await;
    let storage = database.storage();
    storage
        .devices
        .link(&device_link(1, 2, 1002), Timestamp(0))
        .await
        .unwrap();
    let open = offer_again(database, 7, 1_000).await;
    let registered = start_over(&*storage.accounts, registration(1, 1003)).await;
    assert!(matches!(registered, Registered::Again { dropped, .. } if dropped.len() == 2));
    let link = DeviceLink {
        offer: open,
        ..device_link(1, 2, 1004)
    };
    assert_eq!(
        storage.devices.link(&link, Timestamp(0)).await.unwrap(),
        Linked::NoOffer
    );
    assert_eq!(database.number("SELECT count(*) FROM link_offers").await, 0);
    assert_eq!(find(database, 1).await.devices.len(), 1);
}

pub(crate) async fn removing_a_device_under_fire_leaves_nothing(database: &TestDatabase) {
    register(database, 1, 1001).await;
    add_second_device(database).await;
    let second = linked_actor(1, 2, 1002);
    let storage = database.storage();
    let upload = KeyUpload {
        one_time: vec![ec_key(1)],
        ..KeyUpload::default()
    };
    assert_eq!(
        storage.keys.publish(&second, IdentityKind::Aci, &upload).await.unwrap(),
        Published::Done(0)
    );
    let mut senders = Vec::new();
    for _ in 0..4 {
        let queue = database.another().await.queue;
        senders.push(tokio::spawn(async move {
            let copy = |mailbox| sealed_copy(MailboxId(mailbox), 1, b"x");
            let batch = Batch {
                deliveries: vec![Delivery {
                    copies: vec![copy(1002), copy(1001)],
                    expires: Day(1),
                    ..Delivery::default()
                }],
                acknowledgements: vec![],
            };
            while queue.commit(&batch).await.unwrap() != [Enqueued::UnknownMailbox] {}
        }));
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
    let removed = storage.devices.remove(id(2), &actor(1, 1001)).await.unwrap();
    assert_eq!(removed, [MailboxId(1002)]);
    for sender in senders {
        let told = tokio::time::timeout(Duration::from_secs(30), sender).await;
        told.expect("every sender is told").unwrap();
    }
    for (statement, left) in [
        ("SELECT count(*) FROM devices", 1),
        ("SELECT count(*) FROM mailboxes", 1),
        ("SELECT count(*) FROM envelopes WHERE mailbox = 1002", 0),
        ("SELECT count(*) FROM signed_keys", 2),
        ("SELECT count(*) FROM one_time_ec_keys", 0),
        ("SELECT count(*) FROM link_offers", 0),
    ] {
        assert_eq!(database.number(statement).await, left, "{statement}");
    }
    let again = storage.devices.remove(id(2), &actor(1, 1001)).await.unwrap();
    assert!(again.is_empty());
}

pub(crate) async fn only_linked_devices_are_removed_and_only_by_who_is_still_there(database: &TestDatabase) {
    register(database, 1, 1001).await;
    let second = add_second_device(database).await;
    register(database, 2, 2001).await;
    for (device, by) in [
        (id(1), actor(1, 1001)),
        (id(2), actor(1, 1009)),
        (id(2), actor(2, 2001)),
        (id(3), actor(1, 1001)),
    ] {
        assert!(devices(database).remove(device, &by).await.unwrap().is_empty());
    }
    assert_eq!(find(database, 1).await.devices.len(), 2);
    let itself = Actor {
        address: second,
        mailbox: MailboxId(1002),
    };
    let removed = devices(database).remove(id(2), &itself).await.unwrap();
    assert_eq!(removed, [MailboxId(1002)]);
}

pub(crate) async fn what_a_replaced_device_asks_for_does_not_happen(database: &TestDatabase) {
    register(database, 1, 1001).await;
    let (devices, replaced) = (devices(database), actor(1, 1009));
    let lock = SecretVerifier {
        salt: [1; 16],
        hash: [2; 32],
    };
    let name = DeviceName::new(vec![5; 5]).unwrap();
    assert!(!devices.rename(id(1), &name, &replaced).await.unwrap());
    assert!(
        !devices
            .set_capabilities(Capabilities::default(), &replaced)
            .await
            .unwrap()
    );
    assert!(!devices.set_lock(Some(&lock), &replaced).await.unwrap());
    assert!(!devices.set_discoverable(false, &replaced).await.unwrap());
    let account = find(database, 1).await;
    assert!(account.lock.is_none() && account.discoverable);
    assert!(account.devices[0].name == registration(1, 1001).device.name);
    assert!(account.devices[0].capabilities.has("spqr"));
}

pub(crate) async fn changes_touch_what_they_name(database: &TestDatabase) {
    register(database, 1, 1001).await;
    add_second_device(database).await;
    let (devices, by) = (devices(database), actor(1, 1001));
    let name = DeviceName::new(vec![5; 5]).unwrap();
    assert!(devices.rename(id(2), &name, &by).await.unwrap());
    assert!(!devices.rename(id(3), &name, &by).await.unwrap());
    let storage_only = Capabilities::from_names([("storage", true)]);
    assert!(devices.set_capabilities(storage_only, &by).await.unwrap());
    let lock = SecretVerifier {
        salt: [1; 16],
        hash: [2; 32],
    };
    assert!(devices.set_lock(Some(&lock), &by).await.unwrap());
    assert!(devices.set_discoverable(false, &by).await.unwrap());
    let account = find(database, 1).await;
    let (first, second) = (&account.devices[0], &account.devices[1]);
    assert!(second.name == Some(name) && first.name == registration(1, 1001).device.name);
    assert!(first.capabilities == storage_only && second.capabilities.has("spqr"));
    assert!(account.lock == Some(lock) && !account.discoverable);
    assert!(devices.set_lock(None, &by).await.unwrap());
    assert!(find(database, 1).await.lock.is_none());
}

pub(crate) async fn idle_linked_devices_go_in_batches_and_primaries_stay(database: &TestDatabase) {
    for n in 1..=3 {
        register(database, n, i64::from(n) * 1_000).await;
        let by = actor(n, i64::from(n) * 1_000);
        assert!(devices(database).offer(&offer(n, 1_000), &by).await.unwrap());
        let link = device_link(n, 2, i64::from(n) * 1_000 + 2);
        assert_eq!(devices(database).link(&link, Timestamp(0)).await.unwrap(), Linked::Done);
    }
    // All were seen on day 20000; the third comes back once more.
    let accounts = database.storage().accounts;
    accounts.touch(linked(3, 2), Day(20_001)).await.unwrap();
    assert!(devices(database).remove_idle(Day(20_000), 10).await.unwrap().is_empty());
    let mut removed = devices(database).remove_idle(Day(20_001), 1).await.unwrap();
    assert_eq!(removed.len(), 1);
    removed.extend(devices(database).remove_idle(Day(20_001), 10).await.unwrap());
    removed.sort_by_key(|(_, mailbox)| *mailbox);
    assert_eq!(removed, [(aci(1), MailboxId(1_002)), (aci(2), MailboxId(2_002))]);
    assert!(devices(database).remove_idle(Day(20_001), 10).await.unwrap().is_empty());
    assert_eq!(database.number("SELECT count(*) FROM mailboxes").await, 4);
    assert_eq!(find(database, 3).await.devices.len(), 2);
}

pub(crate) async fn devices_that_are_connected_are_seen(database: &TestDatabase) {
    register(database, 1, 1001).await;
    add_second_device(database).await;
    devices(database).seen(&[], Day(20_005)).await.unwrap();
    let here = [MailboxId(1002), MailboxId(4_711)];
    for (today, expected) in [(20_003, 20_003), (20_001, 20_003)] {
        devices(database).seen(&here, Day(today)).await.unwrap();
        let account = find(database, 1).await;
        assert_eq!(account.devices[1].last_seen, Day(expected));
        assert_eq!(account.devices[0].last_seen, Day(20_000));
    }
}

pub(crate) async fn expired_offers_are_dropped_and_counted(database: &TestDatabase) {
    register(database, 1, 1001).await;
    add_second_device(database).await;
    for n in 2..=4 {
        offer_again(database, n, i64::from(n) * 10).await;
    }
    assert_eq!(devices(database).expire_offers(Timestamp(30)).await.unwrap(), 2);
    assert_eq!(devices(database).expire_offers(Timestamp(30)).await.unwrap(), 0);
    // What was taken up is remembered for longer.
    assert_eq!(database.number("SELECT count(*) FROM link_offers").await, 2);
    assert_eq!(devices(database).expire_offers(Timestamp(100_000)).await.unwrap(), 2);
    assert_eq!(find(database, 1).await.devices.len(), 2);
}

fn tag(n: usize) -> BlockTag {
    let mut tag = [0; 16];
    tag[..8].copy_from_slice(&(n as u64).to_be_bytes());
    BlockTag(tag)
}

pub(crate) async fn blocks_are_kept_until_they_are_taken_back(database: &TestDatabase) {
    for n in [1, 2] {
        register(database, n, i64::from(n) * 1_000 + 1).await;
    }
    let (devices, by) = (devices(database), actor(1, 1_001));
    assert!(find(database, 1).await.blocks.is_empty());
    for n in [3, 1, 2, 3] {
        let change = BlockChange::Add(tag(n));
        assert_eq!(devices.change_blocks(change, &by).await.unwrap(), BlocksChanged::Done);
    }
    let blocks = find(database, 1).await.blocks;
    assert_eq!(blocks.len(), 3);
    assert!((1..=3).all(|n| blocks.contains(&tag(n))) && !blocks.contains(&tag(4)));
    assert!(find(database, 2).await.blocks.is_empty());
    for n in [2, 9] {
        let change = BlockChange::Remove(tag(n));
        assert_eq!(devices.change_blocks(change, &by).await.unwrap(), BlocksChanged::Done);
    }
    let blocks = find(database, 1).await.blocks;
    assert!(blocks.len() == 2 && !blocks.contains(&tag(2)));
    assert_eq!(
        devices.change_blocks(BlockChange::Clear, &by).await.unwrap(),
        BlocksChanged::Done
    );
    assert!(find(database, 1).await.blocks.is_empty());
    let stored = "SELECT count(*) FROM accounts WHERE blocks IS NOT NULL";
    assert_eq!(database.number(stored).await, 0);
}

pub(crate) async fn a_full_list_of_blocks_takes_no_more(database: &TestDatabase) {
    register(database, 1, 1001).await;
    let (devices, by) = (devices(database), actor(1, 1001));
    let mut full = Blocks::default();
    for n in 0..Blocks::MAX {
        full = full.changed(&BlockChange::Add(tag(n))).unwrap();
    }
    // One by one they would take long.
    database
        .execute_either(
            "WITH RECURSIVE tags (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM tags WHERE n < 999) UPDATE accounts \
             SET blocks = (SELECT unhex(group_concat(printf('%016x%016x', n, 0), '')) FROM tags)",
            "UPDATE accounts SET blocks = (SELECT decode(string_agg(lpad(to_hex(n), 16, '0') || repeat('0', 16), '' \
             ORDER BY n), 'hex') FROM generate_series(0, 999) AS n)",
        )
        .await;
    assert!(find(database, 1).await.blocks == full);
    let add = |n| BlockChange::Add(tag(n));
    let more = devices.change_blocks(add(Blocks::MAX), &by).await.unwrap();
    assert_eq!(more, BlocksChanged::TooMany);
    assert!(find(database, 1).await.blocks == full);
    // Who is blocked already is no one more.
    assert_eq!(devices.change_blocks(add(5), &by).await.unwrap(), BlocksChanged::Done);
    let fewer = devices.change_blocks(BlockChange::Remove(tag(5)), &by);
    assert_eq!(fewer.await.unwrap(), BlocksChanged::Done);
    let again = devices.change_blocks(add(Blocks::MAX), &by).await.unwrap();
    assert_eq!(again, BlocksChanged::Done);
    assert_eq!(find(database, 1).await.blocks.len(), Blocks::MAX);
}

pub(crate) async fn of_blocks_at_once_none_is_lost(database: &TestDatabase) {
    register(database, 1, 1001).await;
    add_second_device(database).await;
    let tasks: Vec<_> = (0..40)
        .map(|n| {
            let devices = devices(database);
            let by = if n % 2 == 0 {
                actor(1, 1001)
            } else {
                linked_actor(1, 2, 1002)
            };
            tokio::spawn(async move {
                let done = devices.change_blocks(BlockChange::Add(tag(n)), &by).await.unwrap();
                assert_eq!(done, BlocksChanged::Done);
                if n % 4 == 0 {
                    devices.change_blocks(BlockChange::Remove(tag(n)), &by).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let blocks = find(database, 1).await.blocks;
    assert_eq!(blocks.len(), 30);
    assert!((0..40).all(|n| blocks.contains(&tag(n)) == (n % 4 != 0)));
}

pub(crate) async fn a_replaced_device_blocks_nobody(database: &TestDatabase) {
    register(database, 1, 1001).await;
    register(database, 1, 1009).await;
    for change in [
        BlockChange::Add(tag(1)),
        BlockChange::Remove(tag(1)),
        BlockChange::Clear,
    ] {
        let done = devices(database).change_blocks(change, &actor(1, 1001)).await.unwrap();
        assert_eq!(done, BlocksChanged::Gone);
    }
    assert!(find(database, 1).await.blocks.is_empty());
}

pub(crate) async fn registering_again_blocks_nobody(database: &TestDatabase) {
    register(database, 1, 1001).await;
    let add = devices(database)
        .change_blocks(BlockChange::Add(tag(1)), &actor(1, 1001))
        .await;
    assert_eq!(add.unwrap(), BlocksChanged::Done);
    register(database, 1, 1009).await;
    assert!(find(database, 1).await.blocks.is_empty());
}
