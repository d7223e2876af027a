//! A client that speaks HTTP/2, with and without TLS, and opens WebSockets as streams of its connection (RFC 8441).

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::ext::Protocol;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::socket::ByteStream;
use super::{Answer, Server, Socket, within};

/// One connection.
pub(crate) struct Http2 {
    send: SendRequest<Full<Bytes>>,
    running: JoinHandle<hyper::Result<()>>,
}

impl Http2 {
    /// Without TLS: the client knows what the server speaks.
    pub(crate) async fn connect(server: &Server) -> Self {
        Self::connect_with(server, &Builder::new(TokioExecutor::new())).await
    }

    /// As [`Self::connect`], with settings of the client's own.
    pub(crate) async fn connect_with(server: &Server, builder: &Builder<TokioExecutor>) -> Self {
        let stream = TcpStream::connect(server.address()).await.unwrap();
        Self::over(stream, builder).await
    }

    /// With TLS, where the protocol is agreed on by ALPN.
    pub(crate) async fn connect_tls(server: &Server, ca: &Path) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let stream = TcpStream::connect(server.address()).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let stream = connector
            .connect("localhost".try_into().unwrap(), stream)
            .await
            .unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        Self::over(stream, &Builder::new(TokioExecutor::new())).await
    }

    async fn over(stream: impl ByteStream + 'static, builder: &Builder<TokioExecutor>) -> Self {
        let (send, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
        let running = tokio::spawn(connection);
        let client = Self { send, running };
        // Only the server's settings allow what is asked for later, and they come before its first answer.
        client.ask("GET", "/v1/keepalive", &[], "").await.expect(200);
        client
    }

    /// A plain request.
    pub(crate) async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let request = request(method.parse().unwrap(), path, headers, body);
        read(self.send(request).await).await
    }

    /// A WebSocket on this connection, or how it was refused.
    pub(crate) async fn socket(&self, authorization: Option<&str>) -> Result<Socket, Answer> {
        let headers: Vec<_> = authorization.iter().map(|value| ("authorization", *value)).collect();
        let stream = self.connect_stream("/v1/websocket/", "websocket", &headers).await;
        stream.map(Socket::over)
    }

    /// An extended CONNECT.
    pub(crate) async fn connect_stream(
        &self,
        path: &str,
        protocol: &'static str,
        headers: &[(&str, &str)],
    ) -> Result<WebSocketStream<Box<dyn ByteStream>>, Answer> {
        let mut request = request(Method::CONNECT, path, headers, "");
        request.extensions_mut().insert(Protocol::from_static(protocol));
        let mut response = self.send(request).await;
        if response.status() != 200 {
            return Err(read(response).await);
        }
        assert!(!response.headers().contains_key("sec-websocket-accept"), "{response:?}");
        assert!(response.headers().contains_key("x-signal-timestamp"), "{response:?}");
        let upgraded = hyper::upgrade::on(&mut response).await.unwrap();
        let stream: Box<dyn ByteStream> = Box::new(TokioIo::new(upgraded));
        Ok(WebSocketStream::from_raw_socket(stream, Role::Client, None).await)
    }

    /// Returns when the server has ended the connection, and it ended well.
    pub(crate) async fn ended(self) {
        drop(self.send);
        within("the connection's end", self.running).await.unwrap().unwrap();
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let mut send = self.send.clone();
        within("an answer over HTTP/2", async {
            send.send_request(request).await.unwrap()
        })
        .await
    }
}

fn request(method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(format!("http://relay{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::from(body.to_owned())).unwrap()
}

async fn read(response: Response<Incoming>) -> Answer {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = response.headers().iter();
    Answer {
        status: response.status().as_u16(),
        headers: headers
            .map(|(name, value)| (name.as_str().to_owned(), text(value)))
            .collect(),
        body: within("a body over HTTP/2", response.into_body().collect())
            .await
            .unwrap()
            .to_bytes(),
    }
}
