//! The filters that pingora calls, in the order of a request.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{HOST, HeaderMap, HeaderValue};
use pingora::connectors::TransportConnector;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType, Result};

use super::context::Context;
use super::headers::{self, Added};
use super::peer::peer;
use super::respond::{self, Reply};
use super::wire::{self, Limits};
use super::{REQUEST_ID, Shared, ids, own, request, upgrade};
use crate::access::{Denial, MalformedRequest};
use crate::bearer::Wanted;
use crate::gate;
use crate::oauth::{Endpoint, OAuth};
use crate::upstream::Protocol;

/// The gateway as pingora sees it.
pub struct Filter {
    pub(super) shared: Arc<Shared>,
    /// What makes connections to upstreams that become tunnels.
    pub(super) tunnels: TransportConnector,
}

#[expect(clippy::unnecessary_box_returns, reason = "pingora's errors are boxed everywhere")]
/// An error that stands for `Context::denial`.
fn refused() -> Box<Error> {
    Error::explain(ErrorType::Custom("refused"), "the gateway refused the request")
}

#[expect(clippy::unnecessary_box_returns, reason = "pingora's errors are boxed everywhere")]
/// The error that stands for this denial.
pub fn denied(denial: Denial, context: &mut Context) -> Box<Error> {
    context.denial = Some(denial);
    refused()
}

/// What went wrong, without pingora's own words on it: those quote the bytes of an answer that it could not parse.
fn cause(error: &Error) -> String {
    let kind = error.root_etype().as_str();
    match error.root_cause().downcast_ref::<std::io::Error>() {
        Some(io) => format!("{kind}: {io}"),
        None => kind.to_owned(),
    }
}

impl Filter {
    /// What of the gateway's own the request is for, if it is.
    fn own_endpoint(&self, header: &RequestHeader) -> Option<(&OAuth, Endpoint)> {
        let own = self.shared.own.as_ref()?;
        let target = header.raw_path();
        let host = header.headers.get(HOST).map(HeaderValue::as_bytes).unwrap_or_default();
        // A target that cannot be read is for nobody: `decide` says why.
        let target = if header.version == http::Version::HTTP_2 { target } else { wire::origin_form(target, host).ok()? };
        Some((own, Endpoint::of(target)?))
    }

    /// Notes who asks for what.
    fn note(&self, header: &RequestHeader, context: &mut Context) {
        context.note(&header.method, &header.uri, header.version);
        context.request_id = ids::request_id(Some(&header.headers));
        (context.client_address, context.trusted) = request::client(header, context.peer(), &self.shared.settings);
    }

    /// Decides; the permit, or the refusal, is then in `context`. Not if a key is to be fetched first, which `at_last` is too
    /// late for.
    fn decide(&self, header: &RequestHeader, at_last: bool, context: &mut Context) -> Option<Wanted> {
        let facts = match request::read(header, &Limits::from(&self.shared.settings)) {
            Ok(facts) => facts,
            Err(denial) => {
                context.denial = Some(denial);
                return None;
            }
        };
        let request = gate::Request {
            method: header.method.as_str().as_bytes(),
            target: facts.target,
            authorization: facts.authorization,
            peer: context.client_address,
        };
        let decision = if at_last {
            self.shared.gate.decide(&request)
        } else {
            match self.shared.gate.try_decide(&request) {
                Ok(decision) => decision,
                Err(wanted) => return Some(wanted),
            }
        };
        context.route = decision.route;
        context.whose = decision.whose;
        context.quota = decision.quota;
        if let Some(target) = decision.target.filter(|target| facts.rewritten || target.rewritten()) {
            context.target = Some(target.as_str().into());
        }
        match decision.outcome {
            Ok(permit) if facts.content_length.is_some_and(|length| length > permit.route().body_limit_bytes) => {
                context.denial = Some(Denial::BodyTooLarge);
            }
            Ok(permit) => {
                let permit = Arc::new(permit);
                if let Some(scope) = &context.scope {
                    // Set once: a request is decided once.
                    let _ = scope.permit.set(Arc::clone(&permit));
                }
                context.permit = Some(permit);
            }
            Err(denial) => context.denial = Some(denial),
        }
        None
    }

    /// Whether the permit still holds: nothing goes on in either direction for a credential that no longer counts.
    pub(super) fn ask_again(&self, context: &mut Context) -> Result<()> {
        let permit = context.permit.as_ref().ok_or_else(refused)?;
        self.shared.gate.recheck(permit).map_err(|denial| {
            context.denial = Some(denial);
            refused()
        })
    }

    /// The server for the next try.
    pub(super) fn pick(&self, context: &mut Context) -> Result<HttpPeer> {
        // Without a permit there is no route to take the upstream from: nothing is forwarded.
        let permit = context.permit.as_ref().ok_or_else(refused)?;
        match context.attempts.pick(permit, context.client_address) {
            Ok(server) => Ok(peer(&permit.route().upstream, &server, self.shared.settings.upstream_idle_timeout)),
            Err(denial) => Err(denied(denial, context)),
        }
    }

    /// Makes the caller's header the one for the upstream, if the permit still holds.
    pub(super) fn rewrite(&self, request: &mut RequestHeader, context: &mut Context) -> Result<()> {
        self.ask_again(context)?;
        let permit = context.permit.as_ref().ok_or_else(refused)?;
        let identity = permit.identity();
        let added = Added {
            identity: identity.as_ref(),
            request_id: &context.request_id,
            authorization: permit.route().forward_authorization,
            peer: context.peer(),
            trusted: context.trusted,
            secure: context.secure(),
            http2: context.http2(),
            trailers: permit.route().upstream.settings.protocol == Protocol::Http2,
        };
        if let Some(authority) = request.uri.authority()
            && !request.headers.contains_key(HOST)
        {
            // From HTTP/2 to HTTP/2 pingora leaves it in the target, which is about to be made one without.
            let host = HeaderValue::from_str(authority.as_str());
            request.insert_header(HOST, host.map_err(|error| Error::because(ErrorType::InternalError, "an authority", error))?)?;
        }
        headers::rewrite(request, &added)?;
        if let Some(target) = &context.target {
            request.set_raw_path(target.as_bytes())?;
        }
        Ok(())
    }

    /// Makes the connection a tunnel, or answers why not. True: there is nothing left to do with the request.
    async fn switch(&self, session: &mut Session, context: &mut Context) -> Result<bool> {
        match upgrade::begin(self, session, context).await {
            Ok(()) => Ok(true),
            // Nothing has been told yet.
            Err(_) if context.denial.is_some() && context.status == 0 => {
                Self::refuse(session, context).await?;
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    async fn refuse(session: &mut Session, context: &mut Context) -> Result<()> {
        let denial = context.denial.get_or_insert(Denial::Internal);
        let reply = Reply::new(denial, &context.request_id, context.quota.as_ref())?;
        context.status = denial.status();
        let head_only = context.head_only();
        if !head_only {
            context.response_bytes = reply.body.len() as u64;
        }
        reply.send(&mut session.downstream_session, head_only).await
    }
}

/// Which refusal an error of pingora's stands for; `None`: the client has left, there is nobody to tell.
fn denial_of(error: &Error) -> Option<Denial> {
    let malformed = error.root_cause().downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    if let Some(wrong) = malformed.and_then(|cause| cause.downcast_ref::<super::chunks::MalformedChunk>()) {
        return Some(Denial::Malformed(MalformedRequest::Message(wrong.0)));
    }
    match (error.esource(), error.etype()) {
        (ErrorSource::Upstream, ErrorType::ReadTimedout | ErrorType::WriteTimedout) => Some(Denial::UpstreamTimeout),
        (ErrorSource::Upstream, _) => Some(Denial::UpstreamUnreachable),
        (ErrorSource::Downstream, ErrorType::ReadTimedout) => Some(Denial::RequestTimeout),
        (
            ErrorSource::Downstream,
            ErrorType::WriteError | ErrorType::WriteTimedout | ErrorType::ReadError | ErrorType::ConnectionClosed | ErrorType::H2Error,
        ) => None,
        (ErrorSource::Downstream, _) => Some(Denial::Malformed(MalformedRequest::Message("the request cannot be read"))),
        _ => Some(Denial::Internal),
    }
}

#[async_trait]
impl ProxyHttp for Filter {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context::new(Arc::clone(&self.shared))
    }

    fn init_downstream_modules(&self, _modules: &mut HttpModules) {
        // None: compressing what a caller half controls beside what it may not see is an oracle.
    }

    async fn request_filter(&self, session: &mut Session, context: &mut Context) -> Result<bool> {
        let settings = &self.shared.settings;
        let downstream = &mut session.downstream_session;
        downstream.set_read_timeout(Some(settings.body_timeout));
        downstream.set_write_timeout(Some(settings.write_timeout));
        // A client that has said everything may close its side and still wait for the answer.
        downstream.set_abort_on_close(false);
        // Interim answers go to those who asked for one; others may not expect them.
        downstream.set_ignore_info_resp(true);
        if self.shared.stopping() {
            downstream.set_keepalive(None);
        }
        if self.shared.active.requests() > settings.max_requests {
            self.note(downstream.req_header(), context);
            context.denial = Some(Denial::Overloaded);
            Self::refuse(session, context).await?;
            return Ok(true);
        }
        if let Some((own, endpoint)) = self.own_endpoint(downstream.req_header()) {
            own::answer(&self.shared, own, endpoint, session, context).await?;
            return Ok(true);
        }
        self.note(downstream.req_header(), context);
        if let Some(wanted) = self.decide(downstream.req_header(), false, context) {
            wanted.fetch().await;
            self.decide(downstream.req_header(), true, context);
        }
        if let Some(upstream) = context.upstream()
            && let Err(denial) = context.attempts.enter(&upstream)
        {
            context.permit = None;
            context.denial = Some(denial);
        }
        if context.permit.is_none() {
            Self::refuse(session, context).await?;
            return Ok(true);
        }
        if upgrade::is_asked(&session.req_header().headers) {
            if context.permit.as_ref().is_some_and(|permit| permit.route().websocket) {
                return self.switch(session, context).await;
            }
            // Before anything asks whether this is an upgrade: then it is not one, in either direction.
            session.req_header_mut().remove_header(&http::header::UPGRADE);
        }
        Ok(false)
    }

    async fn upstream_peer(&self, _session: &mut Session, context: &mut Context) -> Result<Box<HttpPeer>> {
        self.pick(context).map(Box::new)
    }

    fn fail_to_connect(&self, _session: &mut Session, _peer: &HttpPeer, context: &mut Context, mut error: Box<Error>) -> Box<Error> {
        let upstream = context.upstream();
        error.set_retry(upstream.is_some_and(|upstream| context.attempts.not_connected(&upstream, &error)));
        error
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        reused: bool,
        _peer: &HttpPeer,
        _fd: std::os::fd::RawFd,
        _digest: Option<&Digest>,
        context: &mut Context,
    ) -> Result<()> {
        if let Some(permit) = &context.permit {
            let counts = permit.route().upstream.counts();
            let count = if reused { &counts.reused } else { &counts.connected };
            count.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        context: &mut Context,
        reused: bool,
    ) -> Box<Error> {
        // What the caller has been sent cannot be taken back, and what it sent can be sent anew only if it was kept.
        let untold = session.downstream_session.response_written().is_none_or(|header| header.status.is_informational());
        let repeatable = untold && context.denial.is_none() && !session.as_ref().retry_buffer_truncated();
        let idempotent = session.req_header().method.is_idempotent();
        let upstream = context.upstream();
        let again = upstream.is_some_and(|upstream| context.attempts.broken(&upstream, &error, reused, repeatable, idempotent));
        error.set_retry(again);
        error
    }

    async fn upstream_request_filter(&self, _session: &mut Session, request: &mut RequestHeader, context: &mut Context) -> Result<()> {
        self.rewrite(request, context)
    }

    async fn request_body_filter(&self, _session: &mut Session, body: &mut Option<Bytes>, end: bool, context: &mut Context) -> Result<()> {
        context.content_done |= end;
        if let Some(scope) = &context.scope {
            scope.heard.fetch_add(1, Ordering::Relaxed);
            scope.content_done.fetch_or(end, Ordering::Relaxed);
        }
        let Some(body) = body else { return Ok(()) };
        self.ask_again(context)?;
        context.request_bytes += body.len() as u64;
        if context.permit.as_ref().is_none_or(|permit| context.request_bytes > permit.route().body_limit_bytes) {
            context.denial = Some(Denial::BodyTooLarge);
            return Err(refused());
        }
        Ok(())
    }

    async fn upstream_response_filter(&self, _session: &mut Session, response: &mut ResponseHeader, _context: &mut Context) -> Result<()> {
        if response.status == http::StatusCode::SWITCHING_PROTOCOLS {
            // Nobody asked for it: what follows would be bytes that no check has seen.
            return Err(Error::explain(ErrorType::InvalidHTTPHeader, "101 without an upgrade").into_up());
        }
        Ok(())
    }

    async fn response_filter(&self, session: &mut Session, response: &mut ResponseHeader, context: &mut Context) -> Result<()> {
        if response.status.is_informational() {
            return Ok(());
        }
        self.ask_again(context)?;
        response.insert_header(REQUEST_ID, context.request_id.clone())?;
        if let Some(quota) = &context.quota {
            respond::insert_quota(response, quota)?;
        }
        if self.shared.stopping() {
            session.downstream_session.set_keepalive(None);
        }
        context.status = response.status.as_u16();
        if let Some(upstream) = context.upstream() {
            context.attempts.answered(&upstream, context.status);
        }
        Ok(())
    }

    async fn response_trailer_filter(
        &self,
        _session: &mut Session,
        trailers: &mut HeaderMap,
        context: &mut Context,
    ) -> Result<Option<Bytes>> {
        self.ask_again(context)?;
        headers::keep_plain_trailers(trailers);
        Ok(None)
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        _end: bool,
        context: &mut Context,
    ) -> Result<Option<std::time::Duration>> {
        if body.is_some() {
            self.ask_again(context)?;
        }
        context.response_bytes += body.as_ref().map_or(0, |body| body.len() as u64);
        Ok(None)
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, context: &mut Context) -> FailToProxy {
        let answered = session.downstream_session.response_written().is_some_and(|header| !header.status.is_informational());
        if context.denial.is_none() {
            context.denial = denial_of(error);
        }
        if error.esource() == &ErrorSource::Upstream {
            let upstream = context.route.as_ref().map_or("", |route| &*route.upstream.name);
            let request_id = context.request_id.to_str().unwrap_or_default();
            tracing::warn!(request_id, upstream, error = %cause(error), "the upstream failed");
        }
        if !answered {
            context.status = 0;
            if context.denial.is_some() {
                session.downstream_session.set_keepalive(None);
                if Self::refuse(session, context).await.is_err() {
                    context.status = 0;
                }
            }
        }
        FailToProxy { error_code: context.status, can_reuse_downstream: false }
    }

    fn suppress_error_log(&self, _session: &Session, _context: &Context, _error: &Error) -> bool {
        // Every request has its record; a line more for each that a client breaks off would be a lever for it.
        true
    }

    fn suppress_proxy_warn_log(&self, _session: &Session, _context: &Context, _error: &Error, _why: ProxyWarnLogContext) -> bool {
        true
    }
}
