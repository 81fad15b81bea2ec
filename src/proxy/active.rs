//! How many connections and requests there are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

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
    pub(super) fn connection(self: &Arc<Self>) -> Counted {
        Counted::new(self, |active| &active.connections)
    }

    /// Counts a request until the guard is dropped.
    pub(super) fn request(self: &Arc<Self>) -> Counted {
        Counted::new(self, |active| &active.requests)
    }
}

/// Counted while it lives.
#[derive(Debug)]
pub(super) struct Counted {
    active: Arc<Active>,
    which: fn(&Active) -> &AtomicUsize,
}

impl Counted {
    fn new(active: &Arc<Active>, which: fn(&Active) -> &AtomicUsize) -> Self {
        which(active).fetch_add(1, Ordering::AcqRel);
        Self { active: Arc::clone(active), which }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if (self.which)(&self.active).fetch_sub(1, Ordering::AcqRel) == 1 {
            self.active.fewer.notify_waiters();
        }
    }
}
