//! Somebody else whose tokens are believed, as the route map names them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::{Algorithm, Claims, Expected, Invalid, KeySet, Verified};
use crate::clock::Timestamp;
use crate::id::{ClientId, PracticeId, UserId};
use crate::scope::ScopeToken;

/// What `typ` may say.
const TYPES: [&str; 2] = ["at+jwt", "JWT"];

/// What an issuer is trusted by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// `iss`, letter by letter.
    pub name: Arc<str>,
    /// Where its keys are.
    pub keys: KeySource,
    /// One of these is in `aud`; at least one.
    pub audiences: Vec<Arc<str>>,
    /// What it signs by, whatever its tokens say; at least one.
    pub algorithms: Vec<Algorithm>,
    /// How far its clock and ours may be apart.
    pub leeway: Duration,
    /// How often its keys are fetched.
    pub refresh: Duration,
}

impl Trust {
    /// The claims of a token that a key of the issuer has signed. Many an issuer gives its tokens no `typ`.
    pub(super) fn claims(&self, verified: &Verified, now: Timestamp) -> Result<Claims, Invalid> {
        let audiences: Vec<&str> = self.audiences.iter().map(|audience| &**audience).collect();
        let expected = Expected { issuer: &self.name, audiences: &audiences, leeway: self.leeway };
        Claims::check(verified.of_type_if_any(&TYPES)?, &expected, now)
    }
}

/// An issuer whose access tokens are believed. Two are equal if they are trusted in the same way, so that a reload can keep
/// what it knows of the one that is still there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// What it is trusted by.
    pub trust: Trust,
    /// The claim that names a client of ours; at least one of this and `practice_claim` is there.
    pub client_claim: Option<Arc<str>>,
    /// The claim that names a practice.
    pub practice_claim: Option<Arc<str>>,
    /// The claim that names a user.
    pub user_claim: Option<Arc<str>>,
    /// The claim with the scopes.
    pub scope_claim: Arc<str>,
}

/// Where the keys of an issuer are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// Behind a URL, to be fetched again and again.
    Url(Arc<str>),
    /// Here, as they were when the route map was loaded.
    Set(Arc<KeySet>),
}

/// For whom a token of an issuer speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spoken {
    /// The client of ours, if the issuer names one.
    pub client: Option<ClientId>,
    /// The practice, if it does.
    pub practice: Option<PracticeId>,
    /// The user, if it does.
    pub user: Option<UserId>,
    /// The scopes; none if it says nothing of scopes.
    pub scopes: Vec<ScopeToken>,
    /// When it is over, but for the leeway.
    pub expires_at: Timestamp,
    /// When it was issued, if it says so.
    pub issued_at: Option<Timestamp>,
}

impl Issuer {
    /// What a token says that a key of the issuer has signed.
    ///
    /// # Errors
    /// [`Invalid`] for one that is not for us and for now, and for one that does not say what it must.
    pub fn read(&self, verified: &Verified, now: Timestamp) -> Result<Spoken, Invalid> {
        let claims = self.trust.claims(verified, now)?;
        Ok(Spoken {
            client: self.client_claim.as_deref().map(|name| named(&claims, name, "client_claim")).transpose()?,
            practice: self.practice_claim.as_deref().map(|name| named(&claims, name, "practice_claim")).transpose()?,
            user: self.user_claim.as_deref().map(|name| named(&claims, name, "user_claim")).transpose()?,
            scopes: scopes(&claims, &self.scope_claim)?,
            expires_at: claims.expires_at(),
            issued_at: claims.issued_at(),
        })
    }
}

/// The id that a claim is; it has to be there.
fn named<T: std::str::FromStr>(claims: &Claims, name: &str, of: &'static str) -> Result<T, Invalid> {
    claims.get(name).and_then(Value::as_str).and_then(|text| text.parse().ok()).ok_or(Invalid::Claim(of))
}

/// Words with one blank between them, or a list of words. What is no scope of ours is for somebody else.
fn scopes(claims: &Claims, name: &str) -> Result<Vec<ScopeToken>, Invalid> {
    let malformed = || Invalid::Claim("scope_claim");
    let words: Vec<&str> = match claims.get(name) {
        None => Vec::new(),
        Some(Value::String(text)) if text.is_empty() => Vec::new(),
        Some(Value::String(text)) => text.split(' ').collect(),
        Some(Value::Array(list)) => list.iter().map(Value::as_str).collect::<Option<_>>().ok_or_else(malformed)?,
        Some(_) => return Err(malformed()),
    };
    if words.iter().any(|word| word.is_empty() || word.contains(' ')) {
        return Err(malformed());
    }
    Ok(words.into_iter().filter_map(|word| word.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::token::{Compact, SigningKey, verify};

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn issuer() -> Issuer {
        Issuer {
            trust: Trust {
                name: "https://login.test".into(),
                keys: KeySource::Set(Arc::default()),
                audiences: vec!["https://api.test".into()],
                algorithms: vec![Algorithm::EdDsa],
                leeway: Duration::from_secs(30),
                refresh: Duration::from_mins(5),
            },
            client_claim: Some("azp".into()),
            practice_claim: Some("practice".into()),
            user_claim: Some("sub".into()),
            scope_claim: "scope".into(),
        }
    }

    #[test]
    fn claims_say_who_it_is_or_the_token_says_nothing() {
        let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
        let mut set = KeySet::default();
        set.add(key.public().clone()).unwrap();
        let read = |name: &str, value: Value| {
            let mut claims = json!({
                "iss": "https://login.test", "aud": ["https://api.test"], "exp": 1_800_000_100, "azp": "smd_0123456789abcdefGHIJ",
                "practice": "p", "sub": "dr-lee", "scope": "openid billing tasks",
            });
            claims[name] = value;
            claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
            let token = key.sign_json(&json!({ "alg": "EdDSA", "kid": key.kid() }), &claims).unwrap();
            issuer().read(&verify(&Compact::parse(token.as_bytes()).unwrap(), &set, &[Algorithm::EdDsa]).unwrap(), NOW)
        };
        let names = |spoken: Spoken| spoken.scopes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let spoken = read("x", Value::Null).unwrap();
        assert_eq!((spoken.client.unwrap().to_text().as_str(), spoken.issued_at), ("smd_0123456789abcdefGHIJ", None));
        assert_eq!((spoken.practice.clone().unwrap().as_str(), spoken.user.clone().unwrap().as_str()), ("p", "dr-lee"));
        assert_eq!(names(spoken), "openid billing tasks");
        for (value, want) in [(json!(["billing", "Offline"]), "billing"), (json!(""), ""), (Value::Null, "")] {
            assert_eq!(names(read("scope", value).unwrap()), want);
        }
        for (name, value, want) in [
            ("scope", json!("billing  tasks"), Invalid::Claim("scope_claim")),
            ("scope", json!(["billing tasks"]), Invalid::Claim("scope_claim")),
            ("scope", json!(["billing", 1]), Invalid::Claim("scope_claim")),
            ("scope", json!({}), Invalid::Claim("scope_claim")),
            ("azp", Value::Null, Invalid::Claim("client_claim")),
            ("azp", json!("another app"), Invalid::Claim("client_claim")),
            ("practice", json!(7), Invalid::Claim("practice_claim")),
            ("practice", json!("a/b"), Invalid::Claim("practice_claim")),
            ("sub", Value::Null, Invalid::Claim("user_claim")),
            ("iss", json!("https://login.test/"), Invalid::Issuer),
            ("aud", json!("https://other.test"), Invalid::Audience),
            ("exp", json!(1_799_999_969), Invalid::Expired),
        ] {
            assert_eq!(read(name, value.clone()).unwrap_err(), want, "{name}: {value}");
        }
    }
}
