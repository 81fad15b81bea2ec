//! Mail: what is cause for it, and who gets it.

use serde_json::json;

use super::*;
use crate::store::records::{MailKind, OutboxMail, Recipient};
use crate::store::suite::team::put;

const MINUTE: Duration = Duration::from_mins(1);

/// Practice `p` with two admins, one of them without an address, and the member `u`, whose toggle is on.
async fn staffed(store: &dyn Store) {
    furnish(store).await;
    let rows = [
        put("a", Role::Admin, Some("Ada"), Some("a@clinic.example")),
        put("b", Role::Admin, None, Some("b@clinic.example")),
        put("silent", Role::Admin, Some("S"), None),
        put("u", Role::Member, Some("Ursula"), Some("u@clinic.example")),
    ];
    let (results, _) = store.sync_team(&practice_id("p"), &rows, &operator()).await.unwrap();
    assert!(results.iter().all(Result::is_ok));
    let _ = store.set_user_access(&user_id("u"), true, &operator()).await.unwrap();
}

fn to(mail: &OutboxMail) -> &str {
    match &mail.recipient {
        Recipient::Person { user, .. } => user.as_str(),
        Recipient::Operators => "operators",
    }
}

/// Everything that is due, which is sent then: what it says, and to whom.
async fn sent(store: &dyn Store) -> Vec<(MailKind, String)> {
    let mails = store.claim_mail("test", 100, MINUTE).await.unwrap();
    for mail in &mails {
        assert!(store.mail_sent(mail.id, "test").await.unwrap());
    }
    mails.iter().map(|mail| (mail.kind, to(mail).to_owned())).collect()
}

fn both(kind: MailKind) -> Vec<(MailKind, String)> {
    vec![(kind, "a".into()), (kind, "b".into())]
}

pub(super) async fn a_change_queues_mail_for_whom_it_concerns(store: &dyn Store) {
    staffed(store).await;
    let (p, by) = (practice_id("p"), operator());
    assert_eq!(sent(store).await, [], "nobody had an address when the practice was approved");
    assert_eq!(store.outbox_backlog().await.unwrap(), (0, None));
    let set = async |from, to| drop(store.set_practice_access(&p, &[from], to, &by).await.unwrap());
    set(ApiAccess::Active, ApiAccess::Disabled).await;
    assert_eq!(sent(store).await, both(MailKind::AccessDisabled));
    set(ApiAccess::Active, ApiAccess::Disabled).await;
    set(ApiAccess::Disabled, ApiAccess::Active).await;
    assert_eq!(sent(store).await, [], "neither what is done already, nor what needs no approval");
    set(ApiAccess::Active, ApiAccess::None).await;
    set(ApiAccess::None, ApiAccess::Requested).await;
    assert_eq!(sent(store).await, [(MailKind::AccessRequested, "operators".into())]);
    set(ApiAccess::Requested, ApiAccess::Active).await;
    assert_eq!(sent(store).await, both(MailKind::AccessApproved));

    let (shared, personal) = (client(None), client(Some("u")));
    for new in [&shared, &personal] {
        let _ = store.create_client(new, &by).await.unwrap();
    }
    assert_eq!(sent(store).await, [], "the first secret is no news");
    let (id, ends) = (shared.client.id, Timestamp(5000));
    let _ = store.add_secret(id, &Secret::generate().digest(None), now(), ends, &by).await.unwrap();
    let mails = store.claim_mail("test", 1, MINUTE).await.unwrap();
    let ada = Recipient::Person { user: user_id("a"), name: Some("Ada".into()), email: "a@clinic.example".into() };
    assert_eq!((mails.len(), &mails[0].recipient, mails[0].attempts), (1, &ada, 1));
    assert_eq!((&mails[0].practice_id, &*mails[0].practice_name), (&p, "Practice"));
    assert_eq!(mails[0].client, Some((id, "Billing sync".into())));
    assert_eq!(mails[0].details, json!({ "by": "operator", "generation": 2, "others_end": "1970-01-01T00:00:05Z" }));
    let (waiting, oldest) = store.outbox_backlog().await.unwrap();
    assert_eq!((waiting, oldest), (2, Some(mails[0].created_at)), "what is claimed waits too");
    assert!(store.mail_sent(mails[0].id, "test").await.unwrap());
    assert_eq!(sent(store).await, [(MailKind::SecretRegenerated, "b".into())]);

    // Of a personal client nobody else is told.
    let id = personal.client.id;
    let _ = store.add_secret(id, &Secret::generate().digest(None), now(), ends, &by).await.unwrap();
    let _ = store.end_secret(id, 2, now(), &by).await.unwrap();
    for _ in 0..2 {
        let _ = store.revoke_client(id, now(), &by).await.unwrap();
    }
    assert_eq!(sent(store).await, [(MailKind::SecretRegenerated, "u".into()), (MailKind::ClientRevoked, "u".into())]);
    let _ = store.revoke_client(shared.client.id, now(), &by).await.unwrap();
    assert_eq!(sent(store).await, both(MailKind::ClientRevoked));
    // What is refused leaves nothing behind.
    is_conflict(store.add_secret(id, &Secret::generate().digest(None), now(), ends, &by).await, "final");
    is_conflict(store.set_practice_access(&p, &[ApiAccess::None], ApiAccess::Disabled, &by).await, "only `none`");
    assert_eq!(store.outbox_backlog().await.unwrap(), (0, None));
}

pub(super) async fn mail_is_claimed_by_one_and_tried_again(store: &dyn Store) {
    staffed(store).await;
    let _ = store.set_practice_access(&practice_id("p"), &[ApiAccess::Active], ApiAccess::Disabled, &operator()).await.unwrap();
    let first = store.claim_mail("one", 1, Duration::ZERO).await.unwrap().remove(0);
    // Its claim is over as soon as it is made, and somebody else takes it.
    let mine = store.claim_mail("two", 100, MINUTE).await.unwrap();
    assert_eq!(mine.iter().map(|mail| (to(mail), mail.attempts)).collect::<Vec<_>>(), [("a", 2), ("b", 1)]);
    assert_eq!(store.claim_mail("one", 100, MINUTE).await.unwrap(), []);
    assert!(!store.mail_sent(first.id, "one").await.unwrap());
    assert!(!store.mail_failed(first.id, "one", "too late", None).await.unwrap());
    // To be tried again later, or at once.
    let hour = now().after(Duration::from_hours(1));
    assert!(store.mail_failed(mine[0].id, "two", "the server is busy", Some(hour)).await.unwrap());
    assert!(!store.mail_failed(mine[0].id, "two", "the server is busy", Some(hour)).await.unwrap(), "the claim is over");
    assert_eq!(store.claim_mail("one", 100, MINUTE).await.unwrap(), []);
    assert!(store.mail_failed(mine[1].id, "two", &"\0é".repeat(900), Some(Timestamp(1))).await.unwrap());
    let again = store.claim_mail("one", 100, MINUTE).await.unwrap();
    assert_eq!(again.iter().map(|mail| (to(mail), mail.attempts)).collect::<Vec<_>>(), [("b", 2)]);
    for _ in 0..2 {
        assert!(store.mail_sent(again[0].id, "one").await.unwrap(), "also said twice");
    }
    assert!(!store.mail_failed(again[0].id, "one", "no", None).await.unwrap(), "it is sent");
    assert_eq!(store.outbox_backlog().await.unwrap(), (1, Some(mine[0].created_at)));
    assert!(!store.mail_sent(i64::MAX, "one").await.unwrap());

    let _ = store.set_practice_access(&practice_id("p"), &[ApiAccess::Disabled], ApiAccess::Requested, &operator()).await.unwrap();
    let mail = store.claim_mail("one", 100, MINUTE).await.unwrap().remove(0);
    assert!(store.mail_failed(mail.id, "one", "no such mailbox", None).await.unwrap());
    assert!(!store.mail_sent(mail.id, "one").await.unwrap(), "given up");
    assert_eq!(store.outbox_backlog().await.unwrap().0, 1);
}

pub(super) async fn mail_without_a_recipient_is_given_up(store: &dyn Store) {
    staffed(store).await;
    let by = operator();
    let personal = client(Some("u"));
    let _ = store.create_client(&personal, &by).await.unwrap();
    let _ = store.revoke_client(personal.client.id, now(), &by).await.unwrap();
    let _ = store.set_practice_access(&practice_id("p"), &[ApiAccess::Active], ApiAccess::Disabled, &by).await.unwrap();
    let _ = store.remove_user(&user_id("u"), &by).await.unwrap();
    let _ = store.sync_team(&practice_id("p"), &[put("a", Role::Admin, Some("Ada"), None)], &by).await.unwrap();
    let _ = store.put_practice(&practice_id("p"), "Renamed", &by).await.unwrap();
    // One at a time: those that are given up do not look like an end.
    let mails = store.claim_mail("test", 1, MINUTE).await.unwrap();
    assert_eq!((to(&mails[0]), &*mails[0].practice_name), ("b", "Renamed"));
    assert_eq!(store.outbox_backlog().await.unwrap().0, 1);
    // Back again, what was given up stays so.
    let _ = store.put_user(&practice_id("p"), &user_id("u"), Role::Member, &by).await.unwrap();
    assert_eq!(store.claim_mail("test", 9, MINUTE).await.unwrap(), []);
}

pub(super) async fn many_claim_and_none_gets_what_another_has(store: Arc<dyn Store>) {
    staffed(&*store).await;
    let by = operator();
    let app = client(None);
    let _ = store.create_client(&app, &by).await.unwrap();
    for _ in 0..20 {
        let _ = store.add_secret(app.client.id, &Secret::generate().digest(None), now(), now(), &by).await.unwrap();
    }
    let claims = (0..8).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut mine = Vec::new();
            loop {
                let mails = store.claim_mail(&n.to_string(), 3, MINUTE).await.unwrap();
                if mails.is_empty() {
                    return mine;
                }
                mine.extend(mails.iter().map(|mail| mail.id));
            }
        })
    });
    let mut claimed = Vec::new();
    for claim in claims.collect::<Vec<_>>() {
        claimed.extend(claim.await.unwrap());
    }
    let count = claimed.len();
    claimed.sort_unstable();
    claimed.dedup();
    assert_eq!((count, claimed.len()), (40, 40));
}

pub(super) async fn an_ended_secret_is_told_of_once_a_day(store: Arc<dyn Store>) {
    staffed(&*store).await;
    let by = operator();
    let (shared, personal) = (client(None), client(Some("u")));
    for new in [&shared, &personal] {
        let _ = store.create_client(new, &by).await.unwrap();
    }
    let (address, day): (std::net::IpAddr, i64) = ("2001:db8::7".parse().unwrap(), 86_400_000);
    let unknown = store.queue_ended_secret_used(client(None).client.id, 1, now(), address).await;
    assert!(matches!(unknown, Err(Error::NotFound { what: "client", .. })));
    let id = shared.client.id;
    let nodes = (0..8).map(|n| {
        let store = store.clone();
        tokio::spawn(async move { store.queue_ended_secret_used(id, 1, Timestamp(day + n), address).await.unwrap() })
    });
    let mut queued = 0;
    for node in nodes.collect::<Vec<_>>() {
        queued += u32::from(node.await.unwrap());
    }
    assert_eq!(queued, 1);
    let mails = store.claim_mail("test", 9, MINUTE).await.unwrap();
    assert_eq!(mails.iter().map(|mail| (mail.kind, to(mail).to_owned())).collect::<Vec<_>>(), both(MailKind::EndedSecretUsed));
    assert_eq!((&mails[0].details["generation"], &mails[0].details["address"]), (&Value::from(1), &Value::from("2001:db8::7")));
    assert!(mails[0].details["at"].as_str().unwrap().starts_with("1970-01-02T00:00:00"));
    assert!(!store.queue_ended_secret_used(id, 2, Timestamp(2 * day - 1), address).await.unwrap());
    assert!(store.queue_ended_secret_used(id, 2, Timestamp(2 * day), address).await.unwrap());
    assert!(!store.queue_ended_secret_used(id, 2, Timestamp(day), address).await.unwrap(), "the day before is over");
    assert_eq!(sent(&*store).await, both(MailKind::EndedSecretUsed));
    assert!(store.queue_ended_secret_used(personal.client.id, 1, Timestamp(day), address).await.unwrap());
    assert_eq!(sent(&*store).await, [(MailKind::EndedSecretUsed, "u".into())]);
}
