//! Pages, and who sees what on them.

use super::*;
use crate::entity::RevokedToken;
use crate::id::TokenId;
use crate::store::records::{ClientFilter, ClientKind, Viewer};

pub(super) const VIEWERS: [&str; 5] = ["operator", "admin", "u", "v", "stranger"];

/// As whom somebody looks at the practice `p`.
pub(super) fn viewer(who: &str) -> Viewer {
    match who {
        "operator" => Viewer::Operator,
        "admin" => Viewer::Admin(user_id("admin")),
        member => Viewer::Member(user_id(member)),
    }
}

/// Practice `p` with the members `u` and `v` and one admin, and clients of all of them in the order of their making; and a
/// practice beside it, with a client.
pub(super) async fn populated(store: &dyn Store) -> Vec<Client> {
    furnish(store).await;
    let by = operator();
    for (user, role) in [("v", Role::Member), ("admin", Role::Admin)] {
        let _ = store.put_user(&practice_id("p"), &user_id(user), role, &by).await.unwrap();
        let _ = store.set_user_access(&user_id(user), true, &by).await.unwrap();
    }
    let _ = store.put_practice(&practice_id("q"), "Other", &by).await.unwrap();
    let _ = store.set_practice_access(&practice_id("q"), &[ApiAccess::None], ApiAccess::Active, &by).await.unwrap();
    let mut foreign = client(None);
    foreign.client.practice_id = practice_id("q");
    let _ = store.create_client(&foreign, &by).await.unwrap();
    let mut clients = Vec::new();
    for (n, owner) in [None, Some("u"), None, Some("v"), Some("admin"), None, Some("u")].into_iter().enumerate() {
        let mut new = client(owner);
        // Some at the same moment.
        new.client.created_at = Timestamp(1_000_000 + i64::try_from(n / 3).unwrap());
        let _ = store.create_client(&new, &by).await.unwrap();
        clients.push(new.client);
    }
    clients
}

pub(super) async fn clients_are_shown_to_whom_they_concern_page_by_page(store: &dyn Store) {
    let mut all = populated(store).await;
    let digest = Secret::generate().digest(None);
    let _ = store.add_secret(all[0].id, &digest, now(), now(), &operator()).await.unwrap();
    let _ = store.revoke_client(all[2].id, now(), &operator()).await.unwrap();
    for client in &mut all {
        *client = store.client(client.id).await.unwrap();
    }
    all.sort_unstable_by_key(|client| std::cmp::Reverse((client.created_at, client.id)));
    let owned = |who: &str, client: &Client| match &client.owner {
        None => matches!(who, "operator" | "admin"),
        Some(owner) => owner.as_str() == who,
    };
    for who in VIEWERS {
        for kind in [None, Some(ClientKind::Practice), Some(ClientKind::Personal)] {
            let is_kind = |client: &&Client| kind.is_none_or(|kind| (kind == ClientKind::Personal) == client.owner.is_some());
            let want: Vec<_> = all.iter().filter(|client| owned(who, client)).filter(is_kind).cloned().collect();
            let of = ClientFilter { practice: practice_id("p"), visible_to: viewer(who), kind };
            for limit in [1, 2, 100] {
                let (mut found, mut after) = (Vec::new(), None);
                loop {
                    let page = store.clients_page(&of, after, limit).await.unwrap();
                    assert!(page.len() <= limit as usize);
                    let Some(last) = page.last() else { break };
                    after = Some(last.client.id);
                    found.extend(page.into_iter().map(|row| row.client));
                }
                assert_eq!(found, want, "{who} {kind:?} {limit}");
            }
        }
    }
    // What is made between two pages moves none.
    let of = ClientFilter { practice: practice_id("p"), visible_to: Viewer::Operator, kind: None };
    let first = store.clients_page(&of, None, 1).await.unwrap().remove(0);
    let new = client(None);
    let _ = store.create_client(&new, &operator()).await.unwrap();
    let rest = store.clients_page(&of, Some(first.client.id), 9).await.unwrap();
    assert_eq!(rest.len(), 2);
    assert_eq!(store.clients_page(&of, None, 1).await.unwrap()[0].client, new.client);
    // That there is one after which somebody may not ask is not to be found out either.
    let personal = all.iter().find(|client| client.owner == Some(user_id("u"))).unwrap();
    let foreign = store.clients(Some(&practice_id("q")), None).await.unwrap().remove(0);
    for after in [personal.id, foreign.id, client(None).client.id] {
        assert!(matches!(store.clients_page(&of, Some(after), 9).await, Err(Error::NotFound { what: "client", .. })));
    }
}

pub(super) async fn events_are_shown_to_whom_they_concern_page_by_page(store: &dyn Store) {
    let all = populated(store).await;
    let by = operator();
    for client in &all {
        let token = RevokedToken { id: TokenId::random(), client_id: client.id, expires_at: now(), revoked_at: now() };
        let _ = store.revoke_token(&token, &by).await.unwrap();
        let _ = store.end_secret(client.id, 1, now(), &by).await.unwrap();
        let _ = store.revoke_client(client.id, now(), &by).await.unwrap();
    }
    let (p, events) = (practice_id("p"), store.audit(Some(&practice_id("p"))).await.unwrap());
    let owner_of = |event: &audit::Event| {
        let id = if event.action == "token.revoke" { event.after["client_id"].as_str().unwrap() } else { event.target.as_str() };
        all.iter().find(|client| client.id.to_text() == id).map(|client| client.owner.as_ref().map(|owner| owner.as_str().to_owned()))
    };
    for who in VIEWERS {
        let want: Vec<_> = events
            .iter()
            .rev()
            .filter(|event| match owner_of(event).flatten() {
                None => matches!(who, "operator" | "admin"),
                Some(owner) => owner == who,
            })
            .cloned()
            .collect();
        assert_eq!(want.is_empty(), who == "stranger");
        for limit in [2, 100] {
            let mut found: Vec<audit::Event> = Vec::new();
            loop {
                let page = store.events_page(&p, &viewer(who), found.last().map(|event| event.id), limit).await.unwrap();
                if page.is_empty() {
                    break;
                }
                found.extend(page);
            }
            assert_eq!(found, want, "{who} {limit}");
        }
    }
}

pub(super) async fn the_ledger_is_verified_in_chunks(store: Arc<dyn Store>) {
    let _ = populated(&*store).await;
    let all = store.audit(None).await.unwrap();
    for limit in [1, 5, 1000] {
        let (mut verifier, mut found) = (audit::Verifier::default(), Vec::new());
        loop {
            let chunk = store.audit_chunk(verifier.last_id(), limit).await.unwrap();
            if chunk.is_empty() {
                break;
            }
            for event in &chunk {
                verifier.take(event).unwrap();
            }
            found.extend(chunk);
        }
        assert_eq!(found, all, "{limit}");
    }
    // Also while others write the ledgers of several practices.
    let writers: Vec<_> = ["p", "q", "r", "s"]
        .into_iter()
        .map(|practice| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0..20 {
                    let _ = store.put_practice(&practice_id(practice), &format!("{practice}{n}"), &operator()).await.unwrap();
                }
            })
        })
        .collect();
    let (mut verifier, mut count) = (audit::Verifier::default(), 0);
    loop {
        let done = writers.iter().all(tokio::task::JoinHandle::is_finished);
        let chunk = store.audit_chunk(verifier.last_id(), 7).await.unwrap();
        for event in &chunk {
            verifier.take(event).unwrap();
        }
        count += chunk.len();
        if chunk.is_empty() && done {
            break;
        }
    }
    assert_eq!(count, store.audit(None).await.unwrap().len());
}
