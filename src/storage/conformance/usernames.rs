//! What every store of user names promises.

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::fixtures::{aci, actor, register};
use crate::domain::{
    Actor, Confirmed, Day, EncryptedUsername, LinkHandle, MAX_GIVEN_UP, QueueLimits, RESERVATION_MILLIS, Reserved,
    Timestamp, Username, UsernameHash, UsernameLink,
};
use crate::storage::UsernameStore;
use crate::storage::testing::{ROOMY, TestDatabase};

pub(crate) const LIMITS: QueueLimits = ROOMY;

type Names = Arc<dyn UsernameStore>;

const NOW: Timestamp = Timestamp(20_000 * DAY_MILLIS + 1_000);
const DAY_MILLIS: i64 = 24 * 60 * 60 * 1000;

/// The store, and accounts 1 and 2.
async fn names(database: &TestDatabase) -> Names {
    register(database, 1, 1001).await;
    register(database, 2, 1002).await;
    database.storage().usernames
}

/// The account's primary, as [`names`] registered it.
fn by(account: u8) -> Actor {
    actor(account, 1000 + i64::from(account))
}

fn name(n: u8) -> UsernameHash {
    UsernameHash([n; 32])
}

fn link(n: u8) -> UsernameLink {
    UsernameLink {
        handle: LinkHandle(Uuid::from_bytes([n; 16])),
        encrypted: encrypted(n),
    }
}

fn encrypted(n: u8) -> EncryptedUsername {
    EncryptedUsername::new(vec![n; 80]).unwrap()
}

fn after_days(days: i64) -> Timestamp {
    NOW.plus_millis(days * DAY_MILLIS)
}

/// Reserves and takes a name, with a link of the same number.
async fn take(names: &Names, account: u8, n: u8, now: Timestamp) {
    assert_eq!(
        names.reserve(&by(account), &[name(n)], now).await.unwrap(),
        Reserved::Name(name(n))
    );
    assert_eq!(
        names
            .confirm(&by(account), &name(n), Some(&link(n)), now)
            .await
            .unwrap(),
        Confirmed::Owned(Some(link(n).handle))
    );
}

async fn reserve(names: &Names, account: u8, n: u8, now: Timestamp) -> Reserved {
    names.reserve(&by(account), &[name(n)], now).await.unwrap()
}

pub(crate) async fn a_confirmed_name_is_found_with_its_link(database: &TestDatabase) {
    let names = names(database).await;
    assert_eq!(names.of_account(aci(1)).await.unwrap(), None);
    assert_eq!(reserve(&names, 1, 7, NOW).await, Reserved::Name(name(7)));
    assert_eq!(names.find(&name(7)).await.unwrap(), None);
    take(&names, 1, 7, NOW).await;
    assert_eq!(names.find(&name(7)).await.unwrap(), Some(aci(1)));
    let (hash, handle) = (name(7), link(7).handle);
    let owned = Username {
        hash,
        link: Some(handle),
    };
    assert_eq!(names.of_account(aci(1)).await.unwrap(), Some(owned));
    assert_eq!(names.find_link(&handle).await.unwrap(), Some(encrypted(7)));
    assert_eq!(names.find(&name(8)).await.unwrap(), None);
    assert_eq!(names.find_link(&link(8).handle).await.unwrap(), None);
    assert_eq!(names.of_account(aci(2)).await.unwrap(), None);
}

pub(crate) async fn the_first_name_that_is_to_be_had_is_reserved(database: &TestDatabase) {
    let names = names(database).await;
    take(&names, 1, 1, NOW).await;
    assert_eq!(reserve(&names, 1, 2, NOW).await, Reserved::Name(name(2)));
    let wanted = [name(1), name(2), name(3), name(4)];
    assert_eq!(
        names.reserve(&by(2), &wanted, NOW).await.unwrap(),
        Reserved::Name(name(3))
    );
    assert_eq!(
        names.reserve(&by(2), &wanted[..2], NOW).await.unwrap(),
        Reserved::AllTaken
    );
    // What was reserved before stands.
    assert_eq!(
        names.confirm(&by(2), &name(3), None, NOW).await.unwrap(),
        Confirmed::Owned(None)
    );
    assert_eq!(reserve(&names, 9, 9, NOW).await, Reserved::UnknownAccount);
}

pub(crate) async fn a_reservation_replaces_the_one_before(database: &TestDatabase) {
    let names = names(database).await;
    reserve(&names, 1, 1, NOW).await;
    reserve(&names, 1, 2, NOW).await;
    assert_eq!(reserve(&names, 2, 2, NOW).await, Reserved::AllTaken);
    assert_eq!(reserve(&names, 2, 1, NOW).await, Reserved::Name(name(1)));
    assert_eq!(
        names.confirm(&by(1), &name(1), None, NOW).await.unwrap(),
        Confirmed::Taken
    );
}

pub(crate) async fn a_reservation_lives_for_minutes(database: &TestDatabase) {
    let names = names(database).await;
    let (last, late) = (
        NOW.plus_millis(RESERVATION_MILLIS - 1),
        NOW.plus_millis(RESERVATION_MILLIS),
    );
    reserve(&names, 1, 1, NOW).await;
    assert_eq!(reserve(&names, 2, 1, last).await, Reserved::AllTaken);
    assert_eq!(names.expire(last).await.unwrap(), 0);
    assert_eq!(
        names.confirm(&by(1), &name(1), None, late).await.unwrap(),
        Confirmed::NotReserved
    );
    assert_eq!(reserve(&names, 2, 1, late).await, Reserved::Name(name(1)));
    assert_eq!(
        names.confirm(&by(1), &name(1), None, late).await.unwrap(),
        Confirmed::Taken
    );
    assert_eq!(names.expire(late.plus_millis(RESERVATION_MILLIS)).await.unwrap(), 1);
    assert_eq!(database.number("SELECT count(*) FROM usernames").await, 0);
}

pub(crate) async fn only_a_reserved_name_is_confirmed(database: &TestDatabase) {
    let names = names(database).await;
    let confirm = async |account, n| names.confirm(&by(account), &name(n), None, NOW).await.unwrap();
    assert_eq!(confirm(1, 1).await, Confirmed::NotReserved);
    reserve(&names, 1, 1, NOW).await;
    assert_eq!(confirm(1, 2).await, Confirmed::NotReserved);
    assert_eq!(confirm(2, 1).await, Confirmed::Taken);
    assert_eq!(confirm(9, 1).await, Confirmed::UnknownAccount);
    assert_eq!(confirm(1, 1).await, Confirmed::Owned(None));
    assert_eq!(confirm(2, 1).await, Confirmed::Taken);
}

pub(crate) async fn confirming_again_changes_nothing(database: &TestDatabase) {
    let names = names(database).await;
    take(&names, 1, 1, NOW).await;
    let mut again = link(1);
    again.handle = link(2).handle;
    let confirm =
        async |link: Option<&UsernameLink>| names.confirm(&by(1), &name(1), link, after_days(1)).await.unwrap();
    assert_eq!(confirm(Some(&again)).await, Confirmed::Owned(Some(link(1).handle)));
    assert_eq!(confirm(None).await, Confirmed::Owned(Some(link(1).handle)));
    // Another encrypted name is a change.
    assert_eq!(confirm(Some(&link(3))).await, Confirmed::Owned(Some(link(3).handle)));
    assert_eq!(names.find_link(&link(1).handle).await.unwrap(), None);
    // One's own name counts as to be had, and asking for it leaves it.
    assert_eq!(reserve(&names, 1, 1, NOW).await, Reserved::Name(name(1)));
    assert_eq!(names.find(&name(1)).await.unwrap(), Some(aci(1)));
}

pub(crate) async fn a_new_name_gives_up_the_old_one_and_its_link(database: &TestDatabase) {
    let names = names(database).await;
    take(&names, 1, 1, NOW).await;
    take(&names, 1, 2, NOW).await;
    assert_eq!(names.find(&name(1)).await.unwrap(), None);
    assert_eq!(names.find_link(&link(1).handle).await.unwrap(), None);
    assert_eq!(names.find(&name(2)).await.unwrap(), Some(aci(1)));
    assert_eq!(reserve(&names, 2, 1, NOW).await, Reserved::AllTaken);
    reserve(&names, 1, 3, NOW).await;
    names.confirm(&by(1), &name(3), None, NOW).await.unwrap();
    assert_eq!(
        names.of_account(aci(1)).await.unwrap(),
        Some(Username {
            hash: name(3),
            link: None
        })
    );
}

pub(crate) async fn a_name_given_up_is_held_for_its_owner(database: &TestDatabase) {
    let names = names(database).await;
    take(&names, 1, 1, NOW).await;
    names.release(&by(1), NOW.day()).await.unwrap();
    names.release(&by(1), NOW.day()).await.unwrap();
    assert_eq!(names.of_account(aci(1)).await.unwrap(), None);
    assert_eq!(names.find(&name(1)).await.unwrap(), None);
    assert_eq!(names.find_link(&link(1).handle).await.unwrap(), None);
    for days in [0, 7] {
        assert_eq!(names.expire(after_days(days)).await.unwrap(), 0);
        assert_eq!(reserve(&names, 2, 1, after_days(days)).await, Reserved::AllTaken);
    }
    // A reservation that lapses takes nothing from the hold.
    assert_eq!(reserve(&names, 1, 1, after_days(6)).await, Reserved::Name(name(1)));
    assert_eq!(reserve(&names, 2, 1, after_days(7)).await, Reserved::AllTaken);
    take(&names, 1, 1, after_days(7)).await;
    assert_eq!(names.find(&name(1)).await.unwrap(), Some(aci(1)));
}

pub(crate) async fn a_hold_ends_on_its_day(database: &TestDatabase) {
    let names = names(database).await;
    take(&names, 1, 1, NOW).await;
    take(&names, 1, 2, NOW).await;
    names.release(&by(1), NOW.day()).await.unwrap();
    // Whether it has been swept or not.
    assert_eq!(reserve(&names, 2, 1, after_days(8)).await, Reserved::Name(name(1)));
    assert_eq!(names.expire(after_days(8)).await.unwrap(), 1);
    assert_eq!(reserve(&names, 2, 2, after_days(8)).await, Reserved::Name(name(2)));
}

pub(crate) async fn names_of_a_deleted_account_are_held_for_nobody(database: &TestDatabase) {
    let names = names(database).await;
    let accounts = database.storage().accounts;
    take(&names, 1, 1, NOW).await;
    take(&names, 1, 2, NOW).await;
    accounts.delete(&by(1)).await.unwrap();
    assert_eq!(names.find(&name(2)).await.unwrap(), None);
    assert_eq!(names.find_link(&link(2).handle).await.unwrap(), None);
    register(database, 1, 1001).await;
    for account in [1, 2] {
        assert_eq!(reserve(&names, account, 2, NOW).await, Reserved::AllTaken);
    }
    // The sweeper gives it its day.
    assert_eq!(names.expire(NOW).await.unwrap(), 0);
    assert_eq!(
        database
            .number("SELECT count(*) FROM usernames WHERE aci IS NOT NULL")
            .await,
        0
    );
    assert_eq!(names.expire(after_days(7)).await.unwrap(), 0);
    assert_eq!(reserve(&names, 1, 2, after_days(7)).await, Reserved::AllTaken);
    assert_eq!(names.expire(after_days(8)).await.unwrap(), 2);
    assert_eq!(reserve(&names, 2, 2, after_days(8)).await, Reserved::Name(name(2)));
}

pub(crate) async fn registering_again_keeps_the_name(database: &TestDatabase) {
    let names = names(database).await;
    take(&names, 1, 1, NOW).await;
    register(database, 1, 1003).await;
    assert_eq!(names.find(&name(1)).await.unwrap(), Some(aci(1)));
    assert_eq!(names.find_link(&link(1).handle).await.unwrap(), Some(encrypted(1)));
}

pub(crate) async fn one_account_cannot_hold_any_number_of_names(database: &TestDatabase) {
    let names = names(database).await;
    let last = u8::try_from(MAX_GIVEN_UP).unwrap() + 1;
    for n in 1..=last {
        take(&names, 1, n, NOW).await;
    }
    let wanted = [name(100), name(101)];
    assert_eq!(
        names.reserve(&by(1), &wanted, NOW).await.unwrap(),
        Reserved::TooManyGivenUp
    );
    assert_eq!(
        names.reserve(&by(2), &wanted, NOW).await.unwrap(),
        Reserved::Name(wanted[0])
    );
    assert_eq!(
        names.reserve(&by(1), &wanted[..1], NOW).await.unwrap(),
        Reserved::AllTaken
    );
    // One of its own may be had back, and makes no room.
    take(&names, 1, 1, NOW).await;
    assert_eq!(reserve(&names, 1, 101, NOW).await, Reserved::TooManyGivenUp);
    assert_eq!(reserve(&names, 1, 101, after_days(8)).await, Reserved::Name(wanted[1]));
}

pub(crate) async fn a_link_changes_its_handle_unless_it_is_kept(database: &TestDatabase) {
    let names = names(database).await;
    let set = async |n, keep| names.set_link(&by(1), &link(n), keep).await.unwrap();
    assert_eq!(set(1, false).await, None);
    assert_eq!(set(1, true).await, None);
    reserve(&names, 1, 1, NOW).await;
    assert_eq!(set(1, false).await, None);
    names.confirm(&by(1), &name(1), None, NOW).await.unwrap();
    assert_eq!(set(2, true).await, Some(link(2).handle));
    assert_eq!(set(3, true).await, Some(link(2).handle));
    assert_eq!(names.find_link(&link(2).handle).await.unwrap(), Some(encrypted(3)));
    assert_eq!(set(4, false).await, Some(link(4).handle));
    assert_eq!(names.find_link(&link(2).handle).await.unwrap(), None);
    names.drop_link(&by(1)).await.unwrap();
    names.drop_link(&by(1)).await.unwrap();
    assert_eq!(names.find_link(&link(4).handle).await.unwrap(), None);
    assert_eq!(
        names.of_account(aci(1)).await.unwrap(),
        Some(Username {
            hash: name(1),
            link: None
        })
    );
}

pub(crate) async fn a_name_asked_for_at_once_has_one_owner(database: &TestDatabase) {
    for account in 1..=12 {
        register(database, account, 1000 + i64::from(account)).await;
    }
    for round in 0..5_u8 {
        let wanted = [name(round), name(round + 100)];
        let mut tasks = Vec::new();
        for account in 1..=12_u8 {
            let names = database.another().await.usernames;
            tasks.push(tokio::spawn(async move {
                // Half of them the other way round.
                let mut wanted = wanted;
                if account % 2 == 0 {
                    wanted.reverse();
                }
                match names.reserve(&by(account), &wanted, NOW).await.unwrap() {
                    Reserved::Name(hash) => {
                        let confirmed = names
                            .confirm(&by(account), &hash, Some(&link(account)), NOW)
                            .await
                            .unwrap();
                        assert!(matches!(confirmed, Confirmed::Owned(Some(_))), "{confirmed:?}");
                        Some((account, hash))
                    }
                    refused => {
                        assert_eq!(refused, Reserved::AllTaken);
                        None
                    }
                }
            }));
        }
        let mut owners = Vec::new();
        for task in tasks {
            owners.extend(task.await.unwrap());
        }
        assert_eq!(owners.len(), 2, "{owners:?}");
        for (account, hash) in owners {
            let names = database.storage().usernames;
            assert_eq!(names.find(&hash).await.unwrap(), Some(aci(account)));
            names.release(&by(account), Day(0)).await.unwrap();
        }
    }
}

pub(crate) async fn one_account_asking_at_once_has_one_reservation(database: &TestDatabase) {
    names(database).await;
    let mut tasks = Vec::new();
    // Each name that is taken gives up the one before, and whoever has given up as many is refused.
    for n in 0..u8::try_from(MAX_GIVEN_UP).unwrap() {
        let names = database.another().await.usernames;
        tasks.push(tokio::spawn(async move {
            assert_eq!(reserve(&names, 1, n, NOW).await, Reserved::Name(name(n)));
            names.confirm(&by(1), &name(n), None, NOW).await.unwrap()
        }));
    }
    let mut confirmed = 0;
    for task in tasks {
        confirmed += i32::from(task.await.unwrap() == Confirmed::Owned(None));
    }
    assert!(confirmed >= 1);
    assert_eq!(
        database
            .number("SELECT count(*) FROM usernames WHERE reserved_until IS NOT NULL")
            .await,
        0
    );
    let names = database.storage().usernames;
    assert!(names.of_account(aci(1)).await.unwrap().is_some());
}

pub(crate) async fn a_name_of_an_account_that_goes_meanwhile_is_nobodys(database: &TestDatabase) {
    for round in 0..10_u8 {
        register(database, 1, 2000 + i64::from(round)).await;
        let by = actor(1, 2000 + i64::from(round));
        let (taker, deleter) = (database.another().await, database.another().await);
        let taking = tokio::spawn(async move {
            let reserved = taker.usernames.reserve(&by, &[name(round)], NOW).await.unwrap();
            if reserved == Reserved::Name(name(round)) {
                taker
                    .usernames
                    .confirm(&by, &name(round), Some(&link(round)), NOW)
                    .await
                    .unwrap();
            }
        });
        let deleting = tokio::spawn(async move { deleter.accounts.delete(&by).await.unwrap() });
        taking.await.unwrap();
        deleting.await.unwrap();
        let names = database.storage().usernames;
        assert_eq!(names.find(&name(round)).await.unwrap(), None);
        assert_eq!(names.find_link(&link(round).handle).await.unwrap(), None);
    }
}

pub(crate) async fn a_replaced_device_changes_no_name(database: &TestDatabase) {
    let names = names(database).await;
    take(&names, 1, 1, NOW).await;
    register(database, 1, 1003).await;
    let replaced = by(1);
    let reserved = names.reserve(&replaced, &[name(2)], NOW).await.unwrap();
    assert_eq!(reserved, Reserved::UnknownAccount);
    let confirmed = names.confirm(&replaced, &name(1), Some(&link(2)), NOW).await.unwrap();
    assert_eq!(confirmed, Confirmed::UnknownAccount);
    assert_eq!(names.set_link(&replaced, &link(2), true).await.unwrap(), None);
    assert!(!names.drop_link(&replaced).await.unwrap());
    assert!(!names.release(&replaced, NOW.day()).await.unwrap());
    assert_eq!(names.find(&name(1)).await.unwrap(), Some(aci(1)));
    assert_eq!(names.find_link(&link(1).handle).await.unwrap(), Some(encrypted(1)));
    assert_eq!(database.number("SELECT count(*) FROM usernames").await, 1);
}

#[test]
fn an_encrypted_name_has_1_to_128_bytes() {
    for (length, fits) in [(0, false), (1, true), (128, true), (129, false)] {
        assert_eq!(EncryptedUsername::new(Bytes::from(vec![0; length])).is_some(), fits);
    }
}
