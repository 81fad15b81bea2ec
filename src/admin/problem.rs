//! Problem documents (RFC 9457) of the management listener.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

fn problem(status: StatusCode, code: &str, detail: &str) -> Response {
    let body = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "code": code,
        "detail": detail,
    });
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}

/// For a path that is not there.
pub async fn not_found() -> Response {
    problem(StatusCode::NOT_FOUND, "not_found", "nothing is served under this path")
}

/// For a path that is there, and a method that is not.
pub async fn method_not_allowed() -> Response {
    problem(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "the Allow header lists the methods of this path")
}
