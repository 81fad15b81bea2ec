use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::credential::Secret;
use crate::entity::{ClientKeys, Role, StoredSecret};

const HOUR: Duration = Duration::from_secs(3600);

fn practice(id: &str, access: ApiAccess) -> Practice {
    Practice { id: id.parse().unwrap(), name: id.into(), api_access: access }
}

fn user(id: &str, practice: &str, api_access: bool) -> User {
    User { id: id.parse().unwrap(), practice_id: practice.parse().unwrap(), role: Role::Member, api_access, left_at: None }
}

fn client(n: u8, practice: &str, owner: Option<&str>) -> Client {
    let digest = Secret::generate().digest(None);
    Client {
        id: ClientId::from_random([n; 20]),
        practice_id: practice.parse().unwrap(),
        owner: owner.map(|owner| owner.parse().unwrap()),
        name: "app".into(),
        scopes: vec!["billing".parse().unwrap()],
        allowed_addresses: vec![],
        tier: None,
        created_at: Timestamp(0),
        expires_at: None,
        revoked_at: None,
        secrets: vec![StoredSecret { generation: 1, digest, created_at: Timestamp(0), expires_at: None, ended: false }],
        keys: ClientKeys::None,
    }
}

fn replica() -> Replica {
    Replica::new(Arc::default(), Arc::default())
}

fn facts(replica: &Replica, client: &Client) -> Option<Facts> {
    replica.peek(client.id).map(|record| record.facts("127.0.0.1".parse().unwrap(), Timestamp(1000)))
}

#[test]
fn nobody_is_admitted_without_a_lease() {
    let replica = replica();
    let id = ClientId::from_random([1; 20]);
    assert_eq!(replica.read(id, Duration::ZERO, |_| ()).unwrap_err(), Stale);
    replica.extend_lease(clock::boot_time().after(HOUR));
    let ((), epoch) = replica.read(id, Duration::ZERO, |client| assert!(client.is_none())).unwrap();
    assert!(replica.unchanged_since(epoch, Duration::ZERO));
    replica.end_lease();
    assert!(!replica.unchanged_since(epoch, Duration::ZERO));
    assert_eq!(replica.read(id, Duration::ZERO, |_| ()).unwrap_err(), Stale);
}

#[test]
fn a_grace_is_no_longer_than_is_allowed_and_none_after_the_lease_was_ended() {
    let replica = replica();
    let id = ClientId::from_random([1; 20]);
    let held = |grace| replica.read(id, grace, |_| ()).map(|((), epoch)| epoch.in_grace());
    replica.allow_grace(HOUR);
    assert_eq!(held(HOUR), Err(Stale), "there was never a lease");
    let just_over = clock::boot_time();
    replica.extend_lease(just_over);
    assert_eq!((held(HOUR), held(Duration::ZERO)), (Ok(true), Err(Stale)));
    let ((), epoch) = replica.read(id, HOUR, |_| ()).unwrap();
    assert!(replica.unchanged_since(epoch, HOUR) && !replica.unchanged_since(epoch, Duration::ZERO));
    replica.allow_grace(Duration::ZERO);
    assert_eq!(held(HOUR), Err(Stale), "barriers would not wait that long");
    replica.allow_grace(HOUR);
    replica.end_lease();
    assert_eq!(held(HOUR), Err(Stale));
    assert!(!replica.unchanged_since(epoch, HOUR));
    replica.extend_lease(clock::boot_time().after(HOUR));
    assert_eq!(held(HOUR), Ok(false));
}

#[test]
fn a_lease_is_never_shortened_by_a_later_answer() {
    let replica = replica();
    replica.extend_lease(BootTime(20));
    replica.extend_lease(BootTime(10));
    assert_eq!(replica.lease_until(), BootTime(20));
}

#[test]
fn what_ended_for_good_stays_ended_when_the_database_has_forgotten_it() {
    let replica = replica();
    let app = client(1, "p", None);
    let revoked = Client { revoked_at: Some(Timestamp(1)), ..app.clone() };
    let snapshot = |head, client: &Client| Snapshot {
        head: Revision(head),
        practices: vec![practice("p", ApiAccess::Active)],
        clients: vec![client.clone()],
        ..Snapshot::default()
    };
    replica.replace(snapshot(5, &revoked));
    replica.replace(snapshot(3, &app));
    assert!(facts(&replica, &app).unwrap().revoked);
    assert_eq!(replica.applied(), Revision(3), "the numbers are those of the database as it is");
}

#[test]
fn an_answer_that_goes_on_from_what_was_put_back_is_not_applied() {
    let replica = replica();
    replica.replace(Snapshot { head: Revision(3), practices: vec![practice("p", ApiAccess::Active)], ..Snapshot::default() });
    replica.apply(Revision(5), Revision(6), &[Change::Practice("q".parse().unwrap(), Some(practice("q", ApiAccess::Active)))]);
    assert_eq!(replica.applied(), Revision(3), "what happened between 3 and 5 would be lost");
}

#[test]
fn who_is_fenced_is_so_until_told_of_anew() {
    let replica = replica();
    let (own, app) = (client(1, "p", Some("u")), client(2, "p", None));
    let told = [
        (Subject::Practice("p".parse().unwrap()), Change::Practice("p".parse().unwrap(), Some(practice("p", ApiAccess::Active)))),
        (Subject::User("u".parse().unwrap()), Change::User("u".parse().unwrap(), Some(user("u", "p", true)))),
        (Subject::Client(own.id), Change::Client(own.id, Some(own.clone()))),
    ];
    let fenced = || [&own, &app].map(|client| facts(&replica, client).unwrap().fenced);
    let mut head = 1;
    for ((subject, change), both) in told.iter().zip([true, false, false]) {
        let everything = [Change::Client(app.id, Some(app.clone())), told[0].1.clone(), told[1].1.clone(), told[2].1.clone()];
        replica.apply(Revision(head - 1), Revision(head), &everything);
        replica.apply(Revision(head), Revision(head + 1), &[change.clone(), Change::Fenced(subject.clone())]);
        assert_eq!(fenced(), [true, both], "{subject:?}");
        replica.apply(Revision(head + 1), Revision(head + 2), std::slice::from_ref(change));
        assert_eq!(fenced(), [false, false], "{subject:?}");
        let (clients, fences) = (vec![own.clone(), app.clone()], vec![subject.clone()]);
        replica.replace(Snapshot { head: Revision(head + 3), clients, fences, ..Snapshot::default() });
        assert_eq!(fenced(), [true, both], "{subject:?} in a snapshot");
        head += 4;
    }
}

#[test]
fn a_practice_switches_all_its_clients_and_no_other() {
    let replica = replica();
    let (a, b) = (client(1, "p", None), client(2, "q", None));
    replica.replace(Snapshot {
        head: Revision(1),
        practices: vec![practice("p", ApiAccess::Active), practice("q", ApiAccess::Active)],
        clients: vec![a.clone(), b.clone()],
        ..Snapshot::default()
    });
    replica.apply(Revision(1), Revision(2), &[Change::Practice("p".parse().unwrap(), Some(practice("p", ApiAccess::Disabled)))]);
    assert_eq!(facts(&replica, &a).unwrap().practice, ApiAccess::Disabled);
    assert_eq!(facts(&replica, &b).unwrap().practice, ApiAccess::Active);
    replica.apply(Revision(2), Revision(3), &[Change::Practice("q".parse().unwrap(), None)]);
    assert_eq!(facts(&replica, &b).unwrap().practice, ApiAccess::None, "a practice that is gone is off");
}

#[test]
fn an_owner_counts_only_on_the_clients_own_team() {
    let replica = replica();
    let (own, stray) = (client(1, "p", Some("u")), client(2, "q", Some("u")));
    replica.apply(Revision(0), Revision(1), &[Change::Client(own.id, Some(own.clone())), Change::Client(stray.id, Some(stray.clone()))]);
    assert_eq!(facts(&replica, &own).unwrap().owner, Some(OwnerFacts { api_access: false, on_team: false }), "an unknown owner is off");
    replica.apply(Revision(1), Revision(2), &[Change::User("u".parse().unwrap(), Some(user("u", "p", true)))]);
    assert_eq!(facts(&replica, &own).unwrap().owner, Some(OwnerFacts { api_access: true, on_team: true }));
    assert_eq!(facts(&replica, &stray).unwrap().owner, Some(OwnerFacts { api_access: true, on_team: false }));
    let left = User { left_at: Some(Timestamp(1)), ..user("u", "p", true) };
    replica.apply(Revision(2), Revision(3), &[Change::User("u".parse().unwrap(), Some(left))]);
    assert_eq!(facts(&replica, &own).unwrap().owner, Some(OwnerFacts { api_access: true, on_team: false }));
}

#[test]
fn an_address_list_is_for_both_spellings_of_an_ipv4_address() {
    let mut listed = client(1, "p", None);
    listed.allowed_addresses = vec!["10.0.0.0/8".parse().unwrap()];
    let replica = replica();
    replica.apply(Revision(0), Revision(1), &[Change::Client(listed.id, Some(listed.clone()))]);
    let record = replica.peek(listed.id).unwrap();
    for (peer, allowed) in [("10.1.2.3", true), ("::ffff:10.1.2.3", true), ("11.0.0.1", false), ("::1", false)] {
        assert_eq!(record.allows(peer.parse().unwrap()), allowed, "{peer}");
    }
}

#[test]
fn a_secret_is_usable_ended_or_wrong() {
    let secrets: Vec<_> = (0..4).map(|_| Secret::generate()).collect();
    let mut rotated = client(1, "p", None);
    let stored = |generation, expires_at| StoredSecret {
        generation,
        digest: secrets[generation as usize - 1].digest(None),
        created_at: Timestamp(0),
        expires_at,
        ended: generation == 3,
    };
    let end = clock::now().after(HOUR);
    rotated.secrets = vec![stored(3, Some(end)), stored(2, Some(end)), stored(1, Some(Timestamp(5)))];
    let replica = replica();
    replica.apply(Revision(0), Revision(1), &[Change::Client(rotated.id, Some(rotated.clone()))]);
    let record = replica.peek(rotated.id).unwrap();
    let presented = |n: usize| Presented::new(&secrets[n - 1], None);
    assert_eq!(record.match_secret(&presented(2), Timestamp(1)), SecretMatch::Usable(2));
    assert_eq!(record.match_secret(&presented(2), end), SecretMatch::Ended(2));
    assert_eq!(record.match_secret(&presented(1), Timestamp(5)), SecretMatch::Ended(1));
    assert_eq!(record.match_secret(&presented(1), Timestamp(4)), SecretMatch::Ended(1), "a clock that is set back revives nothing");
    assert_eq!(record.match_secret(&presented(3), Timestamp(1)), SecretMatch::Ended(3), "somebody has ended it, by a clock that is ahead");
    assert_eq!(record.match_secret(&presented(4), Timestamp(1)), SecretMatch::Wrong);
    assert!(record.secret_usable(2, Timestamp(1)) && !record.secret_usable(2, end) && !record.secret_usable(3, Timestamp(1)));
}

use crate::credential::Presented;

proptest! {
    /// Any order of late answers leaves the replica equal to the store: only the newest answer about all that changed counts.
    #[test]
    fn no_order_of_answers_undoes_a_newer_one(history in prop::collection::vec(0u8..4, 1..20), order in any::<u64>()) {
        let replica = replica();
        let app = client(1, "p", None);
        replica.apply(Revision(0), Revision(1), &[Change::Client(app.id, Some(app.clone()))]);
        // Each state is one revision; the answer for revision n holds the state as of n.
        let answers: Vec<_> = history.iter().enumerate().map(|(n, state)| (Revision(n as u64 + 2), ApiAccess::EVERY[usize::from(*state)])).collect();
        let mut shuffled = answers.clone();
        let mut seed = order;
        for at in (1..shuffled.len()).rev() {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            shuffled.swap(at, usize::try_from(seed >> 33).unwrap() % (at + 1));
        }
        let mut newest = Revision(1);
        for (head, access) in shuffled {
            replica.apply(Revision(0), head, &[Change::Practice("p".parse().unwrap(), Some(practice("p", access)))]);
            newest = newest.max(head);
            let want = answers[usize::try_from(newest.0).unwrap() - 2].1;
            prop_assert_eq!(facts(&replica, &app).unwrap().practice, want);
            prop_assert_eq!(replica.applied(), newest);
        }
    }
}
