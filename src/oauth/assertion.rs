//! A client that shows who it is by signing (RFC 7523 §2.2 and §3; `private_key_jwt`, as SMART Backend Services asks for).

use std::time::Duration;

use sha2::{Digest, Sha256};

use super::{No, OAuth, Request};
use crate::access::{CredentialFault, Denial};
use crate::bearer::LEEWAY;
use crate::cache::{OwnKeys, Party, Stale};
use crate::clock;
use crate::id::ClientId;
use crate::token::{Algorithm, Claims, Compact, Expected, Invalid, Means, Verified, verify};

/// What assertions are signed by.
pub(super) const ALGORITHMS: [Algorithm; 5] = [Algorithm::Rs384, Algorithm::Es384, Algorithm::Ps384, Algorithm::Es256, Algorithm::EdDsa];
/// How far ahead an assertion may end. (SMART asks clients for five minutes; stock libraries take an hour.)
const LONGEST: Duration = Duration::from_hours(1);
/// The longest `jti`.
const MAX_JTI: usize = 256;

impl OAuth {
    /// The client that has signed the assertion, which nobody has used before. `named`: the client that the request names,
    /// if it names one.
    pub(super) async fn by_assertion(&self, assertion: &str, named: &[u8], request: &Request) -> Result<(Party, Means), No> {
        let now = clock::now();
        let fault = |fault: CredentialFault| self.refused(fault, request.peer);
        let invalid = |invalid: Invalid| self.refused(invalid.into(), request.peer);
        let compact = Compact::parse(assertion.as_bytes()).map_err(invalid)?;
        // Only to find the keys by: whether it is true the signature says.
        let claimed = compact.claimed("sub").and_then(|sub| ClientId::parse(sub.as_bytes()));
        let id = claimed.ok_or_else(|| fault(CredentialFault::Malformed))?;
        if !named.is_empty() && named != id.to_text().as_bytes() {
            return Err(fault(CredentialFault::Malformed));
        }
        let read = self.gate.replica().view(Duration::ZERO, |view| {
            view.client(id).map(|client| {
                let facts = client.facts(request.peer, now);
                (client, facts)
            })
        });
        let (found, _) = read.map_err(|Stale| No::Denied(Denial::Unavailable))?;
        let (client, facts) = found.ok_or_else(|| fault(CredentialFault::UnknownClient))?;
        let (verified, mark) = match client.keys() {
            Some(OwnKeys::Set(keys, _)) => {
                let verified = verify(&compact, keys, &ALGORITHMS).map_err(invalid)?;
                let mark = keys.find(compact.kid()).map(crate::token::PublicKey::thumbprint).unwrap_or_default();
                (verified, mark)
            }
            _ => return Err(fault(CredentialFault::UntrustedToken)),
        };
        let text = id.to_text();
        let (jti, until) = self.claims(&verified, &text, request, now).map_err(invalid)?;
        self.may_act(&facts, request.peer)?;
        let digest = Sha256::digest(jti.as_bytes()).into();
        let first = self.lifecycle.store().use_assertion(id, digest, until).await.map_err(|error| {
            tracing::error!(error = %chain(&error), "whether an assertion was used before cannot be told");
            No::Denied(Denial::Unavailable)
        })?;
        if !first {
            return Err(fault(CredentialFault::Replayed));
        }
        Ok((Party::Client(client), Means::Key(mark.into())))
    }

    /// The `jti`, and until when it has to be remembered.
    fn claims(
        &self,
        verified: &Verified,
        id: &str,
        request: &Request,
        now: clock::Timestamp,
    ) -> Result<(String, clock::Timestamp), Invalid> {
        let claims = verified.of_type_if_any(&["JWT", "client-authentication+jwt"])?;
        let audiences = self.audiences(request.endpoint);
        let audiences = audiences.each_ref().map(String::as_str);
        let claims = Claims::check(claims, &Expected { issuer: id, audiences: &audiences, leeway: LEEWAY }, now)?;
        if claims.text("sub")? != Some(id) {
            return Err(Invalid::Claim("sub"));
        }
        if claims.expires_at() > now.after(LONGEST + LEEWAY) {
            return Err(Invalid::Claim("exp"));
        }
        let jti = claims.text("jti")?.filter(|jti| (1..=MAX_JTI).contains(&jti.len())).ok_or(Invalid::Claim("jti"))?;
        Ok((jti.to_owned(), claims.expires_at().after(LEEWAY)))
    }
}

/// An error and what caused it.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
