//! What every backend must do. A backend's tests call [`run`] with a way to make an empty store.

mod denials;
mod idempotent;
mod mail;
mod pages;
pub(super) mod team;
pub(super) mod tokens;
mod usage;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::{Actor, Change, Changes, ClientEdit, Error, Feed, NewClient, Snapshot, Store, audit};
use crate::clock::{Timestamp, now};
use crate::credential::Secret;
use crate::entity::{ApiAccess, Client, ClientKeys, Role, StoredSecret};
use crate::id::{ClientId, PracticeId, Revision, UserId};

/// Who changes things in tests.
pub(super) fn operator() -> Actor {
    Actor { name: "operator".into(), origin: "test".into() }
}

pub(super) fn practice_id(text: &str) -> PracticeId {
    text.parse().unwrap()
}

pub(super) fn user_id(text: &str) -> UserId {
    text.parse().unwrap()
}

/// A client of practice `p` that no other call has made.
pub(super) fn client(owner: Option<&str>) -> NewClient {
    let mut letters = [0; ClientId::RANDOM];
    getrandom::fill(&mut letters).unwrap();
    let first = StoredSecret { generation: 1, digest: Secret::generate().digest(None), created_at: now(), expires_at: None, ended: false };
    NewClient {
        client: Client {
            id: ClientId::from_random(letters),
            practice_id: practice_id("p"),
            owner: owner.map(user_id),
            name: "Billing sync".into(),
            scopes: vec!["billing".parse().unwrap(), "tasks".parse().unwrap()],
            allowed_addresses: vec!["192.0.2.0/24".parse().unwrap()],
            tier: Some("standard".into()),
            created_at: now(),
            expires_at: Some(now().after(Duration::from_hours(1))),
            revoked_at: None,
            secrets: vec![first],
            keys: ClientKeys::None,
        },
    }
}

/// Practice `p`, active, with the user `u`, whose toggle is on.
pub(super) async fn furnish(store: &dyn Store) {
    let by = operator();
    let _ = store.put_practice(&practice_id("p"), "Practice", &by).await.unwrap();
    let _ = store.set_practice_access(&practice_id("p"), &[ApiAccess::None], ApiAccess::Active, &by).await.unwrap();
    let _ = store.put_user(&practice_id("p"), &user_id("u"), Role::Member, &by).await.unwrap();
    let _ = store.set_user_access(&user_id("u"), true, &by).await.unwrap();
}

/// A snapshot, in lists.
pub(super) async fn everything(feed: &mut dyn Feed) -> Snapshot {
    let mut snapshot = Snapshot::default();
    snapshot.head = feed.snapshot(&mut snapshot).await.unwrap();
    snapshot
}

/// A registered feed and the head of its snapshot.
pub(super) async fn follow(store: &dyn Store) -> (Box<dyn Feed>, Revision) {
    let mut feed = store.feed().await.unwrap();
    feed.register(None).await.unwrap();
    let head = everything(&mut *feed).await.head;
    feed.acknowledge(head).await.unwrap();
    (feed, head)
}

fn is_conflict<T: std::fmt::Debug>(result: Result<T, Error>, part: &str) {
    match result {
        Err(Error::Conflict(text)) => assert!(text.contains(part), "`{text}` says nothing of `{part}`"),
        other => panic!("{other:?} is no conflict about `{part}`"),
    }
}

/// Runs the whole suite, each test on a store of its own.
pub(super) async fn run<F: Future<Output = Arc<dyn Store>>>(empty: impl Fn() -> F) {
    practices_go_through_their_states(&*empty().await).await;
    users_stay_in_their_practice(&*empty().await).await;
    a_client_needs_an_active_practice_and_an_owner_with_access(&*empty().await).await;
    what_is_written_is_read(&*empty().await).await;
    revocation_is_final(&*empty().await).await;
    rotation_ends_the_others_and_never_later_than_they_would_have(&*empty().await).await;
    every_change_reaches_the_feed_once(&*empty().await).await;
    a_retry_writes_nothing(&*empty().await).await;
    the_ledger_names_every_change_and_no_secret(&*empty().await).await;
    a_barrier_waits_for_the_acknowledgement(empty().await).await;
    a_node_that_is_silent_is_outwaited(&*empty().await).await;
    the_register_tells_who_is_behind(&*empty().await).await;
    tokens::a_key_is_planned_once_and_revoked_for_good(&*empty().await).await;
    tokens::a_token_is_revoked_for_good(&*empty().await).await;
    tokens::tokens_are_revoked_by_many_at_once(empty().await).await;
    tokens::an_assertion_is_used_once(empty().await).await;
    tokens::only_what_is_a_day_over_is_forgotten(&*empty().await).await;
    team::a_team_is_taken_in_row_by_row(&*empty().await).await;
    team::what_is_said_again_leaves_no_trace(&*empty().await).await;
    team::rows_of_one_user_count_in_their_order(&*empty().await).await;
    team::a_large_team_is_taken_in_at_once(&*empty().await).await;
    idempotent::a_request_is_carried_out_once_and_answered_as_often_as_it_comes(&*empty().await).await;
    idempotent::of_many_at_once_one_is_begun(empty().await).await;
    mail::a_change_queues_mail_for_whom_it_concerns(&*empty().await).await;
    mail::mail_is_claimed_by_one_and_tried_again(&*empty().await).await;
    mail::mail_without_a_recipient_is_given_up(&*empty().await).await;
    mail::many_claim_and_none_gets_what_another_has(empty().await).await;
    mail::an_ended_secret_is_told_of_once_a_day(empty().await).await;
    pages::clients_are_shown_to_whom_they_concern_page_by_page(&*empty().await).await;
    pages::events_are_shown_to_whom_they_concern_page_by_page(&*empty().await).await;
    pages::the_ledger_is_verified_in_chunks(empty().await).await;
    denials::denials_are_shown_to_whom_they_concern_page_by_page(&*empty().await).await;
    denials::the_newest_ten_thousand_of_each_practice_are_kept(&*empty().await).await;
    usage::usage_adds_up_and_is_shown_to_whom_it_concerns(empty().await).await;
    usage::the_last_use_is_the_latest_whoever_tells_of_it_last(&*empty().await).await;
}

async fn the_register_tells_who_is_behind(store: &dyn Store) {
    assert_eq!(store.nodes().await.unwrap(), []);
    let before = now();
    let (mut feed, head) = follow(store).await;
    let [node] = &store.nodes().await.unwrap()[..] else { panic!("one node") };
    assert_eq!((node.applied, node.behind), (head, Some(0)));
    // By the database's clock, which need not be ours.
    assert!(node.bound >= store.lease() && node.started_at.0.abs_diff(before.0) < 3_600_000, "{node:?}");
    let committed = store.put_practice(&practice_id("p"), "P", &operator()).await.unwrap();
    let behind = store.nodes().await.unwrap();
    assert!(behind[0].id == node.id && behind[0].applied == head && behind[0].behind > Some(0), "{behind:?}");
    let Changes::Batch { head, .. } = feed.poll(head).await.unwrap() else { panic!("a change") };
    assert!(head >= committed.revision());
    feed.acknowledge(head).await.unwrap();
    let current = store.nodes().await.unwrap();
    assert_eq!((current[0].applied, current[0].behind), (head, Some(0)));
    feed.leave().await.unwrap();
    assert_eq!(store.nodes().await.unwrap(), []);
}

async fn practices_go_through_their_states(store: &dyn Store) {
    let (p, by) = (practice_id("p"), operator());
    assert!(matches!(store.practice(&p).await, Err(Error::NotFound { what: "practice", .. })));
    assert!(matches!(store.set_practice_access(&p, &[ApiAccess::None], ApiAccess::Active, &by).await, Err(Error::NotFound { .. })));
    let _ = store.put_practice(&p, "One", &by).await.unwrap();
    assert_eq!(store.practice(&p).await.unwrap().api_access, ApiAccess::None);
    is_conflict(store.set_practice_access(&p, &[ApiAccess::Active], ApiAccess::Disabled, &by).await, "only `active` can become `disabled`");
    let _ = store.set_practice_access(&p, &[ApiAccess::None], ApiAccess::Requested, &by).await.unwrap();
    let _ = store.set_practice_access(&p, &[ApiAccess::Requested], ApiAccess::Active, &by).await.unwrap();
    let _ = store.put_practice(&p, "Two", &by).await.unwrap();
    let practice = store.practice(&p).await.unwrap();
    assert_eq!((&*practice.name, practice.api_access), ("Two", ApiAccess::Active), "a new name leaves the state alone");
    assert_eq!(store.practices().await.unwrap(), [practice]);
}

async fn users_stay_in_their_practice(store: &dyn Store) {
    furnish(store).await;
    let by = operator();
    let _ = store.put_practice(&practice_id("q"), "Other", &by).await.unwrap();
    is_conflict(store.put_user(&practice_id("q"), &user_id("u"), Role::Admin, &by).await, "another practice");
    let _ = store.put_user(&practice_id("p"), &user_id("u"), Role::Admin, &by).await.unwrap();
    let user = store.user(&user_id("u")).await.unwrap();
    assert!(user.role == Role::Admin && user.api_access, "a new role leaves the toggle alone");
    let _ = store.remove_user(&user_id("u"), &by).await.unwrap();
    is_conflict(store.set_user_access(&user_id("u"), true, &by).await, "no longer on the team");
    let _ = store.put_user(&practice_id("p"), &user_id("u"), Role::Member, &by).await.unwrap();
    let user = store.user(&user_id("u")).await.unwrap();
    assert!(user.left_at.is_none() && !user.api_access, "back on the team, but without access");
    assert_eq!(store.users(&practice_id("p")).await.unwrap(), [user]);
    assert!(matches!(store.users(&practice_id("none")).await, Err(Error::NotFound { .. })));
}

async fn a_client_needs_an_active_practice_and_an_owner_with_access(store: &dyn Store) {
    let by = operator();
    assert!(matches!(store.create_client(&client(None), &by).await, Err(Error::NotFound { what: "practice", .. })));
    furnish(store).await;
    let _ = store.create_client(&client(None), &by).await.unwrap();
    let _ = store.create_client(&client(Some("u")), &by).await.unwrap();
    is_conflict(store.create_client(&client(Some("nobody")), &by).await, "not on the team");
    let _ = store.set_user_access(&user_id("u"), false, &by).await.unwrap();
    is_conflict(store.create_client(&client(Some("u")), &by).await, "turn it on");
    let _ = store.remove_user(&user_id("u"), &by).await.unwrap();
    is_conflict(store.create_client(&client(Some("u")), &by).await, "not on the team");
    let _ = store.set_practice_access(&practice_id("p"), &[ApiAccess::Active], ApiAccess::Disabled, &by).await.unwrap();
    is_conflict(store.create_client(&client(None), &by).await, "enable it first");
    assert_eq!(store.clients(None, None).await.unwrap().len(), 2);
}

async fn what_is_written_is_read(store: &dyn Store) {
    furnish(store).await;
    let by = operator();
    let (mut shared, personal) = (client(None), client(Some("u")));
    shared.client.allowed_addresses.clear();
    (shared.client.tier, shared.client.expires_at) = (None, None);
    shared.client.keys = ClientKeys::Jwks(r#"{"keys": []}"#.into());
    for new in [&shared, &personal] {
        let _ = store.create_client(new, &by).await.unwrap();
        assert_eq!(store.client(new.client.id).await.unwrap(), new.client);
    }
    assert_eq!(store.clients(None, Some(&user_id("u"))).await.unwrap(), std::slice::from_ref(&personal.client));
    assert_eq!(store.clients(Some(&practice_id("p")), Some(&user_id("u"))).await.unwrap(), std::slice::from_ref(&personal.client));
    assert_eq!(store.clients(Some(&practice_id("p")), None).await.unwrap().len(), 2);
    assert_eq!(store.clients(Some(&practice_id("q")), None).await.unwrap(), []);
    let edit = ClientEdit {
        name: Some("New".into()),
        scopes: Some(vec!["all".parse().unwrap()]),
        allowed_addresses: Some(Vec::new()),
        tier: Some(None),
        expires_at: Some(None),
        keys: Some(ClientKeys::Url("https://app.example/keys".into())),
        only_if: Some(personal.client.version()),
    };
    let _ = store.edit_client(personal.client.id, &edit, &by).await.unwrap();
    assert!(matches!(store.edit_client(personal.client.id, &edit, &by).await, Err(Error::Changed { .. })), "it is another one by now");
    let read = store.client(personal.client.id).await.unwrap();
    assert_eq!((&*read.name, read.scopes[0].is_all(), read.allowed_addresses.len()), ("New", true, 0));
    assert_eq!((read.tier, read.expires_at, read.keys.url()), (None, None, Some("https://app.example/keys")));
    let mut feed = store.feed().await.unwrap();
    feed.register(None).await.unwrap();
    let snapshot = everything(&mut *feed).await;
    assert_eq!(snapshot.clients.len(), 2);
    for client in &snapshot.clients {
        assert_eq!(*client, store.client(client.id).await.unwrap(), "the snapshot says the same");
    }
    // And so do changes.
    let head = snapshot.head;
    let (gone, kept) = (ClientEdit { keys: Some(ClientKeys::None), ..ClientEdit::default() }, ClientEdit::default());
    let _ = store.edit_client(personal.client.id, &gone, &by).await.unwrap();
    let last = store.edit_client(shared.client.id, &ClientEdit { name: Some("Other".into()), ..kept }, &by).await.unwrap();
    let Changes::Batch { head: newer, changes, .. } = feed.poll(head).await.unwrap() else { panic!("not seen") };
    assert_eq!((newer, changes.len()), (last.revision(), 2));
    for change in changes {
        let Change::Client(id, Some(client)) = change else { panic!("{change:?}") };
        assert_eq!(client, store.client(id).await.unwrap());
        assert_eq!(client.keys, if id == shared.client.id { shared.client.keys.clone() } else { ClientKeys::None });
    }
}

async fn revocation_is_final(store: &dyn Store) {
    furnish(store).await;
    let (new, by) = (client(None), operator());
    let id = new.client.id;
    let _ = store.create_client(&new, &by).await.unwrap();
    let first = store.revoke_client(id, Timestamp(5000), &by).await.unwrap();
    assert_eq!(store.client(id).await.unwrap().revoked_at, Some(Timestamp(5000)));
    let again = store.revoke_client(id, Timestamp(9000), &by).await.unwrap();
    assert!(again.revision() >= first.revision());
    assert_eq!(store.client(id).await.unwrap().revoked_at, Some(Timestamp(5000)), "the first date stays");
    is_conflict(store.edit_client(id, &ClientEdit { name: Some("x".into()), ..ClientEdit::default() }, &by).await, "final");
    is_conflict(store.add_secret(id, &Secret::generate().digest(None), now(), now(), &by).await, "final");
    is_conflict(store.create_client(&new, &by).await, "its id is taken for good");
    assert!(matches!(store.revoke_client(client(None).client.id, now(), &by).await, Err(Error::NotFound { .. })));
}

async fn rotation_ends_the_others_and_never_later_than_they_would_have(store: &dyn Store) {
    furnish(store).await;
    let (new, by) = (client(None), operator());
    let id = new.client.id;
    let _ = store.create_client(&new, &by).await.unwrap();
    let add = async |end: i64| {
        let digest = Secret::generate().digest(None);
        let (generation, _) = store.add_secret(id, &digest, Timestamp(1), Timestamp(end), &by).await.unwrap();
        generation
    };
    assert_eq!(add(5000).await, 2);
    assert_eq!(add(9000).await, 3);
    let ends = async || -> Vec<_> {
        store.client(id).await.unwrap().secrets.iter().map(|secret| (secret.generation, secret.expires_at.map(|at| at.0))).collect()
    };
    assert_eq!(ends().await, [(3, None), (2, Some(9000)), (1, Some(1))]);
    let _ = store.end_secret(id, 2, Timestamp(6000), &by).await.unwrap();
    let _ = store.end_secret(id, 1, Timestamp(6000), &by).await.unwrap();
    assert_eq!(ends().await, [(3, None), (2, Some(6000)), (1, Some(1))]);
    let ended: Vec<_> = store.client(id).await.unwrap().secrets.iter().map(|secret| secret.ended).collect();
    assert_eq!(ended, [false, true, true], "whatever the clock of a node says");
    // A caller whose clock is ahead: it is over all the same.
    let _ = store.end_secret(id, 3, now().after(Duration::from_hours(1)), &by).await.unwrap();
    let newest = store.client(id).await.unwrap().secrets[0].clone();
    assert!(newest.ended && !newest.usable_at(now()), "{newest:?}");
    assert!(matches!(store.end_secret(id, 9, Timestamp(1), &by).await, Err(Error::NotFound { what: "secret", .. })));
}

async fn every_change_reaches_the_feed_once(store: &dyn Store) {
    furnish(store).await;
    let (mut feed, mut head) = follow(store).await;
    assert!(matches!(feed.poll(head).await.unwrap(), Changes::Unchanged));
    let (new, by) = (client(Some("u")), operator());
    let (p, u, id) = (practice_id("p"), user_id("u"), new.client.id);
    let edit = ClientEdit { name: Some("x".into()), ..ClientEdit::default() };
    for step in 0..8 {
        let committed = match step {
            0 => store.put_practice(&p, "New", &by).await,
            1 => store.create_client(&new, &by).await,
            2 => store.edit_client(id, &edit, &by).await,
            3 => store.add_secret(id, &Secret::generate().digest(None), now(), now(), &by).await.map(|(_, committed)| committed),
            4 => store.end_secret(id, 2, now(), &by).await,
            5 => store.revoke_client(id, now(), &by).await,
            6 => store.set_user_access(&u, false, &by).await,
            _ => store.set_practice_access(&p, &[ApiAccess::Active], ApiAccess::Disabled, &by).await,
        }
        .unwrap();
        assert!(committed.revision() > head, "step {step}");
        let Changes::Batch { head: new_head, changes, .. } = feed.poll(head).await.unwrap() else { panic!("step {step} was not seen") };
        assert_eq!((new_head, changes.len()), (committed.revision(), 1), "step {step}");
        match &changes[0] {
            Change::Practice(_, practice) => assert_eq!(practice.as_ref(), Some(&store.practice(&p).await.unwrap())),
            Change::User(_, user) => assert_eq!(user.as_ref(), Some(&store.user(&u).await.unwrap())),
            Change::Client(_, client) => assert_eq!(client.as_ref(), Some(&store.client(id).await.unwrap())),
            other @ (Change::SigningKey(..) | Change::RevokedToken(..)) => panic!("nobody asked for {other:?}"),
            Change::Fenced(subject) => panic!("nobody asked for a fence of {subject:?}"),
        }
        head = new_head;
        assert!(matches!(feed.poll(head).await.unwrap(), Changes::Unchanged));
    }
    // What was delivered but not taken in is delivered again.
    let before = Revision(head.0 - 1);
    assert!(matches!(feed.poll(before).await.unwrap(), Changes::Batch { head: again, .. } if again == head));
    assert!(matches!(feed.poll(Revision(head.0 + 10)).await.unwrap(), Changes::Gap), "the log goes less far than was asked");
    feed.leave().await.unwrap();
}

async fn a_retry_writes_nothing(store: &dyn Store) {
    furnish(store).await;
    let (new, by) = (client(None), operator());
    let _ = store.create_client(&new, &by).await.unwrap();
    let last = store.revoke_client(new.client.id, now(), &by).await.unwrap();
    let events = store.audit(None).await.unwrap().len();
    furnish_again(store).await;
    let again = store.revoke_client(new.client.id, now(), &by).await.unwrap();
    assert_eq!(again.revision(), last.revision());
    assert_eq!(store.audit(None).await.unwrap().len(), events);
}

async fn furnish_again(store: &dyn Store) {
    let by = operator();
    let _ = store.put_practice(&practice_id("p"), "Practice", &by).await.unwrap();
    let _ = store.set_practice_access(&practice_id("p"), &[ApiAccess::None], ApiAccess::Active, &by).await.unwrap();
    let _ = store.put_user(&practice_id("p"), &user_id("u"), Role::Member, &by).await.unwrap();
    let _ = store.set_user_access(&user_id("u"), true, &by).await.unwrap();
}

async fn the_ledger_names_every_change_and_no_secret(store: &dyn Store) {
    furnish(store).await;
    let (new, by) = (client(None), operator());
    let _ = store.create_client(&new, &by).await.unwrap();
    let _ = store.put_practice(&practice_id("q"), "Other", &by).await.unwrap();
    let _ = store.revoke_client(new.client.id, now(), &by).await.unwrap();
    let events = store.audit(None).await.unwrap();
    let actions: Vec<_> = events.iter().map(|event| event.action.as_str()).collect();
    let start = ["practice.put", "practice.approve", "user.put", "user.access_on"];
    assert_eq!(actions, [&start[..], &["client.create", "practice.put", "client.revoke"]].concat());
    assert_eq!(audit::verify(&events), Ok(()));
    let of_practice = store.audit(Some(&practice_id("p"))).await.unwrap();
    assert_eq!((of_practice.len(), audit::verify(&of_practice)), (6, Ok(())));
    let created = &events[4];
    assert_eq!((&created.before, &created.after["id"]), (&Value::Null, &Value::from(new.client.id.to_text())));
    assert!(!serde_json::to_string(&events).unwrap().contains("digest"));
    // A secret that has ended, and that a change leaves as it is, was told of before.
    let rotated = client(None);
    let _ = store.create_client(&rotated, &by).await.unwrap();
    for _ in 0..3 {
        let digest = Secret::generate().digest(None);
        let _ = store.add_secret(rotated.client.id, &digest, now(), now(), &by).await.unwrap();
    }
    let _ = store.end_secret(rotated.client.id, 4, now(), &by).await.unwrap();
    let of_secrets: Vec<[Vec<u64>; 2]> = store.audit(Some(&practice_id("p"))).await.unwrap()[7..]
        .iter()
        .map(|event| {
            let generations = |client: &Value| -> Vec<u64> {
                client["secrets"].as_array().unwrap().iter().map(|secret| secret["generation"].as_u64().unwrap()).collect()
            };
            [generations(&event.before), generations(&event.after)]
        })
        .collect();
    assert_eq!(of_secrets, [[vec![1], vec![2, 1]], [vec![2], vec![3, 2]], [vec![3], vec![4, 3]], [vec![4], vec![4]]]);
    let mut altered = events.clone();
    altered[4].actor = "somebody else".into();
    assert_eq!(audit::verify(&altered).unwrap_err().id, altered[4].id);
}

async fn a_barrier_waits_for_the_acknowledgement(store: Arc<dyn Store>) {
    let by = operator();
    let committed = store.put_practice(&practice_id("p"), "Practice", &by).await.unwrap();
    let receipt = store.barrier(committed).await.unwrap();
    assert_eq!((receipt.applied, receipt.expired), (0, 0), "nobody is there to wait for");
    let (mut feed, head) = follow(&*store).await;
    let committed = store.put_practice(&practice_id("p"), "Again", &by).await.unwrap();
    let revision = committed.revision();
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.barrier(committed).await }
    });
    assert!(matches!(feed.poll(head).await.unwrap(), Changes::Batch { head, .. } if head == revision));
    assert!(!waiting.is_finished(), "delivered is not yet applied");
    feed.acknowledge(revision).await.unwrap();
    let receipt = waiting.await.unwrap().unwrap();
    assert_eq!((receipt.revision, receipt.applied, receipt.expired), (revision, 1, 0));
    assert!(receipt.waited < store.lease());
    feed.leave().await.unwrap();
}

async fn a_node_that_is_silent_is_outwaited(store: &dyn Store) {
    let (_feed, _) = follow(store).await;
    let committed = store.put_practice(&practice_id("p"), "Practice", &operator()).await.unwrap();
    let receipt = store.barrier(committed).await.unwrap();
    assert_eq!((receipt.applied, receipt.expired), (0, 1));
    assert!(receipt.waited > store.lease(), "its lease may have been renewed just before the commit");
}
