//! Who takes part: nodes, people of whom everything is a canary, and connections from addresses that are canaries too.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::RequestBuilder;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::marks::{Fate, Marks};
use crate::support::socket::ByteStream;
use crate::support::{Answer, Person, Server, Socket, hex, until, within};

/// How many addresses requests come from.
const ADDRESSES: usize = 48;

pub(super) struct World {
    pub(super) nodes: Vec<Server>,
    pub(super) marks: Marks,
    clients: Vec<reqwest::Client>,
    turn: AtomicUsize,
}

impl World {
    pub(super) fn new(nodes: Vec<Server>) -> Self {
        let marks = Marks::new();
        let clients = (0..ADDRESSES).map(|_| {
            let builder = reqwest::Client::builder().local_address(IpAddr::V4(marks.address()));
            builder.build().unwrap()
        });
        Self {
            nodes,
            clients: clients.collect(),
            marks,
            turn: AtomicUsize::new(0),
        }
    }

    /// A node, each in turn.
    pub(super) fn node(&self) -> &Server {
        &self.nodes[self.turn() % self.nodes.len()]
    }

    /// Asks from an address that is a canary, with headers that are canaries.
    pub(super) async fn ask(&self, request: RequestBuilder) -> Answer {
        self.try_ask(request).await.unwrap()
    }

    /// As [`Self::ask`], where the server may rather hang up.
    pub(super) async fn try_ask(&self, request: RequestBuilder) -> Option<Answer> {
        let (_, request) = request.build_split();
        let mut request = request.unwrap();
        for (name, value) in self.headers() {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let client = &self.clients[self.turn() % ADDRESSES];
        let response = within("an answer", client.execute(request)).await.ok()?;
        let status = response.status().as_u16();
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = response.headers().iter();
        let headers = headers.map(|(name, value)| (name.as_str().to_owned(), text(value)));
        let headers = headers.collect();
        let body = response.bytes().await.ok()?;
        Some(Answer { status, headers, body })
    }

    /// Fresh canaries for the head of a request.
    fn headers(&self) -> [(&'static str, String); 6] {
        let forwarded: [u8; 16] = self.marks.raw("forwarded address");
        let forwarded = std::net::Ipv6Addr::from(forwarded).to_string();
        self.marks.exact("forwarded address", Fate::Passing, &forwarded);
        [
            ("user-agent", self.marks.text("user agent")),
            ("x-forwarded-for", forwarded),
            ("forwarded", format!("for={}", self.marks.address())),
            ("x-something", self.marks.text("unknown header")),
            ("cookie", format!("a={}", self.marks.text("cookie"))),
            ("referer", format!("https://{}.example/", self.marks.text("referer"))),
        ]
    }

    /// Somebody new, and what they do to have an account.
    pub(super) async fn register(&self) -> Person {
        let server = self.node();
        let mut person = Person::new();
        person.number = self.marks.number();
        person.password = self.marks.text("password");
        person.access_key = self.marks.raw("access key");
        person.device_name = self.replaced("device name");
        let session = self.verified(&person.number).await;
        let registering = person.registering(server).json(&person.registration(&session));
        let answer = self.ask(registering).await.expect(200).json();
        answer["uuid"].as_str().unwrap().clone_into(&mut person.aci);
        answer["pni"].as_str().unwrap().clone_into(&mut person.pni);
        self.named("ACI", &person.aci);
        self.named("PNI", &person.pni);
        let credentials = format!("{}:{}", person.aci, person.password);
        self.marks.exact("credentials", Fate::Passing, credentials);
        person
    }

    /// Several at once.
    pub(super) async fn people(&self, count: usize) -> Vec<Person> {
        futures_util::future::join_all((0..count).map(|_| self.register())).await
    }

    /// A verification session that has had its code, and a wrong one before.
    pub(super) async fn verified(&self, number: &str) -> String {
        let server = self.node();
        let opening = server.request("POST", "/v1/verification/session");
        let session = self.ask(opening.json(&json!({ "number": number }))).await.expect(200);
        let session = session.json()["id"].as_str().unwrap().to_owned();
        self.marks.exact("verification session", Fate::Passing, &session);
        let path = format!("/v1/verification/session/{session}");
        let known =
            json!({ "pushChallenge": self.marks.text("push challenge"), "captcha": self.marks.text("captcha") });
        self.ask(server.request("PATCH", &path).json(&known)).await.expect(200);
        self.ask(server.request("GET", &path)).await.expect(200);
        let path = format!("{path}/code");
        let sending = json!({ "transport": "sms", "client": self.marks.text("kind of client") });
        self.ask(server.request("POST", &path).json(&sending)).await.expect(200);
        let long = self.marks.text("wrong code").repeat(2);
        let trying = |code: String| server.request("PUT", &path).json(&json!({ "code": code }));
        self.ask(trying(long)).await;
        let answer = self.ask(trying(self.marks.text("code"))).await.expect(200);
        assert_eq!(answer.json()["verified"], true);
        session
    }

    /// An id that stands in a table of accounts and nowhere else.
    pub(super) fn named(&self, what: &'static str, id: &str) {
        let id = uuid::Uuid::parse_str(id).unwrap();
        self.marks.exact(what, Fate::Stored, id.as_bytes());
    }

    /// Ciphertext that the server keeps until it is replaced.
    pub(super) fn replaced<const N: usize>(&self, what: &'static str) -> [u8; N] {
        self.marks.bytes_of(what, Fate::Replaced, N).try_into().unwrap()
    }

    /// A device's socket, from an address that is a canary.
    pub(super) async fn socket(&self, server: &Server, authorization: Option<&str>) -> Result<Socket, u16> {
        let url = format!("ws://{}/v1/websocket/?{}", server.address(), self.marks.text("query"));
        let mut request = url.into_client_request().unwrap();
        let authorization = authorization.map(|value| ("authorization", value.to_owned()));
        for (name, value) in self.headers().into_iter().chain(authorization) {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let stream: Box<dyn ByteStream> = Box::new(self.connect(server).await);
        match within("an upgrade", tokio_tungstenite::client_async(request, stream)).await {
            Ok((stream, _)) => Ok(Socket::over(stream)),
            Err(tokio_tungstenite::tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("the upgrade failed: {error}"),
        }
    }

    /// A connection from an address that is a canary together with its port.
    pub(super) async fn connect(&self, server: &Server) -> TcpStream {
        let from: Ipv4Addr = self.marks.address();
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((from, 0))).unwrap();
        let stream = socket.connect(server.address().parse().unwrap()).await.unwrap();
        let (ip, port) = (from.octets(), stream.local_addr().unwrap().port());
        // Side by side, in either order of bytes.
        for port in [port.to_be_bytes(), port.to_le_bytes()] {
            self.marks.exact("peer", Fate::Passing, [&ip[..], &port].concat());
            self.marks.exact("peer", Fate::Passing, [&port[..], &ip].concat());
        }
        stream
    }

    /// Says these bytes to a server, and reads until it hangs up or answers.
    pub(super) async fn say(&self, server: &Server, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect(server).await;
        // The server may hang up in the middle.
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = within("an end", stream.read_to_end(&mut answer)).await;
        answer
    }

    /// Ends every connection, and returns once every node has seen that.
    pub(super) async fn hang_up(&mut self) {
        self.clients.clear();
        for node in &mut self.nodes {
            node.hang_up();
        }
        for node in &self.nodes {
            let port = node.address().rsplit_once(':').unwrap().1.parse().unwrap();
            until("the end of all connections", async || connections(port) == 0).await;
        }
    }

    fn turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }
}

/// How many connections a local port has that its process has not closed.
fn connections(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let local = format!(":{port:04X}");
    table
        .lines()
        .filter(|line| {
            let mut columns = line.split_whitespace().skip(1);
            let address = columns.next().unwrap_or_default();
            // Established, or closed by the peer alone.
            address.ends_with(&local) && matches!(columns.nth(1), Some("01" | "08"))
        })
        .count()
}

/// 64 hexadecimal digits, as versions and locks are written.
pub(super) fn digits(bytes: &[u8; 32]) -> String {
    hex(bytes)
}
