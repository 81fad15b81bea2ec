//! Requests on their way, and how one is ended from outside.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Why a request was ended before its answer was complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It took longer than any request may.
    Deadline,
    /// Its credential no longer counts.
    Cancelled,
}

/// One request on its way: what the wrapper around pingora and the filters inside it both know.
#[derive(Debug)]
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
    /// Set before the request is dropped.
    pub cut: Mutex<Option<Cut>>,
    /// What to tell an HTTP/1.1 client whose request was dropped without an answer.
    pub last_word: Mutex<Option<Bytes>>,
}

tokio::task_local! {
    /// The request that the running filter belongs to.
    pub static SCOPE: std::sync::Arc<Scope>;
}

/// How many connections and requests there are. What a drain waits for.
#[derive(Debug, Default)]
pub struct Active {
    connections: AtomicUsize,
    requests: AtomicUsize,
    fewer: Notify,
}

impl Active {
    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Acquire)
    }

    /// How many requests are being answered.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Acquire)
    }

    /// Waits until no request is being answered and no connection is open.
    pub async fn idle(&self) {
        loop {
            // Registered before the look, so that what ends in between is not missed.
            let fewer = self.fewer.notified();
            if self.connections() == 0 && self.requests() == 0 {
                return;
            }
            fewer.await;
        }
    }

    /// Counts a connection until the guard is dropped.
    pub(super) fn connection(self: &std::sync::Arc<Self>) -> Counted {
        Counted::new(self, |active| &active.connections)
    }

    /// Counts a request until the guard is dropped.
    pub(super) fn request(self: &std::sync::Arc<Self>) -> Counted {
        Counted::new(self, |active| &active.requests)
    }
}

/// Counted while it lives.
#[derive(Debug)]
pub(super) struct Counted {
    active: std::sync::Arc<Active>,
    which: fn(&Active) -> &AtomicUsize,
}

impl Counted {
    fn new(active: &std::sync::Arc<Active>, which: fn(&Active) -> &AtomicUsize) -> Self {
        which(active).fetch_add(1, Ordering::AcqRel);
        Self { active: std::sync::Arc::clone(active), which }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if (self.which)(&self.active).fetch_sub(1, Ordering::AcqRel) == 1 {
            self.active.fewer.notify_waiters();
        }
    }
}
