//! The compact form of a JWS (RFC 7515 §7.1), and whether a key that is trusted has signed it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::{Algorithm, Invalid, KeySet, json};

/// The longest token that is looked at, in bytes.
pub const MAX_LENGTH: usize = 8 * 1024;
/// More than any `kid` needs.
pub(super) const MAX_KID: usize = 256;

/// Parameters that would have a token say how it is to be checked (RFC 8725 §3.10), that change what the signature is over
/// (RFC 7797), or that have to be understood (RFC 7515 §4.1.11), which none of them is.
const REFUSED: [&str; 8] = ["crit", "b64", "jwk", "jku", "x5u", "x5c", "zip", "enc"];

/// A token whose shape is right, and nothing of which may be believed yet.
#[derive(Debug)]
pub struct Compact<'a> {
    signed: &'a [u8],
    payload: &'a str,
    signature: &'a str,
    algorithm: Algorithm,
    kid: Option<String>,
    typ: Option<String>,
}

/// What a key that is trusted has signed.
#[derive(Debug)]
pub struct Verified {
    typ: Option<String>,
    payload: Vec<u8>,
}

impl<'a> Compact<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// [`Invalid`] for what cannot be a token that is accepted here, whoever signed it.
    pub fn parse(token: &'a [u8]) -> Result<Self, Invalid> {
        if token.len() > MAX_LENGTH {
            return Err(Invalid::TooLong);
        }
        let token = std::str::from_utf8(token).map_err(|_| Invalid::Malformed)?;
        let (signed, signature) = token.rsplit_once('.').ok_or(Invalid::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(Invalid::Malformed)?;
        if header.is_empty() || payload.contains('.') || signature.is_empty() {
            return Err(Invalid::Malformed);
        }
        let header = json::object(&decode(header)?).ok_or(Invalid::Json)?;
        if REFUSED.iter().any(|name| header.contains_key(*name)) {
            return Err(Invalid::HeaderParameter);
        }
        let text = |name: &str| match header.get(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.len() <= MAX_KID => Ok(Some(text.clone())),
            Some(_) => Err(Invalid::HeaderParameter),
        };
        let algorithm = text("alg")?.and_then(|name| name.parse().ok()).ok_or(Invalid::Algorithm)?;
        Ok(Self { signed: signed.as_bytes(), payload, signature, algorithm, kid: text("kid")?, typ: text("typ")? })
    }

    /// A text that the payload has under `name`, which nobody vouches for: a word to look something up by, and no more.
    #[must_use]
    pub fn claimed(&self, name: &str) -> Option<String> {
        match json::object(&decode(self.payload).ok()?)?.remove(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// Which key is said to have signed it: a word to look a key up by, and no more.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }
}

/// Whether one of `keys` has signed the token by one of `algorithms`; and what.
///
/// # Errors
/// [`Invalid`] says why not.
pub fn verify(token: &Compact<'_>, keys: &KeySet, algorithms: &[Algorithm]) -> Result<Verified, Invalid> {
    if !algorithms.contains(&token.algorithm) {
        return Err(Invalid::Algorithm);
    }
    let key = keys.find(token.kid()).ok_or(Invalid::UnknownKey)?;
    if !key.takes(token.algorithm) {
        return Err(Invalid::Algorithm);
    }
    // The library takes the signature apart leniently enough to be asked only about one form of it.
    decode(token.signature)?;
    if !key.has_signed(token.signed, token.signature, token.algorithm) {
        return Err(Invalid::Signature);
    }
    Ok(Verified { typ: token.typ.clone(), payload: decode(token.payload)? })
}

impl Verified {
    /// What was signed, whatever it is.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The claims, if `typ` is `wanted`; `application/` before it is left out (RFC 7515 §4.1.9).
    ///
    /// # Errors
    /// [`Invalid::Type`]; [`Invalid::Json`] if the payload is no JSON object.
    pub fn of_type(&self, wanted: &str) -> Result<Map<String, Value>, Invalid> {
        let typ = self.typ.as_deref().ok_or(Invalid::Type)?;
        let prefix = "application/";
        let short = match typ.get(..prefix.len()) {
            Some(start) if start.eq_ignore_ascii_case(prefix) => &typ[prefix.len()..],
            _ => typ,
        };
        if short.eq_ignore_ascii_case(wanted) { self.object() } else { Err(Invalid::Type) }
    }

    fn object(&self) -> Result<Map<String, Value>, Invalid> {
        json::object(&self.payload).ok_or(Invalid::Json)
    }

    /// The claims of a token that need not say what it is for, as those of many an issuer: `typ` is one of `wanted`, or not
    /// there.
    ///
    /// # Errors
    /// As [`Verified::of_type`].
    pub fn of_type_if_any(&self, wanted: &[&str]) -> Result<Map<String, Value>, Invalid> {
        if self.typ.is_none() {
            return self.object();
        }
        wanted.iter().map(|wanted| self.of_type(wanted)).find(|claims| !matches!(claims, Err(Invalid::Type))).unwrap_or(Err(Invalid::Type))
    }
}

/// Base64url as RFC 7515 §2 has it: without padding, and in the one form that its bytes have.
fn decode(text: &str) -> Result<Vec<u8>, Invalid> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| Invalid::Malformed)
}
