//! An id for every request, so that an answer can be quoted.

use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, X_CONTENT_TYPE_OPTIONS};
use axum::middleware::Next;
use axum::response::Response;
use uuid::Uuid;

use super::problem::Problem;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of one request, an extension of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId(pub Uuid);

/// Gives the request an id of ours, whatever the caller sent, and the answer the headers that every answer has.
pub async fn assign(mut request: Request, next: Next) -> Response {
    let id = RequestId(Uuid::now_v7());
    request.extensions_mut().insert(id);
    let mut response = next.run(request).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let headers = std::mem::take(response.headers_mut());
        response = problem.respond(id);
        for (name, value) in &headers {
            if name != CONTENT_LENGTH && name != CONTENT_TYPE {
                response.headers_mut().append(name, value.clone());
            }
        }
    }
    let value = HeaderValue::try_from(id.0.hyphenated().to_string()).expect("hex digits and hyphens make a header value");
    let headers = response.headers_mut();
    headers.insert(X_REQUEST_ID, value);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
