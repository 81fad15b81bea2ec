//! What comes in wrong, and what comes in twice.

use serde_json::{Value, json};
use sigmagate::entity::Role;
use sigmagate::token::Manager;

use super::Managed;

on_both_stores!(
    what_is_wrong_with_a_request_is_said,
    an_edit_is_for_the_client_that_was_looked_at,
    a_list_is_read_page_by_page_without_a_gap,
    a_request_that_comes_twice_is_carried_out_once,
    a_whole_team_is_taken_in_with_an_answer_for_each,
);

async fn what_is_wrong_with_a_request_is_said(managed: Managed) {
    let operator = managed.operator();
    let (clients, client) = ("POST /v1/practices/practice-1/clients", format!("/v1/clients/{}", managed.world.apps["billing"].id));
    let (patch, secrets) = (format!("PATCH {client}"), format!("POST {client}/secrets"));
    let app = |name: &str, value: Value| {
        let mut app = json!({ "name": "App", "scopes": ["billing"] });
        app[name] = value;
        app
    };
    for (line, body, status, field, says) in [
        (clients, json!([]), 400, None, "invalid length 0"),
        (clients, json!({ "scopes": ["billing"] }), 400, None, "missing field `name`"),
        (clients, app("name", json!(7)), 400, Some("name"), "expected a string"),
        (clients, app("name", json!(" ")), 422, None, "the name is empty"),
        (clients, app("name", json!("a".repeat(101))), 422, None, "101 characters"),
        (clients, app("scopes", json!([])), 422, None, "no scope"),
        (clients, app("scopes", json!(["billing", "Not a scope"])), 400, Some("scopes[1]"), "`Not a scope`"),
        (clients, app("scopes", json!("billing")), 400, Some("scopes"), "expected a sequence"),
        (clients, app("allowed_addresses", json!(["10.0.0.1/8"])), 400, Some("allowed_addresses[0]"), "did you mean `10.0.0.0/8`?"),
        (clients, app("allowed_addresses", json!([true])), 400, Some("allowed_addresses[0]"), "expected a string"),
        (clients, app("expires_at", json!("tomorrow")), 400, Some("expires_at"), "2027-01-31T00:00:00Z"),
        (clients, app("expires_at", json!("2001-01-01T00:00:00Z")), 422, None, "past"),
        (clients, app("jwks", json!({ "keys": [] })), 422, None, "the set is empty"),
        (clients, app("jwks_uri", json!("http://keys.test/")), 422, None, "it is not encrypted"),
        (clients, app("owner", json!("member-1")), 400, Some("owner"), "unknown field `owner`"),
        (&patch, json!({ "name": null }), 400, Some("name"), "it is null"),
        (&patch, json!({ "revoked_at": null }), 400, Some("revoked_at"), "unknown field"),
        (&secrets, json!({ "overlap": "2h" }), 400, Some("overlap"), "give `none`, `1h`, `24h` or `7d`"),
        ("PUT /v1/practices/practice-1/team/x", json!({ "role": "owner" }), 400, Some("role"), "`owner` is none of"),
        ("PUT /v1/practices/practice-1/team/x/api-access", json!({ "api_access": "on" }), 400, Some("api_access"), "expected a boolean"),
    ] {
        let answer = managed.ask(&operator, line, Some(body.clone())).await;
        answer.refused(status, if status == 400 { "invalid_request" } else { "invalid_value" });
        assert_eq!(answer.json["field"].as_str(), field, "{line} {body} {}", answer.json);
        assert!(answer.json["detail"].as_str().unwrap().contains(says), "{line} {body} {}", answer.json);
    }
    let url = managed.world.management("/v1/practices/practice-1/clients");
    let post = || managed.world.http.post(&url).bearer_auth(&operator);
    let json = || post().header("content-type", "application/json");
    for (request, status) in [
        (post().body("{}"), 415),
        (post().header("content-type", "text/plain").body("{}"), 415),
        (json().body("{"), 400),
        (json().body("{} {}"), 400),
        (json().body(vec![0xff, 0xfe]), 400),
        (json().body(" ".repeat(65 * 1024)), 413),
        (managed.world.http.get(format!("{url}?limit=0")).bearer_auth(&operator), 400),
        (managed.world.http.get(format!("{url}?limit=201")).bearer_auth(&operator), 400),
        (managed.world.http.get(format!("{url}?limit=x")).bearer_auth(&operator), 400),
        (managed.world.http.get(format!("{url}?cursor=%21")).bearer_auth(&operator), 400),
        (managed.world.http.get(format!("{url}?page=2")).bearer_auth(&operator), 400),
        (managed.world.http.delete(&url).bearer_auth(&operator), 405),
        (managed.world.http.get(managed.world.management("/v1/nowhere")).bearer_auth(&operator), 404),
    ] {
        let answer = request.send().await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.headers()["content-type"].to_str().unwrap()), (status, "application/problem+json"));
    }
}

async fn an_edit_is_for_the_client_that_was_looked_at(managed: Managed) {
    let operator = managed.operator();
    let id = managed.world.apps["billing"].id;
    let (get, patch) = (format!("GET /v1/clients/{id}"), format!("PATCH /v1/clients/{id}"));
    let etag = managed.ask(&operator, &get, None).await.headers["etag"].to_str().unwrap().to_owned();
    let name = |name: &str| Some(json!({ "name": name }));
    let edited = managed.send(&operator, &patch, name("One"), &[("if-match", &etag)]).await;
    let newer = edited.headers["etag"].to_str().unwrap().to_owned();
    assert_eq!((edited.status, newer == etag, edited.json["client"]["name"].as_str()), (200, false, Some("One")));
    for stale in [etag.as_str(), "\"x\"", "W/\"x\"", "x"] {
        managed.send(&operator, &patch, name("Two"), &[("if-match", stale)]).await.refused(412, "precondition_failed");
    }
    for good in [newer.as_str(), "*", &format!("\"x\", {newer}")] {
        assert_eq!(managed.send(&operator, &patch, name("One"), &[("if-match", good)]).await.status, 200, "{good}");
    }
    // What is left out stays, and null takes away.
    let edit = json!({ "tier": "one", "expires_at": "2999-01-01T00:00:00Z", "allowed_addresses": ["192.0.2.7"], "scopes": ["clinical", "billing"] });
    let edited = managed.ask(&operator, &patch, Some(edit)).await.is(200);
    assert_eq!(edited["client"]["allowed_addresses"], json!(["192.0.2.7/32"]));
    assert_eq!(managed.world.status("/billing", "billing").await, 403, "from elsewhere");
    let edited = managed.ask(&operator, &patch, Some(json!({ "tier": null, "allowed_addresses": [] }))).await.is(200);
    assert_eq!((&edited["client"]["tier"], edited["client"]["expires_at"].as_str()), (&Value::Null, Some("2999-01-01T00:00:00Z")));
    let edited = managed.ask(&operator, &patch, Some(json!({ "expires_at": null }))).await.is(200);
    assert_eq!(edited["client"]["expires_at"], Value::Null);
    assert_eq!(managed.world.status("/patients", "billing").await, 200);
}

async fn a_list_is_read_page_by_page_without_a_gap(managed: Managed) {
    let operator = managed.operator();
    let line = "GET /v1/practices/practice-1/clients";
    let whole = managed.ask(&operator, line, None).await.is(200);
    assert_eq!(whole["next"], Value::Null);
    let ids = |page: &Value| page["items"].as_array().unwrap().iter().map(|item| item["client_id"].clone()).collect::<Vec<_>>();
    let (mut read, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = managed.ask(&operator, &format!("{line}?limit=2{cursor}"), None).await.is(200);
        pages += 1;
        read.extend(ids(&page));
        // Who is new meanwhile comes before the first page, and moves nothing.
        let app = json!({ "name": "New", "scopes": ["billing"] });
        managed.ask(&operator, "POST /v1/practices/practice-1/clients", Some(app)).await.is(201);
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!((read, pages), (ids(&whole), 3));
}

async fn a_request_that_comes_twice_is_carried_out_once(managed: Managed) {
    let (operator, other) = (managed.operator(), managed.token(&Manager::Operator { name: "else".into() }));
    let line = "POST /v1/practices/practice-1/clients";
    let app = |name: &str| Some(json!({ "name": name, "scopes": ["billing"] }));
    let keyed =
        async |token: &str, line: &str, body: Option<Value>, key: &str| managed.send(token, line, body, &[("idempotency-key", key)]).await;
    let count = async || managed.world.lifecycle.store().clients(Some(&managed.world.practice), None).await.unwrap().len();
    let before = count().await;
    let first = keyed(&operator, line, app("One"), "k1").await.is(201);
    assert_eq!(managed.status("/billing", &first).await, 200);
    let again = keyed(&operator, line, app("One"), "k1").await;
    assert_eq!((again.status, again.headers["idempotency-replayed"].to_str().unwrap()), (201, "true"));
    assert_eq!((&again.json["client"], &again.json["client_secret"]), (&first["client"], &Value::Null), "a secret is not kept");
    assert_eq!(count().await, before + 1);
    keyed(&operator, line, app("Two"), "k1").await.refused(422, "idempotency_mismatch");
    keyed(&operator, "POST /v1/practices/practice-1/api-access/disable?dry_run=true", None, "k1")
        .await
        .refused(422, "idempotency_mismatch");
    keyed(&other, line, app("One"), "k1").await.is(201);
    assert_eq!(count().await, before + 2, "of another caller it is another key");
    // A refusal is repeated too.
    for _ in 0..2 {
        keyed(&operator, line, app(" "), "k2").await.refused(422, "invalid_value");
    }
    for wrong in ["", "a b", &"k".repeat(256)] {
        keyed(&operator, line, app("Three"), wrong).await.refused(400, "invalid_request");
    }
    // Of many at once one is carried out; the others are told the same, or to look.
    let before = count().await;
    let all = futures_util::future::join_all((0..8).map(|_| keyed(&operator, line, app("Many"), "k3"))).await;
    assert!(all.iter().all(|answer| matches!(answer.status, 201 | 409)), "{all:?}");
    assert_eq!((count().await, all.iter().filter(|answer| answer.json["client_secret"].is_string()).count()), (before + 1, 1));
}

async fn a_whole_team_is_taken_in_with_an_answer_for_each(managed: Managed) {
    let (world, operator) = (&managed.world, managed.operator());
    world.lifecycle.put_practice(&"practice-2".parse().unwrap(), "Other", &world.by).await.unwrap();
    world.lifecycle.put_user(&"practice-2".parse().unwrap(), &"theirs".parse().unwrap(), Role::Member, &world.by).await.unwrap();
    let sync = async |content: String| {
        let request = world.http.post(world.management("/v1/practices/practice-1/team/sync")).bearer_auth(&operator);
        let answer = request.header("content-type", "application/x-ndjson").body(content).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let text = answer.text().await.unwrap();
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>()
    };
    let member = |n: u32| format!("{{\"user_id\":\"u{n}\",\"role\":\"member\",\"email\":\"u{n}@p.test\"}}");
    let mut content = (0..10_000).map(member).collect::<Vec<_>>().join("\n") + "\n";
    content += "{\"user_id\":\"theirs\",\"role\":\"member\"}\n\nnonsense\n{\"user_id\":\"a/b\",\"role\":\"member\"}\n";
    content += "{\"user_id\":\"gone\",\"removed\":true}\n{\"user_id\":\"u1\",\"removed\":true,\"role\":\"admin\"}\n";
    let mut answers = sync(content.clone()).await;
    let last = answers.pop().unwrap();
    assert_eq!((last["done"].as_bool(), last["ok"].as_u64(), last["failed"].as_u64()), (Some(true), Some(10_000), Some(5)), "{last}");
    assert_eq!(last["receipt"]["applied"], 1);
    let failed: Vec<_> = answers.iter().filter(|answer| answer["ok"] == false).map(|answer| answer["line"].as_u64().unwrap()).collect();
    assert_eq!((answers.len(), failed), (10_005, vec![10_001, 10_003, 10_004, 10_005, 10_006]));
    let ledger = async || world.lifecycle.store().audit_chunk(0, 100_000).await.unwrap().len();
    let before = ledger().await;
    assert_eq!(sync(content).await.len(), 10_006);
    assert_eq!(ledger().await, before, "the same again leaves no trace");
    let removed = sync("{\"user_id\":\"u1\",\"removed\":true}".into()).await;
    assert_eq!((removed[0]["ok"].as_bool(), removed[1]["ok"].as_u64()), (Some(true), Some(1)));
    let page = managed.ask(&operator, "GET /v1/practices/practice-1/team?limit=200", None).await.is(200);
    let u1 = page["items"].as_array().unwrap().iter().find(|item| item["user_id"] == "u1").unwrap();
    assert!(u1["left_at"].is_string());
}
