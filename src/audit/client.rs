//! A client as small as can be: one request per connection, and a socket. Bounded in time and size, since what answers may
//! be anything.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Method, Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use keys_schema::proto::web_socket_message::Type;
use keys_schema::proto::{Envelope, WebSocketMessage, WebSocketRequestMessage, WebSocketResponseMessage};
use prost::Message as _;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// A server and how to reach it.
pub(super) struct Client {
    /// Host and port, as the `Host` header has them.
    authority: String,
    host: String,
    port: u16,
    tls: Option<Arc<ClientConfig>>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// An answer.
pub(super) struct Answer {
    /// Its status.
    pub(super) status: u16,
    /// Its body.
    pub(super) body: Bytes,
}

/// What comes through a socket.
pub(super) enum Event {
    /// An envelope. It has been acknowledged.
    Envelope(Box<Envelope>),
    /// There are no more in the queue.
    Empty,
    /// The answer to a request.
    Answer(u32),
}

/// A device's socket.
pub(super) struct Socket {
    stream: WebSocketStream<Box<dyn Stream>>,
}

impl Client {
    /// For `http://HOST:PORT` or `https://HOST:PORT`; the latter trusts the certificates in `ca` and no others.
    pub(super) fn new(url: &str, ca: Option<&Path>) -> Result<Self, String> {
        const FORM: &str = "the URL reads http://HOST:PORT or https://HOST:PORT";
        let uri: Uri = url.parse().map_err(|_| FORM)?;
        let (default, secure) = match uri.scheme_str() {
            Some("http") => (80, false),
            Some("https") => (443, true),
            _ => return Err(FORM.to_owned()),
        };
        let authority = uri.authority().ok_or(FORM)?;
        if authority.as_str().contains('@') || !matches!(uri.path(), "" | "/") {
            return Err(FORM.to_owned());
        }
        let tls = secure.then(|| trusting(ca)).transpose()?;
        Ok(Self {
            authority: authority.as_str().to_owned(),
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(default),
            tls,
        })
    }

    /// Asks, with these credentials.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        authorization: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Answer, String> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.authority)
            .header(header::CONNECTION, "close");
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let bytes = body.map(|body| Bytes::from(body.to_string()));
        if bytes.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(Full::new(bytes.unwrap_or_default()))
            .map_err(|_| "the request cannot be written".to_owned())?;
        let asking = async {
            let stream = TokioIo::new(self.connect().await?);
            let failed = |error: hyper::Error| format!("no answer from {}: {error}", self.authority);
            let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.map_err(failed)?;
            tokio::spawn(connection);
            let response = sender.send_request(request).await.map_err(failed)?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
            let body = body.map_err(|_| format!("no whole answer from {}", self.authority))?;
            Ok(Answer {
                status,
                body: body.to_bytes(),
            })
        };
        self.in_time(asking).await
    }

    /// Opens the socket of a device.
    pub(super) async fn socket(&self, authorization: &str) -> Result<Socket, String> {
        let scheme = if self.tls.is_some() { "wss" } else { "ws" };
        let url = format!("{scheme}://{}/v1/websocket/", self.authority);
        let mut request = url.into_client_request().map_err(|_| "the URL is none of a socket")?;
        let value = authorization.parse().map_err(|_| "the credentials are no header")?;
        request.headers_mut().insert(header::AUTHORIZATION, value);
        let opening = async {
            let stream = self.connect().await?;
            let config = WebSocketConfig::default().max_message_size(Some(MAX_BODY));
            let opened = tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await;
            let (stream, _) = opened.map_err(|error| format!("no socket at {}: {error}", self.authority))?;
            Ok(Socket { stream })
        };
        self.in_time(opening).await
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, String> {
        let failed = |error: std::io::Error| format!("cannot reach {}: {}", self.authority, error.kind());
        let stream = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(failed)?;
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else {
            return Ok(Box::new(stream));
        };
        let name = ServerName::try_from(self.host.clone()).map_err(|_| "the host has no name for TLS")?;
        let connected = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await;
        let stream = connected.map_err(|error| format!("no TLS with {}: {error}", self.authority))?;
        Ok(Box::new(stream))
    }

    async fn in_time<T>(&self, future: impl Future<Output = Result<T, String>>) -> Result<T, String> {
        let late = |_| Err(format!("{} does not answer in time", self.authority));
        timeout(PATIENCE, Box::pin(future)).await.unwrap_or_else(late)
    }
}

impl Socket {
    /// What comes next. An envelope is acknowledged at once.
    pub(super) async fn next(&mut self) -> Result<Event, String> {
        timeout(PATIENCE, self.read())
            .await
            .unwrap_or_else(|_| Err("nothing came through the socket in time".to_owned()))
    }

    /// The next envelope; `None` once the queue is empty.
    pub(super) async fn envelope(&mut self) -> Result<Option<Envelope>, String> {
        loop {
            match self.next().await? {
                Event::Envelope(envelope) => return Ok(Some(*envelope)),
                Event::Empty => return Ok(None),
                Event::Answer(_) => {}
            }
        }
    }

    /// Returns once all that was acknowledged is durable.
    pub(super) async fn settle(&mut self) -> Result<(), String> {
        let request = WebSocketRequestMessage {
            verb: Some("GET".to_owned()),
            path: Some("/v1/keepalive".to_owned()),
            id: Some(1),
            ..WebSocketRequestMessage::default()
        };
        self.write(&WebSocketMessage {
            r#type: Some(Type::Request.into()),
            request: Some(request),
            ..WebSocketMessage::default()
        })
        .await?;
        loop {
            if let Event::Answer(status) = self.next().await? {
                return if status == 200 {
                    Ok(())
                } else {
                    Err(format!("the socket answered {status}"))
                };
            }
        }
    }

    async fn read(&mut self) -> Result<Event, String> {
        const STRANGE: &str = "what came through the socket is not the protocol";
        loop {
            let bytes = match self.stream.next().await {
                Some(Ok(Message::Binary(bytes))) => bytes,
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Err("the socket was closed".to_owned()),
                Some(Ok(_)) => continue,
            };
            let message = WebSocketMessage::decode(bytes).map_err(|_| STRANGE)?;
            if let Some(response) = message.response {
                return Ok(Event::Answer(response.status.unwrap_or(0)));
            }
            let request = message.request.ok_or(STRANGE)?;
            let response = WebSocketResponseMessage {
                id: request.id,
                status: Some(200),
                message: Some("OK".to_owned()),
                ..WebSocketResponseMessage::default()
            };
            self.write(&WebSocketMessage {
                r#type: Some(Type::Response.into()),
                response: Some(response),
                ..WebSocketMessage::default()
            })
            .await?;
            match request.path.as_deref() {
                Some("/api/v1/message") => {
                    let envelope = Envelope::decode(request.body.unwrap_or_default()).map_err(|_| STRANGE)?;
                    return Ok(Event::Envelope(Box::new(envelope)));
                }
                Some("/api/v1/queue/empty") => return Ok(Event::Empty),
                _ => {}
            }
        }
    }

    async fn write(&mut self, message: &WebSocketMessage) -> Result<(), String> {
        let sent = self.stream.send(Message::Binary(message.encode_to_vec().into())).await;
        sent.map_err(|_| "the socket was closed".to_owned())
    }
}

fn trusting(ca: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let path = ca.ok_or("name the authority of the server's certificate with --ca FILE")?;
    let failed = |_| format!("{} holds no certificate in PEM", path.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(failed)? {
        let added = certificate.map(|certificate| roots.add(certificate)).map_err(failed)?;
        added.map_err(|_| format!("{} holds a certificate that cannot be trusted", path.display()))?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|_| "TLS cannot be used".to_owned())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// A page of metrics is some ten thousand bytes.
const MAX_BODY: usize = 4 * 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_server_and_nothing_else() {
        for (url, host, port) in [
            ("http://127.0.0.1:8080", "127.0.0.1", 8080),
            ("http://relay.example.org/", "relay.example.org", 80),
            ("http://[::1]:9090", "::1", 9090),
        ] {
            let client = Client::new(url, None).ok().unwrap();
            assert_eq!((client.host.as_str(), client.port), (host, port));
        }
        for url in [
            "",
            "127.0.0.1:8080",
            "ftp://h",
            "http://u:p@h",
            "http://h/path",
            "https://h",
        ] {
            assert!(Client::new(url, None).is_err(), "{url}");
        }
    }
}
