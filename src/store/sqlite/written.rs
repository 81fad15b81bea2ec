//! When a feed is to look: soon after something was written, once in a while at rest.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

/// How long after a change was committed elsewhere it is looked for at the latest, once something was written.
const POLL: Duration = Duration::from_millis(5);
/// How long after a write its commit is waited for in that way: the log is written first, and then perhaps synced for long.
const BUSY: Duration = Duration::from_secs(1);
/// How often it is looked without a sign: should a write not be told of, this is how late its change comes.
const REST: Duration = Duration::from_millis(50);

/// Hears of what is written into the log beside the database, by whatever program.
pub(super) struct Written {
    told: Arc<Notify>,
    busy_until: Instant,
    /// `None`: nothing can be heard here, and it is always looked as if something had been written.
    watcher: Option<RecommendedWatcher>,
}

impl Written {
    /// Listens from now on.
    pub(super) fn to(log: &Path) -> Self {
        let told = Arc::new(Notify::new());
        let tell = Arc::clone(&told);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // An error may hide a write.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                tell.notify_one();
            }
        });
        let watching = watcher.and_then(|mut watcher| watcher.watch(log, RecursiveMode::NonRecursive).map(|()| watcher));
        if let Err(error) = &watching {
            tracing::warn!(file = %log.display(), %error, "the database cannot be watched for changes: it is looked at 200 times a second");
        }
        Self { told, busy_until: Instant::now() + BUSY, watcher: watching.ok() }
    }

    /// Returns when it is time to look.
    pub(super) async fn due(&mut self) {
        if self.watcher.is_none() || Instant::now() < self.busy_until {
            sleep(POLL).await;
            return;
        }
        if timeout(REST, self.told.notified()).await.is_ok() {
            self.busy_until = Instant::now() + BUSY;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_rest() -> (tempfile::NamedTempFile, Written) {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut written = Written::to(log.path());
        written.busy_until = Instant::now();
        (log, written)
    }

    #[tokio::test]
    async fn a_write_is_heard_of_and_its_commit_waited_for() {
        let (mut log, mut written) = at_rest();
        std::io::Write::write_all(&mut log, b"frame").unwrap();
        // Unheard, this would go on for ever.
        while written.busy_until <= Instant::now() {
            written.due().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn at_rest_it_is_looked_all_the_same() {
        let (_log, mut written) = at_rest();
        written.due().await;
        assert!(written.busy_until <= Instant::now(), "nothing was written");
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_heard_is_looked_for_all_the_time() {
        let mut written = Written::to(Path::new("/nowhere/gateway.db-wal"));
        tokio::time::advance(2 * BUSY).await;
        let begun = Instant::now();
        written.due().await;
        assert_eq!(begun.elapsed(), POLL);
    }
}
