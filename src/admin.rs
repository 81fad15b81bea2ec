//! The management listener: metrics and health, and the management API.

mod api;
mod attempts;
mod body;
mod caller;
#[expect(unused_qualifications, reason = "utoipa writes them")]
mod clients;
mod config;
#[expect(unused_qualifications, reason = "utoipa writes them")]
mod denials;
mod idempotency;
mod ledger;
mod listener;
mod local;
mod me;
mod nodes;
mod page;
#[expect(unused_qualifications, reason = "utoipa writes them")]
mod practices;
mod problem;
mod refusals;
mod request_id;
mod sync;
#[expect(unused_qualifications, reason = "utoipa writes them")]
mod team;
#[expect(unused_qualifications, reason = "utoipa writes them")]
mod usage;
mod views;

pub use api::{Api, Reload, Running, document};
pub use listener::serve;
pub use local::Local;

use std::sync::Arc;

use axum::extract::State as Extract;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use axum::{Router, middleware};
use serde::Serialize;

use crate::id::Revision;
use crate::metrics::Metrics;

/// What the listener tells of.
#[derive(Clone)]
pub struct State {
    metrics: Arc<Metrics>,
    readiness: Arc<dyn Fn() -> Readiness + Send + Sync>,
    api: Arc<Api>,
}

/// Whether the gateway is ready, and how it stands.
#[derive(Clone, Debug, Serialize)]
pub struct Readiness {
    /// Whether the store answers, so that the gateway can go on admitting.
    pub ready: bool,
    /// One word for it.
    pub state: Standing,
    /// The newest change in force.
    pub revision: Revision,
    /// How long the gateway goes on admitting if the store does not answer again.
    pub lease_left_ms: u64,
    /// The gateway's id in the register.
    pub node: Option<Arc<str>>,
    /// Why it is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How the gateway stands with the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// The store is being read: nobody is admitted yet.
    Joining,
    /// Everything that the store has is in force.
    Live,
    /// The store does not answer, and the lease goes on.
    Failing,
    /// The gateway is about to stop: whoever chooses between gateways should choose another.
    Stopping,
    /// The store does not answer, and the lease has run out: nobody is admitted.
    Stale,
}

impl State {
    /// These metrics; how the gateway stands; and what changes things.
    pub fn new(metrics: Arc<Metrics>, readiness: impl Fn() -> Readiness + Send + Sync + 'static, api: Api) -> Self {
        Self { metrics, readiness: Arc::new(readiness), api: Arc::new(api) }
    }
}

/// Every path that the listener has.
pub fn router(state: State) -> Router {
    let api = api::router(Arc::clone(&state.api));
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { Json(serde_json::json!({ "alive": true })) }))
        .route("/readyz", get(readyz))
        .with_state(state)
        .merge(api)
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(middleware::from_fn(request_id::assign))
}

async fn metrics(Extract(state): Extract<State>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], state.metrics.encode()).into_response()
}

async fn readyz(Extract(state): Extract<State>) -> Response {
    let readiness = (state.readiness)();
    if readiness.ready {
        return Json(readiness).into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], Json(readiness)).into_response()
}
