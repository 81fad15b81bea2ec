//! What clients do, by the day.

use super::pages::{VIEWERS, populated, viewer};
use super::*;
use crate::clock::Day;
use crate::store::records::{Active, ClientFilter, LastUse, SecretUse, UsageDelta, Viewer};

fn delta(day: i32, of: &Client, scope: Option<&str>, requests: u64) -> UsageDelta {
    UsageDelta { day: Day(day), client: of.id, scope: scope.map(|scope| scope.parse().unwrap()), requests, refused: 1 }
}

fn used(of: &Client, generation: u32, at: i64, address: &str) -> SecretUse {
    SecretUse { client: of.id, generation, at: Timestamp(at), address: address.parse().unwrap() }
}

pub(super) async fn usage_adds_up_and_is_shown_to_whom_it_concerns(store: Arc<dyn Store>) {
    let all = populated(&*store).await;
    let p = practice_id("p");
    // What is old is forgotten.
    let second = Day::of(now()).0;
    let first = second - 1;
    let (mut feed, head) = follow(&*store).await;
    store.add_usage(&[], &[]).await.unwrap();
    let unknown = client(None).client;
    let nodes = (0..4).map(|node| {
        let (store, mut all, unknown) = (store.clone(), all.clone(), unknown.clone());
        tokio::spawn(async move {
            // Each in an order of its own.
            let middle = all.len() / 2;
            if node % 2 == 0 {
                all.reverse();
            } else {
                all.rotate_left(middle);
            }
            let mut deltas = vec![delta(first, &unknown, None, 1)];
            for client in &all {
                deltas.extend([delta(second, client, Some("billing"), 2), delta(first, client, None, 1)]);
                deltas.push(delta(second, client, Some("billing"), 3));
            }
            for _ in 0..5 {
                store.add_usage(&deltas, &[used(&unknown, 1, 1, "192.0.2.1")]).await.unwrap();
            }
        })
    });
    for node in nodes.collect::<Vec<_>>() {
        node.await.unwrap();
    }
    assert!(matches!(feed.poll(head).await.unwrap(), Changes::Unchanged), "nobody has to be told");
    feed.leave().await.unwrap();

    let days = |from, to| [Day(from), Day(to)];
    for who in VIEWERS {
        let rows = store.usage(&p, &viewer(who), Day(0), Day(99_999), None).await.unwrap();
        let mut seen: Vec<_> = all
            .iter()
            .filter(|client| match &client.owner {
                None => matches!(who, "operator" | "admin"),
                Some(owner) => owner.as_str() == who,
            })
            .map(|client| client.id)
            .collect();
        seen.sort_unstable();
        let found: Vec<_> = rows.iter().map(|row| (row.day, row.client)).collect();
        let want: Vec<_> = days(first, second).into_iter().flat_map(|day| seen.iter().map(move |id| (day, *id))).collect();
        assert_eq!(found, want, "{who}");
        for row in &rows {
            let earlier = row.day == Day(first);
            assert_eq!(row.scope.as_ref().map(crate::scope::ScopeToken::as_str), if earlier { None } else { Some("billing") });
            assert_eq!((row.requests, row.refused), if earlier { (20, 20) } else { (100, 40) });
        }
    }
    let of_one = store.usage(&p, &Viewer::Operator, Day(second), Day(i32::MAX), Some(all[0].id)).await.unwrap();
    assert_eq!((of_one.len(), of_one[0].client, of_one[0].day), (1, all[0].id, Day(second)));
    assert_eq!(store.usage(&p, &Viewer::Operator, Day(i32::MIN), Day(first - 1), None).await.unwrap(), []);
    assert_eq!(store.usage(&p, &Viewer::Operator, Day(0), Day(99_999), Some(all[1].id)).await.unwrap(), [], "it is personal");
    assert_eq!(store.usage(&practice_id("q"), &Viewer::Operator, Day(0), Day(99_999), None).await.unwrap(), []);
}

pub(super) async fn the_last_use_is_the_latest_whoever_tells_of_it_last(store: &dyn Store) {
    let all = populated(store).await;
    let p = practice_id("p");
    assert_eq!(store.active_since(&p, Timestamp(0)).await.unwrap(), Active::default());
    let uses = [used(&all[0], 1, 3000, "192.0.2.1"), used(&all[0], 1, 5000, "2001:db8::7"), used(&all[0], 1, 4000, "192.0.2.2")];
    store.add_usage(&[], &uses).await.unwrap();
    store.add_usage(&[], &uses[..1]).await.unwrap();
    store.add_usage(&[], &[used(&all[0], 0, 4999, "192.0.2.3"), used(&all[2], 2, 7000, "192.0.2.4")]).await.unwrap();
    let personal = [used(&all[1], 1, 6000, "192.0.2.5"), used(&all[6], 1, 6000, "192.0.2.5"), used(&all[3], 1, 2000, "192.0.2.6")];
    store.add_usage(&[], &personal).await.unwrap();

    let of = |visible_to| ClientFilter { practice: p.clone(), visible_to, kind: None };
    let last = |at, address: &str, generation| Some(LastUse { at: Timestamp(at), address: address.parse().unwrap(), generation });
    for row in store.clients_page(&of(Viewer::Operator), None, 9).await.unwrap() {
        let want = match row.client.id {
            id if id == all[0].id => last(5000, "2001:db8::7", 1),
            id if id == all[2].id => last(7000, "192.0.2.4", 2),
            _ => None,
        };
        assert_eq!(row.last_used, want);
    }
    let own = store.clients_page(&of(viewer("v")), None, 9).await.unwrap();
    assert_eq!(own[0].last_used, last(2000, "192.0.2.6", 1));

    for (since, clients, people) in [(0, &[2, 0][..], 2), (5000, &[2, 0], 1), (5001, &[2], 1), (7001, &[], 0)] {
        let active = store.active_since(&p, Timestamp(since)).await.unwrap();
        let found: Vec<_> = active.clients.iter().map(|row| (row.client.id, row.client.secrets.len())).collect();
        let want: Vec<_> = clients.iter().map(|&n: &usize| (all[n].id, 1)).collect();
        assert_eq!((found, active.people), (want, people), "{since}");
    }
}
