//! The management API in process: for whoever holds the store itself, and so needs no token.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode};
use axum::middleware;
use tower::ServiceExt;

use super::api::{self, Api, CONTENT};
use super::caller::Caller;
use super::request_id;
use crate::id::UserId;
use crate::lifecycle::Lifecycle;
use crate::store;

/// The API, and who calls it.
pub struct Local {
    router: Router,
    caller: Caller,
}

impl Local {
    /// For an operator.
    #[must_use]
    pub fn operator(lifecycle: Lifecycle) -> Self {
        Self::by(lifecycle, Caller::in_process())
    }

    /// For one of a practice's people.
    ///
    /// # Errors
    /// There is no such user, or no more, or the store fails.
    pub async fn user(lifecycle: Lifecycle, id: &UserId) -> Result<Self, store::Error> {
        let user = lifecycle.store().user(id).await?;
        if let Some(at) = user.left_at {
            return Err(store::Error::Conflict(format!("user `{id}` left the team at {at}")));
        }
        Ok(Self::by(lifecycle, Caller::for_user(user)))
    }

    fn by(lifecycle: Lifecycle, caller: Caller) -> Self {
        let api = Arc::new(Api::without_gateway(lifecycle));
        let router =
            api::trusting(&api).layer(DefaultBodyLimit::max(CONTENT)).with_state(api).layer(middleware::from_fn(request_id::assign));
        Self { router, caller }
    }

    /// Carries a request out: the status, and the content.
    ///
    /// # Errors
    /// The path is none, or the content could not be read to its end.
    pub async fn call(&self, method: Method, path: &str, content: Option<(&'static str, Vec<u8>)>) -> anyhow::Result<(StatusCode, Bytes)> {
        let mut request = Request::builder().method(method).uri(path);
        let body = match content {
            Some((media, content)) => {
                request = request.header(CONTENT_TYPE, media);
                Body::from(content)
            }
            None => Body::empty(),
        };
        let mut request = request.body(body)?;
        request.extensions_mut().insert(self.caller.clone());
        let response = self.router.clone().oneshot(request).await?;
        Ok((response.status(), to_bytes(response.into_body(), usize::MAX).await?))
    }
}
