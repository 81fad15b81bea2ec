//! Requests that come twice and are carried out once: `Idempotency-Key` on every `POST`.
//!
//! A request is written down before it is carried out, so one that was cut off is never carried out again: the next one
//! with its key is told to look. Secrets are not kept, so a repeated answer has none.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::api::{Api, CONTENT};
use super::caller::Called;
use super::problem::Problem;
use super::request_id::RequestId;
use crate::digest::{Sha256, sha256};
use crate::store::records::Idempotent;

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// The longest key, in bytes.
const MAX_KEY: usize = 255;
/// What is never kept of an answer.
const SECRET: &str = "client_secret";

/// Carries a request out, unless it was.
pub async fn once(State(api): State<Arc<Api>>, caller: Called, request: Request, next: Next) -> Response {
    if request.method() != Method::POST || !request.headers().contains_key(KEY) {
        return next.run(request).await;
    }
    run(&api, &caller.actor().name, request, next).await.unwrap_or_else(Problem::into_response)
}

async fn run(api: &Api, caller: &str, request: Request, next: Next) -> Result<Response, Problem> {
    let key = key(&request)?;
    let id = request.extensions().get::<RequestId>().copied();
    let (parts, body) = request.into_parts();
    let content = to_bytes(body, CONTENT).await.map_err(|_| Problem::too_large())?;
    let mut digest = Sha256::default();
    for part in [parts.method.as_str().as_bytes(), parts.uri.to_string().as_bytes(), &content] {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    match api.store.begin_idempotent(caller, key, digest.finish()).await? {
        Idempotent::Begun => {}
        Idempotent::Replay { status, body } => return Ok(replay(status, body, id)),
        Idempotent::Mismatch => {
            return Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency_mismatch",
                "this key was given to another request: make another key",
            ));
        }
        Idempotent::UnderWay => {
            let detail = "a request with this key was begun, and how it ended is not known: look at what there is, then use another key";
            return Err(Problem::new(StatusCode::CONFLICT, "idempotency_under_way", detail));
        }
    }
    let response = next.run(Request::from_parts(parts, Body::from(content))).await;
    let status = response.status();
    if status.is_server_error() {
        // It may have been carried out: whoever asks again is told to look.
        return Ok(response);
    }
    if let Some(problem) = response.extensions().get::<Problem>() {
        api.store.finish_idempotent(caller, key, status.as_u16(), &problem.document()).await?;
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let content = to_bytes(body, usize::MAX).await.map_err(|_| Problem::unavailable("the answer could not be made"))?;
    let kept = serde_json::from_slice::<Value>(&content).map(without_secret).unwrap_or_default();
    api.store.finish_idempotent(caller, key, status.as_u16(), &kept.to_string()).await?;
    Ok(Response::from_parts(parts, Body::from(content)))
}

fn key(request: &Request) -> Result<[u8; 32], Problem> {
    let mut fields = request.headers().get_all(KEY).iter();
    let field = fields.next().filter(|_| fields.next().is_none()).map(HeaderValue::as_bytes).unwrap_or_default();
    if !(1..=MAX_KEY).contains(&field.len()) || !field.iter().all(u8::is_ascii_graphic) {
        let detail = "Idempotency-Key must be one field of 1 to 255 letters, digits and signs";
        return Err(Problem::malformed(Some("Idempotency-Key".into()), detail));
    }
    Ok(sha256(field))
}

fn without_secret(mut answer: Value) -> Value {
    if let Some(secret) = answer.get_mut(SECRET) {
        *secret = Value::Null;
    }
    answer
}

/// The answer of then; a problem with the id of now.
fn replay(status: u16, mut body: String, id: Option<RequestId>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let media = if status.is_success() { "application/json" } else { "application/problem+json" };
    if let (false, Some(RequestId(id)), Ok(mut problem)) = (status.is_success(), id, serde_json::from_str::<Value>(&body)) {
        problem["request_id"] = id.hyphenated().to_string().into();
        body = problem.to_string();
    }
    (status, [(CONTENT_TYPE, media), (REPLAYED, "true")], body).into_response()
}
