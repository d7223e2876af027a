//! Answers, whether they came by HTTP or through a WebSocket.

use bytes::Bytes;
use serde_json::Value;

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The first header of that lower-case name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body as JSON, which must be labelled exactly as clients insist on.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        let text = std::str::from_utf8(&self.body).unwrap();
        assert!(
            !text.contains('\\'),
            "clients borrow strings while parsing and cannot take escapes: {text}"
        );
        serde_json::from_str(text).unwrap()
    }

    /// The stable code of a refusal.
    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap().to_owned()
    }

    /// Fails unless the status is the expected one.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// Status, body and those headers that are not the time: what two answers that must look alike have in common.
    pub(crate) fn looks(&self) -> (u16, Vec<(String, String)>, Bytes) {
        let timeless = |name: &str| name != "x-signal-timestamp" && name != "date";
        let headers = self
            .headers
            .iter()
            .filter(|(name, _)| timeless(name))
            .cloned()
            .collect();
        (self.status, headers, self.body.clone())
    }
}

/// Sends a request and reads the whole answer.
pub(crate) async fn ask(request: reqwest::RequestBuilder) -> Answer {
    try_ask(request).await.unwrap()
}

/// As [`ask`], for servers that may be gone.
pub(crate) async fn try_ask(request: reqwest::RequestBuilder) -> Result<Answer, reqwest::Error> {
    let response = request.send().await?;
    let status = response.status().as_u16();
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = response
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), text(value)))
        .collect();
    Ok(Answer {
        status,
        headers,
        body: response.bytes().await?,
    })
}
