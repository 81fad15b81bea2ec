//! The program on PostgreSQL: the command line as an operator has it, and gateways that start, and that outlive a failover.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod cold;
mod failover;
#[path = "../chaos/fleet.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod fleet;
#[path = "../chaos/link.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod link;
#[path = "../chaos/load.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod load;
#[path = "../support/postgres.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod support;
mod tokens;
mod world;

/// What those that play clients tell the time in.
mod history {
    pub type Moment = u64;
}

use std::process::{Command, Output};

use serde_json::Value;

use self::support::Postgres;

/// The program, with its store in the environment, in a folder without settings.
struct Operator {
    url: String,
    folder: tempfile::TempDir,
}

impl Operator {
    fn run(&self, args: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sigmagate"));
        command.args(args.split(' ')).env("SIGMAGATE__STORE__URL", &self.url).env_remove("SIGMAGATE_DATABASE");
        let output = command.current_dir(self.folder.path()).output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!said.contains("hidden-word"), "{args}: {said}");
        output
    }

    fn done(&self, args: &str) -> Value {
        let output = self.run(&format!("--json {args}"));
        assert!(output.status.success(), "{args}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn fails(&self, args: &str, code: i32) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(code), "{args}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stderr).unwrap()
    }
}

#[test]
fn every_verb_that_manages_works_on_a_fleets_database() {
    let server = Postgres::start(&[]);
    // Where everybody is trusted a password is not looked at, and must not be shown all the same.
    let url = format!("{}?password=hidden-word", server.database().replace("postgres@", "postgres:hidden-word@"));
    let operator = Operator { url, folder: tempfile::tempdir().unwrap() };
    assert!(operator.done("migrate")["migrated"].as_str().unwrap().starts_with("127.0.0.1:"));
    operator.done("practice create p --name Practice");
    operator.done("practice approve p");
    operator.done("user put u --practice p --role admin");
    operator.done("user access u on --practice p");
    let id = operator.done("client create --practice p --name App --scope billing")["client"]["client_id"].as_str().unwrap().to_owned();
    operator.done(&format!("client rotate {id} --overlap 1h"));
    assert_eq!(operator.done(&format!("client show {id}"))["secrets"].as_array().unwrap().len(), 2);
    let revoked = operator.done(&format!("client revoke {id}"));
    assert!(revoked["receipt"]["revision"].is_u64(), "{revoked}");
    assert_eq!(operator.done(&format!("client revoke {id}"))["receipt"]["revision"], revoked["receipt"]["revision"]);
    assert!(operator.fails(&format!("client rotate {id}"), 4).contains("final"));
    assert!(operator.fails("practice show nobody", 3).contains("there is no practice"));
    operator.done("audit verify");
    server.crash();
    assert!(operator.fails("practice list", 1).contains("cannot be reached"));
}
