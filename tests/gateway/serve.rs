//! The program itself: certificates, and a sudden death.

use std::time::Duration;

use rustix::process::Signal;

use crate::process::Process;
use crate::support::{ROUTES, World};

#[tokio::test(flavor = "multi_thread")]
async fn tls_speaks_the_version_that_both_sides_know() {
    let pair = rcgen::generate_simple_self_signed(["gate.test".to_owned()]).unwrap();
    let settings = "[[listeners]]\naddress = \"127.0.0.1:0\"\ntls = { certificate = \"c.pem\", key = \"k.pem\" }\n";
    let world = World::without_gateway("", ROUTES).await;
    let rest = std::fs::read_to_string(world.path("gateway.toml")).unwrap();
    std::fs::write(world.path("gateway.toml"), format!("{settings}{rest}")).unwrap();
    std::fs::write(world.path("c.pem"), pair.cert.pem()).unwrap();
    std::fs::write(world.path("k.pem"), pair.signing_key.serialize_pem()).unwrap();
    let gateway = Process::serve(&world, &[]).await;
    let address = gateway.addresses[0];
    let client = || {
        let certificate = reqwest::Certificate::from_pem(pair.cert.pem().as_bytes()).unwrap();
        reqwest::Client::builder().no_proxy().tls_certs_only([certificate]).resolve("gate.test", address)
    };
    let app = &world.apps["billing"];
    let url = |path: &str| format!("https://gate.test:{}{path}", address.port());
    for (client, version) in [(client().http1_only(), reqwest::Version::HTTP_11), (client(), reqwest::Version::HTTP_2)] {
        let client = client.build().unwrap();
        for (path, status) in [("/billing", 200), ("/patients", 403), ("/docs", 200)] {
            let response = client.get(url(path)).basic_auth(app.id, Some(&app.secret)).send().await.unwrap();
            assert_eq!((response.version(), response.status().as_u16()), (version, status), "{path}");
        }
        let seen = world.upstream.take();
        assert_eq!(seen.len(), 2);
        assert!(seen.iter().all(|seen| seen.one("x-forwarded-proto") == "https"), "{seen:?}");
    }
    let plain = world.http.get(format!("http://{address}/billing")).basic_auth(app.id, Some(&app.secret)).send().await;
    assert!(plain.is_err() && world.upstream.untouched(), "nothing in the clear: {plain:?}");
    // The listener beside it has no certificate, and goes on as it is.
    let beside = world.http.get(format!("http://{}/billing", gateway.addresses[1])).basic_auth(app.id, Some(&app.secret));
    assert_eq!(beside.send().await.unwrap().status(), 200);
    assert!(gateway.end(Signal::TERM).await.0.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_was_killed_holds_up_no_revocation_and_refuses_when_it_is_back() {
    let world = World::without_gateway("", ROUTES).await;
    let gateway = Process::serve(&world, &[]).await;
    assert_eq!(gateway.status(&world, "/billing", "billing").await, 200);
    let (status, ..) = gateway.end(Signal::KILL).await;
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));

    let output = world.cli(&["--json", "client", "revoke", &world.apps["billing"].id.to_string()]).await;
    assert!(output.status.success(), "{output:?}");
    let receipt = serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()["receipt"].take();
    // The register still has it; that it is dead, its lock says, so not even its lease is waited for.
    assert_eq!((&receipt["applied"], &receipt["expired"]), (&0.into(), &1.into()), "{receipt}");
    let lease = world.lifecycle.store().lease();
    assert!(Duration::from_millis(receipt["waited_ms"].as_u64().unwrap()) <= lease, "{receipt}");

    let gateway = Process::serve(&world, &[]).await;
    assert_eq!(gateway.status(&world, "/billing", "billing").await, 401, "revoked while it was dead");
    assert_eq!(gateway.status(&world, "/billing", "all").await, 200);
    assert!(gateway.end(Signal::TERM).await.0.success());
}
