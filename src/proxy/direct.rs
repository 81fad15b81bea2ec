//! Requests without content, carried from header to answer without pingora's proxy loop: most of all requests, at half the price.
//!
//! What they meet is the same: [`super::decide`] decides, [`super::headers`] says what goes upstream, [`super::again`] what is
//! tried again, [`super::context`] records. What needs more than this goes the long way: content, upgrades, expectations, the
//! gateway's own endpoints, upstreams of HTTP/2.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use http::{Method, Response, Version};
use pingora::protocols::Stream;
use pingora::protocols::http::v2::server::HttpSession;
use pingora::{Error, ErrorType, Result, RetryType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::answer::{self, Framing, Read, Told};
use super::bare::Bare;
use super::connection::Plane;
use super::context::Context;
use super::decide::{note_failure, refused};
use super::guard::Guard;
use super::head::Head;
use super::headers::Rules;
use super::live::Scope;
use super::peer::{group, peer};
use super::pool::Pool;
use super::request::Facts;
use super::respond::{self, Reply, Shape};
use super::timer::{Late, Watch};
use super::{Shared, date};
use crate::access::Denial;
use crate::upstream::{Protocol, Server, Upstream};

/// What a header and a small content fit into.
const ROOM: usize = 4 * 1024;
/// What is read at a time of a large content.
const PIECE: usize = 32 * 1024;

/// What became of a request.
#[derive(Debug)]
pub enum Served {
    /// It was answered, and the connection goes on.
    Next,
    /// The connection, or the stream of HTTP/2, is to be closed.
    Close,
    /// It is not for here: nothing of it was answered.
    TheLongWay,
}

/// Who is answered.
pub enum Client<'a> {
    Http1(&'a mut Guard),
    Http2(&'a mut HttpSession),
}

impl Client<'_> {
    /// Begins the answer; what is not sent yet stands in `out`.
    fn begin(&mut self, told: Told, end: bool, out: &mut Vec<u8>) -> Result<()> {
        match (self, told) {
            (Self::Http1(_), Told::Http1(mut header)) => {
                header.extend_from_slice(b"\r\n");
                *out = header;
                Ok(())
            }
            (Self::Http2(session), Told::Http2(status, fields)) => {
                let (mut header, ()) = Response::new(()).into_parts();
                (header.status, header.headers) = (status, fields);
                session.write_response_header(Box::new(header.into()), end)
            }
            _ => Err(refused()),
        }
    }

    /// Sends what is in `out`.
    async fn tell(&mut self, out: &mut Vec<u8>, end: bool) -> Result<()> {
        match self {
            Self::Http1(guard) => {
                let told = guard.tell(out).await;
                out.clear();
                told.map_err(|error| Error::because(ErrorType::WriteError, "an answer", error).into_down())
            }
            Self::Http2(session) => session.write_body(Bytes::from(std::mem::take(out)), end).await,
        }
    }

    fn is_http2(&self) -> bool {
        matches!(self, Self::Http2(_))
    }
}

/// Whether a request without content can be served here, as far as its header tells.
pub fn is_plain(head: &Head<'_>, shared: &Shared) -> bool {
    !head.has("upgrade") && !head.has("expect") && shared.own_endpoint(head.target).is_none()
}

/// What is to be done with a request.
pub enum Course {
    /// It is refused: the context says why.
    Refuse,
    /// It goes to this upstream, with this header.
    Forward(Arc<Upstream>, Vec<u8>),
    /// It is not for here.
    TheLongWay,
}

/// The context of a request on its way; `None` if its method is none that is known how to carry here.
pub fn begin(plane: &Plane, head: &Head<'_>, version: Version, scope: &Arc<Scope>) -> Option<Context> {
    let method = Method::from_bytes(head.method).ok()?;
    let mut context = Context::of(Arc::clone(&plane.shared), Some(Arc::clone(scope)));
    context.begin(method, version);
    Some(context)
}

/// Decides a request. What is not for here is decided too, and kept in its scope.
pub async fn decide(
    plane: &Plane,
    head: &Head<'_>,
    facts: Result<Facts<'_>, Denial>,
    context: &mut Context,
    watch: &mut Watch<'_>,
) -> Course {
    let shared = &plane.shared;
    shared.note(head, context);
    if shared.active.requests() > shared.settings.max_requests {
        context.denial = Some(Denial::Overloaded);
    } else if let Some(wanted) = shared.decide(head.method, facts.clone(), false, context) {
        context.asked_for(head.target);
        // It has its own limit. When the request is over before, the record says why.
        if watch.within(shared.settings.request_timeout, wanted.fetch()).await.is_ok() {
            shared.decide(head.method, facts, true, context);
        }
    }
    context.asked_for(head.target);
    Shared::enter(context);
    let Some(upstream) = context.upstream() else { return Course::Refuse };
    if upstream.settings.protocol == Protocol::Http2 {
        if let Some(scope) = context.scope.clone() {
            *scope.begun.lock() = Some(Box::new(context.take()));
        }
        return Course::TheLongWay;
    }
    watch.shorten(upstream.settings.total_timeout);
    match request(head, context) {
        Some(request) => Course::Forward(upstream, request),
        None => Course::Refuse,
    }
}

/// The header for the upstream.
fn request(head: &Head<'_>, context: &Context) -> Option<Vec<u8>> {
    let permit = context.permit.as_ref()?;
    let identity = permit.identity();
    let added = context.added(permit, identity.as_ref());
    let mut out = Vec::with_capacity(ROOM / 4);
    head.forward(context.target.as_deref()?, &Rules::of(head, &added), &mut out);
    Some(out)
}

/// One request on its way.
pub struct Direct<'a> {
    pub plane: &'a Plane,
    pub pool: &'a Arc<Pool>,
    pub client: Client<'a>,
    pub watch: Watch<'a>,
    /// The connection is closed after this answer.
    pub last: bool,
}

impl Direct<'_> {
    /// Answers a request that was decided, and is for here.
    pub async fn serve(&mut self, course: Course, context: &mut Context, scope: &Scope) -> Served {
        let Course::Forward(upstream, request) = course else {
            // Over before it was decided: the record says what the client is told.
            return if scope.cut.lock().is_some() { Served::Close } else { self.refuse(context).await };
        };
        match self.forward(&request, &upstream, context).await {
            Ok(()) if self.last => Served::Close,
            Ok(()) => Served::Next,
            Err(error) => {
                if scope.cut.lock().is_some() {
                    // The record says why, and what the client is still to be told.
                    return Served::Close;
                }
                note_failure(&error, context);
                if context.status == 0 && context.denial.is_some() {
                    self.last = true;
                    return self.refuse(context).await;
                }
                Served::Close
            }
        }
    }

    async fn refuse(&mut self, context: &mut Context) -> Served {
        self.last |= self.plane.shared.stopping();
        let shape = Shape { head_only: context.head_only(), last: self.last };
        let denial = context.denial.get_or_insert(Denial::Internal);
        context.status = denial.status();
        let mut out = match &mut self.client {
            Client::Http1(_) => {
                let (message, length) = respond::message(denial, &context.request_id, context.quota.as_ref(), shape);
                context.response_bytes = length as u64;
                message
            }
            Client::Http2(session) => {
                let Ok(reply) = Reply::new(denial, &context.request_id, context.quota.as_ref()) else { return Served::Close };
                let body = if shape.head_only { Bytes::new() } else { reply.body };
                context.response_bytes = body.len() as u64;
                if session.write_response_header(reply.header, shape.head_only).is_err() {
                    return Served::Close;
                }
                body.into()
            }
        };
        match self.tell(&mut out, true).await {
            Ok(()) if !self.last => Served::Next,
            _ => Served::Close,
        }
    }

    /// Sends what is in `out` to the client.
    async fn tell(&mut self, out: &mut Vec<u8>, end: bool) -> Result<()> {
        let told = self.watch.within(self.plane.shared.settings.write_timeout, self.client.tell(out, end)).await;
        match told {
            Ok(told) => told,
            Err(Late::Step) => Err(Error::explain(ErrorType::WriteTimedout, "an answer").into_down()),
            Err(Late::Ended) => Err(refused()),
        }
    }

    /// Carries the request to an upstream and its answer back, on another connection or to another server if need be.
    async fn forward(&mut self, request: &[u8], upstream: &Arc<Upstream>, context: &mut Context) -> Result<()> {
        let settings = &self.plane.shared.settings;
        loop {
            let server = Shared::pick(context)?;
            let key = (group(upstream, &server), server.address);
            let kept = self.pool.take(&key, context.attempts.begun());
            let reused = kept.is_some();
            let stream = if let Some(stream) = kept {
                stream
            } else {
                // Boxed: it is large, and seldom needed. It has its own limit; the one here is never met.
                let connecting = Box::pin(connect(self.plane, upstream, &server));
                match self.watch.within(settings.request_timeout, connecting).await {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(error)) if context.attempts.not_connected(upstream, &error) => continue,
                    Ok(Err(error)) => return Err(error.into_up()),
                    Err(_) => return Err(refused()),
                }
            };
            let counts = upstream.counts();
            (if reused { &counts.reused } else { &counts.connected }).fetch_add(1, Ordering::Relaxed);
            match self.exchange(stream, request, upstream, context).await {
                Ok(Some(stream)) => {
                    self.pool.keep(key, stream, settings.upstream_idle_timeout, settings.upstream_pool);
                    return Ok(());
                }
                Ok(None) => return Ok(()),
                Err(error) => {
                    let repeatable = context.status == 0 && context.denial.is_none();
                    let again = context.attempts.broken(upstream, &error, reused, repeatable, context.method.is_idempotent());
                    if !again {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Sends the request and hands on the answer; the connection, if it can be used again.
    async fn exchange(&mut self, mut stream: Stream, request: &[u8], upstream: &Upstream, context: &mut Context) -> Result<Option<Stream>> {
        let shared = &self.plane.shared;
        shared.ask_again(context)?;
        let sent = self.watch.within(upstream.settings.response_timeout, async {
            stream.write_all(request).await?;
            stream.flush().await
        });
        match sent.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(stale(Error::because(ErrorType::WriteError, "the request", error))),
            Err(Late::Step) => return Err(Error::explain(ErrorType::WriteTimedout, "the request").into_up()),
            Err(Late::Ended) => return Err(refused()),
        }

        let mut told = match self.client {
            Client::Http1(_) => Told::Http1(Vec::with_capacity(ROOM)),
            Client::Http2(_) => Told::http2(),
        };
        let mut input = BytesMut::with_capacity(ROOM);
        let answer = loop {
            let before = input.len();
            if self.read(&mut stream, &mut input, upstream).await.map_err(|error| if before == 0 { stale(error) } else { error })? == 0 {
                let error = Error::explain(ErrorType::ConnectionClosed, "before an answer");
                return Err(if before == 0 { stale(error) } else { error.into_up() });
            }
            if let Read::Final(answer) = answer::read(&mut input, context.head_only(), &mut told)? {
                break answer;
            }
        };
        shared.ask_again(context)?;
        context.status = answer.status;
        context.attempts.answered(upstream, answer.status);
        self.last |= shared.stopping();
        told.once(b"X-Request-Id", context.request_id.as_bytes())?;
        if let Some(quota) = &context.quota {
            respond::quota_fields(quota, |name, value| told.once(name.as_bytes(), value))?;
        }
        // pingora says it itself over HTTP/2.
        if !answer.dated && !self.client.is_http2() {
            date::with(|date| told.field(b"Date", date))?;
        }
        if self.last && !self.client.is_http2() {
            told.field(b"Connection", b"close")?;
        }
        let mut out = Vec::new();
        self.client.begin(told, answer.framing.is_done(), &mut out)?;
        let complete = self.content(&mut stream, input, out, answer.framing, upstream, context).await?;
        Ok((answer.reusable && complete).then_some(stream))
    }

    /// Hands on the content of an answer, behind what is in `out` already; whether nothing came after it.
    async fn content(
        &mut self,
        stream: &mut Stream,
        mut input: BytesMut,
        mut out: Vec<u8>,
        mut framing: Framing,
        upstream: &Upstream,
        context: &mut Context,
    ) -> Result<bool> {
        let bare = self.client.is_http2();
        if bare && framing.is_done() {
            // Said with the header.
            return Ok(input.is_empty());
        }
        // It was, before the header; nothing was waited for since.
        let mut just_asked = true;
        loop {
            let carried = framing.carry(&mut input, &mut out, bare)?;
            if carried > 0 {
                if !std::mem::take(&mut just_asked) {
                    self.plane.shared.ask_again(context)?;
                }
                context.response_bytes += carried;
            }
            let done = framing.is_done();
            if !out.is_empty() || (done && bare) {
                self.tell(&mut out, done).await?;
            }
            if done {
                return Ok(input.is_empty());
            }
            just_asked = false;
            if input.capacity() < PIECE {
                input.reserve(PIECE);
            }
            if self.read(stream, &mut input, upstream).await? == 0 {
                framing.closed(&mut out, bare)?;
            }
        }
    }

    async fn read(&mut self, stream: &mut Stream, input: &mut BytesMut, upstream: &Upstream) -> Result<usize> {
        input.reserve(1024);
        match self.watch.within(upstream.settings.response_timeout, stream.read_buf(input)).await {
            Ok(Ok(read)) => Ok(read),
            Ok(Err(error)) => Err(Error::because(ErrorType::ReadError, "an answer", error).into_up()),
            Err(Late::Step) => Err(Error::explain(ErrorType::ReadTimedout, "an answer").into_up()),
            Err(Late::Ended) => Err(refused()),
        }
    }
}

/// A new connection to a server.
async fn connect(plane: &Plane, upstream: &Upstream, server: &Server) -> Result<Stream> {
    if server.tls_name.is_some() {
        return plane.connector.get().await.new_stream(&peer(upstream, server, plane.shared.settings.upstream_idle_timeout)).await;
    }
    match tokio::time::timeout(upstream.settings.connect_timeout, Bare::connect(server.address)).await {
        Ok(Ok(stream)) => Ok(Box::new(stream)),
        Ok(Err(error)) => Err(Error::because(ErrorType::ConnectError, "a server", error)),
        Err(_) => Err(Error::explain(ErrorType::ConnectTimedout, "a server")),
    }
}

#[expect(clippy::unnecessary_box_returns, reason = "pingora's errors are boxed everywhere")]
/// An error on a connection that has said nothing yet: if it was used before, it most likely was over when the request came.
fn stale(mut error: Box<Error>) -> Box<Error> {
    if matches!(error.etype(), ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError) {
        error.retry = RetryType::ReusedOnly;
    }
    error.into_up()
}
