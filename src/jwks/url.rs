//! Which URLs keys are fetched from.

use std::net::{IpAddr, Ipv4Addr};

use reqwest::Url;

use super::{Error, Networks};

/// No URL needs more bytes.
const MAX_LENGTH: usize = 2048;

/// Whether keys may be fetched from `url`: `https`, or `http` from this machine itself, and no address that is not
/// permitted. What a name resolves to is asked anew with every fetch.
///
/// # Errors
/// [`Error::Url`] or [`Error::Forbidden`] says why not.
pub fn check(url: &str, networks: &Networks) -> Result<(), Error> {
    parse(url, networks).map(drop)
}

/// Whether `host` is this machine itself, by its name or as an address, IPv6 in brackets or without.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || literal(host).is_some_and(|address| address.to_canonical().is_loopback())
}

pub(super) fn parse(text: &str, networks: &Networks) -> Result<Url, Error> {
    if text.len() > MAX_LENGTH {
        return Err(Error::Url("is longer than 2048 bytes"));
    }
    // Of a parser that leaves out what it does not like, whoever looks at the URL would see another one.
    if text.bytes().any(|b| b <= b' ' || b == 0x7f || b == b'\\') {
        return Err(Error::Url("has a blank, a control character or a backslash"));
    }
    let url = Url::parse(text).map_err(|_| Error::Url("is no URL"))?;
    let host = url.host_str().ok_or(Error::Url("has no host"))?;
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(host) => {}
        "http" => return Err(Error::Url("is not encrypted, which only this machine itself need not be")),
        _ => return Err(Error::Url("has another scheme")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Error::Url("has a user name or password"));
    }
    if url.fragment().is_some() {
        return Err(Error::Url("has a fragment"));
    }
    if url.port() == Some(0) {
        return Err(Error::Url("has no usable port"));
    }
    // The parser has written numbers of every kind as an address. Other names are looked at when they are resolved, but
    // what this one means is known.
    let address = literal(host).or_else(|| is_loopback(host).then_some(Ipv4Addr::LOCALHOST.into()));
    match address {
        Some(address) if !networks.permit(address) => Err(Error::Forbidden(address)),
        _ => Ok(url),
    }
}

fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}
