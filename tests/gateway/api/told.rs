//! What is told of requests: how many there were, when a client was last used, and why one was refused.

use serde_json::{Value, json};
use sigmagate::entity::Role;

use super::Managed;

on_both_stores!(
    everybody_is_told_what_became_of_their_requests_and_nobody_of_others,
    a_stop_in_good_order_loses_nothing,
    secrets_that_are_over_are_told_of_once_a_day_to_whoever_holds_the_client,
);

impl Managed {
    /// The answer once it has something to tell: what clients do is written down in batches.
    async fn once(&self, token: &str, line: &str, told: impl Fn(&Value) -> bool) -> Value {
        loop {
            let answer = self.ask(token, line, None).await.is(200);
            if told(&answer) {
                return answer;
            }
        }
    }
}

async fn everybody_is_told_what_became_of_their_requests_and_nobody_of_others(managed: Managed) {
    let world = &managed.world;
    world.lifecycle.put_user(&world.practice, &"admin-1".parse().unwrap(), Role::Admin, &world.by).await.unwrap();
    let (operator, admin) = (managed.operator(), managed.user("admin-1", "practice-1", true));
    let member = managed.user("member-1", "practice-1", false);
    let (all, personal) = (world.apps["all"].id.to_text(), world.apps["personal"].id.to_text());
    for _ in 0..3 {
        assert_eq!(world.status("/billing", "all").await, 200);
    }
    assert_eq!(world.status("/patients", "all").await, 200);
    assert_eq!(world.status("/billing", "personal").await, 200);
    assert_eq!(world.status("/patients", "billing").await, 403);
    let refused = world.request("GET", "/patients/7?name=x", "personal").send().await.unwrap();
    let request_id = refused.headers()["x-request-id"].to_str().unwrap().to_owned();

    let usage = "GET /v1/practices/practice-1/usage";
    let rows = |answer: &Value| {
        let rows = answer["rows"].as_array().unwrap().iter();
        let row = |row: &Value| {
            (
                row["client_id"].as_str().unwrap().to_owned(),
                row["scope"].as_str().unwrap().to_owned(),
                row["requests"].as_u64(),
                row["refused"].as_u64(),
            )
        };
        let mut rows: Vec<_> = rows.map(row).collect();
        rows.sort();
        rows
    };
    let told = managed.once(&member, usage, |answer| rows(answer).len() == 2).await;
    let mut want =
        vec![(personal.clone(), "billing".to_owned(), Some(1), Some(0)), (personal.clone(), "clinical".to_owned(), Some(1), Some(1))];
    want.sort();
    assert_eq!(rows(&told), want);
    let billing = world.apps["billing"].id.to_text();
    for who in [&admin, &operator] {
        let told = managed.once(who, usage, |answer| rows(answer).len() == 3).await;
        let mut want = vec![
            (all.clone(), "billing".to_owned(), Some(3), Some(0)),
            (all.clone(), "clinical".to_owned(), Some(1), Some(0)),
            (billing.clone(), "clinical".to_owned(), Some(1), Some(1)),
        ];
        want.sort();
        assert_eq!(rows(&told), want, "and not of the personal one");
    }
    let one = managed.ask(&admin, &format!("{usage}?client_id={all}&from=2001-01-01&to=2001-12-31"), None).await.is(200);
    assert_eq!(one["rows"], json!([]));
    managed.ask(&admin, &format!("{usage}?from=2001-01-01&to=2003-01-01"), None).await.refused(422, "invalid_value");
    managed.ask(&admin, &format!("{usage}?from=yesterday"), None).await.refused(400, "invalid_request");

    // When it was last used: seen by whoever sees the client, and before all is switched off.
    let listed = managed.ask(&admin, "GET /v1/practices/practice-1/clients", None).await.is(200);
    let item = listed["items"].as_array().unwrap().iter().find(|item| item["client_id"] == all.as_str()).unwrap();
    assert_eq!((item["last_used"]["address"].as_str(), item["last_used"]["generation"].as_u64()), (Some("127.0.0.1"), Some(1)));
    let preview = managed.ask(&admin, "POST /v1/practices/practice-1/api-access/disable?dry_run=true", None).await.is(200);
    assert_eq!((preview["clients"].as_array().unwrap().len(), preview["people"].as_u64()), (1, Some(1)), "{preview}");
    assert_eq!(preview["clients"][0]["client_id"], all.as_str());

    // Why it was refused.
    let denials = "GET /v1/practices/practice-1/denials";
    let any = |answer: &Value| !answer["items"].as_array().unwrap().is_empty();
    let told = managed.once(&member, denials, any).await;
    let [denial] = told["items"].as_array().unwrap().as_slice() else { panic!("{told}") };
    assert_eq!((denial["request_id"].as_str(), denial["reason"].as_str()), (Some(request_id.as_str()), Some("insufficient_scope")));
    assert_eq!((denial["path"].as_str(), denial["client_id"].as_str()), (Some("/patients/7"), Some(personal.as_str())));
    let told = managed.once(&admin, denials, any).await;
    let [denial] = told["items"].as_array().unwrap().as_slice() else { panic!("{told}") };
    assert_eq!(denial["client_id"], billing.as_str());
    let explained = managed.ask(&operator, &format!("GET /v1/decisions/{}", denial["request_id"].as_str().unwrap()), None).await.is(200);
    let last = explained["checks"].as_array().unwrap().last().unwrap();
    assert_eq!((last["check"].as_str(), last["passed"].as_bool()), (Some("the scopes cover what the route asks for"), Some(false)));
    managed.ask(&operator, &format!("GET /v1/decisions/{request_id}"), None).await.refused(404, "not_found");
    managed.ask(&admin, &format!("GET /v1/decisions/{request_id}"), None).await.refused(403, "forbidden");
}

async fn a_stop_in_good_order_loses_nothing(mut managed: Managed) {
    let world = &mut managed.world;
    for _ in 0..7 {
        assert_eq!(world.status("/billing", "billing").await, 200);
    }
    assert_eq!(world.status("/patients", "billing").await, 403);
    world.server.take().unwrap().stop().await;
    let store = world.lifecycle.store();
    let today = sigmagate::clock::Day::of(sigmagate::clock::now());
    let days = (sigmagate::clock::Day(today.0 - 1), today);
    let rows = store.usage(&world.practice, &sigmagate::store::records::Viewer::Operator, days.0, days.1, None).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.requests).sum::<u64>(), 8);
    let page = store.denials_page(&world.practice, &sigmagate::store::records::Viewer::Operator, None, 10).await.unwrap();
    assert_eq!(page.len(), 1);
}

async fn secrets_that_are_over_are_told_of_once_a_day_to_whoever_holds_the_client(managed: Managed) {
    let (world, operator) = (&managed.world, managed.operator());
    let put = |role: &str, name: &str| Some(json!({ "role": role, "email": format!("{name}@clinic.test") }));
    managed.ask(&operator, "PUT /v1/practices/practice-1/team/admin-1", put("admin", "admin")).await.is(200);
    managed.ask(&operator, "PUT /v1/practices/practice-1/team/member-1", put("member", "member")).await.is(200);
    let app = |name: &str| world.apps[name].id;
    let _ = world.lifecycle.end_secret(app("billing"), 1, &world.by).await.unwrap();
    let _ = world.lifecycle.revoke(app("personal"), &world.by).await.unwrap();
    for _ in 0..2 {
        for name in ["billing", "personal"] {
            assert_eq!(world.status("/billing", name).await, 401);
        }
    }
    let mut mails = managed.mails("ended_secret_used", 2).await;
    mails.sort();
    let [(admin, of_app, _), (member, of_own, text)] = &mails[..] else { panic!("{mails:?}") };
    assert_eq!((admin.as_str(), member.as_str()), ("admin@clinic.test", "member@clinic.test"));
    assert!(of_app.starts_with("Ended API secret still in use: ") && of_app != of_own, "{of_app} {of_own}");
    assert!(text.contains("They are refused.") && text.contains("From:     127.0.0.1"), "{text}");

    // The practice is told of the refusals too, and a wrong secret is nobody's.
    let wrong = json!({ "client": { "client_id": app("all").to_text() }, "client_secret": world.apps["billing"].secret });
    assert_eq!(managed.status("/billing", &wrong).await, 401);
    let admin = managed.user("admin-1", "practice-1", true);
    let told = managed.once(&admin, "GET /v1/practices/practice-1/denials", |answer| answer["items"].as_array().unwrap().len() == 2).await;
    for denial in told["items"].as_array().unwrap() {
        assert_eq!((denial["reason"].as_str(), denial["client_id"].as_str()), (Some("secret_ended"), Some(&*app("billing").to_text())));
    }
}
