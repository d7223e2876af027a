//! What every key store promises about keys that may not be taken.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::fixtures::{
    actor, add_second_device, claim, ec_key, kyber_key, linked_actor, register, signed_keys, take_alone,
};
use crate::domain::{
    Allowance, Day, DeviceId, IdentityKind, KeyCount, KeyUpload, KyberSource, PreKeyBundle, ProtocolAddress,
    QueueLimits, Stock, Take,
};
use crate::storage::KeyStore;
use crate::storage::testing::{ROOMY, TestDatabase};

pub(crate) const LIMITS: QueueLimits = ROOMY;

type Keys = Arc<dyn KeyStore>;

fn upload(ec: u32, kyber: u32) -> KeyUpload {
    KeyUpload {
        one_time: (0..ec).map(ec_key).collect(),
        one_time_kyber: (0..kyber).map(|id| kyber_key(id, id)).collect(),
        ..KeyUpload::default()
    }
}

async fn with_keys(database: &TestDatabase, ec: u32, kyber: u32) -> (Keys, ProtocolAddress) {
    let address = register(database, 1, 1001).await;
    let keys = database.storage().keys;
    keys.publish(&actor(1, 1001), ACI, &upload(ec, kyber)).await.unwrap();
    (keys, address)
}

fn reserving(reserve: u32) -> Allowance {
    Allowance { devices: None, reserve }
}

fn allowed(allowance: &Allowance) -> Take {
    Take {
        allowance: allowance.clone(),
        ..claim(1)
    }
}

async fn take_all(keys: &Keys, allowance: &Allowance) -> Vec<PreKeyBundle> {
    take_alone(keys, allowed(allowance), TODAY).await.unwrap().devices
}

async fn take(keys: &Keys, allowance: &Allowance) -> PreKeyBundle {
    take_all(keys, allowance).await.remove(0)
}

async fn count(keys: &Keys, address: ProtocolAddress) -> (u32, u32) {
    let KeyCount { ec, kyber } = keys.count(address, ACI).await.unwrap();
    (ec, kyber)
}

pub(crate) async fn what_was_taken_says_how_many_are_left(database: &TestDatabase) {
    let (keys, address) = with_keys(database, 3, 1).await;
    for (ec, kyber) in [
        (Stock::Left(2), Stock::Left(0)),
        (Stock::Left(1), Stock::Empty),
        (Stock::Left(0), Stock::Empty),
        (Stock::Empty, Stock::Empty),
    ] {
        let bundle = take(&keys, &Allowance::EVERYTHING).await;
        assert_eq!((bundle.ec_stock, bundle.kyber_stock), (ec, kyber));
    }
    assert_eq!(count(&keys, address).await, (0, 0));
}

pub(crate) async fn t15_a_reserve_of_each_kind_stays_for_those_who_may_take_it(database: &TestDatabase) {
    let (keys, address) = with_keys(database, 6, 4).await;
    for (ec, kyber) in [
        (Stock::Left(5), Stock::Reserved),
        (Stock::Left(4), Stock::Reserved),
        (Stock::Reserved, Stock::Reserved),
        (Stock::Reserved, Stock::Reserved),
    ] {
        let bundle = take(&keys, &reserving(4)).await;
        assert_eq!((bundle.ec_stock, bundle.kyber_stock), (ec, kyber));
        assert_eq!(bundle.one_time.is_some(), matches!(ec, Stock::Left(_)));
        assert!(bundle.kyber == signed_keys(1, 1).last_resort);
    }
    assert_eq!(count(&keys, address).await, (4, 4));
    // In the order of the upload, also by those for whom it is kept; and then it is smaller.
    let bundle = take(&keys, &Allowance::EVERYTHING).await;
    assert!(bundle.one_time == Some(ec_key(2)) && bundle.kyber == kyber_key(0, 0));
    assert_eq!(take(&keys, &reserving(4)).await.ec_stock, Stock::Reserved);
    for _ in 0..3 {
        take(&keys, &Allowance::EVERYTHING).await;
    }
    let bundle = take(&keys, &reserving(4)).await;
    assert_eq!((bundle.ec_stock, bundle.kyber_stock), (Stock::Empty, Stock::Empty));
}

pub(crate) async fn a_device_that_is_to_give_nothing_keeps_its_keys(database: &TestDatabase) {
    let (keys, first) = with_keys(database, 2, 2).await;
    let second = add_second_device(database).await;
    keys.publish(&linked_actor(1, 2, 1002), ACI, &upload(2, 2))
        .await
        .unwrap();
    let only = |devices: &[u64]| Allowance {
        devices: Some(devices.iter().map(|id| DeviceId::new(*id).unwrap()).collect()),
        reserve: 0,
    };
    let sources = |bundles: Vec<PreKeyBundle>| -> Vec<_> {
        let source = |bundle: PreKeyBundle| (bundle.one_time.is_some(), bundle.kyber_source, bundle.ec_stock);
        bundles.into_iter().map(source).collect()
    };
    let withheld = (false, KyberSource::LastResort, Stock::Withheld);
    assert_eq!(sources(take_all(&keys, &only(&[])).await), [withheld; 2]);
    assert_eq!(
        (count(&keys, first).await, count(&keys, second).await),
        ((2, 2), (2, 2))
    );
    // Numbers of no device are nobody's.
    assert_eq!(
        sources(take_all(&keys, &only(&[2, 99])).await),
        [withheld, (true, KyberSource::OneTime, Stock::Left(1))]
    );
    assert_eq!(
        (count(&keys, first).await, count(&keys, second).await),
        ((2, 2), (1, 1))
    );
}

pub(crate) async fn t15_t17_takers_at_once_leave_the_reserve_alone(database: &TestDatabase) {
    let (keys, address) = with_keys(database, 40, 40).await;
    let mut takers = Vec::new();
    for _ in 0..8 {
        let keys = database.another().await.keys;
        takers.push(tokio::spawn(async move {
            let mut ids = Vec::new();
            for _ in 0..10 {
                ids.extend(take(&keys, &reserving(20)).await.one_time.map(|key| key.id));
            }
            ids
        }));
    }
    let mut ids = Vec::new();
    for taker in takers {
        ids.extend(taker.await.unwrap());
    }
    assert_eq!(ids.len(), ids.iter().copied().collect::<BTreeSet<_>>().len());
    // Whoever finds a key in the hands of another goes on to the next one, and no further than the reserve.
    assert_eq!(ids.len(), 20);
    assert_eq!(count(&keys, address).await, (20, 20));
}

const TODAY: Day = Day(20_000);
const ACI: IdentityKind = IdentityKind::Aci;
