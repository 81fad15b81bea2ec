//! What a refusal is, and how it looks from outside.
//!
//! The client's side is coarse, the operator's exact: every [`CredentialFault`] looks alike on the wire.

use std::sync::Arc;

use crate::token::Invalid;

/// What makes a request one that could be read in two ways, or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MalformedRequest {
    /// The request target can be read in two ways, or has bytes that RFC 3986 does not allow.
    Target(&'static str),
    /// More than one credential was presented.
    TwoCredentials,
    /// A credential stands in the query string (RFC 6750 §2.3 advises against it, we refuse it).
    CredentialInQuery,
    /// The `Authorization` field cannot be parsed (RFC 9110 §11.6.2).
    Authorization(&'static str),
    /// A field or the framing of the message (RFC 9112 §6, RFC 9113 §8).
    Message(&'static str),
}

impl MalformedRequest {
    /// What to tell the caller.
    #[must_use]
    pub const fn detail(self) -> &'static str {
        match self {
            Self::Target(why) | Self::Authorization(why) | Self::Message(why) => why,
            Self::TwoCredentials => "present one credential, once, in the Authorization header",
            Self::CredentialInQuery => {
                "a credential in the query string is refused, since it ends up in logs: use the Authorization header"
            }
        }
    }

    const fn label(self) -> &'static str {
        match self {
            Self::Target(_) => "malformed_target",
            Self::TwoCredentials => "two_credentials",
            Self::CredentialInQuery => "credential_in_query",
            Self::Authorization(_) => "malformed_authorization",
            Self::Message(_) => "malformed_message",
        }
    }
}

/// Why a credential does not count. For operators and owners; on the wire they are all one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialFault {
    /// Not of the shape of our credentials: nothing was looked up.
    Malformed,
    /// An authentication scheme that no credential here uses.
    UnknownScheme,
    /// No client of that id.
    UnknownClient,
    /// The client exists, the secret is none of its secrets.
    WrongSecret,
    /// The secret was replaced, and its overlap is over.
    SecretEnded,
    /// The client was revoked.
    Revoked,
    /// The client's own expiry has passed.
    Expired,
    /// A bearer token that cannot be one of those that are accepted here.
    MalformedToken,
    /// A bearer token that no issuer we trust has signed.
    UntrustedToken,
    /// A bearer token that was made for something else, or does not say what it must.
    MisdirectedToken,
    /// A bearer token whose time is over.
    TokenExpired,
    /// A bearer token whose time has not come.
    TokenNotYetValid,
    /// A bearer token that was revoked by itself.
    TokenRevoked,
    /// The key is out of use that signed the bearer token, or that it was got with.
    KeyEnded,
    /// An assertion of the client's that was used before (RFC 7523 §3).
    Replayed,
}

impl From<Invalid> for CredentialFault {
    fn from(invalid: Invalid) -> Self {
        match invalid {
            Invalid::TooLong | Invalid::Malformed | Invalid::Json | Invalid::HeaderParameter => Self::MalformedToken,
            Invalid::Algorithm | Invalid::UnknownKey | Invalid::Signature | Invalid::Issuer => Self::UntrustedToken,
            Invalid::Type | Invalid::Claim(_) | Invalid::Audience => Self::MisdirectedToken,
            Invalid::Expired => Self::TokenExpired,
            Invalid::NotYet => Self::TokenNotYetValid,
        }
    }
}

impl CredentialFault {
    /// Every one, for tests and metrics.
    pub const EVERY: [Self; 15] = [
        Self::Malformed,
        Self::UnknownScheme,
        Self::UnknownClient,
        Self::WrongSecret,
        Self::SecretEnded,
        Self::Revoked,
        Self::Expired,
        Self::MalformedToken,
        Self::UntrustedToken,
        Self::MisdirectedToken,
        Self::TokenExpired,
        Self::TokenNotYetValid,
        Self::TokenRevoked,
        Self::KeyEnded,
        Self::Replayed,
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed_credential",
            Self::UnknownScheme => "unknown_scheme",
            Self::UnknownClient => "unknown_client",
            Self::WrongSecret => "wrong_secret",
            Self::SecretEnded => "secret_ended",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::MalformedToken => "malformed_token",
            Self::UntrustedToken => "untrusted_token",
            Self::MisdirectedToken => "misdirected_token",
            Self::TokenExpired => "token_expired",
            Self::TokenNotYetValid => "token_not_yet_valid",
            Self::TokenRevoked => "token_revoked",
            Self::KeyEnded => "key_ended",
            Self::Replayed => "replayed",
        }
    }
}

/// Why a request is refused. Each has one row in DESIGN's table of answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The request can be read in two ways, or not at all.
    Malformed(MalformedRequest),
    /// The request target is longer than the limit.
    UriTooLong,
    /// Too many fields, or too many bytes of them.
    HeadersTooLarge,
    /// No route has this path.
    NoRoute,
    /// The route exists, not for this method; holds the methods it has, as `Allow` lists them.
    MethodNotAllowed(Arc<str>),
    /// An expectation other than `100-continue` (RFC 9110 §10.1.1).
    ExpectationFailed,
    /// The content is longer than the route takes.
    BodyTooLarge,
    /// The content came too slowly.
    RequestTimeout,
    /// A protected route, and nothing was presented.
    CredentialMissing,
    /// Something was presented that does not count.
    CredentialInvalid(CredentialFault),
    /// The practice's API access is not active.
    PracticeDisabled,
    /// The owner's toggle is off, or the owner left the team.
    UserDisabled,
    /// The caller's address is not in the client's list.
    AddressNotAllowed,
    /// The client lacks what the route asks for; holds the scopes that would do, as RFC 6750 §3 lists them.
    InsufficientScope(Arc<str>),
    /// Over the client's rate limit.
    RateLimited {
        /// Whole seconds until the next request would pass.
        retry_after_secs: u64,
    },
    /// As many requests of the client are under way as may be.
    TooManyAtOnce,
    /// This address has failed to authenticate too often.
    TooManyFailures {
        /// Whole seconds until the next attempt is looked at.
        retry_after_secs: u64,
    },
    /// As many requests are under way as the gateway takes.
    Overloaded,
    /// We cannot vouch for freshness.
    Unavailable,
    /// As many requests are under way to the upstream as may be.
    UpstreamBusy,
    /// No server of the upstream is in service.
    NoServer,
    /// The upstream could not be reached.
    UpstreamUnreachable,
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// A fault of ours.
    Internal,
}

impl Denial {
    /// The status code (RFC 9110 §15).
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::CredentialMissing | Self::CredentialInvalid(_) => 401,
            Self::PracticeDisabled | Self::UserDisabled | Self::AddressNotAllowed | Self::InsufficientScope(_) => 403,
            Self::NoRoute => 404,
            Self::MethodNotAllowed(_) => 405,
            Self::RequestTimeout => 408,
            Self::BodyTooLarge => 413,
            Self::UriTooLong => 414,
            Self::ExpectationFailed => 417,
            Self::RateLimited { .. } | Self::TooManyAtOnce | Self::TooManyFailures { .. } => 429,
            Self::HeadersTooLarge => 431,
            Self::Internal => 500,
            Self::NoServer | Self::UpstreamUnreachable => 502,
            Self::Overloaded | Self::UpstreamBusy | Self::Unavailable => 503,
            Self::UpstreamTimeout => 504,
        }
    }

    /// The `code` of the problem document: what programs on the outside may branch on.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed_request",
            Self::UriTooLong => "uri_too_long",
            Self::HeadersTooLarge => "headers_too_large",
            Self::NoRoute => "no_route",
            Self::MethodNotAllowed(_) => "method_not_allowed",
            Self::ExpectationFailed => "expectation_failed",
            Self::BodyTooLarge => "body_too_large",
            Self::RequestTimeout => "request_timeout",
            Self::CredentialMissing => "credential_missing",
            Self::CredentialInvalid(_) => "credential_invalid",
            Self::PracticeDisabled => "practice_access_disabled",
            Self::UserDisabled => "user_access_disabled",
            Self::AddressNotAllowed => "address_not_allowed",
            Self::InsufficientScope(_) => "insufficient_scope",
            Self::RateLimited { .. } | Self::TooManyAtOnce | Self::TooManyFailures { .. } => "rate_limited",
            Self::Overloaded | Self::UpstreamBusy | Self::Unavailable => "unavailable",
            Self::NoServer | Self::UpstreamUnreachable => "upstream_unreachable",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::Internal => "internal_error",
        }
    }

    /// The exact reason: the label of metrics and logs, never sent to the caller of a 401.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Malformed(why) => why.label(),
            Self::CredentialInvalid(fault) => fault.label(),
            Self::TooManyAtOnce => "too_many_at_once",
            Self::TooManyFailures { .. } => "too_many_failures",
            Self::Overloaded => "overloaded",
            Self::UpstreamBusy => "upstream_busy",
            Self::NoServer => "no_server",
            Self::UriTooLong
            | Self::HeadersTooLarge
            | Self::NoRoute
            | Self::MethodNotAllowed(_)
            | Self::ExpectationFailed
            | Self::BodyTooLarge
            | Self::RequestTimeout
            | Self::CredentialMissing
            | Self::PracticeDisabled
            | Self::UserDisabled
            | Self::AddressNotAllowed
            | Self::InsufficientScope(_)
            | Self::RateLimited { .. }
            | Self::Unavailable
            | Self::UpstreamUnreachable
            | Self::UpstreamTimeout
            | Self::Internal => self.code(),
        }
    }

    /// Every label there is: the bound of the metrics that carry one.
    #[must_use]
    pub fn every_label() -> Vec<&'static str> {
        Self::examples().iter().map(Self::label).collect()
    }

    /// One of each, for the tables of tests and metrics.
    #[must_use]
    pub fn examples() -> Vec<Self> {
        let mut every = vec![
            Self::Malformed(MalformedRequest::Target("an example")),
            Self::Malformed(MalformedRequest::TwoCredentials),
            Self::Malformed(MalformedRequest::CredentialInQuery),
            Self::Malformed(MalformedRequest::Authorization("an example")),
            Self::Malformed(MalformedRequest::Message("an example")),
            Self::UriTooLong,
            Self::HeadersTooLarge,
            Self::NoRoute,
            Self::MethodNotAllowed("GET".into()),
            Self::ExpectationFailed,
            Self::BodyTooLarge,
            Self::RequestTimeout,
            Self::CredentialMissing,
            Self::PracticeDisabled,
            Self::UserDisabled,
            Self::AddressNotAllowed,
            Self::InsufficientScope("billing".into()),
            Self::RateLimited { retry_after_secs: 1 },
            Self::TooManyAtOnce,
            Self::TooManyFailures { retry_after_secs: 1 },
            Self::Overloaded,
            Self::Unavailable,
            Self::UpstreamBusy,
            Self::NoServer,
            Self::UpstreamUnreachable,
            Self::UpstreamTimeout,
            Self::Internal,
        ];
        every.extend(CredentialFault::EVERY.map(Self::CredentialInvalid));
        every
    }

    /// The title of the problem document (RFC 9457 §3.1.3).
    #[must_use]
    pub const fn title(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "Malformed request",
            Self::UriTooLong => "Request target too long",
            Self::HeadersTooLarge => "Request header fields too large",
            Self::NoRoute => "No such route",
            Self::MethodNotAllowed(_) => "Method not allowed",
            Self::ExpectationFailed => "Expectation failed",
            Self::BodyTooLarge => "Content too large",
            Self::RequestTimeout => "Request timeout",
            Self::CredentialMissing => "Credential missing",
            Self::CredentialInvalid(_) => "Credential invalid",
            Self::PracticeDisabled => "API access of the practice is off",
            Self::UserDisabled => "API access of the user is off",
            Self::AddressNotAllowed => "Address not allowed",
            Self::InsufficientScope(_) => "Insufficient scope",
            Self::RateLimited { .. } => "Rate limit exceeded",
            Self::TooManyAtOnce => "Too many requests at once",
            Self::TooManyFailures { .. } => "Too many failed attempts",
            Self::Overloaded | Self::UpstreamBusy | Self::Unavailable => "Temporarily unavailable",
            Self::NoServer | Self::UpstreamUnreachable => "Upstream unreachable",
            Self::UpstreamTimeout => "Upstream timeout",
            Self::Internal => "Internal error",
        }
    }

    /// What the caller can do about it (RFC 9457 §3.1.4).
    #[must_use]
    pub const fn detail(&self) -> &'static str {
        match self {
            Self::Malformed(why) => why.detail(),
            Self::UriTooLong => "shorten the path or the query",
            Self::HeadersTooLarge => "send fewer or shorter header fields",
            Self::NoRoute => "nothing is served under this path",
            Self::MethodNotAllowed(_) => "the Allow header lists the methods of this path",
            Self::ExpectationFailed => "the only expectation that can be met is 100-continue",
            Self::BodyTooLarge => "the content is larger than this route takes",
            Self::RequestTimeout => "the content did not arrive in time",
            Self::CredentialMissing => "present a client id and secret (HTTP Basic) or a bearer token",
            Self::CredentialInvalid(_) => "the credential does not work: ask its owner, quoting the request id",
            Self::PracticeDisabled => "an administrator of the practice can turn its API access on",
            Self::UserDisabled => "an administrator of the practice can turn this user's API access on",
            Self::AddressNotAllowed => "this client may call only from the addresses in its list",
            Self::InsufficientScope(_) => "the client has none of the scopes that this route requires",
            Self::RateLimited { .. } => "retry after the time that Retry-After states",
            Self::TooManyAtOnce => "as many requests of this client are under way as may be at once: wait for one of them to end",
            Self::TooManyFailures { .. } => {
                "this address has failed to authenticate too often: retry after the time that Retry-After states"
            }
            Self::Overloaded => "the gateway has all it can do: retry after the time that Retry-After states",
            Self::Unavailable => "access cannot be checked at the moment: retry after the time that Retry-After states",
            Self::UpstreamBusy => "the service behind the gateway has all it can do: retry after the time that Retry-After states",
            Self::NoServer => "no server of the service behind the gateway is in service",
            Self::UpstreamUnreachable => "the service behind the gateway could not be reached",
            Self::UpstreamTimeout => "the service behind the gateway did not answer in time",
            Self::Internal => "the gateway failed to handle the request; the fault is ours",
        }
    }

    /// How long to wait before trying again, in whole seconds, where that is known.
    #[must_use]
    pub const fn retry_after_secs(&self) -> Option<u64> {
        match self {
            Self::RateLimited { retry_after_secs } | Self::TooManyFailures { retry_after_secs } => Some(*retry_after_secs),
            Self::TooManyAtOnce | Self::Overloaded | Self::UpstreamBusy | Self::Unavailable => Some(1),
            _ => None,
        }
    }

    /// The `error` parameter of the bearer challenge, where this denial carries a challenge at all (RFC 6750 §3.1);
    /// `Some(None)`: a challenge without an error, since nothing was presented.
    #[must_use]
    pub const fn challenge_error(&self) -> Option<Option<&'static str>> {
        match self {
            Self::CredentialMissing => Some(None),
            Self::CredentialInvalid(_) => Some(Some("invalid_token")),
            Self::InsufficientScope(_) => Some(Some("insufficient_scope")),
            Self::Malformed(
                MalformedRequest::TwoCredentials | MalformedRequest::CredentialInQuery | MalformedRequest::Authorization(_),
            ) => Some(Some("invalid_request")),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_denial_has_a_label_of_its_own() {
        let labels = Denial::every_label();
        assert_eq!(labels.len(), labels.iter().collect::<BTreeSet<_>>().len(), "{labels:?}");
    }

    #[test]
    fn every_fault_of_a_credential_looks_the_same_from_outside() {
        let first = Denial::CredentialInvalid(CredentialFault::EVERY[0]);
        for fault in CredentialFault::EVERY {
            let denial = Denial::CredentialInvalid(fault);
            assert_eq!(
                (denial.status(), denial.code(), denial.title(), denial.detail(), denial.challenge_error(), denial.retry_after_secs()),
                (first.status(), first.code(), first.title(), first.detail(), first.challenge_error(), first.retry_after_secs()),
                "{fault:?}"
            );
        }
    }

    #[test]
    fn a_401_always_carries_a_challenge() {
        for denial in Denial::examples() {
            assert!(denial.status() != 401 || denial.challenge_error().is_some(), "{denial:?}");
        }
    }
}
