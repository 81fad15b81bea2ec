//! What everybody may know (RFC 8414, RFC 7517 §5).

use std::time::Duration;

use serde_json::{Value, json};

use super::assertion::ALGORITHMS;
use super::{Endpoint, OAuth};
use crate::clock;
use crate::scope::ScopeToken;
use crate::token::PublicKey;

/// How long others may keep it. A new key is published longer than that before it signs, unless it has to sign at once.
pub(super) const KEEP: Duration = Duration::from_mins(5);

impl OAuth {
    /// RFC 8414 §2.
    pub(super) fn metadata(&self) -> Value {
        let scopes = self.gate.scopes();
        let scopes: Vec<&str> = scopes.iter().map(ScopeToken::as_str).chain([ScopeToken::ALL]).collect();
        let methods = ["client_secret_basic", "client_secret_post", "private_key_jwt"];
        let algorithms = ALGORITHMS.map(crate::token::Algorithm::as_str);
        json!({
            "issuer": self.issuer(),
            "token_endpoint": self.url(Endpoint::Token),
            "revocation_endpoint": self.url(Endpoint::Revoke),
            "introspection_endpoint": self.url(Endpoint::Introspect),
            "jwks_uri": self.url(Endpoint::Keys),
            "scopes_supported": scopes,
            "response_types_supported": [],
            "grant_types_supported": ["client_credentials"],
            "token_endpoint_auth_methods_supported": methods,
            "token_endpoint_auth_signing_alg_values_supported": algorithms,
            "revocation_endpoint_auth_methods_supported": methods,
            "revocation_endpoint_auth_signing_alg_values_supported": algorithms,
            "introspection_endpoint_auth_methods_supported": methods,
            "introspection_endpoint_auth_signing_alg_values_supported": algorithms,
        })
    }

    /// The keys that tokens are checked with: those in use, the next one, and those whose last token is not over.
    pub(super) fn keys(&self) -> Value {
        let ring = self.gate.replica().ring();
        let keys: Vec<Value> = ring.published(clock::now()).map(PublicKey::to_jwk).collect();
        json!({ "keys": keys })
    }
}
