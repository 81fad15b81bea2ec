//! A connection of HTTP/2 (RFC 9113) and the requests on it.
//!
//! Its streams are carried by the task of the connection: what they answer goes out together, and none is handed from task to task.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use http::{HeaderValue, Method, Version};
use parking_lot::Mutex;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Accept, H2Options, HttpSession, default_h2_options, handshake};
use pingora::protocols::{Digest, GetSocketDigest, Stream, UniqueID};
use tokio::time::{Instant, sleep_until};

use super::bare::Bare;
use super::connection::Connection;
use super::cork::cork;
use super::direct::{self, Client, Course, Direct, Served};
use super::guard::Guard;
use super::head::Head;
use super::live::Scope;
use super::request;
use super::respond::Reply;
use super::timer::{Timer, Watch};
use super::wire::Limits;
use super::{Settings, ids};
use crate::access::Denial;
use crate::clock;
use crate::route::MethodSet;

/// How many requests are carried at once. As many as pingora's own default, said here because it is a promise.
const STREAMS: usize = 100;
/// How many malformed requests end a connection: each of them is work that costs its sender nothing (CVE-2025-8671).
const MALFORMED: usize = 32;

/// What the streams of a connection have in common.
struct Streams<'a> {
    connection: &'a Connection,
    /// Requests being answered, those begun so far, and when the last one ended (ms after `opened`).
    active: AtomicUsize,
    begun: AtomicUsize,
    ended_ms: AtomicU64,
    opened: Instant,
    /// Of streams that are over, for those to come.
    timers: Mutex<Vec<Timer>>,
}

/// Serves a connection whose client speaks HTTP/2, to its end.
pub async fn serve(connection: &Connection, guard: Guard) {
    let socket = guard.get_socket_digest();
    let digest = Arc::new(Digest { socket_digest: socket.clone(), ..Digest::default() });
    let (id, (cork, corked)) = (guard.id(), cork(guard));
    let stream: Stream = Box::new(Bare::http2(corked, socket, id));
    let streams = Streams {
        connection,
        active: AtomicUsize::new(0),
        begun: AtomicUsize::new(0),
        ended_ms: AtomicU64::new(0),
        opened: Instant::now(),
        timers: Mutex::default(),
    };
    let mut served = pin!(streams.serve(stream, &digest));
    let mut watch = pin!(streams.watch());
    std::future::poll_fn(|cx| match cork.poll(cx, served.as_mut()) {
        Poll::Pending => watch.as_mut().poll(cx),
        ready @ Poll::Ready(()) => ready,
    })
    .await;
}

fn options(settings: &Settings) -> H2Options {
    let mut options = default_h2_options();
    options.max_concurrent_streams(u32::try_from(STREAMS).unwrap_or(u32::MAX));
    options.max_header_list_size(u32::try_from(settings.header_bytes).unwrap_or(u32::MAX));
    options
}

impl Streams<'_> {
    /// Takes and carries requests until there is no more to come.
    async fn serve(&self, stream: Stream, digest: &Arc<Digest>) {
        let mut http2 = match handshake(stream, Some(options(&self.connection.plane.shared.settings))).await {
            Ok(http2) => http2,
            Err(error) => return tracing::debug!(peer = %self.connection.peer, %error, "HTTP/2 was not begun"),
        };
        let mut requests = FuturesUnordered::new();
        // A sender that is gone will never say stop; the process is ending anyway.
        let mut shutdown = self.connection.shutdown.clone();
        let mut stop = pin!(async move { drop(shutdown.wait_for(|stop| *stop).await) });
        let (mut stopping, mut malformed) = (false, 0);
        std::future::poll_fn(|cx| {
            if !stopping && stop.as_mut().poll(cx).is_ready() {
                stopping = true;
                // The client is told, and what it asks until it has heard is answered still (RFC 9113 §6.8).
                http2.graceful_shutdown();
            }
            loop {
                // First: what they write goes out with what the connection does next.
                self.carry(&mut requests, cx);
                let before = requests.len();
                let full = loop {
                    if requests.len() >= STREAMS {
                        // A stream that is reset makes room for another one long before its request is over. What is reset while it
                        // waits here, h2 counts (CVE-2023-44487).
                        match http2.poll_closed(cx) {
                            Poll::Ready(_) => return Poll::Ready(()),
                            Poll::Pending => break true,
                        }
                    }
                    // Begun anew each time: what it waits for is in the connection.
                    let accepted = pin!(HttpSession::from_h2_conn(&mut http2, Arc::clone(digest)));
                    match accepted.poll(cx) {
                        Poll::Ready(Ok(Some(H2Accept::Session(session)))) => {
                            requests.push(AssertUnwindSafe(self.request(session)).catch_unwind());
                        }
                        Poll::Ready(Ok(Some(H2Accept::Rejected))) if malformed + 1 < MALFORMED => malformed += 1,
                        // A client that is gone most often just is.
                        Poll::Ready(Ok(Some(H2Accept::Rejected) | None) | Err(_)) => return Poll::Ready(()),
                        Poll::Pending => break false,
                    }
                };
                if requests.len() > before {
                    // What they write has this task woken again.
                    self.carry(&mut requests, cx);
                }
                if !full || requests.len() >= STREAMS {
                    return Poll::Pending;
                }
            }
        })
        .await;
        drop(http2);
        // What is under way is told, and ends.
        std::future::poll_fn(|cx| {
            self.carry(&mut requests, cx);
            if requests.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Lets each request that something has happened to go on; what panics in it ends here.
    fn carry(&self, requests: &mut FuturesUnordered<impl Future<Output = thread::Result<()>>>, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(carried)) = requests.poll_next_unpin(cx) {
            if carried.is_err() {
                tracing::error!(peer = %self.connection.peer, "a request panicked");
            }
        }
    }

    /// Carries one request.
    async fn request(&self, mut session: HttpSession) {
        self.active.fetch_add(1, Ordering::AcqRel);
        self.begun.fetch_add(1, Ordering::AcqRel);
        let _active = Leave(self);
        let connection = self.connection;
        let scope = Arc::new(Scope::new(connection.peer, connection.secure));
        let served = self.the_short_way(&mut session, &scope).await;
        if matches!(served, Served::TheLongWay) {
            // Boxed: it is large, and most requests go another way.
            Box::pin(connection.request(ServerSession::new_http2(session), &scope)).await;
            scope.give_up();
        }
    }

    /// Serves a request without content, if it is one of most.
    async fn the_short_way(&self, session: &mut HttpSession, scope: &Arc<Scope>) -> Served {
        if session.req_header().method == Method::CONNECT {
            return self.refuse_connect(session).await;
        }
        if !session.is_body_done() {
            return Served::TheLongWay;
        }
        let last = self.timers.lock().pop();
        let mut timer = last.unwrap_or_else(Timer::new);
        let served = self.direct(session, &mut timer, scope).await;
        self.timers.lock().push(timer);
        served
    }

    async fn direct(&self, session: &mut HttpSession, timer: &mut Timer, scope: &Arc<Scope>) -> Served {
        let plane = &self.connection.plane;
        let mut watch = Watch::new(timer, &plane.shared, scope);
        let header = session.req_header();
        let head = Head::of(header);
        if !direct::is_plain(&head, &plane.shared) {
            return Served::TheLongWay;
        }
        let _counted = plane.shared.active.request();
        let facts = request::read(header, &Limits::from(&plane.shared.settings));
        let Some(mut context) = direct::begin(plane, &head, Version::HTTP_2, scope) else { return Served::TheLongWay };
        let course = direct::decide(plane, &head, facts, &mut context, &mut watch).await;
        if matches!(course, Course::TheLongWay) {
            return Served::TheLongWay;
        }
        let (pool, client) = (&self.connection.pool, Client::Http2(session));
        Direct { plane, pool, client, watch, last: false }.serve(course, &mut context, scope).await
    }

    /// pingora would answer this one by itself, without an id and without a record.
    async fn refuse_connect(&self, session: &mut HttpSession) -> Served {
        let denial = Denial::MethodNotAllowed(MethodSet::ALL.to_string().into());
        let request_id: HeaderValue = ids::request_id(&session.req_header().headers, clock::now());
        if let Ok(reply) = Reply::new(&denial, &request_id, None)
            && session.write_response_header(reply.header, false).is_ok()
        {
            // A client that is gone was not to be told anything else, nor is one that does not read.
            session.write_timeout = Some(self.connection.plane.shared.settings.write_timeout);
            let _ = session.write_body(reply.body, true).await;
        }
        self.connection.record("HTTP/2", "CONNECT", "", &request_id, &denial);
        Served::Next
    }

    /// Returns when nothing has been asked for too long.
    async fn watch(&self) {
        let settings = &self.connection.plane.shared.settings;
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
}

/// Takes note of the end of a request, also of one that is dropped.
struct Leave<'a>(&'a Streams<'a>);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let ms = u64::try_from(self.0.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.ended_ms.store(ms, Ordering::Release);
        self.0.active.fetch_sub(1, Ordering::AcqRel);
    }
}
