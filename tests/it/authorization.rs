//! Every route against everyone who is not supposed to use it (T58), and what one device can reach of another.

mod cases;
mod claims;
mod form;
mod injection;
mod matrix;

use blind_relay::http::routes::ROUTES;
use serde_json::json;

use crate::support::{Backend, Person, Server, ask, random, send, single};

#[tokio::test]
async fn a_device_credential_on_an_inner_request_never_changes_who_asks() {
    let server = Server::spawn(Backend::Sqlite).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let mut socket = alice.connect(&server).await;
    let inner = format!("Authorization:{}", bob.authorization());
    for headers in [&[][..], &[inner.as_str()]] {
        let answer = socket
            .ask("GET", "/v1/accounts/whoami", headers, None)
            .await
            .expect(200);
        assert_eq!(answer.json()["uuid"], alice.aci);
    }
    // Once the device is gone the open socket proves nothing any more, whatever comes first.
    ask(alice.request(&server, "DELETE", "/v1/accounts/me"))
        .await
        .expect(204);
    socket.ask_as(Some(50), "GET", "/v1/accounts/whoami", &[], None).await;
    assert_eq!(socket.close_code().await, Some(4401));
}

#[tokio::test]
async fn b17_there_are_no_routes_beside_the_list() {
    let server = Server::spawn(Backend::Sqlite).await;
    let alice = Person::register(&server).await;
    for path in [
        "/",
        "/metrics",
        "/admin",
        "/v1",
        "/v1/accounts",
        "/v1/messages/",
        "/v1/keys",
        "/v2/keys/x",
        "/v1/devices",
        "/v1/config",
        "/v2/config",
        "/v1/profile",
        "/v1//messages",
        "/health",
        "/debug",
        "/v1/websocket/provisioning",
    ] {
        let answer = ask(alice.request(&server, "POST", path).json(&json!({}))).await;
        assert!(matches!(answer.status, 404 | 405), "{path}: {answer:?}");
    }
    for method in ["GET", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE"] {
        for route in ROUTES {
            let known = ROUTES
                .iter()
                .any(|other| other.path == route.path && other.method.eq_ignore_ascii_case(method));
            if !known {
                let answer = ask(alice.request(&server, method, route.path)).await;
                assert_eq!(answer.status, 405, "{method} {}", route.path);
            }
        }
    }
}

#[tokio::test]
async fn t29_one_device_neither_reads_nor_deletes_anothers_queue() {
    let server = Server::spawn(Backend::Sqlite).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    send(&server, &alice, &bob, b"for bob").await.expect(200);
    send(&server, &bob, &alice, b"for alice").await.expect(200);
    let fetched = bob.fetch(&server).await;
    assert_eq!(fetched["messages"].as_array().unwrap().len(), 1);
    let guid = fetched["messages"][0]["guid"].as_str().unwrap().to_owned();
    let unknown = uuid::Uuid::from_bytes(random()).to_string();
    let delete = async |guid: &str| {
        ask(alice.request(&server, "DELETE", &format!("/v1/messages/uuid/{guid}")))
            .await
            .expect(204)
            .looks()
    };
    assert_eq!(delete(&guid).await, delete(&unknown).await);
    // Nor does it reach an envelope of her own that has the same place in her queue.
    assert_eq!(alice.fetch(&server).await["messages"].as_array().unwrap().len(), 1);
    // Nor by answering, on a socket of her own, a request that she was never sent.
    let mut socket = alice.connect(&server).await;
    for id in 0..50 {
        socket.answer(id, 200).await;
    }
    assert_eq!(bob.connect(&server).await.drain().await, [&b"for bob"[..]]);
}

#[tokio::test]
async fn t44_no_answer_tells_whether_a_device_is_connected() {
    let server = Server::spawn(Backend::Sqlite).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let keys = format!("/v2/keys/{}/*", bob.aci);
    let looks = async || {
        let mut all = vec![ask(alice.request(&server, "GET", &keys)).await.expect(200).looks()];
        for online in [true, false] {
            let mut body = single(&bob, 6, b"c");
            body["online"] = online.into();
            all.push(
                ask(alice.request(&server, "PUT", &bob.inbox()).json(&body))
                    .await
                    .expect(200)
                    .looks(),
            );
            let key = server
                .request("PUT", &bob.inbox())
                .header("unidentified-access-key", bob.access_key_header());
            all.push(ask(key.json(&body)).await.expect(200).looks());
        }
        all
    };
    let offline = looks().await;
    let mut socket = bob.connect(&server).await;
    assert_eq!(socket.drain().await.len(), 2);
    assert_eq!(looks().await, offline);
}
