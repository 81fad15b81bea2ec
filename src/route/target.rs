//! The one canonical reading of a request target.
//!
//! What two parsers could read in two ways is refused, not repaired. What is left has one spelling, which is matched
//! and, byte for byte, forwarded.

use std::borrow::Cow;

/// Why a request target is refused: something that RFC 3986 does not allow, or that two parsers read differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.detail())]
pub struct MalformedTarget(&'static str);

impl MalformedTarget {
    /// What is wrong, for the caller.
    #[must_use]
    pub const fn detail(self) -> &'static str {
        self.0
    }
}

/// A request target in origin-form (RFC 9112 §3.2.1), in its canonical spelling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestTarget<'a> {
    /// Path, and `?` and query if there is one.
    text: Cow<'a, str>,
    path_len: usize,
    parameters: bool,
}

impl<'a> RequestTarget<'a> {
    /// Parses the target as received, without any scheme and authority.
    ///
    /// Percent-encoded unreserved characters are decoded and hexadecimal digits written in capitals (RFC 3986 §6.2.2);
    /// nothing else is changed, and the query not at all.
    ///
    /// # Errors
    /// [`MalformedTarget`] for dot segments, empty segments but the last, encoded `/`, `\`, `.`, `?`, `#`, `;` or
    /// control characters, double encoding, invalid UTF-8, and whatever RFC 3986 does not allow in a path or a query.
    pub fn parse(raw: &'a [u8]) -> Result<Self, MalformedTarget> {
        if raw.first() != Some(&b'/') {
            return Err(MalformedTarget("the request target must begin with `/`"));
        }
        let path_len = raw.iter().position(|b| *b == b'?').unwrap_or(raw.len());
        let (path, query) = raw.split_at(path_len);
        for byte in query {
            match byte {
                b'#' => return Err(MalformedTarget("a fragment does not belong in a request target")),
                0x21..=0x7e => {}
                _ => return Err(MalformedTarget("the query has a blank, a control character or a character that is not ASCII")),
            }
        }
        let scan = scan(path)?;
        let text = if scan.canonical {
            Cow::Borrowed(ascii(raw))
        } else {
            let mut text = canonical_path(path);
            text.push_str(ascii(query));
            Cow::Owned(text)
        };
        let path_len = text.len() - query.len();
        Ok(Self { text, path_len, parameters: scan.parameters })
    }

    /// The canonical path: what is matched.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.text[..self.path_len]
    }

    /// The query, without its `?`.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.text.get(self.path_len + 1..)
    }

    /// Path and query: what is forwarded.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the canonical spelling differs from the received one.
    #[must_use]
    pub const fn rewritten(&self) -> bool {
        matches!(self.text, Cow::Owned(_))
    }

    /// Whether a segment has `;` parameters, which only some routes allow.
    #[must_use]
    pub const fn has_parameters(&self) -> bool {
        self.parameters
    }
}

struct Scan {
    canonical: bool,
    parameters: bool,
}

/// Checks the path; says whether it is canonical as it stands.
fn scan(path: &[u8]) -> Result<Scan, MalformedTarget> {
    let mut scan = Scan { canonical: true, parameters: false };
    let mut segment_start = 1;
    let mut at = 1;
    // Encoded bytes outside ASCII; they must be UTF-8 together (RFC 3629), which rules out overlong forms.
    let mut utf8: Vec<u8> = Vec::new();
    while at < path.len() {
        let byte = path[at];
        if byte != b'%' {
            end_of_encoded(&mut utf8)?;
        }
        match byte {
            b'/' => {
                segment(&path[segment_start..at], false)?;
                segment_start = at + 1;
            }
            b'%' => {
                let value =
                    path.get(at + 1..at + 3).and_then(hex).ok_or(MalformedTarget("`%` is not followed by two hexadecimal digits"))?;
                if value < 0x80 {
                    end_of_encoded(&mut utf8)?;
                }
                match value {
                    b'/' => return Err(MalformedTarget("the path has an encoded slash")),
                    b'\\' => return Err(MalformedTarget("the path has an encoded backslash")),
                    b'.' => return Err(MalformedTarget("the path has an encoded dot")),
                    b'?' | b'#' | b';' => return Err(MalformedTarget("the path has an encoded `?`, `#` or `;`")),
                    0..=0x1f | 0x7f => return Err(MalformedTarget("the path has an encoded control character")),
                    b'%' if encodes_again(&path[at + 3..]) => return Err(MalformedTarget("the path is encoded twice")),
                    0x80.. => utf8.push(value),
                    _ => {}
                }
                if unreserved(value) || path[at + 1].is_ascii_lowercase() || path[at + 2].is_ascii_lowercase() {
                    scan.canonical = false;
                }
                at += 2;
            }
            b';' => scan.parameters = true,
            b'\\' => return Err(MalformedTarget("the path has a backslash")),
            b'#' => return Err(MalformedTarget("a fragment does not belong in a request target")),
            _ if pchar(byte) => {}
            _ => return Err(MalformedTarget("the path has a character that must be percent-encoded")),
        }
        at += 1;
    }
    end_of_encoded(&mut utf8)?;
    segment(&path[segment_start..], true)?;
    Ok(scan)
}

/// Refuses empty segments (but one that ends the path) and dot segments, with or without parameters behind them.
fn segment(segment: &[u8], last: bool) -> Result<(), MalformedTarget> {
    let name = segment.split(|b| *b == b';').next().unwrap_or_default();
    if name.is_empty() && !(last && segment.is_empty()) {
        return Err(MalformedTarget("the path has an empty segment"));
    }
    if !name.is_empty() && name.iter().all(|b| *b == b'.') {
        return Err(MalformedTarget("the path has a dot segment"));
    }
    Ok(())
}

fn end_of_encoded(utf8: &mut Vec<u8>) -> Result<(), MalformedTarget> {
    if utf8.is_empty() {
        return Ok(());
    }
    let text = std::str::from_utf8(utf8).map_err(|_| MalformedTarget("the path has percent-encoded bytes that are not UTF-8"))?;
    if text.chars().any(char::is_control) {
        return Err(MalformedTarget("the path has an encoded control character"));
    }
    utf8.clear();
    Ok(())
}

/// Whether what follows `%25` would make it an escape when decoded once more: `%252e`, `%25u002e`, and `%252%65`, whose
/// digits are an escape themselves.
fn encodes_again(rest: &[u8]) -> bool {
    let second = match rest.get(1) {
        Some(b'%') => rest.get(2..4).and_then(hex),
        other => other.copied(),
    };
    match rest.first() {
        Some(b'u' | b'U' | b'%') => true,
        Some(first) => first.is_ascii_hexdigit() && second.is_some_and(|second| second.is_ascii_hexdigit()),
        None => false,
    }
}

fn canonical_path(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    let mut at = 0;
    while at < path.len() {
        if path[at] == b'%' {
            let value = hex(&path[at + 1..at + 3]).expect("scan has seen two digits");
            if unreserved(value) {
                text.push(char::from(value));
            } else {
                text.push('%');
                text.push(char::from(path[at + 1].to_ascii_uppercase()));
                text.push(char::from(path[at + 2].to_ascii_uppercase()));
            }
            at += 3;
        } else {
            text.push(char::from(path[at]));
            at += 1;
        }
    }
    text
}

fn ascii(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("path and query were found to be ASCII")
}

fn hex(digits: &[u8]) -> Option<u8> {
    let digit = |b: u8| char::from(b).to_digit(16);
    Some(u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).expect("two digits fit a byte"))
}

/// RFC 3986 §2.3, without the dot: encoded dots are refused before it is asked.
const fn unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~')
}

/// RFC 3986 §3.3, without `;`, which is handled apart.
const fn pchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b':' | b'@')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn canonical(raw: &str) -> Result<String, &'static str> {
        RequestTarget::parse(raw.as_bytes()).map(|t| t.as_str().to_owned()).map_err(MalformedTarget::detail)
    }

    #[test]
    fn one_spelling_is_left() {
        for (raw, want) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/", "/a/"),
            ("/a?x=/../b&y=%2e%2F", "/a?x=/../b&y=%2e%2F"),
            ("/a?", "/a?"),
            ("/%61dmin", "/admin"),
            ("/a%20b", "/a%20b"),
            ("/%e2%82%ac", "/%E2%82%AC"),
            ("/100%25", "/100%25"),
            ("/%25e%20x", "/%25e%20x"),
            ("/a.b/.hidden/c..d", "/a.b/.hidden/c..d"),
            ("/a;v=1/b", "/a;v=1/b"),
            ("/a:b@c!$&'()*+,=", "/a:b@c!$&'()*+,="),
        ] {
            assert_eq!(canonical(raw).as_deref(), Ok(want), "{raw}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for raw in [
            "",
            "a",
            "?x",
            "*",
            "http://h/a",
            "//a",
            "/a//b",
            "/a//",
            "/./a",
            "/a/.",
            "/a/..",
            "/../a",
            "/a/../b",
            "/...",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "/%2e/a",
            "/%2e%2e/a",
            "/a%2e%2e/b",
            "/a/%2E",
            "/..;/a",
            "/a/..;x=1/b",
            "/;/a",
            "/a/;x",
            "/a%3bb",
            "/a%00b",
            "/a%0d%0ab",
            "/a%09",
            "/a%7f",
            "/a%3fb",
            "/a%23b",
            "/a#b",
            "/a?b#c",
            "/a b",
            "/a\tb",
            "/a\u{7f}",
            "/é",
            "/a?é",
            "/a? b",
            "/a%",
            "/a%2",
            "/a%zz",
            "/a%+1",
            "/%252e%252e/a",
            "/%25u002e",
            "/%25%32%65",
            "/%252%65%252%65/a",
            "/%25e%35e",
            "/%u002e",
            "/%c0%ae",
            "/%c0%af",
            "/%e0%80%af",
            "/%ff",
            "/%c2",
            "/%c2/%80",
            "/%c2%80",
            "/a\"b",
            "/a<b",
            "/a|b",
            "/a^b",
            "/a`b",
            "/{a}",
            "/[a]",
        ] {
            assert!(canonical(raw).is_err(), "{raw:?} became {:?}", canonical(raw));
        }
    }

    proptest! {
        #[test]
        fn parsing_a_canonical_target_again_changes_nothing(raw in "/[-a-zA-Z0-9%/._~;?=&:@2eEfF5cC]{0,40}") {
            if let Ok(target) = RequestTarget::parse(raw.as_bytes()) {
                let again = RequestTarget::parse(target.as_str().as_bytes()).unwrap();
                prop_assert_eq!(again.as_str(), target.as_str());
                prop_assert!(!again.rewritten());
                prop_assert_eq!(again.has_parameters(), target.has_parameters());
            }
        }

        #[test]
        fn a_canonical_path_decodes_to_no_new_structure(raw in "/[-a-z%/.2eEfF5cC0]{0,30}") {
            // A naive upstream that decodes once, twice, and then resolves dot segments must still see the same segments.
            if let Ok(target) = RequestTarget::parse(raw.as_bytes()) {
                let mut path = target.path().as_bytes().to_vec();
                for _ in 0..2 {
                    path = decode(&path);
                    let segments = |p: &[u8]| p.split(|b| *b == b'/').count();
                    prop_assert_eq!(segments(&path), segments(target.path().as_bytes()));
                    prop_assert!(!path.split(|b| *b == b'/').any(|s| s == b"." || s == b".."));
                    prop_assert!(!path.iter().any(|b| *b == b'\\' || *b < 0x20));
                }
            }
        }

        #[test]
        fn no_bytes_make_the_parser_panic(raw: Vec<u8>) {
            let _ = RequestTarget::parse(&raw);
        }
    }

    fn decode(path: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut at = 0;
        while at < path.len() {
            let escape = (path[at] == b'%').then(|| path.get(at + 1..at + 3).and_then(hex)).flatten();
            out.push(escape.unwrap_or(path[at]));
            at += if escape.is_some() { 3 } else { 1 };
        }
        out
    }
}
