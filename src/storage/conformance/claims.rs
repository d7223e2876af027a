//! What every key store promises of claims that come as a batch: they are taken as if one had come after the other.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::fixtures::{
    aci, actor, add_second_device, claim, ec_key, kyber_key, linked_actor, register, signed_keys, take_alone,
};
use crate::domain::{
    Allowance, BundleSelector, Day, DeviceId, IdentityKind, KeyUpload, KyberSource, PreKeyBundle, QueueLimits, Stock,
    Take, TakenBundles,
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

async fn with_keys(database: &TestDatabase, ec: u32, kyber: u32) -> Keys {
    register(database, 1, 1001).await;
    let keys = database.storage().keys;
    keys.publish(&actor(1, 1001), ACI, &upload(ec, kyber)).await.unwrap();
    keys
}

/// A batch of claims that all succeed.
async fn take(keys: &Keys, takes: &[Take]) -> Vec<Option<TakenBundles>> {
    let takings = keys.take_bundles(takes, TODAY).await.unwrap();
    assert_eq!(takings.len(), takes.len());
    takings.into_iter().map(Result::unwrap).collect()
}

fn one(device: u64) -> Take {
    Take {
        selector: BundleSelector::One(DeviceId::new(device).unwrap()),
        ..claim(1)
    }
}

fn reserving(reserve: u32) -> Take {
    let allowance = Allowance { devices: None, reserve };
    Take { allowance, ..claim(1) }
}

fn only(devices: &[u64]) -> Take {
    let allowance = Allowance {
        devices: Some(devices.iter().map(|id| DeviceId::new(*id).unwrap()).collect()),
        reserve: 0,
    };
    Take { allowance, ..claim(1) }
}

/// Device, one-time keys of both kinds, and what became of either.
type Summary = (u8, Option<u32>, Option<u32>, [Stock; 2]);

fn summary(bundle: &PreKeyBundle) -> Summary {
    let one_time = bundle.kyber_source == KyberSource::OneTime;
    (
        bundle.device_id.get(),
        bundle.one_time.as_ref().map(|key| key.id.get()),
        one_time.then(|| bundle.kyber.id.get()),
        [bundle.ec_stock, bundle.kyber_stock],
    )
}

fn summaries(taken: Option<&TakenBundles>) -> Option<Vec<Summary>> {
    taken.map(|taken| taken.devices.iter().map(summary).collect())
}

pub(crate) async fn a_device_that_is_asked_many_times_in_a_batch_gives_its_keys_in_order_and_runs_dry(
    database: &TestDatabase,
) {
    let keys = with_keys(database, 4, 2).await;
    let taken = take(&keys, &vec![claim(1); 6]).await;
    for (n, taken) in (0..).zip(&taken) {
        let taken = taken.as_ref().unwrap();
        let stock = |all: u32| {
            if n < all {
                Stock::Left(all - 1 - n)
            } else {
                Stock::Empty
            }
        };
        let expected = (1, (n < 4).then_some(n), (n < 2).then_some(n), [stock(4), stock(2)]);
        assert_eq!(summary(&taken.devices[0]), expected);
        let (one_time, kyber) = (&taken.devices[0].one_time, &taken.devices[0].kyber);
        assert!(one_time.as_ref().is_none_or(|key| *key == ec_key(n)));
        let last_resort = || signed_keys(1, 1).last_resort;
        assert!(*kyber == if n < 2 { kyber_key(n, n) } else { last_resort() });
    }
    assert_eq!(database.number("SELECT count(*) FROM spent_keys").await, 6);
    // The ids are kept of these keys and no others: all of the upload was handed out.
    let again = keys.publish(&actor(1, 1001), ACI, &upload(4, 2)).await.unwrap();
    assert_eq!(again, crate::domain::Published::Done(6));
}

pub(crate) async fn whoever_is_not_there_takes_nothing_from_the_others_of_a_batch(database: &TestDatabase) {
    let keys = with_keys(database, 2, 2).await;
    let taken = take(&keys, &[claim(1), claim(9), one(2), claim(1), claim(9)]).await;
    let taken: Vec<_> = taken.iter().map(|taken| summaries(taken.as_ref())).collect();
    let left = |left| [Stock::Left(left); 2];
    assert_eq!(
        taken,
        [
            Some(vec![(1, Some(0), Some(0), left(1))]),
            None,
            None,
            Some(vec![(1, Some(1), Some(1), left(0))]),
            None,
        ]
    );
}

pub(crate) async fn a_batch_may_ask_for_all_devices_for_one_and_for_another_identity(database: &TestDatabase) {
    let keys = with_keys(database, 3, 3).await;
    add_second_device(database).await;
    keys.publish(&linked_actor(1, 2, 1002), ACI, &upload(3, 3))
        .await
        .unwrap();
    keys.publish(&actor(1, 1001), PNI, &upload(1, 0)).await.unwrap();
    register(database, 2, 2001).await;
    let pni = Take { kind: PNI, ..claim(1) };
    // Numbers of no device are nobody's, and who may not give a key gives none to whoever may have others.
    let takes = [one(2), claim(1), pni, only(&[2, 99]), one(1), claim(2), only(&[])];
    let taken = take(&keys, &takes).await;
    let taken: Vec<_> = taken.iter().map(|taken| summaries(taken.as_ref()).unwrap()).collect();
    let given = |device, n: u32| (device, Some(n), Some(n), [Stock::Left(2 - n); 2]);
    let withheld = |device| (device, None, None, [Stock::Withheld; 2]);
    assert_eq!(taken[0], [given(2, 0)]);
    assert_eq!(taken[1], [given(1, 0), given(2, 1)]);
    let empty = (2, None, None, [Stock::Empty; 2]);
    assert_eq!(taken[2], [(1, Some(0), None, [Stock::Left(0), Stock::Empty]), empty]);
    assert_eq!(taken[3], [withheld(1), given(2, 2)]);
    assert_eq!(taken[4], [given(1, 1)]);
    assert_eq!(taken[5], [(1, None, None, [Stock::Empty; 2])]);
    assert_eq!(taken[6], [withheld(1), withheld(2)]);
}

pub(crate) async fn t15_the_reserve_is_looked_at_for_each_claim_of_a_batch(database: &TestDatabase) {
    let keys = with_keys(database, 23, 21).await;
    let takes = [20, 20, 0, 20, 20, 0].map(reserving);
    let taken = take(&keys, &takes).await;
    let taken: Vec<_> = taken
        .iter()
        .map(|taken| summary(&taken.as_ref().unwrap().devices[0]))
        .collect();
    let (left, reserved) = (Stock::Left, Stock::Reserved);
    assert_eq!(
        taken,
        [
            (1, Some(0), Some(0), [left(22), left(20)]),
            (1, Some(1), None, [left(21), reserved]),
            // Whoever may take of the reserve takes the front key as well, which leaves nothing to the others.
            (1, Some(2), Some(1), [left(20), left(19)]),
            (1, None, None, [reserved; 2]),
            (1, None, None, [reserved; 2]),
            (1, Some(3), Some(2), [left(19), left(18)]),
        ]
    );
}

/// The ACI keys are taken in batches, and the PNI keys, which have the same ids, one by one.
pub(crate) async fn any_batch_is_as_its_claims_one_after_the_other(database: &TestDatabase) {
    register(database, 1, 1001).await;
    add_second_device(database).await;
    let keys = database.storage().keys;
    let mut number = 7_u32;
    let mut draw = |below: u32| {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (number >> 16) % below
    };
    for round in 0..12 {
        for (by, first) in [(actor(1, 1001), 0), (linked_actor(1, 2, 1002), 500)] {
            let (ec, kyber) = (1 + draw(12), 1 + draw(12));
            let ids = |count| (0..count).map(move |n| 1 + round * 1_000 + first + n);
            let upload = KeyUpload {
                one_time: ids(ec).map(ec_key).collect(),
                one_time_kyber: ids(kyber).map(|id| kyber_key(id, id)).collect(),
                ..KeyUpload::default()
            };
            for kind in [ACI, PNI] {
                keys.publish(&by, kind, &upload).await.unwrap();
            }
        }
        let takes: Vec<_> = (0..1 + draw(16))
            .map(|_| {
                let selector = [claim(1), one(1), one(2), one(3)][draw(4) as usize].selector;
                let devices = [
                    None,
                    None,
                    only(&[1]).allowance.devices,
                    only(&[2, 1, 2]).allowance.devices,
                    Some(vec![]),
                ];
                let devices = devices[draw(5) as usize].clone();
                let reserve = [0, 0, 3, 5][draw(4) as usize];
                Take {
                    selector,
                    allowance: Allowance { devices, reserve },
                    ..claim(1)
                }
            })
            .collect();
        let batched = take(&keys, &takes).await;
        for (at, (take, batched)) in takes.into_iter().zip(&batched).enumerate() {
            let alone = take_alone(
                &keys,
                Take {
                    kind: PNI,
                    ..take.clone()
                },
                TODAY,
            )
            .await;
            assert_eq!(
                summaries(batched.as_ref()),
                summaries(alone.as_ref()),
                "round {round}, {at}: {take:?}"
            );
        }
    }
}

pub(crate) async fn b13_batches_at_once_hand_out_every_key_once(database: &TestDatabase) {
    let storage = database.storage();
    for n in 1..=5 {
        register(database, n, i64::from(n) * 1000).await;
        storage
            .keys
            .publish(&actor(n, i64::from(n) * 1000), ACI, &upload(100, 80))
            .await
            .unwrap();
    }
    let mut takers = Vec::new();
    for taker in 0..6 {
        let keys = database.another().await.keys;
        takers.push(tokio::spawn(async move {
            let mut taken = Vec::new();
            for _ in 0..4 {
                // Five of each, in turns and in opposite orders.
                let mut takes: Vec<_> = (0..25).map(|at| claim(1 + at % 5)).collect();
                if taker % 2 == 1 {
                    takes.reverse();
                }
                for (take, bundles) in takes.iter().zip(take(&keys, &takes).await) {
                    let (_, ec, kyber, _) = summary(&bundles.unwrap().devices[0]);
                    taken.push((take.aci, ec, kyber));
                }
            }
            taken
        }));
    }
    let (mut ec, mut kyber, mut claims) = (Vec::new(), Vec::new(), 0);
    for taker in takers {
        for (aci, one_time, one_time_kyber) in taker.await.unwrap() {
            claims += 1;
            ec.extend(one_time.map(|id| (aci, id)));
            kyber.extend(one_time_kyber.map(|id| (aci, id)));
        }
    }
    assert_eq!(claims, 600);
    let distinct = |keys: &[_]| keys.iter().copied().collect::<BTreeSet<_>>().len();
    // Whoever finds keys in the hands of another goes on to the next ones: nobody goes without while there are any.
    assert_eq!((ec.len(), distinct(&ec)), (500, 500));
    assert_eq!((kyber.len(), distinct(&kyber)), (400, 400));
    assert_eq!(database.number("SELECT count(*) FROM one_time_ec_keys").await, 0);
    assert_eq!(database.number("SELECT count(*) FROM spent_keys").await, 900);
}

pub(crate) async fn t15_batches_at_once_with_and_without_access_leave_the_reserve_to_the_latter(
    database: &TestDatabase,
) {
    let keys = with_keys(database, 100, 100).await;
    let mut takers = Vec::new();
    for taker in 0..6_u32 {
        let keys = database.another().await.keys;
        takers.push(tokio::spawn(async move {
            let mut ids = Vec::new();
            for _ in 0..5 {
                let takes: Vec<_> = (0..5)
                    .map(|at| reserving(if (taker + at) % 5 == 0 { 0 } else { 20 }))
                    .collect();
                for (take, bundles) in takes.iter().zip(take(&keys, &takes).await) {
                    let (_, ec, ..) = summary(&bundles.unwrap().devices[0]);
                    assert!(ec.is_some() || take.allowance.reserve == 20);
                    ids.extend(ec);
                }
            }
            ids
        }));
    }
    let mut ids = Vec::new();
    for taker in takers {
        ids.extend(taker.await.unwrap());
    }
    assert_eq!(ids.len(), ids.iter().copied().collect::<BTreeSet<_>>().len());
    // 30 of 150 may take of the reserve. The others leave it alone, whatever they see of one another.
    assert!((80..=110).contains(&ids.len()), "{}", ids.len());
    let left = database.number("SELECT count(*) FROM one_time_ec_keys").await;
    assert_eq!(usize::try_from(left).unwrap(), 100 - ids.len());
    assert!(
        take(&keys, &[reserving(20)]).await[0].as_ref().unwrap().devices[0]
            .one_time
            .is_none()
    );
}

pub(crate) async fn what_is_damaged_fails_for_whoever_asks_for_it_alone(database: &TestDatabase) {
    let keys = with_keys(database, 9, 9).await;
    add_second_device(database).await;
    database
        .execute("UPDATE signed_keys SET signed_id = -1 WHERE device_id = 2")
        .await;
    let takings = keys
        .take_bundles(&[one(1), one(2), one(1), claim(1), one(9)], TODAY)
        .await
        .unwrap();
    let failed: Vec<_> = takings.iter().map(Result::is_err).collect();
    assert_eq!(failed, [false, true, false, true, false]);
    let ids = takings
        .iter()
        .flatten()
        .flatten()
        .map(|taken| taken.devices[0].one_time.as_ref().unwrap().id.get());
    assert_eq!(ids.collect::<Vec<_>>(), [0, 1]);
}

/// Places have gaps where a taker went on to the next key and the one before did not take it after all.
pub(crate) async fn gaps_between_places_keep_no_key_back(database: &TestDatabase) {
    let keys = with_keys(database, 8, 8).await;
    database
        .execute("DELETE FROM one_time_ec_keys WHERE key_id IN (1, 4)")
        .await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        for taken in take(&keys, &vec![claim(1); 3]).await {
            ids.extend(taken.unwrap().devices[0].one_time.as_ref().map(|key| key.id.get()));
        }
    }
    assert_eq!(ids, [0, 2, 3, 5, 6, 7]);
}

pub(crate) async fn a_large_batch_of_claims_is_one_batch(database: &TestDatabase) {
    let keys = database.storage().keys;
    for n in 1..=20 {
        register(database, n, i64::from(n) * 1000).await;
        keys.publish(&actor(n, i64::from(n) * 1000), ACI, &upload(30, 30))
            .await
            .unwrap();
    }
    let takes: Vec<_> = (0..512).map(|at| claim(1 + u8::try_from(at % 20).unwrap())).collect();
    let taken = take(&keys, &takes).await;
    for (n, (take, taken)) in (0_u32..).zip(takes.iter().zip(taken)) {
        let (taken, id) = (taken.unwrap(), n / 20);
        let account = 1 + u8::try_from(n % 20).unwrap();
        assert!(take.aci == aci(account) && taken.identity == super::fixtures::identity(account));
        assert_eq!(
            summary(&taken.devices[0]),
            (1, Some(id), Some(id), [Stock::Left(29 - id); 2])
        );
    }
}

const TODAY: Day = Day(20_000);
const ACI: IdentityKind = IdentityKind::Aci;
const PNI: IdentityKind = IdentityKind::Pni;
