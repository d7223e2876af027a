//! Carriers that are reached by HTTP: one request, of whose answer only the status is looked at.

use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, StatusCode};

use super::Failed;

/// Makes the requests of carriers. It follows no redirects, which could lead a code elsewhere, and asks no proxy.
#[derive(Clone)]
pub struct HttpClient(Client);

impl HttpClient {
    /// A client whose connections must be made within the given time.
    pub fn new(connect_timeout: Duration) -> Result<Self, reqwest::Error> {
        Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .referer(false)
            .connect_timeout(connect_timeout)
            .pool_max_idle_per_host(4)
            .pool_idle_timeout(IDLE)
            .build()
            .map(Self)
    }

    pub(super) fn post(&self, url: &str) -> RequestBuilder {
        self.0.post(url)
    }
}

/// Sends a request and judges the answer. What is in its body is not read.
pub(super) async fn deliver(request: RequestBuilder) -> Result<(), Failed> {
    let answer = request.send().await.map_err(|error| {
        if error.is_connect() {
            Failed::Again("it cannot be reached")
        } else {
            Failed::Unavailable("it broke the connection off")
        }
    })?;
    judge(answer.status())
}

fn judge(status: StatusCode) -> Result<(), Failed> {
    match status.as_u16() {
        200..=299 => Ok(()),
        401 | 403 | 404 => Err(Failed::Unavailable("it does not know this server's account")),
        408 | 429 => Err(Failed::Unavailable("it takes no more for now")),
        400..=499 => Err(Failed::Rejected("it takes no code for there")),
        500..=599 => Err(Failed::Again("it has failed")),
        _ => Err(Failed::Unavailable(
            "it answered something else than a success or a failure",
        )),
    }
}

const IDLE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_whose_fault_it_is() {
        for (status, expected) in [
            (200, "ok"),
            (201, "ok"),
            (204, "ok"),
            (301, "unavailable"),
            (307, "unavailable"),
            (400, "rejected"),
            (401, "unavailable"),
            (403, "unavailable"),
            (404, "unavailable"),
            (408, "unavailable"),
            (422, "rejected"),
            (429, "unavailable"),
            (500, "again"),
            (503, "again"),
        ] {
            let judged = match judge(StatusCode::from_u16(status).unwrap()) {
                Ok(()) => "ok",
                Err(Failed::Rejected(_)) => "rejected",
                Err(Failed::Unavailable(_)) => "unavailable",
                Err(Failed::Again(_)) => "again",
            };
            assert_eq!(judged, expected, "{status}");
        }
    }
}
