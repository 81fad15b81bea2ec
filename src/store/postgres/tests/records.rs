//! What management remembers, as the database itself holds it: who may touch what.

use super::*;
use crate::clock::{Day, Timestamp};
use crate::entity::{ApiAccess, Role};
use crate::store::records::{DenialRow, Idempotent, MailKind, Outbox, Records, SecretUse, UsageDelta, Viewer};
use crate::store::suite::team::put;
use crate::store::suite::user_id;

/// A database whose schema is there, and two stores on it, as the role of gateways and that of management.
async fn by_role(server: &Postgres) -> (String, PgConnection, PgStore, PgStore) {
    let url = server.database();
    furnish(&open(&url).await).await;
    let mut owner = by_hand(&url).await;
    sql(&mut owner, "CREATE ROLE serves LOGIN IN ROLE gateway_node; CREATE ROLE manages LOGIN IN ROLE gateway_management").await.unwrap();
    let serving = PgStore::open(&url.replace("postgres@", "serves@"), &FLEET, false).await.unwrap();
    let managing = PgStore::open(&url.replace("postgres@", "manages@"), &FLEET, false).await.unwrap();
    (url, owner, serving, managing)
}

fn denied<T>(result: Result<T, Error>) {
    let text = message(result);
    assert!(text.contains("permission denied"), "{text}");
}

/// That neither role may do any of this by hand.
async fn refused_to_both(url: &str, statements: &[&str]) {
    for role in ["serves@", "manages@"] {
        let mut conn = by_hand(&url.replace("postgres@", role)).await;
        for statement in statements {
            let error = sql(&mut conn, statement).await.expect_err(statement);
            assert!(error.contains("permission denied") || error.contains("must be owner"), "{statement}: {error}");
        }
    }
}

#[tokio::test]
async fn management_knows_the_people_and_a_gateway_does_not() {
    let server = Postgres::start(&[]);
    let (url, _, serving, managing) = by_role(&server).await;
    let (p, by) = (practice_id("p"), operator());
    let rows = [put("u", Role::Admin, Some("Ursula"), Some("u@clinic.example")), put("n", Role::Member, None, None)];
    let (results, _) = managing.sync_team(&p, &rows, &by).await.unwrap();
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(managing.team(&p).await.unwrap().len(), 2);
    denied(serving.team(&p).await);
    denied(serving.sync_team(&p, &rows, &by).await);
    refused_to_both(
        &url,
        &[
            "DELETE FROM gateway.people",
            "UPDATE gateway.people SET user_id = 'x'",
            "UPDATE gateway.audit_events SET actor = 'x'",
            "DELETE FROM gateway.audit_events",
            "TRUNCATE gateway.audit_events CASCADE",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_user_whom_another_practice_takes_first_is_a_conflict_and_spoils_nothing() {
    let server = Postgres::start(&[]);
    let url = server.database();
    let store = open(&url).await;
    furnish(&store).await;
    let _ = store.put_practice(&practice_id("q"), "Other", &operator()).await.unwrap();
    let mut other = by_hand(&url).await;
    sql(&mut other, "BEGIN; INSERT INTO gateway.users VALUES ('n', 'q', 'member')").await.unwrap();
    let sync = tokio::spawn(async move {
        let rows = [put("m", Role::Member, Some("M"), None), put("n", Role::Member, Some("N"), None), put("u", Role::Admin, None, None)];
        (store.sync_team(&practice_id("p"), &rows, &operator()).await.unwrap().0, store)
    });
    faults::until(&mut by_hand(&url).await, "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)").await;
    sql(&mut other, "COMMIT").await.unwrap();
    let (results, store) = sync.await.unwrap();
    assert!(matches!(&results[..], [Ok(()), Err(Error::Conflict(_)), Ok(())]), "{results:?}");
    assert_eq!(store.team(&practice_id("p")).await.unwrap().len(), 2);
    assert_eq!(store.team_member(&user_id("n")).await.unwrap().name, None);
    let events = store.audit(None).await.unwrap();
    assert_eq!(audit::verify(&events), Ok(()));
    assert!(events.iter().all(|event| event.target != "n"));
}

#[tokio::test]
async fn management_sends_the_mail_and_a_gateway_only_has_it_queued() {
    let server = Postgres::start(&[]);
    let (url, _, serving, managing) = by_role(&server).await;
    let (p, by, minute) = (practice_id("p"), operator(), Duration::from_mins(1));
    let _ = managing.sync_team(&p, &[put("u", Role::Admin, None, Some("u@clinic.example"))], &by).await.unwrap();
    let app = client(None);
    let _ = managing.create_client(&app, &by).await.unwrap();
    let _ = managing.set_practice_access(&p, &[ApiAccess::Active], ApiAccess::Disabled, &by).await.unwrap();
    let address = "192.0.2.1".parse().unwrap();
    assert!(serving.queue_ended_secret_used(app.client.id, 1, now(), address).await.unwrap());
    assert!(!serving.queue_ended_secret_used(app.client.id, 1, now(), address).await.unwrap());
    denied(serving.claim_mail("node", 9, minute).await);
    denied(serving.outbox_backlog().await);
    let (mut feed, _) = follow(&serving).await;
    let [node] = &managing.nodes().await.unwrap()[..] else { panic!("one node") };
    assert_eq!((node.version.as_deref(), node.behind), (Some(env!("CARGO_PKG_VERSION")), Some(0)));
    feed.leave().await.unwrap();
    let mails = managing.claim_mail("manager", 9, minute).await.unwrap();
    assert_eq!(mails.iter().map(|mail| mail.kind).collect::<Vec<_>>(), [MailKind::AccessDisabled, MailKind::EndedSecretUsed]);
    denied(serving.mail_sent(mails[0].id, "manager").await);
    assert!(managing.mail_sent(mails[0].id, "manager").await.unwrap());
    assert!(managing.mail_failed(mails[1].id, "manager", "no", None).await.unwrap());
    refused_to_both(
        &url,
        &[
            "DELETE FROM gateway.email_outbox",
            "UPDATE gateway.email_outbox SET details = '{}'",
            "UPDATE gateway.email_outbox SET recipient_user = 'x'",
            "UPDATE gateway.ended_secret_told SET day = now()",
            "DELETE FROM gateway.ended_secret_told",
        ],
    )
    .await;
}

#[tokio::test]
async fn what_a_change_was_to_be_told_of_is_undone_with_it() {
    let server = Postgres::start(&[]);
    let url = server.database();
    let store = open(&url).await;
    furnish(&store).await;
    let _ = store.sync_team(&practice_id("p"), &[put("u", Role::Admin, None, Some("u@clinic.example"))], &operator()).await.unwrap();
    let mut owner = by_hand(&url).await;
    sql(&mut owner, "ALTER TABLE gateway.audit_events ADD CONSTRAINT refused CHECK (action <> 'practice.disable')").await.unwrap();
    let refused = store.set_practice_access(&practice_id("p"), &[ApiAccess::Active], ApiAccess::Disabled, &operator()).await;
    assert!(refused.is_err());
    assert_eq!(store.outbox_backlog().await.unwrap(), (0, None));
}

#[tokio::test]
async fn a_request_is_forgotten_after_a_day() {
    let server = Postgres::start(&[]);
    let (url, mut owner, serving, managing) = by_role(&server).await;
    for key in [1, 2, 3] {
        assert_eq!(managing.begin_idempotent("operator", [key; 32], [0; 32]).await.unwrap(), Idempotent::Begun);
    }
    managing.finish_idempotent("operator", [3; 32], 204, "").await.unwrap();
    managing.abandon_idempotent("operator", [2; 32]).await.unwrap();
    denied(serving.begin_idempotent("operator", [1; 32], [0; 32]).await);
    let age = "UPDATE gateway.idempotency_keys SET created_at = now() - interval '25 hours'";
    sql(&mut owner, age).await.unwrap();
    // Whether somebody has come by to forget it or not.
    assert_eq!(managing.begin_idempotent("operator", [3; 32], [9; 32]).await.unwrap(), Idempotent::Begun);
    serving.prune_tokens().await.unwrap();
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM gateway.idempotency_keys").fetch_one(&mut owner).await.unwrap();
    assert_eq!(left, 1);
    assert_eq!(managing.begin_idempotent("operator", [3; 32], [9; 32]).await.unwrap(), Idempotent::UnderWay);
    refused_to_both(&url, &["TRUNCATE gateway.idempotency_keys", "UPDATE gateway.idempotency_keys SET caller = 'x'"]).await;
}

#[tokio::test]
async fn mail_is_forgotten_a_month_after_it_was_sent_and_usage_after_400_days() {
    let server = Postgres::start(&[]);
    let (_, mut owner, serving, _) = by_role(&server).await;
    let mail = "INSERT INTO gateway.email_outbox (kind, practice_id, details, sent_at, given_up_at) VALUES \
                ('access_requested', 'p', '{}', NULL, NULL), \
                ('access_requested', 'p', '{}', now() - interval '29 days', NULL), \
                ('access_requested', 'p', '{}', now() - interval '31 days', NULL), \
                ('access_requested', 'p', '{}', NULL, now() - interval '31 days')";
    sql(&mut owner, mail).await.unwrap();
    let usage = "INSERT INTO gateway.usage_daily (day, client_id, scope) VALUES \
                 ((now() AT TIME ZONE 'UTC')::date - 399, 'c', ''), ((now() AT TIME ZONE 'UTC')::date - 402, 'c', '')";
    sql(&mut owner, usage).await.unwrap();
    serving.prune_tokens().await.unwrap();
    let left = "SELECT ARRAY(SELECT id FROM gateway.email_outbox ORDER BY id) = '{1,2}' AND \
                (SELECT count(*) = 1 AND max(day) = (now() AT TIME ZONE 'UTC')::date - 399 FROM gateway.usage_daily)";
    assert!(sqlx::query_scalar::<_, bool>(left).fetch_one(&mut owner).await.unwrap());
}

#[tokio::test]
async fn a_gateway_counts_and_management_reads_it() {
    let server = Postgres::start(&[]);
    let (url, _, serving, managing) = by_role(&server).await;
    let app = client(None);
    let _ = managing.create_client(&app, &operator()).await.unwrap();
    let (p, day) = (practice_id("p"), Day::of(now()));
    let more = UsageDelta { day, client: app.client.id, scope: None, requests: 2, refused: 1 };
    let used = SecretUse { client: app.client.id, generation: 1, at: now(), address: "192.0.2.1".parse().unwrap() };
    for _ in 0..2 {
        serving.add_usage(std::slice::from_ref(&more), std::slice::from_ref(&used)).await.unwrap();
    }
    assert_eq!(managing.usage(&p, &Viewer::Operator, day, day, None).await.unwrap()[0].requests, 4);
    assert_eq!(managing.active_since(&p, used.at).await.unwrap().clients.len(), 1);
    denied(managing.add_usage(&[more], &[]).await);
    refused_to_both(
        &url,
        &[
            "DELETE FROM gateway.usage_daily",
            "UPDATE gateway.usage_daily SET client_id = 'x'",
            "DELETE FROM gateway.secret_uses",
            "UPDATE gateway.secret_uses SET generation = 7",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_gateway_says_what_it_refused_and_management_reads_it() {
    let server = Postgres::start(&[]);
    let (url, _, serving, managing) = by_role(&server).await;
    let row = DenialRow {
        request_id: "r".into(),
        at: Timestamp(1000),
        practice: practice_id("p"),
        client: None,
        user: None,
        owner: None,
        route: "/a".into(),
        method: "GET".into(),
        path: "/a/b".into(),
        reason: "expired".into(),
        status: 401,
        address: "192.0.2.1".parse().unwrap(),
        revision: Revision(3),
    };
    for _ in 0..2 {
        serving.add_denials(std::slice::from_ref(&row)).await.unwrap();
    }
    assert_eq!(managing.denial("r").await.unwrap().as_ref(), Some(&row));
    assert_eq!(managing.denials_page(&row.practice, &Viewer::Operator, None, 9).await.unwrap(), std::slice::from_ref(&row));
    denied(serving.denial("r").await);
    denied(managing.add_denials(&[row]).await);
    refused_to_both(&url, &["DELETE FROM gateway.denials", "UPDATE gateway.denials SET owner = NULL", "TRUNCATE gateway.denials"]).await;
}
