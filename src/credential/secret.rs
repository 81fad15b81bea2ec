//! The secret itself: 256 random bits in base62, with a checksum that refuses a typing error without a look-up.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::digest::{Mac, sha256};
use crate::id::BASE62;

const PREFIX: &str = Secret::PREFIX;
/// 62^43 > 2^256: so many letters hold 256 bits.
const RANDOM: usize = 43;
/// 62^6 > 2^32: so many letters hold a CRC-32.
const CHECKSUM: usize = 6;
const LENGTH: usize = PREFIX.len() + RANDOM + CHECKSUM;

/// A text that is no secret of ours: wrong length, prefix, letters or checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a secret: expected `smds_`, 43 letters or digits and 6 of checksum")]
pub struct MalformedSecret;

/// A client secret in the clear: `smds_`, 43 random base62 characters, 6 of CRC-32. Shown once, never stored, wiped
/// when dropped, printed as `Secret(..)`.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; LENGTH]);

impl Secret {
    /// What every secret begins with, so that one that has leaked can be recognised.
    pub const PREFIX: &'static str = "smds_";

    /// A new secret from the operating system's random numbers.
    ///
    /// # Panics
    /// When the operating system has no random numbers to give: nothing safe could be done then.
    #[must_use]
    pub fn generate() -> Self {
        let mut text = [0; LENGTH];
        text[..PREFIX.len()].copy_from_slice(PREFIX.as_bytes());
        fill_base62(&mut text[PREFIX.len()..PREFIX.len() + RANDOM]);
        let sum = checksum(&text[..PREFIX.len() + RANDOM]);
        text[PREFIX.len() + RANDOM..].copy_from_slice(&sum);
        Self(text)
    }

    /// Parses what a caller presented; looks nothing up.
    ///
    /// # Errors
    /// [`MalformedSecret`] for anything that [`generate`](Self::generate) cannot have made.
    pub fn parse(bytes: &[u8]) -> Result<Self, MalformedSecret> {
        let text: [u8; LENGTH] = bytes.try_into().map_err(|_| MalformedSecret)?;
        let letters = text.strip_prefix(PREFIX.as_bytes()).ok_or(MalformedSecret)?;
        if !letters.iter().all(u8::is_ascii_alphanumeric) || checksum(&text[..PREFIX.len() + RANDOM]) != text[PREFIX.len() + RANDOM..] {
            return Err(MalformedSecret);
        }
        Ok(Self(text))
    }

    /// The secret in the clear, to be shown once.
    #[must_use]
    pub fn reveal(&self) -> &str {
        std::str::from_utf8(&self.0).expect("only ASCII letters and digits are ever stored")
    }

    /// What is stored: SHA-256, or HMAC-SHA-256 under the pepper. No slow hash is needed for 256 random bits (NIST
    /// SP 800-63B).
    #[must_use]
    pub fn digest(&self, pepper: Option<&Pepper>) -> SecretDigest {
        match pepper {
            None => SecretDigest { kind: DigestKind::Sha256, bytes: sha256(self.0) },
            Some(pepper) => SecretDigest { kind: DigestKind::HmacSha256, bytes: pepper.mac.of(&self.0) },
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Fills `letters` with base62 characters, each drawn evenly.
pub(crate) fn fill_base62(letters: &mut [u8]) {
    let mut pool = [0u8; 64];
    let mut filled = 0;
    while filled < letters.len() {
        getrandom::fill(&mut pool).expect("the operating system gives random numbers");
        for byte in pool {
            // 248 is the greatest multiple of 62 in a byte: what is above it would favour the first letters.
            if byte < 248 && filled < letters.len() {
                letters[filled] = BASE62[usize::from(byte % 62)];
                filled += 1;
            }
        }
    }
    pool.zeroize();
}

fn checksum(text: &[u8]) -> [u8; CHECKSUM] {
    let mut rest = crc32fast::hash(text);
    let mut letters = [b'0'; CHECKSUM];
    for letter in letters.iter_mut().rev() {
        *letter = BASE62[(rest % 62) as usize];
        rest /= 62;
    }
    letters
}

/// A key of the server's own that goes into every digest, so that the database alone proves nothing.
pub struct Pepper {
    mac: Mac,
}

impl Pepper {
    /// The fewest bytes a pepper may have.
    pub const MIN_BYTES: usize = 16;

    /// A pepper of these bytes.
    ///
    /// # Errors
    /// `None` for fewer than 16 bytes.
    #[must_use]
    pub fn new(key: &[u8]) -> Option<Self> {
        if key.len() < Self::MIN_BYTES {
            return None;
        }
        Some(Self { mac: Mac::new(key) })
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pepper(..)")
    }
}

/// How a [`SecretDigest`] was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DigestKind {
    /// SHA-256 of the secret.
    Sha256,
    /// HMAC-SHA-256 of the secret under the pepper.
    HmacSha256,
}

impl DigestKind {
    /// The word for it in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::HmacSha256 => "hmac-sha256",
        }
    }

    /// The kind that the database's word stands for.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Sha256, Self::HmacSha256].into_iter().find(|kind| kind.as_str() == word)
    }
}

/// What is stored of a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretDigest {
    kind: DigestKind,
    bytes: [u8; 32],
}

impl SecretDigest {
    /// A digest read from the store.
    #[must_use]
    pub const fn from_parts(kind: DigestKind, bytes: [u8; 32]) -> Self {
        Self { kind, bytes }
    }

    /// How it was made.
    #[must_use]
    pub const fn kind(&self) -> DigestKind {
        self.kind
    }

    /// Its 32 bytes, for the store.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// Equality in constant time.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        self.kind == other.kind && bool::from(self.bytes.ct_eq(&other.bytes))
    }
}

impl fmt::Debug for SecretDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretDigest({}, ..)", self.kind.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_generated_parses_and_never_prints() {
        let secret = Secret::generate();
        assert_eq!(secret.reveal().len(), 54);
        assert_eq!(Secret::parse(secret.reveal().as_bytes()).unwrap().reveal(), secret.reveal());
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }

    #[test]
    fn every_letter_is_drawn() {
        let mut letters = [0; 6200];
        fill_base62(&mut letters);
        let mut counts = [0; 256];
        for letter in letters {
            counts[usize::from(letter)] += 1;
        }
        for letter in BASE62 {
            let count = counts[usize::from(*letter)];
            assert!((40..200).contains(&count), "`{}` was drawn {count} times of about 100", char::from(*letter));
        }
    }

    proptest! {
        #[test]
        fn one_wrong_letter_is_refused_without_a_look_up(at in 0..LENGTH, other in any::<u8>()) {
            let mut text = Secret::generate().0;
            prop_assume!(text[at] != other);
            text[at] = other;
            prop_assert!(Secret::parse(&text).is_err());
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes: Vec<u8>) {
            let _ = Secret::parse(&bytes);
        }
    }
}
