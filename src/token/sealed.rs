//! Private keys at rest: AES-256-GCM under a master key that the database never sees.

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::{Zeroize, Zeroizing};

/// Bytes of a nonce, which stands before what it was used for.
const NONCE: usize = 12;

/// What seals private keys.
pub struct MasterKey(RandomizedNonceKey);

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey")
    }
}

/// A text that is no master key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a master key is 32 random bytes in base64, as `openssl rand -base64 32` prints them")]
pub struct MalformedMasterKey;

/// It was sealed with another master key, or for another purpose, or was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it was not sealed with this master key, or it was changed since")]
pub struct NotSealedWithThis;

impl MasterKey {
    /// Reads 32 bytes in base64; blanks around them are left out.
    ///
    /// # Errors
    /// [`MalformedMasterKey`] for anything else.
    pub fn parse(text: &str) -> Result<Self, MalformedMasterKey> {
        let bytes = Zeroizing::new(STANDARD.decode(text.trim()).map_err(|_| MalformedMasterKey)?);
        if bytes.len() != 32 {
            return Err(MalformedMasterKey);
        }
        RandomizedNonceKey::new(&AES_256_GCM, &bytes).map(Self).map_err(|_| MalformedMasterKey)
    }

    /// Seals `secret` for `purpose`, without which it is not opened again. The nonce is random: one master key is good
    /// for far more keys than a gateway ever makes (NIST SP 800-38D §8.3: 2^32).
    ///
    /// # Panics
    /// If the system has no randomness.
    #[must_use]
    pub fn seal(&self, purpose: &str, secret: &[u8]) -> Vec<u8> {
        let mut sealed = secret.to_vec();
        let nonce = self.0.seal_in_place_append_tag(Aad::from(purpose), &mut sealed).expect("the system has randomness");
        [nonce.as_ref().as_slice(), &sealed].concat()
    }

    /// Opens what was sealed for `purpose`.
    ///
    /// # Errors
    /// [`NotSealedWithThis`].
    pub fn open(&self, purpose: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotSealedWithThis> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE).ok_or(NotSealedWithThis)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| NotSealedWithThis)?;
        let mut buffer = Zeroizing::new(sealed.to_vec());
        let length = self.0.open_in_place(nonce, Aad::from(purpose), &mut buffer).map_err(|_| NotSealedWithThis)?.len();
        buffer[length..].zeroize();
        buffer.truncate(length);
        Ok(buffer)
    }
}
