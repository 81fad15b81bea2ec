//! What is recorded of one request, however it ended. Never a secret, a token, a body or a query.

use std::net::IpAddr;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::id::ClientId;
use crate::route::Route;

/// The outcome of a request that passed.
pub const PERMIT: &str = "permit";
/// The same, after the end of the lease: by what was known at its end, and by the `stale_grace_ms` of the route.
pub const PERMIT_IN_GRACE: &str = "permit_in_grace";

/// The outcome of a request that the gateway answered itself, as it was asked to.
pub const ANSWERED: &str = "answered";
/// The outcomes of such requests that are errors of RFC 6749 §5.2 and no denials.
pub const OAUTH_ERRORS: [&str; 5] =
    ["invalid_request", "invalid_scope", "unauthorized_client", "unsupported_grant_type", "unsupported_token_type"];

/// One request, for the access log and the metrics.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// When its header was complete.
    pub at: Timestamp,
    /// The id that the caller and the upstream know it by.
    pub request_id: &'a str,
    /// Who sent it: the connection's address, or what a trusted proxy says.
    pub peer: IpAddr,
    /// `HTTP/1.1`, `HTTP/2`; what else was sent is refused.
    pub version: &'static str,
    /// The method as sent; may be any token.
    pub method: &'a str,
    /// The path in its canonical spelling, or as sent where it has none; never the query.
    pub path: &'a str,
    /// The route.
    pub route: Option<&'a Route>,
    /// The practice of the client, once the credential was found genuine, even if its time is over.
    pub practice: Option<&'a str>,
    /// The client, likewise.
    pub client: Option<ClientId>,
    /// On behalf of whom it was, once that is known.
    pub user: Option<&'a str>,
    /// The owner of the client, if it is personal.
    pub owner: Option<&'a str>,
    /// The secret by which it was admitted; 0: a key of the client's own.
    pub generation: Option<u32>,
    /// The secret that was shown although it had ended, or its client had.
    pub ended: Option<u32>,
    /// [`PERMIT`], [`PERMIT_IN_GRACE`], [`ANSWERED`], one of [`OAUTH_ERRORS`], or the label of the denial.
    pub outcome: &'static str,
    /// The status of the answer; 0 if the connection ended before one.
    pub status: u16,
    /// From the complete header to the end of the answer.
    pub latency: Duration,
    /// From asking the upstream, the last time if more than once, to the header of its answer.
    pub upstream_latency: Option<Duration>,
    /// Content received.
    pub request_bytes: u64,
    /// Content sent.
    pub response_bytes: u64,
}

/// Takes note of every request. Called once for each, on the hot path: must not block.
pub trait Recorder: Send + Sync {
    /// Takes note of one request.
    fn record(&self, record: &Record<'_>);
}
