//! Accepts connections and speaks HTTP/1.1 and HTTP/2 on them, within bounds.
//!
//! The clock over a connection is one rule: it has `header_timeout` from being accepted to its first request, and
//! `idle_timeout` from each answer's end to the next request; with requests in flight, one of them has to get on within
//! `stuck_timeout`. A connection that carries WebSockets is not idle: they have clocks of their own. hyper's own header timeout is
//! off: it would count the pause between two requests as a slow head, and does not run before the first bytes have told HTTP/1.1 from
//! HTTP/2. An answer has ended when hyper took its last frame, so a peer that does not read a whole answer is cut off as well. How
//! long a request takes, and how large its body is, the router bounds.
//!
//! Of a peer's address its [`Network`] is kept for as long as the connection is open, and is in the extensions of each
//! request. One network has a part of the places only: whoever comes beyond that is told to come back later.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use super::crowd::{Crowd, Member};
use super::error::ApiError;
use super::network::Network;
use super::proxies::{Peer, Proxies};
use super::transport::Transport;
use crate::telemetry::metrics;

/// Bounds of one connection.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// For the TLS handshake, and again until the first request.
    pub header_timeout: Duration,
    /// Without a request in flight.
    pub idle_timeout: Duration,
    /// With requests in flight of which none gets on: a peer that does not take its answer. Longer than any handler takes.
    pub stuck_timeout: Duration,
    /// Size of a request's headers.
    pub max_header_bytes: u32,
    /// Number of a request's headers.
    pub max_headers: usize,
}

/// Whom a listener lets in.
#[derive(Clone)]
pub struct Door {
    /// The places for connections.
    pub slots: Arc<Semaphore>,
    /// How many of them each network has, if that is bounded.
    pub crowd: Option<Arc<Crowd>>,
    /// Whose word on a client's address is taken.
    pub proxies: Arc<Proxies>,
}

impl Door {
    /// Lets in whoever comes, as long as there are places.
    pub fn open(slots: Arc<Semaphore>) -> Self {
        Self {
            slots,
            crowd: None,
            proxies: Arc::default(),
        }
    }

    /// A place for a connection; `None` if its network has as many as it may. Those of a proxy are for many networks.
    fn place(&self, peer: &Peer, slot: OwnedSemaphorePermit) -> Option<Place> {
        let member = match &self.crowd {
            Some(crowd) if peer.is_client() => Some(crowd.enter(peer.network())?),
            _ => None,
        };
        Some(Place { _slot: slot, member })
    }
}

/// A place among the connections that may be open, and among those of a network.
struct Place {
    _slot: OwnedSemaphorePermit,
    member: Option<Member>,
}

/// The connection's place. It is in the extensions of every request: whoever makes a socket of it takes a [`SocketPlace`].
#[derive(Clone)]
pub struct ConnectionSlot {
    connection: Arc<Place>,
    door: Door,
    /// For whom a proxy sends this request.
    forwarded: Option<Network>,
    usage: Arc<Usage>,
    tls: bool,
}

impl ConnectionSlot {
    /// Whether the connection speaks TLS.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Notes that a request gets on: bytes of a body that is larger than it could come within `stuck_timeout` came.
    pub fn got_on(&self) {
        self.usage.state().got_on = Instant::now();
    }

    /// A place for a WebSocket on this connection, to be kept for as long as the socket is open; `None` if there is no
    /// room. On HTTP/2 many sockets may share a connection: the first uses the connection's place, and each further one
    /// needs a place like a connection's, so that the number of connections bounds the number of sockets, too. What a proxy
    /// sends is for many networks, and there a socket is counted for the one that it is for.
    pub fn socket_place(&self) -> Option<SocketPlace> {
        let mut state = self.usage.state();
        if state.sockets >= MAX_SOCKETS {
            return None;
        }
        let first = state.sockets == 0;
        let slot = match first {
            true => None,
            false => Some(Arc::clone(&self.door.slots).try_acquire_owned().ok()?),
        };
        let member = match (&self.connection.member, &self.door.crowd, &self.forwarded) {
            (Some(_), ..) if first => None,
            (Some(member), ..) => Some(member.another()?),
            (None, Some(crowd), Some(network)) => Some(crowd.enter(network)?),
            (None, ..) => None,
        };
        state.sockets += 1;
        Some(SocketPlace {
            usage: Arc::clone(&self.usage),
            _connection: Arc::clone(&self.connection),
            _slot: slot,
            _member: member,
        })
    }
}

/// The place of one open WebSocket.
pub struct SocketPlace {
    usage: Arc<Usage>,
    _connection: Arc<Place>,
    /// Of its own, where the connection's is taken.
    _slot: Option<OwnedSemaphorePermit>,
    _member: Option<Member>,
}

impl Drop for SocketPlace {
    fn drop(&mut self) {
        let mut state = self.usage.state();
        state.sockets -= 1;
        state.idle_since = Instant::now();
    }
}

/// One bound address.
pub struct Listener {
    socket: TcpListener,
    tls: Option<TlsAcceptor>,
    limits: ConnectionLimits,
    door: Door,
}

impl Listener {
    /// Binds. The parts of `door` are shared by all listeners that count together.
    pub async fn bind(
        address: SocketAddr,
        tls: Option<TlsAcceptor>,
        limits: ConnectionLimits,
        door: Door,
    ) -> io::Result<Self> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // As `TcpListener::bind` does it, so that a server that was just stopped can be started again.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(Self {
            socket: socket.listen(BACKLOG)?,
            tls,
            limits,
            door,
        })
    }

    /// The address it is bound to, with the port the system chose if none was asked for.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Whether it speaks TLS.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Serves until `stop`, then closes the listening socket and returns. Connections run on in `connections`: idle ones
    /// end, the others finish what is in flight. Upgraded sockets are the business of whoever took them over.
    pub async fn serve(self, router: Router, stop: CancellationToken, connections: TaskTracker) {
        let server = Arc::new(Server {
            http: http_builder(&self.limits),
            tls: self.tls,
            limits: self.limits,
            door: self.door.clone(),
            refusals: Semaphore::new(REFUSALS),
        });
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = accept(&self.socket, &self.door) => accepted,
            };
            match accepted {
                Ok((socket, peer, slot)) => {
                    let connection = Arc::clone(&server).serve(socket, peer, slot, router.clone(), stop.clone());
                    connections.spawn(connection);
                }
                Err(error) => {
                    if !concerns_one_connection(&error) {
                        // Out of descriptors or memory, most likely: others must end before this can work again.
                        tracing::warn!(kind = %error.kind(), "cannot accept connections, trying again");
                        tokio::select! {
                            () = stop.cancelled() => return,
                            () = tokio::time::sleep(ACCEPT_BACK_OFF) => {}
                        }
                    }
                }
            }
        }
    }
}

async fn accept(socket: &TcpListener, door: &Door) -> io::Result<(TcpStream, Peer, OwnedSemaphorePermit)> {
    // Not before there is room: what cannot be served stays in the kernel's queue and costs nothing here. The slot is
    // not kept while waiting, or a quiet listener would hold one that a busy one needs.
    drop(door.slots.acquire().await.map_err(io::Error::other)?);
    // The address does not outlive this line.
    let (stream, peer) = socket
        .accept()
        .await
        .map(|(stream, address)| (stream, door.proxies.peer(address.ip())))?;
    let slot = Arc::clone(&door.slots)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    Ok((stream, peer, slot))
}

/// What all connections of a listener share.
struct Server {
    http: Builder<TokioExecutor>,
    tls: Option<TlsAcceptor>,
    limits: ConnectionLimits,
    door: Door,
    /// Places for those who are told that they have too many connections. They take no place of others.
    refusals: Semaphore,
}

impl Server {
    async fn serve(
        self: Arc<Self>,
        socket: TcpStream,
        peer: Peer,
        slot: OwnedSemaphorePermit,
        router: Router,
        stop: CancellationToken,
    ) {
        let opening = self.open(socket, peer, slot);
        let (transport, peer, place) = tokio::select! {
            () = stop.cancelled() => return,
            done = tokio::time::timeout(self.limits.header_timeout, opening) => match done {
                Ok(Ok(Some(opened))) => opened,
                // Refused, or the peer's failure, and its reason may hold what the peer sent.
                Ok(Ok(None) | Err(_)) | Err(_) => return,
            },
        };
        let usage = Arc::new(Usage::new());
        let service = CountingService {
            router,
            slot: ConnectionSlot {
                connection: Arc::new(place),
                door: self.door.clone(),
                forwarded: None,
                usage: Arc::clone(&usage),
                tls: self.tls.is_some(),
            },
            peer,
        };
        let mut connection = pin!(
            self.http
                .serve_connection_with_upgrades(TokioIo::new(transport), service)
        );
        let mut clock = pin!(tokio::time::sleep(Duration::ZERO));
        let mut closing = false;
        loop {
            tokio::select! {
                // An error is the peer's: it sent no HTTP or went away.
                _ = connection.as_mut() => return,
                () = stop.cancelled(), if !closing => {}
                () = clock.as_mut() => match usage.next_look(&self.limits, Instant::now()) {
                    Some(look) => {
                        clock.as_mut().reset(look);
                        continue;
                    }
                    None if closing => return,
                    None => {}
                },
            }
            // Idle for too long, or the server stops: say goodbye and let what is in flight finish. A peer that is in
            // the middle of a head gets a moment for it, one that never reads does not get more.
            closing = true;
            connection.as_mut().graceful_shutdown();
            let goodbye = if stop.is_cancelled() {
                STOP_GOODBYE
            } else {
                IDLE_GOODBYE
            };
            usage.close(goodbye);
            clock.as_mut().reset(Instant::now() + goodbye);
        }
    }

    /// What comes before HTTP: the word of a balancer, a place, TLS. `None` if there is no place for this network.
    async fn open(
        &self,
        mut socket: TcpStream,
        peer: Peer,
        slot: OwnedSemaphorePermit,
    ) -> io::Result<Option<(Transport, Peer, Place)>> {
        let client = self.door.proxies.client(peer, &mut socket).await;
        let peer = client.inspect_err(|_| metrics::connection_refused("proxy"))?;
        let Some(place) = self.door.place(&peer, slot) else {
            metrics::connection_refused("network");
            Box::pin(self.refuse(socket)).await?;
            return Ok(None);
        };
        let transport = Transport::accept(socket, self.tls.as_ref()).await?;
        Ok(Some((transport, peer, place)))
    }

    /// Answers the first request with a refusal, as long as not too many are being told so. Others see the end at once.
    async fn refuse(&self, socket: TcpStream) -> io::Result<()> {
        let Ok(_place) = self.refusals.try_acquire() else {
            return Ok(());
        };
        let transport = Transport::accept(socket, self.tls.as_ref()).await?;
        let told = Notify::new();
        let service = service_fn(|_: Request<Incoming>| {
            told.notify_one();
            std::future::ready(Ok::<_, Infallible>(TOO_MANY.into_response()))
        });
        let mut connection = pin!(self.http.serve_connection(TokioIo::new(transport), service));
        tokio::select! {
            _ = connection.as_mut() => return Ok(()),
            () = told.notified() => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
        Ok(())
    }
}

fn http_builder(limits: &ConnectionLimits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_headers(limits.max_headers)
        .max_buf_size(usize::try_from(limits.max_header_bytes).unwrap_or(usize::MAX));
    builder
        .http2()
        .timer(TokioTimer::new())
        // WebSockets: RFC 8441.
        .enable_connect_protocol()
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(limits.max_header_bytes)
        .max_frame_size(16 * 1024)
        .adaptive_window(false)
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(256 * 1024)
        .max_send_buf_size(64 * 1024)
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(100)
        .keep_alive_interval(limits.idle_timeout)
        .keep_alive_timeout(limits.header_timeout);
    builder
}

/// What a connection is doing, for the clock over it.
struct Usage(Mutex<UsageState>);

struct UsageState {
    in_flight: usize,
    /// Open WebSockets.
    sockets: usize,
    idle_since: Instant,
    /// When a request began, or a part of an answer was taken.
    got_on: Instant,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    /// No request yet.
    New,
    /// There was one.
    Used,
    /// No further one is wanted; the peer has this long to read what it was sent.
    Closing(Duration),
}

impl Usage {
    fn new() -> Self {
        Self(Mutex::new(UsageState {
            in_flight: 0,
            sockets: 0,
            idle_since: Instant::now(),
            got_on: Instant::now(),
            phase: Phase::New,
        }))
    }

    /// When to look at the connection again; `None` if its time is over.
    fn next_look(&self, limits: &ConnectionLimits, now: Instant) -> Option<Instant> {
        let state = self.state();
        let (patience, soonest) = match state.phase {
            Phase::New => (limits.header_timeout, limits.idle_timeout),
            Phase::Used => (limits.idle_timeout, limits.idle_timeout),
            Phase::Closing(goodbye) => (goodbye, goodbye),
        };
        // A request that begins and ends from here on leaves at least this much time.
        let look = now + soonest.min(limits.stuck_timeout);
        let end = if state.in_flight > 0 {
            state.got_on + limits.stuck_timeout
        } else if state.sockets > 0 {
            look
        } else {
            state.idle_since + patience
        };
        (end > now).then(|| end.min(look))
    }

    fn begin(self: &Arc<Self>) -> InFlight {
        let mut state = self.state();
        state.in_flight += 1;
        state.got_on = Instant::now();
        if state.phase == Phase::New {
            state.phase = Phase::Used;
        }
        InFlight(Arc::clone(self))
    }

    fn close(&self, goodbye: Duration) {
        let mut state = self.state();
        state.phase = Phase::Closing(goodbye);
        if state.in_flight == 0 {
            state.idle_since = Instant::now();
        }
    }

    fn state(&self) -> MutexGuard<'_, UsageState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request from its head to the end of its answer, or until the peer gave it up.
struct InFlight(Arc<Usage>);

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.in_flight -= 1;
        state.idle_since = Instant::now();
    }
}

/// The router, with each request counted and given the connection's slot and the network that it comes from.
struct CountingService {
    router: Router,
    slot: ConnectionSlot,
    peer: Peer,
}

impl hyper::service::Service<Request<Incoming>> for CountingService {
    type Response = Response<CountedBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let in_flight = self.slot.usage.begin();
        let mut slot = self.slot.clone();
        slot.forwarded = slot.door.proxies.forwarded(&self.peer, request.headers_mut());
        let network = slot.forwarded.as_ref().unwrap_or(self.peer.network()).clone();
        request.extensions_mut().insert(network);
        request.extensions_mut().insert(slot);
        let answer = self.router.clone().call(request);
        Box::pin(async move { Ok(answer.await?.map(|body| CountedBody { body, in_flight })) })
    }
}

/// An answer's body, in flight until hyper has read its end.
struct CountedBody {
    body: Body,
    in_flight: InFlight,
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if frame.is_ready() {
            self.in_flight.0.state().got_on = Instant::now();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Errors of `accept` that tell of the one connection that was to be accepted, and nothing of the next.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

/// Requests and sockets side by side on one HTTP/2 connection.
const MAX_STREAMS: u32 = 16;
/// WebSockets on one connection. Stock clients open one or two on each.
const MAX_SOCKETS: usize = 4;
/// Connections that the system keeps until they are accepted, as far as it allows so many (`net.core.somaxconn`). After a restart
/// thousands of devices come at once, and whoever finds no room tries again after a second.
const BACKLOG: u32 = 4096;
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(250);
/// Refusals that are told at the same time, on each listener.
const REFUSALS: usize = 32;
const TOO_MANY: ApiError = ApiError::too_many(
    "too_many_connections",
    "too many connections are open from this network",
    30,
);
/// A peer that was idle for too long had its time.
const IDLE_GOODBYE: Duration = Duration::from_secs(1);
/// A peer that reads a long answer just when the server stops has done nothing wrong.
const STOP_GOODBYE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
