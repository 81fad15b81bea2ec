//! One line of the access log.

use std::borrow::Cow;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;
use serde_json::ser::Formatter;

use crate::clock::Timestamp;
use crate::credential::Secret;
use crate::id::ClientId;
use crate::record::Record;

/// How much of a path is written, in bytes.
const PATH_LIMIT_BYTES: usize = 1024;
/// How much of a method is written, in bytes: it may be any token.
const METHOD_LIMIT_BYTES: usize = 32;
/// How much of any other text is written. The gateway makes these itself and none comes near.
const TEXT_LIMIT_BYTES: usize = 256;

/// What stands in the place of a secret.
const HIDDEN: &str = "(hidden)";

#[derive(Serialize)]
struct Line<'a> {
    time: Timestamp,
    request_id: &'a str,
    peer: IpAddr,
    version: &'a str,
    method: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    path_truncated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    practice: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<ClientId>,
    outcome: &'a str,
    status: u16,
    latency_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_ms: Option<f64>,
    request_bytes: u64,
    response_bytes: u64,
}

/// The part of a path that may be written. A target that could not be parsed is recorded as it was sent, and may still
/// have a query, or a name and a password before its host (RFC 3986 §3.2.1).
fn path(sent: &str) -> Cow<'_, str> {
    let path = sent.split(['?', '#']).next().unwrap_or_default();
    let path = if path.starts_with('/') { path } else { path.rsplit_once('@').map_or(path, |(_, rest)| rest) };
    without_secrets(path)
}

/// The path without what looks like a secret of ours, which some callers put where it does not belong.
fn without_secrets(path: &str) -> Cow<'_, str> {
    let mut parts = path.split(Secret::PREFIX);
    let first = parts.next().unwrap_or_default();
    if first.len() == path.len() {
        return path.into();
    }
    let mut shown = first.to_owned();
    for part in parts {
        shown.push_str(Secret::PREFIX);
        shown.push_str(HIDDEN);
        shown.push_str(part.trim_start_matches(|c: char| c.is_ascii_alphanumeric()));
    }
    shown.into()
}

/// Writes one record as a JSON object and a line feed, all of it printable ASCII.
pub fn write(record: &Record<'_>, into: &mut Vec<u8>) -> serde_json::Result<()> {
    let path = path(record.path);
    let line = Line {
        time: record.at,
        request_id: start(record.request_id, TEXT_LIMIT_BYTES),
        peer: record.peer,
        version: record.version,
        method: start(record.method, METHOD_LIMIT_BYTES),
        path: start(&path, PATH_LIMIT_BYTES),
        path_truncated: path.len() > PATH_LIMIT_BYTES,
        route: record.route.map(|route| route.prefix.as_str()),
        practice: record.practice.map(|practice| start(practice, TEXT_LIMIT_BYTES)),
        client: record.client,
        outcome: record.outcome,
        status: record.status,
        latency_ms: millis(record.latency),
        upstream_ms: record.upstream_latency.map(millis),
        request_bytes: record.request_bytes,
        response_bytes: record.response_bytes,
    };
    line.serialize(&mut serde_json::Serializer::with_formatter(&mut *into, Printable))?;
    into.push(b'\n');
    Ok(())
}

/// In whole microseconds, so that the number has three decimals at most.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// The first bytes of a text, without cutting a character in two.
fn start(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

/// Compact JSON of printable ASCII. `serde_json` escapes what JSON says it must, which leaves DEL, the C1 controls (CSI
/// among them) and the Unicode line separators as they are: those can forge a line, or colour one, where a log is read.
struct Printable;

impl Formatter for Printable {
    fn write_string_fragment<W: io::Write + ?Sized>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(|c: char| !matches!(c, ' '..='~')) {
            let (plain, other) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            let end = other.find(|c: char| matches!(c, ' '..='~')).unwrap_or(other.len());
            for unit in other[..end].encode_utf16() {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = &other[end..];
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;

    fn record<'a>(method: &'a str, path: &'a str) -> Record<'a> {
        Record {
            at: Timestamp(1_700_000_000_123),
            request_id: "0190",
            peer: IpAddr::V6(Ipv6Addr::LOCALHOST),
            version: "HTTP/2",
            method,
            path,
            route: None,
            practice: Some("p1"),
            client: "smd_0123456789abcdefGHIJ".parse().ok(),
            user: None,
            owner: None,
            generation: None,
            ended: None,
            outcome: "permit",
            status: 200,
            latency: Duration::from_nanos(1_234_567),
            upstream_latency: None,
            request_bytes: 1,
            response_bytes: 2,
        }
    }

    fn line(record: &Record<'_>) -> (String, Value) {
        let mut bytes = Vec::new();
        write(record, &mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let value = serde_json::from_str(&text).unwrap();
        (text, value)
    }

    #[test]
    fn a_line_has_every_field() {
        let (_, value) = line(&record("GET", "/billing/7"));
        let want = json!({
            "time": "2023-11-14T22:13:20.123Z", "request_id": "0190", "peer": "::1", "version": "HTTP/2", "method": "GET",
            "path": "/billing/7", "practice": "p1", "client": "smd_0123456789abcdefGHIJ", "outcome": "permit",
            "status": 200, "latency_ms": 1.235, "request_bytes": 1, "response_bytes": 2,
        });
        assert_eq!(value, want);
    }

    #[test]
    fn nothing_in_a_path_can_forge_a_line() {
        for path in [
            "/a\r\n{\"outcome\":\"permit\"}",
            "/\"},{\"outcome\":\"permit",
            "/\\\"\\",
            "/\u{1b}[2J\u{7}\u{0}\u{7f}",
            "/\u{9b}31m\u{85}",
            "/\u{2028}\u{2029}\u{202e}",
            "/é😀 z",
        ] {
            let (text, value) = line(&record("GE\nT", path));
            assert_eq!(text.matches('\n').count(), 1, "{text:?}");
            assert!(text.trim_end_matches('\n').bytes().all(|byte| matches!(byte, b' '..=b'~')), "{text:?}");
            assert_eq!((&value["path"], &value["method"], &value["outcome"]), (&json!(path), &json!("GE\nT"), &json!("permit")), "{text}");
        }
    }

    #[test]
    fn neither_a_query_nor_a_password_is_written() {
        for (sent, written) in [
            ("/a?client_secret=smds_x", "/a"),
            ("/a@b/c#smds_x?smds_x", "/a@b/c"),
            ("http://me:smds_x@host/a?smds_x", "host/a"),
            ("me:smds_x@host:443", "host:443"),
            ("/a/smds_xyz789/b/smds_x;smds_", "/a/smds_(hidden)/b/smds_(hidden);smds_(hidden)"),
            ("*", "*"),
            ("", ""),
        ] {
            let (text, value) = line(&record("GET", sent));
            assert_eq!(value["path"], json!(written), "{sent}");
            assert!(!text.contains("smds_x"), "{text}");
        }
    }

    #[test]
    fn a_long_path_is_cut_between_characters_and_says_so() {
        let (_, value) = line(&record("GET", &format!("/{}", "é".repeat(1000))));
        assert_eq!(value["path"].as_str().unwrap().len(), PATH_LIMIT_BYTES - 1);
        assert_eq!(value["path_truncated"], json!(true));
        let (_, value) = line(&record(&"M".repeat(5000), &"/".repeat(PATH_LIMIT_BYTES)));
        assert_eq!(value["method"].as_str().unwrap().len(), METHOD_LIMIT_BYTES);
        assert_eq!(value.get("path_truncated"), None);
    }
}
