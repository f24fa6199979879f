//! `/metrics`, `/healthz`, `/readyz`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;

use crate::metrics::Metrics;

/// What the pages show.
#[derive(Clone)]
pub struct Pages {
    /// Numbers.
    pub metrics: Arc<Metrics>,
    /// The snapshot of policy was read at least once.
    pub is_ready: Arc<AtomicBool>,
    /// No new calls are taken.
    pub is_draining: Arc<AtomicBool>,
}

/// The routes.
pub fn router(pages: Pages) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .with_state(pages)
}

async fn metrics(State(pages): State<Pages>) -> impl IntoResponse {
    match pages.metrics.text() {
        Ok(text) => (StatusCode::OK, [("content-type", "text/plain; version=0.0.4")], text),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [("content-type", "text/plain")],
            error.to_string().into_bytes(),
        ),
    }
}

/// The process answers: that is all that an orchestrator should restart it for.
async fn health() -> &'static str {
    "ok\n"
}

async fn ready(State(pages): State<Pages>) -> (StatusCode, &'static str) {
    if pages.is_draining.load(Ordering::Relaxed) {
        (StatusCode::SERVICE_UNAVAILABLE, "draining: running calls go on, new ones are refused\n")
    } else if pages.is_ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "ready\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "waiting for the database: subscribers, trunks and routes are not read yet\n",
        )
    }
}
