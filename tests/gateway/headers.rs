//! What the upstream is told, and what a caller cannot make it believe.

use crate::support::World;

#[tokio::test(flavor = "multi_thread")]
async fn the_upstream_sees_our_identity_once_whatever_the_caller_sends() {
    let world = World::new().await;
    let forged = [
        "X-SigmaMD-Practice-Id",
        "x-sigmamd-client-id",
        "X-SIGMAMD-USER-ID",
        "x_sigmamd_user_id",
        "X-SigmaMD_Scopes",
        "x.sigmamd.practice.id",
        "X-SigmaMD-Anything",
        "X-SigmaMD-Assertion",
    ];
    let dropped = [
        "X-Forwarded-User",
        "Remote-User",
        "X-Remote-User",
        "X-Forwarded-Client-Cert",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-Forwarded-Uri",
        "Proxy",
        "Proxy-Authorization",
        "X-Real-IP",
        "True-Client-IP",
        "X-Forwarded-Port",
        "X_Forwarded_For",
        "X_Forwarded_User",
        "Transfer_Encoding",
        "Content_Length",
        "Keep-Alive",
        "HTTP2-Settings",
        "Proxy-Connection",
    ];
    for app in ["billing", "personal"] {
        let mut request = world.request("GET", "/billing", app);
        for name in forged.iter().chain(&dropped) {
            request = request.header(*name, "forged");
        }
        request = request
            .header("x-forwarded-for", "10.9.9.9")
            .header("forwarded", "for=10.9.9.9")
            .header("x-kept", "kept")
            .header("x-forwarded-host", "evil.test");
        assert_eq!(request.send().await.unwrap().status(), 200);
        let seen = world.upstream.take().pop().unwrap();
        assert!(
            !seen.headers.iter().any(|(_, value)| value.contains("forged") || value.contains("10.9.9.9") || value.contains("evil")),
            "{:?}",
            seen.headers
        );
        assert_eq!(seen.one("x-kept"), "kept");
        assert_eq!(seen.one("x-sigmamd-practice-id"), world.practice.as_str());
        assert_eq!(seen.one("x-sigmamd-client-id"), world.apps[app].id.to_string());
        assert_eq!(seen.one("x-sigmamd-scopes"), "billing");
        let user: Vec<&str> = if app == "personal" { vec![world.member.as_str()] } else { vec![] };
        assert_eq!(seen.all("x-sigmamd-user-id"), user);
        assert_eq!(seen.one("x-forwarded-for"), "127.0.0.1");
        assert_eq!(seen.one("x-forwarded-proto"), "http");
        assert!(seen.one("forwarded").contains("for=127.0.0.1"));
        assert_eq!(seen.one("host"), world.address().to_string());
        assert!(seen.all("authorization").is_empty());
        assert_eq!(seen.one("traceparent").len(), 55);
        assert_eq!(seen.one("x-request-id").len(), 36);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn naming_a_field_in_connection_takes_nothing_of_ours_away() {
    let world = World::new().await;
    let authorization = world.authorization("billing");
    for nominated in [
        "X-SigmaMD-Practice-Id",
        "X-Request-Id",
        "x-sigmamd-scopes",
        "traceparent",
        "Authorization",
        "X-Forwarded-For",
        "Host",
        "Content-Length",
    ] {
        let answer = world
            .raw(format!("GET /billing HTTP/1.1\r\nHost: a\r\nAuthorization: {authorization}\r\nConnection: close, {nominated}\r\n\r\n"))
            .await;
        let seen = world.upstream.take();
        if answer.starts_with("HTTP/1.1 400") {
            assert!(seen.is_empty());
            continue;
        }
        assert!(answer.starts_with("HTTP/1.1 200"), "{nominated}: {answer}");
        for ours in ["x-sigmamd-practice-id", "x-sigmamd-client-id", "x-sigmamd-scopes", "x-request-id", "x-forwarded-for", "host"] {
            seen[0].one(ours);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callers_request_id_is_kept_if_it_is_plain_and_replaced_if_not() {
    let world = World::new().await;
    for (sent, kept) in
        [("abc-123", true), (&*"a".repeat(64), true), (&*"a".repeat(65), false), ("a b", false), ("a\"b", false), ("", false)]
    {
        let response = world.request("GET", "/billing", "billing").header("x-request-id", sent).send().await.unwrap();
        let echoed = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        let seen = world.upstream.take().pop().unwrap();
        assert_eq!(seen.one("x-request-id"), echoed, "one id ties both sides together");
        assert_eq!(echoed == sent, kept, "{sent:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_are_told_on_success_too() {
    let world = World::new().await;
    let response = world.request("GET", "/billing", "limited").send().await.unwrap();
    assert_eq!(response.headers()["ratelimit-policy"], "\"one\";q=1;w=1");
    assert!(response.headers()["ratelimit"].to_str().unwrap().starts_with("\"one\";r=0;"));
    let unlimited = world.request("GET", "/billing", "billing").send().await.unwrap();
    assert!(!unlimited.headers().contains_key("ratelimit"));
}
