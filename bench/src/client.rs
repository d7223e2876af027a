//! A client's end of a WebSocket, as thin as can be: what is measured is the server.

use std::net::Ipv4Addr;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use keys_schema::proto::{
    WebSocketMessage, WebSocketRequestMessage, WebSocketResponseMessage, web_socket_message::Type,
};
use prost::Message as _;
use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// One WebSocket.
pub(crate) struct Socket {
    stream: WebSocketStream<TcpStream>,
    next_id: u64,
}

/// What the server sent.
pub(crate) enum Received {
    /// The answer to a request of ours.
    Answer {
        /// HTTP status.
        status: u32,
        /// Body.
        body: Bytes,
    },
    /// An envelope, which wants to be acknowledged under this id.
    Envelope(u64),
    /// The queue is empty.
    QueueEmpty,
}

impl Socket {
    /// Opens a socket, for a device if there is an authorization.
    pub(crate) async fn open(address: &str, authorization: Option<&str>) -> anyhow::Result<Self> {
        Self::open_from(address, None, authorization).await
    }

    /// As [`Self::open`], from an address of this machine.
    pub(crate) async fn open_from(
        address: &str,
        from: Option<Ipv4Addr>,
        authorization: Option<&str>,
    ) -> anyhow::Result<Self> {
        Self::open_path(address, from, "/v1/websocket/", authorization, 4096).await
    }

    /// As [`Self::open_from`], at a path and with a read buffer of so many bytes.
    pub(crate) async fn open_path(
        address: &str,
        from: Option<Ipv4Addr>,
        path: &str,
        authorization: Option<&str>,
        read_buffer: usize,
    ) -> anyhow::Result<Self> {
        let mut request = format!("ws://{address}{path}").into_client_request()?;
        if let Some(authorization) = authorization {
            request.headers_mut().insert("authorization", authorization.parse()?);
        }
        let tcp = match from {
            None => TcpStream::connect(address).await?,
            Some(from) => {
                let socket = TcpSocket::new_v4()?;
                socket.bind((from, 0).into())?;
                socket.connect(address.parse()?).await?
            }
        };
        tcp.set_nodelay(true)?;
        let config = WebSocketConfig::default().read_buffer_size(read_buffer);
        let (stream, _) = tokio_tungstenite::client_async_with_config(request, tcp, Some(config)).await?;
        Ok(Self { stream, next_id: 0 })
    }

    /// Without the protocol on it.
    pub(crate) fn into_stream(self) -> WebSocketStream<TcpStream> {
        self.stream
    }

    /// Sends a JSON request and waits for its answer, which must be a success.
    pub(crate) async fn json(
        &mut self,
        verb: &str,
        path: &str,
        body: &Value,
        authorization: Option<&str>,
    ) -> anyhow::Result<Value> {
        self.feed_request(verb, path, serde_json::to_vec(body)?.into(), authorization)
            .await?;
        self.flush().await?;
        match self.next().await? {
            Received::Answer { status: 200, body } => Ok(serde_json::from_slice(&body)?),
            Received::Answer { status, body } => {
                bail!("{verb} answered {status}: {}", String::from_utf8_lossy(&body))
            }
            _ => bail!("an answer was expected"),
        }
    }

    /// Queues a request; [`Self::flush`] sends it.
    pub(crate) async fn feed_request(
        &mut self,
        verb: &str,
        path: &str,
        body: Bytes,
        authorization: Option<&str>,
    ) -> anyhow::Result<()> {
        let authorization = authorization.map(|authorization| format!("authorization:{authorization}"));
        self.feed_with(verb, path, body, authorization.as_slice()).await
    }

    /// As [`Self::feed_request`], with these headers.
    pub(crate) async fn feed_with(
        &mut self,
        verb: &str,
        path: &str,
        body: Bytes,
        headers: &[String],
    ) -> anyhow::Result<()> {
        let mut all = vec!["content-type:application/json".to_owned()];
        all.extend_from_slice(headers);
        let request = WebSocketRequestMessage {
            verb: Some(verb.to_owned()),
            path: Some(path.to_owned()),
            body: Some(body),
            id: Some(self.next_id),
            headers: all,
        };
        self.next_id += 1;
        self.feed(WebSocketMessage {
            r#type: Some(Type::Request.into()),
            request: Some(request),
            ..WebSocketMessage::default()
        })
        .await
    }

    /// Queues the acknowledgement of an envelope.
    pub(crate) async fn feed_acknowledgement(&mut self, id: u64) -> anyhow::Result<()> {
        let response = WebSocketResponseMessage {
            id: Some(id),
            status: Some(200),
            message: Some("OK".to_owned()),
            ..WebSocketResponseMessage::default()
        };
        self.feed(WebSocketMessage {
            r#type: Some(Type::Response.into()),
            response: Some(response),
            ..WebSocketMessage::default()
        })
        .await
    }

    /// Sends what was queued.
    pub(crate) async fn flush(&mut self) -> anyhow::Result<()> {
        Ok(self.stream.flush().await?)
    }

    /// Takes whatever is queued, until the server says that the queue is empty.
    pub(crate) async fn drain(&mut self) -> anyhow::Result<()> {
        while let Received::Envelope(id) = self.next().await? {
            self.feed_acknowledgement(id).await?;
            self.flush().await?;
        }
        Ok(())
    }

    /// The next thing from the server.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Received> {
        loop {
            match self.stream.next().await.context("the server closed the socket")?? {
                Message::Binary(bytes) => {
                    if let Some(received) = received(bytes)? {
                        return Ok(received);
                    }
                }
                Message::Close(frame) => bail!("the server closed the socket: {frame:?}"),
                _ => {}
            }
        }
    }

    async fn feed(&mut self, message: WebSocketMessage) -> anyhow::Result<()> {
        Ok(self
            .stream
            .feed(Message::Binary(message.encode_to_vec().into()))
            .await?)
    }
}

/// `None` for what the server itself says.
fn received(bytes: Bytes) -> anyhow::Result<Option<Received>> {
    let message = WebSocketMessage::decode(bytes)?;
    if let Some(response) = message.response {
        let status = response.status.context("an answer has a status")?;
        return Ok(Some(Received::Answer {
            status,
            body: response.body.unwrap_or_default(),
        }));
    }
    let request = message.request.context("a message is a request or an answer")?;
    let id = request.id.context("a push has an id")?;
    match request.path.as_deref() {
        Some("/api/v1/message") => Ok(Some(Received::Envelope(id))),
        Some("/api/v1/notice") => Ok(None),
        path => {
            ensure!(path == Some("/api/v1/queue/empty"), "an unknown push");
            Ok(Some(Received::QueueEmpty))
        }
    }
}
