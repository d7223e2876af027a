//! A client's WebSocket: binary frames with one protobuf message each.

use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use keys_schema::proto::web_socket_message::Type;
use keys_schema::proto::{Envelope, WebSocketMessage, WebSocketRequestMessage, WebSocketResponseMessage};
use prost::Message as _;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::ciphertext::marker;
use super::{Answer, Server, within};

/// What came from the server.
#[derive(Debug)]
pub(crate) enum Event {
    /// An envelope, to be answered under this id.
    Envelope(u64, Box<Envelope>),
    /// The end of the backlog.
    Empty,
    /// The answer to the request of this id.
    Answer(u64, Answer),
    /// The end, with the server's close code if it gave one.
    Closed(Option<u16>),
}

/// What a socket runs over.
pub(crate) trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// One open socket.
pub(crate) struct Socket {
    stream: WebSocketStream<Box<dyn ByteStream>>,
    waiting: VecDeque<Event>,
    notices: VecDeque<(u64, Value)>,
    next_id: u64,
}

impl Socket {
    /// Opens a socket, or says with which status the upgrade was refused.
    pub(crate) async fn open(
        server: &Server,
        authorization: Option<&str>,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, u16> {
        Self::open_at(server.address(), authorization, headers).await
    }

    /// As [`Self::open`], at an address that need not be the server's own.
    pub(crate) async fn open_at(
        address: &str,
        authorization: Option<&str>,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, u16> {
        let authorization = authorization.map(|value| ("authorization", value));
        let headers: Vec<_> = headers.iter().copied().chain(authorization).collect();
        try_open_at(address, "/v1/websocket/", &headers).await
    }

    /// A socket that is open already.
    pub(crate) fn over(stream: WebSocketStream<Box<dyn ByteStream>>) -> Self {
        Self {
            stream,
            waiting: VecDeque::new(),
            notices: VecDeque::new(),
            next_id: 0,
        }
    }

    /// What comes next.
    pub(crate) async fn next(&mut self) -> Event {
        if let Some(event) = self.waiting.pop_front() {
            return event;
        }
        self.read().await
    }

    async fn read(&mut self) -> Event {
        // Around all of it: pings are no event, and a connection that only pings must not be waited for for ever.
        within("an event", async {
            loop {
                return match self.stream.next().await {
                    Some(Ok(Message::Binary(bytes))) => match event(bytes) {
                        Incoming::Event(event) => event,
                        Incoming::Notice(id, notice) => {
                            self.notices.push_back((id, notice));
                            continue;
                        }
                    },
                    Some(Ok(Message::Close(frame))) => {
                        // The goodbye of this side leaves with the next read.
                        let _ = self.stream.next().await;
                        Event::Closed(frame.map(|frame| frame.code.into()))
                    }
                    Some(Ok(_)) => continue,
                    None | Some(Err(_)) => Event::Closed(None),
                };
            }
        })
        .await
    }

    /// What the server itself has said since this was asked last, with the ids to answer under. As in clients that know
    /// nothing of notices, they are in nobody's way.
    pub(crate) fn notices(&mut self) -> Vec<(u64, Value)> {
        self.notices.drain(..).collect()
    }

    /// The next notice, when it comes.
    pub(crate) async fn notice(&mut self) -> (u64, Value) {
        loop {
            if let Some(notice) = self.notices.pop_front() {
                return notice;
            }
            // The answer says that what was pushed before it has been read.
            self.keepalive().await;
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// The next envelope, with the id to answer it under. Fails if anything else comes first.
    pub(crate) async fn envelope(&mut self) -> (u64, Envelope) {
        match self.next().await {
            Event::Envelope(id, envelope) => (id, *envelope),
            other => panic!("an envelope was due, not {other:?}"),
        }
    }

    /// The marker in the content of the next envelope, acknowledged.
    pub(crate) async fn content(&mut self) -> Bytes {
        let (id, envelope) = self.envelope().await;
        self.answer(id, 200).await;
        marker(&envelope)
    }

    /// Fails unless the end of the backlog comes next.
    pub(crate) async fn expect_empty(&mut self) {
        let event = self.next().await;
        assert!(
            matches!(event, Event::Empty),
            "the end of the queue was due, not {event:?}"
        );
    }

    /// Reads and acknowledges everything up to the end of the backlog; the markers.
    pub(crate) async fn drain(&mut self) -> Vec<Bytes> {
        let mut contents = Vec::new();
        loop {
            match self.next().await {
                Event::Envelope(id, envelope) => {
                    self.answer(id, 200).await;
                    contents.push(marker(&envelope));
                }
                Event::Empty => return contents,
                other => panic!("an envelope was due, not {other:?}"),
            }
        }
    }

    /// The close code, once the server has closed. Whatever comes before is dropped.
    pub(crate) async fn close_code(&mut self) -> Option<u16> {
        loop {
            if let Event::Closed(code) = self.next().await {
                return code;
            }
        }
    }

    /// Answers a request of the server.
    pub(crate) async fn answer(&mut self, id: u64, status: u32) {
        let response = WebSocketResponseMessage {
            id: Some(id),
            status: Some(status),
            message: Some("OK".to_owned()),
            ..WebSocketResponseMessage::default()
        };
        self.write(&WebSocketMessage {
            r#type: Some(Type::Response.into()),
            response: Some(response),
            ..WebSocketMessage::default()
        })
        .await;
    }

    /// Asks, and waits for the answer; whatever comes before it is kept for [`Self::next`].
    pub(crate) async fn ask(&mut self, verb: &str, path: &str, headers: &[&str], body: Option<&Value>) -> Answer {
        let id = self.next_id;
        self.next_id += 1;
        self.ask_as(
            Some(id),
            verb,
            path,
            headers,
            body.map(|body| serde_json::to_vec(body).unwrap().into()),
        )
        .await;
        self.answer_to(id).await
    }

    /// Waits for the answer to that request; whatever comes before it is kept for [`Self::next`].
    pub(crate) async fn answer_to(&mut self, id: u64) -> Answer {
        loop {
            match self.read().await {
                Event::Answer(answered, answer) if answered == id => return answer,
                Event::Closed(code) => panic!("closed with {code:?} before the answer"),
                other => self.waiting.push_back(other),
            }
        }
    }

    /// Sends a request under an id of the caller's choice, or without one.
    pub(crate) async fn ask_as(
        &mut self,
        id: Option<u64>,
        verb: &str,
        path: &str,
        headers: &[&str],
        body: Option<Bytes>,
    ) {
        let request = WebSocketRequestMessage {
            verb: Some(verb.to_owned()),
            path: Some(path.to_owned()),
            body,
            headers: headers.iter().map(|header| (*header).to_owned()).collect(),
            id,
        };
        self.write(&WebSocketMessage {
            r#type: Some(Type::Request.into()),
            request: Some(request),
            ..WebSocketMessage::default()
        })
        .await;
    }

    /// Returns once everything this socket has acknowledged is durable.
    pub(crate) async fn keepalive(&mut self) {
        self.ask("GET", "/v1/keepalive", &[], None).await.expect(200);
    }

    /// Sends a raw message.
    pub(crate) async fn raw(&mut self, message: Message) {
        // The server may be gone by now; the next read tells.
        let _ = within("a write", self.stream.send(message)).await;
    }

    async fn write(&mut self, message: &WebSocketMessage) {
        self.raw(Message::Binary(message.encode_to_vec().into())).await;
    }
}

/// Opens a socket at any path, or says with which status the upgrade was refused.
pub(crate) async fn try_open_at(address: &str, path: &str, headers: &[(&'static str, &str)]) -> Result<Socket, u16> {
    let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    let stream: Box<dyn ByteStream> = Box::new(TcpStream::connect(address).await.unwrap());
    match within("an upgrade", tokio_tungstenite::client_async(request, stream)).await {
        Ok((stream, _)) => Ok(Socket::over(stream)),
        Err(Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("the upgrade failed: {error}"),
    }
}

/// A frame of the server.
enum Incoming {
    Event(Event),
    Notice(u64, Value),
}

fn event(bytes: Bytes) -> Incoming {
    let message = WebSocketMessage::decode(bytes).unwrap();
    if let Some(request) = message.request {
        assert_eq!(message.r#type, Some(Type::Request.into()));
        assert_eq!(request.verb.as_deref(), Some("PUT"));
        assert!(
            request
                .headers
                .iter()
                .any(|header| header.starts_with("X-Signal-Timestamp:"))
        );
        if request.path.as_deref() == Some("/api/v1/notice") {
            assert!(request.headers.contains(&"Content-Type:application/json".to_owned()));
            return Incoming::Notice(
                request.id.unwrap(),
                serde_json::from_slice(&request.body.unwrap()).unwrap(),
            );
        }
        return Incoming::Event(match request.path.as_deref() {
            Some("/api/v1/message") => Event::Envelope(
                request.id.unwrap(),
                Box::new(Envelope::decode(request.body.unwrap()).unwrap()),
            ),
            Some("/api/v1/queue/empty") => Event::Empty,
            other => panic!("a request that no client knows: {other:?}"),
        });
    }
    let response = message.response.unwrap();
    let headers = response.headers.iter().map(|header| header.split_once(':').unwrap());
    Incoming::Event(Event::Answer(
        response.id.unwrap(),
        Answer {
            status: response.status.unwrap().try_into().unwrap(),
            headers: headers
                .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
                .collect(),
            body: response.body.unwrap_or_default(),
        },
    ))
}
