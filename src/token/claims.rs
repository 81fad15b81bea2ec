//! The registered claims (RFC 7519 §4.1), checked as RFC 8725 asks for.

use std::time::Duration;

use serde_json::{Map, Value};

use super::Invalid;
use crate::clock::Timestamp;

/// The latest moment that a `NumericDate` may name, in seconds: the year 9999. Beyond it arithmetic would go wrong first.
const LATEST: f64 = 253_402_300_799.0;

/// What a token must say of itself.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// `iss`, letter by letter (RFC 8725 §3.8).
    pub issuer: &'a str,
    /// One of these is in `aud` (RFC 8725 §3.9).
    pub audiences: &'a [&'a str],
    /// How far the clocks of issuer and gateway may be apart.
    pub leeway: Duration,
}

/// The claims of a token that was made by the one expected, for us, and for this moment.
#[derive(Debug)]
pub struct Claims {
    all: Map<String, Value>,
    issued_at: Option<Timestamp>,
    expires_at: Timestamp,
}

impl Claims {
    /// Checks `iss`, `aud`, `exp`, and `iat` and `nbf` if they are there.
    ///
    /// # Errors
    /// [`Invalid`] says which does not hold.
    pub fn check(all: Map<String, Value>, expected: &Expected<'_>, now: Timestamp) -> Result<Self, Invalid> {
        if text(&all, "iss")?.ok_or(Invalid::Claim("iss"))? != expected.issuer {
            return Err(Invalid::Issuer);
        }
        let ours = |audience: &str| expected.audiences.contains(&audience);
        let made_for_us = match all.get("aud") {
            Some(Value::String(audience)) => ours(audience),
            Some(Value::Array(audiences)) => {
                let audiences: Option<Vec<&str>> = audiences.iter().map(Value::as_str).collect();
                audiences.ok_or(Invalid::Claim("aud"))?.into_iter().any(ours)
            }
            _ => return Err(Invalid::Claim("aud")),
        };
        if !made_for_us {
            return Err(Invalid::Audience);
        }
        let expires_at = moment(&all, "exp")?.ok_or(Invalid::Claim("exp"))?;
        let issued_at = moment(&all, "iat")?;
        let not_before = moment(&all, "nbf")?;
        if now >= expires_at.after(expected.leeway) {
            return Err(Invalid::Expired);
        }
        let latest = now.after(expected.leeway);
        if issued_at.into_iter().chain(not_before).any(|moment| moment > latest) {
            return Err(Invalid::NotYet);
        }
        Ok(Self { all, issued_at, expires_at })
    }

    /// When it was issued, if it says so.
    #[must_use]
    pub const fn issued_at(&self) -> Option<Timestamp> {
        self.issued_at
    }

    /// From when on it is over, but for the leeway.
    #[must_use]
    pub const fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// A claim that is a text; `None` if it is not there.
    ///
    /// # Errors
    /// [`Invalid::Claim`] if it is of another type.
    pub fn text(&self, name: &'static str) -> Result<Option<&str>, Invalid> {
        text(&self.all, name)
    }

    /// Any claim, as it is.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.all.get(name)
    }
}

fn text<'a>(all: &'a Map<String, Value>, name: &'static str) -> Result<Option<&'a str>, Invalid> {
    match all.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Invalid::Claim(name)),
    }
}

/// A `NumericDate` (RFC 7519 §2): seconds since 1970, perhaps with a fraction.
fn moment(all: &Map<String, Value>, name: &'static str) -> Result<Option<Timestamp>, Invalid> {
    let Some(value) = all.get(name) else { return Ok(None) };
    let seconds = value.as_f64().filter(|seconds| (0.0..=LATEST).contains(seconds)).ok_or(Invalid::Claim(name))?;
    #[expect(clippy::cast_possible_truncation, reason = "it is between the two bounds")]
    let millis = (seconds * 1000.0).floor() as i64;
    Ok(Some(Timestamp(millis)))
}
