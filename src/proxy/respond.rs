//! What a refusal looks like on the wire (RFC 9457, RFC 6750 §3, RFC 7617).

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;

use super::{REQUEST_ID, date};
use crate::access::Denial;
use crate::limit::Quota;

const BASIC: HeaderValue = HeaderValue::from_static("Basic realm=\"SigmaMD API\", charset=\"UTF-8\"");
const BEARER: HeaderValue = HeaderValue::from_static("Bearer realm=\"SigmaMD API\"");
const INVALID_TOKEN: HeaderValue = HeaderValue::from_static("Bearer realm=\"SigmaMD API\", error=\"invalid_token\"");
const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// A refusal, ready to be written.
pub struct Reply {
    /// Status and fields; `Content-Length` among them.
    pub header: Box<ResponseHeader>,
    /// The problem document.
    pub body: Bytes,
}

#[derive(serde::Serialize)]
struct Problem<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    code: &'a str,
    detail: &'a str,
    request_id: &'a str,
}

impl Reply {
    /// The reply to a request of this id that is refused for this reason.
    ///
    /// # Errors
    /// None that can be caused from outside: every value is ours.
    pub fn new(denial: &Denial, request_id: &HeaderValue, quota: Option<&Quota>) -> pingora::Result<Self> {
        let problem = Problem {
            r#type: "about:blank",
            title: denial.title(),
            status: denial.status(),
            code: denial.code(),
            detail: denial.detail(),
            request_id: request_id.to_str().unwrap_or_default(),
        };
        let mut body = BytesMut::with_capacity(320);
        // Only a field that cannot be serialised could fail, and there is none.
        let _ = serde_json::to_writer((&mut body).writer(), &problem);

        let mut header = Box::new(ResponseHeader::build(denial.status(), Some(10))?);
        header.insert_header(CONTENT_TYPE, PROBLEM)?;
        header.insert_header(CONTENT_LENGTH, number(body.len() as u64))?;
        header.insert_header(CACHE_CONTROL, NO_STORE)?;
        header.insert_header(REQUEST_ID, request_id.clone())?;
        if let Some(error) = denial.challenge_error() {
            header.append_header(WWW_AUTHENTICATE, BASIC)?;
            header.append_header(WWW_AUTHENTICATE, bearer(denial, error)?)?;
        }
        if let Denial::MethodNotAllowed(allow) = denial {
            header.insert_header(ALLOW, &**allow)?;
        }
        if let Some(secs) = denial.retry_after_secs() {
            header.insert_header(RETRY_AFTER, number(secs))?;
        }
        if let Some(quota) = quota {
            insert_quota(&mut header, quota)?;
        }
        Ok(Self { header, body: body.freeze() })
    }

    /// The reply as the last HTTP/1.1 message of its connection.
    pub fn into_last_message(self, head_only: bool) -> Bytes {
        self.into_message(head_only, true)
    }

    /// The reply as an HTTP/1.1 message, which may be the last of its connection.
    pub fn into_message(mut self, head_only: bool, last: bool) -> Bytes {
        if last {
            // A constant is a value, whatever happens.
            let _ = self.header.insert_header(CONNECTION, HeaderValue::from_static("close"));
        }
        let mut wire = BytesMut::with_capacity(1024);
        wire.put_slice(b"HTTP/1.1 ");
        wire.put_slice(self.header.status.as_str().as_bytes());
        wire.put_u8(b' ');
        wire.put_slice(self.header.get_reason_phrase().unwrap_or_default().as_bytes());
        wire.put_slice(b"\r\n");
        self.header.header_to_h1_wire(&mut wire);
        wire.put_slice(b"Date: ");
        date::with(|date| wire.put_slice(date));
        wire.put_slice(b"\r\n\r\n");
        if !head_only {
            wire.put_slice(&self.body);
        }
        wire.freeze()
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

fn bearer(denial: &Denial, error: Option<&'static str>) -> pingora::Result<HeaderValue> {
    let value = match (denial, error) {
        (_, None) => return Ok(BEARER),
        (Denial::CredentialInvalid(_), _) => return Ok(INVALID_TOKEN),
        (Denial::InsufficientScope(scopes), Some(error)) => {
            format!("Bearer realm=\"SigmaMD API\", error=\"{error}\", scope=\"{scopes}\"")
        }
        (_, Some(error)) => format!("Bearer realm=\"SigmaMD API\", error=\"{error}\""),
    };
    HeaderValue::try_from(value).map_err(|e| pingora::Error::because(pingora::ErrorType::InternalError, "a challenge", e))
}

/// Adds what is left of the rate limit (draft-ietf-httpapi-ratelimit-headers).
///
/// # Errors
/// The name of the tier cannot stand in a field.
pub fn insert_quota(header: &mut ResponseHeader, quota: &Quota) -> pingora::Result<()> {
    quota_fields(quota, |name, value| {
        let value = HeaderValue::from_bytes(value)
            .map_err(|e| pingora::Error::because(pingora::ErrorType::InternalError, "the name of a tier", e))?;
        header.insert_header(name.clone(), value)
    })
}

/// Says what is left of the rate limit, a field at a time.
///
/// # Errors
/// Those of `put`.
pub fn quota_fields<E>(quota: &Quota, mut put: impl FnMut(&HeaderName, &[u8]) -> Result<(), E>) -> Result<(), E> {
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
        put(&name, &value)?;
    }
    Ok(())
}

fn number(number: u64) -> HeaderValue {
    HeaderValue::from(number)
}

#[cfg(test)]
mod tests {
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
            assert_eq!(body["request_id"], "the-id");
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
        assert_eq!(header.headers[&RATE_LIMIT_POLICY], "\"standard\";q=100;w=2");
        assert_eq!(header.headers[&RATE_LIMIT], "\"standard\";r=99;t=1");
    }
}
