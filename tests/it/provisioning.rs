//! The socket of a device that waits to be linked, and the one message that it gets.

use bytes::Bytes;
use futures_util::StreamExt;
use keys_schema::proto::{WebSocketMessage, web_socket_message::Type};
use prost::Message as _;
use rustix::process::Signal;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Message;

use crate::support::frames::{close_code, frame, read_frame, upgrade};
use crate::support::keys::base64;
use crate::support::provisioning::{NewDevice, hand_over};
use crate::support::redis_server::RedisServer;
use crate::support::server::{postgres_url, spawn_pair};
use crate::support::{Backend, Person, Server, ask, on_each_backend, random, until, within};

on_each_backend! {
    a_new_device_gets_its_one_message
}

async fn a_new_device_gets_its_one_message(backend: Backend) {
    let server = Server::spawn(backend).await;
    let alice = Person::register(&server).await;
    let mut device = NewDevice::wait_on(&server).await.unwrap();
    assert_eq!(device.address.len(), 24);
    assert!(device.address.ends_with("=="));
    assert_eq!(device.ask("GET", "/v1/keepalive/provisioning").await, 200);
    let message: [u8; 64] = random();
    let address = device.address.clone();
    let receiving = async {
        let (id, received) = device.message().await;
        // While it is thinking, the address is spent already.
        hand_over(&server, &Person::register(&server).await, &address, b"second")
            .await
            .expect(404);
        device.answer(id).await;
        (received, device.closed().await)
    };
    let sending = hand_over(&server, &alice, &address, &message);
    let (answer, (received, closed)) = tokio::join!(sending, Box::pin(receiving));
    let answer = answer.expect(204);
    assert!(answer.body.is_empty() && answer.header("content-type").is_none());
    assert_eq!(received, &message[..]);
    assert_eq!(closed, Some((1000, "Done".to_owned())));
    hand_over(&server, &alice, &address, &message).await.expect(404);
    assert_eq!(
        server.metric("blind_relay_sockets_closed_total{reason=\"done\"}").await,
        1.0
    );
    assert_eq!(server.metric("blind_relay_sockets{kind=\"provisioning\"}").await, 0.0);
}

/// The frames as they are on the wire, with nothing between that could mend them.
#[tokio::test]
async fn the_story_of_a_link_is_right_to_the_byte() {
    let server = Server::spawn(Backend::Sqlite).await;
    let alice = Person::register(&server).await;
    for path in ["/v1/websocket/provisioning/", "/v1/websocket/provisioning"] {
        let (mut stream, head) = upgrade(&server, path, "").await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        let (opcode, pushed) = read_frame(&mut stream).await.unwrap();
        let time = timestamp(&pushed);
        // REQUEST { "PUT", "/v1/address", ProvisioningAddress, 1, [X-Signal-Timestamp] }
        let address = String::from_utf8(pushed[26..50].to_vec()).unwrap();
        let mut request = b"\x0a\x03PUT\x12\x0b/v1/address\x1a\x1a\x0a\x18".to_vec();
        request.extend_from_slice(address.as_bytes());
        request.extend_from_slice(b"\x20\x01\x2a\x20X-Signal-Timestamp:");
        request.extend_from_slice(time.as_bytes());
        assert_eq!((opcode, pushed), (0x2, wrapped(b"\x08\x01\x12", &request)));
        assert!(
            address[..22]
                .bytes()
                .all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
        );
        assert_eq!(&address[22..], "==");
        stream
            .write_all(&frame(0x2, b"\x08\x02\x1a\x09\x08\x01\x10\xc8\x01\x1a\x02OK"))
            .await
            .unwrap();

        // The keepalive of a client in the field: any id, and headers that say nothing.
        let keepalive = b"\x0a\x03GET\x12\x1a/v1/keepalive/provisioning\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
        stream
            .write_all(&frame(0x2, &wrapped(b"\x08\x01\x12", keepalive)))
            .await
            .unwrap();
        let (opcode, answer) = read_frame(&mut stream).await.unwrap();
        let answer = WebSocketMessage::decode(Bytes::from(answer)).unwrap();
        assert_eq!((opcode, answer.r#type), (0x2, Some(Type::Response.into())));
        let response = answer.response.unwrap();
        assert_eq!(
            (
                response.id,
                response.status,
                response.message.as_deref(),
                &response.body
            ),
            (Some(u64::MAX), Some(200), Some("OK"), &None)
        );

        // The address goes into the path as it is, and the body has lines.
        let message = vec![0x5a; 300];
        let mut text = base64(&message);
        text.insert_str(76, "\r\n");
        let path = format!("/v1/provisioning/{address}");
        let sending = alice.request(&server, "PUT", &path).json(&json!({ "body": text }));
        let receiving = async {
            let (opcode, pushed) = read_frame(&mut stream).await.unwrap();
            let time = timestamp(&pushed);
            let mut request = b"\x0a\x03PUT\x12\x0b/v1/message\x1a\xac\x02".to_vec();
            request.extend_from_slice(&message);
            request.extend_from_slice(b"\x20\x02\x2a\x20X-Signal-Timestamp:");
            request.extend_from_slice(time.as_bytes());
            assert_eq!((opcode, pushed), (0x2, wrapped(b"\x08\x01\x12", &request)));
            stream
                .write_all(&frame(0x2, b"\x08\x02\x1a\x09\x08\x02\x10\xc8\x01\x1a\x02OK"))
                .await
                .unwrap();
            close_code(&mut stream).await
        };
        let (answer, code) = tokio::join!(ask(sending), receiving);
        answer.expect(204);
        assert_eq!(code, Some(1000));
    }
}

/// The message behind a head that ends with its tag.
fn wrapped(head: &[u8], message: &[u8]) -> Vec<u8> {
    let mut whole = head.to_vec();
    prost::encoding::encode_varint(message.len() as u64, &mut whole);
    whole.extend_from_slice(message);
    whole
}

/// The last 13 bytes: milliseconds have 13 digits until the year 2286.
fn timestamp(pushed: &[u8]) -> String {
    let digits = String::from_utf8(pushed[pushed.len() - 13..].to_vec()).unwrap();
    assert!(digits.parse::<u64>().unwrap() > 1_700_000_000_000, "{digits}");
    digits
}

#[tokio::test]
async fn where_nobody_waits_nothing_is_taken() {
    let server = Server::spawn(Backend::Sqlite).await;
    let alice = Person::register(&server).await;
    for address in [
        "AAAAAAAAAAAAAAAAAAAAAA==",
        "AAAAAAAAAAAAAAAAAAAAAA",
        "AAAA",
        "no-address",
        "%FF%FE",
        "%2e%2e",
    ] {
        let status = hand_over(&server, &alice, address, b"sealed").await.status;
        let expected = if address == "%FF%FE" { 400 } else { 404 };
        assert_eq!(status, expected, "{address}");
    }
    ask(alice
        .request(&server, "PUT", "/v1/provisioning/")
        .json(&json!({ "body": "AA" })))
    .await
    .expect(404);

    // A device that has gone.
    let gone = NewDevice::wait_on(&server).await.unwrap();
    let address = gone.address.clone();
    drop(gone);
    until("the end of its socket", async || {
        server.metric("blind_relay_sockets{kind=\"provisioning\"}").await == 0.0
    })
    .await;
    hand_over(&server, &alice, &address, b"sealed").await.expect(404);

    // One that goes with the message in its hand.
    let mut goes = NewDevice::wait_on(&server).await.unwrap();
    let address = goes.address.clone();
    let leaving = async {
        goes.message().await;
        drop(goes);
    };
    let (answer, ()) = tokio::join!(hand_over(&server, &alice, &address, b"sealed"), leaving);
    answer.expect(404);

    // One that does not answer, and stays: it has the message.
    let mut silent = NewDevice::wait_on(&server).await.unwrap();
    let address = silent.address.clone();
    let (answer, (id, _)) = tokio::join!(hand_over(&server, &alice, &address, b"sealed"), silent.message());
    answer.expect(204);
    silent.answer(id).await;
    assert_eq!(silent.closed().await.unwrap().0, 1000);
}

#[tokio::test]
async fn bodies_that_are_none_are_refused_and_leave_the_address_as_it_is() {
    let server = Server::spawn(Backend::Sqlite).await;
    let alice = Person::register(&server).await;
    let mut device = NewDevice::wait_on(&server).await.unwrap();
    let path = format!("/v1/provisioning/{}", device.address);
    let largest = 256 * 1024;
    for (body, status, code) in [
        (json!({ "body": "" }).to_string(), 400, "message_length"),
        (
            json!({ "body": base64(&vec![1; largest + 1]) }).to_string(),
            400,
            "message_length",
        ),
        (json!({ "body": "%%%" }).to_string(), 422, "unexpected_json"),
        (json!({ "body": 1 }).to_string(), 422, "unexpected_json"),
        (json!({}).to_string(), 422, "unexpected_json"),
        ("{".to_owned(), 400, "malformed_json"),
        (
            format!("{{\"body\":\"{}\"}}", "A".repeat(512 * 1024)),
            413,
            "body_too_large",
        ),
    ] {
        let answer = ask(alice.request(&server, "PUT", &path).body(body))
            .await
            .expect(status);
        assert_eq!(answer.code(), code);
    }
    ask(server.request("PUT", &path).json(&json!({ "body": "AA==" })))
        .await
        .expect(401);
    let address = device.address.clone();
    let message = vec![1; largest];
    let receiving = async {
        let (id, received) = device.message().await;
        device.answer(id).await;
        received
    };
    let (answer, received) = tokio::join!(hand_over(&server, &alice, &address, &message), receiving);
    answer.expect(204);
    assert_eq!(received, message);
}

#[tokio::test]
async fn a_device_waits_for_so_long_and_no_longer() {
    let idle = [("LIMITS__PROVISIONING_IDLE_SECS", "1")];
    let server = Server::spawn_with(Backend::Sqlite, &idle).await;
    let mut device = NewDevice::wait_on(&server).await.unwrap();
    assert_eq!(device.closed().await, Some((1000, "Timeout".to_owned())));
    let alice = Person::register(&server).await;
    hand_over(&server, &alice, &device.address, b"sealed").await.expect(404);
    assert_eq!(
        server
            .metric("blind_relay_sockets_closed_total{reason=\"timed_out\"}")
            .await,
        1.0
    );

    // Life signs do not prolong the whole.
    let lifetime = [
        ("LIMITS__PROVISIONING_IDLE_SECS", "60"),
        ("LIMITS__PROVISIONING_LIFETIME_SECS", "1"),
    ];
    let server = Server::spawn_with(Backend::Sqlite, &lifetime).await;
    let mut device = NewDevice::wait_on(&server).await.unwrap();
    device.raw(Message::Ping(Bytes::new())).await;
    assert_eq!(device.closed().await, Some((1000, "Timeout".to_owned())));
}

#[tokio::test]
async fn only_so_many_devices_wait_at_once() {
    let few = [("LIMITS__MAX_PROVISIONING_SOCKETS", "2")];
    let server = Server::spawn_with(Backend::Sqlite, &few).await;
    let first = NewDevice::wait_on(&server).await.unwrap();
    let _second = NewDevice::wait_on(&server).await.unwrap();
    assert_eq!(NewDevice::wait_on(&server).await.err(), Some(429));
    drop(first);
    until("room", async || NewDevice::wait_on(&server).await.is_ok()).await;
}

#[tokio::test]
async fn t34_a_waiting_device_can_ask_for_a_life_sign_and_nothing_else() {
    let server = Server::spawn(Backend::Sqlite).await;
    let mut device = NewDevice::wait_on(&server).await.unwrap();
    assert_eq!(device.ask("GET", "/v1/keepalive/provisioning/").await, 200);
    for path in [
        "/v1/keepalive",
        "/v1/accounts/whoami",
        "/v1/websocket/provisioning",
        "/",
    ] {
        assert_eq!(device.ask("GET", path).await, 404, "{path}");
    }
    assert_eq!(device.ask("PUT", "/v1/keepalive/provisioning").await, 405);
    assert_eq!(device.ask("GET", "no-slash").await, 400);
    // An answer to what was not asked yet ends nothing, and text says nothing.
    device.answer(2).await;
    device.raw(Message::text("text")).await;
    assert_eq!(device.ask("GET", "/v1/keepalive/provisioning").await, 200);
    for (message, code) in [
        (Message::binary(&b"\xff\xff\xff"[..]), 1007),
        (Message::binary(vec![0; 16 * 1024 + 1]), 1009),
    ] {
        let mut device = NewDevice::wait_on(&server).await.unwrap();
        device.raw(message).await;
        assert_eq!(device.closed().await.unwrap().0, code);
    }
    ask(server.request("GET", "/v1/websocket/provisioning"))
        .await
        .expect(400);
    ask(server.request("GET", "/v1/keepalive/provisioning"))
        .await
        .expect(404);
}

#[tokio::test]
async fn one_sender_has_one_message_under_way() {
    let server = Server::spawn(Backend::Sqlite).await;
    let alice = Person::register(&server).await;
    let mut device = NewDevice::wait_on(&server).await.unwrap();
    let other = NewDevice::wait_on(&server).await.unwrap();
    let address = device.address.clone();
    let meanwhile = async {
        let (id, _) = device.message().await;
        let refused = hand_over(&server, &alice, &other.address, b"second").await.expect(429);
        assert_eq!(refused.code(), "provisioning_busy");
        assert!(refused.header("retry-after").is_some());
        device.answer(id).await;
    };
    let (answer, ()) = tokio::join!(hand_over(&server, &alice, &address, b"first"), meanwhile);
    answer.expect(204);
}

#[tokio::test]
async fn t76_sigterm_closes_the_socket_of_a_waiting_device() {
    let mut server = Server::spawn(Backend::Sqlite).await;
    let mut device = NewDevice::wait_on(&server).await.unwrap();
    assert_eq!(server.metric("blind_relay_sockets{kind=\"provisioning\"}").await, 1.0);
    server.signal(Signal::TERM);
    assert_eq!(device.closed().await.unwrap().0, 1012);
    assert_eq!(server.exit_code().await, Some(0));
}

#[tokio::test]
async fn t72_a_provisioning_message_and_its_address_are_in_no_log_and_on_no_disk() {
    let server = Server::spawn_with(Backend::Sqlite, &[("LOG_LEVEL", "trace")]).await;
    let alice = Person::register(&server).await;
    let mut device = NewDevice::wait_on(&server).await.unwrap();
    let address = device.address.clone();
    let canary = random::<24>();
    let receiving = async {
        let (id, _) = device.message().await;
        device.answer(id).await;
        device.closed().await
    };
    let (answer, _) = tokio::join!(hand_over(&server, &alice, &address, &canary), receiving);
    answer.expect(204);
    let (log, metrics) = (server.log(), server.metrics().await);
    for needle in [&address, &address[..22], &base64(&canary)] {
        assert!(!log.contains(needle) && !metrics.contains(needle), "{needle}");
    }
    let raw = address_bytes(&address);
    for entry in std::fs::read_dir(server.place().path().join("data")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
            let found = holds(&canary) || holds(address.as_bytes()) || holds(&raw);
            assert!(!found, "{}", path.display());
        }
    }
}

fn address_bytes(address: &str) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE.decode(address).unwrap()
}

#[tokio::test]
async fn a_device_that_waits_at_another_node_is_found_once() {
    let Some((_redis, one, two)) = pair().await else { return };
    let alice = Person::register(&one).await;
    let mut device = NewDevice::wait_on(&two).await.unwrap();
    let address = device.address.clone();
    let message = vec![3; 256 * 1024];
    let receiving = async {
        let (id, received) = device.message().await;
        device.answer(id).await;
        (received, device.closed().await.unwrap().0)
    };
    let (answer, received) = tokio::join!(hand_over(&one, &alice, &address, &message), receiving);
    answer.expect(204);
    assert_eq!(received, (Bytes::from(message), 1000));
    hand_over(&one, &alice, &address, b"again").await.expect(404);
}

#[tokio::test]
async fn t72_a_provisioning_message_that_crosses_nodes_is_sealed_on_its_way() {
    let Some((redis, one, two)) = pair().await else { return };
    let alice = Person::register(&one).await;
    let mut device = NewDevice::wait_on(&two).await.unwrap();
    let client = redis::Client::open(redis.url()).unwrap();
    let mut listener = client.get_async_pubsub().await.unwrap();
    listener.psubscribe("*").await.unwrap();
    let (address, canary) = (device.address.clone(), random::<64>());
    let message = canary.repeat(1_000);
    let receiving = async {
        let (id, received) = device.message().await;
        device.answer(id).await;
        received
    };
    let (answer, received) = tokio::join!(hand_over(&one, &alice, &address, &message), receiving);
    answer.expect(204);
    assert_eq!(received, message);
    let mut heard = Vec::new();
    let mut messages = listener.into_on_message();
    within("the message's hint", async {
        while heard.len() < message.len() {
            heard.extend_from_slice(messages.next().await.unwrap().get_payload_bytes());
        }
    })
    .await;
    let finds = |needle: &[u8]| heard.windows(needle.len()).any(|window| window == needle);
    for needle in [&canary[..], address.as_bytes(), &address_bytes(&address)] {
        assert!(!finds(needle));
    }
    assert!(finds(&heard[100..130]), "the search works");
    assert_eq!(redis.stored_keys().await, 0);
}

#[tokio::test]
async fn t60_without_redis_a_device_is_found_on_its_own_node_only() {
    let Some((mut redis, one, two)) = pair().await else {
        return;
    };
    let alice = Person::register(&one).await;
    redis.stop();
    for (node, status) in [(&two, 404), (&one, 204)] {
        let mut device = NewDevice::wait_on(node).await.unwrap();
        let address = device.address.clone();
        let sending = hand_over(&one, &alice, &address, b"sealed");
        if status == 404 {
            sending.await.expect(status);
            assert_eq!(device.ask("GET", "/v1/keepalive/provisioning").await, 200);
            continue;
        }
        let receiving = async {
            let (id, _) = device.message().await;
            device.answer(id).await;
        };
        let (answer, ()) = tokio::join!(sending, receiving);
        answer.expect(status);
    }
}

/// Two nodes that hear each other through a Redis of their own.
async fn pair() -> Option<(RedisServer, Server, Server)> {
    postgres_url()?;
    let redis = RedisServer::spawn()?;
    let (one, two) = spawn_pair(&redis.url(), &[]).await;
    for node in [&one, &two] {
        until("a subscription", async || node.log().contains("listening for hints")).await;
    }
    Some((redis, one, two))
}
