//! Who is asking (RFC 6749 §2.3): a client by its secret or by an assertion, or a resource server.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode;
use std::net::IpAddr;
use std::time::Duration;

use super::form::Form;
use super::{Endpoint, Failure, Learnt, No, OAuth, Request};
use crate::access::{CredentialFault, Denial, standing};
use crate::authn::Credential;
use crate::cache::{ClientRecord, Party};
use crate::credential::Secret;
use crate::gate::Proof;
use crate::id::ClientId;
use crate::token::Means;

/// The one kind of assertion (RFC 7523 §2.2).
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// The longest `Authorization` that is looked at: ours have some 130 letters.
const MAX_BASIC: usize = 1024;

/// A client that has shown who it is.
pub(super) struct Authenticated {
    pub(super) party: Party,
    pub(super) means: Means,
}

impl Authenticated {
    pub(super) fn client(&self) -> &ClientRecord {
        self.party.client().expect("only clients are authenticated here")
    }
}

/// Who asks about a token.
pub(super) enum Asker {
    Client(Authenticated),
    ResourceServer,
}

/// A name and what is shown for it.
struct Shown<'a> {
    name: Vec<u8>,
    secret: zeroize::Zeroizing<Vec<u8>>,
    assertion: Option<&'a str>,
}

impl OAuth {
    /// The client, which may act at all.
    pub(super) async fn client(&self, request: &Request, form: &Form, learnt: &mut Learnt) -> Result<Authenticated, No> {
        let shown = shown(request, form)?;
        self.of_client(shown, request, learnt).await
    }

    /// The client, or a resource server.
    pub(super) async fn asker(&self, request: &Request, form: &Form, learnt: &mut Learnt) -> Result<Asker, No> {
        let shown = shown(request, form)?;
        let server = self.settings.resource_servers.iter().find(|server| server.name.as_bytes() == shown.name);
        match server.filter(|_| shown.assertion.is_none()) {
            Some(server) if server.proves(&shown.secret) => Ok(Asker::ResourceServer),
            Some(_) => Err(self.refused(CredentialFault::WrongSecret, request.peer)),
            None => self.of_client(shown, request, learnt).await.map(Asker::Client),
        }
    }

    async fn of_client(&self, shown: Shown<'_>, request: &Request, learnt: &mut Learnt) -> Result<Authenticated, No> {
        if let Some(assertion) = shown.assertion {
            let (party, means) = self.by_assertion(assertion, &shown.name, request, learnt).await?;
            return Ok(Authenticated { party, means });
        }
        let (party, means) = self.by_secret(&shown, request.peer, learnt)?;
        self.counted(&party, learnt)?;
        Ok(Authenticated { party, means })
    }

    /// Counts the request of a client that has shown who it is.
    pub(super) fn counted(&self, party: &Party, learnt: &mut Learnt) -> Result<(), No> {
        learnt.whose.party = Some(party.clone());
        let (quota, passes) = self.gate.count(party);
        learnt.quota = quota;
        Ok(passes?)
    }

    fn by_secret(&self, shown: &Shown<'_>, peer: IpAddr, learnt: &mut Learnt) -> Result<(Party, Means), No> {
        let parsed = ClientId::parse(&shown.name).zip(Secret::parse(&shown.secret).ok());
        let Some((id, secret)) = parsed else { return Err(self.refused(CredentialFault::Malformed, peer)) };
        let known = self.gate.authenticate(&Credential::Basic(id, secret), peer, Duration::ZERO, &mut learnt.whose);
        let known = known.map_err(|denial| no(&denial))?;
        standing(&known.facts).map_err(|denial| {
            learnt.whose.refused(&known.proof, &denial);
            no(&self.gate.refused(denial, peer))
        })?;
        match known.proof {
            Proof::Secret(generation) => Ok((known.party, Means::Secret(generation))),
            Proof::Bearer(_) => Err(self.refused(CredentialFault::UnknownScheme, peer)),
        }
    }

    /// Whether a client may have tokens at all, as it may then have answers.
    pub(super) fn may_act(&self, facts: &crate::access::Facts, peer: IpAddr) -> Result<(), No> {
        standing(facts).map_err(|denial| no(&self.gate.refused(denial, peer)))
    }

    /// A credential that does not count, counted against the address.
    pub(super) fn refused(&self, fault: CredentialFault, peer: IpAddr) -> No {
        no(&self.gate.refused(Denial::CredentialInvalid(fault), peer))
    }

    /// What the caller is to be the audience of an assertion made for this endpoint.
    pub(super) fn audiences(&self, endpoint: Endpoint) -> [String; 3] {
        [self.issuer().to_owned(), self.url(Endpoint::Token), self.url(endpoint)]
    }
}

/// A denial in the words of RFC 6749 §5.2, where it has words for it. Every fault of a credential looks the same.
pub(super) fn no(denial: &Denial) -> No {
    let (code, description) = match denial {
        Denial::CredentialInvalid(_) | Denial::CredentialMissing => {
            ("invalid_client", "the client is unknown, or what it has shown does not prove who it is")
        }
        Denial::PracticeDisabled => ("unauthorized_client", "the API access of the practice is off"),
        Denial::UserDisabled => ("unauthorized_client", "the API access of the user is off"),
        Denial::AddressNotAllowed => ("unauthorized_client", "the client may not call from this address"),
        other => return No::Denied(other.clone()),
    };
    No::Error(Failure { code, description: description.to_owned(), label: denial.label() })
}

/// What the request shows: by exactly one of the methods (RFC 6749 §2.3).
fn shown<'a>(request: &Request, form: &'a Form) -> Result<Shown<'a>, No> {
    let header = request.authorization.as_ref().map(http::HeaderValue::as_bytes).filter(|value| !value.trim_ascii().is_empty());
    let (secret, assertion) = (form.get("client_secret"), form.get("client_assertion"));
    let methods = [header.is_some(), secret.is_some(), assertion.is_some()].into_iter().filter(|used| *used).count();
    if methods > 1 {
        return Err(Failure::request("the client shows who it is in more than one way").into());
    }
    let named = form.get("client_id");
    let mut shown = Shown { name: named.unwrap_or_default().into(), secret: zeroize::Zeroizing::default(), assertion };
    if let Some(header) = header {
        let (name, secret) = basic(header).ok_or_else(|| no(&Denial::CredentialInvalid(CredentialFault::Malformed)))?;
        if named.is_some_and(|named| named.as_bytes() != name) {
            return Err(Failure::request("client_id names another client than the Authorization header").into());
        }
        (shown.name, shown.secret) = (name, secret);
    } else if let Some(secret) = secret {
        if named.is_none() {
            return Err(Failure::request("the parameter client_id is missing").into());
        }
        shown.secret = zeroize::Zeroizing::new(secret.as_bytes().to_vec());
    } else if assertion.is_some() {
        if form.require("client_assertion_type")? != JWT_BEARER {
            return Err(Failure::request(format!("client_assertion_type must be {JWT_BEARER}")).into());
        }
    } else {
        return Err(no(&Denial::CredentialMissing));
    }
    Ok(shown)
}

/// Name and secret of HTTP Basic, each form-encoded before that (RFC 6749 §2.3.1).
fn basic(header: &[u8]) -> Option<(Vec<u8>, zeroize::Zeroizing<Vec<u8>>)> {
    let header = header.trim_ascii();
    let (scheme, encoded) = header.split_at_checked(6).filter(|_| header.len() <= MAX_BASIC)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let pair = zeroize::Zeroizing::new(STANDARD.decode(encoded.trim_ascii()).ok()?);
    let colon = pair.iter().position(|byte| *byte == b':')?;
    let (name, secret) = (&pair[..colon], &pair[colon + 1..]);
    Some((percent_decode(name).collect(), zeroize::Zeroizing::new(percent_decode(secret).collect())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_is_form_encoded_inside() {
        let value = |pair: &str| format!("bAsIc {}", STANDARD.encode(pair));
        let read = |pair: &str| basic(value(pair).as_bytes()).map(|(name, secret)| (name, secret.to_vec()));
        assert_eq!(read("smd_a:smds_b"), Some((b"smd_a".to_vec(), b"smds_b".to_vec())));
        assert_eq!(read("smd%5Fa:smds%5Fb%3A"), Some((b"smd_a".to_vec(), b"smds_b:".to_vec())));
        assert_eq!(read("nothing"), None);
        assert_eq!(basic(b"Bearer abc"), None);
        assert_eq!(basic(b"Basic !!"), None);
        assert_eq!(basic(value(&"x:".repeat(600)).as_bytes()), None);
    }
}
