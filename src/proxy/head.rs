//! The header of a request in the bytes that came, and the one for the upstream that is made of them.
//!
//! For requests that need nothing of what pingora keeps of a header; what becomes of the fields is [`Rules`]' to say.

use std::convert::Infallible;
use std::ops::Range;

use http::HeaderName;
use http::header::HOST;
use pingora::http::RequestHeader;

use super::headers::{Fields, Rules};
use super::wire::Marks;

/// A header that was checked, its target in origin-form.
#[derive(Debug)]
pub struct Head<'a> {
    pub method: &'a [u8],
    pub target: &'a [u8],
    fields: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> Head<'a> {
    /// A header that [`super::wire::check`] has passed, with the marks that it made.
    pub fn read(header: &'a [u8], marks: &Marks) -> Self {
        let part = |range: &Range<usize>| &header[range.clone()];
        Self {
            method: part(&marks.method),
            target: part(&marks.target),
            fields: marks.fields.iter().map(|(name, value)| (part(name), part(value))).collect(),
        }
    }

    /// A header of HTTP/2.
    pub fn of(header: &'a RequestHeader) -> Self {
        let mut fields = Vec::with_capacity(header.headers.len() + 1);
        if let Some(authority) = header.uri.authority().filter(|_| !header.headers.contains_key(HOST)) {
            fields.push((&b"host"[..], authority.as_str().as_bytes()));
        }
        fields.extend(header.headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())));
        Self { method: header.method.as_str().as_bytes(), target: header.raw_path(), fields }
    }

    /// Whether there is a field of this name, given in lower case.
    pub fn has(&self, name: &'static str) -> bool {
        self.values(name).next().is_some()
    }

    /// The credential; there is one at most.
    pub fn authorization(&self) -> Option<&'a [u8]> {
        self.fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(b"authorization")).map(|(_, value)| *value)
    }

    /// Whether this is the last request of its connection (RFC 9112 §9.6).
    pub fn closes(&self) -> bool {
        self.values("connection")
            .flat_map(|value| value.split(|byte| *byte == b','))
            .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"close"))
    }

    /// The header for the upstream, of a request without content.
    pub fn forward(&self, target: &str, rules: &Rules<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(self.method);
        out.push(b' ');
        out.extend_from_slice(target.as_bytes());
        out.extend_from_slice(b" HTTP/1.1\r\n");
        let mut lower = [0; 64];
        for (name, value) in &self.fields {
            let keeps = if let Some(lower) = lower.get_mut(..name.len()) {
                lower.copy_from_slice(name);
                lower.make_ascii_lowercase();
                rules.keeps(lower)
            } else {
                rules.keeps(&name.to_ascii_lowercase())
            };
            if keeps {
                put(out, name, value);
            }
        }
        let _ = rules.put(self, |name: &HeaderName, value| {
            put(out, name.as_str().as_bytes(), value);
            Ok::<_, Infallible>(())
        });
        out.extend_from_slice(b"\r\n");
    }
}

impl Fields for Head<'_> {
    fn values<'b>(&'b self, name: &'static str) -> impl Iterator<Item = &'b [u8]> {
        self.fields.iter().filter(move |(other, _)| other.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| *value)
    }
}

/// Puts one field.
pub fn put(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt::Write as _;
    use std::net::IpAddr;

    use http::HeaderValue;
    use pingora::http::RequestHeader;
    use proptest::prelude::*;

    use super::super::headers::{self, Added};
    use super::*;

    /// Reads a header that need not be one that is let in.
    fn read(header: &[u8]) -> Head<'_> {
        let mut lines = header.strip_suffix(b"\r\n\r\n").unwrap().split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
        let mut words = lines.next().unwrap().split(|byte| *byte == b' ');
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        let field = |line: &'_ [u8]| line.iter().position(|byte| *byte == b':').unwrap();
        let fields = lines.map(|line| (&line[..field(line)], line[field(line) + 1..].trim_ascii())).collect();
        Head { method, target, fields }
    }

    fn fields() -> impl Strategy<Value = Vec<(String, String)>> {
        let name = prop_oneof![
            "[a-zA-Z][a-zA-Z0-9_.-]{0,70}",
            prop::sample::select(vec![
                "Connection",
                "Cookie",
                "cookie",
                "Authorization",
                "X-SigmaMD-Practice-Id",
                "x_sigmamd_client_id",
                "X-Request-ID",
                "Forwarded",
                "X-Forwarded-For",
                "X-Forwarded-Proto",
                "X-Forwarded-Host",
                "traceparent",
                "tracestate",
                "TE",
                "Keep-Alive",
                "Proxy-Authorization",
                "Accept",
                "Content-Type",
                "X-Real-IP",
                "X.Forwarded.For",
                "Via",
                "Range",
            ])
            .prop_map(str::to_owned),
        ];
        let value = prop_oneof![
            "[ -~]{0,40}",
            prop::sample::select(vec![
                "close",
                "keep-alive, X-Mine",
                "x-mine, cookie, Accept",
                "trailers",
                "https",
                "gate.test",
                "203.0.113.7, 10.0.0.1",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                "X-SigmaMD-Practice-Id, traceparent",
            ])
            .prop_map(str::to_owned),
        ];
        prop::collection::vec((name, value), 0..12)
    }

    /// The values of each field, by name, without the blanks around them, which mean nothing.
    fn sorted<'a>(fields: impl Iterator<Item = (String, &'a [u8])>) -> BTreeMap<String, Vec<Vec<u8>>> {
        let mut sorted = BTreeMap::<_, Vec<_>>::new();
        for (name, value) in fields {
            sorted.entry(name.to_ascii_lowercase()).or_default().push(value.trim_ascii().to_vec());
        }
        sorted
    }

    proptest! {
        /// Carried one way or the other, the upstream is told the same.
        #[test]
        fn both_ways_tell_the_upstream_the_same(fields in fields(), authorization: bool, trusted: bool, secure: bool, v6: bool) {
            let mut text = "GET /a?b HTTP/1.1\r\nHost: gate.test\r\n".to_owned();
            let mut request = RequestHeader::build("GET", b"/a?b", None).unwrap();
            request.append_header("Host", "gate.test").unwrap();
            for (name, value) in &fields {
                let _ = write!(text, "{name}: {value}\r\n");
                request.append_header(name.clone(), value.trim_matches([' ', '\t'])).unwrap();
            }
            text += "\r\n";
            let request_id = HeaderValue::from_static("the-id");
            let peer: IpAddr = if v6 { "2001:db8::1".parse().unwrap() } else { "192.0.2.1".parse().unwrap() };
            let added = Added { identity: None, request_id: &request_id, authorization, peer, trusted, secure, http2: false, trailers: false };
            let head = read(text.as_bytes());
            let mut out = Vec::new();
            head.forward("/a?b", &Rules::of(&head, &added), &mut out);
            let told = read(&out);
            prop_assert_eq!((told.method, told.target), (&b"GET"[..], &b"/a?b"[..]));
            headers::rewrite(&mut request, &added).unwrap();
            let mut one = sorted(told.fields.iter().map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), *value)));
            let mut other = sorted(request.headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes())));
            let own = |fields: &mut BTreeMap<String, Vec<Vec<u8>>>| {
                let traceparent = fields.remove("traceparent").unwrap();
                prop_assert_eq!(traceparent.len(), 1);
                prop_assert!(headers::is_traceparent(&traceparent[0]));
                Ok(())
            };
            own(&mut one)?;
            own(&mut other)?;
            prop_assert_eq!(one, other);
        }
    }
}
