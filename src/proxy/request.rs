//! From pingora's request header to what the gate decides on.
//!
//! An HTTP/1.1 header has been checked as bytes by [`super::wire`]; here HTTP/2 is held to the same rules, and what
//! is common to both is drawn out.

use std::net::IpAddr;

use http::header::{AUTHORIZATION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::{Method, Version};
use pingora::http::RequestHeader;

use super::Settings;
use super::headers::{self, Fields};
use super::wire::{self, Limits};
use crate::access::{Denial, MalformedRequest};

const fn message(why: &'static str) -> Denial {
    Denial::Malformed(MalformedRequest::Message(why))
}

/// What a request header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts<'a> {
    /// The request target in origin-form.
    pub target: &'a [u8],
    /// Whether `target` is only a part of what was sent, the rest being scheme and authority.
    pub rewritten: bool,
    /// The credential.
    pub authorization: Option<&'a [u8]>,
    /// The length of the content, where it is stated.
    pub content_length: Option<u64>,
}

/// Reads a request header.
///
/// # Errors
/// Whatever two parsers could read in two ways, and whatever is over the limits.
pub fn read<'a>(request: &'a RequestHeader, limits: &Limits) -> Result<Facts<'a>, Denial> {
    if request.version == Version::HTTP_2 {
        check_http2(request, limits)?;
    } else if request.version != Version::HTTP_11 {
        return Err(message("the version is neither HTTP/1.1 nor HTTP/2"));
    }
    let raw = request.raw_path();
    let host = request.headers.get(HOST).map(http::HeaderValue::as_bytes).unwrap_or_default();
    // HTTP/2 has no absolute-form: scheme and authority stand in fields of their own.
    let target = if request.version == Version::HTTP_2 { raw } else { wire::origin_form(raw, host)? };
    let mut credentials = request.headers.get_all(AUTHORIZATION).iter();
    let authorization = credentials.next().map(http::HeaderValue::as_bytes);
    if credentials.next().is_some() {
        return Err(Denial::Malformed(MalformedRequest::TwoCredentials));
    }
    let content_length = request.headers.get(CONTENT_LENGTH).map(|value| wire::content_length(value.as_bytes())).transpose()?;
    Ok(Facts { target, rewritten: request.version == Version::HTTP_2 || target.len() != raw.len(), authorization, content_length })
}

/// What [`wire::check`] does for HTTP/1.1.
fn check_http2(request: &RequestHeader, limits: &Limits) -> Result<(), Denial> {
    if request.raw_path().len() > limits.target {
        return Err(Denial::UriTooLong);
    }
    let (mut fields, mut bytes) = (0, 0);
    for (name, value) in &request.headers {
        fields += 1;
        bytes += name.as_str().len() + value.len() + 4;
        if !wire::is_field_value(value.as_bytes()) {
            return Err(message("the value of a field has a control character or one that is not ASCII"));
        }
    }
    if fields > limits.fields || bytes > limits.bytes {
        return Err(Denial::HeadersTooLarge);
    }
    if request.method == Method::CONNECT {
        return Err(Denial::MethodNotAllowed(crate::route::MethodSet::ALL.to_string().into()));
    }
    let several = |name| request.headers.get_all(name).iter().nth(1).is_some();
    if several(HOST) {
        return Err(message("there is more than one Host"));
    }
    if several(CONTENT_LENGTH) {
        return Err(message("there is more than one Content-Length"));
    }
    if request.headers.contains_key(TRANSFER_ENCODING) || !headers::te_is_allowed(&request.headers) {
        return Err(message("HTTP/2 has no transfer codings"));
    }
    if !matches!(request.uri.scheme_str(), Some("http" | "https")) {
        return Err(message("`:scheme` is neither http nor https"));
    }
    let authority = request.uri.authority().map(|authority| authority.as_str().as_bytes());
    let host = request.headers.get(HOST).map(http::HeaderValue::as_bytes);
    match (authority, host) {
        (None, None) => return Err(message("there is no authority")),
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
            return Err(message("`:authority` and Host differ"));
        }
        _ => {}
    }
    if !authority.or(host).is_some_and(wire::is_host) {
        return Err(message("`:authority` is not a host with or without a port"));
    }
    if request.headers.get_all(EXPECT).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(Denial::ExpectationFailed);
    }
    Ok(())
}

/// The caller's address: the connection's, or what a trusted proxy says. With it, whether the connection's is trusted.
pub fn client(fields: &impl Fields, peer: IpAddr, settings: &Settings) -> (IpAddr, bool) {
    let trusted = |address: IpAddr| settings.trusted_proxies.iter().any(|net| net.contains(&address));
    if settings.trusted_proxies.is_empty() || !trusted(peer) {
        return (peer, false);
    }
    (headers::forwarded_client(fields, peer, trusted), true)
}
