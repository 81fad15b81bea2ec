//! The same work by a script inside nginx: a table in memory from the id to the hash of the secret and what its owner may.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};

use super::peers::{PROXY, Peer, folders, quiet};
use super::process::{Running, free, version};
use super::world::{PREFIXES, SCOPE, World};

/// Where Debian has the modules.
const MODULES: &str = "/usr/lib/nginx/modules";

const GATE: &str = r#"
local ffi = require "ffi"
ffi.cdef "unsigned char *SHA256(const unsigned char *data, size_t length, unsigned char *digest);"
local digest = ffi.new "unsigned char[32]"
local clients, needs = {}, {}

local gate = {}

function gate.load(file, prefixes)
  for line in io.lines(file) do
    local id, hash, scope = line:match "(%S+) (%S+) (%S+)"
    clients[id] = { hash = hash:gsub("..", function(hex) return string.char(tonumber(hex, 16)) end), scopes = { [scope] = true } }
  end
  for _, prefix in ipairs(prefixes) do needs[prefix] = prefix end
end

function gate.check()
  local field = ngx.var.http_authorization
  if not field or field:sub(1, 6):lower() ~= "basic " then return ngx.exit(401) end
  local pair = ngx.decode_base64(field:sub(7))
  local colon = pair and pair:find(":", 1, true)
  if not colon then return ngx.exit(401) end
  local client, secret = clients[pair:sub(1, colon - 1)], pair:sub(colon + 1)
  ffi.C.SHA256(secret, #secret, digest)
  if not client or client.hash ~= ffi.string(digest, 32) then return ngx.exit(401) end
  local need = needs[ngx.var.uri:match "^/([^/]+)"]
  if not need then return ngx.exit(404) end
  if not client.scopes[need] then return ngx.exit(403) end
end

return gate
"#;

/// nginx with Lua.
pub fn nginx_lua(world: &World, upstream: SocketAddr) -> Option<Peer> {
    let version = version("nginx", "-v")?;
    if !Path::new(MODULES).join("ngx_http_lua_module.so").exists() {
        println!("nginx with Lua is left out: {MODULES} has no ngx_http_lua_module.so");
        return None;
    }
    let (forward, key, secure) = (free(), free(), free());
    let mut keys = String::new();
    for client in &world.clients {
        let _ = write!(keys, "{} ", client.id);
        for byte in digest(&SHA256, client.secret.as_bytes()).as_ref() {
            let _ = write!(keys, "{byte:02x}");
        }
        let _ = writeln!(keys, " {SCOPE}");
    }
    std::fs::write(world.dir.join("lua.keys"), keys).expect("the folder is writable");
    std::fs::write(world.dir.join("gate.lua"), GATE).expect("the folder is writable");
    let dir = world.dir.display();
    let proxy = PROXY;
    let checked = format!("location / {{ access_by_lua_block {{ gate.check() }} {proxy} }}");
    let folders = folders(&world.dir, "lua");
    let prefixes = PREFIXES.map(|prefix| format!("\"{prefix}\"")).join(", ");
    let config = format!(
        "load_module {MODULES}/ndk_http_module.so;\nload_module {MODULES}/ngx_http_lua_module.so;\n\
         worker_processes 1; daemon off; master_process off; pid {dir}/lua.pid; error_log stderr crit;\n\
         events {{ worker_connections 8192; }}\n\
         http {{\naccess_log off; keepalive_requests 1000000000;\n{folders}\
         lua_package_path \"{dir}/?.lua;/usr/share/lua/5.1/?.lua;;\";\n\
         init_by_lua_block {{ gate = require \"gate\"; gate.load(\"{dir}/lua.keys\", {{ {prefixes} }}) }}\n\
         upstream core {{ server {upstream}; keepalive 128; keepalive_requests 1000000000; }}\n\
         server {{ listen {forward}; location / {{ {proxy} }} }}\n\
         server {{ listen {key}; {checked} }}\n\
         server {{ listen {secure} ssl http2; ssl_certificate {}; ssl_certificate_key {}; http2_max_requests 1000000000; {checked} }}\n}}\n",
        world.certificate.display(),
        world.private_key.display()
    );
    std::fs::write(world.dir.join("lua.conf"), config).expect("the folder is writable");
    let mut command = quiet("nginx");
    command.arg("-p").arg(&world.dir).arg("-e").arg("stderr").arg("-c").arg(world.dir.join("lua.conf"));
    let running = Running::start("nginx with Lua", &mut command, &[forward, key, secure])?;
    Some(Peer { name: "nginx + Lua, hashed table", version, running, forward, key, secure, bearer: vec![] })
}
