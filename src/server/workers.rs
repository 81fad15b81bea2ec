//! The threads that serve applications: one runtime of one thread each. A connection stays on its thread, which costs
//! less than handing it around.

use std::sync::Arc;
use std::thread;

use anyhow::Context;
use tokio::runtime::{Builder, Handle};
use tokio::sync::Notify;

/// The threads; they end when this is dropped, and what runs on them is dropped there.
pub struct Workers {
    handles: Vec<Handle>,
    end: Arc<Notify>,
}

impl Workers {
    /// Starts so many threads.
    pub fn start(threads: usize) -> anyhow::Result<Self> {
        let mut workers = Self { handles: Vec::new(), end: Arc::new(Notify::new()) };
        for n in 0..threads {
            // A current-thread runtime: one of many threads, even with one worker, wakes that worker through the kernel.
            let runtime = Builder::new_current_thread().enable_all().build().context("cannot start a runtime that serves applications")?;
            workers.handles.push(runtime.handle().clone());
            // Taken here: who asks for the end before the thread has begun to listen is heard too.
            let end = Arc::clone(&workers.end).notified_owned();
            let serve = move || {
                runtime.block_on(end);
                runtime.shutdown_background();
            };
            thread::Builder::new().name(format!("data-{n}")).spawn(serve).context("cannot start a thread that serves applications")?;
        }
        Ok(workers)
    }

    /// Where connections can be served.
    pub fn handles(&self) -> &[Handle] {
        &self.handles
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // Not waited for: whoever drops this may be inside a runtime, which must not block.
        self.end.notify_waiters();
    }
}
