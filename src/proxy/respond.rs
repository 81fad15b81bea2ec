//! What a refusal looks like on the wire (RFC 9457, RFC 6750 §3, RFC 7617).

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;

use super::date;
use super::head::put;
use crate::access::Denial;
use crate::limit::Quota;

const BASIC: &str = "Basic realm=\"SigmaMD API\", charset=\"UTF-8\"";
const BEARER: &str = "Bearer realm=\"SigmaMD API\"";
const INVALID_TOKEN: &str = "Bearer realm=\"SigmaMD API\", error=\"invalid_token\"";
const RATE_LIMIT: &str = "RateLimit";
const RATE_LIMIT_POLICY: &str = "RateLimit-Policy";
/// What a problem document fits into.
const ROOM: usize = 320;

/// A refusal, ready to be written.
pub struct Reply {
    /// Status and fields; `Content-Length` among them.
    pub header: Box<ResponseHeader>,
    /// The problem document.
    pub body: Bytes,
}

impl Reply {
    /// The reply to a request of this id that is refused for this reason.
    ///
    /// # Errors
    /// None that can be caused from outside: every value is ours.
    pub fn new(denial: &Denial, request_id: &HeaderValue, quota: Option<&Quota>) -> pingora::Result<Self> {
        let mut body = Vec::with_capacity(ROOM);
        problem(denial, request_id, &mut body);
        let mut header = Box::new(ResponseHeader::build(denial.status(), Some(10))?);
        fields(denial, request_id, quota, body.len(), |name, value| {
            let value = HeaderValue::from_bytes(value)
                .map_err(|error| pingora::Error::because(pingora::ErrorType::InternalError, "a field of a refusal", error))?;
            header.append_header(name, value).map(|_| ())
        })?;
        Ok(Self { header, body: body.into() })
    }

    /// Writes the reply; pingora closes the connection behind it if the request has content that was not read.
    ///
    /// # Errors
    /// The connection is broken.
    pub async fn send(self, to: &mut ServerSession, head_only: bool) -> pingora::Result<()> {
        to.write_response_header(self.header).await?;
        to.write_response_body(if head_only { Bytes::new() } else { self.body }, true).await
    }
}

/// What a message of HTTP/1.1 leaves out, and says.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Without the content, which an answer to HEAD has not.
    pub head_only: bool,
    /// The connection is closed behind it.
    pub last: bool,
}

/// The same refusal as a message of HTTP/1.1, and how long its content is.
pub fn message(denial: &Denial, request_id: &HeaderValue, quota: Option<&Quota>, shape: Shape) -> (Vec<u8>, usize) {
    let mut body = Vec::with_capacity(ROOM);
    problem(denial, request_id, &mut body);
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(denial.status()).as_bytes());
    out.push(b' ');
    let reason = StatusCode::from_u16(denial.status()).ok().and_then(|status| status.canonical_reason());
    out.extend_from_slice(reason.unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    let Ok(()) = fields(denial, request_id, quota, body.len(), |name, value| {
        put(&mut out, name.as_bytes(), value);
        Ok::<_, std::convert::Infallible>(())
    });
    if shape.last {
        put(&mut out, b"Connection", b"close");
    }
    date::with(|date| put(&mut out, b"Date", date));
    out.extend_from_slice(b"\r\n");
    if shape.head_only {
        return (out, 0);
    }
    out.extend_from_slice(&body);
    (out, body.len())
}

/// Puts the problem document.
fn problem(denial: &Denial, request_id: &HeaderValue, out: &mut Vec<u8>) {
    let texts = [("{\"type\":", "about:blank"), (",\"title\":", denial.title())];
    let more =
        [(",\"code\":", denial.code()), (",\"detail\":", denial.detail()), (",\"request_id\":", request_id.to_str().unwrap_or_default())];
    for (name, text) in texts {
        out.extend_from_slice(name.as_bytes());
        put_text(text, out);
    }
    out.extend_from_slice(b",\"status\":");
    out.extend_from_slice(itoa::Buffer::new().format(denial.status()).as_bytes());
    for (name, text) in more {
        out.extend_from_slice(name.as_bytes());
        put_text(text, out);
    }
    out.push(b'}');
}

/// Puts a text of JSON.
fn put_text(text: &str, out: &mut Vec<u8>) {
    // Without a way out in the middle, several bytes are looked at at a time.
    let plain = text.bytes().fold(true, |plain, byte| plain & !matches!(byte, 0..=0x1f | b'"' | b'\\'));
    if plain {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        // A text can always be written into memory.
        let _ = serde_json::to_writer(out, text);
    }
}

/// Says the fields of a refusal, one at a time.
fn fields<E>(
    denial: &Denial,
    request_id: &HeaderValue,
    quota: Option<&Quota>,
    length: usize,
    mut put: impl FnMut(&'static str, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    put("Content-Type", b"application/problem+json")?;
    put("Content-Length", itoa::Buffer::new().format(length).as_bytes())?;
    put("Cache-Control", b"no-store")?;
    put("X-Request-Id", request_id.as_bytes())?;
    if let Some(error) = denial.challenge_error() {
        put("WWW-Authenticate", BASIC.as_bytes())?;
        match (denial, error) {
            (_, None) => put("WWW-Authenticate", BEARER.as_bytes()),
            (Denial::CredentialInvalid(_), _) => put("WWW-Authenticate", INVALID_TOKEN.as_bytes()),
            (Denial::InsufficientScope(scopes), Some(error)) => {
                put("WWW-Authenticate", format!("{BEARER}, error=\"{error}\", scope=\"{scopes}\"").as_bytes())
            }
            (_, Some(error)) => put("WWW-Authenticate", format!("{BEARER}, error=\"{error}\"").as_bytes()),
        }?;
    }
    if let Denial::MethodNotAllowed(allow) = denial {
        put("Allow", allow.as_bytes())?;
    }
    if let Some(secs) = denial.retry_after_secs() {
        put("Retry-After", itoa::Buffer::new().format(secs).as_bytes())?;
    }
    quota.map_or(Ok(()), |quota| quota_fields(quota, put))
}

/// Adds what is left of the rate limit (draft-ietf-httpapi-ratelimit-headers).
///
/// # Errors
/// The name of the tier cannot stand in a field.
pub fn insert_quota(header: &mut ResponseHeader, quota: &Quota) -> pingora::Result<()> {
    quota_fields(quota, |name, value| {
        let value = HeaderValue::from_bytes(value)
            .map_err(|e| pingora::Error::because(pingora::ErrorType::InternalError, "the name of a tier", e))?;
        header.insert_header(name, value)
    })
}

/// Says what is left of the rate limit, a field at a time.
///
/// # Errors
/// Those of `put`.
pub fn quota_fields<E>(quota: &Quota, mut put: impl FnMut(&'static str, &[u8]) -> Result<(), E>) -> Result<(), E> {
    let mut text = itoa::Buffer::new();
    let mut value = Vec::with_capacity(48);
    for (name, letters, values) in [
        (RATE_LIMIT_POLICY, [";q=", ";w="], [quota.burst, quota.window_secs]),
        (RATE_LIMIT, [";r=", ";t="], [quota.remaining, quota.reset_secs]),
    ] {
        value.clear();
        value.push(b'"');
        value.extend_from_slice(quota.policy.as_bytes());
        value.push(b'"');
        for (letter, number) in letters.into_iter().zip(values) {
            value.extend_from_slice(letter.as_bytes());
            value.extend_from_slice(text.format(number).as_bytes());
        }
        put(name, &value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::header::{ALLOW, CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE};

    use super::super::REQUEST_ID;
    use super::*;

    #[test]
    fn every_denial_can_be_written_and_says_what_it_must() {
        let id = HeaderValue::from_static("the-id");
        for denial in Denial::examples() {
            let reply = Reply::new(&denial, &id, None).unwrap();
            let header = &reply.header;
            assert_eq!(header.status.as_u16(), denial.status());
            assert_eq!(header.headers[&REQUEST_ID], "the-id");
            assert_eq!(header.headers[&CACHE_CONTROL], "no-store");
            let challenges: Vec<_> = header.headers.get_all(WWW_AUTHENTICATE).iter().collect();
            assert_eq!(challenges.len(), if denial.challenge_error().is_some() { 2 } else { 0 }, "{denial:?}");
            assert_eq!(header.headers.contains_key(ALLOW), denial.status() == 405);
            assert_eq!(header.headers.contains_key(RETRY_AFTER), denial.retry_after_secs().is_some());
            let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
            assert_eq!((&body["code"], &body["status"]), (&denial.code().into(), &denial.status().into()));
            assert_eq!((&body["request_id"], &body["title"]), (&"the-id".into(), &denial.title().into()));
            assert_eq!(body["detail"], denial.detail());
        }
    }

    #[test]
    fn a_message_says_what_the_reply_says() {
        let id = HeaderValue::from_static("the-id");
        let quota = Quota { policy: "standard".into(), burst: 100, window_secs: 2, remaining: 99, reset_secs: 1 };
        for (denial, head_only, last) in Denial::examples().into_iter().flat_map(|denial| {
            [(false, false), (true, false), (false, true), (true, true)].map(move |(head_only, last)| (denial.clone(), head_only, last))
        }) {
            let quota = last.then_some(&quota);
            let (message, length) = message(&denial, &id, quota, Shape { head_only, last });
            let Reply { header, body } = Reply::new(&denial, &id, quota).unwrap();
            let mut fields = [httparse::EMPTY_HEADER; 20];
            let mut read = httparse::Response::new(&mut fields);
            let end = read.parse(&message).unwrap().unwrap();
            assert_eq!(read.code, Some(denial.status()));
            assert_eq!(read.reason, StatusCode::from_u16(denial.status()).unwrap().canonical_reason());
            assert_eq!((&message[end..], length), (if head_only { &b""[..] } else { &body[..] }, message.len() - end));
            let mut said: Vec<_> = read.headers.iter().map(|field| (field.name.to_ascii_lowercase(), field.value.to_vec())).collect();
            assert!(said.iter().any(|(name, date)| name == "date" && date.ends_with(b" GMT")));
            assert_eq!(said.contains(&("connection".into(), b"close".to_vec())), last);
            said.retain(|(name, _)| name != "date" && name != "connection");
            let mut want: Vec<_> = header.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
            said.sort();
            want.sort();
            assert_eq!(said, want);
        }
    }

    #[test]
    fn a_text_is_one_of_json_whatever_is_in_it() {
        for text in ["plain", "", "a \"quoted\" word", "back\\slash", "line\nfeed \u{1}", "\u{e4}\u{1f600}"] {
            let mut out = Vec::new();
            put_text(text, &mut out);
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }

    #[test]
    fn a_challenge_names_error_and_scopes() {
        let id = HeaderValue::from_static("x");
        let bearer =
            |denial| Reply::new(&denial, &id, None).unwrap().header.headers.get_all(WWW_AUTHENTICATE).iter().nth(1).cloned().unwrap();
        assert_eq!(bearer(Denial::CredentialMissing), "Bearer realm=\"SigmaMD API\"");
        assert_eq!(
            bearer(Denial::InsufficientScope("billing tasks".into())),
            "Bearer realm=\"SigmaMD API\", error=\"insufficient_scope\", scope=\"billing tasks\""
        );
    }

    #[test]
    fn a_quota_is_two_structured_fields() {
        let mut header = ResponseHeader::build(200, None).unwrap();
        insert_quota(&mut header, &Quota { policy: "standard".into(), burst: 100, window_secs: 2, remaining: 99, reset_secs: 1 }).unwrap();
        assert_eq!(header.headers[RATE_LIMIT_POLICY], "\"standard\";q=100;w=2");
        assert_eq!(header.headers[RATE_LIMIT], "\"standard\";r=99;t=1");
    }
}
