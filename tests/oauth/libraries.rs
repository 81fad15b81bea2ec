//! The libraries that `scripts/test` has installed, and a walk with one of them.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use tokio::process::Command;

use crate::world::World;

/// A walk is a few dozen requests; whatever hangs is ended.
const PATIENCE: Duration = Duration::from_secs(120);

/// The script of a library.
#[derive(Clone, Copy)]
pub enum Library {
    Python(&'static str),
    Node(&'static str),
}

impl Library {
    /// Runs the script, which tells each step, and fails with what it told if one of them was not as promised.
    #[expect(clippy::print_stdout, reason = "with --nocapture each step is told")]
    pub async fn walk(self, world: &World) {
        let (script, mut command) = match self {
            Self::Python(script) => (script, python(script)),
            Self::Node(script) => (script, node(script, world)),
        };
        command.arg(&world.settings).kill_on_drop(true);
        // The walks say themselves whom they trust, and connect to nobody but this gateway.
        command.env("NO_PROXY", "*").env("PYTHONDONTWRITEBYTECODE", "1").env("NODE_EXTRA_CA_CERTS", &world.authority);
        let ended = tokio::time::timeout(PATIENCE, command.output()).await;
        let Output { status, stdout, stderr } = ended.unwrap_or_else(|_| panic!("{script} did not end within {PATIENCE:?}")).unwrap();
        let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        let passed = stdout.lines().last().and_then(|line| line.strip_prefix("passed ")).and_then(|count| count.parse::<u32>().ok());
        assert!(status.success() && passed.is_some_and(|count| count > 0), "{script}: {status}\n{stdout}{stderr}");
        println!("{script}\n{stdout}");
    }
}

fn folder(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oauth").join(language)
}

fn python(script: &str) -> Command {
    let mut command = Command::new(installed("SIGMAGATE_STOCK_PYTHON", "python/bin/python"));
    command.arg(folder("python").join(script));
    command
}

fn node(script: &str, world: &World) -> Command {
    // Node looks for a module's packages beside the module, and the repository is no place for them.
    let modules = installed("SIGMAGATE_STOCK_NODE_MODULES", "node/node_modules");
    let dir = world.dir.path().join("node");
    fs::create_dir(&dir).unwrap();
    for name in ["walk.mjs", script] {
        fs::copy(folder("node").join(name), dir.join(name)).unwrap();
    }
    std::os::unix::fs::symlink(modules, dir.join("node_modules")).unwrap();
    let mut command = Command::new("node");
    command.arg(dir.join(script));
    command
}

/// What the variable names, or else where `scripts/test` installs it.
fn installed(variable: &str, place: &str) -> PathBuf {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    let under = |folder: OsString, rest: &str| Path::new(&folder).join(rest);
    let cache = || {
        set("SIGMAGATE_CACHE")
            .map(PathBuf::from)
            .or_else(|| set("XDG_CACHE_HOME").map(|folder| under(folder, "sigmagate")))
            .or_else(|| set("HOME").map(|folder| under(folder, ".cache/sigmagate")))
            .unwrap_or_default()
    };
    let path = set(variable).map_or_else(|| cache().join("clients").join(place), PathBuf::from);
    assert!(path.exists(), "{} is not there: run `scripts/test`, or `scripts/stock-clients` for this alone", path.display());
    path
}
