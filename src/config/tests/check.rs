//! What is found in a map that loads, and where.

use serde_json::json;

use super::*;
use crate::config::check::{Finding, Level, check, check_openapi};

const HEAD: &str = r#"scopes = ["billing", "tasks", "forms"]
[upstreams.core]
servers = ["http://127.0.0.1:9001"]
[upstreams.spare]
servers = ["http://127.0.0.1:9002"]
[tiers.standard]
per_second = 1
burst = 1
"#;

fn route(prefix: &str, rest: &str) -> String {
    format!("[[routes]]\nprefix = \"{prefix}\"\nupstream = \"core\"\n{rest}\n")
}

/// What is found, without the folder.
fn found(gateway: &str, routes: &str) -> Vec<String> {
    let files = files(gateway, &format!("{HEAD}{routes}"));
    let folder = format!("{}/", files.dir.path().display());
    check(&files.load(&[]).unwrap()).iter().map(|finding| finding.to_string().replace(&folder, "")).collect()
}

/// What is found about routes.
fn found_in(routes: &str) -> Vec<String> {
    found("", routes).into_iter().filter(|finding| finding.contains(": routes[")).collect()
}

#[test]
fn a_hole_in_a_protected_prefix_is_a_warning_and_another_requirement_a_note() {
    let parent = route("/a", "scopes = [\"billing\"]");
    for (child, says) in [
        (
            route("/a/b", "public = true"),
            "routes.toml:14:10: warning: routes[1].prefix: `/a/b` is public, inside `/a` (line 10), which asks for `billing`",
        ),
        (
            route("/a/b", "scopes = [\"tasks\"]"),
            "routes.toml:14:10: note: routes[1].prefix: `/a/b` asks for `tasks`, inside `/a` (line 10), which asks for `billing`",
        ),
        (route("/a/b/c", "scopes_all = [\"tasks\", \"forms\"]"), "`/a/b/c` asks for all of `tasks forms`, inside `/a`"),
        (
            route("/a/b", "scopes = [\"billing\"]\nmethods = [\"GET\"]"),
            "note: routes[1].prefix: `/a/b` shadows `/a` (line 10) and refuses HEAD, POST, PUT, PATCH, DELETE, OPTIONS (405)",
        ),
        (route("/A", "public = true"), "warning: routes[1].prefix: `/A` and `/a` (line 10) differ only in case"),
        (route("/a/b", "scopes = [\"billing\"]"), "note: routes[1].prefix: `/a/b` changes nothing: `/a` (line 10) says the same"),
    ] {
        let found = found_in(&format!("{parent}{child}"));
        assert!(found.len() == 1 && found[0].contains(says), "{child}: {found:#?}");
    }
    let limited = "scopes = [\"billing\"]\nbody_limit_bytes = 5";
    for child in [route("/a/b", limited), route("/ab", "public = true"), route("/b", "scopes = [\"tasks\"]")] {
        assert_eq!(found_in(&format!("{parent}{child}")), Vec::<String>::new(), "{child}");
    }
    let split = route("/a", "scopes = [\"billing\"]\nmethods = [\"GET\"]") + &route("/a", "scopes = [\"tasks\"]\nmethods = [\"POST\"]");
    assert_eq!(found_in(&split), Vec::<String>::new(), "one prefix, other methods");
    let ignoring = format!("{parent}{}", route("/A/b", "public = true"));
    let files = files("", &format!("ignore_case = true\n{HEAD}{ignoring}"));
    let found = check(&files.load(&[]).unwrap());
    assert!(found.iter().any(|one| one.level == Level::Warning && one.message.contains("`/A/b` is public, inside `/a`")), "{found:?}");
}

#[test]
fn what_nothing_leads_to_is_found_where_it_stands() {
    let routes = route(&format!("/{}", "a".repeat(100)), "scopes = [\"billing\"]");
    assert_eq!(
        found("[limits]\ntarget_bytes = 100", &routes),
        [
            "routes.toml:10:10: warning: routes[0].prefix: no request can reach it: a target has 100 bytes at most (`limits.target_bytes`), and this is longer",
            "routes.toml:1:22: warning: scopes[1]: no route asks for the scope `tasks`",
            "routes.toml:1:31: warning: scopes[2]: no route asks for the scope `forms`",
            "routes.toml:4:1: warning: upstreams.spare: no route leads to the upstream `spare`",
        ]
    );
    let untiered = check(&files("", ROUTES).load(&[]).unwrap());
    assert!(untiered.iter().any(|finding| finding.level == Level::Note && finding.message.contains("no tier `standard`")), "{untiered:?}");
}

#[test]
fn an_operation_without_a_route_to_its_upstream_is_an_error() {
    let document = json!({
        "openapi": "3.1.0",
        "servers": [{ "url": "https://{host}/v{n}/", "variables": { "host": { "default": "x.test" }, "n": { "default": "1" } } }],
        "paths": {
            "/bills/{id}": { "get": {}, "post": {}, "parameters": [] },
            "/bills/{id}.{kind}": { "get": {} },
            "/tasks": { "get": {}, "trace": {} },
            "/forms/{a}/{b}": { "delete": { "servers": [{ "url": "/" }, { "url": "/elsewhere" }] } },
            "/odd//path": { "get": {} },
        },
    });
    let routes = route("/v1/bills", "scopes = [\"billing\"]\nmethods = [\"GET\"]")
        + &route("/v1/tasks", "scopes = [\"tasks\"]").replace("core", "spare")
        + &route("/forms", "scopes = [\"forms\"]");
    let map = files("", &format!("{HEAD}{routes}")).load(&[]).unwrap().routes;
    let findings = check_openapi(&map, "core", &document);
    assert!(findings.iter().all(|finding| finding.level == Level::Error));
    let mut text: Vec<_> = findings.iter().map(|finding| finding.message.as_str()).collect();
    text.sort_unstable();
    assert_eq!(
        text,
        [
            "`DELETE /elsewhere/forms/{a}/{b}` of `core`: no route covers it",
            "`GET /v1/odd//path` of `core`: no request can have this path: the path has an empty segment",
            "`GET /v1/tasks` of `core`: routes[1] (`/v1/tasks`) leads to `spare`",
            "`POST /v1/bills/{id}` of `core`: its route takes GET only",
            "`TRACE /v1/tasks` of `core`: its route takes GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS only",
        ]
    );
    for document in [json!({ "swagger": "2.0", "paths": {} }), json!([])] {
        let findings = check_openapi(&map, "core", &document);
        assert!(findings.len() == 1 && findings[0].message.contains("is not OpenAPI 3"), "{findings:?}");
    }
}

#[test]
fn programs_read_what_is_wrong_and_what_is_found_in_one_form() {
    let found = check(&files("", ROUTES).load(&[]).unwrap());
    let unused = json!(found.iter().find(|finding| finding.level == Level::Warning));
    let want =
        json!({ "level": "warning", "line": 1, "column": 22, "key": "scopes[1]", "message": "no route asks for the scope `clinical`" });
    for (name, value) in want.as_object().unwrap() {
        assert_eq!(&unused[name], value, "{unused}");
    }
    assert!(unused["file"].as_str().unwrap().ends_with("routes.toml"));
    let mistakes = files("", ROUTES).load(&[("SIGMAGATE__STORE__ULR", "x")]).unwrap_err();
    let wrong = json!(Finding::from(mistakes.0[0].clone()));
    assert_eq!(
        (&wrong["level"], &wrong["variable"], &wrong["key"]),
        (&json!("error"), &json!("SIGMAGATE__STORE__ULR"), &json!("store.ulr"))
    );
}
