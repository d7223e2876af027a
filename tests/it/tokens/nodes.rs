//! Sessions on two nodes of one database, with Redis and without.

use std::sync::Arc;

use serde_json::json;

use super::PROMISED;
use crate::support::redis_server::RedisServer;
use crate::support::server::{Place, postgres_url, spawn_pair};
use crate::support::tokens::Tokens;
use crate::support::{Backend, Person, Server, Socket, ask};

/// No tick within a test: what is seen is not seen by it.
const NO_TICK: &[(&str, &str)] = &[("RELAY__FALLBACK_TICK_MILLIS", "600000")];

/// How two nodes hear of each other.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Joined {
    ByRedis,
    /// Redis is there, and then says nothing any more.
    ByDeadRedis,
    /// Not at all.
    Apart,
}

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t04_a_used_refresh_token_ends_its_session_on_every_node() {
    for joined in [Joined::ByRedis, Joined::ByDeadRedis, Joined::Apart] {
        let Some((one, two, redis)) = nodes(joined).await else {
            return;
        };
        let alice = Person::register(&one).await;
        let tablet = alice.link(&one).await;
        let first = Tokens::open(&one, &alice).await;
        let mut told = tablet.connect(&two).await;
        told.expect_empty().await;
        let mut socket = first.connect(&two).await;
        socket.expect_empty().await;
        let next = first.next(&two).await;
        assert_eq!(next.whoami(&one).await, 200);
        if joined == Joined::ByDeadRedis {
            redis.as_ref().unwrap().pause();
        }
        ask(first.refreshing(&one)).await.expect(401);
        for node in [&one, &two] {
            next.until_dead(node, PROMISED).await;
            ask(next.refreshing(node)).await.expect(401);
        }
        let closed = tokio::time::timeout(PROMISED, socket.close_code()).await;
        assert_eq!(closed.ok().flatten(), Some(4401), "{joined:?}");
        if joined == Joined::ByRedis {
            assert_eq!(told.notice().await.1["code"], "session_revoked");
        }
        if let Some(redis) = redis {
            redis.resume();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t05_many_with_one_refresh_token_on_two_nodes_are_served_once() {
    let Some((one, two, _redis)) = nodes(Joined::Apart).await else {
        return;
    };
    let alice = Person::register(&one).await;
    for same_attempt in [false, true] {
        let tokens = Tokens::open(&one, &alice).await;
        let asking = (0..20).map(|n| {
            let node = if n % 2 == 0 { &one } else { &two };
            let name = format!("attempt-{:016}", if same_attempt { 0 } else { n });
            ask(tokens.refreshing(node).header("idempotency-key", name))
        });
        let answers = futures_util::future::join_all(asking).await;
        let served = answers.iter().filter(|answer| answer.status == 200).count();
        assert_eq!(served, if same_attempt { 20 } else { 1 }, "{answers:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t08_a_token_dies_on_every_node_with_redis_and_without() {
    for joined in [Joined::ByRedis, Joined::ByDeadRedis, Joined::Apart] {
        let Some((one, two, redis)) = nodes(joined).await else {
            return;
        };
        let alice = Person::register(&one).await;
        let tablet = alice.link(&one).await;
        let bob = Person::register(&two).await;
        let (logout, unlink, reset) = (
            Tokens::open(&one, &alice).await,
            Tokens::open(&two, &tablet).await,
            Tokens::open(&one, &bob).await,
        );
        let mut sockets: Vec<Socket> = Vec::new();
        for tokens in [&logout, &unlink, &reset] {
            for node in [&one, &two] {
                assert_eq!(tokens.whoami(node).await, 200);
            }
            sockets.push(tokens.connect(&two).await);
        }
        if joined == Joined::ByDeadRedis {
            redis.as_ref().unwrap().pause();
        }
        ask(logout.request(&one, "DELETE", "/v1/auth/sessions"))
            .await
            .expect(204);
        let path = format!("/v1/devices/{}", tablet.device_id);
        ask(alice.request(&one, "DELETE", &path)).await.expect(204);
        let password = json!({ "password": "another password" });
        ask(bob.request(&one, "PUT", "/v1/devices/password").json(&password))
            .await
            .expect(204);
        for tokens in [&logout, &unlink, &reset] {
            for node in [&one, &two] {
                tokens.until_dead(node, PROMISED).await;
                let refused = Socket::open(node, Some(&tokens.bearer()), &[]).await;
                assert_eq!(refused.err(), Some(403), "{joined:?}");
            }
        }
        for mut socket in sockets {
            let closed = tokio::time::timeout(PROMISED, socket.close_code()).await;
            assert_eq!(closed.ok().flatten(), Some(4401), "{joined:?}");
        }
        if let Some(redis) = redis {
            redis.resume();
        }
    }
}
