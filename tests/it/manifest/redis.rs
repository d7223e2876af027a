//! Redis: what it has while two nodes talk through it.

use blind_relay::manifest::{Manifest, RedisKind};

use crate::support::redis_server::RedisServer;
use crate::support::server::{postgres_url, spawn_pair};
use crate::support::{Person, send, until};

#[tokio::test]
async fn b1_redis_has_the_channel_of_the_manifest_and_no_other_key() {
    if postgres_url().is_none() {
        return;
    }
    let Some(redis) = RedisServer::spawn() else { return };
    let (one, two) = spawn_pair(&redis.url(), &[]).await;
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut channels: Vec<String> = Vec::new();
    until("both nodes to listen", async || {
        one.metric("blind_relay_bus_listening").await > 0.5 && two.metric("blind_relay_bus_listening").await > 0.5
    })
    .await;
    let (alice, bob) = (Person::register(&one).await, Person::register(&one).await);
    let mut socket = bob.connect(&two).await;
    socket.expect_empty().await;
    send(&one, &alice, &bob, b"text").await.expect(200);
    socket.content().await;
    for pattern in [
        redis::cmd("PUBSUB").arg("CHANNELS"),
        redis::cmd("PUBSUB").arg("SHARDCHANNELS"),
    ] {
        channels.extend(pattern.query_async::<Vec<String>>(&mut connection).await.unwrap());
    }
    let listed: Vec<&str> = Manifest::embedded()
        .redis
        .iter()
        .filter(|name| name.kind == RedisKind::Channel)
        .map(|name| name.name.as_str())
        .collect();
    assert_eq!(channels, listed);
    let patterns: i64 = redis::cmd("PUBSUB")
        .arg("NUMPAT")
        .query_async(&mut connection)
        .await
        .unwrap();
    assert_eq!(patterns, 0, "nobody listens to more");
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
    let unlisted: Vec<_> = keys
        .iter()
        .filter(|key| Manifest::embedded().redis_name(RedisKind::Key, key).is_none())
        .collect();
    assert!(unlisted.is_empty(), "{unlisted:?}");
}
