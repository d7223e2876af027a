//! A client's end of a WebSocket for loads: frames go out as they are, and of what comes only what is needed is read.

use std::net::Ipv4Addr;

use anyhow::{Context, bail};
use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt};
use prost::Message as _;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::client::Socket;
use crate::frames::Stamp;

/// One WebSocket.
pub(crate) struct Lean {
    stream: WebSocketStream<TcpStream>,
    speech: Speech,
}

/// What the other end speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Speech {
    /// The server's protocol.
    Relay,
    /// Stamps in the first eight bytes; everything that comes is an answer.
    BareAnswers,
    /// The same; everything that comes is a message.
    BareMessages,
}

/// What the server sent.
pub(crate) enum Came {
    /// The answer to the request with this stamp.
    Answer {
        /// When it was sent.
        sent: Stamp,
        /// HTTP status.
        status: u32,
        /// Body.
        body: Bytes,
    },
    /// An envelope, which wants to be acknowledged under this id.
    Envelope {
        /// Its number in this connection.
        id: u64,
        /// When it was sent.
        sent: Stamp,
    },
    /// The queue is empty.
    QueueEmpty,
}

impl Lean {
    /// Opens a socket with room for many frames at once, for a device if there is an authorization.
    pub(crate) async fn open(address: &str, authorization: Option<&str>) -> anyhow::Result<Self> {
        Self::open_with(address, None, authorization, BUSY).await
    }

    /// Opens a socket that mostly waits, from an address of this machine.
    pub(crate) async fn open_quiet(address: &str, from: Ipv4Addr, authorization: &str) -> anyhow::Result<Self> {
        Self::open_with(address, Some(from), Some(authorization), QUIET).await
    }

    async fn open_with(
        address: &str,
        from: Option<Ipv4Addr>,
        authorization: Option<&str>,
        read_buffer: usize,
    ) -> anyhow::Result<Self> {
        let socket = Socket::open_path(address, from, "/v1/websocket/", authorization, read_buffer).await?;
        Ok(Self {
            stream: socket.into_stream(),
            speech: Speech::Relay,
        })
    }

    /// Opens a socket of the bare relay, for the sender or the receiver of a pair.
    pub(crate) async fn open_bare(address: &str, sends: bool, pair: usize) -> anyhow::Result<Self> {
        let role = if sends { "send" } else { "receive" };
        let socket = Socket::open_path(address, None, &format!("/{role}/{pair}"), None, BUSY).await?;
        Ok(Self {
            stream: socket.into_stream(),
            speech: if sends {
                Speech::BareAnswers
            } else {
                Speech::BareMessages
            },
        })
    }

    /// Opens a socket of the bare relay that only waits.
    pub(crate) async fn open_idle(address: &str, from: Ipv4Addr) -> anyhow::Result<Self> {
        let socket = Socket::open_path(address, Some(from), "/idle", None, QUIET).await?;
        Ok(Self {
            stream: socket.into_stream(),
            speech: Speech::BareMessages,
        })
    }

    /// Queues a frame; [`Self::flush`] sends it.
    pub(crate) async fn feed(&mut self, frame: Bytes) -> anyhow::Result<()> {
        Ok(self.stream.feed(Message::Binary(frame)).await?)
    }

    /// Queues the acknowledgement of an envelope.
    pub(crate) async fn feed_acknowledgement(&mut self, id: u64) -> anyhow::Result<()> {
        let acknowledgement = Acknowledging {
            r#type: RESPONSE,
            response: Some(Acknowledgement {
                id,
                status: 200,
                message: Bytes::from_static(b"OK"),
            }),
        };
        self.feed(acknowledgement.encode_to_vec().into()).await
    }

    /// Sends what was queued.
    pub(crate) async fn flush(&mut self) -> anyhow::Result<()> {
        Ok(self.stream.flush().await?)
    }

    /// The next thing from the server.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Came> {
        loop {
            let message = self.stream.next().await.context("the server closed the socket")??;
            if let Some(came) = self.read(message)? {
                return Ok(came);
            }
        }
    }

    /// The next thing, if it is there.
    pub(crate) fn next_ready(&mut self) -> anyhow::Result<Option<Came>> {
        while let Some(message) = self.stream.next().now_or_never() {
            if let Some(came) = self.read(message.context("the server closed the socket")??)? {
                return Ok(Some(came));
            }
        }
        Ok(None)
    }

    /// Takes and acknowledges whatever is queued, until the server says that the queue is empty. How many envelopes came.
    pub(crate) async fn drain(&mut self) -> anyhow::Result<u64> {
        let mut count = 0;
        let mut came = Some(self.next().await?);
        loop {
            match came {
                Some(Came::Envelope { id, .. }) => {
                    self.feed_acknowledgement(id).await?;
                    count += 1;
                }
                Some(Came::QueueEmpty) => {
                    self.flush().await?;
                    return Ok(count);
                }
                Some(Came::Answer { .. }) => bail!("an answer without a request"),
                None => {
                    self.flush().await?;
                    came = Some(self.next().await?);
                    continue;
                }
            }
            came = self.next_ready()?;
        }
    }

    /// `None` for what needs no attention.
    fn read(&self, message: Message) -> anyhow::Result<Option<Came>> {
        match (message, self.speech) {
            (Message::Binary(bytes), Speech::Relay) => relayed(bytes),
            (Message::Binary(bytes), speech) => bare(&bytes, speech).map(Some),
            (Message::Close(frame), _) => bail!("the server closed the socket: {frame:?}"),
            _ => Ok(None),
        }
    }
}

fn relayed(bytes: Bytes) -> anyhow::Result<Option<Came>> {
    let incoming = Incoming::decode(bytes)?;
    if let Some(answer) = incoming.response {
        return Ok(Some(Came::Answer {
            sent: Stamp(answer.id),
            status: answer.status,
            body: answer.body,
        }));
    }
    let push = incoming.request.context("a message is a request or an answer")?;
    match &*push.path {
        b"/api/v1/message" => {
            let stamp = Timestamp::decode(push.body)?;
            Ok(Some(Came::Envelope {
                id: push.id,
                sent: Stamp(stamp.timestamp),
            }))
        }
        b"/api/v1/queue/empty" => Ok(Some(Came::QueueEmpty)),
        _ => Ok(None),
    }
}

fn bare(bytes: &[u8], speech: Speech) -> anyhow::Result<Came> {
    let stamp = bytes.first_chunk().context("a bare frame has a stamp")?;
    let sent = Stamp(u64::from_le_bytes(*stamp));
    Ok(match speech {
        Speech::BareMessages => Came::Envelope { id: sent.0, sent },
        _ => Came::Answer {
            sent,
            status: 200,
            body: Bytes::new(),
        },
    })
}

/// `WebSocketMessage`, as far as it matters here.
#[derive(prost::Message)]
struct Incoming {
    #[prost(message, optional, tag = "2")]
    request: Option<Push>,
    #[prost(message, optional, tag = "3")]
    response: Option<Answer>,
}

#[derive(prost::Message)]
struct Push {
    #[prost(bytes = "bytes", tag = "2")]
    path: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    body: Bytes,
    #[prost(uint64, tag = "4")]
    id: u64,
}

#[derive(prost::Message)]
struct Answer {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint32, tag = "2")]
    status: u32,
    #[prost(bytes = "bytes", tag = "4")]
    body: Bytes,
}

#[derive(prost::Message)]
struct Acknowledging {
    #[prost(uint32, tag = "1")]
    r#type: u32,
    #[prost(message, optional, tag = "3")]
    response: Option<Acknowledgement>,
}

#[derive(prost::Message)]
struct Acknowledgement {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint32, tag = "2")]
    status: u32,
    #[prost(bytes = "bytes", tag = "3")]
    message: Bytes,
}

/// `Envelope`, as far as it matters here.
#[derive(prost::Message)]
struct Timestamp {
    #[prost(uint64, tag = "5")]
    timestamp: u64,
}

const RESPONSE: u32 = 2;
/// Read buffers.
const BUSY: usize = 32 * 1024;
const QUIET: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use keys_schema::proto::{
        Envelope, WebSocketMessage, WebSocketRequestMessage, WebSocketResponseMessage, web_socket_message::Type,
    };

    use super::*;

    #[test]
    fn a_push_is_read_as_the_server_writes_it() {
        let envelope = Envelope {
            timestamp: Some(1_000_000_000_000_005),
            content: Some(Bytes::from_static(&[1; 300])),
            ..Envelope::default()
        };
        let push = WebSocketMessage {
            r#type: Some(Type::Request.into()),
            request: Some(WebSocketRequestMessage {
                verb: Some("PUT".to_owned()),
                path: Some("/api/v1/message".to_owned()),
                body: Some(envelope.encode_to_vec().into()),
                id: Some(9),
                headers: vec!["X-Signal-Key: false".to_owned()],
            }),
            ..WebSocketMessage::default()
        };
        let came = relayed(push.encode_to_vec().into()).unwrap();
        assert!(matches!(
            came,
            Some(Came::Envelope {
                id: 9,
                sent: Stamp(1_000_000_000_000_005)
            })
        ));
    }

    #[test]
    fn an_acknowledgement_is_what_the_schema_says() {
        let ours = Acknowledging {
            r#type: RESPONSE,
            response: Some(Acknowledgement {
                id: 5,
                status: 200,
                message: Bytes::from_static(b"OK"),
            }),
        };
        let schema = WebSocketMessage {
            r#type: Some(Type::Response.into()),
            response: Some(WebSocketResponseMessage {
                id: Some(5),
                status: Some(200),
                message: Some("OK".to_owned()),
                ..WebSocketResponseMessage::default()
            }),
            ..WebSocketMessage::default()
        };
        assert_eq!(ours.encode_to_vec(), schema.encode_to_vec());
    }
}
