//! Requests on their way, and how those are ended whose permit no longer holds.
//!
//! What still moves is asked about at each step by the filters. What does not move, a stream that is idle or an answer
//! that takes its time, is found here: it is entered, and each change ends those entries that it concerns before it
//! counts as applied.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::tunnel::Tunnel;
use crate::access::{Denial, MalformedRequest};
use crate::cache::Touched;
use crate::gate::{Gate, Permit};

/// How long a request may be on its way before it is entered. Those that are answered sooner meet the filters in that
/// time, and are spared the entry.
pub const SOON: Duration = Duration::from_millis(50);

/// Why a request was ended before its answer was complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It took longer than any request may.
    Deadline,
    /// Its permit no longer holds: what it would meet now.
    Denied(Denial),
}

/// One request on its way: what the wrapper around pingora and the filters inside it both know.
pub struct Scope {
    /// Ends the request at once, also while it is idle.
    pub cancel: CancellationToken,
    /// The address of the connection.
    pub peer: IpAddr,
    /// Whether the connection is TLS.
    pub secure: bool,
    /// Whether the filters have met the request: then they record it.
    pub noted: AtomicBool,
    /// Moved on by every piece of content that arrives.
    pub heard: AtomicUsize,
    /// Whether the content is complete.
    pub content_done: AtomicBool,
    /// What it was admitted by.
    pub permit: OnceLock<Arc<Permit>>,
    /// Set before the request is dropped.
    pub cut: Mutex<Option<Cut>>,
    /// What to tell an HTTP/1.1 client whose request was dropped without an answer.
    pub last_word: Mutex<Option<Bytes>>,
    /// The request, where it was decided before pingora met it.
    pub begun: Mutex<Option<Box<Context>>>,
    /// What the connection is to become once pingora has let go of it.
    pub tunnel: Mutex<Option<Tunnel>>,
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("peer", &self.peer).field("secure", &self.secure).finish_non_exhaustive()
    }
}

impl Scope {
    /// A request on a connection of this address.
    pub fn new(peer: IpAddr, secure: bool) -> Self {
        Self {
            cancel: CancellationToken::new(),
            peer,
            secure,
            noted: AtomicBool::new(false),
            heard: AtomicUsize::new(0),
            content_done: AtomicBool::new(false),
            permit: OnceLock::new(),
            cut: Mutex::new(None),
            last_word: Mutex::new(None),
            begun: Mutex::new(None),
            tunnel: Mutex::new(None),
        }
    }

    /// The same for the next request of the connection, in the place of the last one if nobody looks at that any more.
    pub fn renew(this: &mut Arc<Self>) {
        match Arc::get_mut(this).filter(|last| !last.cancel.is_cancelled()) {
            Some(last) => {
                *last.noted.get_mut() = false;
                *last.heard.get_mut() = 0;
                *last.content_done.get_mut() = false;
                last.permit.take();
                *last.cut.get_mut() = None;
                *last.last_word.get_mut() = None;
                *last.begun.get_mut() = None;
                *last.tunnel.get_mut() = None;
            }
            None => *this = Arc::new(Self::new(this.peer, this.secure)),
        }
    }

    /// Records a request that was decided, and that pingora then refused by itself.
    pub fn give_up(&self) {
        let begun = self.begun.lock().take();
        if let Some(mut begun) = begun {
            begun.denial = Some(Denial::Malformed(MalformedRequest::Message("the request cannot be read")));
            begun.status = 400;
        }
    }

    fn end(&self, why: Denial) {
        self.cut.lock().get_or_insert(Cut::Denied(why));
        self.cancel.cancel();
    }
}

tokio::task_local! {
    /// The request that the running filter belongs to.
    pub static SCOPE: Arc<Scope>;
}

/// The requests that have been on their way for some time.
#[derive(Debug, Default)]
pub struct Inflight {
    entries: DashMap<u64, Arc<Scope>>,
    next: AtomicU64,
}

impl Inflight {
    /// Enters a request until the guard is dropped, and ends it if it is too late for that.
    pub fn enter<'a>(&'a self, scope: &Arc<Scope>, gate: &Gate) -> Entered<'a> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.entries.insert(id, Arc::clone(scope));
        // Entered first, asked second: a change that was in force before it could see the entry is seen here. The fence
        // is the other half of the one that each change makes before it looks for entries.
        fence(Ordering::SeqCst);
        ask(scope, gate);
        Entered { inflight: self, id }
    }

    /// How many there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Ends the requests whose permit no longer holds, of those that a change concerns.
    pub fn settle(&self, touched: &Touched<'_>, gate: &Gate) {
        for entry in &self.entries {
            let concerned = entry.permit.get().is_some_and(|permit| permit.concerned_by(touched));
            if concerned {
                ask(&entry, gate);
            }
        }
    }
}

fn ask(scope: &Scope, gate: &Gate) {
    if let Some(Err(denial)) = scope.permit.get().map(|permit| gate.recheck(permit)) {
        scope.end(denial);
    }
}

/// Entered while it lives.
#[derive(Debug)]
pub struct Entered<'a> {
    inflight: &'a Inflight,
    id: u64,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.inflight.entries.remove(&self.id);
    }
}
