//! Tokens for clients (RFC 6749 §4.4), as RFC 9068 has them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use super::client::Authenticated;
use super::form::Form;
use super::{Failure, Learnt, No, OAuth, Request};
use crate::access::Denial;
use crate::cache::ClientRecord;
use crate::clock::{self, Timestamp};
use crate::id::TokenId;
use crate::scope::ScopeToken;
use crate::token::{AccessToken, Means};

/// The most scopes that are asked for at once.
const MAX_SCOPES: usize = 128;

impl OAuth {
    pub(super) async fn issue(&self, request: &Request, learnt: &mut Learnt) -> Result<Value, No> {
        let form = Form::read(request.content_type.as_ref(), &request.content)?;
        let authenticated = self.client(request, &form, learnt).await?;
        if form.require("grant_type")? != "client_credentials" {
            return Err(Failure::new("unsupported_grant_type", "the grant_type is client_credentials, and no other").into());
        }
        let scopes = self.scopes(authenticated.client(), form.get("scope"))?;
        let (token, lifetime) = self.token(&authenticated, &scopes)?;
        self.counts.issued.fetch_add(1, Ordering::Relaxed);
        let scope = scopes.iter().map(ScopeToken::as_str).collect::<Vec<_>>().join(" ");
        Ok(json!({ "access_token": token, "token_type": "Bearer", "expires_in": lifetime.as_secs(), "scope": scope }))
    }

    /// What was asked for, all of which the client was granted; without being asked, all that it was granted.
    fn scopes(&self, client: &ClientRecord, asked: Option<&str>) -> Result<Vec<ScopeToken>, Failure> {
        let invalid = |why: &str| Failure::new("invalid_scope", why);
        let Some(asked) = asked else {
            return client
                .scope_text()
                .split(' ')
                .map(str::parse)
                .collect::<Result<_, _>>()
                .map_err(|_| invalid("the client has no scope"));
        };
        let granted: Vec<&str> = client.scope_text().split(' ').collect();
        let declared = self.gate.scopes();
        let mut scopes: Vec<ScopeToken> = Vec::new();
        for name in asked.split(' ') {
            let scope: ScopeToken = name.parse().map_err(|_| invalid("scopes are words with one blank between them"))?;
            let covered = granted.contains(&scope.as_str()) || granted.contains(&ScopeToken::ALL) && declared.contains(&scope);
            if !covered {
                return Err(invalid("a scope is not known, or was not granted to the client"));
            }
            if !scopes.contains(&scope) {
                scopes.push(scope);
            }
            if scopes.len() > MAX_SCOPES {
                return Err(invalid("there are too many scopes"));
            }
        }
        Ok(scopes)
    }

    /// A token, and how long it lives: no longer than what it was got with.
    fn token(&self, authenticated: &Authenticated, scopes: &[ScopeToken]) -> Result<(String, Duration), No> {
        let (client, means) = (authenticated.client(), &authenticated.means);
        let now = clock::now();
        let secret_end = match means {
            Means::Secret(generation) => client.secret_end(*generation),
            Means::Key(_) => None,
        };
        let end =
            [Some(now.after(self.settings.token_lifetime)), client.expires_at(), secret_end].into_iter().flatten().min().unwrap_or(now);
        let whole = |at: Timestamp| Timestamp(at.0.div_euclid(1000) * 1000);
        let (issued_at, expires_at) = (whole(now), whole(end));
        let lifetime = Duration::from_millis(u64::try_from(expires_at.0 - issued_at.0).unwrap_or(0));
        let ring = self.gate.replica().ring();
        let Some(signer) = ring.signer(now) else {
            tracing::error!("there is no signing key, so no token can be issued: `sigmagate signing-key rotate --at-once` makes one");
            return Err(Denial::Unavailable.into());
        };
        let own = &self.own;
        let token = AccessToken {
            issuer: own.issuer.to_string(),
            audience: own.audience.to_string(),
            client_id: client.id(),
            practice_id: client.practice_id().clone(),
            means: means.clone(),
            scopes: scopes.to_vec(),
            id: TokenId::random(),
            issued_at,
            expires_at,
        };
        let signed = signer.sign(&token).map_err(|error| {
            tracing::error!(%error, "a token could not be signed");
            No::Denied(Denial::Internal)
        })?;
        Ok((signed, lifetime))
    }
}
