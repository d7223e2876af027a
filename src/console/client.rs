//! One request, one connection.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::admin::wire::ErrorOut;

/// Whom to ask.
pub(super) struct Client {
    socket: Option<PathBuf>,
}

/// What was answered.
pub(super) struct Answer {
    status: StatusCode,
    body: Bytes,
}

impl Client {
    /// A server at this socket.
    pub(super) fn new(socket: Option<&Path>) -> Self {
        Self {
            socket: socket.map(Path::to_owned),
        }
    }

    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.ask(Method::GET, path, None).await
    }

    pub(super) async fn put(&self, path: &str) -> anyhow::Result<Answer> {
        self.ask(Method::PUT, path, None).await
    }

    pub(super) async fn post(&self, path: &str, body: Option<Vec<u8>>) -> anyhow::Result<Answer> {
        self.ask(Method::POST, path, body).await
    }

    pub(super) async fn delete(&self, path: &str) -> anyhow::Result<Answer> {
        self.ask(Method::DELETE, path, None).await
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> anyhow::Result<Answer> {
        tokio::time::timeout(PATIENCE, self.exchange(method, path, body))
            .await
            .map_err(|_| {
                anyhow!(
                    "the server did not answer in {} seconds; see its log",
                    PATIENCE.as_secs()
                )
            })?
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> anyhow::Result<Answer> {
        let stream = self.connect().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.context(BROKE_OFF)?;
        // Ends with the answer: there is one request to a connection.
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let request = request.body(Full::new(Bytes::from(body.unwrap_or_default())))?;
        let response = sender.send_request(request).await.context(BROKE_OFF)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|_| anyhow!("the answer broke off, or is larger than any answer is"))?;
        Ok(Answer {
            status,
            body: body.to_bytes(),
        })
    }

    async fn connect(&self) -> anyhow::Result<UnixStream> {
        let Some(path) = &self.socket else {
            bail!(
                "admin_socket is \"off\" in these settings: a server with them takes no orders; remove that, and restart it"
            );
        };
        let shown = path.display();
        let stream = UnixStream::connect(path).await.map_err(|error| match error.kind() {
            ErrorKind::NotFound => anyhow!(
                "there is no {shown}: no server runs with these settings; give the data directory (--data-dir) or the \
                 configuration (--config) of the one that runs, or start it"
            ),
            ErrorKind::ConnectionRefused => {
                anyhow!("no server answers at {shown}: the one that made it has ended; start it again")
            }
            ErrorKind::PermissionDenied => {
                anyhow!(
                    "{shown} is for the user that runs the server, and for root: run this as one of them, with sudo -u"
                )
            }
            _ => anyhow!("cannot connect to {shown}: {error}"),
        })?;
        // Whoever could put a socket of their own there would be told what is asked here.
        let peer = stream.peer_cred()?.uid();
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let owner = std::fs::metadata(directory.unwrap_or(Path::new(".")))?.uid();
        let own = rustix::process::geteuid().as_raw();
        if ![0, own, owner].contains(&peer) {
            bail!("another user than the owner of its directory answers at {shown}; nothing was asked");
        }
        Ok(stream)
    }
}

impl Answer {
    /// What it says.
    pub(super) fn json<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        self.done()?;
        serde_json::from_slice(&self.body).context("the server is of another release than this program; use its own")
    }

    /// It, as it came.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Refuses what the server has refused.
    pub(super) fn done(&self) -> anyhow::Result<()> {
        if self.status.is_success() {
            return Ok(());
        }
        match serde_json::from_slice::<ErrorOut>(&self.body) {
            Ok(refusal) => Err(anyhow!("{} ({})", refusal.message, refusal.code)),
            Err(_) => Err(anyhow!("the server answered {}", self.status)),
        }
    }
}

const BROKE_OFF: &str = "the server broke the connection off";
/// Longer than the server takes for anything.
const PATIENCE: Duration = Duration::from_secs(75);
/// Ten thousand invites are 2 MB.
const MAX_ANSWER: usize = 8 * 1024 * 1024;
