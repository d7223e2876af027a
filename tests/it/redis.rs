//! Two nodes on one Postgres, joined by a Redis that comes and goes.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::json;

use crate::support::person::{people, until_dead};
use crate::support::redis_server::RedisServer;
use crate::support::server::{postgres_url, spawn_pair};
use crate::support::traffic::{content, expect_each_once_in_order, flood};
use crate::support::{Person, Server, Socket, ask, ciphertext, fan_out, hex, random, send, single, until, within};

/// No tick within a test: only hints deliver.
const HINTS_ONLY: &[(&str, &str)] = &[("RELAY__FALLBACK_TICK_MILLIS", "600000")];
const QUICK_TICK: &[(&str, &str)] = &[("RELAY__FALLBACK_TICK_MILLIS", "200")];

#[tokio::test]
async fn hints_cross_from_node_to_node() {
    let Some((_redis, one, two)) = pair(HINTS_ONLY).await else {
        return;
    };
    let (alice, bob) = (Person::register(&one).await, Person::register(&two).await);
    let mut socket = bob.connect(&two).await;
    socket.expect_empty().await;
    for number in 0..20 {
        send(&one, &alice, &bob, &content(0, number)).await.expect(200);
        assert_eq!(socket.content().await, content(0, number));
    }
    assert!(hinted(&two).await > 0.0);
    socket.keepalive().await;
    bob.connect(&one).await.expect_empty().await;
}

#[tokio::test]
async fn one_message_to_many_reaches_devices_on_both_nodes() {
    let Some((_redis, one, two)) = pair(HINTS_ONLY).await else {
        return;
    };
    let people = people(&one, 4).await;
    let mut sockets = Vec::new();
    for (n, person) in people.iter().enumerate() {
        let mut socket = person.connect(if n % 2 == 0 { &one } else { &two }).await;
        socket.expect_empty().await;
        sockets.push(socket);
    }
    let key = fan_out::combined_key(&people);
    for round in 0..20_u8 {
        let entries: Vec<_> = people.iter().map(fan_out::Entry::of).collect();
        let tail = [round; 64];
        let from = if round % 2 == 0 { &one } else { &two };
        let message = fan_out::message(&entries, &tail);
        ask(fan_out::request(from, "?ts=1", message).header("unidentified-access-key", &key))
            .await
            .expect(200);
        for (socket, entry) in sockets.iter_mut().zip(&entries) {
            assert_eq!(socket.content().await, entry.content(&tail));
        }
    }
}

#[tokio::test]
async fn what_a_node_remembers_refuses_nobody_who_registered_anew_or_has_the_new_key() {
    let Some((redis, one, two)) = pair(QUICK_TICK).await else {
        return;
    };
    // Without hints the second node goes on remembering what was.
    redis.pause();
    let (alice, mut bob) = (Person::register(&one).await, Person::register(&one).await);
    for round in 0..3 {
        ask(alice.request(&two, "GET", &format!("/v2/keys/{}/1", bob.aci)))
            .await
            .expect(200);
        let mut again = Person::new();
        again.number.clone_from(&bob.number);
        again.register_on(&one).await;
        bob = again;
        let sealed = two
            .request("PUT", &bob.inbox())
            .header("unidentified-access-key", bob.access_key_header());
        ask(sealed.json(&single(&bob, 6, &[round]))).await.expect(200);
        let mut socket = bob.connect(&two).await;
        assert_eq!(socket.content().await, &[round][..]);
    }
    redis.resume();
}

#[tokio::test]
async fn t60_redis_stopped_in_the_middle_of_traffic_loses_nothing_and_resumes_by_itself() {
    let Some((mut redis, one, two)) = pair(QUICK_TICK).await else {
        return;
    };
    let (senders, bob) = (people(&one, 4).await, Person::register(&two).await);
    let mut socket = bob.connect(&two).await;
    socket.expect_empty().await;
    let receiving = async {
        let mut contents = Vec::new();
        while contents.len() < 1_200 {
            contents.push(socket.content().await);
        }
        contents
    };
    let sending = async {
        flood(&one, &senders, &bob, 0..100).await;
        let stopping = async {
            redis.stop();
            redis
        };
        let ((), mut redis) = tokio::join!(flood(&one, &senders, &bob, 100..200), stopping);
        assert!(redis.start());
        flood(&one, &senders, &bob, 200..300).await;
        redis
    };
    let (contents, redis) = Box::pin(async { tokio::join!(receiving, sending) }).await;
    expect_each_once_in_order(&contents, 4, 0..300);

    until_listening(&one, 2).await;
    until_listening(&two, 2).await;
    let before = hinted(&two).await;
    until("a hint", async || {
        send(&one, &senders[0], &bob, b"again").await.expect(200);
        socket.content().await;
        hinted(&two).await > before
    })
    .await;
    drop(redis);
}

#[tokio::test]
async fn t60_a_frozen_redis_delays_nobody_for_longer_than_the_tick() {
    let Some((redis, one, two)) = pair(QUICK_TICK).await else {
        return;
    };
    let (alice, bob) = (Person::register(&one).await, Person::register(&two).await);
    let mut socket = bob.connect(&two).await;
    socket.expect_empty().await;
    redis.pause();
    for number in 0..50 {
        send(&one, &alice, &bob, &content(0, number)).await.expect(200);
        assert_eq!(socket.content().await, content(0, number));
    }
    assert!(ticked(&two).await > 0.0);
    redis.resume();
    let before = hinted(&two).await;
    until("hints to flow again", async || {
        send(&one, &alice, &bob, b"again").await.expect(200);
        socket.content().await;
        hinted(&two).await > before
    })
    .await;
}

#[tokio::test]
async fn t60_redis_keeps_no_envelope_and_may_be_emptied() {
    let Some((redis, one, two)) = pair(HINTS_ONLY).await else {
        return;
    };
    let (alice, bob) = (Person::register(&one).await, Person::register(&two).await);
    let mut socket = bob.connect(&two).await;
    socket.expect_empty().await;
    send(&one, &alice, &bob, b"before").await.expect(200);
    assert_eq!(socket.content().await, &b"before"[..]);
    assert_eq!(redis.stored_keys().await, 0);
    redis.flush_and_cut().await;
    // A new subscription counts as a hint: nothing waits for the tick.
    send(&one, &alice, &bob, b"meanwhile").await.expect(200);
    assert_eq!(socket.content().await, &b"meanwhile"[..]);
    until_listening(&two, 2).await;
    send(&one, &alice, &bob, b"after").await.expect(200);
    assert_eq!(socket.content().await, &b"after"[..]);
}

#[tokio::test]
async fn t30_a_connection_on_another_node_takes_over() {
    let Some((_redis, one, two)) = pair(HINTS_ONLY).await else {
        return;
    };
    let (alice, bob) = (Person::register(&one).await, Person::register(&two).await);
    send(&one, &alice, &bob, b"unanswered").await.expect(200);
    let mut first = bob.connect(&one).await;
    first.envelope().await;
    let mut second = bob.connect(&two).await;
    assert_eq!(first.close_code().await, Some(4409));
    assert_eq!(second.drain().await, [&b"unanswered"[..]]);
    for number in 0..20 {
        let node = if number % 2 == 0 { &one } else { &two };
        send(node, &alice, &bob, &content(0, number)).await.expect(200);
        assert_eq!(second.content().await, content(0, number));
    }
    second.keepalive().await;
    let mut third = bob.connect(&one).await;
    assert_eq!(second.close_code().await, Some(4409));
    third.expect_empty().await;
}

#[tokio::test]
async fn online_only_envelopes_cross_nodes_and_are_not_stored() {
    let Some((_redis, one, two)) = pair(HINTS_ONLY).await else {
        return;
    };
    let (alice, bob) = (Person::register(&one).await, Person::register(&two).await);
    let mut socket = bob.connect(&two).await;
    socket.expect_empty().await;
    let mut body = single(&bob, 1, b"now or never");
    body["online"] = true.into();
    ask(alice.request(&one, "PUT", &bob.inbox()).json(&body))
        .await
        .expect(200);
    assert_eq!(
        socket.envelope().await.1.content.as_deref(),
        Some(&ciphertext(b"now or never")[..])
    );
    assert_eq!(bob.fetch(&one).await["messages"], json!([]));
}

#[tokio::test]
async fn t08_a_removed_account_is_dead_on_the_other_node_by_hint() {
    let Some((_redis, one, two)) = pair(HINTS_ONLY).await else {
        return;
    };
    removed_on_one_is_dead_on_two(&one, &two).await;
}

#[tokio::test]
async fn t08_a_removed_account_is_dead_on_the_other_node_without_redis_too() {
    let Some((mut redis, one, two)) = pair(&[]).await else {
        return;
    };
    redis.stop();
    removed_on_one_is_dead_on_two(&one, &two).await;
}

async fn removed_on_one_is_dead_on_two(one: &Server, two: &Server) {
    let (alice, bob, mut carol) = (
        Person::register(one).await,
        Person::register(one).await,
        Person::register(two).await,
    );
    // The other node knows them well.
    let mut socket = bob.connect(two).await;
    socket.expect_empty().await;
    let mut carols = carol.connect(two).await;
    carols.expect_empty().await;
    for person in [&bob, &carol] {
        ask(person.request(two, "GET", "/v1/accounts/whoami")).await.expect(200);
        send(two, &alice, person, b"c").await.expect(200);
    }
    let old = carol.clone();
    carol.password = hex(&random::<16>());
    carol.register_on(one).await;
    ask(bob.request(one, "DELETE", "/v1/accounts/me")).await.expect(204);
    let limit = Duration::from_secs(5);
    for person in [&bob, &old] {
        until_dead(two, person, limit).await;
        assert_eq!(
            Socket::open(two, Some(&person.authorization()), &[]).await.err(),
            Some(403)
        );
    }
    assert_eq!(socket.close_code().await, Some(4401));
    assert_eq!(carols.close_code().await, Some(4401));
    ask(carol.request(two, "GET", "/v1/accounts/whoami")).await.expect(200);
    send(two, &alice, &bob, b"c").await.expect(404);
    send(two, &alice, &carol, b"c").await.expect(200);
}

#[tokio::test]
async fn b16_t72_hints_hold_no_content_and_no_sender() {
    let Some((redis, one, two)) = pair(HINTS_ONLY).await else {
        return;
    };
    let (alice, bob) = (Person::register(&one).await, Person::register(&two).await);
    // Accounts are named when they change, so the search begins after that.
    let client = redis::Client::open(redis.url()).unwrap();
    let mut listener = client.get_async_pubsub().await.unwrap();
    listener.psubscribe("*").await.unwrap();
    let mut socket = bob.connect(&two).await;
    socket.expect_empty().await;
    let canary = random::<32>();
    for online in [true, false] {
        let mut body = single(&bob, 1, &canary);
        body["online"] = online.into();
        ask(alice.request(&one, "PUT", &bob.inbox()).json(&body))
            .await
            .expect(200);
        socket.envelope().await;
    }
    // What was published before this is published by now.
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    redis::cmd("PUBLISH")
        .arg("end")
        .arg("end")
        .query_async::<()>(&mut connection)
        .await
        .unwrap();
    let mut heard = Vec::new();
    let mut messages = listener.into_on_message();
    within("the last message", async {
        while let Some(message) = messages.next().await
            && message.get_channel_name() != "end"
        {
            heard.extend_from_slice(message.get_payload_bytes());
        }
    })
    .await;
    assert!(heard.len() > 50, "hints were heard");
    let finds = |needle: &[u8]| heard.windows(needle.len()).any(|window| window == needle);
    assert!(!finds(&canary), "the content");
    for person in [&alice, &bob] {
        assert!(
            !finds(uuid::Uuid::parse_str(&person.aci).unwrap().as_bytes()),
            "an account"
        );
        assert!(
            !finds(person.aci.as_bytes()) && !finds(person.number.as_bytes()),
            "an account or a number"
        );
    }
    assert!(finds(&heard[20..30]), "the search works");
}

/// Two nodes that hear each other through a Redis of their own.
async fn pair(settings: &[(&str, &str)]) -> Option<(RedisServer, Server, Server)> {
    postgres_url()?;
    let redis = RedisServer::spawn()?;
    let (one, two) = spawn_pair(&redis.url(), settings).await;
    until_listening(&one, 1).await;
    until_listening(&two, 1).await;
    Some((redis, one, two))
}

async fn until_listening(server: &Server, times: usize) {
    until("a subscription", async || {
        server.log().matches("listening for hints").count() >= times
    })
    .await;
}

async fn hinted(server: &Server) -> f64 {
    server.metric("blind_relay_wakeups_total{path=\"hint\"}").await
}

async fn ticked(server: &Server) -> f64 {
    server.metric("blind_relay_wakeups_total{path=\"tick\"}").await
}
