//! Signed tokens: JWS (RFC 7515) in compact form, JWK (RFC 7517), and the claims of an access token (RFC 9068).
//!
//! Pure: keys and the present moment are arguments. Whoever passes [`verify`] has shown who they are, and no more: what
//! they may do is decided by live state, on every use.

mod access_token;
mod algorithm;
mod claims;
mod issuer;
mod json;
mod jws;
mod key;
mod management;
mod sealed;
mod signing;

pub use access_token::{ACCESS_TOKEN_TYPE, AccessToken, Means};
pub use algorithm::{Algorithm, UnknownAlgorithm};
pub use claims::{Claims, Expected};
pub use issuer::{Issuer, KeySource, Spoken, Trust};
pub use jws::{Compact, MAX_LENGTH, Verified, verify};
pub use key::{KeySet, MalformedKey, PublicKey};
pub use management::{MANAGEMENT_AUDIENCE, MANAGEMENT_ISSUER, MANAGEMENT_TOKEN_TYPE, ManagementIssuer, Manager};
pub use sealed::{MalformedMasterKey, MasterKey, NotSealedWithThis};
pub use signing::{SigningKey, Unsignable};

/// Why a token does not count. For operators and owners; on the wire they are all one. Says nothing of the token's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Longer than [`MAX_LENGTH`].
    #[error("it is longer than {MAX_LENGTH} bytes")]
    TooLong,
    /// Not three parts of base64url without padding (RFC 7515 §7.1).
    #[error("it is not a JWS in compact form")]
    Malformed,
    /// The header or the payload is no JSON object, or names a member twice (RFC 7515 §4).
    #[error("its header or payload is no JSON object in which each name is used once")]
    Json,
    /// A header parameter that must not be believed or is not understood: `crit`, `b64`, `jwk`, `jku`, `x5u`, `x5c`, `zip`, `enc`.
    #[error("its header has a parameter that is refused")]
    HeaderParameter,
    /// An algorithm that is not among those configured.
    #[error("its algorithm is not one that is accepted here")]
    Algorithm,
    /// No key of that `kid`.
    #[error("no key that is trusted has its `kid`")]
    UnknownKey,
    /// The signature is not that of the key.
    #[error("its signature is wrong")]
    Signature,
    /// `typ` is not the one expected (RFC 8725 §3.11).
    #[error("its `typ` is not that of a token for this use")]
    Type,
    /// A claim is missing, or of the wrong type.
    #[error("the claim `{0}` is missing or malformed")]
    Claim(&'static str),
    /// Issued by somebody else.
    #[error("its issuer is another one")]
    Issuer,
    /// Made for somebody else.
    #[error("its audience is another one")]
    Audience,
    /// `exp` has passed.
    #[error("it has expired")]
    Expired,
    /// `nbf` or `iat` has not come yet.
    #[error("it is not valid yet")]
    NotYet,
}

#[cfg(test)]
mod tests;
