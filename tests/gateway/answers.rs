//! Every row of the table of answers, through the real listener; the upstream is shown not to have been touched.

use std::collections::BTreeSet;

use serde_json::Value;
use sigmagate::access::Denial;

use crate::support::{World, wrong_secret};

struct Answer {
    status: u16,
    code: String,
    body: Value,
    headers: reqwest::header::HeaderMap,
}

async fn send(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.unwrap();
    let body: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
    Answer { status, code: body["code"].as_str().unwrap_or_default().to_owned(), body, headers }
}

fn check(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, answer.code.as_str()), (status, code), "{:?} {:?}", answer.body, answer.headers);
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert_eq!(answer.headers["x-request-id"], answer.body["request_id"].as_str().unwrap());
    assert_eq!(answer.body["status"], status);
    for field in ["type", "title", "detail"] {
        assert!(answer.body[field].is_string(), "{field} in {}", answer.body);
    }
    let challenges: Vec<_> = answer.headers.get_all("www-authenticate").iter().map(|v| v.to_str().unwrap()).collect();
    if status == 401 {
        assert!(
            challenges.iter().any(|c| c.starts_with("Basic ")) && challenges.iter().any(|c| c.starts_with("Bearer ")),
            "{challenges:?}"
        );
    }
    assert!(!answer.headers.contains_key("server"), "our software is nobody's business");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_its_row_and_the_upstream_is_not_touched() {
    let world = World::new().await;
    let get = |path: &str, app: &str| world.request("GET", path, app);
    let bare = |path: &str| world.http.get(world.url(path));
    let codes = parking_lot::Mutex::new(BTreeSet::new());
    let row = async |request: reqwest::RequestBuilder, status: u16, code: &'static str| {
        let answer = send(request).await;
        check(&answer, status, code);
        assert!(world.upstream.untouched(), "{code}: {:?}", world.upstream.take());
        codes.lock().insert(code);
        answer
    };
    row(bare("/billing?access_token=x"), 400, "malformed_request").await;
    row(
        bare("/billing").header("authorization", world.authorization("all")).header("authorization", "Basic eA=="),
        400,
        "malformed_request",
    )
    .await;
    row(get("/billing/a%2fb", "all"), 400, "malformed_request").await;

    let missing = row(bare("/billing"), 401, "credential_missing").await;
    let challenge = |answer: &Answer| {
        answer.headers.get_all("www-authenticate").iter().map(|v| v.to_str().unwrap().to_owned()).collect::<Vec<_>>().join("|")
    };
    assert!(!challenge(&missing).contains("error="), "RFC 6750 section 3.1: no error when nothing was presented");
    let unknown = world.http.get(world.url("/billing")).basic_auth("smd_zzzzzzzzzzzzzzzzzzzz", Some(wrong_secret()));
    let unknown = row(unknown, 401, "credential_invalid").await;
    assert!(challenge(&unknown).contains("error=\"invalid_token\""));
    let same = [
        world.http.get(world.url("/billing")).basic_auth(world.apps["billing"].id, Some(wrong_secret())),
        world.http.get(world.url("/billing")).basic_auth(world.apps["billing"].id, Some("short")),
        world.http.get(world.url("/billing")).basic_auth(world.apps["billing"].id, None::<&str>),
        get("/billing", "revoked"),
        world.http.get(world.url("/billing")).bearer_auth("x.y.z"),
        world.http.get(world.url("/billing")).header("authorization", "Digest x"),
    ];
    for request in same {
        let other = row(request, 401, "credential_invalid").await;
        let plain = |answer: &Answer| {
            let mut headers: Vec<_> = answer
                .headers
                .iter()
                .filter(|(name, _)| !["x-request-id", "date"].contains(&name.as_str()))
                .map(|(n, v)| format!("{n}: {v:?}"))
                .collect();
            headers.sort();
            let mut body = answer.body.clone();
            body["request_id"] = Value::Null;
            (headers, body)
        };
        assert_eq!(plain(&other), plain(&unknown), "nobody can tell one from the other");
    }

    let scope = row(get("/patients", "billing"), 403, "insufficient_scope").await;
    assert!(challenge(&scope).contains("error=\"insufficient_scope\", scope=\"clinical\""), "{}", challenge(&scope));
    row(get("/billing", "listed"), 403, "address_not_allowed").await;
    row(get("/billing", "listed").header("x-forwarded-for", "10.0.0.1"), 403, "address_not_allowed").await;
    world.lifecycle.set_user_access(&world.member, false, &world.by).await.unwrap();
    row(get("/billing", "personal"), 403, "user_access_disabled").await;
    world.lifecycle.disable(&world.practice, &world.by).await.unwrap();
    row(get("/billing", "billing"), 403, "practice_access_disabled").await;
    world.lifecycle.enable(&world.practice, &world.by).await.unwrap();
    world.lifecycle.set_user_access(&world.member, true, &world.by).await.unwrap();

    row(get("/nowhere", "all"), 404, "no_route").await;
    row(bare("/nowhere"), 404, "no_route").await;
    for path in ["/metrics", "/healthz", "/readyz", "/billingx"] {
        row(get(path, "all"), 404, "no_route").await;
    }
    let method = row(world.request("POST", "/patients", "all"), 405, "method_not_allowed").await;
    assert_eq!(method.headers["allow"], "GET, HEAD");
    row(world.request("TRACE", "/patients", "all"), 405, "method_not_allowed").await;
    row(world.request("POST", "/small", "all").body("more than ten"), 413, "body_too_large").await;
    row(get(&format!("/billing/{}", "a".repeat(9000)), "all"), 414, "uri_too_long").await;
    row(get("/billing", "all").header("expect", "200-maybe"), 417, "expectation_failed").await;
    row(get("/billing", "all").header("x-long", "a".repeat(66_000)), 431, "headers_too_large").await;
    let mut many = get("/billing", "all");
    for n in 0..120 {
        many = many.header(format!("x-{n}"), "1");
    }
    row(many, 431, "headers_too_large").await;
    row(get("/down", "all"), 502, "upstream_unreachable").await;

    assert_eq!(world.status("/billing", "limited").await, 200);
    world.upstream.take();
    let limited = row(get("/billing", "limited"), 429, "rate_limited").await;
    assert_eq!(limited.headers["retry-after"], "1");
    assert_eq!(limited.headers["ratelimit-policy"], "\"one\";q=1;w=1");
    assert!(limited.headers["ratelimit"].to_str().unwrap().starts_with("\"one\";r=0;t="));

    let slow = send(get("/slow", "all")).await;
    check(&slow, 504, "upstream_timeout");
    codes.lock().insert("upstream_timeout");
    world.upstream.take();

    // Without its store the gateway cannot vouch for anything: 503 once the lease is over, never 401, never a stale yes.
    std::fs::remove_file(world.path("gateway.db")).unwrap();
    let unavailable = loop {
        let answer = send(get("/billing", "all")).await;
        if answer.status != 200 {
            break answer;
        }
    };
    world.upstream.take();
    check(&unavailable, 503, "unavailable");
    assert_eq!(unavailable.headers["retry-after"], "1");
    row(get("/billing", "revoked"), 503, "unavailable").await;
    codes.lock().insert("unavailable");

    let elsewhere = ["request_timeout", "internal_error"];
    let every: BTreeSet<_> = Denial::examples().iter().map(Denial::code).filter(|code| !elsewhere.contains(code)).collect();
    assert_eq!(codes.into_inner(), every);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_pass_passes() {
    let world = World::new().await;
    for (path, app) in [("/billing", "billing"), ("/billing/7?x=/../y", "all"), ("/patients/1", "clinical"), ("/billing", "personal")] {
        let response = world.request("GET", path, app).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path} {app}");
        assert_ne!(response.headers()["x-request-id"], "upstream-own");
        assert_eq!(response.text().await.unwrap(), "served");
    }
    let targets: Vec<_> = world.upstream.take().into_iter().map(|seen| seen.target).collect();
    assert_eq!(targets, ["/billing", "/billing/7?x=/../y", "/patients/1", "/billing"]);
    let posted = world.request("POST", "/billing", "billing").body("invoice").send().await.unwrap();
    assert_eq!(posted.status(), 200);
    assert_eq!(world.upstream.take()[0].body, "invoice");
    assert_eq!(world.http.get(world.url("/docs/x")).send().await.unwrap().status(), 200);
    assert_eq!(world.upstream.take()[0].all("x-sigmamd-client-id"), Vec::<&str>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_is_spoken_on_the_plain_listener() {
    let world = World::new().await;
    let http2 = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let app = &world.apps["billing"];
    let response = http2.get(world.url("/billing")).basic_auth(app.id, Some(&app.secret)).send().await.unwrap();
    assert_eq!((response.version(), response.status().as_u16()), (reqwest::Version::HTTP_2, 200));
    let refused = http2.get(world.url("/patients")).basic_auth(app.id, Some(&app.secret)).send().await.unwrap();
    assert_eq!((refused.version(), refused.status().as_u16()), (reqwest::Version::HTTP_2, 403));
    assert_eq!(refused.json::<Value>().await.unwrap()["code"], "insufficient_scope");
}
