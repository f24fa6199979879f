//! `/`, `/metrics`, `/healthz`, `/readyz`.

mod door;
pub mod life;

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use vitals::Vitals;

/// Writes the numbers as Prometheus reads them.
pub type Numbers = Arc<dyn Fn() -> Result<Vec<u8>, String> + Send + Sync>;

/// What the pages show.
#[derive(Clone)]
pub struct Pages {
    /// What `/metrics` shows, or why it cannot.
    pub numbers: Numbers,
    /// The snapshot of policy was read at least once.
    pub is_ready: Arc<AtomicBool>,
    /// No new calls are taken.
    pub is_draining: Arc<AtomicBool>,
    /// The parts of the process.
    pub vitals: Vitals,
}

/// The routes.
pub fn router(pages: Pages) -> Router {
    Router::new()
        .route("/", get(front))
        .route("/metrics", get(metrics))
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .with_state(pages)
}

/// What this is, and where the rest is.
async fn front() -> Html<&'static str> {
    Html(concat!(
        "<!doctype html>\n<title>crush-sbc</title>\n<h1>crush-sbc ",
        env!("CARGO_PKG_VERSION"),
        "</h1>\n<p>A session border controller. This is where it tells how it is; it has no console.</p>\n<ul>\n",
        "<li><a href=\"/metrics\">/metrics</a>: its numbers, as Prometheus reads them</li>\n",
        "<li><a href=\"/healthz\">/healthz</a>: whether all its parts live</li>\n",
        "<li><a href=\"/readyz\">/readyz</a>: whether it takes calls</li>\n",
        "</ul>\n<p>Call records: <code>sbc records</code> on its machine, or the table <code>call</code> of its database.</p>\n",
    ))
}

async fn metrics(State(pages): State<Pages>) -> impl IntoResponse {
    match (pages.numbers)() {
        Ok(text) => (StatusCode::OK, [("content-type", "text/plain; version=0.0.4")], text),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [("content-type", "text/plain")],
            error.to_string().into_bytes(),
        ),
    }
}

/// Every part of the process has said lately that it lives: that is all that an orchestrator should restart it for.
async fn health(State(pages): State<Pages>) -> (StatusCode, String) {
    match silent(&pages.vitals) {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(silent) => (StatusCode::SERVICE_UNAVAILABLE, silent),
    }
}

async fn ready(State(pages): State<Pages>) -> (StatusCode, String) {
    let wrong = if pages.is_draining.load(Ordering::Relaxed) {
        Some("draining: running calls go on, new ones are refused\n".to_owned())
    } else if !pages.is_ready.load(Ordering::Relaxed) {
        Some("waiting for the database: subscribers, trunks and routes are not read yet\n".to_owned())
    } else {
        silent(&pages.vitals)
    };
    match wrong {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(wrong) => (StatusCode::SERVICE_UNAVAILABLE, wrong),
    }
}

/// A line for each part that says nothing.
fn silent(vitals: &Vitals) -> Option<String> {
    let silent = vitals.silent();
    if silent.is_empty() {
        return None;
    }
    let mut text = String::new();
    for (part, silence) in silent {
        let _ = writeln!(text, "{part} has said nothing for {:.1} s", silence.as_secs_f64());
    }
    Some(text)
}
