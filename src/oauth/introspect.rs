//! What a token is worth now (RFC 7662).

use std::time::Duration;

use serde_json::{Value, json};

use super::client::Asker;
use super::form::Form;
use super::{Learnt, No, OAuth, Request};
use crate::access::{Denial, Facts, standing};
use crate::bearer::Origin;
use crate::cache::Stale;
use crate::clock::{self, Timestamp};

impl OAuth {
    pub(super) async fn introspect(&self, request: &Request, learnt: &mut Learnt) -> Result<Value, No> {
        let form = Form::read(request.content_type.as_ref(), &request.content)?;
        let asker = self.asker(request, &form, learnt).await?;
        let token = form.require("token")?;
        let inactive = json!({ "active": false });
        let bearer = match self.gate.bearers().find(token.as_bytes()).await {
            Ok(bearer) => bearer,
            Err(unread) => match Denial::from(unread) {
                Denial::Unavailable => return Err(Denial::Unavailable.into()),
                _ => return Ok(inactive),
            },
        };
        let now = clock::now();
        // A client sees its own tokens, and nothing of those of others.
        if let Asker::Client(client) = &asker
            && Some(client.client().id()) != bearer.client_id()
        {
            return Ok(inactive);
        }
        let judged = self.gate.replica().view(Duration::ZERO, |view| bearer.stands(view, request.peer, now));
        let (judged, _) = judged.map_err(|Stale| No::Denied(Denial::Unavailable))?;
        let Ok((party, facts)) = judged else { return Ok(inactive) };
        // From where the token will be used is not known here.
        match standing(&Facts { address_allowed: true, ..facts }) {
            Ok(()) => {}
            Err(Denial::Unavailable) => return Err(Denial::Unavailable.into()),
            Err(_) => return Ok(inactive),
        }
        let secs = |at: Timestamp| at.0.div_euclid(1000);
        let mut document = json!({
            "active": true,
            "scope": bearer.scopes(&party).to_str().unwrap_or_default(),
            "practice_id": party.practice_id().as_str(),
            "token_type": "Bearer",
            "exp": secs(bearer.expires_at()),
        });
        match bearer.origin() {
            Origin::Own { token, .. } => {
                document["iss"] = (*self.own.issuer).into();
                document["aud"] = (*self.own.audience).into();
                document["jti"] = token.to_string().into();
            }
            Origin::Trusted { issuer, .. } => document["iss"] = (*issuer.issuer().trust.name).into(),
        }
        if let Some(at) = bearer.issued_at() {
            document["iat"] = secs(at).into();
        }
        if let Some(client) = party.client_id() {
            document["client_id"] = client.to_text().into();
            document["sub"] = client.to_text().into();
        }
        if let Some(user) = party.user_id() {
            document["user_id"] = user.as_str().into();
        }
        Ok(document)
    }
}
