//! The operator's listener: metrics and health. Nothing here asks for a login, so it stays off the public network.

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use http::header::CONTENT_TYPE;
use metrics_exporter_prometheus::PrometheusHandle;

use super::health::{self, Readiness};

/// `GET /metrics` beside health.
pub fn router(metrics: PrometheusHandle, readiness: Readiness) -> Router {
    Router::new()
        .route("/metrics", get(render))
        .with_state(metrics)
        .merge(health::router(readiness))
}

async fn render(State(metrics): State<PrometheusHandle>) -> ([(http::HeaderName, &'static str); 1], String) {
    ([(CONTENT_TYPE, PROMETHEUS_TEXT)], metrics.render())
}

const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::body::Body;
    use http::{Request, StatusCode};
    use http_body_util::BodyExt;
    use metrics_exporter_prometheus::PrometheusBuilder;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn serves_metrics_and_health() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || metrics::counter!("asked_total").increment(2));
        let app = router(handle, Readiness::new(Arc::new(|| Box::pin(async { true }))));
        let get = |path: &str| app.clone().oneshot(Request::get(path).body(Body::empty()).unwrap());

        let answer = get("/metrics").await.unwrap();
        assert_eq!(answer.headers()[CONTENT_TYPE], PROMETHEUS_TEXT);
        let text = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(String::from_utf8_lossy(&text).contains("asked_total 2"));
        assert_eq!(get("/health/ready").await.unwrap().status(), StatusCode::OK);
    }
}
