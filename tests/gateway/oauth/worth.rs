//! What a token is worth, who may ask, and who may end it.

use serde_json::{Value, json};
use sigmagate::clock::now;
use sigmagate::digest::sha256;
use sigmagate::entity::ClientKeys;
use sigmagate::lifecycle::Overlap;
use sigmagate::store::ClientEdit;
use sigmagate::token::{Algorithm, SigningKey};

use super::{Answer, CORE_SECRET, GRANT, Issuing, check_headers, part, send};
use crate::support::wrong_secret;

const INTROSPECT: &str = "/oauth/introspect";
const REVOKE: &str = "/oauth/revoke";

async fn inactive(request: reqwest::RequestBuilder, of: &str) {
    let answer = send(request).await;
    assert_eq!((answer.status, answer.text.as_str()), (200, "{\"active\":false}"), "{of}");
    check_headers(&answer);
}

async fn active(request: reqwest::RequestBuilder, of: &str) -> Value {
    let answer = send(request).await;
    assert_eq!((answer.status, &answer.json["active"]), (200, &true.into()), "{of}: {}", answer.text);
    check_headers(&answer);
    answer.json
}

fn error(answer: &Answer, status: u16, error: &str) {
    assert_eq!((answer.status, &answer.json["error"]), (status, &error.into()), "{}", answer.text);
    assert_eq!(answer.headers.contains_key("www-authenticate"), status == 401);
    check_headers(answer);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_what_is_unknown_nothing_is_said_but_that_it_is_not_active() {
    let issuing = Issuing::new().await;
    let token = issuing.token("billing").await;
    let (header, claims) = (part(&token, 0), part(&token, 1));
    let stranger = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let other_signature = issuing.token("billing").await.rsplit('.').next().unwrap().to_owned();
    for garbage in [
        "x",
        "x.y.z",
        "..",
        "\u{0}",
        "\u{1f600}",
        &"x".repeat(20_000),
        &issuing.world.apps["billing"].secret,
        signed,
        &format!("{signed}."),
        &format!("{signed}.{other_signature}"),
        &format!("{token}="),
        &format!(" {token}"),
        &format!("{signed}.{}", signature.to_lowercase()),
        &stranger.sign_json(&header, &claims).unwrap(),
        &issuing.assertion(&json!({}), &json!({})),
    ] {
        inactive(issuing.by("billing", INTROSPECT, &[("token", garbage)]), garbage).await;
        inactive(issuing.by_core(INTROSPECT, &[("token", garbage), ("token_type_hint", "access_token")]), garbage).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_is_known_and_sees_their_own_tokens_or_as_a_resource_server_every_one() {
    let issuing = Issuing::new().await;
    let token = issuing.token("billing").await;
    let ask = [("token", token.as_str())];
    let claims = part(&token, 1);
    let id = issuing.world.apps["billing"].id.to_string();
    let wanted = json!({
        "active": true, "token_type": "Bearer", "scope": "billing", "client_id": id, "sub": id, "iss": issuing.issuer,
        "aud": issuing.issuer, "jti": claims["jti"], "iat": claims["iat"], "exp": claims["exp"], "practice_id": claims["practice_id"],
    });
    assert_eq!(active(issuing.by("billing", INTROSPECT, &ask), "its own").await, wanted);
    assert_eq!(active(issuing.by_core(INTROSPECT, &ask), "a resource server").await, wanted);
    for hint in ["access_token", "refresh_token", "whatever"] {
        active(issuing.by("billing", INTROSPECT, &[ask[0], ("token_type_hint", hint)]), hint).await;
    }
    for app in ["all", "clinical", "personal"] {
        inactive(issuing.by(app, INTROSPECT, &ask), app).await;
    }
    let signed = issuing.by_assertion(INTROSPECT, &issuing.assertion(&json!({}), &json!({})), &ask);
    inactive(signed, "another client, by an assertion").await;

    let form = || issuing.form(INTROSPECT, &ask);
    error(&send(form()).await, 401, "invalid_client");
    error(&send(form().basic_auth("core", Some(wrong_secret()))).await, 401, "invalid_client");
    error(&send(form().basic_auth("CORE", Some(CORE_SECRET))).await, 401, "invalid_client");
    error(&send(form().basic_auth(&id, Some(CORE_SECRET))).await, 401, "invalid_client");
    error(&send(form().bearer_auth(&token)).await, 401, "invalid_client");
    error(&send(issuing.by("revoked", INTROSPECT, &ask)).await, 401, "invalid_client");
    error(&send(issuing.by_core(INTROSPECT, &[])).await, 400, "invalid_request");
    error(&send(issuing.by_core(INTROSPECT, &[("token", "")])).await, 400, "invalid_request");
    error(&send(issuing.by_core(INTROSPECT, &[ask[0], ask[0]])).await, 400, "invalid_request");
    error(&send(issuing.by_core(REVOKE, &ask)).await, 401, "invalid_client");
    active(issuing.by("billing", INTROSPECT, &ask), "after all that").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_token_rests_on_makes_it_inactive() {
    let issuing = Issuing::new().await;
    let world = &issuing.world;
    let ask = |token: &str| issuing.by_core(INTROSPECT, &[("token", token)]);
    let (billing, personal, clinical) = (issuing.token("billing").await, issuing.token("personal").await, issuing.token("clinical").await);
    active(ask(&personal), "").await;
    world.lifecycle.set_user_access(&world.member, false, &world.by).await.unwrap();
    inactive(ask(&personal), "the user is off").await;
    world.lifecycle.set_user_access(&world.member, true, &world.by).await.unwrap();
    assert_eq!(active(ask(&personal), "and on").await["user_id"], world.member.as_str());
    world.lifecycle.disable(&world.practice, &world.by).await.unwrap();
    inactive(ask(&billing), "the practice is off").await;
    world.lifecycle.enable(&world.practice, &world.by).await.unwrap();
    active(ask(&billing), "and on").await;
    world.lifecycle.end_secret(world.apps["billing"].id, 1, &world.by).await.unwrap();
    inactive(ask(&billing), "its secret has ended").await;
    world.lifecycle.revoke(world.apps["clinical"].id, &world.by).await.unwrap();
    inactive(ask(&clinical), "its client is revoked").await;
    for token in [&billing, &clinical] {
        assert_eq!(issuing.status("/billing", token).await, 401);
    }
    active(ask(&personal), "of another client").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_over_once_its_own_client_has_said_so_and_nobody_else_can() {
    let issuing = Issuing::new().await;
    let (token, another) = (issuing.token("billing").await, issuing.token("billing").await);
    let form = [("token", token.as_str())];
    let still = async |of: &str| {
        active(issuing.by("billing", INTROSPECT, &form), of).await;
        assert_eq!(issuing.status("/billing", &token).await, 200, "{of}");
    };
    still("at first").await;
    for app in ["all", "clinical", "personal"] {
        error(&send(issuing.by(app, REVOKE, &form)).await, 400, "unauthorized_client");
    }
    let signed = issuing.by_assertion(REVOKE, &issuing.assertion(&json!({}), &json!({})), &form);
    error(&send(signed).await, 400, "unauthorized_client");
    error(&send(issuing.form(REVOKE, &form)).await, 401, "invalid_client");
    error(&send(issuing.form(REVOKE, &form).basic_auth("core", Some(CORE_SECRET))).await, 401, "invalid_client");
    error(&send(issuing.form(REVOKE, &form).bearer_auth(&token)).await, 401, "invalid_client");
    error(&send(issuing.by("billing", REVOKE, &[GRANT])).await, 400, "invalid_request");
    still("whatever others say").await;
    for unknown in ["x", "x.y.z", &format!("{token}A")] {
        let answer = send(issuing.by("billing", REVOKE, &[("token", unknown)])).await;
        assert_eq!((answer.status, answer.text.as_str()), (200, "{}"), "RFC 7009 section 2.2: {unknown}");
        check_headers(&answer);
    }
    still("and whatever is unknown").await;

    for time in ["once", "again"] {
        let answer = send(issuing.by("billing", REVOKE, &[form[0], ("token_type_hint", "refresh_token")])).await;
        assert_eq!((answer.status, answer.text.as_str()), (200, "{}"), "{time}");
        let refused = issuing.world.http.get(issuing.world.url("/billing")).bearer_auth(&token).send().await.unwrap();
        assert_eq!(refused.status(), 401, "{time}");
        let challenges = refused.headers().get_all("www-authenticate");
        assert!(challenges.iter().any(|challenge| challenge.to_str().unwrap().contains("error=\"invalid_token\"")), "{time}");
        inactive(issuing.by("billing", INTROSPECT, &form), time).await;
        inactive(issuing.by_core(INTROSPECT, &form), time).await;
    }
    active(issuing.by("billing", INTROSPECT, &[("token", &another)]), "its neighbour goes on").await;
    assert_eq!(issuing.status("/billing", &another).await, 200);
    assert_eq!(issuing.status("/billing", &issuing.token("billing").await).await, 200, "and so does the client");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_does_not_count_now_is_revoked_all_the_same() {
    let issuing = Issuing::new().await;
    let world = &issuing.world;
    let keys = ClientKeys::Jwks(json!({ "keys": [issuing.key.public().to_jwk()] }).to_string().into());
    let id = issuing.signs.parse().unwrap();
    let has = async |keys: &ClientKeys| {
        let edit = ClientEdit { keys: Some(keys.clone()), ..ClientEdit::default() };
        world.lifecycle.edit(id, edit, &world.by).await.unwrap();
    };
    let answer = send(issuing.by_assertion("/oauth/token", &issuing.assertion(&json!({}), &json!({})), &[GRANT])).await;
    let token = answer.json["access_token"].as_str().unwrap();
    let secret = world.lifecycle.rotate(id, Overlap::None, &world.by).await.unwrap().secret;
    has(&ClientKeys::None).await;
    assert_eq!(issuing.status("/billing", token).await, 401);
    let revoked = send(issuing.form(REVOKE, &[("token", token)]).basic_auth(&issuing.signs, Some(secret.reveal()))).await;
    assert_eq!(revoked.status, 200);
    has(&keys).await;
    assert_eq!(issuing.status("/billing", token).await, 401, "the key is back, and the token is not");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assertion_beyond_the_limit_costs_no_write() {
    let issuing = Issuing::new().await;
    let world = &issuing.world;
    let id = issuing.signs.parse().unwrap();
    world.lifecycle.edit(id, ClientEdit { tier: Some(Some("one".into())), ..ClientEdit::default() }, &world.by).await.unwrap();
    let unused = loop {
        let jti = uuid::Uuid::new_v4().to_string();
        let assertion = issuing.assertion(&json!({}), &json!({ "jti": jti }));
        let answer = send(issuing.by_assertion("/oauth/token", &assertion, &[GRANT])).await;
        if answer.status == 429 {
            break jti;
        }
        assert_eq!(answer.status, 200, "{}", answer.text);
    };
    let digest = sha256(unused.as_bytes());
    assert!(world.lifecycle.store().use_assertion(id, digest, now()).await.unwrap(), "nobody has used it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_signed_for_one_purpose_serves_no_other() {
    let issuing = Issuing::new().await;
    let assertion = issuing.assertion(&json!({}), &json!({}));
    let answer = send(issuing.by_assertion("/oauth/token", &assertion, &[GRANT])).await;
    let token = answer.json["access_token"].as_str().unwrap();
    assert_eq!(issuing.status("/billing", token).await, 200);
    assert_eq!(issuing.status("/billing", &assertion).await, 401, "an assertion is no token");
    let posing = issuing.assertion(&json!({ "typ": "at+jwt" }), &json!({ "client_id": issuing.signs, "scope": "billing" }));
    assert_eq!(issuing.status("/billing", &posing).await, 401, "whatever it calls itself");
    error(&send(issuing.by_assertion("/oauth/token", token, &[GRANT])).await, 401, "invalid_client");
    error(
        &send(issuing.by("billing", "/oauth/token", &[("grant_type", super::JWT_BEARER), ("assertion", token)])).await,
        400,
        "unsupported_grant_type",
    );
}
