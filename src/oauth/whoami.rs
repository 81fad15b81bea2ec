//! What the caller's own credential is worth now.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Learnt, No, OAuth, Request};
use crate::access::standing;
use crate::authn::{self, Credential};
use crate::bearer::Origin;
use crate::gate::Proof;
use crate::token::Means;

impl OAuth {
    pub(super) async fn whoami(&self, request: &Request, learnt: &mut Learnt) -> Result<Value, No> {
        let presented = authn::credential(request.authorization.as_ref().map(http::HeaderValue::as_bytes));
        let presented = presented.map_err(|denial| self.gate.refused(denial, request.peer))?;
        if let Credential::Bearer(token) = &presented {
            // So that its key is here, if it can be. What the token is worth is said below.
            let _ = self.gate.bearers().find(token).await;
        }
        let known = self.gate.authenticate(&presented, request.peer, Duration::ZERO, &mut learnt.whose)?;
        standing(&known.facts).map_err(|denial| {
            learnt.whose.refused(&known.proof, &denial);
            self.gate.refused(denial, request.peer)
        })?;
        let party = &known.party;
        let (quota, passes) = self.gate.count(party);
        learnt.quota.clone_from(&quota);
        passes?;
        let mut document = json!({ "practice_id": party.practice_id().as_str(), "token_type": null });
        if let Some(user) = party.user_id() {
            document["user_id"] = user.as_str().into();
        }
        let generation = match &known.proof {
            Proof::Secret(generation) => {
                document["scope"] = party.client().map(|client| client.scope_text()).into();
                Some(*generation)
            }
            Proof::Bearer(bearer) => {
                document["token_type"] = "Bearer".into();
                document["scope"] = bearer.scopes(party).to_str().unwrap_or_default().into();
                document["iat"] = bearer.issued_at().map(|at| at.0.div_euclid(1000)).into();
                document["exp"] = bearer.expires_at().0.div_euclid(1000).into();
                match bearer.origin() {
                    Origin::Own { means: Means::Secret(generation), .. } => Some(*generation),
                    Origin::Own { .. } | Origin::Trusted { .. } => None,
                }
            }
        };
        if let Some(client) = party.client() {
            document["client_id"] = client.id().to_text().into();
            document["client_expires_at"] = client.expires_at().map(|at| at.to_string()).into();
            if let Some(generation) = generation {
                document["secret_generation"] = generation.into();
                document["secret_expires_at"] = client.secret_end(generation).map(|at| at.to_string()).into();
            }
        }
        if let Some(quota) = quota {
            document["rate_limit"] = json!({
                "policy": &*quota.policy, "limit": quota.burst, "window_secs": quota.window_secs,
                "remaining": quota.remaining, "reset_secs": quota.reset_secs,
            });
        }
        Ok(document)
    }
}
