//! Problem documents (RFC 9457) of the management listener.

use axum::Extension;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::request_id::RequestId;

fn problem(status: StatusCode, code: &str, detail: &str, id: RequestId) -> Response {
    let body = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "code": code,
        "detail": detail,
        "request_id": id.0.hyphenated().to_string(),
    });
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}

/// For a path that is not there.
pub async fn not_found(Extension(id): Extension<RequestId>) -> Response {
    problem(StatusCode::NOT_FOUND, "not_found", "nothing is served under this path", id)
}

/// For a path that is there, and a method that is not.
pub async fn method_not_allowed(Extension(id): Extension<RequestId>) -> Response {
    problem(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "the Allow header lists the methods of this path", id)
}
