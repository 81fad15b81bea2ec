//! Secrets: how they look, what is stored of them, and when one still counts.

mod secret;

pub use secret::{DigestKind, MalformedSecret, Pepper, Secret, SecretDigest};

use crate::clock::Timestamp;

/// Whether a secret may still be used at `now`. The moment it expires is the first at which it may not.
#[must_use]
pub fn usable_at(expires_at: Option<Timestamp>, now: Timestamp) -> bool {
    expires_at.is_none_or(|end| now < end)
}

/// A secret as a caller presented it, digested: what can be compared with what is stored.
pub struct Presented {
    plain: SecretDigest,
    keyed: Option<SecretDigest>,
}

impl Presented {
    /// Digests a presented secret, with the pepper too where one is configured: secrets made before the pepper was
    /// configured go on working.
    #[must_use]
    pub fn new(secret: &Secret, pepper: Option<&Pepper>) -> Self {
        Self { plain: secret.digest(None), keyed: pepper.map(|pepper| secret.digest(Some(pepper))) }
    }

    /// A digest that no secret has: what is compared when the client does not exist, so that it takes as long.
    #[must_use]
    pub const fn nobody() -> &'static SecretDigest {
        const NOBODY: &SecretDigest = &SecretDigest::from_parts(DigestKind::Sha256, [0; 32]);
        NOBODY
    }

    /// Whether this is the secret that `stored` was made of. In constant time.
    #[must_use]
    pub fn proves(&self, stored: &SecretDigest) -> bool {
        match stored.kind() {
            DigestKind::Sha256 => self.plain.same(stored),
            DigestKind::HmacSha256 => self.keyed.as_ref().is_some_and(|keyed| keyed.same(stored)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_ends_at_its_expiry_and_not_after() {
        assert!(usable_at(None, Timestamp(i64::MAX)));
        assert!(usable_at(Some(Timestamp(10)), Timestamp(9)));
        assert!(!usable_at(Some(Timestamp(10)), Timestamp(10)));
    }

    #[test]
    fn a_pepper_is_needed_for_what_was_made_with_it_and_for_nothing_else() {
        let pepper = Pepper::new(b"0123456789abcdef0123456789abcdef").unwrap();
        let other = Pepper::new(b"fedcba9876543210fedcba9876543210").unwrap();
        let secret = Secret::generate();
        let (plain, keyed) = (secret.digest(None), secret.digest(Some(&pepper)));
        assert!(Presented::new(&secret, None).proves(&plain));
        assert!(Presented::new(&secret, Some(&pepper)).proves(&plain));
        assert!(Presented::new(&secret, Some(&pepper)).proves(&keyed));
        assert!(!Presented::new(&secret, Some(&other)).proves(&keyed));
        assert!(!Presented::new(&secret, None).proves(&keyed));
        assert!(!Presented::new(&Secret::generate(), Some(&pepper)).proves(&keyed));
    }
}
