//! Liveness and readiness. Live: the process answers. Ready: it can do its work and is not about to stop.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use http::StatusCode;

/// A question whose answer makes the server ready or not, such as a ping of the database.
pub type Probe = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

/// Whether this server should be given work.
#[derive(Clone)]
pub struct Readiness {
    draining: Arc<AtomicBool>,
    paused: Arc<AtomicBool>,
    probe: Probe,
}

impl Readiness {
    /// Ready as long as `probe` says so.
    pub fn new(probe: Probe) -> Self {
        Self {
            draining: Arc::default(),
            paused: Arc::default(),
            probe,
        }
    }

    /// Not ready from now on, so that a load balancer turns to others.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Not ready for as long as the operator wants.
    pub fn pause(&self, on: bool) {
        self.paused.store(on, Ordering::Relaxed);
    }

    /// Asks. A probe that takes long counts as a no.
    pub async fn is_ready(&self) -> bool {
        !self.draining.load(Ordering::Relaxed)
            && !self.paused.load(Ordering::Relaxed)
            && tokio::time::timeout(PROBE_TIMEOUT, (self.probe)())
                .await
                .unwrap_or(false)
    }
}

/// `GET /health/live` and `GET /health/ready`.
pub fn router(readiness: Readiness) -> Router {
    Router::new()
        .route("/health/live", get(async || "live\n"))
        .route("/health/ready", get(ready))
        .with_state(readiness)
}

async fn ready(State(readiness): State<Readiness>) -> (StatusCode, &'static str) {
    if readiness.is_ready().await {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn readiness(answer: bool) -> Readiness {
        Readiness::new(Arc::new(move || Box::pin(async move { answer })))
    }

    #[tokio::test]
    async fn is_ready_as_long_as_the_probe_says_so_and_nothing_drains() {
        assert!(!readiness(false).is_ready().await);
        let readiness = readiness(true);
        assert_eq!(ready(State(readiness.clone())).await.0, StatusCode::OK);
        readiness.clone().drain();
        assert_eq!(ready(State(readiness)).await.0, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_hangs_is_a_no() {
        let readiness = Readiness::new(Arc::new(|| Box::pin(std::future::pending())));
        assert!(!readiness.is_ready().await);
    }
}
