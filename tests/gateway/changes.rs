//! Changes take effect at once, whoever makes them.

use rustix::process::Signal;
use sqlx::{Connection, SqliteConnection};

use crate::process::Process;
use crate::support::{ROUTES, World};

#[tokio::test(flavor = "multi_thread")]
async fn after_a_revoke_from_another_process_the_very_next_request_is_refused() {
    let world = World::new().await;
    let id = world.apps["billing"].id.to_string();
    for _ in 0..5 {
        assert_eq!(world.status("/billing", "billing").await, 200);
    }
    let output = world.cli(&["--json", "client", "revoke", &id]).await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(world.status("/billing", "billing").await, 401);
    assert_eq!(world.status("/billing", "all").await, 200, "nobody else is touched");
}

#[tokio::test(flavor = "multi_thread")]
async fn toggles_from_another_process_take_effect_on_the_very_next_request_and_back() {
    let world = World::new().await;
    let (practice, member) = (world.practice.to_string(), world.member.to_string());
    for _ in 0..3 {
        for (args, personal, billing) in [
            (["user", "access", &member, "off", "--practice", &practice].as_slice(), 403, 200),
            (&["user", "access", &member, "on", "--practice", &practice], 200, 200),
            (&["practice", "disable", &practice], 403, 403),
            (&["practice", "enable", &practice], 200, 200),
        ] {
            let output = world.cli(args).await;
            assert!(output.status.success(), "{args:?} {output:?}");
            assert_eq!(
                (world.status("/billing", "personal").await, world.status("/billing", "billing").await),
                (personal, billing),
                "{args:?}"
            );
        }
    }
    assert_eq!(world.status("/billing", "revoked").await, 401, "what was revoked stays revoked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_works_as_soon_as_it_is_made_and_a_rotated_secret_when_it_says() {
    let world = World::new().await;
    let practice = world.practice.to_string();
    let call = async |id: &str, secret: &str| {
        let request = world.http.get(world.url("/billing")).basic_auth(id, Some(secret));
        request.send().await.unwrap().status().as_u16()
    };
    let made = world.cli(&["--json", "client", "create", "--practice", &practice, "--name", "New", "--scope", "billing"]).await;
    assert!(made.status.success(), "{made:?}");
    let made: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    let (id, first) = (made["client"]["client_id"].as_str().unwrap(), made["client_secret"].as_str().unwrap());
    assert_eq!(call(id, first).await, 200);
    let rotated = world.cli(&["--json", "client", "rotate", id, "--overlap", "1h"]).await;
    let rotated: serde_json::Value = serde_json::from_slice(&rotated.stdout).unwrap();
    let second = rotated["client_secret"].as_str().unwrap();
    assert_eq!((call(id, first).await, call(id, second).await), (200, 200), "both work during the overlap");
    let rotated = world.cli(&["--json", "client", "rotate", id]).await;
    let rotated: serde_json::Value = serde_json::from_slice(&rotated.stdout).unwrap();
    let third = rotated["client_secret"].as_str().unwrap();
    assert_eq!((call(id, first).await, call(id, second).await, call(id, third).await), (401, 401, 200));
}

/// Hand-run SQL has no receipt: it is in force within the lease, and as a rule within milliseconds. The test waits for the
/// state, not for a time.
#[tokio::test(flavor = "multi_thread")]
async fn sql_by_hand_is_seen_and_cannot_undo_a_revocation() {
    let world = World::new().await;
    let id = world.apps["billing"].id.to_string();
    let mut database = SqliteConnection::connect(&world.database_url()).await.unwrap();
    assert_eq!(world.status("/billing", "personal").await, 200);
    sqlx::query("UPDATE users SET api_access = 0 WHERE user_id = 'member-1'").execute(&mut database).await.unwrap();
    while world.status("/billing", "personal").await == 200 {}
    assert_eq!(world.status("/billing", "personal").await, 403);
    sqlx::query("UPDATE clients SET revoked_at = 1 WHERE client_id = ?").bind(&id).execute(&mut database).await.unwrap();
    while world.status("/billing", "billing").await == 200 {}
    assert_eq!(world.status("/billing", "billing").await, 401);
    assert!(sqlx::query("UPDATE clients SET revoked_at = NULL WHERE client_id = ?").bind(&id).execute(&mut database).await.is_err());
    assert!(sqlx::query("DELETE FROM clients WHERE client_id = ?").bind(&id).execute(&mut database).await.is_err());
    assert_eq!(world.status("/billing", "billing").await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_file_takes_effect_when_it_is_saved_and_a_wrong_one_never_does() {
    let world = World::new().await;
    let metric = async |line: &str| {
        let text = world.http.get(world.management("/metrics")).send().await.unwrap().text().await.unwrap();
        text.lines().any(|l| l == line)
    };
    let before = std::fs::read_to_string(world.path("routes.toml")).unwrap();
    assert_eq!(world.status("/invoices", "billing").await, 404);
    let save = |text: &str| {
        // As an editor does it: another file, renamed.
        std::fs::write(world.path("routes.toml.new"), text).unwrap();
        std::fs::rename(world.path("routes.toml.new"), world.path("routes.toml")).unwrap();
    };
    let added = format!("{before}\n[[routes]]\nprefix = \"/invoices\"\nscopes = [\"billing\"]\nupstream = \"core\"\n");
    save(&added);
    while world.status("/invoices", "billing").await == 404 {}
    assert_eq!(world.status("/invoices", "billing").await, 200);
    save(&added.replace("upstream = \"core\"", "upstream = \"cor\""));
    while !metric("sigmagate_config_reloads_total{result=\"refused\"} 1").await {}
    assert_eq!(world.status("/invoices", "billing").await, 200, "the last good one stays");
    save(&before);
    while world.status("/invoices", "billing").await == 200 {}
    assert_eq!(world.status("/invoices", "billing").await, 404);
    assert!(before.len() > ROUTES.len() / 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_lost_while_the_route_file_changes() {
    let world = World::new().await;
    let before = std::fs::read_to_string(world.path("routes.toml")).unwrap();
    let (done, mut watch) = tokio::sync::watch::channel(false);
    let request = world.request("GET", "/billing", "billing");
    let load = tokio::spawn(async move {
        let mut count = 0u32;
        while !*watch.borrow_and_update() {
            assert_eq!(request.try_clone().unwrap().send().await.unwrap().status(), 200);
            count += 1;
        }
        count
    });
    for n in 0..20 {
        let prefix = format!("/extra{n}");
        let text = format!("{before}\n[[routes]]\nprefix = \"{prefix}\"\nscopes = [\"billing\"]\nupstream = \"core\"\n");
        std::fs::write(world.path("routes.toml.new"), text).unwrap();
        std::fs::rename(world.path("routes.toml.new"), world.path("routes.toml")).unwrap();
        while world.status(&prefix, "billing").await == 404 {}
    }
    done.send_replace(true);
    assert!(load.await.unwrap() > 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_takes_up_the_route_file_and_a_wrong_one_is_refused() {
    let world = World::without_gateway("", ROUTES).await;
    let before = std::fs::read_to_string(world.path("routes.toml")).unwrap();
    // The file is linked to from a folder of its own, where nothing changes when it does: only the signal tells.
    let elsewhere = tempfile::tempdir().unwrap();
    let routes = elsewhere.path().join("routes.toml");
    std::fs::write(&routes, &before).unwrap();
    std::fs::remove_file(world.path("routes.toml")).unwrap();
    std::os::unix::fs::symlink(&routes, world.path("routes.toml")).unwrap();
    let mut gateway = Process::serve(&world, &[]).await;
    let status = async |gateway: &Process| gateway.status(&world, "/invoices", "billing").await;
    let added = format!("{before}\n[[routes]]\nprefix = \"/invoices\"\nscopes = [\"billing\"]\nupstream = \"core\"\n");

    std::fs::write(&routes, &added).unwrap();
    assert_eq!(status(&gateway).await, 404, "nobody has told it yet");
    gateway.signal(Signal::HUP);
    let line = gateway.logged("route map taken up").await;
    assert_eq!((&line["level"], &line["generation"]), (&"INFO".into(), &2.into()), "{line}");
    assert_eq!(status(&gateway).await, 200);

    std::fs::write(&routes, added.replace("upstream = \"core\"", "upstream = \"cor\"")).unwrap();
    gateway.signal(Signal::HUP);
    let line = gateway.logged("route map refused").await;
    assert!(line["level"] == "ERROR" && line["mistakes"].as_str().unwrap().contains("no upstream is called `cor`"), "{line}");
    assert_eq!(status(&gateway).await, 200, "the last good one stays");
    let metrics = gateway.metrics(&world).await;
    for line in [
        "sigmagate_config_reloads_total{result=\"ok\"} 2",
        "sigmagate_config_reloads_total{result=\"refused\"} 1",
        "sigmagate_config_generation 2",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} in {metrics}");
    }

    std::fs::write(&routes, &before).unwrap();
    gateway.signal(Signal::HUP);
    gateway.logged("\"generation\":3").await;
    assert_eq!(status(&gateway).await, 404);
    assert!(gateway.end(Signal::TERM).await.0.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_whose_log_was_removed_admits_nobody_any_more() {
    let world = World::new().await;
    assert_eq!(world.status("/billing", "billing").await, 200);
    let mut by_hand = SqliteConnection::connect(&world.database_url()).await.unwrap();
    sqlx::raw_sql("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut by_hand).await.unwrap();
    for file in ["gateway.db-wal", "gateway.db-shm"] {
        std::fs::remove_file(world.path(file)).unwrap();
    }
    // It begins a log of its own, that nothing in the process of the gateway reads.
    let revoked = world.cli(&["--json", "client", "revoke", &world.apps["billing"].id.to_string()]).await;
    assert!(revoked.status.success(), "{revoked:?}");
    assert_eq!(world.status("/billing", "billing").await, 503);
    // However often it tries to follow the store again.
    while world.metric("sigmagate_feed_polls_total{result=\"failed\"}").await < 4.0 {
        assert_eq!(world.status("/billing", "billing").await, 503);
    }
}
