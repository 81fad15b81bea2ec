//! Keeps the replica in step with the store, and the lease with the replica.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::cache::{Entries, Replica};
use crate::clock;
use crate::id::Revision;
use crate::store::{self, Changes, Feed, Store};

/// How long after a change was committed elsewhere it is looked for at the latest.
const POLL: Duration = Duration::from_millis(5);
/// How long to wait before the store is tried again, and the most that grows to.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// What the feed tells of itself. Called by the feed alone, in order.
pub trait Observer: Send + Sync {
    /// The store was asked, and the replica is as new as its answer. If something changed: how long that took, and how
    /// much the replica holds now.
    fn live(&self, revision: Revision, took: Option<Duration>, entries: Option<Entries>);
    /// The store could not be asked. The lease goes on until it runs out.
    fn failed(&self, error: &store::Error);
    /// The lease has run out: nobody is admitted.
    fn stale(&self);
}

/// Follows the store until `stop` is done; then ends the lease and leaves the register.
pub async fn run(store: Arc<dyn Store>, replica: Arc<Replica>, observer: Arc<dyn Observer>, stop: impl Future<Output = ()> + Send) {
    let lease = store.lease();
    tokio::pin!(stop);
    let mut pause = RETRY.0;
    loop {
        let mut feed = None;
        // Dropped before the feed, even by a panic: once the feed is gone nobody waits for this node any more, so by
        // then it must have stopped admitting.
        let vouched = EndsLease(&replica);
        let mut follower = Follower { replica: &replica, observer: &*observer, lease, acknowledged: None };
        let followed = async {
            match within(lease, store.feed()).await {
                Ok(opened) => follower.follow(&mut **feed.insert(opened), &mut pause).await,
                Err(error) => error,
            }
        };
        let error = tokio::select! {
            error = followed => Some(error),
            () = &mut stop => None,
        };
        drop(vouched);
        observer.stale();
        match (error, feed) {
            (Some(error), _) => observer.failed(&error),
            (None, Some(mut feed)) => {
                if let Err(error) = within(lease, feed.leave()).await {
                    tracing::warn!(error = %error, "could not leave the register of nodes; the next change waits for this one once");
                }
                return;
            }
            (None, None) => return,
        }
        tokio::select! {
            () = sleep(pause) => pause = (pause * 2).min(RETRY.1),
            () = &mut stop => return,
        }
    }
}

struct EndsLease<'a>(&'a Replica);

impl Drop for EndsLease<'_> {
    fn drop(&mut self) {
        self.0.end_lease();
    }
}

struct Follower<'a> {
    replica: &'a Replica,
    observer: &'a dyn Observer,
    lease: Duration,
    acknowledged: Option<Revision>,
}

impl Follower<'_> {
    /// Joins and follows; returns when the lease has run out, with the last error.
    async fn follow(&mut self, feed: &mut dyn Feed, pause: &mut Duration) -> store::Error {
        // Registered first, then the snapshot, then the first lease: a change committed at any moment in between is
        // either in the snapshot or waited for.
        if let Err(error) = within(self.lease, feed.register()).await {
            return error;
        }
        if let Err(error) = self.snapshot(feed).await {
            return error;
        }
        let mut first = true;
        loop {
            let asked = clock::boot_time();
            match self.step(feed).await {
                Ok(entries) => {
                    // Counted from before the question: what was committed until then is in the answer.
                    self.replica.extend_lease(asked.after(self.lease));
                    let took = entries.is_some().then(|| clock::boot_time().since(asked));
                    let entries = entries.or_else(|| first.then(|| self.replica.entries()));
                    self.observer.live(self.replica.applied(), took, entries);
                    (first, *pause) = (false, RETRY.0);
                }
                Err(error) => {
                    if clock::boot_time() >= self.replica.lease_until() {
                        return error;
                    }
                    self.observer.failed(&error);
                }
            }
            sleep(POLL).await;
        }
    }

    /// Asks once and applies what comes.
    async fn step(&mut self, feed: &mut dyn Feed) -> Result<Option<Entries>, store::Error> {
        let changed = match within(self.lease, feed.poll(self.replica.applied())).await? {
            Changes::Unchanged => None,
            Changes::Batch { head, changes } => {
                self.replica.apply(head, &changes);
                Some(self.replica.entries())
            }
            Changes::Gap => {
                tracing::warn!("the change log has a gap: everything is read anew");
                self.replica.end_lease();
                self.snapshot(feed).await?;
                Some(self.replica.entries())
            }
        };
        // Due whenever more is in force than was acknowledged, whoever put it in force.
        let applied = self.replica.applied();
        if self.acknowledged != Some(applied) {
            within(self.lease, feed.acknowledge(applied)).await?;
            self.acknowledged = Some(applied);
        }
        Ok(changed)
    }

    async fn snapshot(&mut self, feed: &mut dyn Feed) -> Result<(), store::Error> {
        // No time limit: a million clients take as long as they take, and nobody is admitted meanwhile.
        let snapshot = feed.snapshot().await?;
        let applied = self.replica.replace(&snapshot);
        tracing::info!(
            revision = applied.revision().0,
            practices = snapshot.practices.len(),
            users = snapshot.users.len(),
            clients = snapshot.clients.len(),
            "snapshot loaded"
        );
        self.acknowledged = None;
        Ok(())
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, store::Error>>) -> Result<T, store::Error> {
    timeout(limit, work).await.unwrap_or_else(|_| {
        let message = format!("the store did not answer within {} ms", limit.as_millis());
        Err(store::Error::Unusable { message, source: None })
    })
}
