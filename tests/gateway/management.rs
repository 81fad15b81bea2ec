//! The management listener.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::process::Process;
use crate::support::{ROUTES, World};

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_an_id_and_what_is_not_there_is_a_problem_document() {
    let world = World::new().await;
    let mut ids = BTreeSet::new();
    for (method, path, status, code) in [
        ("GET", "/metrics", 200, None),
        ("GET", "/healthz", 200, None),
        ("HEAD", "/healthz", 200, None),
        ("GET", "/readyz", 200, None),
        ("GET", "/", 404, Some("not_found")),
        ("GET", "/metrics/", 404, Some("not_found")),
        ("GET", "/billing", 404, Some("not_found")),
        ("POST", "/metrics", 405, Some("method_not_allowed")),
        ("DELETE", "/readyz", 405, Some("method_not_allowed")),
    ] {
        let request = world.http.request(method.parse().unwrap(), world.management(path)).header("x-request-id", "mine");
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{method} {path}");
        let headers = response.headers().clone();
        let id = headers["x-request-id"].to_str().unwrap().to_owned();
        assert!(id.len() == 36 && ids.insert(id.clone()), "{method} {path}: {id}");
        assert_eq!(
            (&headers["cache-control"], &headers["x-content-type-options"]),
            (&"no-store".parse().unwrap(), &"nosniff".parse().unwrap())
        );
        let Some(code) = code else { continue };
        assert_eq!(headers["content-type"], "application/problem+json");
        assert!(status != 405 || headers.contains_key("allow"), "{headers:?}");
        let problem: Value = response.json().await.unwrap();
        assert_eq!((&problem["code"], &problem["status"], &problem["request_id"]), (&code.into(), &status.into(), &id.into()), "{problem}");
        assert!(["type", "title", "detail"].iter().all(|field| problem[field].is_string()), "{problem}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_says_how_the_gateway_stands_and_why_it_is_not_ready() {
    let world = World::new().await;
    let ask = async || {
        let response = world.http.get(world.management("/readyz")).send().await.unwrap();
        let (status, retry) = (response.status().as_u16(), response.headers().contains_key("retry-after"));
        (status, retry, response.json::<Value>().await.unwrap())
    };
    let (status, retry, ready) = ask().await;
    assert_eq!((status, retry, &ready["ready"], &ready["state"]), (200, false, &true.into(), &"live".into()), "{ready}");
    let lease = u64::try_from(world.lifecycle.store().lease().as_millis()).unwrap();
    assert!(ready["lease_left_ms"].as_u64().unwrap() <= lease, "{ready}");
    assert!(ready["node"].as_str().unwrap().len() == 36 && ready.get("reason").is_none(), "{ready}");
    let receipt = world.lifecycle.put_practice(&world.practice, "Renamed", &world.by).await.unwrap();
    assert_eq!(ask().await.2["revision"], receipt.revision.0, "what has a receipt is in force");
    assert!((world.metric("sigmagate_heartbeats_total{outcome=\"ok\"}").await) >= 1.0);
    assert!((world.metric("sigmagate_nodes").await - 1.0).abs() < 0.5);

    std::fs::remove_file(world.path("gateway.db")).unwrap();
    let (stale, mut seen) = {
        let mut seen = BTreeSet::new();
        loop {
            let (status, retry, body) = ask().await;
            let state = body["state"].as_str().unwrap().to_owned();
            seen.insert(state.clone());
            assert_eq!((status == 200, retry), (state == "live", state != "live"), "{body}");
            if state == "stale" {
                break (body, seen);
            }
        }
    };
    assert_eq!((&stale["ready"], &stale["lease_left_ms"], &stale["revision"]), (&false.into(), &0.into(), &receipt.revision.0.into()));
    assert!(stale["reason"].as_str().unwrap().contains("gateway.db") && stale["node"] == ready["node"], "{stale}");
    assert!(world.metric("sigmagate_heartbeats_total{outcome=\"failed\"}").await >= 1.0);
    assert!(world.metric("sigmagate_feed_lag_seconds").await >= world.lifecycle.store().lease().as_secs_f64());
    seen.remove("stale");
    assert!(seen.is_subset(&["live", "failing", "joining"].map(str::to_owned).into()), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_tells_what_the_kernel_knows_of_it() {
    let world = World::without_gateway("", ROUTES).await;
    let gateway = Process::serve(&world, &[]).await;
    let text = gateway.metrics(&world).await;
    let value = |name: &str| -> f64 {
        let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_else(|| panic!("{name} in {text}"));
        line.split(' ').nth(1).unwrap().parse().unwrap()
    };
    let pid = gateway.child.id().unwrap();
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let most = limits.lines().find(|line| line.starts_with("Max open files")).unwrap().split_whitespace().nth(3).unwrap().parse::<f64>();
    assert!((value("process_max_fds") - most.unwrap()).abs() < 1.0);
    assert!(value("process_open_fds") > 3.0 && value("process_open_fds") < value("process_max_fds"));
    assert!(value("process_resident_memory_bytes") > 1e6);
    assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
    assert!(value("process_threads") >= 2.0);
    assert!(text.contains("# TYPE process_cpu_seconds_total counter\n"), "{text}");
    // The moment at which the kernel began the process, not that at which the process began to count.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let ticks: f64 = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse().unwrap();
    let boot = std::fs::read_to_string("/proc/stat").unwrap();
    let boot: f64 = boot.lines().find_map(|line| line.strip_prefix("btime ")).unwrap().parse().unwrap();
    let begun = boot + ticks / 100.0;
    assert!((value("process_start_time_seconds") - begun).abs() < 0.011, "{} {begun}", value("process_start_time_seconds"));
}
