//! Which server is chosen, and when one is passed over.

use super::*;
use std::collections::BTreeMap;

const NOW: BootTime = BootTime(1_000_000_000_000);

fn later(ms: u64) -> BootTime {
    NOW.after(Duration::from_millis(ms))
}

fn upstream(count: u16, settings: Settings) -> Arc<Upstream> {
    let servers = (0..count).map(|n| Server::new(([10, 0, 0, 1], 9000 + n).into(), None, "http://core".into()));
    Arc::new(Upstream::new("core", settings, servers.collect()))
}

fn balanced(count: u16, balance: Balance) -> Arc<Upstream> {
    upstream(count, Settings { balance, ..Settings::default() })
}

/// Which of the servers, counted from 0; given up again at once.
fn next(upstream: &Upstream, caller: u64, tried: &[Arc<Server>], now: BootTime) -> Option<u16> {
    upstream.pick(caller, tried, now).map(|pick| pick.server().address.port() - 9000)
}

fn fail(server: &Server, how: Failure, times: u32, now: BootTime) -> Option<Change> {
    let ejection = Settings::default().ejection;
    (0..times).fold(None, |_, _| server.failed(how, &ejection, now))
}

#[test]
fn each_has_its_turn_also_where_one_is_passed_over() {
    let upstream = balanced(4, Balance::RoundRobin);
    let shares = |now| {
        let mut shares = BTreeMap::new();
        for _ in 0..1200 {
            *shares.entry(next(&upstream, 0, &[], now).unwrap()).or_insert(0) += 1;
        }
        shares
    };
    assert_eq!(shares(NOW), BTreeMap::from([(0, 300), (1, 300), (2, 300), (3, 300)]));
    assert_eq!(fail(&upstream.servers()[1], Failure::Unanswered, 5, NOW), Some(Change::Ejected(Duration::from_secs(10))));
    assert_eq!(shares(NOW), BTreeMap::from([(0, 400), (2, 400), (3, 400)]), "its share is dealt out evenly");
    assert_eq!(shares(later(10_000)).len(), 4);
}

#[test]
fn the_least_busy_is_next_and_equals_have_their_turn() {
    let upstream = balanced(3, Balance::LeastConnections);
    let held: Vec<_> = (0..3).map(|_| upstream.pick(0, &[], NOW).unwrap()).collect();
    let ports: std::collections::BTreeSet<_> = held.iter().map(|pick| pick.server().address.port()).collect();
    assert_eq!(ports.len(), 3);
    let mut held = held.into_iter();
    let freed = held.next().unwrap();
    let server = Arc::clone(freed.server());
    drop(freed);
    assert_eq!(server.under_way(), 0);
    let again = upstream.pick(0, &[], NOW).unwrap();
    assert!(Arc::ptr_eq(again.server(), &server));
}

#[test]
fn a_caller_stays_with_its_server_and_only_those_of_one_that_leaves_move() {
    let upstream = balanced(5, Balance::ConsistentHash(HashBy::Practice));
    let callers: Vec<u64> = (0..2000_u32).map(|n| caller_hash(&n.to_be_bytes())).collect();
    let homes = |now| callers.iter().map(|caller| next(&upstream, *caller, &[], now).unwrap()).collect::<Vec<_>>();
    let before = homes(NOW);
    assert_eq!(before, homes(NOW));
    for server in 0..5 {
        let share = before.iter().filter(|home| **home == server).count();
        assert!((300..500).contains(&share), "{share} of 2000");
    }
    fail(&upstream.servers()[2], Failure::Unanswered, 5, NOW);
    let after = homes(NOW);
    assert!(before.iter().zip(&after).all(|(before, after)| if *before == 2 { *after != 2 } else { before == after }));
    // The same on another gateway, and after a server has come.
    let other = balanced(6, Balance::ConsistentHash(HashBy::Practice));
    let moved = callers.iter().zip(&before).filter(|(caller, home)| next(&other, **caller, &[], NOW) != Some(**home));
    assert!(moved.clone().all(|(caller, _)| next(&other, *caller, &[], NOW) == Some(5)) && moved.count() > 200);
}

#[test]
fn another_server_is_tried_first_and_the_same_if_there_is_no_other() {
    let upstream = balanced(2, Balance::RoundRobin);
    let servers = upstream.servers();
    for _ in 0..10 {
        assert_eq!(next(&upstream, 0, &servers[..1], NOW), Some(1));
    }
    assert!(next(&upstream, 0, &servers, NOW).is_some());
    assert!(upstream.has_other(&servers[..1], NOW) && !upstream.has_other(&servers, NOW));
}

#[test]
fn what_fails_requests_is_passed_over_but_taken_when_there_is_no_other() {
    let upstream = balanced(2, Balance::RoundRobin);
    let servers = upstream.servers();
    assert_eq!(fail(&servers[0], Failure::Unanswered, 4, NOW), None);
    servers[0].answered();
    assert_eq!(fail(&servers[0], Failure::Unanswered, 4, NOW), None, "an answer in between, and it starts anew");
    assert_eq!(fail(&servers[0], Failure::Unanswered, 1, NOW), Some(Change::Ejected(Duration::from_secs(10))));
    assert_eq!((servers[0].state(NOW), servers[1].state(NOW)), (State::Ejected, State::InService));
    assert!((0..10).all(|_| next(&upstream, 0, &[], NOW) == Some(1)));
    fail(&servers[1], Failure::Unanswered, 5, NOW);
    assert!(next(&upstream, 0, &[], NOW).is_some(), "a client that provokes failures keeps nobody else out");
    // One more failure after its time, and it is passed over for longer.
    assert_eq!(fail(&servers[0], Failure::Unanswered, 1, later(10_000)), Some(Change::Ejected(Duration::from_secs(20))));
    let mut now = later(10_000);
    for _ in 0..20 {
        now = now.after(Duration::from_secs(100));
        fail(&servers[0], Failure::Unanswered, 1, now);
    }
    assert_eq!(servers[0].state(now.after(Duration::from_secs(99))), State::Ejected);
    assert_eq!(servers[0].state(now.after(Duration::from_secs(100))), State::InService, "ten times as long at most");
}

#[test]
fn what_cannot_be_reached_is_taken_last_and_back_at_once() {
    let upstream = balanced(3, Balance::RoundRobin);
    let servers = upstream.servers();
    fail(&servers[0], Failure::Unreachable, 5, NOW);
    fail(&servers[1], Failure::Unanswered, 5, NOW);
    assert_eq!([0, 1, 2].map(|n| servers[n].state(NOW)), [State::Unreachable, State::Ejected, State::InService]);
    assert_eq!(next(&upstream, 0, &[], NOW), Some(2));
    assert_eq!(next(&upstream, 0, &servers[2..], NOW), Some(1));
    assert_eq!(next(&upstream, 0, &servers[1..], NOW), Some(0));
    assert!(upstream.has_other(&servers[1..], NOW));
    servers[0].answered();
    assert_eq!(servers[0].state(NOW), State::InService);
}

#[test]
fn what_is_silent_gets_one_request_now_and_then() {
    let upstream = balanced(1, Balance::RoundRobin);
    let server = Arc::clone(&upstream.servers()[0]);
    fail(&server, Failure::Silent, 5, NOW);
    assert_eq!(server.state(NOW), State::Silent);
    assert_eq!(next(&upstream, 0, &[], later(100)), None);
    let mut granted = 0;
    for ms in 250..750 {
        granted += u32::from(next(&upstream, 0, &[], later(ms)).is_some());
    }
    assert_eq!(granted, 2);
    server.answered();
    assert_eq!(next(&upstream, 0, &[], later(751)), Some(0), "it is back at once");
}

#[test]
fn health_checks_take_a_server_out_and_in_again() {
    let upstream = balanced(2, Balance::RoundRobin);
    let servers = upstream.servers();
    let health =
        Health { path: "/".into(), every: Duration::from_secs(5), timeout: Duration::from_secs(2), healthy_after: 2, unhealthy_after: 3 };
    let checks = |passed: &[bool]| passed.iter().map(|passed| servers[0].checked(*passed, &health)).collect::<Vec<_>>();
    assert_eq!(checks(&[true, false, false, true, false, false]), vec![None; 6]);
    assert_eq!(checks(&[false]), [Some(Change::Down)]);
    assert!((0..10).all(|_| next(&upstream, 0, &[], NOW) == Some(1)));
    fail(&servers[0], Failure::Unreachable, 5, NOW);
    assert_eq!(checks(&[false, true, false, true]), vec![None; 4]);
    assert_eq!(checks(&[true]), [Some(Change::Up)]);
    assert_eq!(servers[0].state(NOW), State::InService, "what requests had found out is forgotten");
    assert_eq!(checks(&[false, false, false]), [None, None, Some(Change::Down)]);
    for _ in 0..3 {
        servers[1].checked(false, &health);
    }
    assert_eq!(next(&upstream, 0, &[], later(60_000)), None, "none is in service");
}

#[test]
fn a_server_that_stays_keeps_what_is_known_of_it() {
    let upstream = balanced(2, Balance::RoundRobin);
    let before = upstream.servers();
    let server = |port: u16| Server::new(([10, 0, 0, 1], port).into(), None, "http://core".into());
    assert!(!upstream.replace(vec![server(9001), server(9000)]), "in another order they are the same");
    assert!(Arc::ptr_eq(&before[0], &upstream.servers()[0]));
    let held = upstream.pick(0, &before[1..], NOW).unwrap();
    assert!(upstream.replace(vec![server(9002), server(9000)]));
    let after = upstream.servers();
    assert!(Arc::ptr_eq(&after[1], &before[0]) && after[1].under_way() == 1 && after[0].address.port() == 9002);
    drop(held);
    assert_eq!(after[1].under_way(), 0);
}

#[test]
fn no_more_requests_are_under_way_than_may_be() {
    let upstream = upstream(1, Settings { max_requests: NonZeroUsize::new(2), ..Settings::default() });
    let held = [upstream.enter().unwrap(), upstream.enter().unwrap()];
    assert!(upstream.enter().is_none() && upstream.enter().is_none());
    assert_eq!((upstream.under_way(), upstream.counts().refused.load(Ordering::Relaxed)), (2, 2));
    drop(held);
    assert!(upstream.enter().is_some());
    assert_eq!(upstream.under_way(), 0);
}

#[test]
fn retries_are_bounded_for_each_request_and_for_all() {
    let upstream = upstream(2, Settings { retries: 2, retry_percent: 10, ..Settings::default() });
    assert_eq!([1, 2, 3].map(|tries| upstream.may_retry(tries)), [true, true, false]);
    assert_eq!((0..1000).filter(|_| upstream.may_retry(1)).count(), 98);
    for _ in 0..100 {
        drop(upstream.enter());
    }
    assert_eq!((0..1000).filter(|_| upstream.may_retry(1)).count(), 10);
    let counts = [&upstream.counts().retried, &upstream.counts().withheld].map(|count| count.load(Ordering::Relaxed));
    assert_eq!(counts, [110, 1892]);
}

#[test]
fn a_trust_is_told_apart_by_everything_in_it() {
    let authority = |name: &str| {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        (made.cert.der().clone(), made.signing_key.serialize_der())
    };
    let ((one, key), (two, other)) = (authority("a"), authority("b"));
    let identity = |chain: &[&rustls_pki_types::CertificateDer<'static>], key: &[u8]| {
        Some(crate::tls::Identity { chain: chain.iter().map(|der| (*der).clone()).collect(), key: key.to_vec().into() })
    };
    let every = [
        Trust::new(None, None),
        Trust::new(Some(vec![]), None),
        Trust::new(Some(vec![one.clone()]), None),
        Trust::new(Some(vec![one.clone(), two.clone()]), None),
        Trust::new(None, identity(&[&one], &key)),
        Trust::new(None, identity(&[&one, &two], &key)),
        // The serial number alone, which pingora goes by, would not tell.
        Trust::new(None, identity(&[&one], &other)),
        Trust::new(Some(vec![one.clone()]), identity(&[&one], &key)),
    ];
    for (n, trust) in every.iter().enumerate() {
        assert_eq!(every.iter().filter(|other| *other == trust).count(), 1, "{n}");
    }
    assert_eq!(Trust::new(Some(vec![one.clone()]), identity(&[&one], &key)), every[7]);
    assert!(!format!("{:?}", every[7]).contains(&format!("{:?}", &key[..4])));
}
