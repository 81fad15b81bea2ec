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
