//! A carrier of codes that is reached by HTTP: keeps every request, and answers as it is told.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::until;

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Posted {
    pub(crate) method: String,
    pub(crate) path: String,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Posted {
    /// The first header of that lower-case name.
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// A server on a port of its own, which ends with the test.
pub(crate) struct Carrier {
    address: String,
    posted: Arc<Mutex<Vec<Posted>>>,
    status: Arc<AtomicU16>,
    serving: JoinHandle<()>,
}

impl Carrier {
    /// One that takes everything.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let posted: Arc<Mutex<Vec<Posted>>> = Arc::default();
        let status = Arc::new(AtomicU16::new(200));
        let (kept, told) = (Arc::clone(&posted), Arc::clone(&status));
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (kept, told) = (Arc::clone(&kept), Arc::clone(&told));
                tokio::spawn(async move {
                    let answering = service_fn(move |request| answer(request, Arc::clone(&kept), Arc::clone(&told)));
                    let connection = hyper::server::conn::http1::Builder::new();
                    let _ = connection.serve_connection(TokioIo::new(stream), answering).await;
                });
            }
        });
        Self {
            address,
            posted,
            status,
            serving,
        }
    }

    /// Where it is, without a path.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How it answers from now on; 0 for not at all.
    pub(crate) fn answer_with(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// What came so far.
    pub(crate) fn posted(&self) -> Vec<Posted> {
        self.posted.lock().unwrap().clone()
    }

    /// The code that was posted last, as JSON has it.
    pub(crate) async fn last_code(&self) -> String {
        until("a code", async || !self.posted.lock().unwrap().is_empty()).await;
        let last = self.posted().pop().unwrap();
        last.json()["code"].as_str().unwrap().to_owned()
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(
    request: Request<Incoming>,
    kept: Arc<Mutex<Vec<Posted>>>,
    told: Arc<AtomicU16>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let headers = head.headers.iter().map(|(name, value)| {
        let value = value.to_str().unwrap().to_owned();
        (name.as_str().to_owned(), value)
    });
    kept.lock().unwrap().push(Posted {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        headers: headers.collect(),
        body: String::from_utf8(body.to_vec()).unwrap(),
    });
    match told.load(Ordering::SeqCst) {
        0 => std::future::pending().await,
        status => {
            let mut response = Response::new(Empty::new());
            *response.status_mut() = status.try_into().unwrap();
            Ok(response)
        }
    }
}
