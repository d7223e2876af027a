//! What the tests share: servers of their own, people with real keys, a WebSocket client, and patience that ends.

pub(crate) mod attachments;
pub(crate) mod carrier;
pub(crate) mod ciphertext;
pub(crate) mod dump;
pub(crate) mod fan_out;
pub(crate) mod filled;
pub(crate) mod frames;
pub(crate) mod http;
pub(crate) mod http2;
pub(crate) mod keys;
pub(crate) mod person;
pub(crate) mod provisioning;
pub(crate) mod proxy;
pub(crate) mod redis_server;
pub(crate) mod server;
pub(crate) mod smtp_server;
pub(crate) mod socket;
pub(crate) mod tokens;
pub(crate) mod traffic;
pub(crate) mod turn_server;
pub(crate) mod usernames;

use std::time::Duration;

pub(crate) use ciphertext::{ciphertext, framed};
pub(crate) use http::{Answer, ask};
pub(crate) use person::{Person, send, single};
pub(crate) use server::{Backend, Server};
pub(crate) use socket::{Event, Socket};

/// How long a test waits for what must happen. Only a failing test waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What the future gives, or a failed test that names what never came.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let Ok(value) = tokio::time::timeout(PATIENCE, Box::pin(future)).await else {
        panic!("waited too long for {what}");
    };
    value
}

/// Returns once the condition holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Fresh random bytes.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

/// The bytes in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A backend's setting from the environment. Without it a test is skipped with a printed line, or fails if
/// `BLIND_RELAY_TEST_REQUIRE_ALL=1`.
pub(crate) fn setting(name: &str) -> Option<String> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    if value.is_none() {
        skip(&format!("{name} is not set"));
    }
    value
}

/// Says why a test is skipped, or fails it if everything is required.
pub(crate) fn skip(why: &str) {
    let required = std::env::var("BLIND_RELAY_TEST_REQUIRE_ALL").is_ok_and(|value| value == "1");
    assert!(!required, "{why}, but every backend is required");
    eprintln!("skipped: {why}");
}

/// Makes each test once per backend: `sqlite::NAME` and `postgres::NAME`.
macro_rules! on_each_backend {
    ($($name:ident)*) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                Box::pin(super::$name($crate::support::Backend::Sqlite)).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if $crate::support::server::postgres_url().is_some() {
                    Box::pin(super::$name($crate::support::Backend::Postgres)).await;
                }
            })*
        }
    };
}
pub(crate) use on_each_backend;
