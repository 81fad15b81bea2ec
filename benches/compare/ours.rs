//! The gateway itself, as an operator would set it up for this work.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::Command;

use base64::Engine;

use super::load::{self, Work};
use super::process::{Running, free};
use super::world::{AUDIENCE, ISSUER, PREFIXES, World};

pub struct Ours {
    pub running: Running,
    pub plain: SocketAddr,
    pub secure: SocketAddr,
}

/// Starts it, with one thread for applications, not for the first time: this is what it answers then.
pub fn gateway(world: &World, upstream: SocketAddr, work: &Work) -> Ours {
    let scopes = PREFIXES.map(|prefix| format!("\"{prefix}\"")).join(", ");
    let mut routes = format!("scopes = [{scopes}]\n[upstreams.core]\nservers = [\"http://{upstream}\"]\n");
    for prefix in PREFIXES {
        let _ = write!(routes, "[[routes]]\nprefix = \"/{prefix}\"\nscopes = [\"{prefix}\"]\nupstream = \"core\"\n");
    }
    let _ = write!(
        routes,
        "[[routes]]\nprefix = \"/docs\"\npublic = true\nupstream = \"core\"\n[[issuers]]\nissuer = \"{ISSUER}\"\njwks_file = \"jwks.json\"\n\
         audiences = [\"{AUDIENCE}\"]\nalgorithms = [\"RS256\", \"ES256\", \"EdDSA\"]\nclient_claim = \"azp\"\n"
    );
    let (plain, secure) = (free(), free());
    let settings = format!(
        "[[listeners]]\naddress = \"{plain}\"\n[[listeners]]\naddress = \"{secure}\"\ntls = {{ certificate = \"certificate.pem\", key = \"key.pem\" }}\n\
         [data_plane]\nthreads = 1\n[management]\naddress = \"127.0.0.1:0\"\n[store]\nurl = \"{}\"\n[telemetry]\nlog = \"error\"\naccess_log = false\n\
         [limits]\nconnections = 20000\nconnections_per_address = 20000\n[limits.failed_authentications]\nper_minute = 1000000\nburst = 1000000000\n[oauth]\nmaster_key = \"{}\"\n",
        world.database(),
        base64::engine::general_purpose::STANDARD.encode([7; 32])
    );
    std::fs::write(world.dir.join("routes.toml"), routes).expect("the folder is writable");
    std::fs::write(world.dir.join("gateway.toml"), settings).expect("the folder is writable");
    let start = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sigmagate"));
        command.arg("serve").arg("--config").arg(world.dir.join("gateway.toml"));
        Running::start("the gateway", &mut command, &[plain, secure]).expect("the gateway runs")
    };
    // The first start of all makes the key that signs tokens, once the whole database has been looked at.
    let first = start();
    load::first(plain, work);
    first.stop();
    Ours { running: start(), plain, secure }
}
