//! Finds the credential that a request presents (RFC 7617, RFC 6750 §2).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroize;

use crate::access::{CredentialFault, Denial, MalformedRequest};
use crate::credential::Secret;
use crate::id::ClientId;

/// A credential of the right shape, not yet checked.
#[derive(Debug)]
pub enum Credential<'a> {
    /// HTTP Basic with a client id and a secret.
    Basic(ClientId, Secret),
    /// A bearer token.
    Bearer(&'a [u8]),
}

/// The bytes of `token68` (RFC 9110 §11.2).
const TOKEN68: [bool; 256] = {
    let mut fits = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        fits[byte as usize] = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'=');
        byte += 1;
    }
    fits
};

/// The longest `user-pass` that is decoded: ours have 79 bytes.
const MAX_BASIC: usize = 256;

/// Parses the value of the one `Authorization` field.
///
/// # Errors
/// [`Denial::CredentialMissing`] without a field; [`Denial::Malformed`] for one that RFC 9110 §11.4 does not allow or that
/// lists two; [`Denial::CredentialInvalid`] for what cannot be a credential of ours, without looking anything up.
pub fn credential(authorization: Option<&[u8]>) -> Result<Credential<'_>, Denial> {
    let Some(value) = authorization else { return Err(Denial::CredentialMissing) };
    let value = value.trim_ascii();
    if value.is_empty() {
        return Err(Denial::CredentialMissing);
    }
    let end = value.iter().position(|b| *b == b' ').unwrap_or(value.len());
    let (scheme, rest) = value.split_at(end);
    let rest = rest.trim_ascii_start();
    if scheme.eq_ignore_ascii_case(b"basic") {
        basic(one(rest)?)
    } else if scheme.eq_ignore_ascii_case(b"bearer") {
        one(rest).map(Credential::Bearer)
    } else {
        Err(Denial::CredentialInvalid(CredentialFault::UnknownScheme))
    }
}

/// Exactly one token68 (RFC 9110 §11.2).
fn one(rest: &[u8]) -> Result<&[u8], Denial> {
    // Every byte is looked at: without a way out in the middle, several at a time.
    if !rest.is_empty() && rest.iter().fold(true, |fits, byte| fits & TOKEN68[usize::from(*byte)]) {
        return Ok(rest);
    }
    Err(Denial::Malformed(if rest.contains(&b',') {
        MalformedRequest::TwoCredentials
    } else {
        MalformedRequest::Authorization("the Authorization header must be a scheme, one blank and one credential")
    }))
}

fn basic<'a>(encoded: &[u8]) -> Result<Credential<'a>, Denial> {
    let malformed = Denial::CredentialInvalid(CredentialFault::Malformed);
    let mut buffer = [0; MAX_BASIC];
    let decoded = STANDARD.decode_slice(encoded, &mut buffer);
    let length = decoded.map_err(|error| {
        buffer.zeroize();
        match error {
            base64::DecodeSliceError::OutputSliceTooSmall => malformed.clone(),
            base64::DecodeSliceError::DecodeError(_) => {
                Denial::Malformed(MalformedRequest::Authorization("the Basic credential is not the base64 of an id, a colon and a secret"))
            }
        }
    })?;
    let decoded = &buffer[..length];
    let parsed = decoded.iter().position(|b| *b == b':').and_then(|colon| {
        let id = ClientId::parse(&decoded[..colon])?;
        let secret = Secret::parse(&decoded[colon + 1..]).ok()?;
        Some(Credential::Basic(id, secret))
    });
    buffer[..length].zeroize();
    parsed.ok_or(malformed)
}

/// The names under which credentials are found in queries.
const IN_QUERY: [&str; 4] = ["access_token", "client_secret", "client_assertion", "api_key"];

/// Whether the query names a credential: refused wherever it leads, since queries end up in logs and histories.
#[must_use]
pub fn credential_in_query(query: &str) -> bool {
    query.split('&').any(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        if name.contains(['%', '+']) {
            let decoded = decode(name);
            IN_QUERY.iter().any(|known| decoded.eq_ignore_ascii_case(known.as_bytes()))
        } else {
            IN_QUERY.iter().any(|known| name.eq_ignore_ascii_case(known))
        }
    })
}

fn decode(name: &str) -> Vec<u8> {
    let bytes = name.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = (bytes[at] == b'%').then(|| bytes.get(at + 1..at + 3)).flatten();
        let value = escape.and_then(|digits| std::str::from_utf8(digits).ok()).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(value.unwrap_or(bytes[at]));
        at += if value.is_some() { 3 } else { 1 };
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic_value(text: &[u8]) -> String {
        format!("Basic {}", STANDARD.encode(text))
    }

    #[test]
    fn a_credential_is_found_or_refused_with_the_right_answer() {
        let secret = Secret::generate();
        let id = "smd_0123456789abcdefGHIJ";
        let good = format!("{id}:{}", secret.reveal());
        let encoded = STANDARD.encode(&good);
        for ok in [basic_value(good.as_bytes()), format!("bAsIc {encoded}"), format!("BASIC   {encoded} ")] {
            assert!(matches!(credential(Some(ok.as_bytes())), Ok(Credential::Basic(found, _)) if found.to_string() == id), "{ok}");
        }
        assert!(matches!(credential(Some(b"bEARER  a.b-c_d ")), Ok(Credential::Bearer(b"a.b-c_d"))));
        for (value, want) in [
            (None, "credential_missing"),
            (Some(String::new()), "credential_missing"),
            (Some("Basic".into()), "malformed_authorization"),
            (Some("Basic ".into()), "malformed_authorization"),
            (Some("Basic !!!".into()), "malformed_authorization"),
            (Some("Basic YQ".into()), "malformed_authorization"),
            (Some(format!("Basic {encoded} {encoded}")), "malformed_authorization"),
            (Some(format!("Basic {encoded}, Basic {encoded}")), "two_credentials"),
            (Some(format!("Bearer abc, Basic {encoded}")), "two_credentials"),
            (Some("Bearer a b".into()), "malformed_authorization"),
            (Some("Bearer".into()), "malformed_authorization"),
            (Some("Digest username=\"a\", uri=\"/\"".into()), "unknown_scheme"),
            (Some(encoded.clone()), "unknown_scheme"),
            (Some(basic_value(b"")), "malformed_authorization"),
            (Some(basic_value(b"a:b")), "malformed_credential"),
            (Some(basic_value(format!("{id}:").as_bytes())), "malformed_credential"),
            (Some(basic_value(format!("{good}\n").as_bytes())), "malformed_credential"),
            (Some(basic_value(format!("{good}\0").as_bytes())), "malformed_credential"),
            (Some(basic_value(&good.as_bytes()[..good.len() - 1])), "malformed_credential"),
            (Some(basic_value(&[b'a'; 300])), "malformed_credential"),
        ] {
            let denial = credential(value.as_deref().map(str::as_bytes)).unwrap_err();
            assert_eq!(denial.label(), want, "{value:?}");
        }
    }

    #[test]
    fn a_credential_in_the_query_is_seen_in_every_spelling() {
        for yes in ["access_token=x", "a=1&access_token", "%61ccess_token=x", "ACCESS_TOKEN=x", "client_secret=", "a&api_key=1"] {
            assert!(credential_in_query(yes), "{yes}");
        }
        for no in ["", "a=access_token", "access_tokens=1", "xaccess_token=1", "%zz=1"] {
            assert!(!credential_in_query(no), "{no}");
        }
    }
}
