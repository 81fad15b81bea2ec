//! A gateway that cannot do its work does not start, and says what to do.

use std::path::Path;
use std::process::{Output, Stdio};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

async fn serve(dir: &Path, settings: &str, routes: &str) -> Output {
    std::fs::write(dir.join("gateway.toml"), settings).unwrap();
    std::fs::write(dir.join("routes.toml"), routes).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sigmagate"));
    command.arg("serve").arg("--config").arg(dir.join("gateway.toml")).kill_on_drop(true).output().await.unwrap()
}

const ROUTES: &str = "scopes = [\"billing\"]\n[upstreams.core]\nservers = [\"http://127.0.0.1:9\"]\n[[routes]]\nprefix = \"/billing\"\nscopes = [\"billing\"]\nupstream = \"core\"\n";

fn settings(dir: &Path, listener: &str, database: &str) -> String {
    format!(
        "[[listeners]]\n{listener}\n[management]\naddress = \"127.0.0.1:0\"\n[store]\nurl = \"sqlite://{}/{database}\"\n",
        dir.display()
    )
}

const PLAIN: &str = "address = \"127.0.0.1:0\"";

#[tokio::test]
async fn what_keeps_it_from_starting_is_said_and_the_exit_code_is_not_zero() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    std::fs::write(dir.path().join("corrupt.db"), "this is no database, but it is long enough to be read as one".repeat(100)).unwrap();
    let port_in_use = format!("address = \"{}\"", taken.local_addr().unwrap());
    let no_certificate = format!("{PLAIN}\ntls = {{ certificate = \"missing.pem\", key = \"missing.key\" }}");
    let rows = [
        (settings(dir.path(), &port_in_use, "a.db"), ROUTES.to_owned(), vec!["in use"]),
        (settings(dir.path(), &no_certificate, "b.db"), ROUTES.to_owned(), vec!["missing.pem"]),
        (settings(dir.path(), PLAIN, "corrupt.db"), ROUTES.to_owned(), vec!["corrupt.db"]),
        (settings(dir.path(), PLAIN, "no/such/folder/c.db"), ROUTES.to_owned(), vec!["no/such/folder"]),
        (settings(dir.path(), PLAIN, "d.db"), ROUTES.replace("\"core\"", "\"cor\""), vec!["routes.toml:7", "core"]),
        (
            format!("{}\n[limits]\nconections = 5\n", settings(dir.path(), PLAIN, "e.db")),
            ROUTES.to_owned(),
            vec!["gateway.toml:", "conections", "connections"],
        ),
    ];
    for (settings, routes, says) in rows {
        let output = serve(dir.path(), &settings, &routes).await;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{says:?} {error}");
        for words in says {
            assert!(error.contains(words), "`{words}` in {error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_database_is_served_by_one_gateway() {
    let world = crate::support::World::new().await;
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(world.dir.path(), PLAIN, "gateway.db");
    let output = serve(dir.path(), &settings, ROUTES).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("already"), "{output:?}");
    assert_eq!(world.status("/billing", "billing").await, 200, "the one that serves goes on");
}

#[tokio::test]
async fn a_variable_that_is_not_text_ends_nothing_unless_it_is_ours() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("gateway.toml"), settings(dir.path(), PLAIN, "a.db")).unwrap();
    std::fs::write(dir.path().join("routes.toml"), ROUTES).unwrap();
    let not_text = std::ffi::OsStr::from_bytes(b"sqlite://\xff");
    for verb in [&["check"][..], &["routes"], &["practice", "list"]] {
        for (variable, code) in [("SOMEBODY_ELSE", 0), ("SIGMAGATE__STORE__URL", 1)] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_sigmagate"));
            command.args(verb).arg("--config").arg(dir.path().join("gateway.toml")).env(variable, not_text);
            let output = command.output().await.unwrap();
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(code), "{verb:?} {variable}: {error}");
            assert!(code == 0 || error.contains("environment variable SIGMAGATE__STORE__URL: is not UTF-8"), "{error}");
        }
    }
}

#[tokio::test]
async fn check_tells_people_and_programs_where_everything_stands() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("gateway.toml"), settings(dir.path(), PLAIN, "a.db")).unwrap();
    let check = async |routes: &str, json: &[&str]| {
        std::fs::write(dir.path().join("routes.toml"), routes).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sigmagate"));
        command.arg("check").args(json).arg("--config").arg(dir.path().join("gateway.toml")).output().await.unwrap()
    };
    let open = format!("{ROUTES}[[routes]]\nprefix = \"/billing/open\"\npublic = true\nupstream = \"core\"\n");
    let output = check(&open, &[]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("routes.toml:9:10: warning: routes[1].prefix: `/billing/open` is public"), "{text}");
    assert!(text.ends_with("ok: 2 routes\n"), "{text}");
    for (routes, code, level, line) in [(open, 0, "warning", 9), (ROUTES.replace("\"core\"", "\"cor\""), 1, "error", 7)] {
        let output = check(&routes, &["--json"]).await;
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let found = answer["findings"].as_array().unwrap().iter().find(|finding| finding["level"] == level).unwrap();
        assert_eq!((output.status.code(), found["line"].as_u64()), (Some(code), Some(line)), "{answer}");
    }
}

#[tokio::test]
async fn a_limit_on_files_that_is_too_low_is_raised_or_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let limits = "[limits]\nconnections = 100\nrequests = 100\n";
    std::fs::write(dir.path().join("gateway.toml"), format!("{}{limits}", settings(dir.path(), PLAIN, "a.db"))).unwrap();
    std::fs::write(dir.path().join("routes.toml"), ROUTES).unwrap();
    for (limit, told) in [("ulimit -Sn 100", false), ("ulimit -n 300", true)] {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{limit} && exec \"$0\" serve --config \"$1\""));
        command.arg(env!("CARGO_BIN_EXE_sigmagate")).arg(dir.path().join("gateway.toml"));
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = String::new();
        while !said.contains("listening for operators") {
            said.push_str(&lines.next_line().await.unwrap().expect("it starts"));
        }
        assert_eq!(said.contains("fewer files may be open"), told, "{limit}: {said}");
        child.kill().await.unwrap();
    }
}
