//! Signing keys, tokens that are revoked by themselves, and assertions that are used.

use super::*;
use crate::entity::{RevokedToken, StoredKey};
use crate::id::{KeyId, TokenId};
use crate::token::Algorithm;

/// A key that no other call has made.
pub(in crate::store) fn signing_key() -> StoredKey {
    let id = format!("{}{}", uuid::Uuid::new_v4().simple(), "0-_abcdefgh");
    StoredKey {
        id: id.parse().unwrap(),
        algorithm: Algorithm::Es256,
        sealed: [0, 255, 7].into(),
        created_at: now(),
        signs_from: None,
        revoked_at: None,
    }
}

/// A token of a client, which expires in so many hours, or did.
pub(in crate::store) fn token(of: ClientId, hours: i64) -> RevokedToken {
    let expires_at = Timestamp(now().0 + hours * 3_600_000);
    RevokedToken { id: TokenId::random(), client_id: of, expires_at, revoked_at: now() }
}

/// The one change after `head`, which it moves on.
pub(in crate::store) async fn one_change(feed: &mut dyn Feed, head: &mut Revision) -> Change {
    let Changes::Batch { head: newer, mut changes, .. } = feed.poll(*head).await.unwrap() else { panic!("nothing was seen") };
    assert_eq!(changes.len(), 1, "{changes:?}");
    *head = newer;
    assert!(matches!(feed.poll(newer).await.unwrap(), Changes::Unchanged));
    changes.remove(0)
}

async fn events(store: &dyn Store) -> usize {
    store.audit(None).await.unwrap().len()
}

pub(super) async fn a_key_is_planned_once_and_revoked_for_good(store: &dyn Store) {
    furnish(store).await;
    let (mut feed, mut head) = follow(store).await;
    let (mut key, by) = (signing_key(), operator());
    for wrong in [StoredKey { signs_from: Some(now()), ..key.clone() }, StoredKey { revoked_at: Some(now()), ..key.clone() }] {
        is_conflict(store.add_signing_key(&wrong, &by).await, "signs nothing yet");
    }
    let other: KeyId = signing_key().id;
    assert!(matches!(store.plan_signing_key(&other, now(), &by).await, Err(Error::NotFound { what: "signing key", .. })));
    assert!(matches!(store.revoke_signing_key(&other, now(), &by).await, Err(Error::NotFound { what: "signing key", .. })));

    for step in 0..3 {
        // Twice: the second time is the retry of one whose answer was lost.
        let before = events(store).await;
        let mut revisions = Vec::new();
        for at in [5000 + step, if step == 2 { 9000 } else { 5000 + step }] {
            let committed = match step {
                0 => store.add_signing_key(&key, &by).await,
                1 => store.plan_signing_key(&key.id, Timestamp(at), &by).await,
                _ => store.revoke_signing_key(&key.id, Timestamp(at), &by).await,
            };
            revisions.push(committed.unwrap().revision());
        }
        assert!(revisions[0] == revisions[1] && revisions[0] > head, "step {step}: {revisions:?}");
        assert_eq!(events(store).await, before + 1, "step {step}");
        match step {
            0 => {}
            1 => key.signs_from = Some(Timestamp(5001)),
            _ => key.revoked_at = Some(Timestamp(5002)),
        }
        let change = one_change(&mut *feed, &mut head).await;
        assert!(matches!(&change, Change::SigningKey(id, Some(found)) if *id == key.id && *found == key), "step {step}: {change:?}");
        assert_eq!(head, revisions[0]);
        assert_eq!(store.signing_keys().await.unwrap(), std::slice::from_ref(&key));
        assert_eq!(everything(&mut *feed).await.signing_keys, std::slice::from_ref(&key));
        if step == 1 {
            is_conflict(store.plan_signing_key(&key.id, Timestamp(6000), &by).await, "which stays so");
        }
    }
    is_conflict(store.plan_signing_key(&key.id, Timestamp(5001), &by).await, "final");
    is_conflict(store.add_signing_key(&StoredKey { signs_from: None, revoked_at: None, ..key.clone() }, &by).await, "there already");
    assert!(matches!(feed.poll(head).await.unwrap(), Changes::Unchanged), "what is refused changes nothing");

    let newer = StoredKey { created_at: Timestamp(key.created_at.0 + 1), algorithm: Algorithm::EdDsa, ..signing_key() };
    let _ = store.add_signing_key(&newer, &by).await.unwrap();
    assert_eq!(store.signing_keys().await.unwrap(), [newer.clone(), key.clone()], "the newest first");

    let events = store.audit(None).await.unwrap();
    assert_eq!(audit::verify(&events), Ok(()));
    let of_keys: Vec<_> = events.iter().filter(|event| event.practice_id.is_none()).collect();
    let actions: Vec<_> = of_keys.iter().map(|event| (event.action.as_str(), event.target.as_str())).collect();
    let (old, new) = (key.id.as_str(), newer.id.as_str());
    assert_eq!(actions, [("signing_key.add", old), ("signing_key.plan", old), ("signing_key.revoke", old), ("signing_key.add", new)]);
    assert_eq!((&of_keys[0].before, &of_keys[0].after["algorithm"]), (&Value::Null, &Value::from("ES256")));
    assert_eq!(of_keys[2].before["signs_from"], of_keys[2].after["signs_from"]);
    assert!(!serde_json::to_string(&events).unwrap().contains("sealed"));
    feed.leave().await.unwrap();
}

pub(super) async fn a_token_is_revoked_for_good(store: &dyn Store) {
    furnish(store).await;
    let (app, by) = (client(None), operator());
    let _ = store.create_client(&app, &by).await.unwrap();
    let (mut feed, mut head) = follow(store).await;
    let revoked = token(app.client.id, 1);
    let nobodys = token(client(None).client.id, 1);
    assert!(matches!(store.revoke_token(&nobodys, &by).await, Err(Error::NotFound { what: "client", .. })));
    let before = events(store).await;
    let first = store.revoke_token(&revoked, &by).await.unwrap().revision();
    // Said once more, and differently.
    let again = RevokedToken { revoked_at: Timestamp(1), expires_at: Timestamp(1), ..revoked.clone() };
    assert_eq!(store.revoke_token(&again, &by).await.unwrap().revision(), first);
    assert_eq!(events(store).await, before + 1);
    let change = one_change(&mut *feed, &mut head).await;
    assert!(matches!(&change, Change::RevokedToken(id, Some(found)) if *id == revoked.id && *found == revoked), "{change:?}");
    assert_eq!(head, first);
    assert_eq!(everything(&mut *feed).await.revoked_tokens, std::slice::from_ref(&revoked));
    let events = store.audit(Some(&practice_id("p"))).await.unwrap();
    assert_eq!(audit::verify(&events), Ok(()));
    let last = events.last().unwrap();
    assert_eq!((last.action.as_str(), &last.target, &last.before), ("token.revoke", &revoked.id.to_string(), &Value::Null));
    assert_eq!(last.after, serde_json::to_value(&revoked).unwrap());
    // The client being revoked as well is no reason not to.
    let _ = store.revoke_client(app.client.id, now(), &by).await.unwrap();
    let _ = store.revoke_token(&token(app.client.id, 1), &by).await.unwrap();
    feed.leave().await.unwrap();
}

pub(super) async fn tokens_are_revoked_by_many_at_once(store: Arc<dyn Store>) {
    furnish(&*store).await;
    let (app, by) = (client(None), operator());
    let _ = store.create_client(&app, &by).await.unwrap();
    let before = events(&*store).await;
    let revoked = token(app.client.id, 1);
    let calls = (0..8).map(|n| {
        let (store, revoked, by) = (store.clone(), revoked.clone(), by.clone());
        // Half of them the same one.
        let own = token(app.client.id, 1);
        tokio::spawn(async move { store.revoke_token(if n % 2 == 0 { &revoked } else { &own }, &by).await.map(drop) })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap().unwrap();
    }
    assert_eq!(events(&*store).await, before + 5);
    assert_eq!(audit::verify(&store.audit(None).await.unwrap()), Ok(()));
}

pub(super) async fn an_assertion_is_used_once(store: Arc<dyn Store>) {
    furnish(&*store).await;
    let (app, other) = (client(None), client(None));
    let _ = store.create_client(&app, &operator()).await.unwrap();
    let (mut feed, head) = follow(&*store).await;
    let (id, until) = (app.client.id, now().after(Duration::from_mins(1)));
    assert!(store.use_assertion(id, [1; 32], until).await.unwrap());
    for until in [until, Timestamp(1), until.after(Duration::from_hours(1))] {
        assert!(!store.use_assertion(id, [1; 32], until).await.unwrap());
    }
    assert!(store.use_assertion(id, [2; 32], until).await.unwrap());
    assert!(store.use_assertion(other.client.id, [1; 32], until).await.unwrap(), "that of another client is another one");
    let calls = (0..16).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.use_assertion(id, [3; 32], until).await })
    });
    let mut used = 0;
    for call in calls.collect::<Vec<_>>() {
        used += u32::from(call.await.unwrap().unwrap());
    }
    assert_eq!(used, 1);
    assert!(matches!(feed.poll(head).await.unwrap(), Changes::Unchanged), "nobody has to be told");
    feed.leave().await.unwrap();
}

pub(super) async fn only_what_is_a_day_over_is_forgotten(store: &dyn Store) {
    furnish(store).await;
    let (app, by) = (client(None), operator());
    let _ = store.create_client(&app, &by).await.unwrap();
    let id = app.client.id;
    let (mut feed, _) = follow(store).await;
    let (kept, over) = ([token(app.client.id, 1), token(app.client.id, -23)], token(app.client.id, -25));
    for token in [&kept[0], &over, &kept[1]] {
        let _ = store.revoke_token(token, &by).await.unwrap();
        assert!(store.use_assertion(id, [u8::from(*token == over); 32], token.expires_at).await.is_ok());
    }
    let mut head = everything(&mut *feed).await.head;
    let before = events(store).await;
    store.prune_tokens().await.unwrap();
    let change = one_change(&mut *feed, &mut head).await;
    assert!(matches!(change, Change::RevokedToken(id, None) if id == over.id), "{change:?}");
    let mut left: Vec<_> = everything(&mut *feed).await.revoked_tokens;
    left.sort_unstable_by_key(|token| std::cmp::Reverse(token.expires_at));
    assert_eq!(left, kept);
    assert_eq!(events(store).await, before, "what is over is no event");
    assert!(store.use_assertion(id, [1; 32], now()).await.unwrap(), "forgotten");
    assert!(!store.use_assertion(id, [0; 32], now()).await.unwrap(), "remembered");
    store.prune_tokens().await.unwrap();
    assert!(matches!(feed.poll(head).await.unwrap(), Changes::Unchanged));
    feed.leave().await.unwrap();
}
