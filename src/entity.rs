//! What the store holds and the gateway decides from: practices, users, clients, signing keys, revoked tokens.

use std::fmt;
use std::sync::Arc;

use ipnet::IpNet;

use crate::clock::Timestamp;
use crate::credential::{SecretDigest, usable_at};
use crate::digest::sha256;
use crate::id::{ClientId, KeyId, PracticeId, TokenId, UserId};
use crate::scope::ScopeToken;
use crate::token::Algorithm;

/// A text that names none of the words an enumeration has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is none of {expected}")]
pub struct UnknownWord {
    found: String,
    expected: &'static str,
}

impl UnknownWord {
    pub(crate) fn new(found: &str, expected: &'static str) -> Self {
        Self { found: found.chars().take(40).collect(), expected }
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $expected:literal, { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// Every value.
            pub const EVERY: &'static [Self] = &[$(Self::$variant),+];
            /// The word for it in the database, in JSON and on the command line.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.pad(self.as_str()) }
        }
        impl std::str::FromStr for $name {
            type Err = $crate::entity::UnknownWord;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err($crate::entity::UnknownWord::new(text, $expected)),
                }
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}
pub(crate) use words;

words! {
    /// Whether a practice may be reached through the API: `none -> requested -> active <-> disabled`.
    ApiAccess, "`none`, `requested`, `active`, `disabled`", {
        /// Never asked for.
        None = "none",
        /// Asked for by an admin of the practice; an operator has not answered yet.
        Requested = "requested",
        /// Approved and on.
        Active = "active",
        /// Approved once, switched off by the practice.
        Disabled = "disabled",
    }
}

words! {
    /// What a user is in the practice.
    Role, "`admin`, `member`", {
        /// Manages the practice's API access and its practice-level clients.
        Admin = "admin",
        /// Everyone else on the team.
        Member = "member",
    }
}

/// A practice.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Practice {
    /// SigmaMD's id.
    pub id: PracticeId,
    /// For people.
    pub name: Arc<str>,
    /// Its state of API access.
    pub api_access: ApiAccess,
}

/// A team member.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct User {
    /// SigmaMD's id.
    pub id: UserId,
    /// The one practice the user belongs to.
    pub practice_id: PracticeId,
    /// Admin or member.
    pub role: Role,
    /// The toggle that practice admins change.
    pub api_access: bool,
    /// When the user left the team, if they did. Their personal clients stopped then.
    pub left_at: Option<Timestamp>,
}

/// One secret of a client; what is stored of it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct StoredSecret {
    /// 1 for the first secret of a client, one more with each regeneration.
    pub generation: u32,
    /// What is compared with the digest of what a caller presents.
    #[serde(skip)]
    pub digest: SecretDigest,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends or ended; `None`: with the client.
    pub expires_at: Option<Timestamp>,
    /// Somebody has ended it: for good, and whatever a clock says.
    pub ended: bool,
}

impl StoredSecret {
    /// Whether it may still be used at `now`.
    #[must_use]
    pub fn usable_at(&self, now: Timestamp) -> bool {
        !self.ended && usable_at(self.expires_at, now)
    }
}

/// A client: an application's credential.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Client {
    /// Its public id.
    pub id: ClientId,
    /// The practice whose data it reaches.
    pub practice_id: PracticeId,
    /// The user who owns it when it is personal; `None` for a practice-level client.
    pub owner: Option<UserId>,
    /// For people.
    pub name: Arc<str>,
    /// What it may reach; at least one.
    pub scopes: Vec<ScopeToken>,
    /// The addresses it may call from; empty: any.
    pub allowed_addresses: Vec<IpNet>,
    /// The rate limit it has, by the name of a tier in the route file; `None`: the tier `standard`, if there is one.
    pub tier: Option<Arc<str>>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends by itself, if it does.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked. There is no way back.
    pub revoked_at: Option<Timestamp>,
    /// Its secrets, the newest first: those that work and those that ended.
    pub secrets: Vec<StoredSecret>,
    /// Keys of its own, with which it may sign assertions in the place of a secret (RFC 7523).
    pub keys: ClientKeys,
}

/// What tells a client from how it was before any change: a digest of all that is told of it.
pub type Version = [u8; 16];

impl Client {
    /// Its version.
    #[must_use]
    pub fn version(&self) -> Version {
        let json = serde_json::to_vec(self).expect("entities have text keys only");
        sha256(json)[..16].try_into().expect("a digest is longer")
    }
}

/// Where the public keys of a client are.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientKeys {
    /// It has none.
    #[default]
    None,
    /// Here, as the JSON of a JWK set (RFC 7517 §5).
    Jwks(Arc<str>),
    /// At an address of the client's (RFC 7591 §2, `jwks_uri`).
    Url(Arc<str>),
}

impl ClientKeys {
    /// From the two places where they can be; `None` if they are in both.
    #[must_use]
    pub fn from_either(jwks: Option<&str>, url: Option<&str>) -> Option<Self> {
        match (jwks, url) {
            (None, None) => Some(Self::None),
            (Some(jwks), None) => Some(Self::Jwks(jwks.into())),
            (None, Some(url)) => Some(Self::Url(url.into())),
            (Some(_), Some(_)) => None,
        }
    }

    /// The set, if it is here.
    #[must_use]
    pub fn jwks(&self) -> Option<&str> {
        match self {
            Self::Jwks(jwks) => Some(jwks),
            Self::None | Self::Url(_) => None,
        }
    }

    /// The address, if there is one.
    #[must_use]
    pub fn url(&self) -> Option<&str> {
        match self {
            Self::Url(url) => Some(url),
            Self::None | Self::Jwks(_) => None,
        }
    }
}

/// A key of ours that signs access tokens, as it is kept.
#[derive(Clone, PartialEq, Eq, serde::Serialize)]
pub struct StoredKey {
    /// Its thumbprint.
    pub id: KeyId,
    /// What it signs by: `EdDSA` or `ES256`.
    #[serde(serialize_with = "as_text")]
    pub algorithm: Algorithm,
    /// The private key, sealed under the master key for the purpose that [`StoredKey::purpose`] names.
    #[serde(skip)]
    pub sealed: Arc<[u8]>,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it signs, until a newer one does; `None`: it is only being made known yet.
    pub signs_from: Option<Timestamp>,
    /// When it was taken out of use, and with it every token that it has signed. There is no way back.
    pub revoked_at: Option<Timestamp>,
}

impl StoredKey {
    /// What a key of this id is sealed for: sealed for another, it is not opened.
    #[must_use]
    pub fn purpose(id: &KeyId) -> String {
        format!("signing-key:{id}")
    }
}

impl fmt::Debug for StoredKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredKey({}, {}, signs from {:?}, revoked {:?})", self.id, self.algorithm, self.signs_from, self.revoked_at)
    }
}

fn as_text<S: serde::Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// An access token that was revoked by itself (RFC 7009). Remembered until it would have expired, and a day longer, since
/// the clocks of nodes differ.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RevokedToken {
    /// The token.
    pub id: TokenId,
    /// The client that it was issued to.
    pub client_id: ClientId,
    /// When it would have expired.
    pub expires_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Timestamp,
}
