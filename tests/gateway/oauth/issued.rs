//! What is given: the document, the token, and the scopes of both.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use sigmagate::clock::now;
use sigmagate::store::ClientEdit;
use sigmagate::token::{Algorithm, Compact, KeySet, SigningKey, verify};

use super::{GRANT, Issuing, check_headers, part, send};

const TOKEN: &str = "/oauth/token";

async fn published(issuing: &Issuing) -> KeySet {
    let answer = send(issuing.world.http.get(issuing.world.url("/.well-known/jwks.json"))).await;
    assert_eq!(answer.status, 200);
    let (keys, left_out) = KeySet::from_jwks(answer.text.as_bytes()).unwrap();
    assert!(left_out.is_empty(), "{left_out:?}");
    keys
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_given_a_token_as_rfc_9068_has_it() {
    for (settings, audience, algorithm, lifetime) in [
        ("", None, Algorithm::EdDsa, 900),
        ("audience = \"urn:api\"\nalgorithm = \"ES256\"\ntoken_lifetime_secs = 3600", Some("urn:api"), Algorithm::Es256, 3600),
    ] {
        let issuing = Issuing::with(settings).await;
        let id = issuing.world.apps["billing"].id.to_string();
        let begun = now().0 / 1000;
        let answer = send(issuing.by("billing", TOKEN, &[GRANT])).await;
        let ended = now().0 / 1000;
        assert_eq!(answer.status, 200, "{}", answer.text);
        check_headers(&answer);
        let token = answer.json["access_token"].as_str().unwrap();
        let wanted = json!({ "access_token": token, "token_type": "Bearer", "expires_in": lifetime, "scope": "billing" });
        assert_eq!(answer.json, wanted);

        let keys = published(&issuing).await;
        let compact = Compact::parse(token.as_bytes()).unwrap();
        let claims = verify(&compact, &keys, &[algorithm]).unwrap().of_type("at+jwt").unwrap();
        let header = part(token, 0);
        assert_eq!((&header["typ"], &header["alg"]), (&"at+jwt".into(), &algorithm.as_str().into()));
        assert_eq!(header["kid"], compact.kid().unwrap());
        assert_eq!((&claims["iss"], &claims["aud"]), (&(*issuing.issuer).into(), &audience.unwrap_or(&issuing.issuer).into()));
        assert_eq!((&claims["sub"], &claims["client_id"]), (&(*id).into(), &(*id).into()));
        assert_eq!((&claims["scope"], &claims["practice_id"]), (&"billing".into(), &issuing.world.practice.as_str().into()));
        let (issued, expires) = (claims["iat"].as_i64().unwrap(), claims["exp"].as_i64().unwrap());
        assert!((begun..=ended).contains(&issued), "{begun} {issued} {ended}");
        assert_eq!(expires - issued, lifetime);
        assert!(lifetime <= 3600, "an hour at most");
        let names: BTreeSet<&str> = claims.keys().map(String::as_str).collect();
        let wanted = ["iss", "aud", "sub", "client_id", "practice_id", "scope", "jti", "iat", "exp", "secret_generation"];
        assert_eq!(names, wanted.into(), "and nothing else that others could read");

        let mut ids = BTreeSet::from([claims["jti"].as_str().unwrap().to_owned()]);
        for _ in 0..4 {
            let another = part(&issuing.token("billing").await, 1);
            assert!(ids.insert(another["jti"].as_str().unwrap().to_owned()), "no two tokens have one id");
        }
        assert_eq!(issuing.status("/billing", token).await, 200);
        let seen = issuing.world.upstream.take();
        assert_eq!(seen[0].one("x-sigmamd-client-id"), id);
        assert!(seen[0].all("authorization").is_empty(), "the token ends here");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_to_show_who_one_is_is_good_for_a_token() {
    let issuing = Issuing::new().await;
    let app = issuing.world.apps["billing"].clone();
    let id = app.id.to_string();
    let assertion = issuing.assertion(&json!({}), &json!({}));
    for (request, of) in [
        (issuing.form(TOKEN, &[GRANT]).basic_auth(&id, Some(&app.secret)), &id),
        (issuing.form(TOKEN, &[GRANT, ("client_id", &id)]).basic_auth(&id, Some(&app.secret)), &id),
        (issuing.form(TOKEN, &[GRANT, ("client_id", ""), ("scope", "")]).basic_auth(&id, Some(&app.secret)), &id),
        (issuing.form(TOKEN, &[GRANT, ("client_id", &id), ("client_secret", &app.secret)]), &id),
        (issuing.form(TOKEN, &[GRANT, ("nobody-knows", "this")]).basic_auth(&id, Some(&app.secret)), &id),
        (issuing.by_assertion(TOKEN, &assertion, &[GRANT]), &issuing.signs),
    ] {
        let answer = send(request).await;
        assert_eq!((answer.status, &answer.json["scope"]), (200, &"billing".into()), "{}", answer.text);
        let token = answer.json["access_token"].as_str().unwrap();
        let claims = part(token, 1);
        assert_eq!((claims["client_id"].as_str(), claims["sub"].as_str()), (Some(of.as_str()), Some(of.as_str())));
        assert_eq!(claims.get("client_key").is_some(), *of == issuing.signs, "{claims}");
        assert_eq!(issuing.status("/billing", token).await, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_has_the_scopes_that_were_asked_for_and_no_other() {
    let issuing = Issuing::new().await;
    for (app, asked, given, billing, patients) in [
        ("all", None, "all", 200, 200),
        ("all", Some("all"), "all", 200, 200),
        ("all", Some("billing"), "billing", 200, 403),
        ("all", Some("clinical"), "clinical", 403, 200),
        ("all", Some("clinical billing"), "clinical billing", 200, 200),
        ("all", Some("billing billing"), "billing", 200, 403),
        ("billing", None, "billing", 200, 403),
        ("billing", Some("billing"), "billing", 200, 403),
    ] {
        let form: Vec<_> = [GRANT].into_iter().chain(asked.map(|scope| ("scope", scope))).collect();
        let answer = send(issuing.by(app, TOKEN, &form)).await;
        assert_eq!((answer.status, &answer.json["scope"]), (200, &given.into()), "{app} {asked:?}: {}", answer.text);
        let token = answer.json["access_token"].as_str().unwrap();
        assert_eq!(part(token, 1)["scope"], given);
        assert_eq!(
            (issuing.status("/billing", token).await, issuing.status("/patients", token).await),
            (billing, patients),
            "{app} {asked:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_lives_no_longer_than_what_it_was_got_with() {
    let issuing = Issuing::with("token_lifetime_secs = 3600").await;
    let world = &issuing.world;
    let app = world.apps["billing"].clone();
    let edit = ClientEdit { expires_at: Some(Some(now().after(Duration::from_secs(600)))), ..ClientEdit::default() };
    world.lifecycle.edit(app.id, edit, &world.by).await.unwrap();
    let answer = send(issuing.by("billing", TOKEN, &[GRANT])).await;
    assert!(answer.json["expires_in"].as_u64().is_some_and(|secs| (1..=600).contains(&secs)), "{}", answer.text);
    let claims = part(answer.json["access_token"].as_str().unwrap(), 1);
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), answer.json["expires_in"].as_u64().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_told_of_the_keys_can_check_and_nobody_can_sign() {
    let issuing = Issuing::new().await;
    let answer = send(issuing.world.http.get(issuing.world.url("/.well-known/jwks.json"))).await;
    assert_eq!(
        (&answer.headers["content-type"], &answer.headers["cache-control"]),
        (&"application/json".parse().unwrap(), &"public, max-age=300".parse().unwrap())
    );
    for key in answer.json["keys"].as_array().unwrap() {
        for secret in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
            assert!(key.get(secret).is_none(), "{key}");
        }
        assert_eq!((&key["use"], &key["alg"], &key["kty"]), (&"sig".into(), &"EdDSA".into(), &"OKP".into()));
    }
    // A token that anybody could have made.
    let stranger = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let token = issuing.token("billing").await;
    let claims: Value = part(&token, 1);
    let forged = stranger.sign_json(&part(&token, 0), &claims).unwrap();
    let renamed = stranger.sign_json(&json!({ "typ": "at+jwt", "alg": "EdDSA", "kid": stranger.kid() }), &claims).unwrap();
    for forged in [forged, renamed] {
        assert_eq!(issuing.status("/billing", &forged).await, 401);
    }
    assert_eq!(issuing.status("/billing", &token).await, 200);
}
