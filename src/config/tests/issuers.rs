//! Who else issues tokens that are believed.

use serde_json::json;

use super::*;
use crate::token::{Algorithm, KeySource, SigningKey};

const ISSUER: &str = r#"
[[issuers]]
issuer = "https://login.test"
jwks_url = "https://login.test/jwks.json"
audiences = ["https://api.test"]
algorithms = ["RS256"]
client_claim = "azp"
"#;

/// The routes and the issuer, in which the line of `key` is another one.
fn with(key: &str, line: &str) -> String {
    let lines: Vec<_> = ISSUER.lines().map(|old| if old.starts_with(&format!("{key} ")) { line } else { old }).collect();
    format!("{ROUTES}{}\n", lines.join("\n"))
}

/// The routes and the issuer with one line more.
fn and(line: &str) -> String {
    format!("{ROUTES}{ISSUER}{line}\n")
}

#[test]
fn an_issuer_is_as_the_file_says_with_defaults() {
    let issuers = files("", &and("")).load(&[]).unwrap().routes.issuers;
    let [issuer] = issuers.as_slice() else { panic!("{issuers:?}") };
    assert_eq!(&*issuer.trust.name, "https://login.test");
    assert_eq!(issuer.trust.keys, KeySource::Url("https://login.test/jwks.json".into()));
    assert_eq!((&*issuer.trust.audiences[0], issuer.trust.algorithms.as_slice()), ("https://api.test", &[Algorithm::Rs256][..]));
    assert_eq!((issuer.client_claim.as_deref(), &issuer.practice_claim, &issuer.user_claim), (Some("azp"), &None, &None));
    assert_eq!((&*issuer.scope_claim, issuer.trust.leeway.as_secs(), issuer.trust.refresh.as_secs()), ("scope", 30, 300));
    let all = "practice_claim = \"org\"\nuser_claim = \"sub\"\nscope_claim = \"scp\"\nleeway_secs = 0\nrefresh_secs = 10";
    let other = files("", &and(all)).load(&[]).unwrap().routes.issuers;
    assert_eq!((other[0].practice_claim.as_deref(), other[0].user_claim.as_deref()), (Some("org"), Some("sub")));
    assert_eq!((&*other[0].scope_claim, other[0].trust.leeway.as_secs(), other[0].trust.refresh.as_secs()), ("scp", 0, 10));
    // What a reload can tell: the same again, or another one.
    assert_eq!(issuers, files("", &and("")).load(&[]).unwrap().routes.issuers);
    assert_ne!(issuers, other);
    let without_client = with("client_claim", "practice_claim = \"org\"");
    assert!(files("", &without_client).load(&[]).is_ok(), "a practice is enough");
    assert!(files("", ROUTES).load(&[]).unwrap().routes.issuers.is_empty());
}

#[test]
fn keys_in_a_file_are_read_with_it() {
    let key = |kid: &str| {
        let mut jwk = SigningKey::generate(Algorithm::EdDsa).unwrap().public().to_jwk();
        jwk["kid"] = kid.into();
        jwk
    };
    let (a, b, secret) = (key("a"), key("b"), json!({ "kty": "oct", "k": "aGlkZGVu" }));
    let files = files("", &with("jwks_url", "jwks_file = \"keys.json\""));
    let path = files.dir.path().join("keys.json");
    let says = |keys: &[&Value]| fs::write(&path, json!({ "keys": keys }).to_string()).unwrap();
    let mistake = || {
        let mistakes = files.mistakes(&[]);
        assert!(mistakes.len() == 1 && mistakes[0].starts_with("routes.toml:13:13: issuers[0].jwks_file: `keys.json`"), "{mistakes:?}");
        mistakes.concat()
    };
    assert!(mistake().contains("cannot be read"));
    fs::write(&path, "{").unwrap();
    assert!(mistake().contains("this is no JWK set"));
    says(&[&a, &a]);
    assert!(mistake().contains("two keys have the same `kid`"));
    says(&[]);
    assert!(mistake().contains("has no key"));
    says(&[&secret]);
    assert!(mistake().contains("has no key that can be used: it is no public key"));
    says(&[&a, &secret]);
    let issuer = || files.load(&[]).unwrap().routes.issuers.remove(0);
    let first = issuer();
    let KeySource::Set(set) = &first.trust.keys else { panic!("{first:?}") };
    assert!(set.len() == 1 && set.find(Some("a")).is_some(), "what cannot be used is left out");
    assert_eq!(first, issuer(), "the same file");
    says(&[&a, &b]);
    assert_ne!(first, issuer(), "another one");
}

#[test]
fn every_mistake_of_an_issuer_is_told() {
    let private = "is not on the public internet, and not in `oauth.key_networks`";
    let rows: &[(String, &str)] = &[
        (with("issuer", ""), "routes.toml:11:1: issuers[0]: the key `issuer` is missing"),
        (with("issuer", "issuer = \"\""), "routes.toml:12:10: issuers[0].issuer: is empty"),
        (with("issuer", "issuer = \"https://own.test\""), "routes.toml:12:10: issuers[0].issuer: is this gateway itself (`oauth.issuer`)"),
        (and(ISSUER), "routes.toml:19:10: issuers[1].issuer: is the same as that of issuers[0]"),
        (with("jwks_url", ""), "routes.toml:11:1: issuers[0]: does not say where its keys are: give `jwks_url` or `jwks_file`"),
        (with("jwks_url", "jwks_url = 5"), "issuers[0].jwks_url: expected a string, found an integer"),
        (and("jwks_file = \"keys.json\""), "routes.toml:11:1: issuers[0]: has jwks_url and jwks_file: give exactly one of them"),
        (with("jwks_url", "jwks_url = \"http://login.test/\""), "routes.toml:13:12: issuers[0].jwks_url: it is not encrypted"),
        (with("jwks_url", "jwks_url = \"login.test\""), "issuers[0].jwks_url: it is no URL: write `https://` and where the keys are"),
        (with("jwks_url", "jwks_url = \"https://u:p@login.test/\""), "issuers[0].jwks_url: it has a user name or password"),
        (with("jwks_url", "jwks_url = \"https://10.1.2.3/\""), &format!("issuers[0].jwks_url: 10.1.2.3 {private}")),
        (with("jwks_url", "jwks_url = \"http://localhost:1/\""), &format!("issuers[0].jwks_url: 127.0.0.1 {private}")),
        (with("audiences", ""), "issuers[0]: the key `audiences` is missing"),
        (with("audiences", "audiences = []"), "routes.toml:14:13: issuers[0].audiences: is empty: name at least one of whom"),
        (with("audiences", "audiences = [\"a\", \"\"]"), "routes.toml:14:19: issuers[0].audiences[1]: is empty"),
        (with("algorithms", ""), "issuers[0]: the key `algorithms` is missing"),
        (with("algorithms", "algorithms = []"), "routes.toml:15:14: issuers[0].algorithms: is empty: name at least one of what it signs"),
        (with("algorithms", "algorithms = [\"none\"]"), "routes.toml:15:15: issuers[0].algorithms[0]: `none`: no signature algorithm"),
        (with("algorithms", "algorithms = [\"RS256\", \"HS256\"]"), "issuers[0].algorithms[1]: `HS256`: no signature algorithm"),
        (with("algorithms", "algorithms = [\"rs256\"]"), "issuers[0].algorithms[0]: `rs256`: no signature algorithm of that name"),
        (with("client_claim", ""), "routes.toml:11:1: issuers[0]: does not say who makes a request: give `client_claim`"),
        (with("client_claim", "user_claim = \"sub\""), "issuers[0]: does not say of which practice the user is: give `client_claim`"),
        (with("client_claim", "client_claim = 5"), "issuers[0].client_claim: expected a string, found an integer"),
        (with("client_claim", "client_claim = \"\""), "routes.toml:16:16: issuers[0].client_claim: is empty"),
        (and("practice_claim = \"\""), "issuers[0].practice_claim: is empty: name a claim, or leave it out"),
        (and("user_claim = \"\""), "issuers[0].user_claim: is empty"),
        (and("scope_claim = \"\""), "issuers[0].scope_claim: is empty"),
        (and("leeway_secs = 61"), "issuers[0].leeway_secs: 61 is out of bounds: expected an integer from 0 to 60"),
        (and("refresh_secs = 9"), "issuers[0].refresh_secs: 9 is out of bounds: expected an integer from 10 to 86400"),
        (and("refresh_secs = 86401"), "issuers[0].refresh_secs: 86401 is out of bounds"),
        (and("clientclaim = \"a\""), "issuers[0].clientclaim: unknown key; did you mean `client_claim`?"),
    ];
    let gateway = format!("[oauth]\nmaster_key = \"{MASTER_KEY}\"\nissuer = \"https://own.test\"");
    for (routes, says) in rows {
        let mistakes = files(&gateway, routes).mistakes(&[]);
        assert!(mistakes.len() == 1 && mistakes[0].contains(says), "{says}\nin {mistakes:#?}");
    }
    let timed = with("jwks_url", "jwks_file = \"keys.json\"\nrefresh_secs = 60");
    let mistakes = files("", &timed).mistakes(&[]);
    assert!(mistakes.len() == 2 && mistakes[0].contains("issuers[0].refresh_secs: is for `jwks_url`"), "{mistakes:?}");
    let private = with("jwks_url", "jwks_url = \"http://127.0.0.1:1/\"");
    assert!(files("[oauth]\nkey_networks = [\"127.0.0.0/8\"]", &private).load(&[]).is_ok());
}

#[test]
fn an_issuer_of_management_tokens_is_checked_like_the_others() {
    let block = "[[management.issuers]]\nissuer = \"https://app.test\"\njwks_url = \"https://app.test/keys\"\naudiences = [\"urn:m\"]\nalgorithms = [\"ES256\"]\n";
    let config = files(block, ROUTES).load(&[]).unwrap();
    let [issuer] = &config.gateway.management_issuers[..] else { panic!("{:?}", config.gateway.management_issuers) };
    assert_eq!((&*issuer.practice_claim, &*issuer.role_claim, issuer.operators), ("practice_id", "role", false));
    assert_eq!((&*issuer.trust.name, issuer.trust.leeway.as_secs(), issuer.trust.refresh.as_secs()), ("https://app.test", 30, 300));
    let all = "practice_claim = \"org\"\nrole_claim = \"kind\"\noperators = true\n";
    let config = files(&format!("{block}{all}"), ROUTES).load(&[]).unwrap();
    let issuer = &config.gateway.management_issuers[0];
    assert_eq!((&*issuer.practice_claim, &*issuer.role_claim, issuer.operators), ("org", "kind", true));
    for (from, to, says) in [
        ("https://app.test\"", "\"", "gateway.toml:2:10: management.issuers[0].issuer: is empty"),
        ("https://app.test\"", "urn:sigmagate\"", "management.issuers[0].issuer: is what this gateway calls itself in management tokens"),
        ("jwks_url", "jwks_ur", "management.issuers[0].jwks_ur: "),
        ("https://app.test/keys", "http://app.test/keys", "management.issuers[0].jwks_url: it is not encrypted"),
        ("\"urn:m\"", "", "gateway.toml:4:13: management.issuers[0].audiences: is empty"),
        ("ES256", "HS256", "management.issuers[0].algorithms[0]: `HS256`: no signature algorithm"),
        ("algorithms", "role_claim = \"\"\nalgorithms", "management.issuers[0].role_claim: is empty: name a claim"),
    ] {
        let mistakes = files(&block.replace(from, to), ROUTES).mistakes(&[]);
        assert!(mistakes.iter().any(|mistake| mistake.contains(says)), "{says}: {mistakes:?}");
    }
    let twice = files(&format!("{block}{block}"), ROUTES).mistakes(&[]);
    assert!(twice.concat().contains("management.issuers[1].issuer: is the same as that of issuers[0]"), "{twice:?}");
    // One token for both is what somebody would use for both.
    let same = block.replace("https://app.test\"", "https://login.test\"").replace("urn:m", "https://api.test");
    let shared = files(&same, &with("", "")).mistakes(&[]);
    assert!(shared.len() == 1 && shared[0].starts_with("routes.toml:14:13: issuers[0].audiences: has `https://api.test`"), "{shared:?}");
    let apart = files(&same.replace("https://api.test", "urn:m"), &with("", "")).load(&[]);
    assert!(apart.is_ok(), "{apart:?}");
}
