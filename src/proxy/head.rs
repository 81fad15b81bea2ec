//! The header of an HTTP/1.1 request in the bytes that came, and the one for the upstream that is made of them.
//!
//! For requests that need nothing of what pingora keeps of a header; what becomes of the fields is [`Rules`]' to say.

use std::convert::Infallible;

use http::HeaderName;

use super::headers::{Fields, Rules};

/// A header that [`super::wire::check`] has passed, its target in origin-form.
#[derive(Debug)]
pub struct Head<'a> {
    pub method: &'a [u8],
    pub target: &'a [u8],
    fields: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> Head<'a> {
    /// Reads a header; `None` only if it is not one that was checked.
    pub fn read(header: &'a [u8]) -> Option<Self> {
        let mut lines = header.strip_suffix(b"\r\n\r\n")?.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let mut words = lines.next()?.split(|byte| *byte == b' ');
        let (method, target) = (words.next()?, words.next()?);
        let mut fields = Vec::with_capacity(16);
        for line in lines {
            let colon = line.iter().position(|byte| *byte == b':')?;
            fields.push((&line[..colon], line[colon + 1..].trim_ascii()));
        }
        Some(Self { method, target, fields })
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
                std::str::from_utf8(lower).is_ok_and(|name| rules.keeps(name))
            } else {
                std::str::from_utf8(name).is_ok_and(|name| rules.keeps(&name.to_ascii_lowercase()))
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
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
