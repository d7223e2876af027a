//! Sessions with tokens, as clients have them.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Answer, Person, Server, Socket, ask};

/// The tokens of a session that its client has now.
#[derive(Clone)]
pub(crate) struct Tokens {
    pub(crate) access: String,
    pub(crate) refresh: String,
    pub(crate) session: String,
}

impl Tokens {
    /// Opens a session with the device's password.
    pub(crate) async fn open(server: &Server, person: &Person) -> Self {
        Self::of(&ask(person.request(server, "POST", "/v1/auth/token")).await)
    }

    /// The tokens in an answer.
    #[track_caller]
    pub(crate) fn of(answer: &Answer) -> Self {
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let tokens = answer.json();
        assert_eq!(tokens["tokenType"], "Bearer");
        let text = |name: &str| tokens[name].as_str().unwrap().to_owned();
        Self {
            access: text("accessToken"),
            refresh: text("refreshToken"),
            session: text("session"),
        }
    }

    /// The value of an `Authorization` header.
    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.access)
    }

    /// A request with the access token.
    pub(crate) fn request(&self, server: &Server, method: &str, path: &str) -> reqwest::RequestBuilder {
        server.request(method, path).header("authorization", self.bearer())
    }

    /// The status of a request with the access token that any device may make.
    pub(crate) async fn whoami(&self, server: &Server) -> u16 {
        ask(self.request(server, "GET", "/v1/accounts/whoami")).await.status
    }

    /// The session's socket.
    pub(crate) async fn connect(&self, server: &Server) -> Socket {
        Socket::open(server, Some(&self.bearer()), &[]).await.unwrap()
    }

    /// The request for the next tokens.
    pub(crate) fn refreshing(&self, server: &Server) -> reqwest::RequestBuilder {
        server
            .request("POST", "/v1/auth/refresh")
            .json(&json!({ "refreshToken": self.refresh }))
    }

    /// The next tokens.
    pub(crate) async fn next(&self, server: &Server) -> Self {
        Self::of(&ask(self.refreshing(server)).await)
    }

    /// Returns once the access token is dead on this server, and fails the test if that takes longer than `limit`.
    pub(crate) async fn until_dead(&self, server: &Server, limit: Duration) {
        let dying = super::until("a token to die", async || self.whoami(server).await == 401);
        assert!(
            tokio::time::timeout(limit, dying).await.is_ok(),
            "still alive after {limit:?}"
        );
    }
}

/// The sessions that a device sees, as `(device, id, current)`.
pub(crate) async fn sessions(request: reqwest::RequestBuilder) -> Vec<(u64, String, bool)> {
    let answer = ask(request).await.expect(200).json();
    let seen = |session: &Value| {
        (
            session["deviceId"].as_u64().unwrap(),
            session["id"].as_str().unwrap().to_owned(),
            session["current"].as_bool().unwrap(),
        )
    };
    answer["sessions"].as_array().unwrap().iter().map(seen).collect()
}
