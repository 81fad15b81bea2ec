//! Who may do what.

use serde_json::{Value, json};
use sigmagate::admin;
use sigmagate::entity::Role;

use super::Managed;

on_both_stores!(
    nobody_reaches_anything_without_a_management_token,
    what_somebody_may_not_see_is_not_there,
    what_was_tried_and_refused_is_in_the_ledger_and_so_is_who_reads_it,
);

/// Every path and method that the document tells of, with ids that could be.
fn every() -> Vec<String> {
    let document = serde_json::to_value(admin::document()).unwrap();
    let mut lines = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let path = path
            .replace("{practice_id}", "practice-1")
            .replace("{user_id}", "member-1")
            .replace("{client_id}", "smd_0123456789abcdefGHIJ")
            .replace("{generation}", "1")
            .replace("{request_id}", "0190");
        assert!(!path.contains('{'), "{path}");
        for method in item.as_object().unwrap().keys().filter(|key| ["get", "put", "post", "patch", "delete"].contains(&key.as_str())) {
            lines.push(format!("{} {path}", method.to_uppercase()));
        }
    }
    assert!(lines.len() >= 20, "{lines:?}");
    lines
}

async fn nobody_reaches_anything_without_a_management_token(managed: Managed) {
    let world = &managed.world;
    let access = {
        let form = [("grant_type", "client_credentials")];
        let app = &world.apps["all"];
        let asked = world.http.post(world.url("/oauth/token")).basic_auth(app.id, Some(&app.secret)).form(&form);
        asked.send().await.unwrap().json::<Value>().await.unwrap()["access_token"].as_str().unwrap().to_owned()
    };
    let (mut operator, ledger) = (managed.operator(), world.lifecycle.store().audit(None).await.unwrap().len());
    let stranger = managed.user("member-1", "practice-2", true);
    let unknown = managed.user("nobody", "practice-1", true);
    world.lifecycle.put_user(&world.practice, &"left".parse().unwrap(), Role::Admin, &world.by).await.unwrap();
    world.lifecycle.remove_user(&"left".parse().unwrap(), &world.by).await.unwrap();
    let left = managed.user("left", "practice-1", true);
    operator.truncate(operator.len() - 4);
    for line in every() {
        let (method, path) = line.split_once(' ').unwrap();
        let bare = || world.http.request(method.parse().unwrap(), world.management(path)).json(&json!({}));
        for request in [bare(), bare().header("authorization", "Basic YTpi"), bare().header("authorization", "Bearer")] {
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), 401, "{line}");
            assert!(answer.headers()["www-authenticate"].to_str().unwrap().starts_with("Bearer"), "{line}");
        }
        for token in ["x", &access, &operator, &stranger, &unknown, &left] {
            managed.ask(token, &line, Some(json!({}))).await.refused(401, "unauthenticated");
        }
    }
    assert_eq!(world.lifecycle.store().audit(None).await.unwrap().len(), ledger + 2, "nothing was done");
    // And no management token opens the data plane.
    let answer = world.http.get(world.url("/billing")).bearer_auth(managed.operator()).send().await.unwrap();
    assert_eq!(answer.status(), 401);
}

async fn what_somebody_may_not_see_is_not_there(managed: Managed) {
    let world = &managed.world;
    let (practice, by) = (&world.practice, &world.by);
    for (id, role) in [("admin-1", Role::Admin), ("admin-2", Role::Admin)] {
        world.lifecycle.put_user(practice, &id.parse().unwrap(), role, by).await.unwrap();
    }
    world.lifecycle.put_practice(&"practice-2".parse().unwrap(), "Other", by).await.unwrap();
    world.lifecycle.put_user(&"practice-2".parse().unwrap(), &"other-admin".parse().unwrap(), Role::Admin, by).await.unwrap();
    let (operator, admin) = (managed.operator(), managed.user("admin-1", "practice-1", true));
    let (member, other) = (managed.user("member-1", "practice-1", false), managed.user("other-admin", "practice-2", true));
    // An admin is who is called so by the token and by the team.
    let (modest, posing) = (managed.user("admin-2", "practice-1", false), managed.user("member-1", "practice-1", true));
    let of = |app: &str, rest: &str| format!("/v1/clients/{}{rest}", world.apps[app].id);
    let shared = of("billing", "");
    let personal = of("personal", "");
    let rows: Vec<(String, [u16; 6])> = vec![
        //                                                       operator, admin, member, other, modest, posing
        ("GET /v1/practices/practice-1/api-access".into(), [200, 200, 403, 404, 403, 403]),
        ("GET /v1/practices/practice-1/clients".into(), [200, 200, 403, 404, 403, 403]),
        ("GET /v1/practices/practice-1/team".into(), [200, 200, 403, 404, 403, 403]),
        ("GET /v1/practices/practice-1/audit".into(), [200, 200, 200, 404, 200, 200]),
        ("GET /v1/practices/practice-1/usage".into(), [200, 200, 200, 404, 200, 200]),
        ("GET /v1/practices/nowhere/usage".into(), [404, 404, 404, 404, 404, 404]),
        ("GET /v1/practices/nowhere/team".into(), [404, 404, 404, 404, 404, 404]),
        ("GET /v1/practices/nowhere/clients".into(), [404, 404, 404, 404, 404, 404]),
        ("GET /v1/practices/a%2Fb/clients".into(), [404, 404, 404, 404, 404, 404]),
        (format!("GET {shared}"), [200, 200, 404, 404, 404, 404]),
        (format!("GET {personal}"), [404, 404, 200, 404, 404, 200]),
        ("GET /v1/clients/smd_0123456789abcdefGHIJ".into(), [404, 404, 404, 404, 404, 404]),
        ("GET /v1/clients/no-client".into(), [404, 404, 404, 404, 404, 404]),
        ("GET /v1/me/api-access".into(), [403, 200, 200, 200, 200, 200]),
        ("GET /v1/me/clients".into(), [403, 200, 200, 200, 200, 200]),
        ("GET /v1/config".into(), [200, 403, 403, 403, 403, 403]),
        ("GET /v1/nodes".into(), [200, 403, 403, 403, 403, 403]),
    ];
    let tokens = [&operator, &admin, &member, &other, &modest, &posing];
    for (line, want) in &rows {
        for (token, want) in tokens.iter().zip(want) {
            assert_eq!(managed.ask(token, line, None).await.status, *want, "{line} as {:?}", tokens.iter().position(|t| t == token));
        }
    }
    let nodes = managed.ask(&operator, "GET /v1/nodes", None).await.is(200);
    let [node] = nodes["items"].as_array().unwrap().as_slice() else { panic!("{nodes}") };
    assert!(node["behind"] == 0 && node["bound_ms"].as_u64() > Some(0) && node["started_at"].is_string(), "{nodes}");
    // A personal client of somebody else is told of in the same words as one that is not.
    let hidden = managed.ask(&admin, &format!("GET {personal}"), None).await.json;
    let absent = managed.ask(&admin, "GET /v1/clients/smd_0123456789abcdefGHIJ", None).await.json;
    let id = world.apps["personal"].id.to_text();
    assert_eq!(
        hidden["detail"].as_str().unwrap().replace(&id, "X"),
        absent["detail"].as_str().unwrap().replace("smd_0123456789abcdefGHIJ", "X")
    );
    // Changes: who may not, changes nothing.
    for (line, body) in [
        ("PUT /v1/practices/practice-1".to_owned(), Some(json!({ "name": "x" }))),
        ("PUT /v1/practices/practice-1/team/member-1".into(), Some(json!({ "role": "admin" }))),
        ("DELETE /v1/practices/practice-1/team/member-1".into(), None),
        ("POST /v1/practices/practice-1/api-access/approve".into(), None),
        ("POST /v1/config/reload".into(), None),
        ("POST /v1/practices/practice-1/team/sync".into(), None),
    ] {
        for token in &tokens[1..] {
            managed.ask(token, &line, body.clone()).await.refused(403, "forbidden");
        }
    }
    for token in [&member, &other, &modest, &posing] {
        for (line, body) in [
            (format!("PATCH {shared}"), Some(json!({ "name": "x" }))),
            (format!("POST {shared}/secrets"), Some(json!({}))),
            (format!("DELETE {shared}/secrets/1"), None),
            (format!("POST {shared}/revoke"), None),
        ] {
            managed.ask(token, &line, body).await.refused(404, "not_found");
        }
        let status = managed.ask(token, "POST /v1/practices/practice-1/api-access/disable", None).await.status;
        assert!(matches!(status, 403 | 404));
        let status =
            managed.ask(token, "PUT /v1/practices/practice-1/team/admin-1/api-access", Some(json!({ "api_access": true }))).await.status;
        assert!(matches!(status, 403 | 404));
    }
    assert_eq!(world.status("/billing", "billing").await, 200);
    assert_eq!(world.status("/billing", "personal").await, 200);
    // Somebody of another practice is nobody on this team.
    let line = "PUT /v1/practices/practice-1/team/other-admin/api-access";
    managed.ask(&admin, line, Some(json!({ "api_access": true }))).await.refused(404, "not_found");
    managed.ask(&operator, "DELETE /v1/practices/practice-1/team/other-admin", None).await.refused(404, "not_found");
    managed
        .ask(&operator, "PUT /v1/practices/practice-1/team/other-admin", Some(json!({ "role": "admin" })))
        .await
        .refused(409, "conflict");
}

async fn what_was_tried_and_refused_is_in_the_ledger_and_so_is_who_reads_it(managed: Managed) {
    let world = &managed.world;
    world.lifecycle.put_user(&world.practice, &"admin-1".parse().unwrap(), Role::Admin, &world.by).await.unwrap();
    let (operator, admin) = (managed.operator(), managed.user("admin-1", "practice-1", true));
    let member = managed.user("member-1", "practice-1", false);
    let of = |app: &str, rest: &str| format!("/v1/clients/{}{rest}", world.apps[app].id);
    let personal = world.apps["personal"].id.to_text();
    let approve = "POST /v1/practices/practice-1/api-access/approve";
    managed.ask(&admin, approve, None).await.refused(403, "forbidden");
    managed.ask(&admin, &format!("POST {}", of("personal", "/revoke")), None).await.refused(404, "not_found");
    managed
        .ask(&operator, &format!("POST {}", of("revoked", "/secrets")), Some(json!({ "overlap": "none" })))
        .await
        .refused(409, "conflict");
    // The owner of a personal client: nobody else may learn of it from this.
    let _ = world.lifecycle.revoke(world.apps["personal"].id, &world.by).await.unwrap();
    managed.ask(&member, &format!("PATCH {}", of("personal", "")), Some(json!({ "name": "x" }))).await.refused(409, "conflict");
    managed.ask(&member, &format!("DELETE {}", of("personal", "/secrets/9")), None).await.refused(404, "not_found");
    // Looking is no attempt, and what is malformed is none either.
    managed.ask(&member, "GET /v1/practices/practice-1/clients", None).await.refused(403, "forbidden");
    managed.ask(&admin, "POST /v1/practices/practice-1/clients", Some(json!({ "nam": "x" }))).await.refused(400, "invalid_request");

    let audit = "GET /v1/practices/practice-1/audit";
    let told = |answer: &Value| {
        let items = answer["items"].as_array().unwrap().iter().rev();
        let refused = items.filter(|event| event["action"].as_str().unwrap().contains("refused"));
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        refused.map(|event| [&event["actor"], &event["action"], &event["after"]["request"], &event["after"]["code"]].map(text)).collect()
    };
    let seen: Vec<[String; 4]> = told(&managed.ask(&admin, audit, None).await.is(200));
    let rotate = format!("POST {}", of("revoked", "/secrets"));
    let edit = format!("PATCH {}", of("personal", ""));
    assert_eq!(
        seen,
        [
            ["user:admin-1", "refused", approve, "forbidden"],
            ["user:admin-1", "refused", "POST /v1/clients/{client_id}/revoke", "not_found"],
            ["operator:ops", "client.refused", &rotate, "conflict"],
            ["user:member-1", "refused", "DELETE /v1/clients/{client_id}/secrets/{generation}", "not_found"],
        ]
    );
    let own: Vec<[String; 4]> = told(&managed.ask(&member, audit, None).await.is(200));
    assert_eq!(own, [["user:member-1", "client.refused", &edit, "conflict"]]);
    let again = managed.ask(&operator, audit, None).await.is(200);
    assert!(!again.to_string().contains(&personal), "{again}");
    let readers: Vec<_> = again["items"].as_array().unwrap().iter().filter(|event| event["action"] == "audit.read").collect();
    let readers: Vec<_> = readers.iter().map(|event| event["actor"].as_str().unwrap()).collect();
    assert_eq!(readers, ["user:member-1", "user:admin-1"], "the newest first, and this one is not there yet");
    assert_eq!(sigmagate::store::audit::verify(&world.lifecycle.store().audit(None).await.unwrap()), Ok(()));

    // Many are not written down one by one.
    for _ in 0..200 {
        managed.ask(&admin, approve, None).await.refused(403, "forbidden");
    }
    let events = world.lifecycle.store().audit(Some(&world.practice)).await.unwrap();
    let refused = events.iter().filter(|event| event.action.contains("refused")).count();
    assert!((60..100).contains(&refused), "{refused}");
}
