mod check;
mod environment;
mod gateway;
mod issuers;
mod mail;
mod oauth;
mod routes;
mod upstreams;

use std::fs;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::route::Method;

const ROUTES: &str = r#"scopes = ["billing", "clinical"]

[upstreams.core]
servers = ["http://127.0.0.1:9001"]

[[routes]]
prefix = "/billing"
scopes = ["billing"]
upstream = "core"
"#;

/// 32 bytes that are no secret.
const MASTER_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// Both files, in a folder of their own.
struct Files {
    dir: TempDir,
    sources: Sources,
}

fn files(gateway: &str, routes: &str) -> Files {
    let dir = tempfile::tempdir().unwrap();
    let sources = Sources { gateway: Some(dir.path().join("gateway.toml")), routes: dir.path().join("routes.toml") };
    fs::write(dir.path().join("gateway.toml"), gateway).unwrap();
    fs::write(dir.path().join("routes.toml"), routes).unwrap();
    Files { dir, sources }
}

impl Files {
    fn load(&self, env: &[(&str, &str)]) -> Result<Config, Mistakes> {
        let env = env.iter().map(|(name, value)| (name.into(), value.into()));
        load(&self.sources, env, &ScopeRegistry::default())
    }

    /// The mistakes, without the folder.
    fn mistakes(&self, env: &[(&str, &str)]) -> Vec<String> {
        let folder = format!("{}/", self.dir.path().display());
        let mistakes = self.load(env).err().map_or_else(Vec::new, |mistakes| mistakes.0);
        mistakes.iter().map(|mistake| mistake.to_string().replace(&folder, "")).collect()
    }
}

#[test]
fn every_mistake_is_told_with_file_line_and_key() {
    let route = |line: &str| ROUTES.replace("scopes = [\"billing\"]\nupstream = \"core\"\n", line);
    let rows: &[(&str, &str, &str)] = &[
        // (gateway.toml, routes.toml, what is said)
        ("[limits]\nconections = 5", ROUTES, "gateway.toml:2:1: limits.conections: unknown key; did you mean `connections`?"),
        ("[stroe]\nurl = \"sqlite://a\"", ROUTES, "gateway.toml:1:2: stroe: unknown key; did you mean `store`?"),
        ("[limits]\nconnections = \"many\"", ROUTES, "gateway.toml:2:15: limits.connections: expected an integer, found a string"),
        (
            "[limits]\nconnections = 0",
            ROUTES,
            "gateway.toml:2:15: limits.connections: 0 is out of bounds: expected an integer from 1 to 10000000",
        ),
        (
            "[canary]\nevery_secs = 0",
            ROUTES,
            "gateway.toml:2:14: canary.every_secs: 0 is out of bounds: expected an integer from 1 to 86400",
        ),
        ("[telemetry]\nformat = \"xml\"", ROUTES, "gateway.toml:2:10: telemetry.format: `xml` is none of `json`, `text`"),
        ("[telemetry]\nlog = \"a=b=c\"", ROUTES, "gateway.toml:2:7: telemetry.log: `a=b=c` is not a log filter"),
        ("[[listeners]]", ROUTES, "gateway.toml:1:1: listeners[0]: the key `address` is missing"),
        ("[[listeners]]\naddress = \"8080\"", ROUTES, "gateway.toml:2:11: listeners[0].address: `8080` is not an address and a port"),
        ("[management]\naddress = \"here\"", ROUTES, "gateway.toml:2:11: management.address: `here` is not an address and a port"),
        ("[store]\nlease_ms = 5000", ROUTES, "gateway.toml:2:12: store.lease_ms: is for a fleet on PostgreSQL"),
        (
            "[store]\nurl = \"postgres://h/d\"\nlease_ms = 3000\nheartbeat_ms = 1001",
            ROUTES,
            "store.heartbeat_ms: is 1001: expected 10 to 1000",
        ),
        ("[store]\nurl = \"postgres://h/d\"\nlease_ms = 99", ROUTES, "store.lease_ms: 99 is out of bounds: expected an integer from 100"),
        (
            "[store]\nurl = \"mysql://u:hidden@h/d\"",
            ROUTES,
            "gateway.toml:2:7: store.url: expected `sqlite://PATH` or `postgres://USER:PASSWORD@HOST/DATABASE`, found mysql",
        ),
        ("[store]\nsecret_pepper = \"short\"", ROUTES, "gateway.toml:2:17: store.secret_pepper: has 5 bytes: at least 16 are needed"),
        ("[store]\nsecret_pepper = { file = \"gone.key\" }", ROUTES, "gateway.toml:2:17: store.secret_pepper: `gone.key` cannot be read"),
        ("[store]\nsecret_pepper = { env = \"SIGMAGATE_NOT_SET\" }", ROUTES, "the environment variable `SIGMAGATE_NOT_SET` is not set"),
        ("[store]\nsecret_pepper = 5", ROUTES, "gateway.toml:2:17: store.secret_pepper: expected a string or a table, found an integer"),
        (
            "[limits]\ntrusted_proxies = [\"10.0.0.0/8\", \"x\"]",
            ROUTES,
            "gateway.toml:2:34: limits.trusted_proxies[1]: `x` is not a network",
        ),
        ("a = ", ROUTES, "gateway.toml:1:"),
        ("", "routes = ", "routes.toml:1:"),
        (
            "",
            &ROUTES.replace("scopes = [\"billing\", \"clinical\"]\n", "").replace("scopes = [\"billing\"]", "public = true"),
            "routes.toml: the key `scopes` is missing",
        ),
        ("", &ROUTES.replace("/billing", "billing"), "routes.toml:7:10: routes[0].prefix: `billing` does not begin with `/`"),
        ("", &ROUTES.replace("/billing", "/billing/"), "routes.toml:7:10: routes[0].prefix: `/billing/` ends with `/`"),
        ("", &ROUTES.replace("/billing", "/a/../b"), "routes.toml:7:10: routes[0].prefix: `/a/../b` cannot be a prefix"),
        (
            "",
            &route("scopes = [\"biling\"]\nupstream = \"core\"\n"),
            "routes.toml:8:11: routes[0].scopes[0]: no scope `biling` is declared in `scopes`; did you mean `billing`?",
        ),
        ("", &route("scopes = [\"all\"]\nupstream = \"core\"\n"), "routes.toml:8:11: routes[0].scopes[0]: no route can ask for `all`"),
        ("", &route("scopes = []\nupstream = \"core\"\n"), "routes.toml:8:10: routes[0].scopes: is empty"),
        ("", &route("scopes_all = []\nupstream = \"core\"\n"), "routes[0].scopes_all: is empty"),
        ("", &route("upstream = \"core\"\n"), "routes.toml:6:1: routes[0]: says not what it asks for"),
        ("", &route("public = false\nupstream = \"core\"\n"), "routes.toml:8:10: routes[0].public: is false"),
        (
            "",
            &route("public = true\nscopes = [\"billing\"]\nupstream = \"core\"\n"),
            "routes.toml:6:1: routes[0]: has scopes and public: give exactly one",
        ),
        (
            "",
            &route("scopes = [\"billing\"]\nupstream = \"cor\"\n"),
            "routes.toml:9:12: routes[0].upstream: no upstream is called `cor`; did you mean `core`?",
        ),
        ("", &route("scopes = [\"billing\"]\n"), "routes.toml:6:1: routes[0]: the key `upstream` is missing"),
        (
            "",
            &route("scopes = [\"billing\"]\nupstream = \"core\"\nmethods = [\"GET\", \"FETCH\"]\n"),
            "routes.toml:10:19: routes[0].methods[1]: `FETCH` is not a method",
        ),
        ("", &route("scopes = [\"billing\"]\nupstream = \"core\"\nmethods = []\n"), "routes.toml:10:11: routes[0].methods: is empty"),
        (
            "",
            &route("scopes = \"billing\"\nupstream = \"core\"\n"),
            "routes.toml:8:10: routes[0].scopes: expected an array, found a string",
        ),
        ("", &ROUTES.replace("[\"billing\", \"clinical\"]", "[\"billing\", \"all\"]"), "routes.toml:1:22: scopes[1]: `all` is built in"),
        (
            "",
            &ROUTES.replace("[\"billing\", \"clinical\"]", "[\"billing\", \"billing\"]"),
            "routes.toml:1:22: scopes[1]: `billing` is declared twice",
        ),
        (
            "",
            &ROUTES.replace("[\"billing\", \"clinical\"]", "[\"billing\", \"Clinical\"]"),
            "routes.toml:1:22: scopes[1]: `Clinical` is not a scope",
        ),
        ("", &ROUTES.replace("[\"http://127.0.0.1:9001\"]", "[]"), "routes.toml:4:11: upstreams.core.servers: there is no server"),
        (
            "",
            &ROUTES.replace("http://127.0.0.1:9001", "ftp://127.0.0.1"),
            "upstreams.core.servers[0]: `ftp://127.0.0.1` has a scheme other than",
        ),
        ("", &ROUTES.replace("http://127.0.0.1:9001", "http://127.0.0.1/api"), "has a path or a query"),
        ("", &ROUTES.replace("http://127.0.0.1:9001", "http://u:p@127.0.0.1"), "has a user name or password"),
        ("", &ROUTES.replace("http://127.0.0.1:9001", "http://"), "is not a URL"),
        (
            "",
            &format!("{ROUTES}\n[[routes]]\nprefix = \"/billing\"\npublic = true\nupstream = \"core\"\n"),
            "routes.toml:12:10: routes[1].prefix: the route at line 7 has the same prefix",
        ),
        (
            "",
            &format!("{ROUTES}\n[tiers.gold]\nper_second = 0\nburst = 1\n"),
            "routes.toml:12:14: tiers.gold.per_second: 0 is out of bounds",
        ),
        ("", &format!("{ROUTES}\n[tiers.gold]\nburst = 1\n"), "tiers.gold: the key `per_second` is missing"),
        (
            "",
            &format!("{ROUTES}\nstale_grace_ms = 3600001\n"),
            "routes[0].stale_grace_ms: 3600001 is out of bounds: expected an integer from 0 to 3600000",
        ),
        (
            "",
            &format!("{ROUTES}\n[[routes]]\nprefix = \"/p\"\npublic = true\nupstream = \"core\"\nstale_grace_ms = 5\n"),
            "routes[1].stale_grace_ms: means nothing where everybody may pass",
        ),
        ("", "scopes = []\nroutes = []\n", "routes: there is no route"),
    ];
    for (gateway, routes, says) in rows {
        let mistakes = files(gateway, routes).mistakes(&[]);
        assert!(mistakes.iter().any(|mistake| mistake.contains(says)), "{says}\nin {mistakes:#?}");
        assert_eq!(mistakes.len(), 1, "one mistake is told once: {mistakes:#?}");
        assert!(!mistakes.concat().contains("hidden"), "a value that may be a secret is not shown");
    }
}

#[test]
fn mistakes_of_both_files_are_told_at_once() {
    let routes = ROUTES.replace("\"core\"\n", "\"cor\"\n").replace("[\"billing\"]", "[\"biling\"]").replace("prefix", "prefx");
    let mistakes = files("[limits]\nconections = 5\nheader_fields = \"x\"\n[management]\naddress = \"here\"", &routes).mistakes(&[]);
    for says in [
        "limits.conections",
        "limits.header_fields",
        "management.address",
        "routes[0].prefx",
        "routes[0]: the key `prefix`",
        "routes[0].scopes[0]",
        "routes[0].upstream",
    ] {
        assert_eq!(mistakes.iter().filter(|mistake| mistake.contains(says)).count(), 1, "{says} in {mistakes:#?}");
    }
}

#[test]
fn a_missing_file_says_what_to_do() {
    let files = files("", ROUTES);
    fs::remove_file(&files.sources.routes).unwrap();
    assert!(files.mistakes(&[])[0].starts_with("routes.toml: cannot be read"), "{:?}", files.mistakes(&[]));
}

#[test]
fn what_is_left_out_has_its_default() {
    let config = files("", ROUTES).load(&[]).unwrap();
    assert_eq!(config.gateway.listeners[0].address.to_string(), "127.0.0.1:8080");
    assert_eq!(config.routes.table.routes()[0].body_limit_bytes, 10_485_760);
    assert!(config.routes.table.find("/billing/1", Some(Method::Patch)).is_ok());
}

#[test]
fn the_files_that_come_with_the_gateway_load_and_say_the_defaults() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let sources = Sources { gateway: Some(folder.join("gateway.toml")), routes: folder.join("routes.toml") };
    let config = load(&sources, [], &ScopeRegistry::default()).unwrap();
    assert!(!config.routes.table.routes().is_empty());
    // What is commented out is what holds without it: made a setting, it changes nothing.
    let text = fs::read_to_string(folder.join("gateway.toml")).unwrap();
    // The example of an issuer is one, and no setting of what is around it.
    let (head, rest) = text.split_once("# [[management.issuers]]\n").unwrap();
    let (example, rest) = rest.split_once("\n\n").unwrap();
    let spelled = format!("[[management.issuers]]\n{}", example.lines().map(|line| &line[2..]).collect::<Vec<_>>().join("\n"));
    let [issuer] = files(&spelled, ROUTES).load(&[]).unwrap().gateway.management_issuers.try_into().unwrap();
    let claims = (&*issuer.practice_claim, &*issuer.role_claim, issuer.operators);
    assert_eq!((claims, issuer.trust.leeway.as_secs(), issuer.trust.refresh.as_secs()), (("practice_id", "role", false), 30, 300));
    let text = format!("{head}{rest}");
    let keys: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# "))
        .filter(|line| line.split_once(" = ").is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')))
        .collect();
    let without = [
        "threads",
        "secret_pepper",
        "tls",
        "address",
        "master_key",
        "issuer",
        "audience",
        "name",
        "secret",
        "from",
        "reply_to",
        "url",
        "smtp",
        "folder",
    ];
    let settings: Vec<&&str> = keys.iter().filter(|line| !without.contains(&line.split(' ').next().unwrap())).collect();
    assert!(settings.len() >= 15, "{settings:?}");
    let mut spelled = text.clone();
    for line in settings {
        spelled = spelled.replace(&format!("# {line}"), line);
    }
    let said = |text: &str| {
        let Gateway { limits, telemetry, canary, grace, oauth, key_networks, mail, .. } =
            files(text, ROUTES).load(&[("SIGMAGATE__OAUTH__MASTER_KEY", MASTER_KEY)]).unwrap().gateway;
        format!("{limits:?} {telemetry:?} {canary:?} {grace:?} {oauth:?} {key_networks:?} {mail:?}")
    };
    assert_eq!(said(&spelled), said(&text));
    // The example of an issuer is one.
    let text = fs::read_to_string(folder.join("routes.toml")).unwrap();
    let (head, example) = text.split_once("# [[issuers]]\n").unwrap();
    let example: Vec<&str> = example.lines().map(|line| line.strip_prefix("# ").unwrap_or(line)).collect();
    let spelled = format!("{head}[[issuers]]\n{}", example.join("\n"));
    let [issuer] = files("", &spelled).load(&[]).unwrap().routes.issuers.try_into().unwrap();
    assert_eq!((&*issuer.scope_claim, issuer.trust.leeway.as_secs(), issuer.trust.refresh.as_secs()), ("scope", 30, 300));
}

#[test]
fn the_schemas_that_come_with_the_gateway_are_those_of_its_types() {
    for (name, schema) in [("gateway", gateway_schema()), ("routes", routes_schema())] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("config/{name}.schema.json"));
        let committed: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        assert!(committed == schema, "stale: run `sigmagate schema {name} >config/{name}.schema.json`");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_loader_panic(gateway: Vec<u8>, routes in "[a-z\\[\\]={}\"/.0-9 \n]{0,80}") {
        let files = files("", &routes);
        fs::write(files.dir.path().join("gateway.toml"), gateway).unwrap();
        let _ = files.load(&[]);
    }
}
