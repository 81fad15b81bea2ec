//! Connections to upstreams that nobody uses at the moment.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Weak;
use std::task::{Context, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use pingora::protocols::Stream;
use tokio::io::{AsyncRead, ReadBuf};

use crate::clock::{self, BootTime};

/// How often what is over is looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// What two connections must have in common to be the same: the server, and what it was verified against.
pub type Key = (u64, SocketAddr);

struct Idle {
    stream: Stream,
    until: BootTime,
}

/// The unused connections of one thread.
#[derive(Default)]
pub struct Pool {
    idle: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    by_key: HashMap<Key, Vec<Idle>, foldhash::fast::FixedState>,
    count: usize,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("count", &self.idle.lock().count).finish()
    }
}

impl Pool {
    /// The connection that was used last, of those that are still good.
    pub fn take(&self, key: &Key, now: BootTime) -> Option<Stream> {
        let mut kept = self.idle.lock();
        loop {
            let mut idle = kept.by_key.get_mut(key)?.pop()?;
            kept.count -= 1;
            if idle.until > now && is_quiet(&mut idle.stream) {
                return Some(idle.stream);
            }
        }
    }

    /// Keeps a connection for so long, if there are not `most` already.
    pub fn keep(&self, key: Key, stream: Stream, time: Duration, most: usize) {
        let mut kept = self.idle.lock();
        if kept.count < most {
            kept.count += 1;
            kept.by_key.entry(key).or_default().push(Idle { stream, until: clock::boot_time().after(time) });
        }
    }

    /// Closes what was kept long enough, and what the other side has closed.
    fn sweep(&self) {
        let mut kept = self.idle.lock();
        let now = clock::boot_time();
        kept.by_key.retain(|_, idle| {
            idle.retain_mut(|idle| idle.until > now && is_quiet(&mut idle.stream));
            !idle.is_empty()
        });
        kept.count = kept.by_key.values().map(Vec::len).sum();
    }

    /// Sweeps once in a while, as long as the pool is there.
    pub async fn keep_clean(pool: Weak<Self>) {
        loop {
            tokio::time::sleep(SWEEP).await;
            let Some(pool) = pool.upgrade() else { return };
            pool.sweep();
        }
    }
}

/// Whether there is nothing to read: neither an end, nor bytes that nobody asked for.
fn is_quiet(stream: &mut Stream) -> bool {
    let mut byte = [0];
    let mut byte = ReadBuf::new(&mut byte);
    let quiet = Pin::new(stream).poll_read(&mut Context::from_waker(Waker::noop()), &mut byte).is_pending();
    if !byte.filled().is_empty() {
        tracing::warn!("an upstream sent bytes that nobody had asked for; the connection is closed");
    }
    quiet
}
