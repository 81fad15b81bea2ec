//! When something is fetched, and what holds meanwhile.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use super::*;
use crate::jwks::clients::Ages;
use crate::jwks::remote::pause;
use crate::jwks::source::Fetch;

const URL: &str = "https://keys.test/";
const LONG: Duration = Duration::from_secs(3600);

/// What is behind every URL: a set, or nothing that is one.
#[derive(Clone)]
struct Issuer {
    set: Arc<Mutex<Option<KeySet>>>,
    fetches: Count,
    /// Fetches wait here if there is to be a `gate`.
    gate: Arc<Notify>,
    gated: bool,
}

impl Issuer {
    fn new(set: Option<KeySet>) -> Self {
        Self { set: Arc::new(Mutex::new(set)), fetches: Count::default(), gate: Arc::new(Notify::new()), gated: false }
    }

    fn says(&self, set: Option<KeySet>) {
        *self.set.lock() = set;
    }

    fn fetch(&self) -> Fetch {
        let issuer = self.clone();
        Arc::new(move |_| {
            let issuer = issuer.clone();
            issuer.fetches.add();
            Box::pin(async move {
                if issuer.gated {
                    issuer.gate.notified().await;
                }
                issuer.set.lock().clone().ok_or(Error::Status(500))
            })
        })
    }

    /// Kept current, with what is told of each fetch.
    fn followed(&self, refresh: Duration, interval: Duration) -> (Arc<Remote>, mpsc::UnboundedReceiver<Fetched>) {
        let (sender, told) = mpsc::unbounded_channel();
        let observer = Arc::new(move |fetched| {
            let _ = sender.send(fetched);
        });
        (Remote::with(URL.into(), refresh, interval, self.fetch(), observer), told)
    }

    fn clients(&self, ages: Ages) -> Arc<ClientKeySets> {
        Arc::new(ClientKeySets::with(Networks::new(&[]), self.fetch(), ages))
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_good_set_stays_while_the_issuer_is_down_and_a_withdrawn_key_goes() {
    let (a, b) = (key("a"), key("b"));
    let issuer = Issuer::new(None);
    let (remote, mut told) = issuer.followed(Duration::from_secs(300), LONG);
    let stop = Arc::new(Notify::new());
    let stopped = Arc::clone(&stop);
    let running = tokio::spawn(Arc::clone(&remote).run(async move { stopped.notified().await }));
    assert_eq!(told.recv().await, Some(Fetched::Failed));
    assert_eq!((remote.keys(), remote.generation()), (None, 0));
    // Seconds later, not minutes.
    let asked = tokio::time::Instant::now();
    issuer.says(Some(set(&[&a, &b])));
    assert_eq!(told.recv().await, Some(Fetched::Changed));
    assert!(asked.elapsed() < Duration::from_secs(2));
    assert_eq!((remote.keys().as_deref(), remote.generation()), (Some(&set(&[&a, &b])), 1));
    assert_eq!(told.recv().await, Some(Fetched::Unchanged));
    assert!(asked.elapsed() >= Duration::from_secs(300));
    assert_eq!(remote.generation(), 1, "nothing new");
    issuer.says(None);
    for _ in 0..20 {
        assert_eq!(told.recv().await, Some(Fetched::Failed));
    }
    assert_eq!((remote.keys().as_deref(), remote.generation()), (Some(&set(&[&a, &b])), 1), "kept");
    issuer.says(Some(set(&[&b])));
    assert_eq!(told.recv().await, Some(Fetched::Changed));
    assert_eq!((remote.keys().as_deref(), remote.generation()), (Some(&set(&[&b])), 2), "`a` is withdrawn");
    issuer.says(Some(KeySet::default()));
    assert_eq!(told.recv().await, Some(Fetched::Changed));
    assert!(remote.keys().unwrap().is_empty(), "all of them are");
    stop.notify_one();
    running.await.unwrap();
    assert_eq!(told.try_recv().ok(), None);
}

#[test]
fn pauses_after_failures_grow_up_to_the_usual_one() {
    let seconds = |failures| pause(failures, Duration::from_secs(300)).as_secs();
    assert_eq!([0, 1, 2, 3, 9, 10, 1000, u32::MAX].map(seconds), [300, 1, 2, 4, 256, 300, 300, 300]);
}

#[tokio::test]
async fn a_storm_of_unknown_keys_is_one_fetch() {
    let mut issuer = Issuer::new(Some(set(&[&key("a")])));
    issuer.gated = true;
    let (remote, _told) = issuer.followed(LONG, LONG);
    let waiting: Vec<_> = (0..100)
        .map(|_| {
            let remote = Arc::clone(&remote);
            tokio::spawn(async move { remote.refresh_for_unknown(0).await })
        })
        .collect();
    // One of them hangs up, perhaps the one that began it.
    waiting[0].abort();
    while issuer.fetches.get() == 0 {
        tokio::task::yield_now().await;
    }
    issuer.gate.notify_one();
    for (at, waiting) in waiting.into_iter().enumerate() {
        match waiting.await {
            Ok(changed) => assert!(changed, "all of them see what it brought"),
            Err(error) => assert!(at == 0 && error.is_cancelled()),
        }
    }
    issuer.says(Some(set(&[&key("b")])));
    for _ in 0..100 {
        assert!(!remote.refresh_for_unknown(1).await, "no fetch within the time");
    }
    assert!(remote.refresh_for_unknown(0).await, "that is known already");
    assert_eq!((issuer.fetches.get(), remote.generation()), (1, 1));
}

#[tokio::test]
async fn a_fetch_goes_on_when_the_one_who_asked_hangs_up() {
    let mut issuer = Issuer::new(Some(set(&[&key("a")])));
    issuer.gated = true;
    let (remote, mut told) = issuer.followed(LONG, LONG);
    tokio::select! {
        biased;
        _ = remote.refresh_for_unknown(0) => panic!("it waits"),
        () = tokio::task::yield_now() => {}
    }
    issuer.gate.notify_one();
    assert_eq!(told.recv().await, Some(Fetched::Changed));
    assert_eq!(remote.generation(), 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_ever() {
    let mut issuer = Issuer::new(Some(set(&[&key("a")])));
    issuer.gated = true;
    let (remote, _told) = issuer.followed(LONG, Duration::ZERO);
    let asked = tokio::time::Instant::now();
    assert!(!remote.refresh_for_unknown(0).await);
    assert!(asked.elapsed() <= Duration::from_millis(6001), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn a_key_that_is_new_is_found_when_a_token_names_it() {
    let (a, b) = (key("a"), key("b"));
    let issuer = Issuer::new(Some(set(&[&a])));
    let (remote, _told) = issuer.followed(LONG, Duration::ZERO);
    assert!(remote.refresh_for_unknown(0).await);
    assert!(!remote.refresh_for_unknown(1).await, "the same");
    issuer.says(Some(set(&[&a, &b])));
    assert!(remote.refresh_for_unknown(1).await);
    issuer.says(None);
    assert!(!remote.refresh_for_unknown(2).await);
    assert_eq!(remote.current().0.as_deref(), Some(&set(&[&a, &b])));
}

#[tokio::test]
async fn keys_of_clients_are_fetched_when_they_are_no_longer_fresh() {
    let (a, b) = (key("a"), key("b"));
    let (none, some) = (Duration::ZERO, LONG);
    for (fresh, stale, interval, then, fetches, want) in [
        // (fresh for, used for, between fetches, what is said then, fetches in all, what is found)
        (some, some, none, Some(&b), 1, Ok(&a)),
        (none, some, none, Some(&b), 2, Ok(&b)),
        (none, some, none, None, 2, Ok(&a)),
        (none, some, some, Some(&b), 1, Ok(&a)),
        (none, none, none, None, 2, Err("it answers 500, not 200")),
    ] {
        let issuer = Issuer::new(Some(set(&[&a])));
        let clients = issuer.clients(Ages { fresh, stale, interval });
        let first = clients.keys(URL, None).await;
        assert!(stale.is_zero() || first.unwrap() == (Arc::new(set(&[&a])), 1));
        issuer.says(then.map(|key| set(&[key])));
        let found = clients.keys(URL, None).await.map(|(keys, _)| keys).map_err(|error| error.to_string());
        assert_eq!(found.as_deref().map_err(String::as_str), want.map(|key| set(&[key])).as_ref().map_err(|says| *says), "{want:?}");
        assert_eq!(issuer.fetches.get(), fetches);
    }
}

#[tokio::test]
async fn a_client_whose_key_is_unknown_has_its_keys_fetched_now_and_then() {
    let (a, b) = (key("a"), key("b"));
    let issuer = Issuer::new(Some(set(&[&a])));
    let eager = issuer.clients(Ages { fresh: LONG, stale: LONG, interval: Duration::ZERO });
    let (_, generation) = eager.keys(URL, None).await.unwrap();
    issuer.says(Some(set(&[&b])));
    assert_eq!(eager.keys(URL, None).await.unwrap().1, generation, "fresh enough");
    assert_eq!(eager.keys(URL, Some(generation)).await.unwrap(), (Arc::new(set(&[&b])), 2));
    assert_eq!((eager.keys(URL, Some(generation)).await.unwrap().1, issuer.fetches.get()), (2, 2), "known already");
    let paced = issuer.clients(Ages { fresh: LONG, stale: LONG, interval: LONG });
    for _ in 0..100 {
        assert_eq!(paced.keys(URL, Some(1)).await.unwrap().1, 1);
    }
    assert_eq!(issuer.fetches.get(), 3);
    issuer.says(None);
    let down = issuer.clients(Ages { fresh: LONG, stale: LONG, interval: LONG });
    for _ in 0..100 {
        assert!(matches!(down.keys(URL, None).await, Err(Error::Status(500))));
    }
    assert_eq!(issuer.fetches.get(), 4, "what is down is left alone");
}

#[tokio::test]
async fn many_clients_that_ask_at_once_are_one_fetch_for_each_url() {
    let issuer = Issuer::new(Some(set(&[&key("a")])));
    let clients = issuer.clients(Ages { fresh: LONG, stale: LONG, interval: LONG });
    let asking: Vec<_> = (0..100)
        .map(|at| {
            let clients = Arc::clone(&clients);
            tokio::spawn(async move { clients.keys(&format!("{URL}{}", at % 5), None).await.unwrap() })
        })
        .collect();
    for asking in asking {
        asking.await.unwrap();
    }
    assert_eq!(issuer.fetches.get(), 5);
}

#[tokio::test]
async fn so_many_urls_are_remembered_and_no_more() {
    let issuer = Issuer::new(Some(set(&[&key("a")])));
    let clients = issuer.clients(Ages { fresh: LONG, stale: LONG, interval: LONG });
    for at in 0..1100 {
        clients.keys(&format!("{URL}{at}"), None).await.unwrap();
        clients.keys(URL, None).await.unwrap();
    }
    assert_eq!(format!("{clients:?}"), "ClientKeySets(1000 URLs)");
    assert_eq!(issuer.fetches.get(), 1101, "what is asked for again and again stays");
    assert!(matches!(clients.keys("https://10.0.0.1/", None).await, Err(Error::Forbidden(_))));
    assert_eq!(issuer.fetches.get(), 1101);
}
