//! A device that waits to be linked.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use keys_schema::proto::web_socket_message::Type;
use keys_schema::proto::{ProvisioningAddress, WebSocketMessage, WebSocketRequestMessage, WebSocketResponseMessage};
use prost::Message as _;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::keys::base64;
use super::socket::ByteStream;
use super::{Answer, Person, Server, ask, within};

/// Its socket, and the address that it was told.
pub(crate) struct NewDevice {
    stream: WebSocketStream<Box<dyn ByteStream>>,
    pub(crate) address: String,
}

impl NewDevice {
    /// Opens the socket and answers the push of the address, or says with which status it was refused.
    pub(crate) async fn wait_on(server: &Server) -> Result<Self, u16> {
        let url = format!("ws://{}/v1/websocket/provisioning/", server.address());
        let stream: Box<dyn ByteStream> = Box::new(TcpStream::connect(server.address()).await.unwrap());
        let request = url.into_client_request().unwrap();
        match within("an upgrade", tokio_tungstenite::client_async(request, stream)).await {
            Ok((stream, _)) => Ok(Self::over(stream).await),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("the upgrade failed: {error}"),
        }
    }

    /// As [`Self::wait_on`], on a socket that is open already.
    pub(crate) async fn over(stream: WebSocketStream<Box<dyn ByteStream>>) -> Self {
        let mut device = Self {
            stream,
            address: String::new(),
        };
        let (id, address) = device.pushed("/v1/address").await;
        device.address = ProvisioningAddress::decode(address).unwrap().address.unwrap();
        device.answer(id).await;
        device
    }

    /// The message, not answered yet, and the number to answer it under.
    pub(crate) async fn message(&mut self) -> (u64, Bytes) {
        self.pushed("/v1/message").await
    }

    async fn pushed(&mut self, path: &str) -> (u64, Bytes) {
        let request = match self.next().await {
            Ok(message) => message.request.unwrap(),
            Err(code) => panic!("closed with {code:?} before {path}"),
        };
        assert_eq!(request.verb.as_deref(), Some("PUT"));
        assert_eq!(request.path.as_deref(), Some(path));
        assert!(request.headers[0].starts_with("X-Signal-Timestamp:"));
        (request.id.unwrap(), request.body.unwrap())
    }

    /// Answers a push.
    pub(crate) async fn answer(&mut self, id: u64) {
        let response = WebSocketResponseMessage {
            id: Some(id),
            status: Some(200),
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

    /// Asks, and gives the answer's status. Nothing may come before it.
    pub(crate) async fn ask(&mut self, verb: &str, path: &str) -> u32 {
        let request = WebSocketRequestMessage {
            verb: Some(verb.to_owned()),
            path: Some(path.to_owned()),
            id: Some(u64::MAX),
            ..WebSocketRequestMessage::default()
        };
        self.write(&WebSocketMessage {
            r#type: Some(Type::Request.into()),
            request: Some(request),
            ..WebSocketMessage::default()
        })
        .await;
        let message = self.next().await.unwrap();
        let response = message.response.unwrap();
        assert_eq!(response.id, Some(u64::MAX));
        response.status.unwrap()
    }

    /// Sends a raw message.
    pub(crate) async fn raw(&mut self, message: Message) {
        // The server may be gone by now; the next read tells.
        let _ = within("a write", self.stream.send(message)).await;
    }

    /// Code and reason of the server's close. Nothing else may come before it.
    pub(crate) async fn closed(&mut self) -> Option<(u16, String)> {
        match self.next().await {
            Err(close) => close,
            Ok(_) => panic!("a push or an answer came before the end"),
        }
    }

    async fn next(&mut self) -> Result<WebSocketMessage, Option<(u16, String)>> {
        within("a frame for a new device", async {
            loop {
                return match self.stream.next().await {
                    Some(Ok(Message::Binary(bytes))) => Ok(WebSocketMessage::decode(bytes).unwrap()),
                    Some(Ok(Message::Close(frame))) => {
                        // The goodbye of this side leaves with the next read.
                        let _ = self.stream.next().await;
                        Err(frame.map(|frame| (frame.code.into(), frame.reason.to_string())))
                    }
                    Some(Ok(_)) => continue,
                    None | Some(Err(_)) => Err(None),
                };
            }
        })
        .await
    }

    async fn write(&mut self, message: &WebSocketMessage) {
        self.raw(Message::Binary(message.encode_to_vec().into())).await;
    }
}

/// A device of the account sends its message to that address.
pub(crate) async fn hand_over(server: &Server, from: &Person, address: &str, message: &[u8]) -> Answer {
    let request = from.request(server, "PUT", &format!("/v1/provisioning/{address}"));
    ask(request.json(&json!({ "body": base64(message) }))).await
}
