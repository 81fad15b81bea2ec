//! Keys of our own that sign access tokens.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::EncodingKey;
use serde_json::json;
use zeroize::Zeroizing;

use super::{ACCESS_TOKEN_TYPE, AccessToken, Algorithm, PublicKey};

/// A private key, and the public one that it belongs to.
pub struct SigningKey {
    algorithm: Algorithm,
    pkcs8: Zeroizing<Vec<u8>>,
    library: EncodingKey,
    public: PublicKey,
    kid: String,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({}, {})", self.kid, self.algorithm)
    }
}

/// Why a key cannot sign.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsignable {
    /// Tokens of ours are signed by one of two algorithms.
    #[error("access tokens are signed by EdDSA or ES256, not by {0}")]
    Algorithm(Algorithm),
    /// Not a key in PKCS #8, or one of another kind.
    #[error("this is no private key of that algorithm in PKCS #8")]
    Key,
}

impl SigningKey {
    /// A new key.
    ///
    /// # Errors
    /// [`Unsignable::Algorithm`] for any but `EdDSA` and ES256; [`Unsignable::Key`] if the system has no randomness.
    pub fn generate(algorithm: Algorithm) -> Result<Self, Unsignable> {
        let wrong = |_| Unsignable::Key;
        let pkcs8 = match algorithm {
            Algorithm::EdDsa => Ed25519KeyPair::generate().map_err(wrong)?.to_pkcs8().map_err(wrong)?.as_ref().to_vec(),
            Algorithm::Es256 => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(wrong)?;
                pair.to_pkcs8v1().map_err(wrong)?.as_ref().to_vec()
            }
            other => return Err(Unsignable::Algorithm(other)),
        };
        Self::from_pkcs8(algorithm, pkcs8)
    }

    /// A key that was kept, as DER of PKCS #8 (RFC 5958).
    ///
    /// # Errors
    /// [`Unsignable`] says what is wrong with it.
    pub fn from_pkcs8(algorithm: Algorithm, pkcs8: Vec<u8>) -> Result<Self, Unsignable> {
        let pkcs8 = Zeroizing::new(pkcs8);
        let (library, public) = match algorithm {
            Algorithm::EdDsa => {
                let pair = Ed25519KeyPair::from_pkcs8(&pkcs8).map_err(|_| Unsignable::Key)?;
                let x = pair.public_key().as_ref().try_into().map_err(|_| Unsignable::Key)?;
                (EncodingKey::from_ed_der(&pkcs8), PublicKey::ed25519(x))
            }
            Algorithm::Es256 => {
                let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8).map_err(|_| Unsignable::Key)?;
                // After the byte that says that it is not compressed.
                let coordinates = pair.public_key().as_ref().get(1..).unwrap_or_default().to_vec();
                (EncodingKey::from_ec_der(&pkcs8), PublicKey::p256(&coordinates))
            }
            other => return Err(Unsignable::Algorithm(other)),
        };
        let public = public.map_err(|_| Unsignable::Key)?;
        let kid = public.thumbprint();
        Ok(Self { algorithm, pkcs8, library, public, kid })
    }

    /// The private key as DER of PKCS #8: to be sealed, and never anything else.
    #[must_use]
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// What tokens call it: its thumbprint.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// What it signs by.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// What checks its signatures.
    #[must_use]
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The access token, signed, in compact form.
    ///
    /// # Errors
    /// [`Unsignable::Key`] if the library cannot sign, as without randomness.
    pub fn sign(&self, token: &AccessToken) -> Result<String, Unsignable> {
        let header = json!({ "typ": ACCESS_TOKEN_TYPE, "alg": self.algorithm.as_str(), "kid": self.kid });
        self.sign_json(&header, &token.to_claims())
    }

    /// Signs any claims under any header, in compact serialization (RFC 7515 §7.1).
    ///
    /// # Errors
    /// [`Unsignable`] if the library does not take the key.
    pub fn sign_json(&self, header: &serde_json::Value, claims: &serde_json::Value) -> Result<String, Unsignable> {
        let mut token = URL_SAFE_NO_PAD.encode(header.to_string());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims.to_string(), &mut token);
        let signature =
            jsonwebtoken::crypto::sign(token.as_bytes(), &self.library, self.algorithm.library()).map_err(|_| Unsignable::Key)?;
        token.push('.');
        token.push_str(&signature);
        Ok(token)
    }
}
