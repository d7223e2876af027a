//! Peers that send too much, too slowly, or something that only looks like HTTP.

use std::io::ErrorKind;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Duration, sleep};

use crate::support::person::open_session;
use crate::support::{Backend, Person, Server, ask, within};
use blind_relay::http::routes::{ROUTES, Service};

#[tokio::test]
async fn t27_a_trickling_head_is_cut_off() {
    let server = Server::spawn_with(Backend::Sqlite, &[("LIMITS__HEADER_TIMEOUT_SECS", "1")]).await;
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let mut silent = TcpStream::connect(server.address()).await.unwrap();
    let head = format!(
        "GET /v1/keepalive HTTP/1.1\r\nHost: x\r\nX-Slow: {}",
        "x".repeat(10_000)
    );
    let cut = within("the end of a slow connection", async {
        for byte in head.bytes() {
            if stream.write_all(&[byte]).await.is_err() {
                return true;
            }
            sleep(Duration::from_millis(50)).await;
        }
        false
    })
    .await;
    assert!(cut, "the server waited for all of it");
    // One that says nothing at all ends like that, too.
    let mut rest = Vec::new();
    let _ = within("the end of a silent connection", silent.read_to_end(&mut rest)).await;
    ask(server.request("GET", "/v1/keepalive")).await.expect(200);
}

/// Takes the 30 seconds that a request may take.
#[tokio::test]
async fn t27_a_trickling_body_is_given_up() {
    let server = Server::spawn(Backend::Sqlite).await;
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let head = "POST /v1/verification/session HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reading, mut writing) = stream.into_split();
    let trickle = async {
        while writing.write_all(b" ").await.is_ok() {
            sleep(Duration::from_millis(500)).await;
        }
    };
    let answer = async {
        let mut answer = vec![0; 12];
        reading.read_exact(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    };
    let answer = within("an answer to an endless body", async {
        tokio::select! {
            answer = answer => answer,
            () = trickle => panic!("closed without an answer"),
        }
    });
    assert_eq!(answer.await, "HTTP/1.1 408");
}

#[tokio::test]
async fn t61_heads_that_are_too_large_or_ambiguous_are_refused() {
    let server = Server::spawn(Backend::Sqlite).await;
    let many = "A: b\r\n".repeat(65);
    let thousand = "A: b\r\n".repeat(1_000);
    let large = format!("A: {}\r\n", "x".repeat(64 * 1024));
    let long_path = format!("/{}", "x".repeat(64 * 1024));
    for (name, path, headers, body, statuses) in [
        ("65 headers", "/v1/keepalive", many.as_str(), "", &["431"][..]),
        ("1,000 headers", "/v1/keepalive", &thousand, "", &["431"]),
        ("64 KiB of header", "/v1/keepalive", &large, "", &["431"]),
        ("64 KiB of path", &long_path, "", "", &["414", "431"]),
        (
            "two lengths",
            "/v2/keys",
            "Content-Length: 4\r\nContent-Length: 5\r\n",
            "abcde",
            &["400"],
        ),
        (
            "length of letters",
            "/v2/keys",
            "Content-Length: four\r\n",
            "",
            &["400"],
        ),
        ("negative length", "/v2/keys", "Content-Length: -1\r\n", "", &["400"]),
        ("folded header", "/v1/keepalive", "A: b\r\n c\r\n", "", &["400"]),
        ("NUL", "/v1/keepalive", "A: b\0c\r\n", "", &["400"]),
        ("space before colon", "/v1/keepalive", "A : b\r\n", "", &["400"]),
        (
            "no chunk size",
            "/v1/verification/session",
            "Transfer-Encoding: chunked\r\n",
            "zz\r\n",
            &["400"],
        ),
        (
            "unknown coding",
            "/v2/keys",
            "Transfer-Encoding: gzip\r\n",
            "x",
            &["400"],
        ),
    ] {
        let method = if body.is_empty() { "GET" } else { "POST" };
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n{body}");
        let answer = raw(&server, request.as_bytes()).await;
        let status = answer.get(9..12).unwrap_or("none");
        assert!(statuses.contains(&status), "{name}: {answer}");
    }
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
    ] {
        let answer = raw(&server, garbage).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.0 400"),
            "{answer}"
        );
    }
    let log = server.log();
    assert!(!log.contains("panicked") && !log.contains("ERROR"), "{log}");
}

/// RFC 9112 lets a server prefer the chunks, if it closes afterwards: what follows is then no second request.
#[tokio::test]
async fn t61_a_request_with_two_lengths_smuggles_nothing() {
    let server = Server::spawn(Backend::Sqlite).await;
    let body = "0\r\n\r\nGET /v1/keepalive HTTP/1.1\r\nHost: x\r\n\r\n";
    for lengths in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    ] {
        let request = format!("POST /v1/verification/session HTTP/1.1\r\nHost: x\r\n{lengths}\r\n{body}");
        let answer = raw(&server, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    }
}

#[tokio::test]
async fn t27_chunks_without_end_are_refused_at_the_limit() {
    let server = Server::spawn(Backend::Sqlite).await;
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let head = "POST /v1/verification/session HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reading, mut writing) = stream.into_split();
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    let endless = async {
        while writing.write_all(chunk.as_bytes()).await.is_ok() {}
        // The answer may be there nevertheless.
        std::future::pending::<()>().await;
    };
    let mut answer = [0; 12];
    within("an answer to endless chunks", async {
        tokio::select! {
            read = reading.read_exact(&mut answer) => drop(read.unwrap()),
            () = endless => {}
        }
    })
    .await;
    assert_eq!(&answer, b"HTTP/1.1 413");
}

#[tokio::test]
async fn every_route_bounds_its_body_as_declared() {
    let server = Server::spawn(Backend::Sqlite).await;
    let alice = Person::register(&server).await;
    let session = open_session(&server, &alice.number).await;
    // What streams is measured by its handlers, which know the setting: `t52_…` and `t54_…` hold them to it.
    for route in ROUTES
        .iter()
        .filter(|route| matches!(route.method, "put" | "post" | "patch") && route.service != Service::Streams)
    {
        let path = route
            .path
            .replace("{id}", &session)
            .replace("{destination}", &alice.aci);
        let padded = |length: usize| {
            let body = format!("{{\"x\":\"{}\"}}", "x".repeat(length - 8));
            let request = alice.request(&server, &route.method.to_uppercase(), &path);
            ask(request.header("content-type", "application/json").body(body))
        };
        assert_ne!(
            padded(route.max_body).await.status,
            413,
            "{} {}",
            route.method,
            route.path
        );
        let answer = padded(route.max_body + 1).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (413, "body_too_large"),
            "{} {}",
            route.method,
            route.path
        );
    }
}

#[tokio::test]
async fn t75_connections_beyond_the_cap_wait_until_one_ends() {
    let server = Server::spawn_with(Backend::Sqlite, &[("LIMITS__MAX_CONNECTIONS", "2")]).await;
    let keepalive = b"GET /v1/keepalive HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream.write_all(keepalive).await.unwrap();
        read_head(&mut stream).await;
        open.push(stream);
    }
    let mut waiting = TcpStream::connect(server.address()).await.unwrap();
    waiting.write_all(keepalive).await.unwrap();
    for _ in 0..10 {
        open[0].write_all(keepalive).await.unwrap();
        read_head(&mut open[0]).await;
        assert_eq!(waiting.try_read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
    // The operator can still look.
    assert!(server.metrics().await.contains("blind_relay_requests_total"));
    drop(open.pop());
    assert!(read_head(&mut waiting).await.starts_with("HTTP/1.1 200"));
}

/// Everything the server says to these bytes until it closes.
async fn raw(server: &Server, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    // The server may stop reading before the end.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = within("the end of an answer", stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    within("the head of an answer", async {
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
    })
    .await;
    String::from_utf8(head).unwrap()
}
