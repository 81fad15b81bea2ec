//! A client that shows who it is by signing (RFC 7523 §2.2 and §3; `private_key_jwt`, as SMART Backend Services asks for).

use std::sync::Arc;
use std::time::Duration;

use super::{Learnt, No, OAuth, Request};
use crate::access::{CredentialFault, Denial};
use crate::bearer::LEEWAY;
use crate::cache::{ClientRecord, OwnKeys, Party, Stale};
use crate::clock;
use crate::digest::sha256;
use crate::id::ClientId;
use crate::jwks;
use crate::token::{Algorithm, Claims, Compact, Expected, Invalid, Means, PublicKey, Verified, verify};

/// What assertions are signed by.
pub(super) const ALGORITHMS: [Algorithm; 5] = [Algorithm::Rs384, Algorithm::Es384, Algorithm::Ps384, Algorithm::Es256, Algorithm::EdDsa];
/// How far ahead an assertion may end. (SMART asks clients for five minutes; stock libraries take an hour.)
const LONGEST: Duration = Duration::from_hours(1);
/// The longest `jti`.
const MAX_JTI: usize = 256;

impl OAuth {
    /// The client that has signed the assertion, which nobody has used before. `named`: the client that the request names,
    /// if it names one.
    pub(super) async fn by_assertion(
        &self,
        assertion: &str,
        named: &[u8],
        request: &Request,
        learnt: &mut Learnt,
    ) -> Result<(Party, Means), No> {
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
        let client = self.live(id, request)?;
        // For one that is over nothing is fetched; that it is, is told to nobody who has not proven to be it.
        if client.is_over(now) {
            return Err(fault(CredentialFault::Revoked));
        }
        let (verified, means) = self.signed(&compact, &client, request).await?;
        let text = id.to_text();
        let (jti, until) = self.claims(&verified, &text, request, now).map_err(invalid)?;
        // Keys may have been waited for, and in the meantime the client may have changed.
        let client = self.live(id, request)?;
        if !client.means_usable(&means, now) {
            return Err(fault(CredentialFault::KeyEnded));
        }
        self.may_act(&client.facts(request.peer, now), request.peer)?;
        let party = Party::Client(client);
        // Before it is written down that the assertion is used: that costs more than anything else here.
        self.counted(&party, learnt)?;
        let store = Arc::clone(self.lifecycle.store());
        let digest = sha256(jti.as_bytes());
        let first = self.stored(async move { store.use_assertion(id, digest, until).await }).await?.map_err(|error| {
            tracing::error!(error = %chain(&error), "whether an assertion was used before cannot be told");
            No::Denied(Denial::Unavailable)
        })?;
        if !first {
            return Err(fault(CredentialFault::Replayed));
        }
        Ok((party, means))
    }

    fn live(&self, id: ClientId, request: &Request) -> Result<Arc<ClientRecord>, No> {
        let read = self.gate.replica().view(Duration::ZERO, |view| view.client(id));
        let (client, _) = read.map_err(|Stale| No::Denied(Denial::Unavailable))?;
        client.ok_or_else(|| self.refused(CredentialFault::UnknownClient, request.peer))
    }

    /// What the client has signed, and what tokens will say of the key.
    async fn signed(&self, compact: &Compact<'_>, client: &ClientRecord, request: &Request) -> Result<(Verified, Means), No> {
        let invalid = |invalid: Invalid| self.refused(invalid.into(), request.peer);
        match client.keys() {
            None => Err(self.refused(CredentialFault::UntrustedToken, request.peer)),
            Some(OwnKeys::Set(keys, _)) => {
                let verified = verify(compact, keys, &ALGORITHMS).map_err(invalid)?;
                let mark = keys.find(compact.kid()).map(PublicKey::thumbprint).unwrap_or_default();
                Ok((verified, Means::Key(mark.into())))
            }
            Some(OwnKeys::Url { url, mark }) => {
                let unfetched = |error: jwks::Error| match error {
                    jwks::Error::Url(_) | jwks::Error::Forbidden(_) => self.refused(CredentialFault::UntrustedToken, request.peer),
                    // Whether the client is who it says cannot be told now.
                    _ => No::Denied(Denial::Unavailable),
                };
                let (keys, generation) = self.client_keys.keys(url, None).await.map_err(unfetched)?;
                let verified = match verify(compact, &keys, &ALGORITHMS) {
                    Err(Invalid::UnknownKey) if compact.kid().is_some() => {
                        let (keys, _) = self.client_keys.keys(url, Some(generation)).await.map_err(unfetched)?;
                        verify(compact, &keys, &ALGORITHMS)
                    }
                    verified => verified,
                };
                Ok((verified.map_err(invalid)?, Means::Key(mark.clone())))
            }
        }
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
