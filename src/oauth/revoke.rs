//! A client gives one of its tokens up (RFC 7009): when that is answered, no node accepts it any more.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use super::assertion::chain;
use super::form::Form;
use super::{Failure, Learnt, No, OAuth, Request};
use crate::access::Denial;
use crate::bearer::Origin;
use crate::cache::Stale;
use crate::clock;
use crate::entity::RevokedToken;
use crate::store::Actor;

impl OAuth {
    pub(super) async fn revoke(&self, request: &Request, learnt: &mut Learnt) -> Result<Value, No> {
        let form = Form::read(request.content_type.as_ref(), &request.content)?;
        let client = self.client(request, &form, learnt).await?;
        let token = form.require("token")?;
        // §2.2: that a token does not count is what the caller wants.
        let Ok(bearer) = self.gate.bearers().find(token.as_bytes()).await else { return Ok(json!({})) };
        let now = clock::now();
        let id = client.client().id();
        if bearer.client_id() != Some(id) {
            return Err(Failure::new("unauthorized_client", "the token was issued to another client").into());
        }
        let Origin::Own { token, .. } = bearer.origin() else {
            return Err(Failure::new("unsupported_token_type", "the token was issued elsewhere: have it revoked there").into());
        };
        // Also a token that does not count now: what it rests on may be put back.
        let known = self.gate.replica().view(Duration::ZERO, |view| view.is_revoked(*token));
        let (known, _) = known.map_err(|Stale| No::Denied(Denial::Unavailable))?;
        if !known {
            let revoked = RevokedToken { id: *token, client_id: id, expires_at: bearer.expires_at(), revoked_at: now };
            let by = Actor { name: format!("client:{id}"), origin: request.peer.to_string() };
            let lifecycle = self.lifecycle.clone();
            self.stored(async move { lifecycle.revoke_token(&revoked, &by).await }).await?.map_err(|error| {
                tracing::error!(client = %id, error = %chain(&error), "a token could not be revoked, or not be seen to be");
                No::Denied(Denial::Unavailable)
            })?;
            self.counts.revoked.fetch_add(1, Ordering::Relaxed);
        }
        Ok(json!({}))
    }
}
