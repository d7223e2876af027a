//! What nodes remember of accounts: while it is asked for all the time, and changed on another node.
//!
//! A change is there within five seconds, with Redis and without, and once a node has shown it, that node never goes back to
//! what was before, whatever lookups were under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;

use crate::support::redis_server::RedisServer;
use crate::support::server::{Place, postgres_url, spawn_pair};
use crate::support::{Backend, Person, Server, ask, random, single, until};

/// How two nodes hear of each other.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Joined {
    ByRedis,
    /// Redis is there, and then says nothing any more.
    ByDeadRedis,
    Apart,
}

const WAYS: [Joined; 3] = [Joined::ByRedis, Joined::ByDeadRedis, Joined::Apart];

/// The nodes, and what joins them for as long as it is kept.
async fn nodes(joined: Joined) -> Option<(Server, Server, Option<RedisServer>)> {
    postgres_url()?;
    if joined == Joined::Apart {
        let place = Place::new(Backend::Postgres).await;
        let one = Server::start(Arc::clone(&place), "one", NO_TICK);
        return Some((one, Server::start(place, "two", NO_TICK), None));
    }
    let redis = RedisServer::spawn()?;
    let (one, two) = spawn_pair(&redis.url(), NO_TICK).await;
    Some((one, two, Some(redis)))
}

/// Asks without a pause, several at once, while something is changed; until the answer is the new one, and for a while after
/// that. An answer to what was asked after somebody had the new one must be the new one.
async fn never_goes_back(
    joined: Joined,
    old: u16,
    new: u16,
    asking: impl AsyncFn() -> u16,
    changing: impl Future<Output = ()>,
) {
    let (seen, changed, answers) = (AtomicBool::new(false), AtomicBool::new(false), AtomicU64::new(0));
    let askers = join_all((0..ASKERS).map(|_| async {
        let mut after = 0;
        while after < ASKED_AFTER {
            let was_seen = seen.load(Ordering::SeqCst);
            let answer = asking().await;
            answers.fetch_add(1, Ordering::SeqCst);
            assert!([old, new].contains(&answer), "{joined:?}: {answer}");
            assert!(!was_seen || answer == new, "{joined:?}: it went back");
            if answer == new {
                assert!(changed.load(Ordering::SeqCst), "{joined:?}: before anybody changed it");
                seen.store(true, Ordering::SeqCst);
            }
            after += u32::from(was_seen);
        }
    }));
    let changer = async {
        until("answers", async || answers.load(Ordering::SeqCst) > 20).await;
        changed.store(true, Ordering::SeqCst);
        changing.await;
        let seeing = until("the change", async || seen.load(Ordering::SeqCst));
        let within = tokio::time::timeout(PROMISED, seeing).await;
        assert!(within.is_ok(), "{joined:?}: not seen within {PROMISED:?}");
    };
    Box::pin(async { tokio::join!(askers, changer) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t08_a_device_that_was_removed_under_fire_is_never_served_again() {
    for joined in WAYS {
        let Some((one, two, redis)) = nodes(joined).await else {
            return;
        };
        let alice = Person::register(&one).await;
        let tablet = alice.link(&one).await;
        let asking = async || ask(tablet.request(&two, "GET", "/v1/accounts/whoami")).await.status;
        assert_eq!(asking().await, 200);
        if joined == Joined::ByDeadRedis {
            redis.as_ref().unwrap().pause();
        }
        let path = format!("/v1/devices/{}", tablet.device_id);
        never_goes_back(joined, 200, 401, asking, async {
            ask(alice.request(&one, "DELETE", &path)).await.expect(204);
        })
        .await;
        redis.iter().for_each(RedisServer::resume);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn senders_are_told_of_a_removed_device_and_never_again_to_write_to_it() {
    for joined in WAYS {
        let Some((one, two, redis)) = nodes(joined).await else {
            return;
        };
        let (alice, bob) = (Person::register(&one).await, Person::register(&two).await);
        let tablet = alice.link(&one).await;
        // To the primary only: refused for as long as there is another device.
        let message = single(&alice, 1, b"to one");
        let asking = async || {
            ask(bob.request(&two, "PUT", &alice.inbox()).json(&message))
                .await
                .status
        };
        assert_eq!(asking().await, 409);
        if joined == Joined::ByDeadRedis {
            redis.as_ref().unwrap().pause();
        }
        let path = format!("/v1/devices/{}", tablet.device_id);
        never_goes_back(joined, 409, 200, asking, async {
            ask(alice.request(&one, "DELETE", &path)).await.expect(204);
        })
        .await;
        redis.iter().for_each(RedisServer::resume);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_access_key_that_was_changed_under_fire_opens_nothing_again() {
    for joined in WAYS {
        let Some((one, two, redis)) = nodes(joined).await else {
            return;
        };
        let alice = Person::register(&one).await;
        let message = single(&alice, 6, b"sealed");
        let old = alice.access_key_header();
        let asking = async || {
            let request = two.request("PUT", &alice.inbox());
            ask(request.header("unidentified-access-key", &old).json(&message))
                .await
                .status
        };
        assert_eq!(asking().await, 200);
        if joined == Joined::ByDeadRedis {
            redis.as_ref().unwrap().pause();
        }
        let changed = Person {
            access_key: random(),
            ..alice.clone()
        };
        never_goes_back(joined, 200, 401, asking, async {
            let request = alice.request(&one, "PUT", "/v1/accounts/attributes");
            ask(request.json(&changed.attributes())).await.expect(204);
        })
        .await;
        redis.iter().for_each(RedisServer::resume);
    }
}

/// No tick within a test: what is seen is not seen by it.
const NO_TICK: &[(&str, &str)] = &[("RELAY__FALLBACK_TICK_MILLIS", "600000")];
const PROMISED: Duration = Duration::from_secs(5);
const ASKERS: usize = 4;
/// Of each, after the new answer was seen.
const ASKED_AFTER: u32 = 100;
