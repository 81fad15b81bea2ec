//! What a token is worth now (RFC 7662).

use std::time::Duration;

use serde_json::{Value, json};

use super::client::Asker;
use super::form::Form;
use super::{Learnt, No, OAuth, Request};
use crate::access::{Denial, Facts, standing};
use crate::cache::Stale;
use crate::clock;

impl OAuth {
    pub(super) async fn introspect(&self, request: &Request, learnt: &mut Learnt) -> Result<Value, No> {
        let form = Form::read(request.content_type.as_ref(), &request.content)?;
        let asker = self.asker(request, &form, learnt).await?;
        let token = form.require("token")?;
        let inactive = json!({ "active": false });
        let now = clock::now();
        let Ok(bearer) = self.bearers.read(token.as_bytes(), now) else { return Ok(inactive) };
        // A client sees its own tokens, and nothing of those of others.
        if let Asker::Client(client) = &asker
            && client.client().id() != bearer.client_id()
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
        let own = self.bearers.own();
        let mut document = json!({
            "active": true,
            "scope": bearer.scopes(&party).to_str().unwrap_or_default(),
            "client_id": bearer.client_id().to_text(),
            "sub": bearer.client_id().to_text(),
            "practice_id": party.practice_id().as_str(),
            "token_type": "Bearer",
            "iss": &*own.issuer,
            "aud": &*own.audience,
            "jti": bearer.token_id().to_string(),
            "iat": bearer.issued_at().0.div_euclid(1000),
            "exp": bearer.expires_at().0.div_euclid(1000),
        });
        if let Some(user) = party.user_id() {
            document["user_id"] = user.as_str().into();
        }
        Ok(document)
    }
}
