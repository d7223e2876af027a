//! The WebSocket itself: who may open one, requests through it, and frames that no client sends.

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Message;

use crate::support::frames::{close_code, frame, read_frame, upgrade};
use crate::support::person::basic;
use crate::support::{Backend, Event, Person, Server, Socket, ask, random};

#[tokio::test]
async fn bad_credentials_are_refused_with_403_at_the_upgrade() {
    let server = Server::spawn(Backend::Sqlite).await;
    let alice = Person::register(&server).await;
    let deleted = Person::register(&server).await;
    ask(deleted.request(&server, "DELETE", "/v1/accounts/me"))
        .await
        .expect(204);
    for authorization in [
        basic(&alice.aci, "another password"),
        basic(&format!("{}.2", alice.aci), &alice.password),
        basic(&uuid::Uuid::from_bytes(random()).to_string(), &alice.password),
        basic(&format!("PNI:{}", alice.pni), &alice.password),
        basic(&alice.pni, &alice.password),
        deleted.authorization(),
        "Basic".to_owned(),
        "Basic %%%".to_owned(),
        "Bearer abc".to_owned(),
    ] {
        let refused = Socket::open(&server, Some(&authorization), &[]).await.err();
        assert_eq!(refused, Some(403), "{authorization}");
    }
    for user in [alice.aci.clone(), format!("{}.1", alice.aci), alice.aci.to_uppercase()] {
        let mut socket = Socket::open(&server, Some(&basic(&user, &alice.password)), &[])
            .await
            .unwrap();
        socket.expect_empty().await;
    }
    // Whoever is about to register has a number and no account yet.
    let number = basic("+4915112345678", "password");
    assert!(Socket::open(&server, Some(&number), &[]).await.is_ok());
}

#[tokio::test]
async fn t09_credentials_in_the_query_are_none() {
    let server = Server::spawn(Backend::Sqlite).await;
    let alice = Person::register(&server).await;
    let query = format!("?login={}&password={}", alice.aci, alice.password);
    // Not even beside others that are right.
    for request in [
        server.request("GET", &format!("/v1/accounts/whoami{query}")),
        alice.request(&server, "GET", &format!("/v1/accounts/whoami{query}")),
    ] {
        assert_eq!(ask(request).await.expect(400).code(), "secret_in_query");
    }
    let (_, head) = upgrade(&server, &format!("/v1/websocket/{query}"), "").await;
    assert!(head.starts_with("HTTP/1.1 400"), "{head}");
}

#[tokio::test]
async fn an_upgrade_that_is_none_is_refused() {
    let server = Server::spawn(Backend::Sqlite).await;
    ask(server.request("GET", "/v1/websocket/")).await.expect(400);
    ask(server.request("GET", "/v1/websocket")).await.expect(400);
    let (_, head) = upgrade(&server, "/v1/websocket", "").await;
    assert!(head.starts_with("HTTP/1.1 101"), "the slash is optional: {head}");
    assert!(
        !head.to_lowercase().contains("sec-websocket-extensions"),
        "T35: envelopes are never compressed"
    );
    let deflate = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    let (_, head) = upgrade(&server, "/v1/websocket/", deflate).await;
    assert!(head.starts_with("HTTP/1.1 101") && !head.contains("deflate"), "{head}");
    let mut socket = Socket::open(&server, None, &[]).await.unwrap();
    assert_eq!(socket.ask("GET", "/v1/websocket/", &[], None).await.status, 404);
}

#[tokio::test]
async fn any_id_is_echoed_and_no_id_gets_no_answer() {
    let server = Server::spawn(Backend::Sqlite).await;
    let mut socket = Socket::open(&server, None, &[]).await.unwrap();
    for id in [0, 1, u64::MAX, 1 << 63, 0] {
        socket.ask_as(Some(id), "GET", "/v1/keepalive", &[], None).await;
        let answer = socket.answer_to(id).await.expect(200);
        assert!(
            answer.body.is_empty() && answer.header("content-type").is_none(),
            "{answer:?}"
        );
        assert!(answer.header("x-signal-timestamp").is_some());
    }
    socket.ask_as(None, "GET", "/v1/keepalive", &[], None).await;
    socket.raw(Message::text("text carries nothing")).await;
    socket.raw(Message::Pong(Bytes::from_static(b"unasked"))).await;
    socket.ask_as(Some(7), "GET", "/v1/keepalive", &[], None).await;
    let event = socket.next().await;
    assert!(matches!(event, Event::Answer(7, _)), "{event:?}");
    // An answer to what was never asked does nothing.
    socket.answer(12_345, 200).await;
    socket.keepalive().await;
}

#[tokio::test]
async fn requests_are_answered_side_by_side() {
    let server = Server::spawn(Backend::Sqlite).await;
    let alice = Person::register(&server).await;
    let mut socket = alice.connect(&server).await;
    socket.expect_empty().await;
    for id in 100..300 {
        let path = if id % 2 == 0 {
            "/v1/keepalive"
        } else {
            "/v1/accounts/whoami"
        };
        socket.ask_as(Some(id), "GET", path, &[], None).await;
    }
    let mut open: Vec<u64> = (100..300).collect();
    while !open.is_empty() {
        match socket.next().await {
            Event::Answer(id, answer) => {
                assert_eq!(answer.status, 200);
                open.retain(|open| *open != id);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn what_is_no_request_inside_a_frame_is_answered_with_400() {
    let server = Server::spawn(Backend::Sqlite).await;
    let mut socket = Socket::open(&server, None, &[]).await.unwrap();
    for (verb, path, headers) in [
        ("GET", "no-slash", &[][..]),
        ("GET", "http://elsewhere/v1/keepalive", &[]),
        ("G T", "/v1/keepalive", &[]),
        ("GET", "/v1/keepalive", &["a:1"; 100]),
    ] {
        assert_eq!(
            socket.ask(verb, path, headers, None).await.status,
            400,
            "{verb} {path} {headers:?}"
        );
    }
    // A line that is no header is left out, and the request goes on.
    let lines = ["no colon", "bad name: x", "a:b\r\nc:d"];
    assert_eq!(socket.ask("GET", "/v1/keepalive", &lines, None).await.status, 200);
    assert_eq!(socket.ask("GET", "/v1/nothing", &[], None).await.status, 404);
    assert_eq!(socket.ask("DELETE", "/v1/keepalive", &[], None).await.status, 405);
    socket.keepalive().await;
}

#[tokio::test]
async fn t34_frames_that_break_the_protocol_end_the_connection_with_their_code() {
    let server = Server::spawn(Backend::Sqlite).await;
    let garbage = frame(0x2, b"\xff\xff\xff\xff");
    let empty = frame(0x2, b"");
    let unmasked = vec![0x82, 0x01, 0x00];
    let reserved_bit = with_first_byte(frame(0x2, b"x"), 0xc2);
    let reserved_opcode = with_first_byte(frame(0x3, b"x"), 0x83);
    let fragmented_ping = with_first_byte(frame(0x9, b"x"), 0x09);
    let long_ping = frame(0x9, &[0; 126]);
    let continuation_of_nothing = frame(0x0, b"x");
    // Only the head of a frame of 16 MiB: it is refused before any of it is read.
    let mut large = vec![0x82, 0xff];
    large.extend_from_slice(&(16_u64 << 20).to_be_bytes());
    large.extend_from_slice(&[0; 4]);
    let just_too_large = frame(0x2, &vec![0; 512 * 1024 + 1]);
    let mut many_fragments = with_first_byte(frame(0x2, b"\xff"), 0x02);
    for _ in 0..100_000 {
        many_fragments.extend(with_first_byte(frame(0x0, b"\xff"), 0x00));
    }
    many_fragments.extend(frame(0x0, b"\xff"));
    for (name, bytes, code) in [
        ("garbage", garbage, 1007),
        ("empty", empty, 1007),
        ("unmasked", unmasked, 1002),
        ("reserved bit", reserved_bit, 1002),
        ("reserved opcode", reserved_opcode, 1002),
        ("fragmented ping", fragmented_ping, 1002),
        ("long ping", long_ping, 1002),
        ("continuation of nothing", continuation_of_nothing, 1002),
        ("16 MiB", large, 1009),
        ("one byte too large", just_too_large, 1009),
        ("100,000 fragments", many_fragments, 1007),
    ] {
        let (stream, _) = upgrade(&server, "/v1/websocket/", "").await;
        let (mut reading, mut writing) = stream.into_split();
        // The server may close while this is still being written.
        let written = tokio::spawn(async move {
            let _ = writing.write_all(&bytes).await;
            writing
        });
        assert_eq!(close_code(&mut reading).await, Some(code), "{name}");
        let _ = written.await;
    }
    let log = server.log();
    assert!(!log.contains("panicked"), "{log}");
}

#[tokio::test]
async fn a_ping_is_answered_at_once() {
    let server = Server::spawn(Backend::Sqlite).await;
    let (mut stream, _) = upgrade(&server, "/v1/websocket/", "").await;
    stream.write_all(&frame(0x9, b"are you there")).await.unwrap();
    let (opcode, payload) = read_frame(&mut stream).await.unwrap();
    assert_eq!((opcode, payload.as_slice()), (0xa, &b"are you there"[..]));
}

fn with_first_byte(mut frame: Vec<u8>, byte: u8) -> Vec<u8> {
    frame[0] = byte;
    frame
}
