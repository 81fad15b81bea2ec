//! Data scopes: their names, and sets of them as bits.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use parking_lot::RwLock;

/// Why a text is not a scope, or a scope cannot be taken in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a lower-case word of 1 to 32 characters.
    #[error("`{0}` is not a scope: expected 1 to 32 lower-case letters, digits, `_`, `-`, `.` or `:`, starting with a letter")]
    NotAScope(String),
    /// More names than there are bits.
    #[error("`{0}` would be scope number {limit}: at most {max} can be known to one process", limit = ScopeRegistry::MAX + 1, max = ScopeRegistry::MAX)]
    Full(String),
}

/// The name of one scope (a scope-token of RFC 6749 §3.3, narrowed to words that need no quoting anywhere).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(transparent)]
pub struct ScopeToken(Arc<str>);

impl ScopeToken {
    /// The scope that covers every other, those of the future included.
    pub const ALL: &'static str = "all";

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is `all`.
    pub fn is_all(&self) -> bool {
        &*self.0 == Self::ALL
    }
}

impl FromStr for ScopeToken {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let ok = (1..=32).contains(&text.len())
            && text.as_bytes()[0].is_ascii_lowercase()
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'.' | b':'));
        if ok { Ok(Self(text.into())) } else { Err(Error::NotAScope(text.chars().take(80).collect())) }
    }
}

impl fmt::Display for ScopeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Scopes as bits of the process-wide [`ScopeRegistry`]. Bits are given out once and never renumbered, so sets made
/// before and after a reload compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScopeSet(u128);

impl ScopeSet {
    /// No scope.
    pub const EMPTY: Self = Self(0);
    /// What the scope `all` stands for: every bit, also those not yet given out.
    pub const ALL: Self = Self(u128::MAX);

    /// Whether every scope in `required` is also in `self`.
    #[must_use]
    pub const fn covers(self, required: Self) -> bool {
        self.0 & required.0 == required.0
    }

    /// Whether any scope is in both.
    #[must_use]
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The scopes that are in both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The scopes of both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Which bit each scope name has. Shared by the route map and the replica: whoever names a scope first gives it its bit.
#[derive(Debug, Default)]
pub struct ScopeRegistry {
    bits: RwLock<HashMap<ScopeToken, u32>>,
}

impl ScopeRegistry {
    /// How many names fit: one bit is kept so that no set of named scopes can equal [`ScopeSet::ALL`].
    pub const MAX: usize = 127;

    /// The set that holds just this scope.
    ///
    /// # Errors
    /// [`Error::Full`] when 127 other names are known already.
    pub fn intern(&self, scope: &ScopeToken) -> Result<ScopeSet, Error> {
        if scope.is_all() {
            return Ok(ScopeSet::ALL);
        }
        if let Some(bit) = self.bits.read().get(scope) {
            return Ok(ScopeSet(1 << bit));
        }
        let mut bits = self.bits.write();
        let next = bits.len();
        if let Some(bit) = bits.get(scope) {
            return Ok(ScopeSet(1 << bit));
        }
        if next >= Self::MAX {
            return Err(Error::Full(scope.to_string()));
        }
        let bit = u32::try_from(next).expect("at most 127");
        bits.insert(scope.clone(), bit);
        Ok(ScopeSet(1 << bit))
    }

    /// The set that holds just this scope, if its name is known already. For names that come from outside: those must not
    /// use up the bits.
    #[must_use]
    pub fn find(&self, scope: &ScopeToken) -> Option<ScopeSet> {
        if scope.is_all() { Some(ScopeSet::ALL) } else { self.bits.read().get(scope).map(|bit| ScopeSet(1 << bit)) }
    }

    /// How many names are known. Never less than before.
    #[must_use]
    pub fn known(&self) -> usize {
        self.bits.read().len()
    }

    /// The set of all these scopes.
    ///
    /// # Errors
    /// [`Error::Full`] as for [`intern`](Self::intern).
    pub fn intern_all<'a>(&self, scopes: impl IntoIterator<Item = &'a ScopeToken>) -> Result<ScopeSet, Error> {
        scopes.into_iter().try_fold(ScopeSet::EMPTY, |set, scope| Ok(set.union(self.intern(scope)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token(text: &str) -> ScopeToken {
        text.parse().unwrap()
    }

    #[test]
    fn all_covers_scopes_that_are_named_later() {
        let registry = ScopeRegistry::default();
        let all = registry.intern(&token("all")).unwrap();
        let later = registry.intern(&token("imaging")).unwrap();
        assert!(all.covers(later) && !later.covers(all));
    }

    #[test]
    fn every_name_together_is_still_not_all() {
        let registry = ScopeRegistry::default();
        let mut set = ScopeSet::EMPTY;
        for n in 0..ScopeRegistry::MAX {
            set = set.union(registry.intern(&token(&format!("s{n}"))).unwrap());
        }
        assert_ne!(set, ScopeSet::ALL);
        assert_eq!(registry.intern(&token("more")), Err(Error::Full("more".into())));
        assert_eq!(registry.intern(&token("s5")), Ok(ScopeSet(1 << 5)), "a known name still has its bit");
    }

    #[test]
    fn a_scope_is_a_plain_word() {
        for wrong in ["", "Billing", "a b", "a\"b", "1a", "é", &"a".repeat(33)] {
            assert!(wrong.parse::<ScopeToken>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn covers_is_a_partial_order(a: u128, b: u128, c: u128) {
            let (a, b, c) = (ScopeSet(a), ScopeSet(b), ScopeSet(c));
            prop_assert!(a.covers(a));
            prop_assert!(!(a.covers(b) && b.covers(c)) || a.covers(c));
            prop_assert!(!(a.covers(b) && b.covers(a)) || a == b);
            prop_assert!(a.union(b).covers(a) && a.union(b).covers(b));
            prop_assert_eq!(a.meets(b), b.meets(a));
            prop_assert!(a.covers(a.intersection(b)) && b.covers(a.intersection(b)));
            prop_assert_eq!(a.meets(b), !a.intersection(b).is_empty());
        }
    }
}
