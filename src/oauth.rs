//! The authorization server (RFC 6749 §4.4): tokens for clients, their revocation (RFC 7009) and introspection (RFC 7662),
//! and what others may know of it (RFC 8414, RFC 7517).
//!
//! Takes requests apart that the data plane has read whole, and says what to answer. What it decides rests on the same
//! live state as every other decision.

mod assertion;
mod client;
mod form;
mod introspect;
mod issue;
mod published;
mod revoke;
mod whoami;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::access::{Denial, MalformedRequest};
use crate::authn;
use crate::bearer::Own;

use crate::config;
use crate::gate::{Gate, Whose};
use crate::jwks::ClientKeySets;
use crate::lifecycle::Lifecycle;
use crate::limit::Quota;
use crate::route::RequestTarget;

/// The longest form that is read, in bytes.
pub const FORM_LIMIT: usize = 32 * 1024;

/// What the gateway answers itself, by its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/oauth/token` (RFC 6749 §3.2).
    Token,
    /// `/oauth/revoke` (RFC 7009).
    Revoke,
    /// `/oauth/introspect` (RFC 7662).
    Introspect,
    /// `/oauth/whoami`.
    WhoAmI,
    /// `/.well-known/oauth-authorization-server` (RFC 8414).
    Metadata,
    /// `/.well-known/jwks.json` (RFC 7517).
    Keys,
}

impl Endpoint {
    /// Every one, in the order of [`config::OAUTH_PATHS`].
    pub const EVERY: [Self; 6] = [Self::Token, Self::Revoke, Self::Introspect, Self::WhoAmI, Self::Metadata, Self::Keys];

    /// Its path.
    #[must_use]
    pub const fn path(self) -> &'static str {
        config::OAUTH_PATHS[self as usize]
    }

    /// The endpoint of a request target in any spelling that has one meaning.
    #[must_use]
    pub fn of(target: &[u8]) -> Option<Self> {
        // Most targets are not looked at twice.
        let may_be =
            target.starts_with(b"/oauth/") || target.starts_with(b"/.well-known/") || target.get(..40.min(target.len()))?.contains(&b'%');
        let target = may_be.then(|| RequestTarget::parse(target).ok()).flatten()?;
        Self::EVERY.into_iter().find(|endpoint| endpoint.path() == target.path())
    }

    /// Whether it takes a form.
    #[must_use]
    pub const fn takes_form(self) -> bool {
        matches!(self, Self::Token | Self::Revoke | Self::Introspect)
    }

    const fn allow(self) -> &'static str {
        if self.takes_form() { "POST" } else { "GET, HEAD" }
    }
}

/// A request to one of the endpoints, read whole.
#[derive(Debug)]
pub struct Request {
    /// What it is for.
    pub endpoint: Endpoint,
    /// The method.
    pub method: Method,
    /// The query, if there is one.
    pub query: Option<String>,
    /// The one `Authorization` field.
    pub authorization: Option<HeaderValue>,
    /// `Content-Type`.
    pub content_type: Option<HeaderValue>,
    /// The content.
    pub content: Bytes,
    /// Who is calling.
    pub peer: IpAddr,
}

/// What to answer.
#[derive(Debug)]
pub struct Answer {
    /// What it says.
    pub content: Content,
    /// Who asked, once that is known.
    pub whose: Whose,
    /// What is left of their rate limit.
    pub quota: Option<Quota>,
}

/// What an answer says.
#[derive(Debug)]
pub enum Content {
    /// A document; 200.
    Document {
        /// In JSON.
        json: Value,
        /// How long others may keep it; `None`: not at all.
        keep: Option<Duration>,
    },
    /// An error of RFC 6749 §5.2.
    Error(Failure),
    /// A refusal as on any other path.
    Denied(Denial),
}

/// An error of RFC 6749 §5.2.
#[derive(Debug)]
pub struct Failure {
    /// `error`.
    pub code: &'static str,
    /// `error_description`, in ASCII without quotes and backslashes.
    pub description: String,
    /// The exact reason, for operators; never sent.
    pub label: &'static str,
}

impl Failure {
    fn new(code: &'static str, description: impl Into<String>) -> Self {
        Self { code, description: description.into(), label: code }
    }

    fn request(description: impl Into<String>) -> Self {
        Self::new("invalid_request", description)
    }

    /// 401 for a client that has not shown who it is, else 400.
    #[must_use]
    pub fn status(&self) -> u16 {
        if self.code == "invalid_client" { 401 } else { 400 }
    }

    /// The document.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({ "error": self.code, "error_description": self.description })
    }
}

/// Why there is no document.
enum No {
    Error(Failure),
    Denied(Denial),
}

impl From<Failure> for No {
    fn from(failure: Failure) -> Self {
        Self::Error(failure)
    }
}

impl From<Denial> for No {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial)
    }
}

/// What is learnt on the way to an answer.
#[derive(Default)]
struct Learnt {
    whose: Whose,
    quota: Option<Quota>,
}

/// How many tokens were issued, and revoked by themselves.
#[derive(Debug, Default)]
pub struct Counts {
    issued: AtomicU64,
    revoked: AtomicU64,
}

impl Counts {
    /// Issued.
    #[must_use]
    pub fn issued(&self) -> u64 {
        self.issued.load(Ordering::Relaxed)
    }

    /// Revoked by themselves.
    #[must_use]
    pub fn revoked(&self) -> u64 {
        self.revoked.load(Ordering::Relaxed)
    }
}

/// The authorization server.
pub struct OAuth {
    gate: Arc<Gate>,
    lifecycle: Lifecycle,
    own: Own,
    settings: config::OAuth,
    client_keys: ClientKeySets,
    /// Where the store is used, to which its connections belong. What has begun there goes on if the caller leaves.
    control: Handle,
    counts: Arc<Counts>,
}

impl OAuth {
    /// An authorization server of that name, which asks this gate who somebody is; keys of clients that are at a URL are
    /// taken from `client_keys`. Within the runtime to which the store belongs; requests may come on others.
    #[must_use]
    pub fn new(gate: Arc<Gate>, lifecycle: Lifecycle, own: Own, settings: config::OAuth, client_keys: ClientKeySets) -> Self {
        Self { gate, lifecycle, own, settings, client_keys, control: Handle::current(), counts: Arc::default() }
    }

    /// How many tokens were issued, and revoked by themselves.
    #[must_use]
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// Says what to answer.
    pub async fn respond(&self, request: Request) -> Answer {
        let mut learnt = Learnt::default();
        let content = match self.answer(&request, &mut learnt).await {
            Ok((json, keep)) => Content::Document { json, keep },
            Err(No::Error(failure)) => Content::Error(failure),
            Err(No::Denied(denial)) => Content::Denied(denial),
        };
        Answer { content, whose: learnt.whose, quota: learnt.quota }
    }

    async fn answer(&self, request: &Request, learnt: &mut Learnt) -> Result<(Value, Option<Duration>), No> {
        if request.query.as_deref().is_some_and(authn::credential_in_query) {
            return Err(Denial::Malformed(MalformedRequest::CredentialInQuery).into());
        }
        let fits = if request.endpoint.takes_form() {
            request.method == Method::POST
        } else {
            matches!(request.method, Method::GET | Method::HEAD)
        };
        if !fits {
            return Err(Denial::MethodNotAllowed(request.endpoint.allow().into()).into());
        }
        match request.endpoint {
            Endpoint::Metadata => Ok((self.metadata(), Some(published::KEEP))),
            Endpoint::Keys => Ok((self.keys(), Some(published::KEEP))),
            Endpoint::WhoAmI => Ok((self.whoami(request, learnt).await?, None)),
            Endpoint::Token => Ok((self.issue(request, learnt).await?, None)),
            Endpoint::Introspect => Ok((self.introspect(request, learnt).await?, None)),
            Endpoint::Revoke => Ok((self.revoke(request, learnt).await?, None)),
        }
    }

    /// Works with the store, to the end.
    async fn stored<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Result<T, No> {
        self.control.spawn(work).await.map_err(|_| No::Denied(Denial::Internal))
    }

    fn issuer(&self) -> &str {
        &self.own.issuer
    }

    fn url(&self, endpoint: Endpoint) -> String {
        format!("{}{}", self.issuer(), endpoint.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_found_in_every_spelling_that_means_it_and_in_no_other() {
        for endpoint in Endpoint::EVERY {
            assert_eq!(Endpoint::of(endpoint.path().as_bytes()), Some(endpoint));
            assert_eq!(Endpoint::of(format!("{}?a=b", endpoint.path()).as_bytes()), Some(endpoint));
            assert_eq!(Endpoint::of(format!("{}/", endpoint.path()).as_bytes()), None);
            assert_eq!(Endpoint::of(endpoint.path().to_uppercase().as_bytes()), None);
        }
        assert_eq!(Endpoint::of(b"/%6fauth/token"), Some(Endpoint::Token));
        assert_eq!(Endpoint::of(b"/oauth/%74oken"), Some(Endpoint::Token));
        for none in ["/", "", "/oauth", "/oauth//token", "/oauth/../oauth/token", "/oauth/token;x=1", "/api%2foauth/token", "/billing"] {
            assert_eq!(Endpoint::of(none.as_bytes()), None, "{none}");
        }
    }
}
