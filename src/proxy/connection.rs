//! One connection from its first byte to its last: what it may cost in time, and what a request on it may.

use std::future::Future;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use http::{HeaderValue, Version};
use pingora::apps::{HttpServerApp, ReusedHttpStream};
use pingora::connectors::TransportConnector;
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::proxy::HttpProxy;
use pingora::time::fast_timeout::{fast_sleep as sleep, fast_timeout as timeout};
use tokio::sync::watch;

use super::direct::{self, Client, Course, Direct, Served};
use super::filter::Filter;
use super::guard::{Arrival, Guard, Slot};
use super::head::Head;
use super::later::Later;
use super::live::{Cut, SCOPE, SOON, Scope};
use super::pool::Pool;
use super::request::Facts;
use super::respond::{self, Shape};
use super::streams;
use super::timer::{Timer, Watch};
use super::wire::{self, Limits};
use super::{Shared, ids};
use crate::access::{Denial, MalformedRequest};
use crate::clock;
use crate::record::Record;

/// How long a closed connection is read into nothing, so that the client can read the answer.
const LINGER: Duration = Duration::from_secs(2);

/// How long a connection without a request is kept once the gateway stops.
const LAST_REQUEST: Duration = Duration::from_secs(1);

/// What all connections have in common.
pub struct Plane {
    pub(super) shared: Arc<Shared>,
    pub(super) proxy: Arc<Later<Arc<HttpProxy<Filter>>>>,
    /// What makes connections to upstreams for requests that need no pingora beyond that.
    pub(super) connector: Arc<Later<TransportConnector>>,
}

/// One connection, after TLS.
pub struct Connection {
    pub(super) plane: Arc<Plane>,
    /// The upstreams' connections of this thread.
    pub(super) pool: Arc<Pool>,
    pub(super) peer: IpAddr,
    pub(super) secure: bool,
    pub(super) shutdown: watch::Receiver<bool>,
}

/// How a request left pingora.
pub enum End {
    /// Done; the connection, if it can be used again.
    Done(Option<ReusedHttpStream>),
    /// It panicked, or was cut.
    Broken,
}

impl Connection {
    pub(super) fn new(plane: Arc<Plane>, pool: Arc<Pool>, peer: IpAddr, secure: bool, shutdown: watch::Receiver<bool>) -> Self {
        Self { plane, pool, peer, secure, shutdown }
    }

    /// Serves the connection to its end.
    pub(super) async fn serve(self, io: Stream) {
        let slot = Slot::default();
        let guard = Guard::new(io, Some(Arc::clone(&slot)));
        if guard.alpn_http2() {
            // Boxed, as below: a connection of HTTP/1.1 has no room to spare for it.
            return Box::pin(streams::serve(&self, guard.into_http2())).await;
        }
        let mut guard = Box::new(guard);
        let settings = &self.plane.shared.settings;
        let limits = Limits::from(settings);
        let mut first = true;
        let mut timer = Timer::new();
        let mut scope = Arc::new(Scope::new(self.peer, self.secure));
        let mut stop = pin!(stopped(self.shutdown.clone()));
        loop {
            // A client that has just connected has something to say; later it may take its time.
            let patience = if first { settings.header_timeout } else { settings.idle_timeout };
            let begun = timer.within(patience, until(guard.wait(), stop.as_mut())).await;
            if begun != Some(true) {
                return;
            }
            let bytes = match timer.within(settings.header_timeout, guard.header(&limits, first && !self.secure)).await {
                Some(Arrival::Header(bytes)) => bytes,
                Some(Arrival::Http2) => return Box::pin(streams::serve(&self, *guard)).await,
                Some(Arrival::Closed) => return,
                Some(Arrival::Refused(denial)) => return self.refuse(*guard, &denial, &slot).await,
                None => return self.refuse(*guard, &Denial::RequestTimeout, &slot).await,
            };
            first = false;
            if guard.content_is_done() {
                match self.direct(&bytes, &mut guard, &mut timer, &scope).await {
                    Served::Next => {
                        // At once: its permit may hold a place that others wait for.
                        Scope::renew(&mut scope);
                        continue;
                    }
                    Served::Close => {
                        let last_word = scope.last_word.lock().take();
                        let _ = timeout(LINGER, guard.end(last_word)).await;
                        drop(slot.lock().take());
                        return;
                    }
                    Served::TheLongWay => {}
                }
            }
            let bytes = wire::into_origin_form(bytes, guard.marks());
            let mut session = ServerSession::new_http1(guard);
            session.set_pipelined_prefix(bytes);
            let end = self.request(session, &scope).await;
            scope.give_up();
            if !scope.noted.load(Ordering::Relaxed) {
                // pingora refused by itself what our own reading took; the client got its bare 400.
                let denial = Denial::Malformed(MalformedRequest::Message("the request cannot be read"));
                self.record("HTTP/1.1", "", "", &ids::new_request_id(clock::now()), &denial);
            }
            let reused = match end {
                End::Done(Some(reused)) => reused.consume().0.into_any().downcast::<Guard>().ok(),
                End::Done(None) | End::Broken => None,
            };
            let tunnel = scope.tunnel.lock().take();
            if let Some(tunnel) = tunnel {
                if let Some(guard) = reused {
                    tunnel.run(*guard, &self.plane.shared, &scope).await;
                }
                return;
            }
            let Some(next) = reused else {
                let left = slot.lock().take();
                if let Some(left) = left {
                    let last_word = scope.last_word.lock().take();
                    let guard = left.into_guard();
                    if last_word.is_some() || !guard.content_is_done() {
                        let _ = timeout(LINGER, guard.linger(last_word)).await;
                    }
                }
                return;
            };
            if !next.content_is_done() {
                return;
            }
            guard = next;
            Scope::renew(&mut scope);
        }
    }

    /// Serves a request without content, if it is one of most.
    async fn direct(&self, header: &[u8], guard: &mut Guard, timer: &mut Timer, scope: &Arc<Scope>) -> Served {
        let shared = &self.plane.shared;
        let head = Head::read(header, guard.marks());
        if !direct::is_plain(&head, shared) {
            return Served::TheLongWay;
        }
        let _counted = shared.active.request();
        let last = head.closes();
        // The header was checked: there is one credential at most, and no content.
        let facts = Facts { target: head.target, rewritten: true, authorization: head.authorization(), content_length: None };
        let mut watch = Watch::new(timer, shared, scope);
        let serving = pin!(async {
            let Some(mut context) = direct::begin(&self.plane, &head, Version::HTTP_11, scope) else { return Served::TheLongWay };
            let course = direct::decide(&self.plane, &head, Ok(facts), &mut context, &mut watch).await;
            if matches!(course, Course::TheLongWay) {
                return Served::TheLongWay;
            }
            let (pool, client) = (&self.pool, Client::Http1(guard));
            Direct { plane: &self.plane, pool, client, watch, last }.serve(course, &mut context, scope).await
        });
        caught(scope, serving).await
    }

    /// Answers and records a header that pingora never gets to see, and closes the connection.
    async fn refuse(&self, guard: Guard, denial: &Denial, slot: &Slot) {
        let request_id = ids::new_request_id(clock::now());
        let (method, path) = wire::for_record(guard.ahead());
        self.record("HTTP/1.1", method, path, &request_id, denial);
        let shape = Shape { head_only: method == "HEAD", last: true };
        let (message, _) = respond::message(denial, &request_id, None, shape);
        let _ = timeout(LINGER, guard.refuse(message.into())).await;
        drop(slot.lock().take());
    }

    /// Records a request that the filters did not meet.
    pub(super) fn record(&self, version: &'static str, method: &str, path: &str, request_id: &HeaderValue, denial: &Denial) {
        self.plane.shared.recorder.record(&Record {
            at: clock::now(),
            request_id: request_id.to_str().unwrap_or_default(),
            peer: self.peer,
            version,
            method,
            path,
            route: None,
            practice: None,
            client: None,
            user: None,
            owner: None,
            generation: None,
            ended: None,
            outcome: denial.label(),
            status: denial.status(),
            latency: Duration::ZERO,
            upstream_latency: None,
            request_bytes: 0,
            response_bytes: 0,
        });
    }

    /// Runs one request inside its deadline; what panics in it ends here.
    pub(super) async fn request(&self, session: ServerSession, scope: &Arc<Scope>) -> End {
        let settings = &self.plane.shared.settings;
        let _counted = self.plane.shared.active.request();
        // pingora times the reads of HTTP/1.1; of HTTP/2 it waits for content without end.
        let mut stalled = pin!(session.is_http2().then(|| stalled(scope, settings.body_timeout)));
        // All of these are dropped on return, before the caller looks at what they left behind.
        let mut deadline = pin!(async {
            sleep(SOON.min(settings.request_timeout)).await;
            let _entered = self.plane.shared.inflight.enter(scope, &self.plane.shared.gate);
            let mut waited = SOON;
            // The upstream may allow less; which it is, is known once the request is admitted.
            while scope.permit.get().is_none() && waited < settings.request_timeout {
                sleep(SOON).await;
                waited += SOON;
            }
            let own = scope.permit.get().and_then(|permit| permit.route().upstream.settings.total_timeout);
            sleep(own.unwrap_or(settings.request_timeout).min(settings.request_timeout).saturating_sub(waited)).await;
        });
        let mut cancelled = pin!(scope.cancel.cancelled());
        // Boxed: it is large, and every connection has room for it, and every stream of HTTP/2 is moved with it.
        let proxy = self.plane.proxy.get().await;
        let mut request = Box::pin(SCOPE.scope(Arc::clone(scope), proxy.process_new_http(session, &self.shutdown)));
        std::future::poll_fn(|cx| {
            let polled = catch_unwind(AssertUnwindSafe(|| request.as_mut().poll(cx)));
            match polled {
                Ok(Poll::Ready(reused)) => return Poll::Ready(End::Done(reused)),
                Ok(Poll::Pending) => {}
                Err(_) => {
                    tracing::error!(peer = %scope.peer, "a request panicked");
                    return Poll::Ready(End::Broken);
                }
            }
            let late =
                deadline.as_mut().poll(cx).is_ready() || stalled.as_mut().as_pin_mut().is_some_and(|stalled| stalled.poll(cx).is_ready());
            if late {
                scope.cut.lock().get_or_insert(Cut::Deadline);
            } else if cancelled.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            Poll::Ready(End::Broken)
        })
        .await
    }
}

/// Returns when content that is still to come has paused for `pause`.
async fn stalled(scope: &Scope, pause: Duration) {
    loop {
        let heard = scope.heard.load(Ordering::Relaxed);
        sleep(pause).await;
        if scope.content_done.load(Ordering::Relaxed) {
            return std::future::pending().await;
        }
        if scope.heard.load(Ordering::Relaxed) == heard {
            return;
        }
    }
}

/// Returns when a connection without a request is to be closed. A client may be about to send one: it is answered still, and
/// told that it is the last.
async fn stopped(mut shutdown: watch::Receiver<bool>) {
    // A sender that is gone will never say stop; the process is ending anyway.
    let _ = shutdown.wait_for(|stop| *stop).await;
    sleep(LAST_REQUEST).await;
}

/// What becomes of a request; what panics in it ends here.
async fn caught(scope: &Scope, serving: Pin<&mut impl Future<Output = Served>>) -> Served {
    AssertUnwindSafe(serving).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!(peer = %scope.peer, "a request panicked");
        Served::Close
    })
}

/// What the future returns; false if the stop comes first.
async fn until(future: impl Future<Output = bool>, mut stop: Pin<&mut impl Future<Output = ()>>) -> bool {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Pending => stop.as_mut().poll(cx).map(|()| false),
        ready @ Poll::Ready(_) => ready,
    })
    .await
}
