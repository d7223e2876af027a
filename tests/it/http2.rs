//! HTTP/2: requests and WebSockets side by side on one connection.

use bytes::Bytes;
use hyper::client::conn::http2::Builder;
use hyper_util::rt::TokioExecutor;
use rustix::process::Signal;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::ciphertext::marker_for;
use crate::support::http2::Http2;
use crate::support::person::basic;
use crate::support::provisioning::{NewDevice, hand_over};
use crate::support::{
    Backend, Event, Person, Server, Socket, ask, on_each_backend, random, send, single, until, within,
};

on_each_backend! {
    sockets_and_requests_share_a_connection
    t30_of_an_http1_and_an_http2_connection_the_newer_wins
}

async fn sockets_and_requests_share_a_connection(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    send(&server, &alice, &bob, b"queued").await.expect(200);
    let client = Http2::connect(&server).await;
    let mut anonymous = client.socket(None).await.unwrap();
    let mut device = client.socket(Some(&bob.authorization())).await.unwrap();
    anonymous.keepalive().await;
    assert_eq!(device.drain().await, [&b"queued"[..]]);
    let sealed = format!("unidentified-access-key:{}", bob.access_key_header());
    for number in 0..20_u8 {
        // By HTTP/1.1, as a plain request on the connection of the sockets, and through one of them.
        match number % 3 {
            0 => drop(send(&server, &alice, &bob, &[number]).await.expect(200)),
            1 => {
                let body = single(&bob, 1, &[number]).to_string();
                let authorization = alice.authorization();
                let headers = [("authorization", authorization.as_str())];
                client.ask("PUT", &bob.inbox(), &headers, &body).await.expect(200);
            }
            _ => {
                let body = single(&bob, 6, &[number]);
                anonymous
                    .ask("PUT", &bob.inbox(), &[&sealed], Some(&body))
                    .await
                    .expect(200);
            }
        }
        assert_eq!(device.content().await, &[number][..]);
    }
    // Larger than a frame and than a stream's window, in both directions.
    let large = marker_for(6, 96 * 1024);
    let body = single(&bob, 6, &large);
    for _ in 0..4 {
        anonymous
            .ask("PUT", &bob.inbox(), &[&sealed], Some(&body))
            .await
            .expect(200);
        assert_eq!(device.content().await, large);
    }
    device.keepalive().await;
    assert_eq!(bob.fetch(&server).await["messages"], json!([]));
    client.ask("GET", "/v1/nothing", &[], "").await.expect(404);
    drop((anonymous, device));
    until("the sockets' end", async || {
        server.metric("blind_relay_sockets{kind=\"device\"}").await == 0.0
            && server.metric("blind_relay_sockets{kind=\"anonymous\"}").await == 0.0
    })
    .await;
    client.ask("GET", "/v1/keepalive", &[], "").await.expect(200);
}

async fn t30_of_an_http1_and_an_http2_connection_the_newer_wins(backend: Backend) {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    let client = Http2::connect(&server).await;
    let mut first = bob.connect(&server).await;
    first.expect_empty().await;
    let mut second = client.socket(Some(&bob.authorization())).await.unwrap();
    assert_eq!(first.close_code().await, Some(4409));
    second.expect_empty().await;
    let mut third = client.socket(Some(&bob.authorization())).await.unwrap();
    assert_eq!(second.close_code().await, Some(4409));
    third.expect_empty().await;
    let mut fourth = bob.connect(&server).await;
    assert_eq!(third.close_code().await, Some(4409));
    fourth.expect_empty().await;
    send(&server, &alice, &bob, b"for the fourth").await.expect(200);
    assert_eq!(fourth.content().await, &b"for the fourth"[..]);
    let mut fifth = client.socket(Some(&bob.authorization())).await.unwrap();
    assert_eq!(fourth.close_code().await, Some(4409));
    fifth.drain().await;
    ask(bob.request(&server, "DELETE", "/v1/accounts/me")).await.expect(204);
    assert_eq!(fifth.close_code().await, Some(4401));
}

#[tokio::test]
async fn a_stream_that_is_no_websocket_of_ours_is_refused() {
    let server = Server::spawn(Backend::Sqlite).await;
    let alice = Person::register(&server).await;
    let client = Http2::connect(&server).await;
    for authorization in [
        basic(&alice.aci, "another password"),
        basic(&uuid::Uuid::from_bytes(random()).to_string(), &alice.password),
        "Basic %%%".to_owned(),
    ] {
        let refused = client.socket(Some(&authorization)).await.err().unwrap().expect(403);
        assert_eq!(refused.code(), "bad_credentials");
    }
    let refused = async |path, protocol, headers: &[(&str, &str)]| {
        let answer = client.connect_stream(path, protocol, headers).await.err().unwrap();
        (answer.status, answer.code())
    };
    let no_websocket = (400, "no_websocket".to_owned());
    assert_eq!(refused("/v1/websocket", "connect-udp", &[]).await, no_websocket);
    let version = [("sec-websocket-version", "12")];
    assert_eq!(refused("/v1/websocket", "websocket", &version).await, no_websocket);
    assert_eq!(refused("/v1/nothing", "websocket", &[]).await.0, 404);
    assert_eq!(refused("/v1/keepalive", "websocket", &[]).await.0, 405);
    assert_eq!(client.ask("GET", "/v1/websocket", &[], "").await.status, 400);
    // The same method on HTTP/1.1 opens nothing.
    for target in ["/v1/websocket", "x:443", "http://x/v1/websocket"] {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        let head = format!("CONNECT {target} HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Version: 13\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        within("a status", stream.read_exact(&mut status)).await.unwrap();
        assert!(status.starts_with(b"HTTP/1.1 4"), "{target}: {status:?}");
    }
    let version = [("sec-websocket-version", "13")];
    client
        .connect_stream("/v1/websocket", "websocket", &version)
        .await
        .unwrap();
    client.connect_stream("/v1/websocket/", "websocket", &[]).await.unwrap();
    let log = server.log();
    assert!(!log.contains("panicked") && !log.contains("ERROR"), "{log}");
}

#[tokio::test]
async fn t75_a_connection_holds_few_sockets_and_each_counts() {
    let server = Server::spawn(Backend::Sqlite).await;
    let client = Http2::connect(&server).await;
    let mut sockets = Vec::new();
    for _ in 0..4 {
        sockets.push(client.socket(None).await.unwrap());
    }
    let refused = client.socket(None).await.err().unwrap().expect(429);
    assert_eq!(refused.code(), "too_many_sockets");
    assert!(refused.header("retry-after").is_some());
    let stream = client.connect_stream("/v1/websocket/provisioning", "websocket", &[]);
    assert_eq!(stream.await.err().unwrap().status, 429);
    client.ask("GET", "/v1/keepalive", &[], "").await.expect(200);
    for socket in &mut sockets {
        socket.keepalive().await;
    }
    sockets.pop();
    until("room", async || match client.socket(None).await {
        Ok(socket) => {
            sockets.push(socket);
            true
        }
        Err(_) => false,
    })
    .await;

    // A socket beyond a connection's first counts like a connection.
    let small = Server::spawn_with(Backend::Sqlite, &[("LIMITS__MAX_CONNECTIONS", "2")]).await;
    let client = Http2::connect(&small).await;
    let (_first, mut second) = (client.socket(None).await.unwrap(), client.socket(None).await.unwrap());
    assert_eq!(client.socket(None).await.err().unwrap().status, 429);
    second.keepalive().await;
    drop(second);
    // What it held is free for another connection.
    Http2::connect(&small).await;
}

#[tokio::test]
async fn over_tls_http2_is_agreed_on_and_carries_sockets() {
    let server = Server::spawn_with(Backend::Sqlite, &[("TLS_SELF_SIGNED", "true")]).await;
    let ca = server.place().path().join("data/tls/ca-cert.pem");
    let client = Http2::connect_tls(&server, &ca).await;
    let mut socket = client.socket(None).await.unwrap();
    socket.keepalive().await;
    let second = Http2::connect_tls(&server, &ca).await;
    assert_eq!(second.socket(Some("Basic")).await.err().unwrap().status, 403);
    socket.keepalive().await;
}

#[tokio::test]
async fn a_device_is_linked_over_http2() {
    let server = Server::spawn(Backend::Sqlite).await;
    let alice = Person::register(&server).await;
    let client = Http2::connect(&server).await;
    let stream = client.connect_stream("/v1/websocket/provisioning/", "websocket", &[]);
    let mut device = NewDevice::over(stream.await.unwrap()).await;
    let address = device.address.clone();
    let receiving = async {
        let (id, message) = device.message().await;
        device.answer(id).await;
        (message, device.closed().await.unwrap().0)
    };
    let (answer, received) = tokio::join!(hand_over(&server, &alice, &address, b"sealed"), receiving);
    answer.expect(204);
    assert_eq!(received, (Bytes::from_static(b"sealed"), 1000));
}

#[tokio::test]
async fn t76_sigterm_closes_the_sockets_of_a_connection_and_then_the_connection() {
    let mut server = Server::spawn(Backend::Sqlite).await;
    let bob = Person::register(&server).await;
    let client = Http2::connect(&server).await;
    let mut sockets = [
        client.socket(None).await.unwrap(),
        client.socket(Some(&bob.authorization())).await.unwrap(),
    ];
    sockets[0].keepalive().await;
    sockets[1].expect_empty().await;
    server.signal(Signal::TERM);
    for socket in &mut sockets {
        assert_eq!(socket.close_code().await, Some(1012));
    }
    client.ended().await;
    assert_eq!(server.exit_code().await, Some(0));
}

#[tokio::test]
async fn t31_a_socket_whose_peer_gives_it_no_room_is_closed_and_loses_nothing() {
    let server = Server::spawn_with(Backend::Sqlite, &[("RELAY__STALLED_SECS", "1")]).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    for number in 0..40_u8 {
        send(&server, &alice, &bob, &[number; 16 * 1024]).await.expect(200);
    }
    let mut builder = Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(1024).adaptive_window(false);
    let client = Http2::connect_with(&server, &builder).await;
    let slow = client.socket(Some(&bob.authorization())).await.unwrap();
    until("the end of a slow socket", async || {
        server
            .metric("blind_relay_sockets_closed_total{reason=\"stalled\"}")
            .await
            == 1.0
    })
    .await;
    // The connection goes on.
    client.ask("GET", "/v1/keepalive", &[], "").await.expect(200);
    drop(slow);
    let contents = bob.connect(&server).await.drain().await;
    assert_eq!(contents.len(), 40);
}

#[tokio::test]
async fn t34_frames_that_break_the_protocol_end_the_stream_and_not_the_connection() {
    use tokio_tungstenite::tungstenite::Message;
    let server = Server::spawn(Backend::Sqlite).await;
    let client = Http2::connect(&server).await;
    for (message, code) in [
        (Message::binary(&b"\xff\xff\xff"[..]), 1007),
        (Message::binary(vec![0; 512 * 1024 + 1]), 1009),
    ] {
        let mut socket = client.socket(None).await.unwrap();
        socket.raw(message).await;
        assert_eq!(socket.close_code().await, Some(code));
    }
    let mut socket = client.socket(None).await.unwrap();
    socket.ask_as(Some(1), "GET", "/v1/keepalive", &[], None).await;
    let event = socket.next().await;
    assert!(matches!(event, Event::Answer(1, _)), "{event:?}");
}

/// Streams that are opened and reset at once cost a peer nothing, so the server counts them.
#[tokio::test]
async fn t61_streams_that_are_reset_as_fast_as_they_are_opened_end_the_connection() {
    let server = Server::spawn(Backend::Sqlite).await;
    let requests = {
        // GET http://relay/v1/keepalive: an entry of the static table, or a literal behind the index of its name.
        let mut block = vec![0x82, 0x86, 0x41, 5];
        block.extend_from_slice(b"relay");
        block.extend_from_slice(&[0x44, 13]);
        block.extend_from_slice(b"/v1/keepalive");
        block
    };
    // An extended CONNECT: a name that is in no table.
    let sockets = {
        let mut block = vec![0x42, 7];
        block.extend_from_slice(b"CONNECT");
        block.extend_from_slice(&[0x40, 9]);
        block.extend_from_slice(b":protocol");
        block.push(9);
        block.extend_from_slice(b"websocket");
        block.extend_from_slice(&[0x86, 0x41, 5]);
        block.extend_from_slice(b"relay");
        block.extend_from_slice(&[0x44, 13]);
        block.extend_from_slice(b"/v1/websocket");
        block
    };
    for block in [requests, sockets] {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(h2_frame(0x4, 0, 0, &[]));
        for stream in (1..20_001).step_by(2) {
            bytes.extend(h2_frame(0x1, 0x4, stream, &block));
            bytes.extend(h2_frame(0x3, 0, stream, &8_u32.to_be_bytes()));
        }
        let stream = TcpStream::connect(server.address()).await.unwrap();
        let (mut reading, mut writing) = stream.into_split();
        let writing = tokio::spawn(async move {
            // The server may be gone before the end.
            let _ = writing.write_all(&bytes).await;
            writing
        });
        assert_eq!(goaway(&mut reading).await, Some(ENHANCE_YOUR_CALM));
        let _ = writing.await;
    }
    until("their sockets' end", async || {
        server.metric("blind_relay_sockets{kind=\"anonymous\"}").await == 0.0
    })
    .await;
    assert!(Socket::open(&server, None, &[]).await.is_ok());
    let log = server.log();
    assert!(!log.contains("panicked"), "{log}");
}

/// The error of the server's GOAWAY, or nothing if the connection ended without one.
async fn goaway(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<u32> {
    within("the end of a connection", async {
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            stream.read_exact(&mut payload).await.ok()?;
            if head[3] == 0x7 {
                return Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
            }
        }
    })
    .await
}

fn h2_frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

const ENHANCE_YOUR_CALM: u32 = 0xb;
