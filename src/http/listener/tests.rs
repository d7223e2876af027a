use std::sync::atomic::{AtomicUsize, Ordering};

use axum::routing::{connect, get};
use hyper_util::server::conn::auto::upgrade;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use super::*;
use crate::domain::{Clock, SystemClock};
use crate::tls::{ServerTls, self_signed};

struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    slots: Arc<Semaphore>,
    connections: TaskTracker,
    accepting: tokio::task::JoinHandle<()>,
}

fn limits() -> ConnectionLimits {
    ConnectionLimits {
        header_timeout: Duration::from_millis(300),
        idle_timeout: Duration::from_millis(600),
        stuck_timeout: LONG,
        max_header_bytes: 8_192,
        max_headers: 16,
    }
}

/// Only idleness ends a connection soon.
fn quick_to_idle() -> ConnectionLimits {
    ConnectionLimits {
        header_timeout: LONG,
        ..limits()
    }
}

/// Nothing of the clock is in the way of a test that is not about it.
fn patient() -> ConnectionLimits {
    ConnectionLimits {
        header_timeout: LONG,
        idle_timeout: LONG,
        ..limits()
    }
}

async fn start(router: Router, limits: ConnectionLimits, slots: usize, tls: Option<TlsAcceptor>) -> Running {
    let slots = Arc::new(Semaphore::new(slots));
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let door = Door::open(Arc::clone(&slots));
    let listener = Listener::bind(loopback, tls, limits, door).await.unwrap();
    let (stop, connections) = (CancellationToken::new(), TaskTracker::new());
    Running {
        address: listener.local_addr().unwrap(),
        accepting: tokio::spawn(listener.serve(router, stop.clone(), connections.clone())),
        stop,
        slots,
        connections,
    }
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn stopped(self) {
        self.accepting.await.unwrap();
        self.connections.close();
        within(self.connections.wait()).await;
    }
}

fn hello() -> Router {
    Router::new().route("/", get(async || "hello"))
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.expect("it happens in time")
}

/// Everything until the peer closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is an end as well: the server may close with bytes of ours unread.
    let _ = within(stream.read_to_end(&mut bytes)).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end.as_bytes()) {
        bytes.push(within(stream.read_u8()).await.unwrap());
    }
    String::from_utf8(bytes).unwrap()
}

const LONG: Duration = Duration::from_secs(20);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let server = start(hello(), limits(), 10, None).await;
    let begin = Instant::now();
    assert_eq!(rest(&mut server.connect().await).await, "");
    assert!(begin.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn a_head_that_trickles_is_cut_off() {
    let server = start(hello(), limits(), 10, None).await;
    let (mut reader, mut writer) = server.connect().await.into_split();
    let trickle = tokio::spawn(async move {
        writer.write_all(b"GET / HTTP/1.1\r\nx: ").await.unwrap();
        while writer.write_all(b"y").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut bytes = Vec::new();
    let _ = within(reader.read_to_end(&mut bytes)).await;
    within(trickle).await.unwrap();
    assert_eq!(bytes, b"");
}

#[tokio::test]
async fn an_idle_connection_outlives_the_header_timeout_and_not_the_idle_timeout() {
    let limits = ConnectionLimits {
        header_timeout: Duration::from_millis(500),
        idle_timeout: Duration::from_millis(1_500),
        ..limits()
    };
    let server = start(hello(), limits, 10, None).await;
    let mut stream = server.connect().await;
    stream.write_all(REQUEST).await.unwrap();
    read_until(&mut stream, "hello").await;
    let begin = Instant::now();
    assert_eq!(rest(&mut stream).await, "");
    assert!(begin.elapsed() >= Duration::from_secs(1), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_long_answer_is_not_idleness() {
    let release = Arc::new(Notify::new());
    let (held, started) = (Arc::clone(&release), Arc::new(Notify::new()));
    let begun = Arc::clone(&started);
    let slow = Router::new().route(
        "/",
        get(async move || {
            begun.notify_one();
            held.notified().await;
            "slow"
        }),
    );
    let server = start(slow, quick_to_idle(), 10, None).await;
    let mut stream = server.connect().await;
    stream.write_all(REQUEST).await.unwrap();
    within(started.notified()).await;
    tokio::time::sleep(limits().idle_timeout * 3).await;
    release.notify_one();
    read_until(&mut stream, "slow").await;
}

#[tokio::test]
async fn connections_above_the_cap_wait_for_a_free_slot() {
    let server = start(hello(), patient(), 1, None).await;
    let mut first = server.connect().await;
    first.write_all(REQUEST).await.unwrap();
    read_until(&mut first, "hello").await;
    assert_eq!(server.slots.available_permits(), 0);

    // The kernel takes the connection and its request; the answer comes when the first one is gone.
    let mut second = server.connect().await;
    second.write_all(REQUEST).await.unwrap();
    let mut byte = [0];
    let early = tokio::time::timeout(Duration::from_millis(200), second.read(&mut byte)).await;
    assert!(early.is_err(), "answered above the cap");
    drop(first);
    read_until(&mut second, "hello").await;
}

#[tokio::test]
async fn a_quiet_listener_takes_no_slot_from_a_busy_one() {
    let slots = Arc::new(Semaphore::new(1));
    let mut addresses = Vec::new();
    for _ in 0..2 {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let door = Door::open(Arc::clone(&slots));
        let listener = Listener::bind(any, None, patient(), door).await.unwrap();
        addresses.push(listener.local_addr().unwrap());
        tokio::spawn(listener.serve(hello(), CancellationToken::new(), TaskTracker::new()));
    }
    for address in [addresses[0], addresses[1], addresses[0]] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(REQUEST).await.unwrap();
        read_until(&mut stream, "hello").await;
    }
}

#[tokio::test]
async fn a_peer_that_does_not_read_its_answer_is_cut_off() {
    // More than the buffers of both sockets hold.
    let large = Router::new().route("/", get(async || vec![b'x'; 64 << 20]));
    let server = start(large, quick_to_idle(), 1, None).await;
    let mut stream = server.connect().await;
    stream.write_all(REQUEST).await.unwrap();
    read_until(&mut stream, "\r\n\r\n").await;
    let _free = within(server.slots.acquire()).await.unwrap();
}

#[tokio::test]
async fn heads_too_large_or_too_many_are_answered_431() {
    let server = start(hello(), patient(), 10, None).await;
    for head in [
        format!("GET / HTTP/1.1\r\nhost: x\r\nlong: {}\r\n\r\n", "y".repeat(16 * 1024)),
        format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "many: y\r\n".repeat(20)),
    ] {
        let mut stream = server.connect().await;
        let _ = stream.write_all(head.as_bytes()).await;
        assert!(read_until(&mut stream, "\r\n").await.starts_with("HTTP/1.1 431"));
    }
}

#[tokio::test]
async fn stopping_finishes_what_is_in_flight_and_ends_what_is_idle() {
    let (started, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (begun, held) = (Arc::clone(&started), Arc::clone(&release));
    let router = hello().route(
        "/slow",
        get(async move || {
            begun.notify_one();
            held.notified().await;
            "slow"
        }),
    );
    let server = start(router, patient(), 10, None).await;
    let mut idle = server.connect().await;
    idle.write_all(REQUEST).await.unwrap();
    read_until(&mut idle, "hello").await;
    let mut silent = server.connect().await;
    let mut busy = server.connect().await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    within(started.notified()).await;

    server.stop.cancel();
    assert_eq!(rest(&mut idle).await, "");
    assert_eq!(rest(&mut silent).await, "");
    release.notify_one();
    assert!(rest(&mut busy).await.ends_with("slow"));
    let address = server.address;
    server.stopped().await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn an_upgraded_connection_keeps_its_slot_and_gives_its_transport_back() {
    async fn upgrade_to_echo(mut request: Request<Body>) -> Response<Body> {
        let place = request.extensions().get::<ConnectionSlot>().unwrap().socket_place();
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let parts = upgrade::downcast::<TokioIo<Transport>>(upgrade.await.unwrap()).unwrap();
            let mut transport = parts.io.into_inner();
            transport.write_all(&parts.read_buf).await.unwrap();
            let mut byte = [0];
            while transport.read_exact(&mut byte).await.is_ok() {
                transport.write_all(&byte).await.unwrap();
            }
            drop(place);
        });
        let answer = Response::builder()
            .status(101)
            .header("connection", "upgrade")
            .header("upgrade", "echo");
        answer.body(Body::empty()).unwrap()
    }
    let server = start(Router::new().route("/", get(upgrade_to_echo)), quick_to_idle(), 2, None).await;
    let mut stream = server.connect().await;
    let head = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nearly";
    stream.write_all(head).await.unwrap();
    read_until(&mut stream, "\r\n\r\nearly").await;

    // The HTTP connection is over and its clock with it; the socket and its slot are not.
    server.connections.close();
    within(server.connections.wait()).await;
    assert_eq!(server.slots.available_permits(), 1);
    stream.write_all(b"late").await.unwrap();
    read_until(&mut stream, "late").await;
    drop(stream);
    let _both = within(server.slots.acquire_many(2)).await.unwrap();
}

#[tokio::test]
async fn http2_is_spoken_over_tls_and_ends_with_its_connection() {
    let dir = tempfile::tempdir().unwrap();
    let made = self_signed::ensure(dir.path(), SystemClock.now()).unwrap();
    let tls = ServerTls::load(made.files, SystemClock.now()).unwrap();
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    let router = Router::new().route(
        "/",
        get(async move |request: Request<Body>| {
            counted.fetch_add(1, Ordering::Relaxed);
            format!("{:?}", request.version())
        }),
    );
    let server = start(router, quick_to_idle(), 10, Some(tls.acceptor())).await;
    let socket = server.connect().await;
    let (mut send, connection) = h2_client(socket, &made.ca).await;
    let connection = tokio::spawn(connection);
    for _ in 0..3 {
        let request = Request::get("https://localhost/").body(String::new()).unwrap();
        let answer = within(send.send_request(request)).await.unwrap();
        let body = http_body_util::BodyExt::collect(answer.into_body())
            .await
            .unwrap()
            .to_bytes();
        assert_eq!(body, "HTTP/2.0");
    }
    assert_eq!(requests.load(Ordering::Relaxed), 3);
    // Idle now: the server says goodbye by itself.
    within(connection).await.unwrap().unwrap();
    server.stop.cancel();
    server.stopped().await;
}

#[tokio::test]
async fn an_answer_that_an_http2_peer_never_takes_ends_the_connection() {
    let limits = ConnectionLimits {
        stuck_timeout: Duration::from_millis(300),
        ..patient()
    };
    let router = Router::new().route("/", get(async || "an answer"));
    let server = start(router, limits, 10, None).await;
    let socket = server.connect().await;
    // A peer without a window gives the server no room for the body.
    let (mut send, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(0)
        .handshake(TokioIo::new(socket))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::get("http://relay/").body(String::new()).unwrap();
    let answer = within(send.send_request(request)).await.unwrap();
    assert_eq!(answer.status(), 200);
    let _ = within(connection).await.unwrap();
}

/// Opens a stream that gives back what it is sent, in its place.
async fn echo_stream(mut request: Request<Body>) -> Response<Body> {
    let slot = request.extensions().get::<ConnectionSlot>().unwrap();
    let Some(place) = slot.socket_place() else {
        return Response::builder().status(429).body(Body::empty()).unwrap();
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let (mut transport, _) = Transport::upgraded(upgrade.await.unwrap());
        let mut bytes = [0; 4096];
        while let Ok(read @ 1..) = transport.read(&mut bytes).await {
            transport.write_all(&bytes[..read]).await.unwrap();
            transport.flush().await.unwrap();
        }
        drop(place);
    });
    Response::new(Body::empty())
}

type Http2Sender = hyper::client::conn::http2::SendRequest<String>;

async fn open_stream(send: &mut Http2Sender) -> Result<TokioIo<hyper::upgrade::Upgraded>, u16> {
    let mut request = Request::connect("http://relay/echo").body(String::new()).unwrap();
    request
        .extensions_mut()
        .insert(hyper::ext::Protocol::from_static("websocket"));
    let mut answer = within(send.send_request(request)).await.unwrap();
    match answer.status().as_u16() {
        200 => Ok(TokioIo::new(hyper::upgrade::on(&mut answer).await.unwrap())),
        refused => Err(refused),
    }
}

async fn http2(server: &Running) -> (Http2Sender, tokio::task::JoinHandle<hyper::Result<()>>) {
    let socket = TokioIo::new(server.connect().await);
    let (mut send, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), socket)
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    // The server's settings come before its first answer.
    let request = Request::get("http://relay/").body(String::new()).unwrap();
    assert_eq!(within(send.send_request(request)).await.unwrap().status(), 200);
    (send, connection)
}

#[tokio::test]
async fn an_http2_connection_is_not_idle_while_it_carries_a_socket() {
    let server = start(hello().route("/echo", connect(echo_stream)), quick_to_idle(), 10, None).await;
    let (mut send, connection) = http2(&server).await;
    let mut stream = open_stream(&mut send).await.unwrap();
    tokio::time::sleep(limits().idle_timeout * 3).await;
    // More than the windows of stream and connection hold.
    let (mut reading, mut writing) = tokio::io::split(&mut stream);
    let bytes = vec![7; 1 << 20];
    let mut back = vec![0; bytes.len()];
    let (written, read) =
        within(async { tokio::join!(writing.write_all(&bytes), reading.read_exact(&mut back)) }).await;
    assert!(written.is_ok() && read.is_ok() && back == bytes);
    // With the socket gone it is idle, and ends.
    drop(stream);
    drop(send);
    within(connection).await.unwrap().unwrap();
}

#[tokio::test]
async fn sockets_of_one_http2_connection_are_few_and_take_places_of_connections() {
    let server = start(hello().route("/echo", connect(echo_stream)), patient(), 3, None).await;
    let (mut send, _connection) = http2(&server).await;
    let mut streams = Vec::new();
    for left in [2, 1, 0] {
        streams.push(open_stream(&mut send).await.unwrap());
        assert_eq!(server.slots.available_permits(), left);
    }
    assert_eq!(open_stream(&mut send).await.err(), Some(429));
    server.slots.add_permits(10);
    streams.push(open_stream(&mut send).await.unwrap());
    assert_eq!(
        open_stream(&mut send).await.err(),
        Some(429),
        "a fifth on one connection"
    );
    drop(streams);
    let _all_but_the_connections_own = within(server.slots.acquire_many(12)).await.unwrap();
}

#[tokio::test]
async fn stopping_lets_the_sockets_of_an_http2_connection_end_by_themselves() {
    let server = start(hello().route("/echo", connect(echo_stream)), patient(), 10, None).await;
    let (mut send, connection) = http2(&server).await;
    let mut stream = open_stream(&mut send).await.unwrap();
    server.stop.cancel();
    stream.write_all(b"still here").await.unwrap();
    let mut back = [0; 10];
    within(stream.read_exact(&mut back)).await.unwrap();
    drop(stream);
    within(connection).await.unwrap().unwrap();
    server.stopped().await;
}

#[tokio::test]
async fn a_tls_handshake_that_hangs_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let made = self_signed::ensure(dir.path(), SystemClock.now()).unwrap();
    let tls = ServerTls::load(made.files, SystemClock.now()).unwrap();
    let server = start(hello(), limits(), 10, Some(tls.acceptor())).await;
    assert_eq!(rest(&mut server.connect().await).await, "");
}

async fn h2_client(
    socket: TcpStream,
    ca: &std::path::Path,
) -> (
    hyper::client::conn::http2::SendRequest<String>,
    impl Future<Output = hyper::Result<()>> + use<>,
) {
    use rustls::pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(rustls::pki_types::CertificateDer::from_pem_file(ca).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = "localhost".try_into().unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, socket)
        .await
        .unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap()
}
