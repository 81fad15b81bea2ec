//! One newtype per identifier, so that none can stand where another is meant.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The letters of client ids and secrets, in the order that gives them their values.
pub const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Why a text is not an identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not `smd_` and 20 letters or digits.
    #[error("`{0}` is not a client id: expected `smd_` followed by 20 letters or digits")]
    ClientId(String),
    /// Not 1 to 64 letters, digits, `.`, `_` or `-`.
    #[error("`{0}` is not an id: expected 1 to 64 letters, digits, `.`, `_` or `-`, starting with a letter or digit")]
    Name(String),
    /// Not 43 letters of base64url.
    #[error("`{0}` is not the id of a signing key: expected 43 letters, digits, `_` or `-`")]
    KeyId(String),
    /// Not a UUID.
    #[error("`{0}` is not the id of a token: expected a UUID")]
    TokenId(String),
}

/// The public name of a client (RFC 6749 §2.2): `smd_` and 20 base62 characters. Not a secret; may be logged.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId([u8; Self::RANDOM]);

impl ClientId {
    /// What every client id starts with.
    pub const PREFIX: &'static str = "smd_";
    /// How many base62 characters follow the prefix.
    pub const RANDOM: usize = 20;

    /// A client id made of the given bytes, each taken modulo 62; the caller draws them evenly.
    pub fn from_random(letters: [u8; Self::RANDOM]) -> Self {
        Self(letters.map(|byte| BASE62[usize::from(byte) % BASE62.len()]))
    }

    /// Parses the bytes of a client id.
    ///
    /// # Errors
    /// `None` unless the bytes are exactly the prefix and 20 base62 characters.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(Self::PREFIX.as_bytes())?;
        let letters: [u8; Self::RANDOM] = rest.try_into().ok()?;
        letters.iter().all(u8::is_ascii_alphanumeric).then_some(Self(letters))
    }

    /// The id as it is written, prefix included.
    pub fn to_text(self) -> String {
        self.to_string()
    }

    /// How long it is when written, prefix included.
    pub const LENGTH: usize = Self::PREFIX.len() + Self::RANDOM;

    /// The id as it is written, without an allocation.
    pub fn write(self, text: &mut [u8; Self::LENGTH]) -> &[u8] {
        text[..Self::PREFIX.len()].copy_from_slice(Self::PREFIX.as_bytes());
        text[Self::PREFIX.len()..].copy_from_slice(&self.0);
        text
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::PREFIX)?;
        f.write_str(std::str::from_utf8(&self.0).expect("only base62 letters are ever stored"))
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ClientId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text.as_bytes()).ok_or_else(|| Error::ClientId(text.chars().take(80).collect()))
    }
}

impl serde::Serialize for ClientId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The id as text: ASCII, safe in a header, a log line and a path segment.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self, Error> {
                let ok = (1..=64).contains(&text.len())
                    && text.as_bytes()[0].is_ascii_alphanumeric()
                    && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
                if ok { Ok(Self(text.into())) } else { Err(Error::Name(text.chars().take(80).collect())) }
            }
        }
    };
}

name! {
    /// A practice of SigmaMD, under the id that SigmaMD gives it.
    PracticeId
}
name! {
    /// A team member of a practice, under the id that SigmaMD gives them; unique over all practices.
    UserId
}

/// A signing key, by its thumbprint (RFC 7638): 43 letters of base64url, the `kid` of what it signs.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(transparent)]
pub struct KeyId(Arc<str>);

impl KeyId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for KeyId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let ok = text.len() == 43 && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        if ok { Ok(Self(text.into())) } else { Err(Error::KeyId(text.chars().take(80).collect())) }
    }
}

/// One access token of ours (`jti`, RFC 7519 §4.1.7): a UUID in its usual spelling, lower case. Not a secret; may be logged.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(transparent)]
pub struct TokenId(uuid::Uuid);

impl TokenId {
    /// A new one, from 122 random bits.
    #[must_use]
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4())
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.hyphenated(), f)
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TokenId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        // One spelling only: of two, one could be revoked and the other not.
        let id = uuid::Uuid::parse_str(text).ok().map(Self).filter(|id| id.to_string() == text);
        id.ok_or_else(|| Error::TokenId(text.chars().take(80).collect()))
    }
}

/// A place in the change log. Later changes have greater revisions; 0 is before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A route, by its place in the route file, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteId(pub u32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_id_is_the_prefix_and_twenty_letters() {
        let text = "smd_0123456789abcdefGHIJ";
        assert_eq!(text.parse::<ClientId>().unwrap().to_string(), text);
        for wrong in
            ["", "smd_", "smd_0123456789abcdefGHI", "smd_0123456789abcdefGHIJk", "SMD_0123456789abcdefGHIJ", "smd_0123456789abcdefGH-J"]
        {
            assert!(wrong.parse::<ClientId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_id_is_safe_in_a_header_and_a_path() {
        for ok in ["p1", "3f1c9a30-0000-7000-8000-000000000000", "a.b_c-d"] {
            assert_eq!(ok.parse::<PracticeId>().unwrap().as_str(), ok);
        }
        for wrong in ["", ".a", "a/b", "a b", "a\r\nb", "é", &"a".repeat(65)] {
            assert!(wrong.parse::<UserId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn keys_and_tokens_have_one_spelling() {
        let key = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";
        assert_eq!(key.parse::<KeyId>().unwrap().as_str(), key);
        for wrong in ["", &key[1..], &format!("{key}a"), &key.replace('-', "+")] {
            assert!(wrong.parse::<KeyId>().is_err(), "{wrong}");
        }
        let token = "936da01f-9abd-4d9d-80c7-02af85c822a8";
        assert_eq!(token.parse::<TokenId>().unwrap().to_string(), token);
        assert_ne!(TokenId::random(), TokenId::random());
        for wrong in ["", &token.to_uppercase(), &token.replace('-', ""), &format!("{{{token}}}"), &format!("urn:uuid:{token}")] {
            assert!(wrong.parse::<TokenId>().is_err(), "{wrong}");
        }
    }
}
