//! "Getting started with the API" on the command line: at a gateway's listener, and on the store.

use std::collections::BTreeSet;
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::Managed;
use crate::support::Database;

impl Managed {
    /// The program, in another process, which asks the gateway with this token.
    async fn remote(&self, token: &str, args: &[&str]) -> Output {
        let api = self.world.management("");
        self.program(&[&["--api", &api][..], args].concat(), Some(token), "").await
    }

    async fn program(&self, args: &[&str], token: Option<&str>, input: &str) -> Output {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_sigmagate"));
        command.current_dir(self.world.dir.path()).args(args).env_remove("SIGMAGATE_API").env_remove("SIGMAGATE_TOKEN");
        command.env("NO_PROXY", "127.0.0.1").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(token) = token {
            command.env("SIGMAGATE_TOKEN", token);
        }
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // Whoever does not read has hung up.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        child.wait_with_output().await.unwrap()
    }

    async fn done(&self, token: &str, line: &str) -> Value {
        let args: Vec<&str> = ["--json"].into_iter().chain(line.split(' ')).collect();
        let output = self.remote(token, &args).await;
        assert!(output.status.success(), "{line}: {}", said(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What is said when it ends with this exit code.
    async fn ends(&self, token: &str, line: &str, code: i32) -> String {
        let output = self.remote(token, &line.split(' ').collect::<Vec<_>>()).await;
        assert_eq!(output.status.code(), Some(code), "{line}: {}", said(&output));
        said(&output)
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_practice_gets_started_on_the_command_line() {
    let managed = Managed::on(Database::Sqlite, "").await;
    let operator = managed.operator();
    managed.done(&operator, "practice create riverside --name Riverside").await;
    managed.done(&operator, "user put ana --practice riverside --role admin --name Ana --email ana@riverside.test").await;
    managed.done(&operator, "user put bo --practice riverside").await;
    let (ana, bo) = (managed.user("ana", "riverside", true), managed.user("bo", "riverside", false));
    assert!(managed.ends(&ana, "client create --practice riverside --name Sync --scope billing", 4).await.contains("request"));
    managed.done(&ana, "practice request riverside").await;
    assert!(managed.ends(&ana, "practice approve riverside", 1).await.contains("only an operator may do this"));
    assert_eq!(managed.done(&operator, "practice approve riverside").await["receipt"]["applied"], 1);

    let created = managed.done(&ana, "client create --practice riverside --name Sync --scope billing --allow 127.0.0.0/8").await;
    let id = created["client"]["client_id"].as_str().unwrap();
    assert_eq!(managed.status("/billing", &created).await, 200);
    let shown = managed.ends(&ana, &format!("client show {id}"), 0).await;
    assert!(shown.contains("Sync") && shown.contains("127.0.0.0/8") && !shown.contains("smds_"), "{shown}");

    // Personal keys: when the admin has said so, and for nobody else to see.
    managed.ends(&bo, "client create --own --name Mine --scope billing", 4).await;
    managed.done(&ana, "user access bo on --practice riverside").await;
    assert!(managed.ends(&bo, "me", 0).await.contains("own API access         on"));
    let own = managed.done(&bo, "client create --own --name Mine --scope billing").await;
    let hidden = own["client"]["client_id"].as_str().unwrap();
    assert_eq!(managed.status("/billing", &own).await, 200);
    assert!(managed.ends(&bo, "client list --own", 0).await.contains(hidden));
    for who in [&ana, &operator] {
        assert!(!managed.ends(who, "client list --practice riverside", 0).await.contains(hidden));
        managed.ends(who, &format!("client revoke {hidden}"), 3).await;
    }

    // The admin looks at what would stop, rotates, edits, ends, revokes.
    assert_eq!(managed.done(&ana, "practice disable riverside --dry-run").await["dry_run"], true);
    let rotated = managed.done(&ana, &format!("client rotate {id} --overlap 24h")).await;
    let newer = json!({ "client": { "client_id": id }, "client_secret": rotated["client_secret"] });
    managed.done(&ana, &format!("client end-secret {id} 1")).await;
    assert_eq!((managed.status("/billing", &created).await, managed.status("/billing", &newer).await), (401, 200));
    assert!(managed.ends(&ana, &format!("client edit {id}"), 2).await.contains("--no-keys"));
    managed.done(&ana, &format!("client edit {id} --scope clinical --never-expires")).await;
    assert_eq!(managed.status("/billing", &newer).await, 403);
    assert!(managed.ends(&ana, &format!("client revoke {id}"), 0).await.contains("In force on 1 gateway"));
    assert_eq!(managed.status("/billing", &newer).await, 401);
    managed.ends(&ana, &format!("client rotate {id}"), 4).await;
    managed.done(&operator, "user remove bo --practice riverside").await;
    assert_eq!(managed.status("/billing", &own).await, 403);

    // What is told of all that.
    let ledger = managed.done(&ana, "practice ledger riverside --limit 1000").await;
    let actions: BTreeSet<&str> = ledger.as_array().unwrap().iter().map(|event| event["action"].as_str().unwrap()).collect();
    assert!(["client.create", "client.revoke", "client.refused", "refused"].iter().all(|action| actions.contains(action)), "{actions:?}");
    assert!(!ledger.to_string().contains(hidden));
    assert_eq!(managed.done(&operator, "nodes").await[0]["behind"], 0);
    managed.done(&operator, "practice usage riverside").await;
    managed.done(&operator, "config show").await;
    assert!(managed.ends(&operator, "config reload", 0).await.contains("in force"));
    loop {
        let denials = managed.done(&operator, "practice denials riverside").await;
        let Some(denial) = denials.as_array().unwrap().first() else { continue };
        let told = managed.ends(&operator, &format!("decision {}", denial["request_id"].as_str().unwrap()), 0).await;
        assert!(told.contains(denial["reason"].as_str().unwrap()), "{told}");
        break;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_team_is_taken_in_from_a_file_and_each_line_that_is_not_is_told() {
    let managed = Managed::on(Database::Sqlite, "").await;
    let (operator, api) = (managed.operator(), managed.world.management(""));
    let args = ["--api", &api, "user", "sync", "--practice", "practice-1", "-"];
    let good = "{\"user_id\":\"a\",\"role\":\"admin\"}\n{\"user_id\":\"b\",\"role\":\"member\",\"name\":\"Bo\"}\n";
    let output = managed.program(&args, Some(&operator), good).await;
    assert!(output.status.success() && said(&output).contains("2 taken in, 0 not."), "{}", said(&output));
    let output = managed.program(&args, Some(&operator), "{\"user_id\":\"c\"}\n{\"user_id\":\"b\",\"removed\":true}\n").await;
    let told = said(&output);
    assert!(output.status.code() == Some(1) && told.contains("line 1: ") && told.contains("`role` is missing"), "{told}");
    let listed = managed.ends(&operator, "user list --practice practice-1", 0).await;
    assert!(listed.contains("Bo") && !listed.contains("\n c "), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_be_asked_or_will_not_answer_is_said() {
    let managed = Managed::on(Database::Sqlite, "").await;
    let (operator, api) = (managed.operator(), managed.world.management(""));
    let list = ["practice", "list"];
    let ask = async |args: &[&str], token: Option<&str>| managed.program(&[args, &list].concat(), token, "").await;
    for (args, token, code, says) in [
        (&["--api", &api][..], None, 2, "no management token: put one into SIGMAGATE_TOKEN"),
        (&["--api", &api], Some("wrong"), 1, "this needs a management token: `sigmagate management-token` mints one"),
        (&["--api", &managed.world.url("")], Some(&*operator), 3, "nothing is served under this path"),
        (&["--api", "http://127.0.0.1:1"], Some(&operator), 1, "no answer from http://127.0.0.1:1/: is that the management listener"),
        (&["--api", "127.0.0.1:8081"], Some(&operator), 1, "is no address of a listener"),
        (&["--api", &api, "--token-file", "missing"], None, 1, "cannot read `missing`"),
        (&["--api", &api, "--as", "member-1"], Some(&operator), 2, "cannot be used with"),
        (&["--token-file", "x"], None, 2, "--api"),
    ] {
        let output = ask(args, token).await;
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", said(&output));
        assert!(said(&output).contains(says) && !said(&output).contains(&operator), "{args:?}: {}", said(&output));
    }
    std::fs::write(managed.world.path("token"), format!("{operator}\n")).unwrap();
    assert!(ask(&["--api", &api, "--token-file", "token"], None).await.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_store_a_user_has_keys_of_their_own_too() {
    let managed = Managed::on(Database::Sqlite, "").await;
    let world = &managed.world;
    let made = world.cli(&["--json", "--as", "member-1", "client", "create", "--own", "--name", "Mine", "--scope", "billing"]).await;
    assert!(made.status.success(), "{}", said(&made));
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    assert_eq!(managed.status("/billing", &made).await, 200);
    let id = made["client"]["client_id"].as_str().unwrap();
    assert_eq!(world.cli(&["client", "show", id]).await.status.code(), Some(3), "an operator does not see it");
    assert!(world.cli(&["--as", "member-1", "client", "revoke", id]).await.status.success());
    assert_eq!(managed.status("/billing", &made).await, 401);
    assert_eq!(world.cli(&["--as", "nobody", "me"]).await.status.code(), Some(3));
    assert!(world.cli(&["user", "remove", "member-1", "--practice", "practice-1"]).await.status.success());
    assert_eq!(world.cli(&["--as", "member-1", "me"]).await.status.code(), Some(4), "whoever has left is nobody");
    let events = world.lifecycle.store().audit(Some(&world.practice)).await.unwrap();
    let by: Vec<_> = events.iter().filter(|event| event.target == id).map(|event| (&*event.actor, &*event.origin)).collect();
    assert_eq!(by, [("user:member-1", "cli"), ("user:member-1", "cli")]);
}
