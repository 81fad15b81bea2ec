//! One connection from its first byte to its last: what it may cost in time, and what a request on it may.

use std::future::Future;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use http::{HeaderValue, Method, Version};
use parking_lot::Mutex;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::connectors::TransportConnector;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Options, HttpSession, default_h2_options};
use pingora::protocols::{GetSocketDigest, Stream, UniqueID};
use pingora::proxy::HttpProxy;
use pingora::time::fast_timeout::{fast_sleep as sleep, fast_timeout as timeout};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::bare::Bare;
use super::cork::cork;
use super::direct::{self, Client, Course, Direct, Served};
use super::filter::Filter;
use super::guard::{Arrival, Guard, Slot};
use super::head::Head;
use super::later::Later;
use super::live::{Cut, SCOPE, SOON, Scope};
use super::pool::Pool;
use super::request::{self, Facts};
use super::respond::{self, Reply, Shape};
use super::timer::{Timer, Watch};
use super::wire::{self, Limits};
use super::{Shared, ids};
use crate::access::{Denial, MalformedRequest};
use crate::clock;
use crate::record::Record;

/// As many as pingora's own default, said here because it is a promise.
const STREAMS: u32 = 100;
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
    pub(super) options: HttpServerOptions,
}

/// One connection, after TLS.
pub struct Connection {
    plane: Arc<Plane>,
    /// The upstreams' connections of this thread.
    pool: Arc<Pool>,
    peer: IpAddr,
    secure: bool,
    /// Of HTTP/2: requests being answered, those begun so far, and when the last one ended (ms after `opened`).
    active: AtomicUsize,
    begun: AtomicUsize,
    ended_ms: AtomicU64,
    opened: Instant,
    /// Of streams that are over, for those to come.
    timers: Mutex<Vec<Timer>>,
}

/// How a request left pingora.
enum End {
    /// Done; the connection, if it can be used again.
    Done(Option<ReusedHttpStream>),
    /// It panicked, or was cut.
    Broken,
}

impl Connection {
    pub(super) fn new(plane: Arc<Plane>, pool: Arc<Pool>, peer: IpAddr, secure: bool) -> Self {
        Self {
            plane,
            pool,
            peer,
            secure,
            active: AtomicUsize::new(0),
            begun: AtomicUsize::new(0),
            ended_ms: AtomicU64::new(0),
            opened: Instant::now(),
            timers: Mutex::default(),
        }
    }

    /// Serves the connection to its end.
    pub(super) async fn serve(self, io: Stream, shutdown: watch::Receiver<bool>) {
        let slot = Slot::default();
        let guard = Guard::new(io, Some(Arc::clone(&slot)));
        if guard.alpn_http2() {
            return self.http2(guard.into_http2(), shutdown).await;
        }
        let mut guard = Box::new(guard);
        let settings = &self.plane.shared.settings;
        let limits = Limits::from(settings);
        let mut first = true;
        let mut timer = Timer::new();
        let mut scope = Arc::new(Scope::new(self.peer, self.secure));
        let mut stop = pin!(stopped(shutdown.clone()));
        loop {
            // A client that has just connected has something to say; later it may take its time.
            let patience = if first { settings.header_timeout } else { settings.idle_timeout };
            let begun = timer.within(patience, until(guard.wait(), stop.as_mut())).await;
            if begun != Some(true) {
                return;
            }
            let bytes = match timer.within(settings.header_timeout, guard.header(&limits, first && !self.secure)).await {
                Some(Arrival::Header(bytes)) => bytes,
                Some(Arrival::Http2) => return self.http2(*guard, shutdown).await,
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
            let end = self.request(session, &scope, &shutdown).await;
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

    /// The same on a stream of HTTP/2.
    async fn direct_http2(&self, session: &mut HttpSession, scope: &Arc<Scope>) -> Served {
        if !session.is_body_done() {
            return Served::TheLongWay;
        }
        let last = self.timers.lock().pop();
        let mut timer = last.unwrap_or_else(Timer::new);
        let served = self.stream(session, &mut timer, scope).await;
        self.timers.lock().push(timer);
        served
    }

    async fn stream(&self, session: &mut HttpSession, timer: &mut Timer, scope: &Arc<Scope>) -> Served {
        let shared = &self.plane.shared;
        let mut watch = Watch::new(timer, shared, scope);
        let serving = pin!(async {
            let header = session.req_header();
            let head = Head::of(header);
            if !direct::is_plain(&head, shared) {
                return Served::TheLongWay;
            }
            let _counted = shared.active.request();
            let facts = request::read(header, &Limits::from(&shared.settings));
            let Some(mut context) = direct::begin(&self.plane, &head, Version::HTTP_2, scope) else { return Served::TheLongWay };
            let course = direct::decide(&self.plane, &head, facts, &mut context, &mut watch).await;
            if matches!(course, Course::TheLongWay) {
                return Served::TheLongWay;
            }
            let (pool, client) = (&self.pool, Client::Http2(session));
            Direct { plane: &self.plane, pool, client, watch, last: false }.serve(course, &mut context, scope).await
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
    fn record(&self, version: &'static str, method: &str, path: &str, request_id: &HeaderValue, denial: &Denial) {
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

    /// Hands the connection to pingora, and watches over it.
    async fn http2(self, guard: Guard, shutdown: watch::Receiver<bool>) {
        let connection = Arc::new(self);
        let (socket, id) = (guard.get_socket_digest(), guard.id());
        let (cork, corked) = cork(guard);
        let stream = Bare::http2(corked, socket, id);
        let mut served = pin!(ServerApp::process_new(&connection, Box::new(stream), &shutdown));
        let mut watch = pin!(connection.watch());
        std::future::poll_fn(|cx| match cork.poll(cx, served.as_mut()) {
            Poll::Pending => watch.as_mut().poll(cx),
            ready @ Poll::Ready(()) => ready,
        })
        .await;
    }

    /// Returns when nothing has been asked for too long.
    async fn watch(&self) {
        let settings = &self.plane.shared.settings;
        loop {
            let deadline = if self.active.load(Ordering::Acquire) > 0 {
                Instant::now() + settings.idle_timeout
            } else if self.begun.load(Ordering::Acquire) == 0 {
                self.opened + settings.header_timeout
            } else {
                self.opened + Duration::from_millis(self.ended_ms.load(Ordering::Acquire)) + settings.idle_timeout
            };
            if deadline <= Instant::now() {
                return;
            }
            sleep_until(deadline).await;
        }
    }

    /// Runs one request inside its deadline; what panics in it ends here.
    async fn request(&self, session: ServerSession, scope: &Arc<Scope>, shutdown: &watch::Receiver<bool>) -> End {
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
        let mut request = Box::pin(SCOPE.scope(Arc::clone(scope), proxy.process_new_http(session, shutdown)));
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

#[async_trait]
impl HttpServerApp for Connection {
    async fn process_new_http(self: &Arc<Self>, mut session: ServerSession, shutdown: &watch::Receiver<bool>) -> Option<ReusedHttpStream> {
        self.active.fetch_add(1, Ordering::AcqRel);
        self.begun.fetch_add(1, Ordering::AcqRel);
        let _active = Leave(self);
        if session.req_header().method == Method::CONNECT {
            // pingora would answer this one by itself, without an id and without a record.
            let denial = Denial::MethodNotAllowed(crate::route::MethodSet::ALL.to_string().into());
            let request_id: HeaderValue = ids::request_id(&session.req_header().headers, clock::now());
            if let Ok(reply) = Reply::new(&denial, &request_id, None) {
                let _ = reply.send(&mut session, false).await;
                let _ = session.finish().await;
            }
            self.record("HTTP/2", "CONNECT", "", &request_id, &denial);
            return None;
        }
        let scope = Arc::new(Scope::new(self.peer, self.secure));
        if let ServerSession::H2(stream) = &mut session
            && !matches!(self.direct_http2(stream, &scope).await, Served::TheLongWay)
        {
            return None;
        }
        self.request(session, &scope, shutdown).await;
        scope.give_up();
        None
    }

    fn h2_options(&self) -> Option<H2Options> {
        let mut options = default_h2_options();
        options.max_concurrent_streams(STREAMS);
        options.max_header_list_size(u32::try_from(self.plane.shared.settings.header_bytes).unwrap_or(u32::MAX));
        Some(options)
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.plane.options)
    }
}

/// Takes note of the end of a request, also of one that is dropped.
struct Leave<'a>(&'a Connection);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let ms = u64::try_from(self.0.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.ended_ms.store(ms, Ordering::Release);
        self.0.active.fetch_sub(1, Ordering::AcqRel);
    }
}
