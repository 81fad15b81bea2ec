//! WebSockets (RFC 6455): a request that is admitted like any other, and then a tunnel.
//!
//! pingora would relay the upgrade itself, but loses some connections right after the handshake, and tells nobody of what
//! passes. So the handshake is made here: what the upstream answers is read to its end before anything is handed on, and
//! the tunnel begins with what came after it.

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderValue, Method, StatusCode, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Stream;
use pingora::protocols::http::v1::client::{HttpSession, http_req_header_to_wire};
use pingora::proxy::Session;
use pingora::upstreams::peer::HttpPeer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::context::Context;
use super::decide::denied;
use super::filter::Filter;
use super::guard::Guard;
use super::peer::peer;
use super::tunnel::Tunnel;
use super::{REQUEST_ID, Shared, respond};
use crate::access::{Denial, MalformedRequest};
use crate::upstream::Failure;

/// The longest header of an answer.
const HEADER_MAX: usize = 64 * 1024;
/// The most fields of an answer.
const FIELDS_MAX: usize = 200;

/// What an upstream answered.
enum Answer {
    /// It speaks WebSocket from here on; the header for the caller, and what came after it.
    Switched(BytesMut),
    /// Anything else: as it came, to be read again.
    Other(BytesMut),
}

/// Whether the request is a handshake (RFC 6455 §4.2.1); or what is wrong with it.
fn handshake(header: &RequestHeader) -> Result<(), Denial> {
    let wrong = |why| Err(Denial::Malformed(MalformedRequest::Message(why)));
    let only = |name: &str| {
        let mut values = header.headers.get_all(name).iter();
        values.next().filter(|_| values.next().is_none()).map(HeaderValue::as_bytes)
    };
    if header.version != Version::HTTP_11 || header.method != Method::GET {
        return wrong("a WebSocket begins with GET");
    }
    if header.headers.contains_key(TRANSFER_ENCODING) || only("content-length").is_some_and(|length| length != b"0") {
        return wrong("a request for a WebSocket has no content");
    }
    if !only("upgrade").is_some_and(|upgrade| upgrade.eq_ignore_ascii_case(b"websocket")) {
        return wrong("the only upgrade is to websocket");
    }
    let tokens = header.headers.get_all(CONNECTION).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    if !tokens.into_iter().any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade")) {
        return wrong("Connection does not name the upgrade");
    }
    if only("sec-websocket-version") != Some(b"13") {
        return wrong("the version of a WebSocket is 13");
    }
    // 16 bytes in base64.
    let key = only("sec-websocket-key").filter(|key| key.len() == 24 && key.ends_with(b"=="));
    if !key.is_some_and(|key| key[..22].iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))) {
        return wrong("Sec-WebSocket-Key is not 16 bytes in base64");
    }
    Ok(())
}

/// Makes the handshake with the upstream and answers the caller, unless the tunnel has begun.
///
/// # Errors
/// The caller is gone, or `context.denial` says why there is no WebSocket.
pub async fn begin(filter: &Filter, session: &mut Session, context: &mut Context) -> pingora::Result<()> {
    let header = session.req_header();
    handshake(header).map_err(|denial| denied(denial, context))?;
    let (mut stream, used) = connect(filter, header, context).await?;
    let upstream = context.upstream().ok_or_else(|| denied(Denial::Internal, context))?;
    let answered = timeout(upstream.settings.response_timeout, answer(&mut stream, context)).await;
    match answered {
        Ok(Ok(Answer::Switched(first))) => {
            let Some(scope) = context.scope.clone() else { return Err(denied(Denial::Internal, context)) };
            context.status = StatusCode::SWITCHING_PROTOCOLS.as_u16();
            context.attempts.answered(&upstream, context.status);
            // The request goes on beyond what pingora knows of it, and is recorded at its end.
            let context = context.take();
            *scope.tunnel.lock() = Some(Tunnel { upstream: stream, first, context });
            // Else pingora would close the connection.
            session.downstream_session.set_keepalive(Some(60));
            Ok(())
        }
        Ok(Ok(Answer::Other(read))) => relay(filter, Box::new(Guard::everything(stream, read)), &used, session, context).await,
        Ok(Err(why)) => {
            tracing::warn!(upstream = &*upstream.name, why, "the upstream failed at a WebSocket");
            context.attempts.failed(&upstream, Failure::Unanswered);
            Err(denied(Denial::UpstreamUnreachable, context))
        }
        Err(_) => {
            context.attempts.failed(&upstream, Failure::Unanswered);
            Err(denied(Denial::UpstreamTimeout, context))
        }
    }
}

/// A connection to a server on which the request has been sent.
async fn connect(filter: &Filter, header: &RequestHeader, context: &mut Context) -> pingora::Result<(Stream, HttpPeer)> {
    let upstream = context.upstream().ok_or_else(|| denied(Denial::Internal, context))?;
    loop {
        let server = Shared::pick(context)?;
        let peer = peer(&upstream, &server, filter.shared.settings.upstream_idle_timeout);
        let mut stream = match filter.tunnels.get().await.new_stream(&peer).await {
            Ok(stream) => stream,
            Err(error) if context.attempts.not_connected(&upstream, &error) => continue,
            Err(_) => return Err(denied(Denial::UpstreamUnreachable, context)),
        };
        let mut request = header.clone();
        filter.rewrite(&mut request, context)?;
        request.insert_header(CONNECTION, "Upgrade")?;
        request.insert_header(UPGRADE, "websocket")?;
        request.remove_header(&CONTENT_LENGTH);
        let Some(wire) = http_req_header_to_wire(&request) else { return Err(denied(Denial::Internal, context)) };
        let sent = async {
            stream.write_all(&wire).await?;
            stream.flush().await
        };
        match timeout(upstream.settings.response_timeout, sent).await {
            Ok(Ok(())) => return Ok((stream, peer)),
            Ok(Err(_)) => {
                context.attempts.failed(&upstream, Failure::Unanswered);
                return Err(denied(Denial::UpstreamUnreachable, context));
            }
            Err(_) => {
                context.attempts.failed(&upstream, Failure::Unanswered);
                return Err(denied(Denial::UpstreamTimeout, context));
            }
        }
    }
}

/// Reads the header of the answer; what is wrong with it is for the log.
async fn answer(stream: &mut Stream, context: &Context) -> Result<Answer, &'static str> {
    let mut read = BytesMut::with_capacity(4096);
    loop {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut head = httparse::Response::new(&mut fields);
        match head.parse(&read) {
            Ok(httparse::Status::Complete(end)) => {
                let status = head.code.unwrap_or_default();
                match status {
                    101 => {
                        let first = switched(&head, context).ok_or("its 101 does not switch to websocket")?;
                        let mut first = BytesMut::from(&first[..]);
                        first.extend_from_slice(&read[end..]);
                        return Ok(Answer::Switched(first));
                    }
                    // Interim answers are not what was asked for.
                    100..=199 => drop(read.split_to(end)),
                    _ => return Ok(Answer::Other(read)),
                }
                continue;
            }
            Ok(httparse::Status::Partial) if read.len() < HEADER_MAX => {}
            Ok(httparse::Status::Partial) => return Err("the header of its answer is too long"),
            Err(_) => return Err("its answer cannot be read"),
        }
        match stream.read_buf(&mut read).await {
            Ok(0) | Err(_) => return Err("it closed the connection without an answer"),
            Ok(_) => {}
        }
    }
}

/// The header that tells the caller of the switch; `None` if the upstream switched to something else.
fn switched(head: &httparse::Response<'_, '_>, context: &Context) -> Option<Vec<u8>> {
    let mut text = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n".to_vec();
    let mut upgrades = head.headers.iter().filter(|field| field.name.eq_ignore_ascii_case("upgrade"));
    if !upgrades.next()?.value.eq_ignore_ascii_case(b"websocket") || upgrades.next().is_some() {
        return None;
    }
    for field in &*head.headers {
        let name = field.name.to_ascii_lowercase();
        // Framing has no meaning here, and the rest is between two neighbours or said by us.
        let ours = matches!(&*name, "upgrade" | "content-length" | "transfer-encoding" | "trailer" | "x-request-id") || is_hop(&name);
        if !ours && super::wire::is_field_value(field.value) {
            text.extend_from_slice(field.name.as_bytes());
            text.extend_from_slice(b": ");
            text.extend_from_slice(field.value);
            text.extend_from_slice(b"\r\n");
        }
    }
    text.extend_from_slice(b"X-Request-Id: ");
    text.extend_from_slice(context.request_id.as_bytes());
    text.extend_from_slice(b"\r\n\r\n");
    Some(text)
}

fn is_hop(name: &str) -> bool {
    matches!(name, "connection" | "keep-alive" | "proxy-connection" | "te")
}

/// Hands on an answer that is not the one that was asked for, and closes the connection.
async fn relay(filter: &Filter, stream: Stream, peer: &HttpPeer, session: &mut Session, context: &mut Context) -> pingora::Result<()> {
    let upstream = context.upstream().ok_or_else(|| denied(Denial::Internal, context))?;
    let mut answer = HttpSession::new_with_options(stream, peer);
    answer.read_timeout = Some(upstream.settings.response_timeout);
    if answer.read_response().await.is_err() {
        context.attempts.failed(&upstream, Failure::Unanswered);
        return Err(denied(Denial::UpstreamUnreachable, context));
    }
    let Some(header) = answer.resp_header() else { return Err(denied(Denial::Internal, context)) };
    let mut header: Box<ResponseHeader> = Box::new(header.clone());
    let hops: Vec<_> = header.headers.keys().filter(|name| is_hop(name.as_str()) || **name == UPGRADE).cloned().collect();
    for name in hops {
        header.remove_header(&name);
    }
    // The content is framed anew.
    header.remove_header(&TRANSFER_ENCODING);
    let empty = matches!(header.status.as_u16(), 204 | 304);
    if !empty && !header.headers.contains_key(CONTENT_LENGTH) {
        header.insert_header(TRANSFER_ENCODING, "chunked")?;
    }
    filter.shared.ask_again(context)?;
    header.insert_header(REQUEST_ID, context.request_id.clone())?;
    if let Some(quota) = &context.quota {
        respond::insert_quota(&mut header, quota)?;
    }
    context.status = header.status.as_u16();
    context.attempts.answered(&upstream, context.status);
    session.downstream_session.set_keepalive(None);
    session.downstream_session.write_response_header(header).await?;
    loop {
        match answer.read_body_bytes().await {
            Ok(Some(piece)) => {
                filter.shared.ask_again(context)?;
                context.response_bytes += piece.len() as u64;
                session.downstream_session.write_response_body(piece, false).await?;
            }
            Ok(None) => break,
            Err(error) => {
                context.attempts.failed(&upstream, Failure::Unanswered);
                // Broken off, so that the caller does not take it for the whole.
                return Err(error.into_up());
            }
        }
    }
    session.downstream_session.write_response_body(Bytes::new(), true).await
}

/// Whether a request asks for an upgrade at all.
pub fn is_asked(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(fields: &[(&'static str, &str)]) -> Result<(), Denial> {
        let mut header = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in fields {
            header.append_header(*name, *value).unwrap();
        }
        handshake(&header)
    }

    #[test]
    fn a_handshake_is_what_rfc_6455_says() {
        let right = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        assert_eq!(asked(&right), Ok(()));
        for (at, value) in [(0, "keep-alive"), (1, "h2c"), (1, "websocket, h2c"), (2, "12"), (3, "short"), (3, "dGhlIHNhbXBsZSBub25jZ!==")]
        {
            let mut fields = right;
            fields[at].1 = value;
            assert!(asked(&fields).is_err(), "{value}");
        }
        for more in [("content-length", "1"), ("transfer-encoding", "chunked"), ("upgrade", "websocket"), ("sec-websocket-version", "13")] {
            assert!(asked(&[&right[..], &[more]].concat()).is_err(), "{more:?}");
        }
        assert_eq!(asked(&[&right[..], &[("content-length", "0")]].concat()), Ok(()));
    }
}
