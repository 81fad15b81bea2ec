//! "Getting started with the API", from the request to the end.

use serde_json::json;

use super::Managed;

on_both_stores!(a_practice_gets_started_and_decides_who_may_go_on,);

async fn a_practice_gets_started_and_decides_who_may_go_on(managed: Managed) {
    let operator = managed.operator();
    // SigmaMD tells of a practice and its people.
    managed.ask(&operator, "PUT /v1/practices/riverside", Some(json!({ "name": "Riverside" }))).await.is(200);
    let ana = json!({ "role": "admin", "name": "Ana Ruiz", "email": "ana@riverside.test" });
    let put = managed.ask(&operator, "PUT /v1/practices/riverside/team/ana", Some(ana)).await.is(200);
    assert_eq!((put["user"]["name"].as_str(), put["user"]["email"].as_str()), (Some("Ana Ruiz"), Some("ana@riverside.test")));
    managed.ask(&operator, "PUT /v1/practices/riverside/team/bo", Some(json!({ "role": "member" }))).await.is(200);
    let (ana, bo) = (managed.user("ana", "riverside", true), managed.user("bo", "riverside", false));

    // An admin asks for access; before an operator has answered there are no clients.
    let app = json!({ "name": "Billing sync", "scopes": ["billing"] });
    managed.ask(&ana, "POST /v1/practices/riverside/clients", Some(app.clone())).await.refused(409, "conflict");
    let asked = managed.ask(&ana, "POST /v1/practices/riverside/api-access/request", None).await.is(200);
    assert_eq!(asked["practice"]["api_access"], "requested");
    let (_, subject, _) = managed.mails("access_requested", 1).await.remove(0);
    assert_eq!(subject, "API access requested: Riverside");
    managed.ask(&ana, "POST /v1/practices/riverside/api-access/approve", None).await.refused(403, "forbidden");
    let approved = managed.ask(&operator, "POST /v1/practices/riverside/api-access/approve", None).await.is(200);
    assert_eq!(approved["practice"]["api_access"], "active");
    assert_eq!(approved["receipt"]["applied"], 1);

    let (to, subject, text) = managed.mails("access_approved", 1).await.remove(0);
    assert_eq!((to.as_str(), subject.as_str()), ("ana@riverside.test", "API access approved: Riverside"));
    assert!(text.starts_with("Hello Ana Ruiz,") && text.contains("create an app in SigmaMD"), "{text}");

    // She makes an app, and copies id and secret. It works at once.
    let created = managed.ask(&ana, "POST /v1/practices/riverside/clients", Some(app)).await.is(201);
    assert_eq!(managed.status("/billing", &created).await, 200);
    assert_eq!(managed.status("/patients", &created).await, 403);
    let id = created["client"]["client_id"].as_str().unwrap();
    let shown = managed.ask(&ana, &format!("GET /v1/clients/{id}"), None).await.is(200);
    assert!(shown.to_string().find(created["client_secret"].as_str().unwrap()).is_none(), "the secret is shown once");

    // Bo wants keys of his own: his toggle is off, which he sees and cannot change.
    let own = json!({ "name": "My notebook", "scopes": ["billing"] });
    managed.ask(&bo, "POST /v1/me/clients", Some(own.clone())).await.refused(409, "conflict");
    assert_eq!(managed.ask(&bo, "GET /v1/me/api-access", None).await.is(200)["user"]["api_access"], false);
    let toggle = "PUT /v1/practices/riverside/team/bo/api-access";
    managed.ask(&bo, toggle, Some(json!({ "api_access": true }))).await.refused(403, "forbidden");
    managed.ask(&ana, toggle, Some(json!({ "api_access": true }))).await.is(200);
    assert_eq!(managed.ask(&bo, "GET /v1/me/api-access", None).await.is(200)["user"]["api_access"], true);
    let personal = managed.ask(&bo, "POST /v1/me/clients", Some(own)).await.is(201);
    assert_eq!(managed.status("/billing", &personal).await, 200);
    let hidden = personal["client"]["client_id"].as_str().unwrap();

    // Nobody else sees them, whoever they are.
    for who in [&ana, &operator] {
        let listed = managed.ask(who, "GET /v1/practices/riverside/clients", None).await.is(200);
        let ids: Vec<_> = listed["items"].as_array().unwrap().iter().map(|item| item["client_id"].as_str().unwrap()).collect();
        assert_eq!(ids, [id]);
        managed.ask(who, &format!("GET /v1/clients/{hidden}"), None).await.refused(404, "not_found");
        managed.ask(who, &format!("POST /v1/clients/{hidden}/revoke"), None).await.refused(404, "not_found");
        let ledger = managed.ask(who, "GET /v1/practices/riverside/audit?limit=200", None).await.is(200);
        assert!(!ledger.to_string().contains(hidden) && ledger.to_string().contains(id));
    }
    assert_eq!(managed.ask(&bo, "GET /v1/me/clients", None).await.is(200)["items"][0]["client_id"], hidden);

    // She turns him off, and on: his keys stop, and go on.
    managed.ask(&ana, toggle, Some(json!({ "api_access": false }))).await.is(200);
    assert_eq!((managed.status("/billing", &personal).await, managed.status("/billing", &created).await), (403, 200));
    managed.ask(&ana, toggle, Some(json!({ "api_access": true }))).await.is(200);
    assert_eq!(managed.status("/billing", &personal).await, 200);

    // She looks at what would stop, and turns all of it off.
    let preview = managed.ask(&ana, "POST /v1/practices/riverside/api-access/disable?dry_run=true", None).await.is(200);
    assert_eq!((preview["dry_run"].as_bool(), preview["practice"]["api_access"].as_str()), (Some(true), Some("active")));
    assert_eq!(managed.status("/billing", &created).await, 200, "nothing has changed");
    managed.ask(&ana, "POST /v1/practices/riverside/api-access/disable", None).await.is(200);
    assert_eq!((managed.status("/billing", &personal).await, managed.status("/billing", &created).await), (403, 403));
    managed.ask(&ana, "POST /v1/practices/riverside/api-access/enable", None).await.is(200);
    assert_eq!((managed.status("/billing", &personal).await, managed.status("/billing", &created).await), (200, 200));

    // A new secret beside the old one, the old one ended early; then the app is over, and still to be seen.
    let rotated = managed.ask(&ana, &format!("POST /v1/clients/{id}/secrets"), Some(json!({ "overlap": "24h" }))).await.is(201);
    let newer = json!({ "client": { "client_id": id }, "client_secret": rotated["client_secret"] });
    assert_eq!((managed.status("/billing", &created).await, managed.status("/billing", &newer).await), (200, 200));
    managed.ask(&ana, &format!("DELETE /v1/clients/{id}/secrets/1"), None).await.is(200);
    assert_eq!((managed.status("/billing", &created).await, managed.status("/billing", &newer).await), (401, 200));
    let revoked = managed.ask(&ana, &format!("POST /v1/clients/{id}/revoke"), None).await.is(200);
    assert_eq!((revoked["client"]["status"].as_str(), revoked["receipt"]["applied"].as_u64()), (Some("revoked"), Some(1)));
    assert_eq!(managed.status("/billing", &newer).await, 401);
    let listed = managed.ask(&ana, "GET /v1/practices/riverside/clients", None).await.is(200);
    let gone = &listed["items"][0];
    assert!(gone["revoked_at"].is_string() && gone["created_at"].is_string() && gone["scopes"] == json!(["billing"]));
    managed.ask(&ana, &format!("PATCH /v1/clients/{id}"), Some(json!({ "name": "x" }))).await.refused(409, "conflict");

    // She is told of each of these things, and never a secret.
    assert!(managed.mails("access_disabled", 1).await[0].2.contains("was turned off"));
    let (_, subject, text) = managed.mails("secret_regenerated", 1).await.remove(0);
    assert!(subject == "New API secret: Billing sync" && text.contains("The one before it works until"), "{text}");
    assert!(!text.contains(rotated["client_secret"].as_str().unwrap()));
    assert_eq!(managed.mails("client_revoked", 1).await[0].1, "API app revoked: Billing sync");

    // All of it is in the ledger, with who and from where.
    let ledger = managed.ask(&ana, "GET /v1/practices/riverside/audit", None).await.is(200);
    for (at, action) in ["client.refused", "client.revoke"].into_iter().enumerate() {
        let event = &ledger["items"][at];
        let told = ["action", "actor", "target", "origin"].map(|name| event[name].as_str().unwrap());
        assert_eq!(told, [action, "user:ana", id, "127.0.0.1"]);
    }
}
