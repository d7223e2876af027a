//! The two stock client stacks to the byte: heads of requests as they write them, numbers and headers of their frames.

use keys_schema::proto::web_socket_message::Type;
use keys_schema::proto::{WebSocketMessage, WebSocketRequestMessage};
use prost::Message as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::support::provisioning::NewDevice;
use crate::support::socket::ByteStream;
use crate::support::{Answer, Server, Socket, random, within};

/// Whose habits are replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stack {
    /// The network code of the official library: numbers from 0, `name: value`, a new socket says nothing.
    Official,
    /// libsignal-service-rs: random numbers above 2^63, `name:value`, a keepalive as the first frame.
    Service,
}

impl Stack {
    /// The head of an upgrade, with headers in the stack's order and case.
    fn upgrade(self, host: &str, path: &str, authorization: Option<&str>, stories: Option<bool>) -> String {
        let authorization = authorization.map_or(String::new(), |value| format!("authorization: {value}\r\n"));
        let stories = stories.map_or(String::new(), |wanted| {
            format!("x-signal-receive-stories: {wanted}\r\n")
        });
        match self {
            Self::Service => format!(
                "GET {path} HTTP/1.1\r\n{stories}{authorization}connection: Upgrade\r\nupgrade: websocket\r\n\
                 sec-websocket-key: {KEY}\r\nsec-websocket-version: 13\r\naccept: */*\r\n\
                 user-agent: trace-client\r\nhost: {host}\r\n\r\n"
            ),
            Self::Official => format!(
                "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                 sec-websocket-version: 13\r\nsec-websocket-key: {KEY}\r\n{authorization}{stories}\
                 accept-language: de\r\nuser-agent: trace-client libsignal/0.103.0\r\n\r\n"
            ),
        }
    }

    fn header(self, name: &str, value: &str) -> String {
        match self {
            Self::Official => format!("{name}: {value}"),
            Self::Service => format!("{name}:{value}"),
        }
    }
}

/// One socket of a stock client.
pub(super) struct Client {
    pub(super) socket: Socket,
    stack: Stack,
    asked: u64,
}

impl Client {
    /// Opens the chat socket and, with the stack that does so, asks at once whether it lives.
    pub(super) async fn open(server: &Server, stack: Stack, authorization: Option<&str>) -> Self {
        let stories = authorization.map(|_| false);
        let mut client = Self::upgraded(server, stack, authorization, stories).await;
        if stack == Stack::Service {
            client.keepalive().await;
        }
        client
    }

    /// As [`Self::open`], without the keepalive: whoever has a queue is pushed to first.
    pub(super) async fn upgraded(
        server: &Server,
        stack: Stack,
        authorization: Option<&str>,
        stories: Option<bool>,
    ) -> Self {
        let head = stack.upgrade(server.address(), "/v1/websocket/", authorization, stories);
        let (stream, answer) = upgrade(server, &head).await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        let lower = answer.to_lowercase();
        assert!(lower.contains(&format!("sec-websocket-accept: {}\r\n", ACCEPT.to_lowercase())));
        assert!(answer.contains(ACCEPT));
        assert!(!lower.contains("sec-websocket-protocol") && !lower.contains("sec-websocket-extensions"));
        let stream: Box<dyn ByteStream> = Box::new(stream);
        let stream = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
        Self {
            socket: Socket::over(stream),
            stack,
            asked: 0,
        }
    }

    /// A request without a body has no headers either.
    pub(super) async fn ask(&mut self, verb: &str, path: &str) -> Answer {
        self.send(verb, path, &[], None).await
    }

    /// A request with headers and no body.
    pub(super) async fn ask_bare(&mut self, verb: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(verb, path, headers, None).await
    }

    /// A request with a JSON body, to the byte.
    pub(super) async fn ask_json(&mut self, verb: &str, path: &str, body: &str) -> Answer {
        self.send(verb, path, &[], Some(body)).await
    }

    /// The same with more headers.
    pub(super) async fn ask_with(&mut self, verb: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.send(verb, path, headers, Some(body)).await
    }

    /// A life sign, whose answer has neither a body nor the type of one.
    pub(super) async fn keepalive(&mut self) {
        let answer = self.ask("GET", "/v1/keepalive").await.expect(200);
        assert!(
            answer.body.is_empty() && answer.header("content-type").is_none(),
            "{answer:?}"
        );
    }

    /// A request with bytes of another kind.
    pub(super) async fn ask_bytes(&mut self, verb: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.send_bytes(verb, path, headers, Some(body)).await
    }

    async fn send(&mut self, verb: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> Answer {
        let content_type = body.map(|_| ("content-type", "application/json"));
        let headers: Vec<_> = content_type.into_iter().chain(headers.iter().copied()).collect();
        self.send_bytes(verb, path, &headers, body.map(str::as_bytes)).await
    }

    async fn send_bytes(&mut self, verb: &str, path: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Answer {
        let id = match self.stack {
            Stack::Official => self.asked,
            Stack::Service => u64::from_be_bytes(random()) | 1 << 63,
        };
        self.asked += 1;
        let lines: Vec<String> = headers
            .iter()
            .map(|(name, value)| self.stack.header(name, value))
            .collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let body = body.map(|body| body.to_vec().into());
        self.socket.ask_as(Some(id), verb, path, &lines, body).await;
        let answer = self.socket.answer_to(id).await;
        // 200, 201, 202 and 204 are all that one of the stacks takes for success.
        let known = matches!(answer.status, 200 | 201 | 202 | 204) || answer.status >= 400;
        assert!(known && answer.header("x-signal-timestamp").is_some(), "{answer:?}");
        if answer.body.is_empty() {
            assert_eq!(answer.header("content-type"), None, "{verb} {path}");
        } else {
            answer.json();
        }
        answer
    }
}

/// Sends the head of an upgrade; gives the stream behind the answer's head.
async fn upgrade(server: &Server, head: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    within("the head of an answer", async {
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.unwrap());
        }
    })
    .await;
    (stream, String::from_utf8(answer).unwrap())
}

/// The socket of a device that waits to be linked.
pub(super) async fn provisioning(server: &Server) -> NewDevice {
    let head = Stack::Service.upgrade(server.address(), "/v1/websocket/provisioning/", None, None);
    let (stream, answer) = upgrade(server, &head).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    let stream: Box<dyn ByteStream> = Box::new(stream);
    NewDevice::over(WebSocketStream::from_raw_socket(stream, Role::Client, None).await).await
}

/// The status line of the answer to an upgrade.
pub(super) async fn refused(server: &Server, stack: Stack, authorization: &str) -> String {
    let head = stack.upgrade(server.address(), "/v1/websocket/", Some(authorization), Some(true));
    let (_, answer) = upgrade(server, &head).await;
    answer.lines().next().unwrap().to_owned()
}

/// A request by plain HTTP as libsignal-service-rs writes it, path and body to the byte.
pub(super) async fn plain(server: &Server, line: &str, authorization: &str, body: Option<&str>) -> Answer {
    let mut headers = vec![("authorization", authorization)];
    headers.extend(body.map(|_| ("content-type", "application/json")));
    plain_with(server, line, &headers, body.map(str::as_bytes)).await
}

/// The same with headers of any kind.
pub(super) async fn plain_with(server: &Server, line: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Answer {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let lines: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let length = body.map_or(String::new(), |body| format!("content-length: {}\r\n", body.len()));
    let head = format!(
        "{line} HTTP/1.1\r\n{lines}{length}accept: */*\r\nuser-agent: trace-client\r\nhost: {}\r\n\
         connection: close\r\n\r\n",
        server.address(),
    );
    let request = [head.as_bytes(), body.unwrap_or_default()].concat();
    stream.write_all(&request).await.unwrap();
    let mut answer = Vec::new();
    within("a whole answer", stream.read_to_end(&mut answer)).await.unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = std::str::from_utf8(&answer[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap()[9..12].parse().unwrap();
    let headers = lines.map(|line| line.split_once(": ").unwrap());
    Answer {
        status,
        headers: headers
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect(),
        body: answer[end + 4..].to_vec().into(),
    }
}

/// The size of the frame that carries a request with this body.
pub(super) fn frame_bytes(verb: &str, path: &str, body: &str) -> usize {
    let request = WebSocketRequestMessage {
        verb: Some(verb.to_owned()),
        path: Some(path.to_owned()),
        body: Some(body.to_owned().into()),
        headers: vec!["content-type:application/json".to_owned()],
        id: Some(u64::MAX),
    };
    let message = WebSocketMessage {
        r#type: Some(Type::Request.into()),
        request: Some(request),
        ..WebSocketMessage::default()
    };
    message.encoded_len()
}

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// What RFC 6455 has for that key.
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
