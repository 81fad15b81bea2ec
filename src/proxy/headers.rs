//! What goes upstream: which fields of the caller are kept out, and which ones we add.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::IpAddr;

use bytes::BytesMut;
use http::header::{AUTHORIZATION, CONNECTION, COOKIE, FORWARDED, HOST, TE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue};
use pingora::http::RequestHeader;

use super::{REQUEST_ID, ids};
use crate::cache::Identity;

const PRACTICE_ID: HeaderName = HeaderName::from_static("x-sigmamd-practice-id");
const CLIENT_ID: HeaderName = HeaderName::from_static("x-sigmamd-client-id");
const USER_ID: HeaderName = HeaderName::from_static("x-sigmamd-user-id");
const SCOPES: HeaderName = HeaderName::from_static("x-sigmamd-scopes");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// What the gateway says about a request to the upstream.
pub struct Added<'a> {
    /// The caller's identity; none on public routes.
    pub identity: Option<&'a Identity>,
    /// The id of the request.
    pub request_id: &'a HeaderValue,
    /// Whether the route hands on `Authorization`.
    pub authorization: bool,
    /// The address of the connection.
    pub peer: IpAddr,
    /// Whether that address is a trusted proxy, whose forwarding fields are added to instead of replaced.
    pub trusted: bool,
    /// Whether the caller's connection is TLS.
    pub secure: bool,
    /// Whether the caller speaks HTTP/2.
    pub http2: bool,
    /// Whether the upstream does.
    pub trailers: bool,
}

/// Turns the caller's fields into those for the upstream.
///
/// # Errors
/// A value of ours cannot stand in a field; not possible from outside.
pub fn rewrite(request: &mut RequestHeader, added: &Added<'_>) -> pingora::Result<()> {
    // Kept aside before they are removed; of a trusted proxy alone.
    let mut chain = None;
    let mut scheme = HeaderValue::from_static(if added.secure { "https" } else { "http" });
    let mut host = request.headers.get(HOST).cloned();
    if added.trusted {
        chain = join(&request.headers, &FORWARDED_FOR, ", ");
        if let Some(told) = single(&request.headers, &FORWARDED_PROTO).filter(|v| matches!(v.as_bytes(), b"http" | b"https")) {
            scheme = told.clone();
        }
        if let Some(told) = single(&request.headers, &FORWARDED_HOST).filter(|v| super::wire::is_host(v.as_bytes())) {
            host = Some(told.clone());
        }
    }

    // What HTTP/2 has of `TE` (RFC 9113 §8.2.2); to a caller of HTTP/1.1 no trailers are sent.
    let trailers = added.trailers && added.http2 && single(&request.headers, &TE).is_some_and(|te| te == "trailers");
    if request.headers.contains_key(CONNECTION) {
        remove_nominated(request);
    }
    // Names are short and few are removed: the list allocates only when there is something in it.
    let mut out: Vec<HeaderName> = Vec::new();
    for name in request.headers.keys() {
        if is_kept_out(name.as_str()) {
            out.push(name.clone());
        }
    }
    for name in out {
        request.remove_header(&name);
    }
    if !added.authorization {
        request.remove_header(&AUTHORIZATION);
    }
    request.remove_header(&TRANSFER_ENCODING);
    if request.version == http::Version::HTTP_2 || request.headers.get_all(COOKIE).iter().nth(1).is_some() {
        join_cookies(request)?;
    }

    if let Some(identity) = added.identity {
        request.insert_header(PRACTICE_ID, identity.practice_id.clone())?;
        if let Some(client_id) = &identity.client_id {
            request.insert_header(CLIENT_ID, client_id.clone())?;
        }
        if let Some(user) = &identity.user_id {
            request.insert_header(USER_ID, user.clone())?;
        }
        request.insert_header(SCOPES, identity.scopes.clone())?;
    }
    request.insert_header(REQUEST_ID, added.request_id.clone())?;
    if trailers {
        request.insert_header(TE, HeaderValue::from_static("trailers"))?;
    }
    insert_forwarded(request, added, chain, scheme, host)?;
    if !single(&request.headers, &TRACEPARENT).is_some_and(|value| is_traceparent(value.as_bytes())) {
        request.remove_header(&TRACESTATE);
        request.insert_header(TRACEPARENT, ids::traceparent())?;
    }
    Ok(())
}

fn insert_forwarded(
    request: &mut RequestHeader,
    added: &Added<'_>,
    chain: Option<HeaderValue>,
    scheme: HeaderValue,
    host: Option<HeaderValue>,
) -> pingora::Result<()> {
    let mut forwarded_for = BytesMut::with_capacity(64);
    if let Some(chain) = chain.filter(|chain| !chain.is_empty()) {
        forwarded_for.extend_from_slice(chain.as_bytes());
        forwarded_for.extend_from_slice(b", ");
    }
    // Writing into memory does not fail.
    let _ = write!(forwarded_for, "{}", added.peer);

    let mut forwarded = BytesMut::with_capacity(96);
    let _ = match added.peer {
        IpAddr::V4(peer) => write!(forwarded, "for={peer}"),
        IpAddr::V6(peer) => write!(forwarded, "for=\"[{peer}]\""),
    };
    if let Some(host) = &host {
        forwarded.extend_from_slice(b";host=\"");
        forwarded.extend_from_slice(host.as_bytes());
        forwarded.extend_from_slice(b"\"");
    }
    forwarded.extend_from_slice(b";proto=");
    forwarded.extend_from_slice(scheme.as_bytes());

    request.insert_header(FORWARDED_FOR, value(forwarded_for)?)?;
    request.insert_header(FORWARDED_PROTO, scheme)?;
    if let Some(host) = host {
        request.insert_header(FORWARDED_HOST, host)?;
    }
    request.insert_header(FORWARDED, value(forwarded)?)
}

fn value(bytes: BytesMut) -> pingora::Result<HeaderValue> {
    HeaderValue::from_maybe_shared(bytes.freeze())
        .map_err(|e| pingora::Error::because(pingora::ErrorType::InternalError, "a field of ours", e))
}

/// The only value of a field; none if there are more.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

fn join(headers: &HeaderMap, name: &HeaderName, separator: &str) -> Option<HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    let Some(second) = values.next() else { return Some(first.clone()) };
    let mut joined = BytesMut::from(first.as_bytes());
    for value in std::iter::once(second).chain(values) {
        joined.extend_from_slice(separator.as_bytes());
        joined.extend_from_slice(value.as_bytes());
    }
    HeaderValue::from_maybe_shared(joined.freeze()).ok()
}

/// HTTP/2 may split cookies over fields, HTTP/1.1 must not (RFC 9113 §8.2.3).
fn join_cookies(request: &mut RequestHeader) -> pingora::Result<()> {
    if request.headers.get_all(COOKIE).iter().nth(1).is_some()
        && let Some(cookies) = join(&request.headers, &COOKIE, "; ")
    {
        request.insert_header(COOKIE, cookies)?;
    }
    Ok(())
}

/// Removes the fields that `Connection` lists (RFC 9110 §7.6.1), but none that the message cannot do without: naming
/// such a field is an attack on whoever trusts it.
fn remove_nominated(request: &mut RequestHeader) {
    let values: Vec<HeaderValue> = request.headers.get_all(CONNECTION).iter().cloned().collect();
    for token in values.iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b',')) {
        let Ok(name) = HeaderName::from_bytes(token.trim_ascii()) else { continue };
        let end_to_end = matches!(
            name.as_str(),
            "host" | "authorization" | "cookie" | "expect" | "range" | "accept" | "date" | "cache-control" | "origin" | "traceparent"
        ) || name.as_str().starts_with("content-")
            || name.as_str().starts_with("if-");
        if !end_to_end {
            request.remove_header(&name);
        }
    }
}

/// Leaves out of the trailers of an answer what would frame a message, route it or say who somebody is (RFC 9110 §6.5.1).
pub fn keep_plain_trailers(trailers: &mut HeaderMap) {
    let out = |name: &str| {
        is_kept_out(name)
            || matches!(name, "content-length" | "content-type" | "content-encoding" | "content-range" | "host" | "set-cookie" | "location")
            || name.contains("authenticat")
            || name.contains("authorization")
    };
    let names: Vec<HeaderName> = trailers.keys().filter(|name| out(name.as_str())).cloned().collect();
    for name in names {
        trailers.remove(name);
    }
}

/// Whether a field of the caller never reaches the upstream, under any spelling that a service might take for it.
pub fn is_kept_out(name: &str) -> bool {
    if !name.bytes().any(|byte| matches!(byte, b'_' | b'.')) {
        return is_listed(name);
    }
    // CGI and its heirs read `_` and `.` as `-`; a field whose twin is trusted must not come in under another name.
    let twin: Cow<'_, str> = name.replace(['_', '.'], "-").into();
    is_listed(&twin)
        || matches!(
            &*twin,
            "content-length"
                | "content-type"
                | "content-encoding"
                | "transfer-encoding"
                | "host"
                | "authorization"
                | "cookie"
                | "traceparent"
                | "tracestate"
                | "expect"
        )
}

fn is_listed(name: &str) -> bool {
    match name.as_bytes().first() {
        Some(b'x') => name.strip_prefix("x-").is_some_and(is_listed_x),
        Some(b'r') => name.starts_with("remote-") || name == "request-id",
        Some(b's') => name.starts_with("ssl-client-") || name.starts_with("sigmamd-"),
        Some(b'c') => {
            matches!(name, "connection" | "client-ip" | "client-cert" | "client-cert-chain") || name.starts_with("cf-connecting-")
        }
        Some(b'f') => matches!(name, "forwarded" | "front-end-https" | "fastly-client-ip"),
        Some(b'p') => name == "proxy" || name.starts_with("proxy-"),
        Some(b't') => matches!(name, "te" | "trailer" | "transfer-encoding" | "true-client-ip"),
        Some(b'k') => name == "keep-alive",
        Some(b'u') => name == "upgrade",
        Some(b'v') => name == "via",
        Some(b'h') => name == "http2-settings",
        _ => false,
    }
}

/// The names that begin with `x-`, without it.
fn is_listed_x(rest: &str) -> bool {
    const FAMILIES: [&str; 13] = [
        "sigmamd-",
        "forwarded",
        "original-",
        "rewrite-",
        "remote-",
        "auth-request-",
        "authenticated-",
        "client-cert",
        "client-verify",
        "ssl-",
        "consumer-",
        "envoy-",
        "jwt-",
    ];
    FAMILIES.iter().any(|family| rest.starts_with(family))
        || matches!(
            rest,
            "sigmamd"
                | "request-id"
                | "real-ip"
                | "client-ip"
                | "client-dn"
                | "cluster-client-ip"
                | "http-method-override"
                | "http-method"
                | "method-override"
                | "user"
                | "user-id"
                | "scheme"
                | "url-scheme"
                | "host"
                | "accel-redirect"
                | "sendfile-type"
        )
}

/// Whether a `traceparent` is valid (W3C Trace Context §3.2).
pub fn is_traceparent(value: &[u8]) -> bool {
    let hex = |range: std::ops::Range<usize>| {
        value.get(range).is_some_and(|part| part.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f')))
    };
    let zero = |range: std::ops::Range<usize>| value[range].iter().all(|byte| *byte == b'0');
    value.len() == 55
        && value[2] == b'-'
        && value[35] == b'-'
        && value[52] == b'-'
        && hex(0..2)
        && &value[..2] != b"ff"
        && hex(3..35)
        && !zero(3..35)
        && hex(36..52)
        && !zero(36..52)
        && hex(53..55)
}

/// The address that the right-most untrusted member of `X-Forwarded-For` names; `peer` where there is none.
///
/// `trusted` says whether an address is a proxy of ours; `peer` must be one, else the field means nothing.
pub fn forwarded_client(headers: &HeaderMap, peer: IpAddr, trusted: impl Fn(IpAddr) -> bool) -> IpAddr {
    let mut client = peer;
    let Some(chain) = join(headers, &FORWARDED_FOR, ",") else { return client };
    for member in chain.as_bytes().rsplit(|byte| *byte == b',') {
        let Some(address) = std::str::from_utf8(member.trim_ascii()).ok().and_then(|text| text.parse::<IpAddr>().ok()) else { break };
        client = address.to_canonical();
        if !trusted(client) {
            break;
        }
    }
    client
}

/// Whether the caller may name other transfer codings than those we forward (RFC 9113 §8.2.2).
pub fn te_is_allowed(headers: &HeaderMap) -> bool {
    headers.get_all(TE).iter().all(|value| value.as_bytes().eq_ignore_ascii_case(b"trailers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_speaks_for_the_gateway_is_kept_out_in_every_spelling() {
        let names = [
            "X-SigmaMD-Practice-Id",
            "X-SigmaMD-Anything",
            "X-Request-Id",
            "Forwarded",
            "X-Forwarded-For",
            "X-Forwarded-Host",
            "X-Forwarded-Proto",
            "X-Forwarded-Port",
            "X-Forwarded-Prefix",
            "X-Forwarded-Server",
            "X-Forwarded-Uri",
            "X-Forwarded-User",
            "X-Forwarded-Email",
            "X-Forwarded-Groups",
            "X-Forwarded-Client-Cert",
            "X-Real-IP",
            "True-Client-IP",
            "CF-Connecting-IP",
            "X-Client-IP",
            "X-Cluster-Client-IP",
            "Via",
            "Proxy",
            "Proxy-Authorization",
            "Proxy-Connection",
            "Keep-Alive",
            "TE",
            "Trailer",
            "Upgrade",
            "HTTP2-Settings",
            "Connection",
            "X-Original-URL",
            "X-Rewrite-URL",
            "X-HTTP-Method-Override",
            "X-HTTP-Method",
            "X-Method-Override",
            "Remote-User",
            "X-Remote-User",
            "X-Auth-Request-User",
            "X-Client-Cert",
            "Client-Cert",
            "X-SSL-Client-S-DN",
        ];
        for name in names {
            for spelling in [name.to_owned(), name.replace('-', "_"), name.replace('-', "."), name.replacen('-', "_", 1)] {
                for spelling in [spelling.to_ascii_lowercase(), HeaderName::from_bytes(spelling.as_bytes()).unwrap().as_str().to_owned()] {
                    assert!(is_kept_out(&spelling), "{spelling}");
                }
            }
        }
        for name in ["content_length", "transfer.encoding", "authorization_", "host"] {
            let twin = name.contains(['_', '.']) && name != "authorization_";
            assert_eq!(is_kept_out(name), twin, "{name}");
        }
        for name in
            ["accept", "accept-language", "content-type", "content-length", "cookie", "x-custom", "x_custom", "idempotency-key", "range"]
        {
            assert!(!is_kept_out(name), "{name}");
        }
    }

    #[test]
    fn a_traceparent_is_valid_or_not() {
        assert!(is_traceparent(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        for wrong in [
            &b"00-4BF92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"[..],
            b"ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            b"00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            b"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            b"",
        ] {
            assert!(!is_traceparent(wrong));
        }
    }

    #[test]
    fn the_client_is_the_right_most_address_that_is_not_ours() {
        let ours = |address: IpAddr| matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 10);
        let peer: IpAddr = "10.0.0.1".parse().unwrap();
        for (chain, client) in [
            ("203.0.113.7", "203.0.113.7"),
            ("127.0.0.1, 203.0.113.7, 10.0.0.2", "203.0.113.7"),
            ("203.0.113.7, junk, 10.0.0.2", "10.0.0.2"),
            ("", "10.0.0.1"),
            ("10.9.9.9", "10.9.9.9"),
        ] {
            let headers = HeaderMap::from_iter([(FORWARDED_FOR, HeaderValue::from_str(chain).unwrap())]);
            assert_eq!(forwarded_client(&headers, peer, ours), client.parse::<IpAddr>().unwrap(), "{chain}");
        }
    }
}
