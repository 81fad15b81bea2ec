//! The header of an HTTP/1.1 request as bytes, read strictly (RFC 9112) before pingora sees it.
//!
//! pingora mends much of what it reads: bare line feeds, blanks in the target, `Content-Length` beside
//! `Transfer-Encoding`. What was mended can no longer be told from what was sent, so it is looked at here.

use std::ops::Range;

use bytes::BytesMut;
use memchr::memchr;

use crate::access::{Denial, MalformedRequest};
use crate::route::MethodSet;

/// How the content of a request is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes; none without a `Content-Length`.
    Length(u64),
    /// The chunked coding.
    Chunked,
}

/// Where the parts of a checked header are.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    /// The method.
    pub method: Range<usize>,
    /// The target, in origin-form.
    pub target: Range<usize>,
    /// The name of each field, and its value without the blanks around it.
    pub fields: Vec<(Range<usize>, Range<usize>)>,
}

/// The bounds of a header.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of the number of fields.
    pub fields: usize,
    /// Of the bytes of all fields together.
    pub bytes: usize,
    /// Of the bytes of the request target.
    pub target: usize,
}

const fn message(why: &'static str) -> Denial {
    Denial::Malformed(MalformedRequest::Message(why))
}

/// Whether the byte may stand in a token (RFC 9110 §5.6.2).
pub const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

/// [`is_token_byte`], to be looked up.
const TOKEN: [bool; 256] = {
    let mut token = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        token[byte as usize] = is_token_byte(byte);
        byte += 1;
    }
    token
};

/// Whether the bytes are one token.
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| TOKEN[usize::from(*byte)])
}

/// Looks for the end of a header that may be incomplete; the length of the header if it is there.
///
/// `seen` is how far earlier calls have looked, and is moved on.
///
/// # Errors
/// As soon as what has arrived can no longer become a header within `limits`.
pub fn find_end(bytes: &[u8], seen: &mut usize, limits: &Limits) -> Result<Option<usize>, Denial> {
    if bytes.first().is_some_and(|byte| !is_token_byte(*byte)) {
        return Err(message("the request does not begin with a method"));
    }
    while let Some(found) = memchr(b'\n', &bytes[*seen..]) {
        let feed = *seen + found;
        if feed == 0 || bytes[feed - 1] != b'\r' {
            return Err(message("a line ends in a bare line feed"));
        }
        *seen = feed + 1;
        if feed >= 3 && bytes[feed - 2] == b'\n' {
            return Ok(Some(feed + 1));
        }
    }
    // What was looked at stays looked at, but for the last byte: the end of the line is not known yet.
    *seen = bytes.len();
    let line = memchr(b'\n', bytes);
    if line.is_none() && bytes.len() > limits.target + 64 {
        return Err(Denial::UriTooLong);
    }
    if bytes.len() - line.unwrap_or(bytes.len()) > limits.bytes + 4 {
        return Err(Denial::HeadersTooLarge);
    }
    Ok(None)
}

/// The line that begins at `at`, without its CR LF, and where the next one begins; none at the end.
fn line_at(lines: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let rest = lines.get(at..).filter(|rest| !rest.is_empty())?;
    let Some(feed) = memchr(b'\n', rest) else { return Some((rest, lines.len())) };
    let line = &rest[..feed];
    Some((line.strip_suffix(b"\r").unwrap_or(&rest[..=feed]), at + feed + 1))
}

/// Checks a complete header; says how the content is framed, and notes in `marks` where its parts are.
///
/// # Errors
/// Whatever two parsers could read in two ways, and whatever is over `limits`.
pub fn check(header: &[u8], limits: &Limits, marks: &mut Marks) -> Result<Framing, Denial> {
    // Without the blank line, every line ends in CR LF; only these two are taken off, so a further CR is seen and refused.
    let lines = header.strip_suffix(b"\r\n").unwrap_or(header);
    let (line, mut at) = line_at(lines, 0).unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next()) else {
        return Err(message("the request line is not method, target and version"));
    };
    if !is_token(method) {
        return Err(message("the method is not a token"));
    }
    if version != b"HTTP/1.1" {
        return Err(message("the version is not HTTP/1.1"));
    }
    if target.len() > limits.target {
        return Err(Denial::UriTooLong);
    }
    // http::Uri would drop it without a word.
    if memchr(b'#', target).is_some() {
        return Err(Denial::Malformed(MalformedRequest::Target("a fragment does not belong in a request target")));
    }
    if target.is_empty() || !target.iter().all(|byte| matches!(byte, 0x21..=0x7e)) {
        return Err(Denial::Malformed(MalformedRequest::Target("the target has a control character or one that is not ASCII")));
    }
    if header.len() - line.len() - 4 > limits.bytes {
        return Err(Denial::HeadersTooLarge);
    }

    marks.fields.clear();
    let (mut host, mut length, mut coding, mut credentials) = (None, None, false, 0);
    while let Some((line, next)) = line_at(lines, at) {
        if marks.fields.len() == limits.fields {
            return Err(Denial::HeadersTooLarge);
        }
        let colon = line.iter().position(|byte| !TOKEN[usize::from(*byte)]).unwrap_or(line.len());
        if colon == 0 || line.get(colon) != Some(&b':') {
            let named = memchr(b':', line).is_some();
            return Err(message(if named { "the name of a field is not a token" } else { "a field has no colon" }));
        }
        let (name, whole) = (&line[..colon], &line[colon + 1..]);
        if !is_field_value(whole) {
            return Err(message("the value of a field has a control character or one that is not ASCII"));
        }
        let left = whole.trim_ascii_start();
        let value = left.trim_ascii_end();
        let begin = at + line.len() - left.len();
        marks.fields.push((at..at + colon, begin..begin + value.len()));
        at = next;
        // The length tells nearly every other field apart at the price of one comparison.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") && host.replace(value).is_some() => {
                return Err(message("there is more than one Host"));
            }
            6 if name.eq_ignore_ascii_case(b"expect") && !value.eq_ignore_ascii_case(b"100-continue") => {
                return Err(Denial::ExpectationFailed);
            }
            13 if name.eq_ignore_ascii_case(b"authorization") => credentials += 1,
            14 if name.eq_ignore_ascii_case(b"content-length") && length.replace(content_length(value)?).is_some() => {
                return Err(message("there is more than one Content-Length"));
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if coding || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(message("the transfer coding is not chunked, or not that alone"));
                }
                coding = true;
            }
            _ => {}
        }
    }
    let host = host.ok_or(message("there is no Host"))?;
    if !is_host(host) {
        return Err(message("Host is not a host with or without a port"));
    }
    if coding && length.is_some() {
        return Err(message("Content-Length stands beside Transfer-Encoding"));
    }
    if credentials > 1 {
        return Err(Denial::Malformed(MalformedRequest::TwoCredentials));
    }
    // Its target is an authority, and bytes behind it would be a tunnel's: it must not get any further.
    if method == b"CONNECT" {
        return Err(Denial::MethodNotAllowed(MethodSet::ALL.to_string().into()));
    }
    let origin = origin_form(target, host)?;
    let end = method.len() + 1 + target.len();
    (marks.method, marks.target) = (0..method.len(), end - origin.len()..end);
    Ok(if coding { Framing::Chunked } else { Framing::Length(length.unwrap_or(0)) })
}

/// Whether a field value has only visible ASCII characters, blanks and tabs.
pub fn is_field_value(value: &[u8]) -> bool {
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    // Eight bytes at a time. Each step sets the highest bit of a byte only if that byte, or one before it, is not visible.
    let visible = |eight: &[u8; 8]| {
        let eight = u64::from_le_bytes(*eight);
        let control = eight.wrapping_sub(0x2020_2020_2020_2020);
        let delete = (eight ^ 0x7f7f_7f7f_7f7f_7f7f).wrapping_sub(0x0101_0101_0101_0101);
        (eight | control | delete) & HIGHS == 0
    };
    let fits = |bytes: &[u8]| bytes.iter().all(|byte| matches!(byte, b'\t' | 0x20..=0x7e));
    let (eights, rest) = value.as_chunks();
    eights.iter().all(|eight| visible(eight) || fits(eight)) && fits(rest)
}

/// The value of a `Content-Length`: digits only, at most 2^63.
///
/// # Errors
/// Anything else.
pub fn content_length(value: &[u8]) -> Result<u64, Denial> {
    const WRONG: Denial = message("Content-Length is not one number");
    if value.is_empty() || value.len() > 19 {
        return Err(WRONG);
    }
    let length = value.iter().try_fold(0_u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    });
    length.filter(|length| *length <= 1 << 63).ok_or(WRONG)
}

/// Whether the bytes are a host with or without a port, in the spellings that every parser reads alike.
pub fn is_host(host: &[u8]) -> bool {
    let (name, port) = if let Some(rest) = host.strip_prefix(b"[") {
        let Some(end) = rest.iter().position(|byte| *byte == b']') else { return false };
        if !std::str::from_utf8(&rest[..end]).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok()) {
            return false;
        }
        let port = &rest[end + 1..];
        (None, if port.is_empty() { None } else { Some(port.strip_prefix(b":").unwrap_or(b"?")) })
    } else {
        match host.iter().position(|byte| *byte == b':') {
            Some(colon) => (Some(&host[..colon]), Some(&host[colon + 1..])),
            None => (Some(host), None),
        }
    };
    name.is_none_or(|name| {
        !name.is_empty() && name.len() <= 255 && name.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~'))
    }) && port.is_none_or(|port| {
        port.len() <= 5
            && !port.is_empty()
            && port.iter().all(u8::is_ascii_digit)
            && port.iter().fold(0_u32, |sum, digit| sum * 10 + u32::from(digit - b'0')) <= 65_535
    })
}

/// The path and query of a target in origin-form or absolute-form (RFC 9112 §3.2); the latter must agree with `host`.
///
/// # Errors
/// Every other form, and an authority that is not `host`.
pub fn origin_form<'a>(target: &'a [u8], host: &[u8]) -> Result<&'a [u8], Denial> {
    const FORM: Denial = Denial::Malformed(MalformedRequest::Target("the request target must begin with `/`"));
    if target.first() == Some(&b'/') {
        return Ok(target);
    }
    let after = |scheme: &str| {
        let (head, rest) = target.split_at_checked(scheme.len())?;
        head.eq_ignore_ascii_case(scheme.as_bytes()).then_some(rest)
    };
    let rest = after("http://").or_else(|| after("https://")).ok_or(FORM)?;
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).ok_or(FORM)?;
    let (authority, path) = rest.split_at(end);
    if !authority.eq_ignore_ascii_case(host) {
        return Err(Denial::Malformed(MalformedRequest::Target("the target names another host than Host")));
    }
    if path.first() == Some(&b'/') { Ok(path) } else { Err(FORM) }
}

/// A checked header with its target in origin-form. pingora has a reading of absolute-form of its own, and refuses what
/// [`origin_form`] takes; with this it never meets one. The marks are those of the header as it was.
pub fn into_origin_form(header: BytesMut, marks: &Marks) -> BytesMut {
    let target = marks.method.end + 1;
    if marks.target.start == target {
        return header;
    }
    let mut rewritten = BytesMut::with_capacity(header.len());
    rewritten.extend_from_slice(&header[..target]);
    rewritten.extend_from_slice(&header[marks.target.start..]);
    rewritten
}

/// Method and path for the record of a header that was refused: as sent where that is harmless, else empty.
pub fn for_record(header: &[u8]) -> (&str, &str) {
    let line = header.split(|byte| *byte == b'\r' || *byte == b'\n').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let method = words.next().filter(|word| word.len() <= 32 && is_token(word)).unwrap_or_default();
    let path = words.next().and_then(|word| word.split(|byte| *byte == b'?').next()).unwrap_or_default();
    // In absolute-form there could be a password in front of the host.
    let path = if path.first() == Some(&b'/') && path.iter().all(u8::is_ascii_graphic) { &path[..path.len().min(1024)] } else { b"" };
    (std::str::from_utf8(method).unwrap_or_default(), std::str::from_utf8(path).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_that_is_let_in_is_one_that_can_be_carried() {
        for byte in 0..=u8::MAX {
            assert_eq!(is_token(&[b'A', byte]), http::Method::from_bytes(&[b'A', byte]).is_ok(), "{byte:#x}");
        }
    }

    #[test]
    fn a_value_is_looked_at_in_every_place() {
        for length in 0..40 {
            let fine = vec![b'a'; length];
            assert!(is_field_value(&fine));
            for at in 0..length {
                for byte in 0..=u8::MAX {
                    let mut value = fine.clone();
                    value[at] = byte;
                    assert_eq!(is_field_value(&value), matches!(byte, b'\t' | 0x20..=0x7e), "{byte:#x} at {at} of {length}");
                }
            }
        }
    }
}
