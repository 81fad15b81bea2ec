//! Requests without content, carried from header to answer without pingora's proxy loop: most of all requests, at half the price.
//!
//! What they meet is the same: [`super::decide`] decides, [`super::headers`] says what goes upstream, [`super::again`] what is
//! tried again, [`super::context`] records. What needs more than this goes the long way: content, upgrades, expectations, the
//! gateway's own endpoints, upstreams of HTTP/2.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::BytesMut;
use http::Method;
use pingora::protocols::Stream;
use pingora::{Error, ErrorType, OkOrErr, Result, RetryType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::answer::{self, Framing, Read};
use super::connection::Plane;
use super::context::Context;
use super::decide::{note_failure, refused};
use super::guard::Guard;
use super::head::{self, Head};
use super::headers::Rules;
use super::live::Scope;
use super::peer::{group, peer};
use super::pool::Pool;
use super::request::Facts;
use super::respond::{self, Reply};
use super::timer::{Late, Watch};
use super::{Shared, date};
use crate::access::Denial;
use crate::upstream::{Protocol, Upstream};

/// What a header and a small content fit into.
const ROOM: usize = 4 * 1024;
/// What is read at a time of a large content.
const PIECE: usize = 32 * 1024;

/// What became of a request.
#[derive(Debug)]
pub enum Served {
    /// It was answered, and the connection goes on.
    Next,
    /// The connection is to be closed.
    Close,
    /// It is not for here: nothing of it was answered.
    TheLongWay,
}

/// One request on its way.
pub struct Direct<'a> {
    pub plane: &'a Plane,
    pub pool: &'a Arc<Pool>,
    pub guard: &'a mut Guard,
    pub watch: Watch<'a>,
    /// The connection is closed after this answer.
    pub last: bool,
}

/// Whether a request without content can be served here, as far as its header tells.
pub fn is_plain(head: &Head<'_>, shared: &Shared) -> bool {
    !head.has("upgrade") && !head.has("expect") && shared.own_endpoint(head.target).is_none()
}

impl Direct<'_> {
    /// Serves a request.
    pub async fn serve(&mut self, head: &Head<'_>, scope: &Arc<Scope>) -> Served {
        let shared = &self.plane.shared;
        let Ok(method) = Method::from_bytes(head.method) else { return Served::TheLongWay };
        let mut context = Context::of(Arc::clone(shared), Some(Arc::clone(scope)));
        context.method = method;
        context.content_done = true;
        // As it was sent, until its canonical spelling is known.
        context.target = Some(String::from_utf8_lossy(head.target).into());
        shared.note(head, &mut context);
        if shared.active.requests() > shared.settings.max_requests {
            context.denial = Some(Denial::Overloaded);
            return self.refuse(&mut context).await;
        }
        // The header was checked: there is one credential at most, and no content.
        let facts = Facts { target: head.target, rewritten: true, authorization: head.authorization(), content_length: None };
        if let Some(wanted) = shared.decide(head.method, Ok(facts), false, &mut context) {
            let limit = shared.settings.request_timeout;
            if self.watch.within(limit, wanted.fetch()).await.is_err() {
                return Served::Close;
            }
            shared.decide(head.method, Ok(facts), true, &mut context);
        }
        Shared::enter(&mut context);
        let Some(upstream) = context.upstream() else { return self.refuse(&mut context).await };
        if upstream.settings.protocol == Protocol::Http2 {
            *scope.begun.lock() = Some(Box::new(context));
            return Served::TheLongWay;
        }
        self.watch.shorten(upstream.settings.total_timeout);
        match self.forward(head, &upstream, &mut context).await {
            Ok(()) if self.last => Served::Close,
            Ok(()) => Served::Next,
            Err(error) => {
                if scope.cut.lock().is_some() {
                    // The record says why, and what the client is still to be told.
                    return Served::Close;
                }
                note_failure(&error, &mut context);
                if context.status == 0 && context.denial.is_some() {
                    self.last = true;
                    return self.refuse(&mut context).await;
                }
                Served::Close
            }
        }
    }

    async fn refuse(&mut self, context: &mut Context) -> Served {
        let denial = context.denial.get_or_insert(Denial::Internal);
        let Ok(reply) = Reply::new(denial, &context.request_id, context.quota.as_ref()) else { return Served::Close };
        context.status = denial.status();
        let head_only = context.head_only();
        if !head_only {
            context.response_bytes = reply.body.len() as u64;
        }
        self.last |= self.plane.shared.stopping();
        let message = reply.into_message(head_only, self.last);
        match self.tell(&message).await {
            Ok(()) if !self.last => Served::Next,
            _ => Served::Close,
        }
    }

    /// Writes to the client.
    async fn tell(&mut self, bytes: &[u8]) -> Result<()> {
        let told = self.watch.within(self.plane.shared.settings.write_timeout, self.guard.tell(bytes)).await;
        match told {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Error::because(ErrorType::WriteError, "an answer", error).into_down()),
            Err(Late::Step) => Err(Error::explain(ErrorType::WriteTimedout, "an answer").into_down()),
            Err(Late::Ended) => Err(refused()),
        }
    }

    /// Carries the request to an upstream and its answer back, on another connection or to another server if need be.
    async fn forward(&mut self, head: &Head<'_>, upstream: &Arc<Upstream>, context: &mut Context) -> Result<()> {
        let settings = &self.plane.shared.settings;
        loop {
            let server = Shared::pick(context)?;
            let key = (group(upstream, &server), server.address);
            let kept = self.pool.take(&key);
            let reused = kept.is_some();
            let stream = if let Some(stream) = kept {
                stream
            } else {
                let peer = peer(upstream, &server, settings.upstream_idle_timeout);
                // Boxed: it is large, and seldom needed. It has its own limit; the one here is never met.
                let connecting = Box::pin(self.plane.connector.new_stream(&peer));
                match self.watch.within(settings.request_timeout, connecting).await {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(error)) if context.attempts.not_connected(upstream, &error) => continue,
                    Ok(Err(error)) => return Err(error.into_up()),
                    Err(_) => return Err(refused()),
                }
            };
            let counts = upstream.counts();
            (if reused { &counts.reused } else { &counts.connected }).fetch_add(1, Ordering::Relaxed);
            match self.exchange(stream, head, upstream, context).await {
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
    async fn exchange(
        &mut self,
        mut stream: Stream,
        head: &Head<'_>,
        upstream: &Upstream,
        context: &mut Context,
    ) -> Result<Option<Stream>> {
        let shared = &self.plane.shared;
        shared.ask_again(context)?;
        let mut out = Vec::with_capacity(ROOM);
        {
            let permit = context.permit.as_ref().ok_or_else(refused)?;
            let identity = permit.identity();
            let added = context.added(permit, identity.as_ref());
            let target = context.target.as_deref().or_err(ErrorType::InternalError, "a target")?;
            head.forward(target, &Rules::of(head, &added), &mut out);
        }
        let limit = upstream.settings.response_timeout;
        let sent = self.watch.within(limit, async {
            stream.write_all(&out).await?;
            stream.flush().await
        });
        match sent.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(stale(Error::because(ErrorType::WriteError, "the request", error))),
            Err(Late::Step) => return Err(Error::explain(ErrorType::WriteTimedout, "the request").into_up()),
            Err(Late::Ended) => return Err(refused()),
        }

        out.clear();
        let mut input = BytesMut::with_capacity(ROOM);
        let answer = loop {
            let before = input.len();
            if self.read(&mut stream, &mut input, upstream).await.map_err(|error| if before == 0 { stale(error) } else { error })? == 0 {
                let error = Error::explain(ErrorType::ConnectionClosed, "before an answer");
                return Err(if before == 0 { stale(error) } else { error.into_up() });
            }
            if let Read::Final(answer) = answer::read(&mut input, context.head_only(), &mut out)? {
                break answer;
            }
        };
        shared.ask_again(context)?;
        context.status = answer.status;
        context.attempts.answered(upstream, answer.status);
        self.last |= shared.stopping();
        head::put(&mut out, b"X-Request-Id", context.request_id.as_bytes());
        if let Some(quota) = &context.quota {
            let _ = respond::quota_fields(quota, |name, value| {
                head::put(&mut out, name.as_str().as_bytes(), value);
                Ok::<_, Infallible>(())
            });
        }
        if !answer.dated {
            date::with(|date| head::put(&mut out, b"Date", date));
        }
        if self.last {
            out.extend_from_slice(b"Connection: close\r\n");
        }
        out.extend_from_slice(b"\r\n");
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
        loop {
            let carried = framing.carry(&mut input, &mut out)?;
            if carried > 0 {
                self.plane.shared.ask_again(context)?;
                context.response_bytes += carried;
            }
            let done = framing.is_done();
            if !out.is_empty() {
                self.tell(&out).await?;
                out.clear();
            }
            if done {
                return Ok(input.is_empty());
            }
            if input.capacity() < PIECE {
                input.reserve(PIECE);
            }
            if self.read(stream, &mut input, upstream).await? == 0 {
                framing.closed(&mut out)?;
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

#[expect(clippy::unnecessary_box_returns, reason = "pingora's errors are boxed everywhere")]
/// An error on a connection that has said nothing yet: if it was used before, it most likely was over when the request came.
fn stale(mut error: Box<Error>) -> Box<Error> {
    if matches!(error.etype(), ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError) {
        error.retry = RetryType::ReusedOnly;
    }
    error.into_up()
}
