//! Problem documents (RFC 9457) of the management listener.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::request_id::RequestId;
use crate::{lifecycle, store};

/// Why a request was not carried out (RFC 9457).
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct Document {
    /// Always `about:blank`: the code tells more.
    #[serde(rename = "type")]
    #[schema(value_type = String, example = "about:blank")]
    kind: &'static str,
    /// The status in words.
    #[schema(value_type = String)]
    title: &'static str,
    /// The status of the answer.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What programs go by.
    #[schema(value_type = String, example = "not_found")]
    code: &'static str,
    /// What people go by: what is wrong and what to do.
    detail: String,
    /// The id of this answer, as in `X-Request-Id`.
    request_id: String,
    /// Where in the content it is wrong, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// The change that is made, where only its coming into force could not be confirmed.
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
    #[serde(skip)]
    header: Option<(HeaderName, HeaderValue)>,
}

/// A refusal.
#[derive(Clone, Debug)]
pub struct Problem(Box<Document>);

impl Problem {
    /// A problem of this status and code.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self(Box::new(Document {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            code,
            detail: detail.into(),
            request_id: String::new(),
            field: None,
            revision: None,
            header: None,
        }))
    }

    /// The content cannot be read. `field`: where.
    pub fn malformed(field: Option<String>, detail: impl Into<String>) -> Self {
        let mut problem = Self::new(StatusCode::BAD_REQUEST, "invalid_request", detail);
        problem.0.field = field;
        problem
    }

    /// It can be read, and makes no sense.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_value", detail)
    }

    /// There is nothing of that kind, or nothing that the caller may see.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// The caller may see it, and may not do this.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// The caller has not shown who they are. Why not is for the log.
    pub fn unauthenticated() -> Self {
        let detail = "this needs a management token: `sigmagate management-token` mints one";
        let challenge = HeaderValue::from_static("Bearer realm=\"SigmaMD management\"");
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail).with_header(WWW_AUTHENTICATE, challenge)
    }

    /// Another time it may work.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail).with_header(RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// The content is longer than is taken.
    pub fn too_large() -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "the content is longer than this path takes")
    }

    /// The status of the answer.
    pub(super) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// What programs go by.
    pub(super) fn code(&self) -> &'static str {
        self.0.code
    }

    /// The document, for whoever keeps it.
    pub(super) fn document(&self) -> String {
        serde_json::to_string(&*self.0).expect("a problem is text and numbers")
    }

    fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.header = Some((name, value));
        self
    }

    /// The document of the answer with this id.
    pub(super) fn respond(mut self, id: RequestId) -> Response {
        self.0.request_id = id.0.hyphenated().to_string();
        let status = self.status();
        let body = self.document();
        let mut response = (status, [(CONTENT_TYPE, "application/problem+json")], body).into_response();
        if let Some((name, value)) = self.0.header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

impl IntoResponse for Problem {
    /// The document itself is written once the id of the request is known.
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<lifecycle::Error> for Problem {
    fn from(error: lifecycle::Error) -> Self {
        match error {
            lifecycle::Error::Invalid(why) => Self::invalid(why),
            lifecycle::Error::Store(error) => error.into(),
            lifecycle::Error::Unconfirmed { revision, .. } => {
                let mut problem = Self::unavailable(error.to_string());
                (problem.0.code, problem.0.revision) = ("unconfirmed", Some(revision.0));
                problem
            }
        }
    }
}

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::NotFound { .. } => Self::not_found(error.to_string()),
            store::Error::Conflict(why) => Self::new(StatusCode::CONFLICT, "conflict", why),
            store::Error::Changed { .. } => Self::new(StatusCode::PRECONDITION_FAILED, "precondition_failed", error.to_string()),
            store::Error::Unusable { .. } | store::Error::Deposed(_) | store::Error::Database(_) => {
                tracing::error!(error = %chain(&error), "the store failed under a management request");
                Self::unavailable("the store does not answer: a change may or may not have been made; look, and try again")
            }
            store::Error::Row { .. } => {
                tracing::error!(error = %chain(&error), "a row is not understood");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "a row of the store is not understood: the log says which")
            }
        }
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// For a path that is not there.
pub async fn not_found() -> Problem {
    Problem::not_found("nothing is served under this path")
}

/// For a path that is there, and a method that is not.
pub async fn method_not_allowed() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "the Allow header lists the methods of this path")
}
