//! Callers whom an issuer of the settings vouches for.

use serde_json::{Value, json};
use sigmagate::clock::now;
use sigmagate::token::SigningKey;

use super::{Answer, Managed};
use crate::issuers::{Keys, key, signed};
use crate::support::{Database, MANY_FAILURES};

const ACCESS: &str = "GET /v1/me/api-access";
const CONFIG: &str = "GET /v1/config";

/// What the web app says of the member; `change` says more, or less by `null`.
fn said(change: &Value) -> Value {
    let mut claims = json!({
        "iss": "https://app.test", "aud": "urn:management", "exp": now().0 / 1000 + 600,
        "sub": "member-1", "org": "practice-1", "role": "member",
    });
    for (name, value) in change.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}

async fn managed(keys: &Keys, more: &str) -> Managed {
    let settings = format!(
        "{MANY_FAILURES}[[management.issuers]]\nissuer = \"https://app.test\"\njwks_url = \"http://{}/jwks.json\"\n\
         audiences = [\"urn:management\"]\nalgorithms = [\"ES256\"]\npractice_claim = \"org\"\nrefresh_secs = 10\n{more}\n",
        keys.start().await
    );
    Managed::on(Database::Sqlite, &settings).await
}

async fn becomes(managed: &Managed, token: &str, status: u16) -> Answer {
    loop {
        let answer = managed.ask(token, ACCESS, None).await;
        if answer.status == status {
            return answer;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_says_who_calls_and_the_team_what_they_are() {
    let (keys, key) = (Keys::default(), key());
    keys.say(Some(&[&key]));
    let managed = managed(&keys, "").await;
    let by = |change| signed(&key, &said(&change));
    let me = becomes(&managed, &by(json!({})), 200).await.json;
    assert_eq!((me["user"]["user_id"].as_str(), me["user"]["role"].as_str()), (Some("member-1"), Some("member")));

    // An admin is one whom both call so.
    let team = "GET /v1/practices/practice-1/clients";
    managed.ask(&by(json!({ "role": "practice_admin" })), team, None).await.refused(403, "forbidden");
    let admin = json!({ "role": "admin" });
    managed.ask(&managed.operator(), "PUT /v1/practices/practice-1/team/member-1", Some(admin)).await.is(200);
    managed.ask(&by(json!({ "role": "practice_admin" })), team, None).await.is(200);
    managed.ask(&by(json!({})), team, None).await.refused(403, "forbidden");

    // Operators are not for it to make, and nobody is of another practice than their own.
    for (change, path) in [
        (json!({ "role": "operator" }), CONFIG),
        (json!({ "role": "operator", "org": null }), CONFIG),
        (json!({ "role": null }), ACCESS),
        (json!({ "role": "root" }), ACCESS),
        (json!({ "org": null }), ACCESS),
        (json!({ "org": null, "practice_id": "practice-1" }), ACCESS),
        (json!({ "org": "practice-2" }), ACCESS),
        (json!({ "sub": "nobody" }), ACCESS),
        (json!({ "sub": null }), ACCESS),
        (json!({ "aud": "https://api.test" }), ACCESS),
        (json!({ "aud": null }), ACCESS),
        (json!({ "iss": "https://other.test" }), ACCESS),
        (json!({ "iss": "urn:sigmagate" }), ACCESS),
        (json!({ "iss": null }), ACCESS),
        (json!({ "exp": now().0 / 1000 - 60 }), ACCESS),
        (json!({ "exp": null }), ACCESS),
        (json!({ "nbf": now().0 / 1000 + 600 }), ACCESS),
    ] {
        managed.ask(&by(change), path, None).await.refused(401, "unauthenticated");
    }
    let claims = said(&json!({}));
    for typ in ["management+jwt", "logout+jwt", "dpop+jwt"] {
        let token = key.sign_json(&json!({ "alg": "ES256", "kid": key.kid(), "typ": typ }), &claims).unwrap();
        managed.ask(&token, ACCESS, None).await.refused(401, "unauthenticated");
    }
    let unsigned = key.sign_json(&json!({ "alg": "none", "kid": key.kid() }), &claims);
    assert!(unsigned.is_err() || managed.ask(&unsigned.unwrap(), ACCESS, None).await.status == 401);

    // Whoever has left the team is nobody, whatever the issuer says.
    managed.ask(&managed.operator(), "DELETE /v1/practices/practice-1/team/member-1", None).await.is(200);
    managed.ask(&by(json!({})), ACCESS, None).await.refused(401, "unauthenticated");
    // None of it opens the way to patients.
    assert_eq!(managed.world.http.get(managed.world.url("/billing")).bearer_auth(by(json!({}))).send().await.unwrap().status(), 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_may_says_who_operates() {
    let (keys, key) = (Keys::default(), key());
    keys.say(Some(&[&key]));
    let managed = managed(&keys, "operators = true\nrole_claim = \"https://app.test/role\"").await;
    let operator = signed(&key, &said(&json!({ "sub": "ops-7", "org": null, "role": null, "https://app.test/role": "operator" })));
    while managed.ask(&operator, CONFIG, None).await.status != 200 {}
    managed.ask(&operator, "PUT /v1/practices/new", Some(json!({ "name": "New" }))).await.is(200);
    let ledger = managed.ask(&operator, "GET /v1/practices/new/audit", None).await.is(200);
    assert_eq!(ledger["items"].as_array().unwrap().last().unwrap()["actor"], "operator:ops-7");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_changes_its_keys_and_one_that_was_never_reached_is_no_answer() {
    let (keys, a, b) = (Keys::default(), key(), key());
    let managed = managed(&keys, "").await;
    let by = |key: &SigningKey| signed(key, &said(&json!({})));
    let answer = managed.ask(&by(&a), ACCESS, None).await;
    answer.refused(503, "unavailable");
    assert!(answer.headers.contains_key("retry-after"));
    keys.say(Some(&[&a]));
    becomes(&managed, &by(&a), 200).await;
    managed.ask(&by(&b), ACCESS, None).await.refused(401, "unauthenticated");
    // Another key, and the first one withdrawn.
    keys.say(Some(&[&b]));
    becomes(&managed, &by(&b), 200).await;
    managed.ask(&by(&a), ACCESS, None).await.refused(401, "unauthenticated");
    // While it is down, what is known goes on.
    keys.say(None);
    managed.world.metric("sigmagate_key_fetches_total{issuer=\"https://app.test\",result=\"failed\"}").await;
    managed.ask(&by(&b), ACCESS, None).await.is(200);
}
