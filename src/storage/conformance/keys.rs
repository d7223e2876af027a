//! What every key store promises.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::fixtures::{
    actor, add_second_device, claim, ec_key, identity, kyber_key, linked_actor, register, signed_key, signed_keys,
    take_alone,
};
use crate::domain::{
    BundleSelector, Day, DeviceId, IdentityKind, KeyCount, KeyUpload, KyberSource, PreKeyBundle, ProtocolAddress,
    Published, QueueLimits, Take,
};
use crate::storage::KeyStore;
use crate::storage::testing::{ROOMY, TestDatabase};

pub(crate) const LIMITS: QueueLimits = ROOMY;

type Keys = Arc<dyn KeyStore>;

async fn keys(database: &TestDatabase) -> (Keys, ProtocolAddress) {
    let address = register(database, 1, 1001).await;
    (database.storage().keys, address)
}

/// One-time keys with these ids, of both sorts.
fn upload(ec: impl IntoIterator<Item = u32>, kyber: impl IntoIterator<Item = u32>) -> KeyUpload {
    KeyUpload {
        one_time: ec.into_iter().map(ec_key).collect(),
        one_time_kyber: kyber.into_iter().map(|id| kyber_key(id, id)).collect(),
        ..KeyUpload::default()
    }
}

/// A claim of one device.
fn of(kind: IdentityKind, device: DeviceId) -> Take {
    Take {
        kind,
        selector: BundleSelector::One(device),
        ..claim(1)
    }
}

/// The bundle of the primary device.
async fn take(keys: &Keys, kind: IdentityKind) -> PreKeyBundle {
    let taken = take_alone(keys, of(kind, DeviceId::PRIMARY), TODAY).await.unwrap();
    assert_eq!(taken.devices.len(), 1);
    taken.devices.into_iter().next().unwrap()
}

async fn count(keys: &Keys, address: ProtocolAddress, kind: IdentityKind) -> (u32, u32) {
    let KeyCount { ec, kyber } = keys.count(address, kind).await.unwrap();
    (ec, kyber)
}

pub(crate) async fn publishing_replaces_whole_sets(database: &TestDatabase) {
    let (keys, address) = keys(database).await;
    assert_eq!(
        keys.publish(&actor(1, 1001), ACI, &upload(1..=100, 1..=100))
            .await
            .unwrap(),
        DONE
    );
    assert_eq!(
        keys.publish(&actor(1, 1001), ACI, &upload([7, 5], [9])).await.unwrap(),
        DONE
    );
    assert_eq!(count(&keys, address, ACI).await, (2, 1));
    let bundle = take(&keys, ACI).await;
    assert!(bundle.one_time == Some(ec_key(7)) && bundle.kyber == kyber_key(9, 9));
}

pub(crate) async fn publishing_leaves_what_is_absent(database: &TestDatabase) {
    let (keys, address) = keys(database).await;
    keys.publish(&actor(1, 1001), ACI, &upload([1, 2], [3])).await.unwrap();
    keys.publish(&actor(1, 1001), ACI, &upload([], [4, 5])).await.unwrap();
    assert_eq!(count(&keys, address, ACI).await, (2, 2));
    keys.publish(&actor(1, 1001), ACI, &KeyUpload::default()).await.unwrap();
    assert_eq!(count(&keys, address, ACI).await, (2, 2));
    assert_eq!(keys.find_signed(address, ACI).await.unwrap(), Some(signed_keys(1, 1)));
}

pub(crate) async fn publishing_replaces_signed_keys_one_by_one(database: &TestDatabase) {
    let (keys, address) = keys(database).await;
    let mut expected = signed_keys(1, 1);
    expected.signed = signed_key(30, 31);
    let signed = KeyUpload {
        signed: Some(expected.signed.clone()),
        ..KeyUpload::default()
    };
    keys.publish(&actor(1, 1001), ACI, &signed).await.unwrap();
    assert_eq!(keys.find_signed(address, ACI).await.unwrap().as_ref(), Some(&expected));
    expected.last_resort = kyber_key(32, 33);
    let last_resort = KeyUpload {
        last_resort: Some(expected.last_resort.clone()),
        ..KeyUpload::default()
    };
    keys.publish(&actor(1, 1001), ACI, &last_resort).await.unwrap();
    assert_eq!(keys.find_signed(address, ACI).await.unwrap(), Some(expected));
}

pub(crate) async fn publishing_for_a_device_that_is_gone_answers_false(database: &TestDatabase) {
    let (keys, _) = keys(database).await;
    for nobody in [linked_actor(1, 2, 1001), actor(9, 1001)] {
        assert_eq!(
            keys.publish(&nobody, ACI, &upload([1], [1])).await.unwrap(),
            Published::Gone
        );
        assert_eq!(count(&keys, nobody.address, ACI).await, (0, 0));
        assert_eq!(keys.find_signed(nobody.address, ACI).await.unwrap(), None);
    }
}

pub(crate) async fn a_replaced_device_publishes_nothing(database: &TestDatabase) {
    let (keys, address) = keys(database).await;
    register(database, 1, 1003).await;
    let SignedUpload(signed) = SignedUpload::new(5);
    for old in [signed, upload([1], [1])] {
        assert_eq!(keys.publish(&actor(1, 1001), ACI, &old).await.unwrap(), Published::Gone);
    }
    assert_eq!(count(&keys, address, ACI).await, (0, 0));
    assert_eq!(keys.find_signed(address, ACI).await.unwrap(), Some(signed_keys(1, 1)));
}

pub(crate) async fn concurrent_uploads_do_not_mix(database: &TestDatabase) {
    let (keys, address) = keys(database).await;
    let mut uploads = Vec::new();
    for uploader in 0..8_u32 {
        let keys = database.another().await.keys;
        uploads.push(tokio::spawn(async move {
            let ids = || (0..20 + uploader).map(move |n| uploader * 1_000 + n);
            for _ in 0..5 {
                assert_eq!(
                    keys.publish(&actor(1, 1001), ACI, &upload(ids(), ids())).await.unwrap(),
                    DONE
                );
            }
        }));
    }
    for upload in uploads {
        upload.await.unwrap();
    }
    let (ec, kyber) = count(&keys, address, ACI).await;
    assert_eq!(ec, kyber);
    let winner = ec - 20;
    for n in 0..ec {
        let bundle = take(&keys, ACI).await;
        assert!(
            bundle.one_time == Some(ec_key(winner * 1_000 + n)),
            "the keys are of one upload"
        );
    }
}

pub(crate) async fn one_time_keys_are_handed_out_in_upload_order(database: &TestDatabase) {
    let (keys, _) = keys(database).await;
    keys.publish(&actor(1, 1001), ACI, &upload([9, 4, 6], [8, 2]))
        .await
        .unwrap();
    let mut order = Vec::new();
    for _ in 0..3 {
        let bundle = take(&keys, ACI).await;
        order.push((bundle.one_time.map(|key| key.id.get()), bundle.kyber.id.get()));
    }
    assert_eq!(order, [(Some(9), 8), (Some(4), 2), (Some(6), 1)]);
}

pub(crate) async fn b13_one_time_keys_are_handed_out_once_under_concurrency(database: &TestDatabase) {
    let (keys, address) = keys(database).await;
    // More keys than there are takes of the one sort, fewer of the other: both must come out exactly.
    let takes = TAKERS * TAKES;
    keys.publish(&actor(1, 1001), ACI, &upload(0..takes + 10, 0..takes - 10))
        .await
        .unwrap();
    let mut takers = Vec::new();
    for _ in 0..TAKERS {
        let keys = database.another().await.keys;
        takers.push(tokio::spawn(async move {
            let mut bundles = Vec::new();
            for _ in 0..TAKES {
                bundles.push(take(&keys, ACI).await);
            }
            bundles
        }));
    }
    let mut ec = Vec::new();
    let mut kyber = Vec::new();
    for taker in takers {
        for bundle in taker.await.unwrap() {
            ec.extend(bundle.one_time.map(|key| key.id));
            if bundle.kyber_source == KyberSource::OneTime {
                kyber.push(bundle.kyber.id);
            }
        }
    }
    let (takes, distinct) = (usize::try_from(takes).unwrap(), |ids: &[_]| {
        ids.iter().copied().collect::<BTreeSet<_>>().len()
    });
    assert_eq!((ec.len(), distinct(&ec)), (takes, takes));
    assert_eq!((kyber.len(), distinct(&kyber)), (takes - 10, takes - 10));
    assert_eq!(count(&keys, address, ACI).await, (10, 0));
}

pub(crate) async fn every_device_gives_a_bundle(database: &TestDatabase) {
    let (keys, address) = keys(database).await;
    let second = add_second_device(database).await;
    let SignedUpload(signed) = SignedUpload::new(5);
    keys.publish(
        &linked_actor(1, 2, 1002),
        ACI,
        &KeyUpload {
            one_time: vec![ec_key(20)],
            ..signed
        },
    )
    .await
    .unwrap();
    keys.publish(&actor(1, 1001), ACI, &upload([10, 11], [12]))
        .await
        .unwrap();
    let taken = take_alone(&keys, claim(1), TODAY).await.unwrap();
    assert!(taken.identity == identity(1));
    let summary = |bundle: &PreKeyBundle| {
        let one_time = bundle.one_time.as_ref().map(|key| key.id.get());
        (
            bundle.device_id.get(),
            bundle.registration_id.get(),
            one_time,
            bundle.kyber_source,
        )
    };
    let expected = [
        (1, 2, Some(10), KyberSource::OneTime),
        (2, 77, Some(20), KyberSource::LastResort),
    ];
    assert_eq!(taken.devices.iter().map(summary).collect::<Vec<_>>(), expected);
    assert_eq!(count(&keys, address, ACI).await, (1, 0));
    let one = take_alone(&keys, of(ACI, second.device_id), TODAY).await.unwrap();
    assert_eq!(
        one.devices.iter().map(summary).collect::<Vec<_>>(),
        [(2, 77, None, KyberSource::LastResort)]
    );
    assert_eq!(
        count(&keys, address, ACI).await,
        (1, 0),
        "the other device keeps its keys"
    );
}

pub(crate) async fn an_exhausted_device_still_gives_bundles(database: &TestDatabase) {
    let (keys, _) = keys(database).await;
    keys.publish(&actor(1, 1001), ACI, &upload([1], [2])).await.unwrap();
    assert!(take(&keys, ACI).await.one_time == Some(ec_key(1)));
    let bundle = take(&keys, ACI).await;
    assert!(bundle.one_time.is_none());
    assert!(bundle.signed == signed_keys(1, 1).signed && bundle.kyber == signed_keys(1, 1).last_resort);
}

pub(crate) async fn the_last_resort_key_is_never_consumed(database: &TestDatabase) {
    let (keys, address) = keys(database).await;
    for _ in 0..3 {
        let bundle = take(&keys, ACI).await;
        assert_eq!(bundle.kyber_source, KyberSource::LastResort);
        assert!(bundle.kyber == signed_keys(1, 1).last_resort);
    }
    assert_eq!(keys.find_signed(address, ACI).await.unwrap(), Some(signed_keys(1, 1)));
}

pub(crate) async fn nobody_has_no_bundles(database: &TestDatabase) {
    let (keys, address) = keys(database).await;
    keys.publish(&actor(1, 1001), ACI, &upload([1], [2])).await.unwrap();
    let second = of(ACI, DeviceId::new(2).unwrap());
    assert!(take_alone(&keys, second, TODAY).await.is_none());
    assert!(take_alone(&keys, claim(9), TODAY).await.is_none());
    assert!(keys.take_bundles(&[], TODAY).await.unwrap().is_empty());
    assert_eq!(count(&keys, address, ACI).await, (1, 1));
}

pub(crate) async fn a_device_without_signed_keys_is_left_out(database: &TestDatabase) {
    let (keys, _) = keys(database).await;
    let second = add_second_device(database).await;
    // A link brings them; only damage takes them away.
    database.execute("DELETE FROM signed_keys WHERE device_id = 2").await;
    let SignedUpload(signed) = SignedUpload::new(5);
    let incomplete = KeyUpload {
        last_resort: None,
        one_time: vec![ec_key(20)],
        ..signed
    };
    keys.publish(&linked_actor(1, 2, 1002), ACI, &incomplete).await.unwrap();
    assert_eq!(keys.find_signed(second, ACI).await.unwrap(), None);
    let taken = take_alone(&keys, claim(1), TODAY).await.unwrap();
    assert_eq!(
        taken
            .devices
            .iter()
            .map(|bundle| bundle.device_id.get())
            .collect::<Vec<_>>(),
        [1]
    );
    let alone = take_alone(&keys, of(ACI, second.device_id), TODAY).await.unwrap();
    assert!(alone.devices.is_empty());
    assert_eq!(
        count(&keys, second, ACI).await,
        (1, 0),
        "nothing is consumed of a device that is left out"
    );
}

pub(crate) async fn the_namespaces_are_separate(database: &TestDatabase) {
    let (keys, address) = keys(database).await;
    keys.publish(&actor(1, 1001), ACI, &upload([1], [2])).await.unwrap();
    keys.publish(&actor(1, 1001), PNI, &upload([3, 4], [5])).await.unwrap();
    assert_eq!(
        (count(&keys, address, ACI).await, count(&keys, address, PNI).await),
        ((1, 1), (2, 1))
    );
    let taken = take_alone(&keys, Take { kind: PNI, ..claim(1) }, TODAY).await.unwrap();
    let bundle = &taken.devices[0];
    assert!(taken.identity == identity(101) && bundle.registration_id.get() == 1_002);
    assert!(bundle.one_time == Some(ec_key(3)) && bundle.signed == signed_keys(1, 101).signed);
    assert_eq!(
        (count(&keys, address, ACI).await, count(&keys, address, PNI).await),
        ((1, 1), (1, 0))
    );
}

pub(crate) async fn counts_are_per_device(database: &TestDatabase) {
    let (keys, address) = keys(database).await;
    let second = add_second_device(database).await;
    let other = register(database, 2, 2001).await;
    keys.publish(&linked_actor(1, 2, 1002), ACI, &upload([1, 2, 3], []))
        .await
        .unwrap();
    keys.publish(&actor(2, 2001), ACI, &upload([1], [])).await.unwrap();
    assert_eq!(count(&keys, address, ACI).await, (0, 0));
    assert_eq!(count(&keys, second, ACI).await, (3, 0));
    assert_eq!(count(&keys, other, ACI).await, (1, 0));
}

pub(crate) async fn t13_a_key_that_was_handed_out_is_left_out_of_an_upload(database: &TestDatabase) {
    let (keys, address) = keys(database).await;
    let all = upload([1, 2, 3], [1, 2, 3]);
    assert_eq!(keys.publish(&actor(1, 1001), ACI, &all).await.unwrap(), DONE);
    assert!(take(&keys, ACI).await.one_time == Some(ec_key(1)));
    // As a client sends it whose answer was lost.
    assert_eq!(
        keys.publish(&actor(1, 1001), ACI, &all).await.unwrap(),
        Published::Done(2)
    );
    assert_eq!(count(&keys, address, ACI).await, (2, 2));
    let bundle = take(&keys, ACI).await;
    assert!(bundle.one_time == Some(ec_key(2)) && bundle.kyber == kyber_key(2, 2));
    // The other namespace, and the other kind of key, have ids of their own.
    assert_eq!(keys.publish(&actor(1, 1001), PNI, &all).await.unwrap(), DONE);
    let crossed = KeyUpload {
        one_time: vec![ec_key(3)],
        one_time_kyber: vec![kyber_key(3, 3)],
        ..KeyUpload::default()
    };
    assert_eq!(keys.publish(&actor(1, 1001), ACI, &crossed).await.unwrap(), DONE);
    // All of it was handed out: what was there is replaced by nothing.
    assert_eq!(
        keys.publish(&actor(1, 1001), ACI, &upload([1, 2], [1])).await.unwrap(),
        Published::Done(3)
    );
    assert_eq!(count(&keys, address, ACI).await, (0, 0));
}

pub(crate) async fn t13_another_key_under_a_spent_id_spoils_the_upload(database: &TestDatabase) {
    let (keys, address) = keys(database).await;
    keys.publish(&actor(1, 1001), ACI, &upload([1, 2], [1, 2]))
        .await
        .unwrap();
    take(&keys, ACI).await;
    let SignedUpload(signed) = SignedUpload::new(5);
    let mut other_ec = ec_key(9);
    other_ec.id = ec_key(1).id;
    for other in [
        KeyUpload {
            one_time: vec![ec_key(5), other_ec],
            ..signed.clone()
        },
        KeyUpload {
            one_time: vec![ec_key(5)],
            one_time_kyber: vec![kyber_key(9, 1)],
            ..signed
        },
    ] {
        let refused = keys.publish(&actor(1, 1001), ACI, &other).await.unwrap();
        assert_eq!(refused, Published::SpentId);
        assert_eq!(count(&keys, address, ACI).await, (1, 1));
        assert_eq!(keys.find_signed(address, ACI).await.unwrap(), Some(signed_keys(1, 1)));
    }
    // What was never handed out may be replaced under its id.
    let replaced = upload([], [2]);
    assert_eq!(keys.publish(&actor(1, 1001), ACI, &replaced).await.unwrap(), DONE);
    assert!(take(&keys, ACI).await.one_time == Some(ec_key(2)));
}

pub(crate) async fn t13_a_key_uploaded_while_it_is_handed_out_is_handed_out_once(database: &TestDatabase) {
    let (keys, _) = keys(database).await;
    keys.publish(&actor(1, 1001), ACI, &upload(0..40, 0..40)).await.unwrap();
    let uploading = {
        let keys = database.another().await.keys;
        tokio::spawn(async move {
            for _ in 0..20 {
                let published = keys.publish(&actor(1, 1001), ACI, &upload(0..40, 0..40)).await.unwrap();
                assert!(matches!(published, Published::Done(_)));
            }
        })
    };
    let mut takers = Vec::new();
    for _ in 0..4 {
        let keys = database.another().await.keys;
        takers.push(tokio::spawn(async move {
            let mut ids = Vec::new();
            for _ in 0..15 {
                ids.extend(take(&keys, ACI).await.one_time.map(|key| key.id.get()));
            }
            ids
        }));
    }
    let mut seen = BTreeSet::new();
    for taker in takers {
        for id in taker.await.unwrap() {
            assert!(seen.insert(id), "{id} was handed out twice");
        }
    }
    uploading.await.unwrap();
    assert!(!seen.is_empty());
}

pub(crate) async fn spent_ids_go_with_their_device_and_account(database: &TestDatabase) {
    let (keys, _) = keys(database).await;
    let second = add_second_device(database).await;
    let everything = upload([1], [1]);
    for by in [actor(1, 1001), linked_actor(1, 2, 1002)] {
        keys.publish(&by, ACI, &everything).await.unwrap();
    }
    assert_eq!(take_alone(&keys, claim(1), TODAY).await.unwrap().devices.len(), 2);
    let spent = async || database.number("SELECT count(*) FROM spent_keys").await;
    assert_eq!(spent().await, 4);
    let storage = database.storage();
    let dropped = storage.devices.remove(second.device_id, &actor(1, 1001)).await.unwrap();
    assert_eq!((dropped.len(), spent().await), (1, 2));
    // Registration starts over clean.
    register(database, 1, 1003).await;
    assert_eq!(spent().await, 0);
    let other = upload([], []);
    assert_eq!(keys.publish(&actor(1, 1003), ACI, &other).await.unwrap(), DONE);
    assert_eq!(keys.publish(&actor(1, 1003), ACI, &everything).await.unwrap(), DONE);
    take(&keys, ACI).await;
    assert_eq!(spent().await, 2);
    storage.accounts.delete(&actor(1, 1003)).await.unwrap();
    assert_eq!(spent().await, 0);
    // A linked device that nobody uses.
    register(database, 1, 1001).await;
    add_second_device(database).await;
    keys.publish(&linked_actor(1, 2, 1002), ACI, &everything).await.unwrap();
    take_alone(&keys, claim(1), TODAY).await.unwrap();
    assert_eq!(spent().await, 2);
    assert_eq!(storage.devices.remove_idle(Day(30_000), 10).await.unwrap().len(), 1);
    assert_eq!(spent().await, 0);
}

pub(crate) async fn spent_ids_are_forgotten_after_their_days(database: &TestDatabase) {
    let (keys, _) = keys(database).await;
    keys.publish(&actor(1, 1001), ACI, &upload([1, 2], [1, 2]))
        .await
        .unwrap();
    take(&keys, ACI).await;
    take(&keys, ACI).await;
    assert_eq!(keys.forget_spent(TODAY, 10).await.unwrap(), 0);
    assert_eq!(keys.forget_spent(TODAY.plus(1), 3).await.unwrap(), 3);
    assert_eq!(keys.forget_spent(TODAY.plus(1), 3).await.unwrap(), 1);
    assert_eq!(
        keys.publish(&actor(1, 1001), ACI, &upload([1], [1])).await.unwrap(),
        DONE
    );
}

/// An upload of the two signed keys.
struct SignedUpload(KeyUpload);

impl SignedUpload {
    fn new(n: u8) -> Self {
        let keys = signed_keys(n, 1);
        Self(KeyUpload {
            signed: Some(keys.signed),
            last_resort: Some(keys.last_resort),
            ..KeyUpload::default()
        })
    }
}

const DONE: Published = Published::Done(0);
const TODAY: Day = Day(20_000);
const ACI: IdentityKind = IdentityKind::Aci;
const PNI: IdentityKind = IdentityKind::Pni;
const TAKERS: u32 = 16;
const TAKES: u32 = 10;
