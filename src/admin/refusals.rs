//! The refusals that every path of the API has, for the document.

use utoipa::IntoResponses;

use super::problem::Document;

/// Whatever is asked for.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "describes answers")]
pub enum Refusals {
    /// The request cannot be read; `field` says where.
    #[response(status = 400, content_type = "application/problem+json")]
    Malformed(#[to_schema] Document),
    /// The caller has not shown who they are.
    #[response(status = 401, content_type = "application/problem+json", headers(("WWW-Authenticate", description = "Bearer")))]
    Unauthenticated(#[to_schema] Document),
    /// The caller may not do this.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(#[to_schema] Document),
    /// There is nothing of that id, or nothing that the caller may see.
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(#[to_schema] Document),
    /// The present state does not allow it.
    #[response(status = 409, content_type = "application/problem+json")]
    Conflict(#[to_schema] Document),
    /// It is another one by now than `If-Match` says.
    #[response(status = 412, content_type = "application/problem+json")]
    Changed(#[to_schema] Document),
    /// The content is too long.
    #[response(status = 413, content_type = "application/problem+json")]
    TooLarge(#[to_schema] Document),
    /// The content is of another type.
    #[response(status = 415, content_type = "application/problem+json")]
    MediaType(#[to_schema] Document),
    /// It can be read, and makes no sense.
    #[response(status = 422, content_type = "application/problem+json")]
    Invalid(#[to_schema] Document),
    /// The store does not answer, or the change could not be seen to be in force.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(#[to_schema] Document),
}
