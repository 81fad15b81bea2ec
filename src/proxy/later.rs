//! What is made beside the start, not before it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

/// What takes so long to make that nobody should wait for it who does not need it: it reads the certificates that the system
/// trusts, some 150 files.
pub struct Later<T> {
    made: OnceLock<T>,
    make: Box<dyn Fn() -> T + Send + Sync>,
}

impl<T: Send + Sync + 'static> Later<T> {
    /// Made when it is first asked for, if it is not begun before.
    pub fn new(make: impl Fn() -> T + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { made: OnceLock::new(), make: Box::new(make) })
    }

    /// Has it made from now on, on a thread of `runtime` where that may block, and then does what is `next`.
    pub fn begin(self: &Arc<Self>, runtime: &Handle, next: impl FnOnce() + Send + 'static) {
        let this = Arc::clone(self);
        runtime.spawn_blocking(move || {
            let made = catch_unwind(AssertUnwindSafe(|| {
                this.made.get_or_init(&this.make);
            }));
            if made.is_err() {
                // pingora ends its caller if one of the certificates is none.
                tracing::error!(
                    "the certificates that the system trusts cannot be read, and requests with content or to upstreams with TLS fail: repair ca-certificates, or what SSL_CERT_FILE names, and start again"
                );
            }
            next();
        });
    }

    /// It, when it is made.
    ///
    /// # Panics
    /// It cannot be made.
    pub async fn get(self: &Arc<Self>) -> &T {
        if self.made.get().is_none() {
            let this = Arc::clone(self);
            // If that panics, so does the next line, where it is seen.
            let _ = spawn_blocking(move || {
                this.made.get_or_init(&this.make);
            })
            .await;
        }
        self.made.get_or_init(&self.make)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn it_is_made_once_whoever_asks_first() {
        let made = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&made);
        let later = Later::new(move || counted.fetch_add(1, Ordering::SeqCst));
        assert_eq!(made.load(Ordering::SeqCst), 0);
        later.begin(&Handle::current(), || ());
        let got = join_all((0..20).map(|_| later.get())).await;
        assert!(got.iter().all(|got| **got == 0));
        assert_eq!(made.load(Ordering::SeqCst), 1);
    }
}
