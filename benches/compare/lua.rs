//! The same work by a script inside nginx: a table in memory from the id to the hash of the secret and what its owner may, and tokens
//! verified by the same library that serves its TLS.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};

use super::peers::{PROXY, Peer, folders, quiet};
use super::process::{Running, free, version};
use super::world::{AUDIENCE, ISSUER, PREFIXES, SCOPE, Signed, World};

/// Where Debian has the modules.
const MODULES: &str = "/usr/lib/nginx/modules";

const GATE: &str = r#"
local ffi = require "ffi"
local json = require "cjson.safe"
ffi.cdef [[
unsigned char *SHA256(const unsigned char *data, size_t length, unsigned char *digest);
void *BIO_new_mem_buf(const void *buffer, int length);
void *PEM_read_bio_PUBKEY(void *bio, void **key, void *callback, void *user);
void *EVP_MD_CTX_new(void);
int EVP_MD_CTX_reset(void *context);
const void *EVP_sha256(void);
int EVP_DigestVerifyInit(void *context, void **key_context, const void *digest, void *engine, void *key);
int EVP_DigestVerify(void *context, const char *signature, size_t signature_length, const char *text, size_t length);
]]
local digest = ffi.new "unsigned char[32]"
local context = ffi.C.EVP_MD_CTX_new()
local clients, needs = {}, {}

local function part(text)
  return ngx.decode_base64((text:gsub("-", "+"):gsub("_", "/")) .. ("="):rep(-#text % 4))
end

-- What ES256 signs with is two numbers; OpenSSL wants them as ASN.1.
local function integer(bytes)
  bytes = bytes:gsub("^%z+", "")
  if bytes == "" or bytes:byte() > 127 then bytes = "\0" .. bytes end
  return "\2" .. string.char(#bytes) .. bytes
end

local function sequence(bytes)
  local numbers = integer(bytes:sub(1, 32)) .. integer(bytes:sub(33))
  return "\48" .. string.char(#numbers) .. numbers
end

local gate = {}

local function answer(scopes)
  local need = needs[ngx.var.uri:match "^/([^/]+)"]
  if not need then return ngx.exit(404) end
  if not scopes[need] then return ngx.exit(403) end
end

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
  return answer(client.scopes)
end

function gate.key(algorithm, file)
  local pem = io.open(file):read "*a"
  local bio = ffi.C.BIO_new_mem_buf(pem, #pem)
  return { algorithm = algorithm, handle = ffi.C.PEM_read_bio_PUBKEY(bio, nil, nil, nil) }
end

function gate.verify(key, issuer, audience)
  local field = ngx.var.http_authorization
  local signed, signature = (field or ""):match "^[Bb]earer ([%w_-]+%.[%w_-]+)%.([%w_-]+)$"
  if not signed then return ngx.exit(401) end
  local head, claims = signed:match "^([^.]+)%.(.+)$"
  head, claims, signature = json.decode(part(head) or ""), json.decode(part(claims) or ""), part(signature)
  if not head or not claims or not signature or head.alg ~= key.algorithm then return ngx.exit(401) end
  if key.algorithm == "ES256" then signature = #signature == 64 and sequence(signature) or "" end
  local hash = key.algorithm ~= "EdDSA" and ffi.C.EVP_sha256() or nil
  ffi.C.EVP_MD_CTX_reset(context)
  if ffi.C.EVP_DigestVerifyInit(context, nil, hash, nil, key.handle) ~= 1 then return ngx.exit(500) end
  if ffi.C.EVP_DigestVerify(context, signature, #signature, signed, #signed) ~= 1 then return ngx.exit(401) end
  if claims.iss ~= issuer or claims.aud ~= audience or (claims.exp or 0) <= ngx.time() then return ngx.exit(401) end
  local scopes = {}
  for scope in (claims.scope or ""):gmatch "%S+" do scopes[scope] = true end
  return answer(scopes)
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
    let (mut keys, mut verifying, mut bearer) = (String::new(), String::new(), Vec::new());
    for Signed { name, public_pem, .. } in &world.signed {
        let address = free();
        let _ = write!(keys, " gate.{name} = gate.key(\"{name}\", \"{}\")", public_pem.display());
        let _ = writeln!(
            verifying,
            "server {{ listen {address}; location / {{ access_by_lua_block {{ gate.verify(gate.{name}, \"{ISSUER}\", \"{AUDIENCE}\") }} {proxy} }} }}"
        );
        bearer.push((*name, address));
    }
    let config = format!(
        "load_module {MODULES}/ndk_http_module.so;\nload_module {MODULES}/ngx_http_lua_module.so;\n\
         worker_processes 1; daemon off; master_process off; pid {dir}/lua.pid; error_log stderr crit;\n\
         events {{ worker_connections 8192; }}\n\
         http {{\naccess_log off; keepalive_requests 1000000000;\n{folders}\
         lua_package_path \"{dir}/?.lua;/usr/share/lua/5.1/?.lua;;\";\n\
         init_by_lua_block {{ gate = require \"gate\"; gate.load(\"{dir}/lua.keys\", {{ {prefixes} }}){keys} }}\n\
         upstream core {{ server {upstream}; keepalive 128; keepalive_requests 1000000000; }}\n\
         server {{ listen {forward}; location / {{ {proxy} }} }}\n\
         server {{ listen {key}; {checked} }}\n\
         {verifying}\
         server {{ listen {secure} ssl http2; ssl_certificate {}; ssl_certificate_key {}; http2_max_requests 1000000000; {checked} }}\n}}\n",
        world.certificate.display(),
        world.private_key.display()
    );
    std::fs::write(world.dir.join("lua.conf"), config).expect("the folder is writable");
    let mut command = quiet("nginx");
    command.arg("-p").arg(&world.dir).arg("-e").arg("stderr").arg("-c").arg(world.dir.join("lua.conf"));
    let mut addresses = vec![forward, key, secure];
    addresses.extend(bearer.iter().map(|(_, address)| *address));
    let running = Running::start("nginx with Lua", &mut command, &addresses)?;
    Some(Peer { name: "nginx + Lua, hashed table", version, running, forward, key, secure, bearer })
}
