//! Whom a request counts as coming from: of proxies only the configured ones are asked (T59), and one network has a part of
//! the places for connections only (T75).
//!
//! Which network a connection counts for shows in whether there is room for it.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::support::http2::Http2;
use crate::support::socket::ByteStream;
use crate::support::{Backend, Server, Socket, until, within};

/// Two connections of a network, and a proxy.
const TWO_AND_A_PROXY: [(&str, &str); 3] = [
    ("RATE_LIMITS", "on"),
    ("LIMITS__MAX_CONNECTIONS_PER_NETWORK", "2"),
    ("PROXIES__TRUSTED", "127.77.0.0/24,192.0.2.1"),
];
const PROXY: [u8; 4] = [127, 77, 0, 5];
/// Each in a network of its own.
const STRANGER: [u8; 4] = [127, 0, 0, 1];
const OTHER: [u8; 4] = [127, 0, 1, 1];

#[tokio::test]
async fn t59_a_forwarding_header_of_a_stranger_is_ignored() {
    let server = Server::spawn_with(Backend::Sqlite, &TWO_AND_A_PROXY).await;
    for (name, first, second) in [
        ("x-forwarded-for", "203.0.113.1", "203.0.114.1"),
        ("forwarded", "for=203.0.113.1", "for=203.0.114.1"),
        ("x-real-ip", "203.0.113.1", "203.0.114.1"),
        ("true-client-ip", "203.0.113.1", "203.0.114.1"),
    ] {
        // Two sockets take what the network has, whatever they say.
        let _first = once_there_is_room(&server, STRANGER, &[(name, first)]).await;
        let _second = once_there_is_room(&server, STRANGER, &[(name, second)]).await;
        let third = socket(&server, STRANGER, &[(name, "203.0.115.1")]).await;
        assert_eq!(third.err(), Some(429), "{name}");
        // Nor does it get anybody else into that network.
        once_there_is_room(&server, OTHER, &[(name, first)]).await;
    }
    // It is said that somebody seems to have forgotten something, once and without naming anybody.
    let log = server.log();
    assert_eq!(log.matches("proxies.trusted").count(), 1, "{log}");
    assert!(!log.contains("203.0."), "{log}");
}

#[tokio::test]
async fn t59_a_configured_proxy_says_for_whom_it_asks_and_clients_cannot_add_to_that() {
    let server = Server::spawn_with(Backend::Sqlite, &TWO_AND_A_PROXY).await;
    let from_proxy = async |lines: &[&str]| {
        let headers: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
        socket(&server, PROXY, &headers)
            .await
            .map_err(|status| status.to_string())
    };
    let refused = |answer: Result<Socket, String>| answer.err().as_deref() == Some("429");
    let mut open = Vec::new();
    // In one network, directly and through a second proxy; what the client made up stands to the left.
    open.push(from_proxy(&["203.0.113.1"]).await.unwrap());
    open.push(from_proxy(&["198.51.100.9, 203.0.113.2, 192.0.2.1"]).await.unwrap());
    for lines in [
        &["203.0.113.3"][..],
        &["198.51.100.1, 203.0.113.3"],
        &["198.51.100.1", "203.0.113.3", "192.0.2.1"],
        &["::ffff:203.0.113.3"],
        &["203.0.113.3:5000"],
    ] {
        assert!(refused(from_proxy(lines).await), "{lines:?}");
    }
    // Others have their own places, IPv6 by /64, and what the proxy asks for itself or cannot say has no bound.
    for own in [
        "203.0.114.1",
        "203.0.114.2",
        "2001:db8:1:2::1",
        "2001:db8:1:2:ffff::9",
        "2001:db8:1:3::1",
    ] {
        open.push(from_proxy(&[own]).await.unwrap());
    }
    assert!(refused(from_proxy(&["2001:db8:1:2:abcd::7"]).await));
    for _ in 0..4 {
        open.push(from_proxy(&["nonsense"]).await.unwrap());
        open.push(from_proxy(&[]).await.unwrap());
    }
    // A place that is given up is there for the next of that network.
    open.remove(0);
    until("a place", async || match from_proxy(&["203.0.113.200"]).await {
        Ok(socket) => {
            open.push(socket);
            true
        }
        Err(_) => false,
    })
    .await;
    // Requests inside a socket count as the socket does, whatever header they carry; they are answered all the same.
    for socket in &mut open {
        socket
            .ask("GET", "/v1/keepalive", &["x-forwarded-for:203.0.113.7"], None)
            .await
            .expect(200);
    }
    let log = server.log();
    assert!(!log.contains("proxies.trusted") && !log.contains("203.0."), "{log}");
}

#[tokio::test]
async fn t59_the_proxy_protocol_says_for_whom_a_connection_is() {
    let mut settings = TWO_AND_A_PROXY.to_vec();
    settings.push(("PROXIES__PROTOCOL", "true"));
    let server = Server::spawn_with(Backend::Sqlite, &settings).await;
    let mut open = Vec::new();
    // Hopping within a /64 leads nowhere, in either version.
    for (number, (header, status)) in [
        (v1("TCP6 2001:db8:1:2::1 2001:db8::1 40000 443"), 200),
        (
            v2_ipv6(*b"\x20\x01\x0d\xb8\0\x01\0\x02\xff\xff\xff\xff\xff\xff\xff\xff"),
            200,
        ),
        (v1("TCP6 2001:db8:1:2:abcd::3 2001:db8::1 40000 443"), 429),
        (v2_ipv6(*b"\x20\x01\x0d\xb8\0\x01\0\x02\0\0\0\0\0\0\0\x09"), 429),
        (v1("TCP6 2001:db8:1:3::1 2001:db8::1 40000 443"), 200),
        (v1("TCP4 203.0.113.1 192.0.2.9 40000 443"), 200),
        (v1("TCP4 203.0.113.2 192.0.2.9 40000 443"), 200),
        (v1("TCP4 203.0.113.3 192.0.2.9 40000 443"), 429),
        (v1("TCP6 ::ffff:203.0.113.4 2001:db8::1 40000 443"), 429),
        (v1("TCP4 203.0.114.1 192.0.2.9 40000 443"), 200),
    ]
    .into_iter()
    .enumerate()
    {
        let mut stream = begun(&server, PROXY, &header).await;
        let answer = get(&mut stream, "/v1/keepalive", "").await.unwrap();
        assert_eq!(answer.status, status, "{number}");
        open.push(stream);
    }
    // Health checks of the balancer itself are neither counted nor refused.
    for _ in 0..3 {
        for header in [v1("UNKNOWN"), b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec()] {
            let mut stream = begun(&server, PROXY, &header).await;
            assert_eq!(get(&mut stream, "/health/ready", "").await.unwrap().status, 200);
            open.push(stream);
        }
    }
    // The client of a connection cannot say that it is another, and its socket is of that network.
    let mut stream = begun(&server, PROXY, &v1("TCP4 203.0.113.9 192.0.2.9 1 443")).await;
    let forged = get(&mut stream, "/v1/keepalive", "x-forwarded-for: 198.51.100.1\r\n").await;
    assert_eq!(forged.unwrap().status, 429);
    // From other addresses connections begin as ever.
    let mut stream = connect(&server, STRANGER).await;
    assert_eq!(get(&mut stream, "/v1/keepalive", "").await.unwrap().status, 200);
}

#[tokio::test]
async fn t59_a_connection_of_a_balancer_without_a_good_header_is_closed() {
    let settings = [
        ("PROXIES__TRUSTED", "127.77.0.0/24"),
        ("PROXIES__PROTOCOL", "true"),
        ("LIMITS__HEADER_TIMEOUT_SECS", "1"),
    ];
    let server = Server::spawn_with(Backend::Sqlite, &settings).await;
    let request = "GET /v1/keepalive HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut oversized = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff".to_vec();
    oversized.resize(0xffff, b'x');
    let bad = [
        // None at all, malformed, oversized in both versions, and one that never ends.
        Vec::new(),
        v1("TCP4 203.0.113.1 192.0.2.9 40000"),
        v1("TCP4 203.0.113.1 192.0.2.9 40000 443443"),
        v1(&format!("TCP4 {}", "1".repeat(200))),
        v1(&"UNKNOWN ".repeat(10_000)),
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x04\x01\x02\x03\x04".to_vec(),
        b"\r\n\r\n\0\r\nQUIT\n\x55\x11\0\0".to_vec(),
        oversized,
    ];
    for header in &bad {
        let answer = said(&server, PROXY, &[header, request.as_bytes()].concat()).await;
        assert_eq!(answer, "", "{}", header[..header.len().min(60)].escape_ascii());
    }
    // Cut anywhere, or slow: it has the time that a head has.
    for part in [
        &b"PROXY"[..],
        b"PROXY TCP4 203.0.113.1 192",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0",
    ] {
        let mut stream = connect(&server, PROXY).await;
        stream.write_all(part).await.unwrap();
        let mut rest = Vec::new();
        let _ = within("the end of a slow header", stream.read_to_end(&mut rest)).await;
        assert_eq!(rest, b"");
    }
    let refused = "blind_relay_connections_refused_total{reason=\"proxy\"}";
    assert!((server.metric(refused).await - 8.0).abs() < 0.5);
    // Whoever is no balancer has no use for a header.
    for header in [v1("TCP4 203.0.113.1 192.0.2.9 40000 443"), v2_ipv6([1; 16])] {
        let answer = said(&server, STRANGER, &[&header, request.as_bytes()].concat()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    let mut stream = begun(&server, PROXY, &v1("TCP4 203.0.113.1 192.0.2.9 40000 443")).await;
    assert_eq!(get(&mut stream, "/v1/keepalive", "").await.unwrap().status, 200);
    let log = server.log();
    assert!(!log.contains("203.0.") && !log.contains("panicked"), "{log}");
}

#[tokio::test]
async fn the_proxy_protocol_comes_before_tls_and_a_refusal_after_it() {
    let mut settings = TWO_AND_A_PROXY.to_vec();
    settings.extend([("PROXIES__PROTOCOL", "true"), ("TLS_SELF_SIGNED", "true")]);
    let server = Server::spawn_with(Backend::Sqlite, &settings).await;
    let ca = server.place().path().join("data/tls/ca-cert.pem");
    let mut open = Vec::new();
    for status in [200, 200, 429] {
        let stream = begun(&server, PROXY, &v1("TCP4 203.0.113.1 192.0.2.9 40000 443")).await;
        let mut stream = tls(stream, &ca).await;
        let answer = get(&mut stream, "/v1/keepalive", "").await.unwrap();
        assert_eq!(answer.status, status);
        open.push(stream);
    }
    let mut direct = tls(connect(&server, STRANGER).await, &ca).await;
    assert_eq!(get(&mut direct, "/v1/keepalive", "").await.unwrap().status, 200);
}

#[tokio::test]
async fn t75_a_network_has_so_many_connections_and_no_more() {
    let settings = [("RATE_LIMITS", "on"), ("LIMITS__MAX_CONNECTIONS_PER_NETWORK", "3")];
    let server = Server::spawn_with(Backend::Sqlite, &settings).await;
    let mut open = Vec::new();
    for last in 1..=3 {
        let mut stream = connect(&server, [127, 0, 0, last]).await;
        assert_eq!(get(&mut stream, "/v1/keepalive", "").await.unwrap().status, 200);
        open.push(stream);
    }
    let mut beyond = connect(&server, [127, 0, 0, 4]).await;
    let refused = get(&mut beyond, "/v1/keepalive", "").await.unwrap();
    assert_eq!(refused.status, 429);
    assert!(refused.head.contains("\r\nretry-after: "), "{}", refused.head);
    let body: Value = serde_json::from_str(&refused.body).unwrap();
    assert_eq!(body["code"], "too_many_connections");
    // It is told once.
    let mut rest = Vec::new();
    let _ = within("the end of a refused connection", beyond.read_to_end(&mut rest)).await;
    assert_eq!(rest, b"");
    // A socket is refused with the same status, and who is there already goes on.
    assert_eq!(socket(&server, STRANGER, &[]).await.err(), Some(429));
    for stream in &mut open {
        assert_eq!(get(stream, "/v1/keepalive", "").await.unwrap().status, 200);
    }
    let mut elsewhere = connect(&server, OTHER).await;
    assert_eq!(get(&mut elsewhere, "/v1/keepalive", "").await.unwrap().status, 200);
    let metric = "blind_relay_connections_refused_total{reason=\"network\"}";
    assert!((server.metric(metric).await - 2.0).abs() < 0.5);
    drop(open.pop());
    until("a place", async || {
        let mut stream = connect(&server, STRANGER).await;
        let answer = get(&mut stream, "/v1/keepalive", "").await;
        let served = answer.is_some_and(|answer| answer.status == 200);
        if served {
            open.push(stream);
        }
        served
    })
    .await;
}

#[tokio::test]
async fn t75_sockets_of_one_http2_connection_count_for_their_network() {
    let settings = [("RATE_LIMITS", "on"), ("LIMITS__MAX_CONNECTIONS_PER_NETWORK", "3")];
    let server = Server::spawn_with(Backend::Sqlite, &settings).await;
    let client = Http2::connect(&server).await;
    let mut sockets = Vec::new();
    for _ in 0..3 {
        sockets.push(client.socket(None).await.unwrap());
    }
    let refused = client.socket(None).await.err().unwrap().expect(429);
    assert_eq!(refused.code(), "too_many_sockets");
    let mut beyond = connect(&server, STRANGER).await;
    assert_eq!(get(&mut beyond, "/v1/keepalive", "").await.unwrap().status, 429);
    drop(sockets.pop());
    until("a place", async || match client.socket(None).await {
        Ok(socket) => {
            sockets.push(socket);
            true
        }
        Err(_) => false,
    })
    .await;
}

#[tokio::test]
async fn t75_a_flood_of_one_network_leaves_room_for_others() {
    let settings = [
        ("RATE_LIMITS", "on"),
        ("LIMITS__MAX_CONNECTIONS", "24"),
        ("LIMITS__MAX_CONNECTIONS_PER_NETWORK", "8"),
    ];
    let server = Server::spawn_with(Backend::Sqlite, &settings).await;
    // Silent ones cost the most: they keep what they got for as long as they may.
    let mut flood = Vec::new();
    for number in 0..400_u16 {
        flood.push(connect(&server, [127, 0, 0, number.to_be_bytes()[1].max(1)]).await);
    }
    for network in 1..=4 {
        let mut stream = connect(&server, [127, 0, network, 1]).await;
        let answer = get(&mut stream, "/v1/keepalive", "").await.unwrap();
        assert_eq!(answer.status, 200, "{network}");
    }
    drop(flood);
    until("the flood's end", async || {
        let mut stream = connect(&server, STRANGER).await;
        let answer = get(&mut stream, "/v1/keepalive", "").await;
        answer.is_some_and(|answer| answer.status == 200)
    })
    .await;
    let log = server.log();
    assert!(!log.contains("panicked") && !log.contains("ERROR"), "{log}");
}

#[tokio::test]
async fn without_limits_a_network_has_as_many_connections_as_there_are() {
    let settings = [("RATE_LIMITS", "off"), ("LIMITS__MAX_CONNECTIONS_PER_NETWORK", "1")];
    let server = Server::spawn_with(Backend::Sqlite, &settings).await;
    let mut open = Vec::new();
    for _ in 0..5 {
        let mut stream = connect(&server, STRANGER).await;
        assert_eq!(get(&mut stream, "/v1/keepalive", "").await.unwrap().status, 200);
        open.push(stream);
    }
}

/// A connection from this address of the machine's own.
async fn connect(server: &Server, from: [u8; 4]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(SocketAddr::from((IpAddr::from(from), 0))).unwrap();
    socket.connect(server.address().parse().unwrap()).await.unwrap()
}

/// A connection that begins with these bytes.
async fn begun(server: &Server, from: [u8; 4], header: &[u8]) -> TcpStream {
    let mut stream = connect(server, from).await;
    stream.write_all(header).await.unwrap();
    stream
}

/// What the server says to these bytes until it closes.
async fn said(server: &Server, from: [u8; 4], bytes: &[u8]) -> String {
    let mut stream = connect(server, from).await;
    // The server may stop reading before the end.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = within("the end of an answer", stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// A socket of nobody in particular, from there and with these headers; or the status of its refusal.
async fn socket(server: &Server, from: [u8; 4], headers: &[(&'static str, &str)]) -> Result<Socket, u16> {
    let url = format!("ws://{}/v1/websocket/", server.address());
    let mut request = url.into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    let stream: Box<dyn ByteStream> = Box::new(connect(server, from).await);
    match within("an upgrade", tokio_tungstenite::client_async(request, stream)).await {
        Ok((stream, _)) => Ok(Socket::over(stream)),
        Err(Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("the upgrade failed: {error}"),
    }
}

/// The same, as soon as those that have just ended have left their places.
async fn once_there_is_room(server: &Server, from: [u8; 4], headers: &[(&'static str, &str)]) -> Socket {
    let mut open = None;
    until("room for a socket", async || {
        open = socket(server, from, headers).await.ok();
        open.is_some()
    })
    .await;
    open.unwrap()
}

/// An answer by HTTP/1.1.
struct Plain {
    status: u16,
    head: String,
    body: String,
}

/// Asks on a connection; `None` if it ends without an answer.
async fn get(stream: &mut impl ByteStream, path: &str, headers: &str) -> Option<Plain> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
    // It may have ended already.
    let _ = stream.write_all(request.as_bytes()).await;
    within("an answer", async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        stream.read_exact(&mut body).await.ok()?;
        Some(Plain {
            status: head[9..12].parse().unwrap(),
            head,
            body: String::from_utf8(body).unwrap(),
        })
    })
    .await
}

async fn tls(stream: TcpStream, ca: &Path) -> Box<dyn ByteStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let connecting = connector.connect("localhost".try_into().unwrap(), stream);
    Box::new(within("a handshake", connecting).await.unwrap())
}

fn v1(rest: &str) -> Vec<u8> {
    format!("PROXY {rest}\r\n").into_bytes()
}

fn v2_ipv6(source: [u8; 16]) -> Vec<u8> {
    let addresses = [&source[..], &[0; 16], &[0x9c, 0x40, 1, 187]].concat();
    [&b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24"[..], &addresses].concat()
}
