use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::clock::now;
use crate::metrics::Metrics;
use crate::store::{SqliteStore, Store, audit};

/// A store without a gateway, and what it has of the canary.
struct World {
    _dir: tempfile::TempDir,
    store: Arc<dyn Store>,
}

const LONG: Duration = Duration::from_secs(3600);

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path().join("gateway.db").to_str().unwrap(), true).await.unwrap();
        Self { _dir: dir, store: Arc::new(store) }
    }

    /// A canary whose gate says these in turn, and how it counts.
    fn canary(&self, verdicts: &'static [Result<Verdict, &str>], every: Duration) -> (Canary, Arc<Metrics>) {
        let (metrics, asked) = (Metrics::new(), AtomicU32::new(0));
        let judge: Judge = Box::new(move |_, _| {
            let turn = asked.fetch_add(1, Ordering::Relaxed) as usize;
            verdicts[turn % verdicts.len()].map_err(str::to_owned)
        });
        (Canary::new(Lifecycle::new(Arc::clone(&self.store), None), judge, metrics.canary(), every), metrics)
    }

    /// The clients, the oldest first.
    async fn clients(&self) -> Vec<Client> {
        let mut clients = self.store.clients(Some(&PRACTICE.parse().unwrap()), None).await.unwrap();
        clients.reverse();
        clients
    }

    async fn events(&self) -> usize {
        let events = self.store.audit(Some(&PRACTICE.parse().unwrap())).await.unwrap();
        assert!(audit::verify(&events).is_ok() && events.iter().all(|event| event.actor == "canary"));
        events.len()
    }
}

/// Whether a secret of it still works.
fn live(client: &Client) -> bool {
    client.revoked_at.is_none() && client.secrets.iter().any(|secret| secret.usable_at(now()))
}

/// How many runs were ok, failed, and admitted after the receipt.
fn counted(metrics: &Metrics) -> [u32; 3] {
    let text = metrics.encode();
    ["ok", "failed", "admitted_after_receipt"].map(|outcome| {
        let series = format!("sigmagate_canary_runs_total{{outcome=\"{outcome}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&series)).unwrap().parse().unwrap()
    })
}

const RIGHT: &[Result<Verdict, &str>] = &[Ok(Verdict::Admitted), Ok(Verdict::Refused)];

#[tokio::test]
async fn a_run_leaves_one_ended_secret_and_two_events_and_the_client_outlives_the_process() {
    let world = World::new().await;
    let mut events = 0;
    for runs in 1..=4_usize {
        // Each time another process, which comes when the one before is long gone.
        let (mut canary, metrics) = world.canary(RIGHT, LONG);
        canary.lately = Duration::ZERO;
        canary.tick().await;
        assert_eq!(counted(&metrics), [1, 0, 0]);
        let clients = world.clients().await;
        assert_eq!((clients.len(), clients[0].secrets.len(), live(&clients[0])), (1, runs, false));
        let before = std::mem::replace(&mut events, world.events().await);
        assert!(runs == 1 || events == before + 2, "{events} events");
        let text = metrics.encode();
        assert!(text.contains("sigmagate_canary_revocation_seconds_count 1\n"), "{text}");
        assert!(!text.contains("sigmagate_canary_last_success_timestamp_seconds 0\n"), "{text}");
    }
}

#[tokio::test]
async fn what_the_gate_says_decides_and_the_key_is_ended_in_any_case() {
    let rows: [(&[Result<Verdict, &str>], _); 5] = [
        (RIGHT, [1, 0, 0]),
        (&[Ok(Verdict::Admitted)], [0, 0, 1]),
        (&[Ok(Verdict::Refused)], [0, 1, 0]),
        (&[Err("unavailable")], [0, 1, 0]),
        (&[Err("unavailable"), Ok(Verdict::Admitted)], [0, 0, 1]),
    ];
    for (verdicts, count) in rows {
        let world = World::new().await;
        let (mut canary, metrics) = world.canary(verdicts, LONG);
        canary.tick().await;
        assert_eq!(counted(&metrics), count, "{verdicts:?}");
        assert!(!live(&world.clients().await[0]));
        assert_eq!(metrics.encode().contains("last_success_timestamp_seconds 0\n"), count[0] == 0);
    }
}

#[tokio::test]
async fn a_client_is_revoked_when_it_has_had_its_secrets() {
    let world = World::new().await;
    let (mut canary, metrics) = world.canary(RIGHT, LONG);
    canary.secrets = 2;
    for _ in 0..5 {
        canary.tick().await;
    }
    assert_eq!(counted(&metrics), [5, 0, 0]);
    let clients = world.clients().await;
    let secrets: Vec<_> = clients.iter().map(|client| (client.secrets.len(), client.revoked_at.is_some())).collect();
    assert_eq!(secrets, [(2, true), (2, true), (1, false)]);
}

#[tokio::test]
async fn one_node_at_a_time_makes_the_runs() {
    let world = World::new().await;
    let (mut one, _) = world.canary(RIGHT, LONG);
    let (mut other, stood_by) = world.canary(RIGHT, LONG);
    one.tick().await;
    let events = world.events().await;
    let pause = other.tick().await;
    assert!(pause > LONG && pause <= LONG * 3 / 2, "{pause:?}");
    assert_eq!((counted(&stood_by), world.events().await), ([0, 0, 0], events));
    one.tick().await;
    assert_eq!(world.events().await, events + 2, "it was its own run that was so lately");
    // Gone for longer than a period.
    other.lately = Duration::ZERO;
    other.tick().await;
    assert_eq!((counted(&stood_by), world.events().await), ([1, 0, 0], events + 4));
    assert!(one.tick().await > LONG, "now the other one does it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_another_node_cuts_short_shows_nothing_and_is_no_failure() {
    let world = World::new().await;
    let (mut canary, metrics) = world.canary(&[], LONG);
    let (lifecycle, by, runtime) = (canary.lifecycle.clone(), canary.by.clone(), tokio::runtime::Handle::current());
    canary.judge = Box::new(move |client, _| {
        tokio::task::block_in_place(|| runtime.block_on(lifecycle.rotate(client, Overlap::None, &by))).unwrap();
        Ok(Verdict::Refused)
    });
    assert_eq!(canary.tick().await, LONG);
    assert_eq!(counted(&metrics), [0, 0, 0]);
    assert!(metrics.encode().contains("sigmagate_canary_revocation_seconds_count 0\n"));
}

#[tokio::test]
async fn a_failure_is_counted_and_tried_again() {
    let world = World::new().await;
    let (mut canary, metrics) = world.canary(RIGHT, LONG);
    let (lifecycle, by) = (canary.lifecycle.clone(), canary.by.clone());
    lifecycle.put_practice(&canary.practice, "Switched off", &by).await.unwrap();
    lifecycle.approve(&canary.practice, &by).await.unwrap();
    lifecycle.disable(&canary.practice, &by).await.unwrap();
    assert!(canary.tick().await <= LONG);
    assert_eq!(counted(&metrics), [0, 1, 0]);
    lifecycle.enable(&canary.practice, &by).await.unwrap();
    canary.tick().await;
    assert_eq!(counted(&metrics), [1, 1, 0]);
    assert_eq!(&*world.store.practice(&canary.practice).await.unwrap().name, "Switched off", "what is there is kept");
    // Somebody revokes the client: another is made.
    lifecycle.revoke(world.clients().await[0].id, &by).await.unwrap();
    canary.tick().await;
    assert_eq!((counted(&metrics), world.clients().await.len()), ([2, 1, 0], 2));
}

#[tokio::test]
async fn it_ends_as_soon_as_it_is_told() {
    let world = World::new().await;
    let (canary, metrics) = world.canary(RIGHT, LONG);
    canary.run(async {}).await;
    assert_eq!(counted(&metrics), [0, 0, 0]);
    assert!(part_of(LONG) <= LONG);
}
