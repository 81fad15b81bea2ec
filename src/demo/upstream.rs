//! An example service: answers every scope with made-up data, and echoes the identity that the gateway gave it.

use std::future::Future;

use axum::extract::{Path, Request};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use axum::{Router, middleware};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Serves until `stop` is done.
///
/// # Errors
/// The listener fails.
pub async fn serve(listener: TcpListener, stop: impl Future<Output = ()> + Send + 'static) -> std::io::Result<()> {
    axum::serve(listener, router()).with_graceful_shutdown(stop).await
}

fn router() -> Router {
    let api = Router::new()
        .route("/{area}", get(list).post(create))
        .route("/{area}/{kind}", get(list_kind).post(create))
        .route("/{area}/{kind}/{id}", get(one));
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .nest("/api/public/v1", api)
        .fallback(|headers: HeaderMap| async move {
            (StatusCode::NOT_FOUND, Json(json!({ "error": "no such resource", "gateway": identity(&headers) })))
        })
        .layer(middleware::from_fn(no_store))
}

async fn no_store(request: Request, next: middleware::Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert("cache-control", http::HeaderValue::from_static("no-store"));
    response
}

/// What the gateway said of the caller.
fn identity(headers: &HeaderMap) -> Value {
    let field = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    json!({
        "practice_id": field("x-sigmamd-practice-id"),
        "client_id": field("x-sigmamd-client-id"),
        "user_id": field("x-sigmamd-user-id"),
        "scopes": field("x-sigmamd-scopes"),
        "request_id": field("x-request-id"),
    })
}

fn data(area: &str) -> Option<Value> {
    Some(match area {
        "billing" => json!([
            { "id": "inv-1041", "issued": "2026-03-02", "amount": "180.00", "currency": "USD", "status": "paid" },
            { "id": "inv-1042", "issued": "2026-03-09", "amount": "95.50", "currency": "USD", "status": "open" },
            { "id": "inv-1043", "issued": "2026-03-11", "amount": "240.00", "currency": "USD", "status": "overdue" },
        ]),
        "appointments" => json!([
            { "id": "apt-311", "starts": "2026-04-01T09:00:00Z", "minutes": 50, "kind": "follow-up" },
            { "id": "apt-312", "starts": "2026-04-01T10:00:00Z", "minutes": 25, "kind": "intake" },
        ]),
        "tasks" => json!([
            { "id": "tsk-12", "title": "Call the laboratory", "due": "2026-04-02", "done": false },
            { "id": "tsk-13", "title": "Order forms", "due": "2026-04-05", "done": true },
        ]),
        "patients" => json!([
            { "id": "pat-7", "name": "Example Person", "born": "1980-01-01", "allergies": ["none known"] },
            { "id": "pat-8", "name": "Sample Person", "born": "1991-06-15", "allergies": ["penicillin"] },
        ]),
        "forms" => json!([{ "id": "frm-1", "title": "Consent", "fields": 12 }, { "id": "frm-2", "title": "History", "fields": 34 }]),
        "communication" => json!([{ "id": "msg-5", "channel": "email", "subject": "Your appointment", "sent": "2026-03-30T08:00:00Z" }]),
        "docs" => json!([{ "id": "start", "title": "Getting started with the API" }]),
        _ => return None,
    })
}

async fn list(Path(area): Path<String>, headers: HeaderMap) -> Response {
    answer(data(&area), &headers)
}

async fn list_kind(Path((area, kind)): Path<(String, String)>, headers: HeaderMap) -> Response {
    let found = data(&area)
        .map(|rows| rows.as_array().and_then(|rows| rows.iter().find(|row| row["id"] == kind.as_str()).cloned()).unwrap_or(rows));
    answer(found, &headers)
}

async fn one(Path((area, _, id)): Path<(String, String, String)>, headers: HeaderMap) -> Response {
    let found = data(&area).and_then(|rows| rows.as_array()?.iter().find(|row| row["id"] == id.as_str()).cloned());
    answer(found, &headers)
}

async fn create(headers: HeaderMap, body: Option<Json<Value>>) -> Response {
    let body = body.map_or(Value::Null, |Json(body)| body);
    (StatusCode::CREATED, Json(json!({ "data": { "id": "new-1", "received": body }, "gateway": identity(&headers) }))).into_response()
}

fn answer(found: Option<Value>, headers: &HeaderMap) -> Response {
    match found {
        Some(data) => Json(json!({ "data": data, "gateway": identity(headers) })).into_response(),
        None => (StatusCode::NOT_FOUND, Json(json!({ "error": "no such resource", "gateway": identity(headers) }))).into_response(),
    }
}
