//! An example service: answers every scope with made-up records, and echoes the identity that the gateway gave it.
//!
//! Nothing is kept: what a `POST` creates is echoed and forgotten.

mod records;

use std::future::Future;

use axum::body::Bytes;
use axum::extract::{Path, Request};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router, middleware};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

use self::records::{Found, find};

/// What its paths begin with.
const PREFIX: &str = "/api/public/v1";

/// The methods of a collection.
const COLLECTION: &str = "GET, HEAD, POST";
/// The methods of a record.
const RECORD: &str = "GET, HEAD, PUT, PATCH, DELETE";

/// The identity headers of the gateway, by the name under which they are echoed.
const IDENTITY: [(&str, &str); 5] = [
    ("practice_id", "x-sigmamd-practice-id"),
    ("client_id", "x-sigmamd-client-id"),
    ("user_id", "x-sigmamd-user-id"),
    ("scopes", "x-sigmamd-scopes"),
    ("request_id", "x-request-id"),
];

/// Serves until `stop` is done.
///
/// # Errors
/// The listener fails.
pub async fn serve(listener: TcpListener, stop: impl Future<Output = ()> + Send + 'static) -> std::io::Result<()> {
    axum::serve(listener, router()).with_graceful_shutdown(stop).await
}

fn router() -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route(&format!("{PREFIX}/{{*path}}"), any(answer))
        .fallback(|headers: HeaderMap| async move { not_found(&headers) })
        .layer(middleware::from_fn(no_store))
}

async fn no_store(request: Request, next: middleware::Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn answer(Path(path): Path<String>, method: Method, headers: HeaderMap, content: Bytes) -> Response {
    let safe = matches!(method, Method::GET | Method::HEAD);
    match (find(path.trim_end_matches('/')), &method) {
        (Found::Area(collections), _) if safe => reply(StatusCode::OK, json!({ "data": collections }), &headers),
        (Found::Area(_), _) => not_allowed("GET, HEAD", &headers),
        (Found::Collection(items), _) if safe => {
            reply(StatusCode::OK, json!({ "data": items, "total": items.len(), "next": null }), &headers)
        }
        (Found::Collection(_), &Method::POST) => written(StatusCode::CREATED, json!({ "id": "new-1" }), &content, &headers),
        (Found::Collection(_), _) => not_allowed(COLLECTION, &headers),
        (Found::Record(record), _) if safe => reply(StatusCode::OK, json!({ "data": record }), &headers),
        (Found::Record(record), &Method::PUT | &Method::PATCH) => written(StatusCode::OK, record.clone(), &content, &headers),
        (Found::Record(_), &Method::DELETE) => StatusCode::NO_CONTENT.into_response(),
        (Found::Record(_), _) => not_allowed(RECORD, &headers),
        (Found::Nothing, _) => not_found(&headers),
    }
}

/// `base`, with the fields of the JSON object that was sent in place of its own; its id stays.
fn written(status: StatusCode, mut base: Value, content: &[u8], headers: &HeaderMap) -> Response {
    let sent: Map<String, Value> = match serde_json::from_slice(content) {
        Ok(sent) => sent,
        Err(_) if content.is_empty() => Map::new(),
        Err(_) => return reply(StatusCode::BAD_REQUEST, json!({ "error": "the content is not a JSON object" }), headers),
    };
    if let Value::Object(fields) = &mut base {
        fields.extend(sent.into_iter().filter(|(name, _)| name != "id"));
    }
    reply(status, json!({ "data": base }), headers)
}

fn not_allowed(allow: &'static str, headers: &HeaderMap) -> Response {
    let answer = reply(StatusCode::METHOD_NOT_ALLOWED, json!({ "error": "this path does not take the method" }), headers);
    ([(header::ALLOW, allow)], answer).into_response()
}

fn not_found(headers: &HeaderMap) -> Response {
    reply(StatusCode::NOT_FOUND, json!({ "error": "there is no such record" }), headers)
}

fn reply(status: StatusCode, mut body: Value, headers: &HeaderMap) -> Response {
    body["gateway"] = identity(headers);
    (status, Json(body)).into_response()
}

/// The identity that the gateway vouches for; `null` for what it did not send, and all that it sent if it is several.
fn identity(headers: &HeaderMap) -> Value {
    let echo = |name: &str| {
        let values: Vec<_> = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        if values.is_empty() { Value::Null } else { values.join(", ").into() }
    };
    IDENTITY.into_iter().map(|(name, field)| (name.to_owned(), echo(field))).collect::<Map<_, _>>().into()
}

#[cfg(test)]
mod tests;
