//! Keeps the replica in step with the store, and the lease with the replica.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::cache::{Entries, Replica};
use crate::clock::{self, BootTime};
use crate::id::Revision;
use crate::store::{self, Changes, Feed, Quick, Store};

/// How long to wait before the store is tried again, and the most that grows to.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// How long it took until changes were in force.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    /// Since the store was asked.
    pub asked: Duration,
    /// Since the oldest of them was committed; `None` after a snapshot, which does not tell.
    pub committed: Option<Duration>,
}

impl Took {
    fn now(asked: BootTime, age: Option<Duration>) -> Self {
        let asked = clock::boot_time().since(asked);
        Self { asked, committed: age.map(|age| age + asked) }
    }
}

/// What came of one question of the line that vouches.
#[derive(Clone, Copy, Debug)]
pub enum Heartbeat {
    /// Answered, and its answer is in force and acknowledged.
    Answered {
        /// When the question was asked: whatever was committed until then is in force.
        asked: BootTime,
        /// How long the answer took, without what was done with it.
        took: Duration,
        /// The nodes of the fleet, as the answer had them.
        nodes: usize,
    },
    /// Not answered, or its answer could not be acknowledged. The lease goes on until it runs out.
    Failed,
    /// The node was out of the register.
    Deposed,
}

/// What the feed tells of itself. Called by the feed alone, in order.
pub trait Observer: Send + Sync {
    /// The node is in the register under this id, and still admits nobody.
    fn joined(&self, _node: &str) {}
    /// A question was asked; comes before what else is told of it.
    fn heartbeat(&self, _heartbeat: Heartbeat) {}
    /// The store was asked, and the replica is as new as its answer. If something changed: how long that took, and how
    /// much the replica holds now.
    fn live(&self, revision: Revision, took: Option<Took>, entries: Option<Entries>);
    /// Changes came by the second line, which vouches for nothing.
    fn hurried(&self, revision: Revision, took: Took, entries: Entries);
    /// The store could not be asked. The lease goes on until it runs out.
    fn failed(&self, error: &store::Error);
    /// The lease has run out: nobody is admitted.
    fn stale(&self);
}

/// Follows the store until `stop` is done; then ends the lease and leaves the register.
pub async fn run(store: Arc<dyn Store>, replica: Arc<Replica>, observer: Arc<dyn Observer>, stop: impl Future<Output = ()> + Send) {
    let lease = store.lease();
    tokio::pin!(stop);
    let (mut pause, mut node) = (RETRY.0, None);
    loop {
        let mut feed = None;
        // Dropped before the feed, even by a panic: once the feed is gone nobody waits for this node any more, so by
        // then it must have stopped admitting.
        let vouched = EndsLease(&replica);
        let follower = Follower { replica: &replica, observer: &*observer, lease, gap: Notify::new() };
        let followed = async {
            match within(lease, store.feed()).await {
                Ok(opened) => follower.follow(&mut **feed.insert(opened), &mut node, &mut pause).await,
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

/// How far the acknowledgements of one line have come.
#[derive(Default)]
struct Line {
    acknowledged: Option<Revision>,
}

impl Line {
    /// Whether `applied` has still to be acknowledged. Due whenever more is in force than was, whoever put it in force:
    /// the other line may have died between the two.
    fn owes(&self, applied: Revision) -> bool {
        self.acknowledged.is_none_or(|acknowledged| acknowledged < applied)
    }
}

/// What one question brought.
struct Step {
    /// How long it was until changes were in force, if there were any.
    changed: Option<Took>,
    took: Duration,
    nodes: usize,
}

struct Follower<'a> {
    replica: &'a Replica,
    observer: &'a dyn Observer,
    lease: Duration,
    /// Has the vouching line ask before its time.
    gap: Notify,
}

impl Follower<'_> {
    /// Joins and follows; returns when the node has to join anew, with the last error.
    async fn follow(&self, feed: &mut dyn Feed, node: &mut Option<String>, pause: &mut Duration) -> store::Error {
        // Registered first, then the snapshot, then the first lease: a change committed at any moment in between is
        // either in the snapshot or waited for.
        match feed.register(node.as_deref()).await {
            Ok(registered) => self.observer.joined(node.insert(registered)),
            Err(error) => return error,
        }
        if let Err(error) = self.snapshot(feed).await {
            return error;
        }
        let quick = feed.quick();
        tokio::select! {
            error = self.vouch(feed, pause) => error,
            never = self.hurry(quick) => match never {},
        }
    }

    /// Polls, and extends the lease with each answer.
    async fn vouch(&self, feed: &mut dyn Feed, pause: &mut Duration) -> store::Error {
        let (mut line, mut first, mut lapsed) = (Line::default(), true, false);
        loop {
            let asked = clock::boot_time();
            let grace = self.replica.wanted_grace();
            // Less is taken back before the barriers hear of it, more is allowed only after.
            self.replica.allow_grace(self.replica.grace().min(grace));
            feed.want_grace(grace);
            match self.step(feed, &mut line, asked).await {
                Ok(Step { changed, took, nodes }) => {
                    // Counted from before the question: what was committed until then is in the answer.
                    self.replica.extend_lease(asked.after(self.lease));
                    self.replica.allow_grace(feed.known_grace().min(grace));
                    lapsed = false;
                    self.observer.heartbeat(Heartbeat::Answered { asked, took, nodes });
                    let entries = (first || changed.is_some()).then(|| self.replica.entries());
                    self.observer.live(self.replica.applied(), changed, entries);
                    (first, *pause) = (false, RETRY.0);
                }
                Err(error @ store::Error::Deposed(_)) => {
                    self.observer.heartbeat(Heartbeat::Deposed);
                    return error;
                }
                Err(error) => {
                    self.observer.heartbeat(Heartbeat::Failed);
                    let (now, until) = (clock::boot_time(), self.replica.lease_until());
                    if now >= until.after(self.replica.grace()) {
                        return error;
                    }
                    self.observer.failed(&error);
                    if now >= until && !lapsed {
                        self.observer.stale();
                        self.replica.lapse();
                        lapsed = true;
                    }
                    sleep(*pause).await;
                    if lapsed {
                        *pause = (*pause * 2).min(RETRY.1);
                    }
                }
            }
            tokio::select! {
                () = feed.due() => {}
                () = self.gap.notified() => {}
            }
        }
    }

    /// Asks once and applies what comes.
    async fn step(&self, feed: &mut dyn Feed, line: &mut Line, asked: BootTime) -> Result<Step, store::Error> {
        let after = self.replica.applied();
        let answer = within(feed.patience(), feed.poll(after)).await?;
        let took = clock::boot_time().since(asked);
        let changed = match answer {
            Changes::Unchanged => None,
            Changes::Batch { head, age, changes } => {
                self.replica.apply(after, head, &changes);
                Some(Took::now(asked, Some(age)))
            }
            Changes::Gap => {
                tracing::warn!("the change log has a gap: everything is read anew");
                self.replica.end_lease();
                self.snapshot(feed).await?;
                // It is as good an answer to the question, for it was read later.
                *line = Line::default();
                Some(Took::now(asked, None))
            }
        };
        let applied = self.replica.applied();
        if line.owes(applied) {
            within(feed.patience(), feed.acknowledge(applied)).await?;
            line.acknowledged = Some(applied);
        }
        Ok(Step { changed, took, nodes: feed.nodes() })
    }

    /// Applies and acknowledges changes as soon as there is a hint of them. Extends no lease, so whatever goes wrong
    /// here costs time and nothing else.
    async fn hurry(&self, quick: Option<Box<dyn Quick>>) -> Infallible {
        let Some(mut quick) = quick else { return std::future::pending().await };
        let (mut line, mut pause) = (Line::default(), RETRY.0);
        loop {
            match self.hint(&mut *quick, &mut line).await {
                Ok(()) => pause = RETRY.0,
                Err(error) => {
                    self.observer.failed(&error);
                    sleep(pause).await;
                    pause = (pause * 2).min(RETRY.1);
                }
            }
        }
    }

    async fn hint(&self, quick: &mut dyn Quick, line: &mut Line) -> Result<(), store::Error> {
        quick.hint().await?;
        let (asked, after) = (clock::boot_time(), self.replica.applied());
        match quick.read(after).await? {
            Changes::Unchanged => {}
            Changes::Batch { head, age, changes } => {
                self.replica.apply(after, head, &changes);
                self.observer.hurried(self.replica.applied(), Took::now(asked, Some(age)), self.replica.entries());
            }
            // The other line will find the same, and knows what to do.
            Changes::Gap => self.gap.notify_one(),
        }
        let applied = self.replica.applied();
        if line.owes(applied) {
            quick.acknowledge(applied).await?;
            line.acknowledged = Some(applied);
        }
        Ok(())
    }

    async fn snapshot(&self, feed: &mut dyn Feed) -> Result<(), store::Error> {
        // No time limit: a million clients take as long as they take, and nobody is admitted meanwhile.
        let mut filling = self.replica.filling();
        let head = feed.snapshot(&mut filling).await?;
        let Entries { practices, users, clients } = filling.entries();
        let applied = filling.finish(head);
        tracing::info!(revision = applied.revision().0, practices, users, clients, "snapshot loaded");
        Ok(())
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, store::Error>>) -> Result<T, store::Error> {
    timeout(limit, work).await.unwrap_or_else(|_| {
        let message = format!("the store did not answer within {} ms", limit.as_millis());
        Err(store::Error::Unusable { message, source: None })
    })
}
