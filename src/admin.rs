//! The management listener: metrics and health.

mod problem;
mod request_id;

use std::future::Future;
use std::sync::Arc;

use axum::extract::State as Extract;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use axum::{Router, middleware};
use tokio::net::TcpListener;

use crate::id::Revision;
use crate::metrics::Metrics;

/// What the listener tells of.
#[derive(Clone)]
pub struct State {
    metrics: Arc<Metrics>,
    readiness: Arc<dyn Fn() -> Result<Revision, String> + Send + Sync>,
}

impl State {
    /// These metrics; and whether the gateway admits, with the newest change in force, or why it does not.
    pub fn new(metrics: Arc<Metrics>, readiness: impl Fn() -> Result<Revision, String> + Send + Sync + 'static) -> Self {
        Self { metrics, readiness: Arc::new(readiness) }
    }
}

/// Every path that the listener has.
pub fn router(state: State) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { Json(serde_json::json!({ "alive": true })) }))
        .route("/readyz", get(readyz))
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(middleware::from_fn(request_id::assign))
        .with_state(state)
}

/// Serves until `stop` is done.
///
/// # Errors
/// The listener fails.
pub async fn serve(listener: TcpListener, state: State, stop: impl Future<Output = ()> + Send + 'static) -> std::io::Result<()> {
    axum::serve(listener, router(state)).with_graceful_shutdown(stop).await
}

async fn metrics(Extract(state): Extract<State>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], state.metrics.encode()).into_response()
}

async fn readyz(Extract(state): Extract<State>) -> Response {
    match (state.readiness)() {
        Ok(revision) => Json(serde_json::json!({ "ready": true, "revision": revision })).into_response(),
        Err(why) => {
            let body = Json(serde_json::json!({ "ready": false, "reason": why }));
            (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], body).into_response()
        }
    }
}
