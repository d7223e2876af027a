//! What every profile store promises.

use std::sync::Arc;

use futures_util::future::join_all;

use super::fixtures::{aci, actor, add_second_device, linked_actor, register};
use crate::domain::{Aci, Actor, Avatar, AvatarChange, MAX_PROFILE_VERSIONS, Profile, ProfileVersion, QueueLimits};
use crate::storage::ProfileStore;
use crate::storage::testing::{ROOMY, TestDatabase};

pub(crate) const LIMITS: QueueLimits = ROOMY;

type Profiles = Arc<dyn ProfileStore>;

async fn profiles(database: &TestDatabase) -> (Profiles, Actor) {
    register(database, 1, 1001).await;
    (database.storage().profiles, actor(1, 1001))
}

fn version(n: u8) -> ProfileVersion {
    ProfileVersion([n; 32])
}

/// A profile whose bytes say `n`, without a picture.
fn profile(n: u8) -> Profile {
    Profile {
        commitment: [n; 97],
        name: vec![n; 81].into(),
        about: Some(vec![n; 156].into()),
        about_emoji: Some(vec![n; 60].into()),
        payment_address: Some(vec![n; 582].into()),
        phone_number_sharing: Some(vec![n; 29].into()),
        avatar: None,
    }
}

fn picture(name: &str) -> AvatarChange {
    AvatarChange::Replace(Avatar(name.to_owned()))
}

async fn publish(profiles: &Profiles, by: Actor, n: u8, avatar: &AvatarChange) {
    assert!(
        profiles
            .publish(&by, &version(n), &profile(n), avatar)
            .await
            .unwrap()
            .is_some()
    );
}

async fn try_publish(profiles: &Profiles, by: Actor, n: u8) -> bool {
    profiles
        .publish(&by, &version(n), &profile(n), &AvatarChange::Clear)
        .await
        .unwrap()
        .is_some()
}

/// The versions up to 20 that are kept.
async fn kept(profiles: &Profiles, aci: Aci) -> Vec<u8> {
    let mut kept = Vec::new();
    for n in 0..=20 {
        if profiles.find(aci, &version(n)).await.unwrap().is_some() {
            kept.push(n);
        }
    }
    kept
}

pub(crate) async fn a_profile_is_found_under_its_version_alone(database: &TestDatabase) {
    let (profiles, by) = profiles(database).await;
    register(database, 2, 2001).await;
    publish(&profiles, by, 1, &picture("one")).await;
    let expected = Profile {
        avatar: Some(Avatar("one".to_owned())),
        ..profile(1)
    };
    assert!(profiles.find(aci(1), &version(1)).await.unwrap() == Some(expected));
    assert!(profiles.find(aci(1), &version(2)).await.unwrap().is_none());
    assert!(profiles.find(aci(2), &version(1)).await.unwrap().is_none());
    assert!(profiles.find(aci(9), &version(1)).await.unwrap().is_none());
}

pub(crate) async fn writing_a_version_again_replaces_all_of_it(database: &TestDatabase) {
    let (profiles, by) = profiles(database).await;
    publish(&profiles, by, 1, &AvatarChange::Clear).await;
    let bare = Profile {
        about: None,
        about_emoji: None,
        payment_address: None,
        phone_number_sharing: None,
        name: vec![9; 285].into(),
        ..profile(9)
    };
    let written = profiles.publish(&by, &version(1), &bare, &AvatarChange::Clear).await;
    assert!(written.unwrap().is_some());
    assert!(profiles.find(aci(1), &version(1)).await.unwrap() == Some(bare));
}

pub(crate) async fn a_picture_is_kept_replaced_and_cleared(database: &TestDatabase) {
    let (profiles, by) = profiles(database).await;
    let avatar = async || {
        let found = profiles.find(aci(1), &version(1)).await.unwrap();
        found.unwrap().avatar.map(|avatar| avatar.0)
    };
    publish(&profiles, by, 1, &AvatarChange::Keep).await;
    assert_eq!(avatar().await, None);
    publish(&profiles, by, 1, &picture("one")).await;
    publish(&profiles, by, 1, &AvatarChange::Keep).await;
    assert_eq!(avatar().await.as_deref(), Some("one"));
    publish(&profiles, by, 1, &picture("two")).await;
    assert_eq!(avatar().await.as_deref(), Some("two"));
    // It is encrypted under the key of its version: another version has none to keep.
    publish(&profiles, by, 2, &AvatarChange::Keep).await;
    assert!(
        profiles
            .find(aci(1), &version(2))
            .await
            .unwrap()
            .unwrap()
            .avatar
            .is_none()
    );
    publish(&profiles, by, 1, &AvatarChange::Clear).await;
    assert_eq!(avatar().await, None);
}

pub(crate) async fn a_picture_that_no_version_has_any_more_is_told_of(database: &TestDatabase) {
    let (profiles, by) = profiles(database).await;
    let dropped = async |n: u8, avatar: &AvatarChange| {
        let written = profiles.publish(&by, &version(n), &profile(n), avatar).await.unwrap();
        let dropped = written.unwrap().into_iter();
        dropped.map(|avatar| avatar.0).collect::<Vec<_>>()
    };
    assert!(dropped(1, &picture("one")).await.is_empty());
    assert!(dropped(1, &AvatarChange::Keep).await.is_empty());
    assert_eq!(dropped(1, &picture("two")).await, ["one"]);
    assert!(dropped(2, &picture("three")).await.is_empty());
    assert_eq!(dropped(2, &AvatarChange::Clear).await, ["three"]);
    for n in 3..=5 {
        assert!(dropped(n, &picture(&n.to_string())).await.is_empty());
    }
    assert_eq!(
        dropped(6, &AvatarChange::Keep).await,
        ["two"],
        "with the oldest version"
    );
    let mut left: Vec<_> = profiles
        .avatars(aci(1))
        .await
        .unwrap()
        .into_iter()
        .map(|avatar| avatar.0)
        .collect();
    left.sort();
    assert_eq!(left, ["3", "4", "5"]);
    assert!(profiles.avatars(aci(2)).await.unwrap().is_empty());
}

pub(crate) async fn the_versions_written_last_are_kept(database: &TestDatabase) {
    let (profiles, by) = profiles(database).await;
    for n in 1..=5 {
        publish(&profiles, by, n, &AvatarChange::Clear).await;
    }
    assert_eq!(kept(&profiles, aci(1)).await, [1, 2, 3, 4, 5]);
    // Written again, it is the youngest, and nothing goes.
    publish(&profiles, by, 1, &AvatarChange::Clear).await;
    assert_eq!(kept(&profiles, aci(1)).await, [1, 2, 3, 4, 5]);
    publish(&profiles, by, 6, &AvatarChange::Clear).await;
    assert_eq!(kept(&profiles, aci(1)).await, [1, 3, 4, 5, 6]);
    for n in 7..=20 {
        publish(&profiles, by, n, &AvatarChange::Clear).await;
    }
    assert_eq!(kept(&profiles, aci(1)).await, [16, 17, 18, 19, 20]);
    assert_eq!(database.number("SELECT sum(age) FROM profiles").await, 1 + 2 + 3 + 4);
}

pub(crate) async fn concurrent_writers_leave_no_more_than_the_limit(database: &TestDatabase) {
    let (profiles, by) = profiles(database).await;
    let nodes = [profiles, database.another().await.profiles];
    let writing = (1..=20).map(|n| {
        let profiles = Arc::clone(&nodes[usize::from(n % 2)]);
        async move { publish(&profiles, by, n, &AvatarChange::Clear).await }
    });
    join_all(writing).await;
    let count = database.number("SELECT count(*) FROM profiles").await;
    assert_eq!(count, i64::from(MAX_PROFILE_VERSIONS));
    let ages = database.number("SELECT count(DISTINCT age) FROM profiles").await;
    assert_eq!(ages, i64::from(MAX_PROFILE_VERSIONS));
}

pub(crate) async fn accounts_do_not_share_the_limit(database: &TestDatabase) {
    let (profiles, one) = profiles(database).await;
    register(database, 2, 2001).await;
    let other = actor(2, 2001);
    publish(&profiles, one, 1, &AvatarChange::Clear).await;
    for n in 1..=10 {
        publish(&profiles, other, n, &AvatarChange::Clear).await;
    }
    assert_eq!(kept(&profiles, aci(1)).await, [1]);
}

pub(crate) async fn a_device_that_is_gone_or_replaced_writes_nothing(database: &TestDatabase) {
    let profiles = database.storage().profiles;
    assert!(!try_publish(&profiles, actor(1, 1001), 1).await);
    register(database, 1, 1001).await;
    add_second_device(database).await;
    let second = linked_actor(1, 2, 1002);
    assert!(!try_publish(&profiles, linked_actor(1, 2, 1009), 1).await);
    publish(&profiles, second, 1, &AvatarChange::Clear).await;
    database.execute("DELETE FROM devices WHERE device_id = 2").await;
    assert!(!try_publish(&profiles, second, 2).await);
    assert_eq!(kept(&profiles, aci(1)).await, [1]);
    assert!(profiles.find(aci(1), &version(1)).await.unwrap() == Some(profile(1)));
}

pub(crate) async fn registering_again_drops_the_profiles(database: &TestDatabase) {
    let (profiles, by) = profiles(database).await;
    register(database, 2, 2001).await;
    let other = actor(2, 2001);
    for by in [by, other] {
        publish(&profiles, by, 1, &picture("one")).await;
    }
    register(database, 1, 1002).await;
    assert!(profiles.find(aci(1), &version(1)).await.unwrap().is_none());
    assert!(profiles.find(aci(2), &version(1)).await.unwrap().is_some());
}

pub(crate) async fn deleting_the_account_drops_the_profiles(database: &TestDatabase) {
    let (profiles, by) = profiles(database).await;
    publish(&profiles, by, 1, &AvatarChange::Clear).await;
    database.storage().accounts.delete(&actor(1, 1001)).await.unwrap();
    assert_eq!(database.number("SELECT count(*) FROM profiles").await, 0);
}
