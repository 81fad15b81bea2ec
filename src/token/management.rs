//! Management tokens: who may call the management API. No access tokens, and never taken for one: another `typ`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Claims, Invalid, Trust, Verified};
use crate::clock::Timestamp;
use crate::id::{PracticeId, UserId};

/// `typ` of a management token.
pub const MANAGEMENT_TOKEN_TYPE: &str = "management+jwt";
/// `iss` of those that are minted here.
pub const MANAGEMENT_ISSUER: &str = "urn:sigmagate";
/// `aud` of those that are minted here.
pub const MANAGEMENT_AUDIENCE: &str = "urn:sigmagate:management";

/// Who calls the management API, as the issuer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manager {
    /// Runs the gateway for everybody.
    Operator {
        /// `sub`: who it is, for the audit.
        name: String,
    },
    /// One of a practice's people.
    User {
        /// `sub`.
        id: UserId,
        /// `practice_id`.
        practice: PracticeId,
        /// Whether `role` says that it manages the practice's API access.
        admin: bool,
    },
}

/// An issuer whose word counts for who calls the management API.
#[derive(Clone, Debug)]
pub struct ManagementIssuer {
    /// What it is trusted by.
    pub trust: Trust,
    /// The claim with the practice.
    pub practice_claim: Arc<str>,
    /// The claim with the role.
    pub role_claim: Arc<str>,
    /// Whether it may say that somebody is an operator.
    pub operators: bool,
}

impl ManagementIssuer {
    /// Who calls, by a token that a key of the issuer has signed.
    ///
    /// # Errors
    /// [`Invalid`] for one that is not for us and for now, and for one that does not say what it must, or what is not for
    /// the issuer to say.
    pub fn read(&self, verified: &Verified, now: Timestamp) -> Result<Manager, Invalid> {
        let manager = Manager::by(&self.trust.claims(verified, now)?, &self.practice_claim, &self.role_claim)?;
        match manager {
            Manager::Operator { .. } if !self.operators => Err(Invalid::Claim("role")),
            manager => Ok(manager),
        }
    }
}

/// The longest name of an operator, in bytes.
const MAX_NAME: usize = 64;

impl Manager {
    /// Reads the claims of a token that is genuine, and for management.
    ///
    /// # Errors
    /// [`Invalid::Claim`] names the first one that is missing or malformed.
    pub fn from_claims(claims: &Claims) -> Result<Self, Invalid> {
        Self::by(claims, "practice_id", "role")
    }

    fn by(claims: &Claims, practice_claim: &str, role_claim: &str) -> Result<Self, Invalid> {
        let text = |name: &str, of| claims.get(name).and_then(Value::as_str).ok_or(Invalid::Claim(of));
        let subject = text("sub", "sub")?;
        let user = |admin| {
            let id = subject.parse().map_err(|_| Invalid::Claim("sub"))?;
            let practice = text(practice_claim, "practice_id")?.parse().map_err(|_| Invalid::Claim("practice_id"))?;
            Ok(Self::User { id, practice, admin })
        };
        match text(role_claim, "role")? {
            "operator" => {
                let plain = (1..=MAX_NAME).contains(&subject.len()) && subject.bytes().all(|b| b.is_ascii_graphic());
                if plain { Ok(Self::Operator { name: subject.to_owned() }) } else { Err(Invalid::Claim("sub")) }
            }
            "practice_admin" => user(true),
            "member" => user(false),
            _ => Err(Invalid::Claim("role")),
        }
    }

    /// The claims of a token that is minted here.
    #[must_use]
    pub fn to_claims(&self, issued_at: Timestamp, expires_at: Timestamp) -> Value {
        let (subject, role) = match self {
            Self::Operator { name } => (name.as_str(), "operator"),
            Self::User { id, admin: true, .. } => (id.as_str(), "practice_admin"),
            Self::User { id, admin: false, .. } => (id.as_str(), "member"),
        };
        let mut claims = json!({
            "iss": MANAGEMENT_ISSUER, "aud": MANAGEMENT_AUDIENCE, "sub": subject, "role": role,
            "iat": issued_at.0.div_euclid(1000), "exp": expires_at.0.div_euclid(1000),
        });
        if let Self::User { practice, .. } = self {
            claims["practice_id"] = practice.as_str().into();
        }
        claims
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::token::{Algorithm, Compact, Expected, KeySet, SigningKey, verify};

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn read(claims: &Value) -> Result<Manager, Invalid> {
        let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
        let mut set = KeySet::default();
        set.add(key.public().clone()).unwrap();
        let token = key.sign_json(&json!({ "alg": "EdDSA", "kid": key.kid(), "typ": MANAGEMENT_TOKEN_TYPE }), claims).unwrap();
        let verified = verify(&Compact::parse(token.as_bytes()).unwrap(), &set, &[Algorithm::EdDsa])?;
        let expected = Expected { issuer: MANAGEMENT_ISSUER, audiences: &[MANAGEMENT_AUDIENCE], leeway: Duration::ZERO };
        Manager::from_claims(&Claims::check(verified.of_type(MANAGEMENT_TOKEN_TYPE)?, &expected, NOW)?)
    }

    #[test]
    fn a_manager_is_what_the_claims_say_and_nothing_else() {
        let (id, practice): (UserId, PracticeId) = ("dr-lee".parse().unwrap(), "p".parse().unwrap());
        for manager in [
            Manager::Operator { name: "ops@example.test".into() },
            Manager::User { id: id.clone(), practice: practice.clone(), admin: true },
            Manager::User { id, practice, admin: false },
        ] {
            assert_eq!(read(&manager.to_claims(NOW, NOW.after(Duration::from_secs(60)))), Ok(manager));
        }
        let good = json!({
            "iss": MANAGEMENT_ISSUER, "aud": MANAGEMENT_AUDIENCE, "exp": 1_800_000_060, "sub": "dr-lee", "role": "member", "practice_id": "p",
        });
        for (name, value, wrong) in [
            ("role", json!("root"), "role"),
            ("role", json!("Operator"), "role"),
            ("role", json!(["operator"]), "role"),
            ("role", Value::Null, "role"),
            ("sub", json!("a b"), "sub"),
            ("sub", Value::Null, "sub"),
            ("practice_id", Value::Null, "practice_id"),
            ("practice_id", json!("a/b"), "practice_id"),
        ] {
            let mut claims = good.clone();
            claims[name] = value.clone();
            claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
            assert_eq!(read(&claims), Err(Invalid::Claim(wrong)), "{name}: {value}");
        }
    }
}
