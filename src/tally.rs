//! What clients do and what is refused, gathered while requests are served and written down in batches. A crash loses at
//! most what came since the last batch, [`EVERY`] ago; a stop in good order nothing.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::cache::Replica;
use crate::clock::{Day, Timestamp};
use crate::id::{ClientId, RouteId};
use crate::record::{ANSWERED, OAUTH_ERRORS, PERMIT, PERMIT_IN_GRACE, Record, Recorder};
use crate::route::Route;
use crate::scope::ScopeToken;
use crate::store::records::{DenialRow, SecretUse, UsageDelta};
use crate::store::{self, Store};

/// How often a batch is written.
pub const EVERY: Duration = Duration::from_secs(5);
/// The most refusals of one batch: what comes beyond is counted, and not told of one by one.
const DENIALS: usize = 2000;
/// The most rows that are written at a time: a revocation may wait for them.
const AT_A_TIME: usize = 1000;

/// Gathers what is to be written.
pub struct Tally {
    replica: Arc<Replica>,
    pending: Mutex<Pending>,
    untold: AtomicU64,
}

/// What has come since the last batch.
#[derive(Default)]
struct Pending {
    /// Clients that exist, so there is an end to them.
    clients: HashMap<ClientId, ClientTally, foldhash::fast::RandomState>,
    denials: Vec<DenialRow>,
    /// Of whom it has been told on a day that a secret is used which is over: once is enough.
    told: HashMap<ClientId, Day, foldhash::fast::RandomState>,
}

#[derive(Default)]
struct ClientTally {
    last: Option<(u32, Timestamp, IpAddr)>,
    /// The last time that a secret was shown which was over.
    ended: Option<(u32, Timestamp, IpAddr)>,
    counts: Vec<Count>,
}

struct Count {
    route: Option<RouteId>,
    day: Day,
    scope: Option<ScopeToken>,
    requests: u64,
    refused: u64,
}

/// A batch.
#[derive(Default)]
struct Batch {
    usage: Vec<UsageDelta>,
    used: Vec<SecretUse>,
    /// Of secrets that are over.
    ended: Vec<SecretUse>,
    denials: Vec<DenialRow>,
}

impl Tally {
    /// Nothing gathered yet; what a client was granted is looked up in the replica.
    #[must_use]
    pub fn new(replica: Arc<Replica>) -> Self {
        Self { replica, pending: Mutex::default(), untold: AtomicU64::new(0) }
    }

    /// How many refusals were too many to be told of one by one.
    #[must_use]
    pub fn untold(&self) -> u64 {
        self.untold.load(Ordering::Relaxed)
    }

    /// Writes what was gathered, again and again until `stop`, and then once more. What cannot be written is tried again with
    /// the next batch.
    pub async fn run(&self, store: &dyn Store, stop: impl Future) {
        let mut stop = std::pin::pin!(stop);
        let mut batch = Batch::default();
        let mut failing = false;
        loop {
            let stopped = tokio::time::timeout(EVERY, &mut stop).await.is_ok();
            if batch.is_empty() {
                batch = self.take();
            }
            let written = write(store, &mut batch).await;
            if let Err(error) = &written
                && !failing
            {
                tracing::warn!(%error, "usage and refusals cannot be written down; they are kept until they can");
            }
            failing = written.is_err();
            if !stopped {
                continue;
            }
            // What came while the last batch could not be written is not to be lost either.
            let mut rest = self.take();
            if let (false, Err(error)) = (failing, write(store, &mut rest).await) {
                tracing::warn!(%error, "the last usage and refusals could not be written down");
            }
            return;
        }
    }

    fn take(&self) -> Batch {
        let mut pending = self.pending.lock();
        let (clients, denials) = (std::mem::take(&mut pending.clients), std::mem::take(&mut pending.denials));
        for (client, tally) in &clients {
            if let Some((_, at, _)) = tally.ended {
                pending.told.insert(*client, Day::of(at));
            }
        }
        drop(pending);
        let mut batch = Batch { denials, ..Batch::default() };
        for (client, tally) in clients {
            let used = |(generation, at, address)| SecretUse { client, generation, at, address };
            batch.used.extend(tally.last.map(used));
            batch.ended.extend(tally.ended.map(used));
            for Count { day, scope, requests, refused, .. } in tally.counts {
                // Two routes may be for one scope.
                let same = |row: &&mut UsageDelta| row.client == client && row.day == day && row.scope == scope;
                match batch.usage.iter_mut().rev().take_while(|row| row.client == client).find(same) {
                    Some(row) => {
                        row.requests += requests;
                        row.refused += refused;
                    }
                    None => batch.usage.push(UsageDelta { day, client, scope, requests, refused }),
                }
            }
        }
        // Neighbours in the store are written together: in any order each piece would touch every page.
        batch.usage.sort_unstable_by(|one, other| (one.day, one.client, &one.scope).cmp(&(other.day, other.client, &other.scope)));
        batch.used.sort_unstable_by_key(|used| (used.client, used.generation));
        batch
    }

    /// The scope of a route by which the client is admitted, or which it lacks: the first that it has, or else the first.
    fn scope(&self, client: ClientId, route: Option<&Route>) -> Option<ScopeToken> {
        let route = route?;
        let granted = self.replica.peek(client);
        let has = |scope: &&str| granted.as_ref().is_some_and(|client| client.scope_text().split(' ').any(|own| own == *scope));
        let mut wanted = route.scopes.split(' ').filter(|scope| !scope.is_empty());
        let first = wanted.clone().find(has).or_else(|| wanted.next())?;
        first.parse().ok()
    }
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.usage.is_empty() && self.used.is_empty() && self.ended.is_empty() && self.denials.is_empty()
    }
}

/// Writes a batch; what has been written is no longer in it.
async fn write(store: &dyn Store, batch: &mut Batch) -> Result<(), store::Error> {
    while !batch.usage.is_empty() || !batch.used.is_empty() {
        let (usage, used) = (next(&batch.usage), next(&batch.used));
        store.add_usage(&batch.usage[usage..], &batch.used[used..]).await?;
        batch.usage.truncate(usage);
        batch.used.truncate(used);
    }
    while !batch.denials.is_empty() {
        let denials = next(&batch.denials);
        store.add_denials(&batch.denials[denials..]).await?;
        batch.denials.truncate(denials);
    }
    while let Some(ended) = batch.ended.last() {
        match store.queue_ended_secret_used(ended.client, ended.generation, ended.at, ended.address).await {
            // Its client is gone, so there is nobody to tell.
            Ok(_) | Err(store::Error::NotFound { .. }) => batch.ended.pop(),
            Err(error) => return Err(error),
        };
    }
    Ok(())
}

/// Where the rows begin that are written next, from the end.
fn next<T>(rows: &[T]) -> usize {
    rows.len().saturating_sub(AT_A_TIME)
}

/// Whether the gateway has refused a request: what an upstream did is no refusal.
fn is_refusal(record: &Record<'_>) -> bool {
    (400..500).contains(&record.status)
        && ![PERMIT, PERMIT_IN_GRACE, ANSWERED].contains(&record.outcome)
        && !OAUTH_ERRORS.contains(&record.outcome)
}

impl Recorder for Tally {
    fn record(&self, record: &Record<'_>) {
        let Some(practice) = record.practice else { return };
        let refused = is_refusal(record);
        let denial = refused.then(|| {
            Some(DenialRow {
                request_id: record.request_id.into(),
                at: record.at,
                practice: practice.parse().ok()?,
                client: record.client,
                user: record.user.and_then(|user| user.parse().ok()),
                owner: record.owner.and_then(|owner| owner.parse().ok()),
                route: record.route.map_or_else(|| "".into(), |route| route.prefix.as_str().into()),
                method: record.method.into(),
                path: record.path.into(),
                reason: record.outcome.into(),
                status: record.status,
                address: record.peer,
                revision: self.replica.applied(),
            })
        });
        let mut pending = self.pending.lock();
        let day = Day::of(record.at);
        if let Some(denial) = denial.flatten() {
            if pending.denials.len() < DENIALS {
                pending.denials.push(denial);
            } else {
                self.untold.fetch_add(1, Ordering::Relaxed);
            }
        }
        let Some(client) = record.client else { return };
        let told = record.ended.is_some() && pending.told.get(&client) == Some(&day);
        let tally = pending.clients.entry(client).or_default();
        if let (false, Some(generation)) = (refused, record.generation) {
            tally.last = Some((generation, record.at, record.peer));
        }
        if let (Some(generation), false) = (record.ended, told) {
            tally.ended = Some((generation, record.at, record.peer));
        }
        let route = record.route.map(|route| route.id);
        let known = tally.counts.iter().position(|count| count.route == route && count.day == day);
        let at = known.unwrap_or_else(|| {
            let scope = self.scope(client, record.route);
            tally.counts.push(Count { route, day, scope, requests: 0, refused: 0 });
            tally.counts.len() - 1
        });
        let count = &mut tally.counts[at];
        count.requests += 1;
        count.refused += u64::from(refused);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::TierNames;
    use crate::scope::ScopeRegistry;
    use crate::store::SqliteStore;
    use crate::store::records::{Records as _, Viewer};

    const DAY: i64 = 24 * 60 * 60 * 1000;

    fn tally() -> Tally {
        Tally::new(Arc::new(Replica::new(Arc::new(ScopeRegistry::default()), Arc::new(TierNames::default()))))
    }

    /// A request with a secret that is over.
    fn refused(at: i64, client: ClientId) -> Record<'static> {
        Record {
            at: Timestamp(at),
            request_id: "r",
            peer: "192.0.2.1".parse().unwrap(),
            version: "HTTP/1.1",
            method: "GET",
            path: "/billing",
            route: None,
            practice: Some("p"),
            client: Some(client),
            user: None,
            owner: None,
            generation: None,
            ended: Some(1),
            outcome: "secret_ended",
            status: 401,
            latency: Duration::ZERO,
            upstream_latency: None,
            request_bytes: 0,
            response_bytes: 0,
        }
    }

    #[test]
    fn a_flood_of_refusals_is_counted_and_not_told_of_one_by_one() {
        let (tally, client) = (tally(), ClientId::from_random([b'1'; 20]));
        for _ in 0..DENIALS + 3 {
            tally.record(&refused(0, client));
        }
        let batch = tally.take();
        assert_eq!((batch.denials.len(), tally.untold()), (DENIALS, 3));
        assert_eq!(batch.usage[0].refused, 2003);
        tally.record(&refused(0, client));
        assert_eq!((tally.take().denials.len(), tally.untold()), (1, 3));
    }

    #[test]
    fn a_batch_is_in_the_order_of_the_clients() {
        let tally = tally();
        for n in [5, 3, 9, 1, 7, 2, 8] {
            let client = ClientId::from_random([b'0' + n; 20]);
            tally.record(&Record { outcome: PERMIT, status: 200, generation: Some(1), ended: None, ..refused(0, client) });
        }
        let batch = tally.take();
        assert_eq!((batch.usage.len(), batch.used.len()), (7, 7));
        assert!(batch.usage.is_sorted_by_key(|delta| delta.client) && batch.used.is_sorted_by_key(|used| used.client));
    }

    #[tokio::test]
    async fn a_large_batch_is_written_in_pieces_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path().join("gateway.db").to_str().unwrap(), true).await.unwrap();
        let (tally, client) = (tally(), ClientId::from_random([b'1'; 20]));
        let refusals = i64::try_from(AT_A_TIME).unwrap() + 3;
        for n in 0..refusals {
            tally.record(&Record { client: None, ..refused(n, client) });
        }
        let mut batch = tally.take();
        write(&store, &mut batch).await.unwrap();
        assert!(batch.is_empty());
        let found = store.denials_page(&"p".parse().unwrap(), &Viewer::Operator, None, u32::MAX).await.unwrap();
        let mut at: Vec<_> = found.iter().map(|row| row.at.0).collect();
        at.sort_unstable();
        assert_eq!(at, (0..refusals).collect::<Vec<_>>());
    }

    #[test]
    fn a_secret_that_is_over_is_told_of_once_a_day() {
        let (tally, one, other) = (tally(), ClientId::from_random([b'1'; 20]), ClientId::from_random([b'2'; 20]));
        let told = |at, client| {
            tally.record(&refused(at, client));
            tally.record(&refused(at + 1, client));
            tally.take().ended.iter().map(|used| (used.client, used.at.0)).collect::<Vec<_>>()
        };
        assert_eq!(told(0, one), [(one, 1)], "the last of a batch");
        assert_eq!(told(5, one), []);
        assert_eq!(told(5, other), [(other, 6)]);
        assert_eq!(told(DAY, one), [(one, DAY + 1)]);
    }
}
