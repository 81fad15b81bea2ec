//! The same work in the words of nginx, HAProxy and Envoy. One worker each, no access log, connections to the upstream kept.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::process::{Running, free, version};
use super::world::{AUDIENCE, ISSUER, PREFIXES, SCOPE, Signed, World};

/// A program that does the same work, and where it does what.
pub struct Peer {
    pub name: &'static str,
    pub version: String,
    pub running: Running,
    /// Forwards everything.
    pub forward: SocketAddr,
    /// Asks for a key.
    pub key: SocketAddr,
    /// The same, over TLS and HTTP/2.
    pub secure: SocketAddr,
    /// Asks for a token of an algorithm.
    pub bearer: Vec<(&'static str, SocketAddr)>,
}

/// Where Envoy says who asks.
const USERNAME: &str = "x-username";

pub fn quiet(program: &str) -> Command {
    let mut command = Command::new(program);
    command.stdout(Stdio::null());
    command
}

/// How nginx forwards.
pub const PROXY: &str =
    "proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Authorization \"\"; proxy_pass http://core;";

/// Where an nginx of this name keeps what it keeps in files.
pub fn folders(dir: &Path, name: &str) -> String {
    ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|of| format!("{of}_temp_path {}/{name}-{of};\n", dir.display())).concat()
}

/// nginx: a map from the whole field to what its owner may, and one from the path to what it takes.
pub fn nginx(world: &World, upstream: SocketAddr) -> Option<Peer> {
    let version = version("nginx", "-v")?;
    let (forward, key, secure) = (free(), free(), free());
    let mut map = String::new();
    for client in &world.clients {
        let _ = writeln!(map, "\"{}\" \"{SCOPE}\";", client.basic());
    }
    let mut needs = String::new();
    for prefix in PREFIXES {
        let _ = writeln!(needs, "~^/{prefix}(/|$) {prefix};");
    }
    let dir = world.dir.display();
    let proxy = PROXY;
    let checked = format!(
        "location / {{ if ($scopes = \"\") {{ return 401; }} if ($needs = \"\") {{ return 404; }} if ($allowed = 0) {{ return 403; }} {proxy} }}"
    );
    let folders = folders(&world.dir, "nginx");
    let config = format!(
        "worker_processes 1; daemon off; master_process off; pid {dir}/nginx.pid; error_log stderr crit;\n\
         events {{ worker_connections 8192; }}\n\
         http {{\naccess_log off; keepalive_requests 1000000000; map_hash_max_size 262144; map_hash_bucket_size 256;\n{folders}\
         upstream core {{ server {upstream}; keepalive 128; keepalive_requests 1000000000; }}\n\
         map $http_authorization $scopes {{ default \"\"; include {dir}/nginx.map; }}\n\
         map $uri $needs {{ default \"\";\n{needs}}}\n\
         map \"$needs:$scopes\" $allowed {{ default 0; \"~^([a-z]+):(?:.* )?\\1(?: .*)?$\" 1; }}\n\
         server {{ listen {forward}; location / {{ {proxy} }} }}\n\
         server {{ listen {key}; {checked} }}\n\
         server {{ listen {secure} ssl http2; ssl_certificate {}; ssl_certificate_key {}; http2_max_requests 1000000000; {checked} }}\n}}\n",
        world.certificate.display(),
        world.private_key.display()
    );
    std::fs::write(world.dir.join("nginx.map"), map).expect("the folder is writable");
    std::fs::write(world.dir.join("nginx.conf"), config).expect("the folder is writable");
    let mut command = quiet("nginx");
    command.arg("-p").arg(&world.dir).arg("-e").arg("stderr").arg("-c").arg(world.dir.join("nginx.conf"));
    let running = Running::start("nginx", &mut command, &[forward, key, secure])?;
    Some(Peer { name: "nginx, static map", version, running, forward, key, secure, bearer: vec![] })
}

/// HAProxy: a map from the hash of the whole field to what its owner may; signatures and claims of tokens checked each time.
pub fn haproxy(world: &World, upstream: SocketAddr) -> Option<Peer> {
    let version = version("haproxy", "-v")?;
    let (forward, key, secure) = (free(), free(), free());
    let mut map = String::new();
    for client in &world.clients {
        for byte in digest(&SHA256, client.basic().as_bytes()).as_ref() {
            let _ = write!(map, "{byte:02X}");
        }
        let _ = writeln!(map, " {SCOPE}");
    }
    std::fs::write(world.dir.join("haproxy.map"), map).expect("the folder is writable");
    let dir = world.dir.display();
    let mut scopes = String::new();
    for prefix in PREFIXES {
        let _ = writeln!(scopes, "  http-request deny deny_status 403 if {{ path_dir {prefix} }} !{{ var(txn.scopes) -m sub {prefix} }}");
    }
    let known = PREFIXES.map(|prefix| format!("!{{ path_beg /{prefix}/ }}")).join(" ");
    let rest = format!(
        "  http-request deny deny_status 404 if {known}\n{scopes}  http-request del-header authorization\n  default_backend core\n"
    );
    let by_key = format!(
        "  http-request set-var(txn.scopes) req.fhdr(authorization),sha2(256),hex,map_str({dir}/haproxy.map)\n\
         \x20 http-request deny deny_status 401 unless {{ var(txn.scopes) -m found }}\n{rest}"
    );
    let mut config = format!(
        "global\n  nbthread 1\n  maxconn 8192\n  tune.ssl.default-dh-param 2048\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  option http-keep-alive\n  http-reuse always\n\
         backend core\n  server core {upstream}\n\
         frontend forward\n  bind {forward}\n  default_backend core\n\
         frontend key\n  bind {key}\n{by_key}\
         frontend secure\n  bind {secure} ssl crt {dir}/both.pem alpn h2,http/1.1\n{by_key}"
    );
    let mut bearer = Vec::new();
    // 2.6 has no EdDSA.
    for Signed { name, public_pem, .. } in world.signed.iter().filter(|signed| signed.name != "EdDSA") {
        let address = free();
        let _ = write!(
            config,
            "frontend {name}\n  bind {address}\n  http-request set-var(txn.bearer) http_auth_bearer\n\
             \x20 http-request set-var(txn.alg) var(txn.bearer),jwt_header_query('$.alg')\n\
             \x20 http-request deny deny_status 401 unless {{ var(txn.alg) -m str {name} }}\n\
             \x20 http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_verify(txn.alg,\"{}\") 1 }}\n\
             \x20 http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_payload_query('$.iss') -m str {ISSUER} }}\n\
             \x20 http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_payload_query('$.aud') -m str {AUDIENCE} }}\n\
             \x20 http-request set-var(txn.exp) var(txn.bearer),jwt_payload_query('$.exp','int')\n\
             \x20 http-request set-var(txn.now) date()\n\
             \x20 http-request deny deny_status 401 unless {{ var(txn.exp),sub(txn.now) -m int gt 0 }}\n\
             \x20 http-request set-var(txn.scopes) var(txn.bearer),jwt_payload_query('$.scope')\n{rest}",
            public_pem.display()
        );
        bearer.push((*name, address));
    }
    std::fs::write(world.dir.join("haproxy.cfg"), config).expect("the folder is writable");
    let mut command = quiet("haproxy");
    command.arg("-db").arg("-f").arg(world.dir.join("haproxy.cfg"));
    let mut addresses = vec![forward, key, secure];
    addresses.extend(bearer.iter().map(|(_, address)| *address));
    let running = Running::start("HAProxy", &mut command, &addresses)?;
    Some(Peer { name: "HAProxy, hashed map", version, running, forward, key, secure, bearer })
}

/// Envoy: users with the hashes of their secrets (`basic_auth`), tokens with `jwt_authn`, which remembers those it has seen, and
/// what either may with `rbac`.
pub fn envoy(program: &Path, world: &World, upstream: SocketAddr) -> Option<Peer> {
    let program = program.to_str()?;
    let version = version(program, "--version")?;
    let mut users = String::new();
    for client in &world.clients {
        let hash = STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, client.secret.as_bytes()));
        let _ = writeln!(users, "{}:{{SHA}}{hash}", client.id);
    }
    std::fs::write(world.dir.join("envoy.users"), users).expect("the folder is writable");
    let router = serde_json::json!({
        "name": "envoy.filters.http.router", "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
    });
    let basic = serde_json::json!({
        "name": "envoy.filters.http.basic_auth",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.basic_auth.v3.BasicAuth",
            "users": { "filename": world.dir.join("envoy.users") },
            "forward_username_header": USERNAME,
        },
    });
    let listener = |name: &str, address: SocketAddr, filters: Vec<serde_json::Value>, tls: bool| {
        let routes: Vec<_> = PREFIXES
            .iter()
            .map(|prefix| serde_json::json!({ "match": { "path_separated_prefix": format!("/{prefix}") }, "route": { "cluster": "core" } }))
            .collect();
        let mut chain = serde_json::json!({ "filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": name, "codec_type": "AUTO", "generate_request_id": false,
                "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": routes }] },
                "http_filters": filters,
            },
        }] });
        if tls {
            chain["transport_socket"] = serde_json::json!({
                "name": "envoy.transport_sockets.tls",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                    "common_tls_context": {
                        "alpn_protocols": ["h2", "http/1.1"],
                        "tls_certificates": [{ "certificate_chain": { "filename": world.certificate }, "private_key": { "filename": world.private_key } }],
                    },
                },
            });
        }
        serde_json::json!({ "name": name, "address": socket(address), "filter_chains": [chain] })
    };
    let (forward, key, secure) = (free(), free(), free());
    let mut listeners = vec![
        listener("forward", forward, vec![router.clone()], false),
        listener("key", key, vec![basic.clone(), scope_of_user(world), router.clone()], false),
        listener("secure", secure, vec![basic, scope_of_user(world), router.clone()], true),
    ];
    let mut bearer = Vec::new();
    for signed in &world.signed {
        let address = free();
        listeners.push(listener(signed.name, address, vec![jwt(world), scope_of_token(), router.clone()], false));
        bearer.push((signed.name, address));
    }
    let config = serde_json::json!({ "static_resources": {
        "listeners": listeners,
        "clusters": [{ "name": "core", "type": "STATIC", "connect_timeout": "5s", "load_assignment": {
            "cluster_name": "core", "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": socket(upstream) } }] }],
        } }],
    } });
    std::fs::write(world.dir.join("envoy.json"), config.to_string()).expect("the folder is writable");
    let mut command = quiet(program);
    command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "-c"]).arg(world.dir.join("envoy.json"));
    let mut addresses = vec![forward, key, secure];
    addresses.extend(bearer.iter().map(|(_, address)| *address));
    let running = Running::start("Envoy", &mut command, &addresses)?;
    Some(Peer { name: "Envoy, basic_auth, jwt_authn, rbac", version, running, forward, key, secure, bearer })
}

fn socket(address: SocketAddr) -> serde_json::Value {
    serde_json::json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}

fn jwt(world: &World) -> serde_json::Value {
    serde_json::json!({
        "name": "envoy.filters.http.jwt_authn",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
            "providers": { "login": {
                "issuer": ISSUER, "audiences": [AUDIENCE], "local_jwks": { "inline_string": world.jwks }, "payload_in_metadata": "claims",
                "jwt_cache_config": { "jwt_cache_size": 1000, "jwt_max_token_size": 4096 },
            } },
            "rules": [{ "match": { "prefix": "/" }, "requires": { "provider_name": "login" } }],
        },
    })
}

/// What each user may, found by a hash of the name, as long as the list is.
fn scope_of_user(world: &World) -> serde_json::Value {
    let action = |word: &str| {
        let action = serde_json::json!({ "@type": "type.googleapis.com/envoy.config.rbac.v3.Action", "name": word, "action": word });
        serde_json::json!({ "action": { "name": "action", "typed_config": action } })
    };
    let header = |name: &str| {
        let input = "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput";
        serde_json::json!({ "name": "header", "typed_config": { "@type": input, "header_name": name } })
    };
    let may = serde_json::json!({ "matcher": { "matcher_tree": {
        "input": header(":path"), "prefix_match_map": { "map": { format!("/{SCOPE}/"): action("ALLOW") } },
    } } });
    let users: serde_json::Map<_, _> = world.clients.iter().map(|client| (client.id.to_string(), may.clone())).collect();
    serde_json::json!({
        "name": "envoy.filters.http.rbac",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
            "matcher": {
                "matcher_tree": { "input": header(USERNAME), "exact_match_map": { "map": users } },
                "on_no_match": action("DENY"),
            },
        },
    })
}

fn scope_of_token() -> serde_json::Value {
    let policies: serde_json::Map<_, _> = PREFIXES
        .iter()
        .map(|prefix| {
            let policy = serde_json::json!({
                "permissions": [{ "url_path": { "path": { "prefix": format!("/{prefix}/") } } }],
                "principals": [{ "metadata": {
                    "filter": "envoy.filters.http.jwt_authn",
                    "path": [{ "key": "claims" }, { "key": "scope" }],
                    "value": { "string_match": { "contains": prefix } },
                } }],
            });
            ((*prefix).to_owned(), policy)
        })
        .collect();
    serde_json::json!({
        "name": "envoy.filters.http.rbac",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
            "rules": { "action": "ALLOW", "policies": policies },
        },
    })
}
