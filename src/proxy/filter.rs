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
use pingora::{Error, ErrorType, Result};

use super::context::Context;
use super::decide::{note_failure, refused};
use super::headers;
use super::later::Later;
use super::peer::peer;
use super::respond::{self, Reply};
use super::wire::Limits;
use super::{REQUEST_ID, Shared, own, request, upgrade};
use crate::access::Denial;

/// The gateway as pingora sees it.
pub struct Filter {
    pub(super) shared: Arc<Shared>,
    /// What makes connections to upstreams that become tunnels.
    pub(super) tunnels: Arc<Later<TransportConnector>>,
}

impl Filter {
    /// Makes the caller's header the one for the upstream, if the permit still holds.
    pub(super) fn rewrite(&self, request: &mut RequestHeader, context: &mut Context) -> Result<()> {
        self.shared.ask_again(context)?;
        let permit = context.permit.as_ref().ok_or_else(refused)?;
        let identity = permit.identity();
        let added = context.added(permit, identity.as_ref());
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
        // What was found to need pingora after it was decided is not decided again.
        if context.permit.is_none() {
            let header = downstream.req_header();
            context.note(&header.method, &header.uri, header.version);
            if self.shared.active.requests() > settings.max_requests {
                self.shared.note(&header.headers, context);
                context.denial = Some(Denial::Overloaded);
                Self::refuse(session, context).await?;
                return Ok(true);
            }
            if let Some((own, endpoint)) = self.shared.own_endpoint_of(header) {
                own::answer(&self.shared, own, endpoint, session, context).await?;
                return Ok(true);
            }
            self.shared.note(&header.headers, context);
            let limits = Limits::from(settings);
            let method = header.method.as_str().as_bytes();
            if let Some(wanted) = self.shared.decide(method, request::read(header, &limits), false, context) {
                wanted.fetch().await;
                self.shared.decide(method, request::read(header, &limits), true, context);
            }
            Shared::enter(context);
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
        let server = Shared::pick(context)?;
        let permit = context.permit.as_ref().ok_or_else(refused)?;
        Ok(Box::new(peer(&permit.route().upstream, &server, self.shared.settings.upstream_idle_timeout)))
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
        self.shared.ask_again(context)?;
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
        self.shared.ask_again(context)?;
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
        self.shared.ask_again(context)?;
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
            self.shared.ask_again(context)?;
        }
        context.response_bytes += body.as_ref().map_or(0, |body| body.len() as u64);
        Ok(None)
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, context: &mut Context) -> FailToProxy {
        let answered = session.downstream_session.response_written().is_some_and(|header| !header.status.is_informational());
        note_failure(error, context);
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
