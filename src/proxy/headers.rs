//! What goes upstream: which fields of the caller are kept out, and which ones we add.

use std::io::Write as _;
use std::net::IpAddr;

use http::header::{COOKIE, FORWARDED, TE};
use http::{HeaderMap, HeaderName, HeaderValue};
use memchr::memchr2;
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

/// The fields of a request header, however they are kept.
pub trait Fields {
    /// The values of a field, in their order; `name` is in lower case.
    fn values<'a>(&'a self, name: &'static str) -> impl Iterator<Item = &'a [u8]>;
}

impl Fields for HeaderMap {
    fn values<'a>(&'a self, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
        self.get_all(name).iter().map(HeaderValue::as_bytes)
    }
}

/// What becomes of the fields of one request on its way to the upstream.
pub struct Rules<'a> {
    added: &'a Added<'a>,
    /// What `Connection` lists and is removed with it.
    nominated: Vec<Vec<u8>>,
    /// All cookies in one field, where they came in several.
    cookies: Option<Vec<u8>>,
    /// Whether the request has a valid `traceparent` of its own.
    traced: bool,
    /// What HTTP/2 has of `TE` (RFC 9113 §8.2.2); to a caller of HTTP/1.1 no trailers are sent.
    trailers: bool,
}

impl<'a> Rules<'a> {
    /// The rules for a request with these fields.
    pub fn of(fields: &impl Fields, added: &'a Added<'a>) -> Self {
        Self {
            added,
            nominated: fields.values("connection").flat_map(|value| value.split(|byte| *byte == b',')).filter_map(nominated).collect(),
            // HTTP/2 may split cookies over fields, HTTP/1.1 must not (RFC 9113 §8.2.3).
            cookies: fields.values("cookie").nth(1).and_then(|_| join(fields, "cookie", b"; ")),
            traced: single(fields, "traceparent").is_some_and(is_traceparent),
            trailers: added.trailers && added.http2 && single(fields, "te").is_some_and(|te| te == b"trailers"),
        }
    }

    /// Whether a field of the caller goes on as it is; `name` is in lower case.
    pub fn keeps(&self, name: &[u8]) -> bool {
        let out = match name {
            b"authorization" => !self.added.authorization,
            b"cookie" => self.cookies.is_some(),
            b"traceparent" | b"tracestate" => !self.traced,
            _ => is_kept_out(name),
        };
        !out && !self.nominated.iter().any(|nominated| nominated == name)
    }

    /// Puts what the gateway says of the request, beside the fields that are kept.
    pub fn put<E>(&self, fields: &impl Fields, mut put: impl FnMut(&HeaderName, &[u8]) -> Result<(), E>) -> Result<(), E> {
        let added = self.added;
        if let Some(cookies) = &self.cookies {
            put(&COOKIE, cookies)?;
        }
        if let Some(identity) = added.identity {
            put(&PRACTICE_ID, identity.practice_id.as_bytes())?;
            if let Some(client_id) = &identity.client_id {
                put(&CLIENT_ID, client_id.as_bytes())?;
            }
            if let Some(user) = &identity.user_id {
                put(&USER_ID, user.as_bytes())?;
            }
            put(&SCOPES, identity.scopes.as_bytes())?;
        }
        put(&REQUEST_ID, added.request_id.as_bytes())?;
        if self.trailers {
            put(&TE, b"trailers")?;
        }
        self.put_forwarded(fields, &mut put)?;
        if self.traced { Ok(()) } else { put(&TRACEPARENT, &ids::traceparent()) }
    }

    /// Who the caller is and what it asked for, as the one before us sees it (RFC 7239, and its forerunners).
    fn put_forwarded<E>(&self, fields: &impl Fields, put: &mut impl FnMut(&HeaderName, &[u8]) -> Result<(), E>) -> Result<(), E> {
        let added = self.added;
        let mut scheme: &[u8] = if added.secure { b"https" } else { b"http" };
        let mut host = fields.values("host").next();
        let mut chain = None;
        if added.trusted {
            chain = join(fields, "x-forwarded-for", b", ").filter(|chain| !chain.is_empty());
            let told = |name, fits: fn(&[u8]) -> bool| single(fields, name).filter(|value| fits(value));
            scheme = told("x-forwarded-proto", |value| matches!(value, b"http" | b"https")).unwrap_or(scheme);
            host = told("x-forwarded-host", super::wire::is_host).or(host);
        }
        let mut text = chain.unwrap_or_else(|| Vec::with_capacity(96));
        if !text.is_empty() {
            text.extend_from_slice(b", ");
        }
        let peer = Address::new(added.peer);
        text.extend_from_slice(peer.as_bytes());
        put(&FORWARDED_FOR, &text)?;
        put(&FORWARDED_PROTO, scheme)?;
        text.clear();
        let (before, after): (&[u8], &[u8]) = if added.peer.is_ipv4() { (b"for=", b"") } else { (b"for=\"[", b"]\"") };
        for part in [before, peer.as_bytes(), after] {
            text.extend_from_slice(part);
        }
        if let Some(host) = host {
            put(&FORWARDED_HOST, host)?;
            text.extend_from_slice(b";host=\"");
            text.extend_from_slice(host);
            text.extend_from_slice(b"\"");
        }
        text.extend_from_slice(b";proto=");
        text.extend_from_slice(scheme);
        put(&FORWARDED, &text)
    }
}

/// An address as text.
struct Address {
    text: [u8; Self::LONGEST],
    length: usize,
}

impl Address {
    /// `ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255`
    const LONGEST: usize = 45;

    fn new(address: IpAddr) -> Self {
        let (mut text, mut length) = ([0; Self::LONGEST], 0);
        if let IpAddr::V4(address) = address {
            for (at, octet) in address.octets().into_iter().enumerate() {
                if at > 0 {
                    text[length] = b'.';
                    length += 1;
                }
                let mut digits = itoa::Buffer::new();
                let digits = digits.format(octet).as_bytes();
                text[length..length + digits.len()].copy_from_slice(digits);
                length += digits.len();
            }
        } else {
            let mut rest = &mut text[..];
            // There is room for the longest.
            let _ = write!(rest, "{address}");
            length = Self::LONGEST - rest.len();
        }
        Self { text, length }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.text[..self.length]
    }
}

/// Turns the caller's fields into those for the upstream.
///
/// # Errors
/// A value of ours cannot stand in a field; not possible from outside.
pub fn rewrite(request: &mut RequestHeader, added: &Added<'_>) -> pingora::Result<()> {
    let rules = Rules::of(&request.headers, added);
    let mut said = Vec::with_capacity(12);
    rules.put(&request.headers, |name, value| {
        let value = HeaderValue::from_bytes(value);
        said.push((name.clone(), value.map_err(|e| pingora::Error::because(pingora::ErrorType::InternalError, "a field of ours", e))?));
        Ok::<_, Box<pingora::Error>>(())
    })?;
    let out: Vec<HeaderName> = request.headers.keys().filter(|name| !rules.keeps(name.as_ref())).cloned().collect();
    for name in out {
        request.remove_header(&name);
    }
    for (name, value) in said {
        request.insert_header(name, value)?;
    }
    Ok(())
}

/// The only value of a field; none if there are more.
fn single<'a>(fields: &'a impl Fields, name: &'static str) -> Option<&'a [u8]> {
    let mut values = fields.values(name);
    values.next().filter(|_| values.next().is_none())
}

fn join(fields: &impl Fields, name: &'static str, separator: &[u8]) -> Option<Vec<u8>> {
    let mut values = fields.values(name);
    let mut joined = values.next()?.to_vec();
    for value in values {
        joined.extend_from_slice(separator);
        joined.extend_from_slice(value);
    }
    Some(joined)
}

/// The field that a member of `Connection` names (RFC 9110 §7.6.1), unless the message cannot do without it: naming such a
/// field is an attack on whoever trusts it.
fn nominated(member: &[u8]) -> Option<Vec<u8>> {
    let name = Some(member.trim_ascii()).filter(|name| super::wire::is_token(name))?.to_ascii_lowercase();
    let end_to_end = matches!(
        &*name,
        b"host" | b"authorization" | b"cookie" | b"expect" | b"range" | b"accept" | b"date" | b"cache-control" | b"origin" | b"traceparent"
    ) || name.starts_with(b"content-")
        || name.starts_with(b"if-");
    (!end_to_end).then_some(name)
}

/// Leaves out of the trailers of an answer what would frame a message, route it or say who somebody is (RFC 9110 §6.5.1).
pub fn keep_plain_trailers(trailers: &mut HeaderMap) {
    let out = |name: &str| {
        is_kept_out(name.as_bytes())
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
pub fn is_kept_out(name: &[u8]) -> bool {
    if memchr2(b'_', b'.', name).is_none() {
        return is_listed(name);
    }
    // CGI and its heirs read `_` and `.` as `-`; a field whose twin is trusted must not come in under another name.
    let twin: Vec<u8> = name.iter().map(|byte| if matches!(byte, b'_' | b'.') { b'-' } else { *byte }).collect();
    is_listed(&twin)
        || matches!(
            &*twin,
            b"content-length"
                | b"content-type"
                | b"content-encoding"
                | b"transfer-encoding"
                | b"host"
                | b"authorization"
                | b"cookie"
                | b"traceparent"
                | b"tracestate"
                | b"expect"
        )
}

fn is_listed(name: &[u8]) -> bool {
    match name.first() {
        Some(b'x') => name.strip_prefix(b"x-").is_some_and(is_listed_x),
        Some(b'r') => name.starts_with(b"remote-") || name == b"request-id",
        Some(b's') => name.starts_with(b"ssl-client-") || name.starts_with(b"sigmamd-"),
        Some(b'c') => {
            matches!(name, b"connection" | b"client-ip" | b"client-cert" | b"client-cert-chain") || name.starts_with(b"cf-connecting-")
        }
        Some(b'f') => matches!(name, b"forwarded" | b"front-end-https" | b"fastly-client-ip"),
        Some(b'p') => name == b"proxy" || name.starts_with(b"proxy-"),
        Some(b't') => matches!(name, b"te" | b"trailer" | b"transfer-encoding" | b"true-client-ip"),
        Some(b'k') => name == b"keep-alive",
        Some(b'u') => name == b"upgrade",
        Some(b'v') => name == b"via",
        Some(b'h') => name == b"http2-settings",
        _ => false,
    }
}

/// The names that begin with `x-`, without it.
fn is_listed_x(rest: &[u8]) -> bool {
    const FAMILIES: [&[u8]; 13] = [
        b"sigmamd-",
        b"forwarded",
        b"original-",
        b"rewrite-",
        b"remote-",
        b"auth-request-",
        b"authenticated-",
        b"client-cert",
        b"client-verify",
        b"ssl-",
        b"consumer-",
        b"envoy-",
        b"jwt-",
    ];
    FAMILIES.iter().any(|family| rest.starts_with(family))
        || matches!(
            rest,
            b"sigmamd"
                | b"request-id"
                | b"real-ip"
                | b"client-ip"
                | b"client-dn"
                | b"cluster-client-ip"
                | b"http-method-override"
                | b"http-method"
                | b"method-override"
                | b"user"
                | b"user-id"
                | b"scheme"
                | b"url-scheme"
                | b"host"
                | b"accel-redirect"
                | b"sendfile-type"
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
pub fn forwarded_client(fields: &impl Fields, peer: IpAddr, trusted: impl Fn(IpAddr) -> bool) -> IpAddr {
    let mut client = peer;
    let Some(chain) = join(fields, "x-forwarded-for", b",") else { return client };
    for member in chain.rsplit(|byte| *byte == b',') {
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
                    assert!(is_kept_out(spelling.as_bytes()), "{spelling}");
                }
            }
        }
        for name in ["content_length", "transfer.encoding", "authorization_", "host"] {
            let twin = name.contains(['_', '.']) && name != "authorization_";
            assert_eq!(is_kept_out(name.as_bytes()), twin, "{name}");
        }
        for name in
            ["accept", "accept-language", "content-type", "content-length", "cookie", "x-custom", "x_custom", "idempotency-key", "range"]
        {
            assert!(!is_kept_out(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn an_address_is_written_as_everybody_writes_it() {
        for text in ["0.0.0.0", "192.0.2.1", "255.255.255.255", "::", "2001:db8::1", "::ffff:255.255.255.255", "1:2:3:4:5:6:7:8"] {
            let address = text.parse::<IpAddr>().unwrap();
            assert_eq!(Address::new(address).as_bytes(), address.to_string().as_bytes());
        }
        let longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse::<IpAddr>().unwrap();
        assert_eq!(Address::new(longest).as_bytes(), longest.to_string().as_bytes());
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
