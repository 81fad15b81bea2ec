//! What an operator does about keys, by the program itself beside a gateway that runs.

use std::collections::BTreeMap;
use std::process::Output;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sigmagate::clock::now;
use sigmagate::token::{Algorithm, SigningKey};
use tokio::process::Command;

use super::{GRANT, Issuing, part, send};
use crate::support::World;

const TOKEN: &str = "/oauth/token";
const UNKNOWN: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// The program with the settings of this world.
async fn run(world: &World, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sigmagate"));
    command.arg("--config").arg(world.path("gateway.toml")).args(args).output().await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn said(output: &Output) -> String {
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output.stderr));
    text(&output.stdout)
}

async fn done(world: &World, args: &[&str]) -> String {
    said(&run(world, args).await)
}

async fn json_of(world: &World, args: &[&str]) -> Value {
    serde_json::from_str(&done(world, &[&["--json"], args].concat()).await).unwrap()
}

/// What it says when it refuses: on standard error, and nothing else.
fn refused(output: &Output, code: i32) -> String {
    let error = text(&output.stderr);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(code), ""), "{error}");
    assert!(error.starts_with("error: "), "{error}");
    error
}

async fn fails(world: &World, args: &[&str], code: i32) -> String {
    refused(&run(world, args).await, code)
}

/// The state of each key, by its id.
async fn states(world: &World) -> BTreeMap<String, String> {
    let list = done(world, &["signing-key", "list"]).await;
    let mut lines = list.lines();
    let head = lines.next().unwrap();
    assert!(["KEY", "ALGORITHM", "STATE", "CREATED", "SIGNS FROM"].iter().all(|column| head.contains(column)), "{head}");
    let at = head.find("STATE").unwrap();
    let state = |line: &str| line[at..].split("  ").next().unwrap().trim().to_owned();
    lines.map(|line| (line.split_whitespace().next().unwrap().to_owned(), state(line))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_keys_are_listed_rotated_and_revoked() {
    let issuing = Issuing::new().await;
    let world = &issuing.world;
    let old = issuing.token("billing").await;
    let first = part(&old, 0)["kid"].as_str().unwrap().to_owned();
    assert_eq!(states(world).await, [(first.clone(), "in use".to_owned())].into());

    let rotated = done(world, &["signing-key", "rotate"]).await;
    let planned = rotated.split('`').nth(1).unwrap().to_owned();
    assert!(rotated.starts_with(&format!("Key `{planned}` is published, and signs from 20")), "{rotated}");
    assert!(rotated.contains(" on.\nIn force on 1 gateway after "), "{rotated}");
    assert_eq!(states(world).await, [(first.clone(), "in use".to_owned()), (planned.clone(), "planned".to_owned())].into());
    assert_eq!(part(&issuing.token("billing").await, 0)["kid"], first.as_str(), "it does not sign yet");
    let published = send(world.http.get(world.url("/.well-known/jwks.json"))).await;
    assert!(published.json["keys"].as_array().unwrap().iter().any(|key| key["kid"] == planned.as_str()), "{}", published.text);

    let begun = now();
    let rotated = json_of(world, &["signing-key", "rotate", "--at-once"]).await;
    let new = rotated["id"].as_str().unwrap().to_owned();
    assert_eq!(rotated["receipt"]["applied"], 1, "{rotated}");
    let listed = json_of(world, &["signing-key", "list"]).await;
    let listed: BTreeMap<_, _> = listed.as_array().unwrap().iter().map(|key| (key["id"].as_str().unwrap(), key)).collect();
    assert_eq!((listed.len(), listed[&*new]["signs_from"] == rotated["signs_from"]), (3, true), "{listed:?}");
    assert!(listed.values().all(|key| key["algorithm"] == "EdDSA" && key.get("sealed").is_none()), "{listed:?}");
    let ahead = |key: &Value| key["signs_from"].to_string();
    assert!(ahead(listed[&*new]) < ahead(listed[&*planned]) && ahead(listed[&*first]) < ahead(listed[&*new]), "{listed:?} {begun}");
    let fresh = issuing.token("billing").await;
    assert_eq!(part(&fresh, 0)["kid"], new.as_str(), "it signs at once");
    assert_eq!((issuing.status("/billing", &old).await, issuing.status("/billing", &fresh).await), (200, 200));

    let revoked = done(world, &["signing-key", "revoke", &first]).await;
    assert!(revoked.starts_with(&format!("Key `{first}` is revoked, and every token that it has signed. This is final.")), "{revoked}");
    assert!(revoked.contains("`signing-key rotate --at-once`") && revoked.contains("In force on 1 gateway"), "{revoked}");
    assert_eq!((issuing.status("/billing", &old).await, issuing.status("/billing", &fresh).await), (401, 200));
    assert!(states(world).await[&first].starts_with("revoked 20"));
    let again = json_of(world, &["signing-key", "revoke", &first]).await;
    assert!(again["revision"].is_u64(), "harmless: {again}");

    done(world, &["signing-key", "revoke", &new, "--json"]).await;
    assert_eq!(send(issuing.by("billing", TOKEN, &[GRANT])).await.status, 503, "nothing signs");
    json_of(world, &["signing-key", "rotate", "--at-once"]).await;
    assert_eq!(issuing.status("/billing", &issuing.token("billing").await).await, 200);
    let audit = done(world, &["audit", "list"]).await;
    assert!(audit.contains(&first) && !audit.contains("sealed"), "{audit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_about_a_signing_key_is_said() {
    let issuing = Issuing::new().await;
    let world = &issuing.world;
    let before = states(world).await;
    for start in ["", "-", "--", "-h", "-V", "--json"] {
        // A thumbprint may begin with anything.
        let key = format!("{start}{}", &UNKNOWN[start.len()..]);
        let error = fails(world, &["signing-key", "revoke", &key], 3).await;
        assert!(error.contains(&format!("no signing key `{key}`")), "{error}");
    }
    for (args, says) in [
        (&["signing-key", "revoke", "short"][..], "short"),
        (&["signing-key", "revoke"], "<KEY>"),
        (&["signing-key", "rotate", "now"], "now"),
        (&["signing-key", "make"], "make"),
    ] {
        let error = fails(world, args, 2).await;
        assert!(error.contains(says), "{error}");
    }
    let help = done(world, &["signing-key", "revoke", "--help"]).await;
    assert!(help.contains("Take a key out of use for good"), "{help}");
    // The store alone does not make a key: what it is sealed with is in the settings.
    let error = refused(&world.cli(&["signing-key", "rotate"]).await, 2);
    assert!(error.contains("`oauth.master_key`") && error.contains("--config"), "{error}");
    assert_eq!(states(world).await, before, "nothing has changed");

    let elsewhere = World::new().await;
    let none = done(&elsewhere, &["signing-key", "list"]).await;
    assert_eq!(none, "There is no signing key yet: a gateway with `oauth.master_key` makes one when it starts.\n");
    assert_eq!(json_of(&elsewhere, &["signing-key", "list"]).await, json!([]));
}

/// A set of keys in a file.
fn file(world: &World, name: &str, keys: &[Value]) -> String {
    written(world, name, json!({ "keys": keys }).to_string().as_bytes())
}

fn written(world: &World, name: &str, content: &[u8]) -> String {
    let path = world.path(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

fn create(keys: [&str; 2]) -> [&str; 10] {
    let [flag, value] = keys;
    ["client", "create", "--practice", "practice-1", "--name", "app", "--scope", "billing", flag, value]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_has_the_keys_that_an_operator_gives_it() {
    let issuing = Issuing::new().await;
    let world = &issuing.world;
    let [one, two] = [Algorithm::EdDsa, Algorithm::Es256].map(|algorithm| SigningKey::generate(algorithm).unwrap());
    let [jwk, other] = [&one, &two].map(|key| key.public().to_jwk());
    let set = file(world, "one.json", std::slice::from_ref(&jwk));
    let created = json_of(world, &create(["--jwks", &set])).await;
    let id = created["client"]["client_id"].as_str().unwrap();
    assert_eq!(created["client"]["jwks"], json!({ "keys": [jwk] }));
    let assertion = |key: &SigningKey| {
        let claims =
            json!({ "iss": id, "sub": id, "aud": issuing.issuer, "exp": now().0 / 1000 + 60, "jti": uuid::Uuid::new_v4().to_string() });
        key.sign_json(&json!({ "alg": key.algorithm().as_str(), "kid": key.kid() }), &claims).unwrap()
    };
    let ask = async |key: &SigningKey| send(issuing.by_assertion(TOKEN, &assertion(key), &[GRANT])).await;
    let token = async |key: &SigningKey| ask(key).await.json["access_token"].as_str().unwrap().to_owned();
    let edit = async |args: &[&str]| {
        let edited = done(world, &[&["client", "edit", id], args].concat()).await;
        assert!(edited.starts_with(&format!("Client `{id}` is changed.\nIn force on 1 gateway")), "{edited}");
    };
    let first = token(&one).await;
    assert_eq!((issuing.status("/billing", &first).await, ask(&two).await.status), (200, 401));

    edit(&["--jwks", &file(world, "both.json", &[jwk, other.clone()])]).await;
    let second = token(&two).await;
    assert_eq!((issuing.status("/billing", &first).await, issuing.status("/billing", &second).await), (200, 200), "one more ends nothing");
    edit(&["--jwks", &file(world, "two.json", &[other])]).await;
    assert_eq!((issuing.status("/billing", &first).await, issuing.status("/billing", &second).await), (401, 200), "one fewer does");
    assert_eq!((ask(&one).await.status, ask(&two).await.status), (401, 200));
    edit(&["--no-keys"]).await;
    assert_eq!((issuing.status("/billing", &second).await, ask(&two).await.status), (401, 401));
    assert!(json_of(world, &["client", "show", id]).await["jwks"].is_null());
    let form = [GRANT, ("client_id", id), ("client_secret", created["client_secret"].as_str().unwrap())];
    assert_eq!(send(issuing.form(TOKEN, &form)).await.status, 200, "its secret is another matter");

    let url = "https://keys.example.test/jwks.json";
    edit(&["--jwks-url", url]).await;
    assert_eq!(json_of(world, &["client", "show", id]).await["jwks_uri"], url);
    let created = json_of(world, &create(["--jwks-url", url])).await;
    assert_eq!(created["client"]["jwks_uri"], url, "nobody is asked before the client is");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_would_prove_nothing_are_not_taken_and_nothing_is_changed() {
    let issuing = Issuing::with("key_networks = [\"10.0.0.0/8\"]").await;
    let world = &issuing.world;
    let good = SigningKey::generate(Algorithm::EdDsa).unwrap().public().to_jwk();
    let with = |changes: Value| {
        let mut jwk = good.clone();
        jwk.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        jwk
    };
    let rsa = |bytes: usize| json!({ "kty": "RSA", "e": "AQAB", "n": URL_SAFE_NO_PAD.encode(vec![0xff; bytes]) });
    let shared = json!({ "kty": "oct", "k": URL_SAFE_NO_PAD.encode([7; 32]) });
    let (no_set, weak, no_key) =
        ("this is no JWK set (RFC 7517", "it is too weak or not valid (RSA takes 2048", "it is no public key of Ed25519, P-256");
    let purpose = "it is not for checking signatures";
    let sets = [
        (written(world, "text", b"-----BEGIN PUBLIC KEY-----"), no_set),
        (written(world, "empty", b""), no_set),
        (written(world, "list", b"[]"), no_set),
        (written(world, "bare", good.to_string().as_bytes()), no_set),
        (written(world, "twice", format!("{{\"keys\":[],\"keys\":[{good}]}}").as_bytes()), no_set),
        (file(world, "none", &[]), "the set is empty"),
        (file(world, "1024", &[rsa(128)]), weak),
        (file(world, "2047", &[rsa(255)]), weak),
        (file(world, "point", &[with(json!({ "x": URL_SAFE_NO_PAD.encode([0; 32]) }))]), weak),
        (file(world, "shared", std::slice::from_ref(&shared)), no_key),
        (file(world, "shared-too", &[good.clone(), shared]), no_key),
        (file(world, "private", &[with(json!({ "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A" }))]), no_key),
        (file(world, "curve", &[json!({ "kty": "OKP", "crv": "X25519", "x": good["x"] })]), no_key),
        (file(world, "use", &[with(json!({ "use": "enc" }))]), purpose),
        (file(world, "ops", &[with(json!({ "key_ops": ["sign"] }))]), purpose),
        (file(world, "alg", &[with(json!({ "alg": "HS256" }))]), purpose),
        (file(world, "member", &[json!({ "kty": "OKP", "crv": "Ed25519" })]), "`x` is missing or malformed"),
        (file(world, "same", &[good.clone(), good.clone()]), "two keys have the same `kid`"),
        (file(world, "long", &[with(json!({ "note": "x".repeat(20_000) }))]), "bytes, and 16384 at most"),
    ];
    let (id, clients) = (world.apps["billing"].id.to_string(), json_of(world, &["client", "list", "--practice", "practice-1"]).await);
    for (path, says) in &sets {
        for args in [&create(["--jwks", path])[..], &["client", "edit", &id, "--jwks", path]] {
            let error = fails(world, args, 2).await;
            assert!(error.contains("the keys of the client are not taken: ") && error.contains(says), "{path}: {error}");
        }
    }
    let missing = world.path("missing.json");
    let error = fails(world, &create(["--jwks", missing.to_str().unwrap()]), 1).await;
    assert!(error.contains(&format!("cannot read `{}`", missing.display())), "{error}");

    let (plain, forbidden) = ("it is not encrypted", "is not on the public internet, and not in `oauth.key_networks`");
    for (url, says) in [
        ("http://keys.example.test/jwks.json", plain),
        ("http://10.1.2.3/jwks.json", plain),
        ("https://192.168.0.1/jwks.json", forbidden),
        ("https://172.16.0.1/jwks.json", forbidden),
        ("https://169.254.169.254/latest/meta-data", forbidden),
        ("https://127.0.0.1/jwks.json", forbidden),
        ("https://localhost/jwks.json", forbidden),
        ("http://localhost/jwks.json", forbidden),
        ("https://[::1]/jwks.json", forbidden),
        ("https://[::ffff:192.168.0.1]/jwks.json", forbidden),
        ("https://[fd00::1]/jwks.json", forbidden),
        ("https://0x7f000001/jwks.json", forbidden),
        ("https://2130706433/jwks.json", forbidden),
        ("ftp://keys.example.test/jwks.json", "it has another scheme"),
        ("file:///etc/passwd", "it has no host"),
        ("keys.example.test/jwks.json", "it is no URL"),
        ("https://user:word@keys.example.test/", "it has a user name or password"),
        ("https://keys.example.test/#one", "it has a fragment"),
        ("https://keys.example.test/a b", "it has a blank"),
        ("https://keys.example.test\\@10.0.0.1/", "a backslash"),
        ("", "it is no URL"),
    ] {
        for args in [&create(["--jwks-url", url])[..], &["client", "edit", &id, "--jwks-url", url]] {
            let error = fails(world, args, 2).await;
            assert!(error.contains(&format!("the keys of the client are not taken: `{url}`: ")) && error.contains(says), "{url}: {error}");
        }
    }
    // What the settings permit is permitted, to who has the settings.
    let private = create(["--jwks-url", "https://10.1.2.3/jwks.json"]);
    assert!(refused(&world.cli(&private).await, 2).contains(forbidden));

    for (args, says) in [
        (&["client", "edit", &id, "--no-keys", "--jwks", "one.json"][..], "cannot be used with"),
        (&["client", "edit", &id, "--no-keys", "--jwks-url", "https://keys.example.test/"], "cannot be used with"),
        (&["client", "edit", &id, "--jwks", "one.json", "--jwks-url", "https://keys.example.test/"], "cannot be used with"),
        (&[&create(["--jwks", "one.json"])[..], &["--jwks-url", "https://keys.example.test/"]].concat(), "cannot be used with"),
        (&create(["--no-keys", "now"]), "--no-keys"),
    ] {
        let error = fails(world, args, 2).await;
        assert!(error.contains(says), "{error}");
    }
    assert_eq!(json_of(world, &["client", "list", "--practice", "practice-1"]).await, clients, "nothing has changed");
    json_of(world, &private).await;
}
