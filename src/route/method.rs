//! Request methods that can be routed (RFC 9110 §9).

use std::fmt;
use std::str::FromStr;

/// A method that a route may take. `CONNECT`, `TRACE` and everything unknown are not among them, so they match no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Method {
    /// Safe.
    Get,
    /// Safe.
    Head,
    /// Neither safe nor idempotent.
    Post,
    /// Idempotent.
    Put,
    /// Neither safe nor idempotent (RFC 5789).
    Patch,
    /// Idempotent.
    Delete,
    /// Safe.
    Options,
}

/// A word that names no method that a route may take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a method that can be routed: expected `GET`, `HEAD`, `POST`, `PUT`, `PATCH`, `DELETE` or `OPTIONS`")]
pub struct UnknownMethod(String);

impl Method {
    /// Every method.
    pub const EVERY: [Self; 7] = [Self::Get, Self::Head, Self::Post, Self::Put, Self::Patch, Self::Delete, Self::Options];

    /// The method of this name, which is case-sensitive (RFC 9110 §9.1).
    #[must_use]
    pub fn parse(name: &[u8]) -> Option<Self> {
        Self::EVERY.into_iter().find(|method| method.as_str().as_bytes() == name)
    }

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
        }
    }

    /// Whether sending it twice has the effect of sending it once (RFC 9110 §9.2.2).
    #[must_use]
    pub const fn idempotent(self) -> bool {
        !matches!(self, Self::Post | Self::Patch)
    }
}

impl FromStr for Method {
    type Err = UnknownMethod;
    fn from_str(name: &str) -> Result<Self, UnknownMethod> {
        Self::parse(name.as_bytes()).ok_or_else(|| UnknownMethod(name.chars().take(40).collect()))
    }
}

/// A set of methods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MethodSet(u8);

impl MethodSet {
    /// Every method that can be routed.
    pub const ALL: Self = Self(0x7f);

    /// Whether `method` is in the set.
    #[must_use]
    pub const fn has(self, method: Method) -> bool {
        self.0 & (1 << method as u8) != 0
    }

    /// Whether some method is in both.
    #[must_use]
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The methods of both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl FromIterator<Method> for MethodSet {
    fn from_iter<I: IntoIterator<Item = Method>>(methods: I) -> Self {
        Self(methods.into_iter().fold(0, |set, method| set | 1 << method as u8))
    }
}

/// As the `Allow` field lists them (RFC 9110 §10.2.1).
impl fmt::Display for MethodSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = Method::EVERY.into_iter().filter(|m| self.has(*m)).map(Method::as_str).collect();
        f.write_str(&names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_case_sensitive_and_few() {
        for method in Method::EVERY {
            assert_eq!(Method::parse(method.as_str().as_bytes()), Some(method));
            assert!(MethodSet::ALL.has(method));
        }
        for other in ["get", "TRACE", "TRACK", "CONNECT", "PRI", "", "GET "] {
            assert_eq!(Method::parse(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_set_lists_itself_as_allow_does() {
        assert_eq!(MethodSet::from_iter([Method::Head, Method::Get]).to_string(), "GET, HEAD");
    }
}
