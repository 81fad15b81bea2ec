//! What the gateway answers itself: read whole, handed over, written out.

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, PRAGMA, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode, Version};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

use super::context::Context;
use super::respond::{self, Reply};
use super::wire::Limits;
use super::{REQUEST_ID, Shared, request};
use crate::access::Denial;
use crate::oauth::{Content, Endpoint, FORM_LIMIT, OAuth, Request};
use crate::record::ANSWERED;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");
const BASIC: HeaderValue = HeaderValue::from_static("Basic realm=\"SigmaMD API\", charset=\"UTF-8\"");

/// Answers a request for one of the endpoints.
pub(super) async fn answer(
    shared: &Shared,
    own: &OAuth,
    endpoint: Endpoint,
    session: &mut Session,
    context: &mut Context,
) -> pingora::Result<()> {
    match asked(shared, endpoint, session, context).await? {
        Ok(asked) => {
            let answer = own.respond(asked).await;
            (context.whose, context.quota) = (answer.whose, answer.quota);
            write(answer.content, session, context).await
        }
        Err(denial) => refuse(denial, session, context).await,
    }
}

/// The request, or why it is refused before anybody is asked.
async fn asked(
    shared: &Shared,
    endpoint: Endpoint,
    session: &mut Session,
    context: &mut Context,
) -> pingora::Result<Result<Request, Denial>> {
    let header = session.downstream_session.req_header();
    shared.note(&header.headers, context);
    let facts = match request::read(header, &Limits::from(&shared.settings)) {
        Ok(facts) => facts,
        Err(denial) => return Ok(Err(denial)),
    };
    if facts.content_length.is_some_and(|length| length > FORM_LIMIT as u64) {
        return Ok(Err(Denial::BodyTooLarge));
    }
    let query = facts.target.iter().position(|byte| *byte == b'?').map(|at| String::from_utf8_lossy(&facts.target[at + 1..]).into_owned());
    let mut asked = Request {
        endpoint,
        method: header.method.clone(),
        query,
        authorization: header.headers.get(AUTHORIZATION).cloned(),
        content_type: header.headers.get(CONTENT_TYPE).cloned(),
        content: Bytes::new(),
        peer: context.client_address,
    };
    if header.headers.contains_key(EXPECT) && header.version == Version::HTTP_11 {
        // It waits for this before it sends the form.
        session.downstream_session.write_continue_response().await?;
    }
    let mut content = BytesMut::new();
    while let Some(piece) = session.downstream_session.read_request_body().await? {
        if let Some(scope) = &context.scope {
            scope.heard.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        context.request_bytes += piece.len() as u64;
        if content.len() + piece.len() > FORM_LIMIT {
            return Ok(Err(Denial::BodyTooLarge));
        }
        content.extend_from_slice(&piece);
    }
    context.content_done = true;
    if let Some(scope) = &context.scope {
        scope.content_done.store(true, std::sync::atomic::Ordering::Relaxed);
    }
    asked.content = content.freeze();
    Ok(Ok(asked))
}

async fn refuse(denial: Denial, session: &mut Session, context: &mut Context) -> pingora::Result<()> {
    let reply = Reply::new(&denial, &context.request_id, context.quota.as_ref())?;
    context.denial = Some(denial);
    send(reply, session, context).await
}

async fn write(content: Content, session: &mut Session, context: &mut Context) -> pingora::Result<()> {
    let (status, json, keep, label, challenge) = match content {
        Content::Denied(denial) => return refuse(denial, session, context).await,
        Content::Document { json, keep } => (200, json, keep, ANSWERED, false),
        Content::Error(failure) => (failure.status(), failure.json(), None, failure.label, failure.status() == 401),
    };
    let body = Bytes::from(json.to_string());
    let mut header = Box::new(ResponseHeader::build(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), Some(8))?);
    header.insert_header(CONTENT_TYPE, JSON)?;
    header.insert_header(CONTENT_LENGTH, HeaderValue::from(body.len()))?;
    header.insert_header(REQUEST_ID, context.request_id.clone())?;
    if let Some(keep) = keep {
        header.insert_header(CACHE_CONTROL, format!("public, max-age={}", keep.as_secs()))?;
    } else {
        header.insert_header(CACHE_CONTROL, NO_STORE)?;
        header.insert_header(PRAGMA, NO_CACHE)?;
    }
    if challenge {
        header.insert_header(WWW_AUTHENTICATE, BASIC)?;
    }
    if let Some(quota) = &context.quota {
        respond::insert_quota(&mut header, quota)?;
    }
    context.answered = Some(label);
    send(Reply { header, body }, session, context).await
}

async fn send(reply: Reply, session: &mut Session, context: &mut Context) -> pingora::Result<()> {
    context.status = reply.header.status.as_u16();
    let head_only = context.head_only();
    if !head_only {
        context.response_bytes = reply.body.len() as u64;
    }
    reply.send(&mut session.downstream_session, head_only).await
}
