//! What was tried and refused: it is in the ledger like what was done.

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use serde_json::json;

use super::api::Api;
use super::caller::Caller;
use super::problem::Problem;
use super::request_id::RequestId;
use crate::id::{ClientId, PracticeId};
use crate::limit::FailureLimit;
use crate::store::records::Note;

/// How many attempts of one address are written down in a minute; of more the log tells.
const PER_MINUTE: NonZeroU32 = NonZeroU32::new(60).unwrap();

/// How many may be written down.
pub(super) fn limit() -> FailureLimit {
    FailureLimit::new(PER_MINUTE, PER_MINUTE)
}

/// Writes down what a caller tried to change and was refused. Of what there is not, as far as the caller may know, the
/// ledger has no id: nobody is to learn from it whose it is, or that it is somebody's.
pub(super) async fn note(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let caller = request.extensions().get::<Caller>().cloned();
    let (Some(caller), false) = (caller, request.method().is_safe()) else { return next.run(request).await };
    let id = request.extensions().get::<RequestId>().copied();
    let template = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str).to_owned();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    let refused = [StatusCode::FORBIDDEN, StatusCode::NOT_FOUND, StatusCode::CONFLICT, StatusCode::PRECONDITION_FAILED];
    let Some(problem) = response.extensions().get::<Problem>().filter(|problem| refused.contains(&problem.status())) else {
        return response;
    };
    let by = caller.actor();
    let request_id = id.map(|id| id.0.hyphenated().to_string());
    tracing::info!(actor = by.name, origin = by.origin, %method, path, code = problem.code(), request_id, "an attempt is refused");
    if by.origin.parse().is_ok_and(|address| api.attempts.failed(address).is_err()) {
        return response;
    }
    let known = problem.status() != StatusCode::NOT_FOUND;
    let mut segments = path.split('/').skip(2).filter(|_| known);
    let (kind, of) = (segments.next().unwrap_or_default(), segments.next().unwrap_or_default());
    let client = if kind == "clients" { ClientId::parse(of.as_bytes()) } else { None };
    let practice = match (caller.user(), client) {
        (Ok((_, practice)), _) => Some(practice.clone()),
        (Err(_), Some(client)) => api.store.client(client).await.ok().map(|client| client.practice_id),
        (Err(_), None) if kind == "practices" => of.parse::<PracticeId>().ok(),
        (Err(_), None) => None,
    };
    // With the id of the client, whose events the owner of a personal one alone sees.
    let (action, target) = match client {
        Some(client) => ("client.refused", client.to_text()),
        None => ("refused", practice.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string)),
    };
    let shown = if known { &path } else { &template };
    let after = json!({ "request": format!("{method} {shown}"), "code": problem.code(), "request_id": request_id });
    if let Err(error) = api.store.note(&Note { practice, action, target, after }, &by).await {
        tracing::warn!(%error, "an attempt that was refused could not be written down");
    }
    response
}
