//! The table of errors of RFC 6749 §5.2, row by row.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use sigmagate::clock::now;
use sigmagate::token::{Algorithm, SigningKey};

use super::{Answer, CORE_SECRET, GRANT, Issuing, JWT_BEARER, check_headers, part, send};
use crate::support::wrong_secret;

const TOKEN: &str = "/oauth/token";

fn check(answer: &Answer, status: u16, error: &str, of: &str) {
    assert_eq!((answer.status, &answer.json["error"]), (status, &error.into()), "{of}: {}", answer.text);
    check_headers(answer);
    let document = answer.json.as_object().unwrap();
    assert!(document.len() == 2 && document.contains_key("error_description"), "{of}: {}", answer.text);
    let description = answer.json["error_description"].as_str().unwrap();
    assert!(description.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\'), "{of}: {description}");
    let challenge = answer.headers.get("www-authenticate").map(|value| value.to_str().unwrap());
    assert_eq!(challenge.is_some_and(|challenge| challenge.starts_with("Basic realm=")), status == 401, "{of}: {challenge:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_error_of_the_token_endpoint_has_its_status_and_is_kept_by_nobody() {
    let issuing = Issuing::new().await;
    let world = &issuing.world;
    let codes = Mutex::new(BTreeSet::new());
    let row = async |request: RequestBuilder, status: u16, error: &'static str, of: &str| {
        let answer = send(request).await;
        check(&answer, status, error, of);
        codes.lock().insert(error);
        answer.text
    };
    let (id, secret) = (world.apps["billing"].id.to_string(), world.apps["billing"].secret.clone());
    let by = |form: &[(&str, &str)]| issuing.by("billing", TOKEN, form);

    // Nobody can tell why a client was not believed.
    let bare = || issuing.form(TOKEN, &[GRANT]);
    let posted = |id: &str, secret: &str| issuing.form(TOKEN, &[GRANT, ("client_id", id), ("client_secret", secret)]);
    let unknown = bare().basic_auth("smd_zzzzzzzzzzzzzzzzzzzz", Some(wrong_secret()));
    let unknown = row(unknown, 401, "invalid_client", "an unknown client").await;
    for (request, of) in [
        (bare(), "nothing is shown"),
        (bare().basic_auth(&id, Some(wrong_secret())), "a wrong secret"),
        (bare().basic_auth(&id, None::<&str>), "no secret"),
        (bare().basic_auth(&id, Some(&secret[..secret.len() - 1])), "a part of the secret"),
        (bare().basic_auth("nobody", Some(&secret)), "no name of a client"),
        (bare().basic_auth("core", Some(CORE_SECRET)), "a resource server has no tokens"),
        (bare().header("authorization", "Basic !"), "no base64"),
        (bare().header("authorization", world.authorization("revoked")), "a revoked client"),
        (bare().bearer_auth(&secret), "another scheme"),
        (posted(&id, &wrong_secret()), "a wrong secret in the form"),
        (posted("smd_zzzzzzzzzzzzzzzzzzzz", &secret), "an unknown client in the form"),
        (issuing.form(TOKEN, &[GRANT, ("client_id", &id)]), "a name alone"),
        (issuing.by_assertion(TOKEN, "a.b.c", &[GRANT]), "no assertion"),
    ] {
        assert_eq!(row(request, 401, "invalid_client", of).await, unknown, "{of}");
    }

    let assertion = issuing.assertion(&json!({}), &json!({}));
    let signed = [("client_assertion_type", JWT_BEARER), ("client_assertion", assertion.as_str())];
    for (request, of) in [
        (by(&[]), "no grant_type"),
        (by(&[("grant_type", "")]), "an empty one"),
        (by(&[GRANT, ("client_secret", &secret)]), "header and secret"),
        (by(&[&[GRANT], &signed[..]].concat()), "header and assertion"),
        (issuing.form(TOKEN, &[&[GRANT, ("client_id", &id), ("client_secret", &secret)], &signed[..]].concat()), "secret and assertion"),
        (by(&[GRANT, ("client_id", &world.apps["all"].id.to_string())]), "another client_id"),
        (issuing.form(TOKEN, &[GRANT, ("client_secret", &secret)]), "a secret of nobody"),
        (issuing.form(TOKEN, &[GRANT, ("client_assertion", &assertion)]), "an assertion of no type"),
        (issuing.form(TOKEN, &[GRANT, ("client_assertion", &assertion), ("client_assertion_type", "saml2-bearer")]), "of another type"),
        (by(&[GRANT, GRANT]), "grant_type twice"),
        (by(&[GRANT, ("scope", "billing"), ("scope", "billing")]), "scope twice"),
        (by(&[GRANT, ("client_id", &id), ("client_id", &id)]), "client_id twice"),
        (by(&[GRANT, ("nobody-knows", "1"), ("nobody-knows", "2")]), "anything twice"),
        (issuing.text(TOKEN, "grant_type=client_credentials&grant%5Ftype=").basic_auth(&id, Some(&secret)), "twice by an escape"),
        (by(&[]).header("content-type", "application/json").body("{\"grant_type\":\"client_credentials\"}"), "two types"),
        (world.http.post(world.url(TOKEN)).basic_auth(&id, Some(&secret)).body("grant_type=client_credentials"), "no type"),
        (world.http.post(world.url(TOKEN)).basic_auth(&id, Some(&secret)).json(&json!({ "grant_type": "client_credentials" })), "JSON"),
        (by(&[]).body(&b"grant_type=client_credentials&x=\xff"[..]), "not UTF-8"),
    ] {
        row(request, 400, "invalid_request", of).await;
    }

    for grant in ["password", "authorization_code", "refresh_token", "Client_Credentials", "client_credentials ", JWT_BEARER] {
        row(by(&[("grant_type", grant)]), 400, "unsupported_grant_type", grant).await;
    }
    for scope in
        ["clinical", "billing clinical", "all", "imaging", "Billing", "billing  billing", " billing", "billing,clinical", "\"billing\""]
    {
        row(by(&[GRANT, ("scope", scope)]), 400, "invalid_scope", scope).await;
    }
    row(issuing.by("all", TOKEN, &[GRANT, ("scope", "imaging")]), 400, "invalid_scope", "all is all that is declared").await;

    row(issuing.by("listed", TOKEN, &[GRANT]), 400, "unauthorized_client", "from another address").await;
    world.lifecycle.set_user_access(&world.member, false, &world.by).await.unwrap();
    row(issuing.by("personal", TOKEN, &[GRANT]), 400, "unauthorized_client", "the user is off").await;
    world.lifecycle.disable(&world.practice, &world.by).await.unwrap();
    row(by(&[GRANT]), 400, "unauthorized_client", "the practice is off").await;
    let assertion = issuing.assertion(&json!({}), &json!({}));
    row(issuing.by_assertion(TOKEN, &assertion, &[GRANT]), 400, "unauthorized_client", "for who signs as well").await;
    world.lifecycle.enable(&world.practice, &world.by).await.unwrap();
    assert_eq!(send(by(&[GRANT])).await.status, 200, "on again");

    // Nobody is granted anything that could be invalid.
    let every = ["invalid_client", "invalid_request", "invalid_scope", "unauthorized_client", "unsupported_grant_type"];
    assert_eq!(codes.into_inner(), every.into());
    assert!(world.upstream.untouched());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_form_at_all_is_refused_as_on_any_other_path() {
    let issuing = Issuing::new().await;
    let world = &issuing.world;
    let row = async |request: RequestBuilder, status: u16, code: &str| {
        let answer = send(request).await;
        assert_eq!(answer.status, status, "{code}: {}", answer.text);
        assert_eq!(answer.headers["cache-control"], "no-store", "{code}");
        // An answer to HEAD has no content.
        assert!(answer.text.is_empty() || answer.json["code"] == code, "{code}: {}", answer.text);
        answer
    };
    for path in [TOKEN, "/oauth/revoke", "/oauth/introspect"] {
        for method in ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            let request =
                world.http.request(method.parse().unwrap(), world.url(path)).header("authorization", world.authorization("billing"));
            let answer = row(request, 405, "method_not_allowed").await;
            assert_eq!(answer.headers["allow"], "POST", "{method} {path}");
        }
        for query in ["access_token=x", "client_secret=x", "Access%5FToken=x"] {
            let token = [GRANT, ("token", "x")];
            row(issuing.by("billing", &format!("{path}?{query}"), &token), 400, "malformed_request").await;
        }
        let two = issuing.by("billing", path, &[GRANT]).header("authorization", "Basic eA==");
        row(two, 400, "malformed_request").await;
        let filled = |length: usize| {
            let start = "grant_type=client_credentials&token=x&filler=";
            issuing
                .text(path, &format!("{start}{}", "x".repeat(length - start.len())))
                .header("authorization", world.authorization("billing"))
        };
        assert_eq!(send(filled(32 * 1024)).await.status, 200, "{path}");
        row(filled(32 * 1024 + 1), 413, "body_too_large").await;
        // The same, of a length that is not told before.
        let chunked = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Transfer-Encoding: chunked\r\n\r\n8001\r\n{}\r\n0\r\n\r\n",
            world.authorization("billing"),
            "x".repeat(0x8001)
        );
        let answer = world.raw(chunked).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{path}: {answer}");
    }
    for path in ["/oauth/token/", "/OAuth/token", "/oauth", "/oauth/authorize"] {
        row(issuing.by("billing", path, &[GRANT]), 404, "no_route").await;
    }
    assert!(world.upstream.untouched());
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_asked_for_within_the_rate_limit_of_the_client() {
    let issuing = Issuing::new().await;
    let ask = || send(issuing.by("limited", TOKEN, &[GRANT]));
    let mut answer = ask().await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    while answer.status == 200 {
        answer = ask().await;
    }
    assert_eq!((answer.status, &answer.json["code"]), (429, &"rate_limited".into()), "{}", answer.text);
    assert!(answer.headers.contains_key("retry-after") && answer.headers["cache-control"] == "no-store", "{:?}", answer.headers);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assertion_is_believed_if_everything_in_it_holds() {
    let issuing = Issuing::new().await;
    let stranger = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let seconds = now().0 / 1000;
    let ask = |assertion: &str| send(issuing.by_assertion(TOKEN, assertion, &[GRANT]));
    let url = |path: &str| format!("{}{path}", issuing.issuer);
    for (header, claims) in [
        (json!({}), json!({})),
        (json!({ "typ": "JWT" }), json!({})),
        (json!({ "typ": "client-authentication+jwt" }), json!({})),
        (json!({ "kid": null }), json!({})),
        (json!({}), json!({ "aud": url(TOKEN) })),
        (json!({}), json!({ "aud": ["https://elsewhere.test", issuing.issuer] })),
        (json!({}), json!({ "iat": null })),
    ] {
        let answer = ask(&issuing.assertion(&header, &claims)).await;
        assert_eq!(answer.status, 200, "{header} {claims}: {}", answer.text);
    }
    let once = issuing.assertion(&json!({}), &json!({}));
    assert_eq!(ask(&once).await.status, 200);
    let refused = |answer: &Answer, of: &str| check(answer, 401, "invalid_client", of);
    refused(&ask(&once).await, "a second time");
    let all = issuing.world.apps["all"].id.to_string();
    for (header, claims) in [
        (json!({ "typ": "at+jwt" }), json!({})),
        (json!({ "alg": "none" }), json!({})),
        (json!({ "alg": "HS256" }), json!({})),
        (json!({ "alg": "ES256" }), json!({})),
        (json!({ "kid": "another" }), json!({})),
        (json!({ "crit": ["exp"] }), json!({})),
        (json!({ "jwk": issuing.key.public().to_jwk() }), json!({})),
        (json!({ "jku": "https://elsewhere.test/jwks.json" }), json!({})),
        (json!({}), json!({ "iss": all })),
        (json!({}), json!({ "iss": null })),
        (json!({}), json!({ "sub": all })),
        (json!({}), json!({ "iss": all, "sub": all })),
        (json!({}), json!({ "sub": null })),
        (json!({}), json!({ "aud": "https://elsewhere.test" })),
        (json!({}), json!({ "aud": url("/") })),
        (json!({}), json!({ "aud": url("/oauth/revoke") })),
        (json!({}), json!({ "aud": null })),
        (json!({}), json!({ "exp": seconds - 60 })),
        (json!({}), json!({ "exp": seconds + 4000 })),
        (json!({}), json!({ "exp": null })),
        (json!({}), json!({ "nbf": seconds + 600 })),
        (json!({}), json!({ "iat": seconds + 600 })),
        (json!({}), json!({ "jti": null })),
        (json!({}), json!({ "jti": "" })),
        (json!({}), json!({ "jti": "x".repeat(257) })),
    ] {
        refused(&ask(&issuing.assertion(&header, &claims)).await, &format!("{header} {claims}"));
    }
    let header = json!({ "alg": "EdDSA", "kid": issuing.key.kid() });
    let claims: Value = part(&issuing.assertion(&json!({}), &json!({})), 1);
    refused(&ask(&stranger.sign_json(&header, &claims).unwrap()).await, "by another key");
    let named = [GRANT, ("client_id", all.as_str())];
    let named = issuing.by_assertion(TOKEN, &issuing.assertion(&json!({}), &json!({})), &named);
    refused(&send(named).await, "the form names another client");
}
