//! Our own access tokens: JWT as RFC 9068 profiles it.

use serde_json::{Value, json};

use super::{Claims, Invalid};
use crate::clock::Timestamp;
use crate::id::{ClientId, PracticeId, TokenId};
use crate::scope::ScopeToken;

/// `typ` of an access token (RFC 9068 §2.1).
pub const ACCESS_TOKEN_TYPE: &str = "at+jwt";

/// Who holds an access token of ours. Not what they may do now: that is asked of live state, for the client and for the
/// secret that the token was got with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessToken {
    /// `iss`: the gateway's own address.
    pub issuer: String,
    /// `aud`: what it is for.
    pub audience: String,
    /// `client_id`, and `sub`, for a client acts for itself (RFC 9068 §2.2).
    pub client_id: ClientId,
    /// The client's practice.
    pub practice_id: PracticeId,
    /// What it was got with.
    pub means: Means,
    /// `scope`: what was asked for, at most what was granted then.
    pub scopes: Vec<ScopeToken>,
    /// `jti`.
    pub id: TokenId,
    /// `iat`, in whole seconds.
    pub issued_at: Timestamp,
    /// `exp`, in whole seconds.
    pub expires_at: Timestamp,
}

/// What a client got a token with. When that ends, the token does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Means {
    /// The secret of this generation.
    Secret(u32),
    /// A key of its own (RFC 7523), by the mark that it leaves.
    Key(Box<str>),
}

impl AccessToken {
    pub(super) fn to_claims(&self) -> Value {
        let mut claims = json!({
            "iss": self.issuer,
            "aud": self.audience,
            "sub": self.client_id.to_text(),
            "client_id": self.client_id.to_text(),
            "practice_id": self.practice_id.as_str(),
            "scope": self.scopes.iter().map(ScopeToken::as_str).collect::<Vec<_>>().join(" "),
            "jti": self.id.to_string(),
            "iat": self.issued_at.0.div_euclid(1000),
            "exp": self.expires_at.0.div_euclid(1000),
        });
        match &self.means {
            Means::Secret(generation) => claims["secret_generation"] = (*generation).into(),
            Means::Key(mark) => claims["client_key"] = (**mark).into(),
        }
        claims
    }

    /// Reads the claims of a token that we have signed ourselves: every one of ours has to be there.
    ///
    /// # Errors
    /// [`Invalid::Claim`] names the first one that is missing or malformed.
    pub fn from_claims(claims: &Claims) -> Result<Self, Invalid> {
        let text = |name: &'static str| claims.text(name)?.ok_or(Invalid::Claim(name));
        let client_id = ClientId::parse(text("client_id")?.as_bytes()).ok_or(Invalid::Claim("client_id"))?;
        if text("sub")?.as_bytes() != client_id.to_text().as_bytes() {
            return Err(Invalid::Claim("sub"));
        }
        let scopes = text("scope")?.split(' ').map(str::parse).collect::<Result<Vec<ScopeToken>, _>>();
        let generation = claims.get("secret_generation").map(|value| value.as_u64().and_then(|number| u32::try_from(number).ok()));
        let means = match (generation, claims.text("client_key")?) {
            (Some(Some(generation)), None) => Means::Secret(generation),
            (None, Some(mark)) => Means::Key(mark.into()),
            (_, Some(_)) => return Err(Invalid::Claim("client_key")),
            (_, None) => return Err(Invalid::Claim("secret_generation")),
        };
        let audience = claims.text("aud")?.ok_or(Invalid::Claim("aud"))?;
        Ok(Self {
            issuer: text("iss")?.to_owned(),
            audience: audience.to_owned(),
            client_id,
            practice_id: text("practice_id")?.parse().map_err(|_| Invalid::Claim("practice_id"))?,
            means,
            scopes: scopes.map_err(|_| Invalid::Claim("scope"))?,
            id: text("jti")?.parse().map_err(|_| Invalid::Claim("jti"))?,
            issued_at: claims.issued_at().ok_or(Invalid::Claim("iat"))?,
            expires_at: claims.expires_at(),
        })
    }
}
