//! What the server itself tells a connected device: rarely, to its own socket alone, and in nobody's way.

use serde_json::{Value, json};

use crate::support::keys::one_time_keys;
use crate::support::redis_server::RedisServer;
use crate::support::server::{postgres_url, spawn_pair};
use crate::support::{Backend, Person, Server, Socket, ask, on_each_backend, send, until};

on_each_backend! {
    an_owner_hears_once_that_few_keys_are_left_of_each_identity
    a_notice_is_in_nobodys_way_however_it_is_answered
}

async fn an_owner_hears_once_that_few_keys_are_left_of_each_identity(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let tablet = bob.link(&server).await;
    bob.upload_keys(&server, 1, 27).await;
    let mut phone = bob.connect(&server).await;
    let mut others = [
        tablet.connect(&server).await,
        alice.connect(&server).await,
        Socket::open(&server, None, &[]).await.unwrap(),
    ];
    let take = async |path: String| {
        ask(alice.request(&server, "GET", &path)).await.expect(200);
    };
    for _ in 0..2 {
        take(format!("/v2/keys/{}/1", bob.aci)).await;
    }
    phone.keepalive().await;
    assert_eq!(phone.notices(), [], "25 are enough");
    take(format!("/v2/keys/{}/1", bob.aci)).await;
    assert_eq!(phone.notice().await.1, low("aci", 24, 24));
    // The tablet has none of its own, so it hears of that, and not of the phone's.
    for _ in 0..3 {
        take(format!("/v2/keys/{}/*", bob.aci)).await;
    }
    assert_eq!(others[0].notice().await.1, low("aci", 0, 0));
    let pni = one_time_keys(&bob.pni_identity, 1, 1);
    ask(bob
        .request(&server, "PUT", "/v2/keys?identity=PNI")
        .json(&json!({ "preKeys": pni["preKeys"] })))
    .await
    .expect(204);
    take(format!("/v2/keys/PNI:{}/1", bob.pni)).await;
    assert_eq!(phone.notice().await.1, low("pni", 0, 0));
    take(format!("/v2/keys/PNI:{}/1", bob.pni)).await;
    assert_eq!(said(&server).await, 3);
    for socket in [&mut phone].into_iter().chain(&mut others) {
        socket.keepalive().await;
        assert_eq!(socket.notices(), []);
    }
}

async fn a_notice_is_in_nobodys_way_however_it_is_answered(backend: Backend) {
    // Nothing may be under way but one envelope: what counted a notice would wait for ever.
    let server = Server::spawn_with(backend, &[("RELAY__WINDOW_ENVELOPES", "1")]).await;
    let alice = Person::register(&server).await;
    for answered in [None, Some(200), Some(400)] {
        // Someone else each time: it is told once.
        let bob = Person::register(&server).await;
        let mut socket = bob.connect(&server).await;
        socket.expect_empty().await;
        ask(alice.request(&server, "GET", &format!("/v2/keys/{}/*", bob.aci)))
            .await
            .expect(200);
        let (id, notice) = socket.notice().await;
        assert_eq!(notice, low("aci", 0, 0));
        if let Some(status) = answered {
            socket.answer(id, status).await;
        }
        for text in [&b"one"[..], b"two", b"three"] {
            send(&server, &alice, &bob, text).await.expect(200);
            assert_eq!(socket.content().await, text);
        }
        // An answer to a notice acknowledges no envelope.
        send(&server, &alice, &bob, b"four").await.expect(200);
        let (envelope, _) = socket.envelope().await;
        assert_ne!(envelope, id);
        socket.answer(id, 200).await;
        socket.keepalive().await;
        let mut socket = bob.connect(&server).await;
        assert_eq!(socket.drain().await, [&b"four"[..]]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notice_finds_the_device_on_whichever_node_it_is() {
    let (Some(_), Some(redis)) = (postgres_url(), RedisServer::spawn()) else {
        return;
    };
    let (one, two) = spawn_pair(&redis.url(), &[]).await;
    for node in [&one, &two] {
        until("a subscription", async || node.log().contains("listening for hints")).await;
    }
    let (alice, bob) = (Person::register(&one).await, Person::register(&one).await);
    bob.upload_keys(&one, 1, 10).await;
    let mut phone = bob.connect(&two).await;
    phone.expect_empty().await;
    let path = format!("/v2/keys/{}/1", bob.aci);
    ask(alice.request(&one, "GET", &path)).await.expect(200);
    assert_eq!(phone.notice().await.1, low("aci", 9, 9));
    // The other node says it as well, and the connection has heard it.
    ask(alice.request(&two, "GET", &path)).await.expect(200);
    until("the other node's word", async || said(&two).await == 1).await;
    phone.keepalive().await;
    assert_eq!(phone.notices(), []);
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
async fn said(server: &Server) -> u64 {
    server.metric("blind_relay_notices_total{code=\"prekeys_low\"}").await as u64
}

fn low(kind: &str, ec: u32, kyber: u32) -> Value {
    json!({ "code": "prekeys_low", "kind": kind, "ec": ec, "kyber": kyber })
}
