//! What it takes to issue tokens.

use super::*;
use crate::token::Algorithm;

const SECRET: &str = "a secret that is thirty-two long";

/// `[oauth]` with a master key and more.
fn settings(rest: &str) -> String {
    format!("[oauth]\nmaster_key = \"{MASTER_KEY}\"\n{rest}\n")
}

#[test]
fn tokens_are_issued_with_a_master_key_and_only_then() {
    for none in ["", "[oauth]", "[oauth]\nkey_networks = [\"10.0.0.0/8\"]"] {
        let gateway = files(none, ROUTES).load(&[]).unwrap().gateway;
        assert!(gateway.oauth.is_none());
        assert_eq!(gateway.key_networks.len(), usize::from(none.contains("10.")), "keys of issuers are fetched all the same");
    }
    let oauth = files(&settings(""), ROUTES).load(&[]).unwrap().gateway.oauth.unwrap();
    assert_eq!((&oauth.issuer, &oauth.audience, oauth.algorithm), (&None, &None, Algorithm::EdDsa));
    assert_eq!((oauth.token_lifetime.as_secs(), oauth.publish_ahead.as_secs(), oauth.resource_servers.len()), (900, 3600, 0));
    let all = settings(
        "issuer = \"https://api.test:8443\"\naudience = \"urn:api\"\nalgorithm = \"ES256\"\ntoken_lifetime_secs = 60\n\
         publish_ahead_secs = 0\nkey_networks = [\"127.0.0.1\", \"fd00::/8\"]\n\
         [[oauth.resource_servers]]\nname = \"core\"\nsecret = { env = \"CORE\" }\n\
         [[oauth.resource_servers]]\nname = \"files\"\nsecret = { file = \"files.key\" }",
    );
    let files = files(&all, ROUTES);
    fs::write(files.dir.path().join("files.key"), format!("{SECRET} too\n")).unwrap();
    let gateway = files.load(&[("CORE", SECRET)]).unwrap().gateway;
    let oauth = gateway.oauth.as_ref().unwrap();
    assert_eq!((oauth.issuer.as_deref(), oauth.audience.as_deref()), (Some("https://api.test:8443"), Some("urn:api")));
    assert_eq!((oauth.algorithm, oauth.token_lifetime.as_secs(), oauth.publish_ahead.as_secs()), (Algorithm::Es256, 60, 0));
    assert_eq!(gateway.key_networks.len(), 2);
    let [core, files] = oauth.resource_servers.as_slice() else { panic!("{oauth:?}") };
    assert_eq!((&*core.name, &*files.name), ("core", "files"));
    assert!(core.proves(SECRET.as_bytes()) && files.proves(format!("{SECRET} too").as_bytes()), "without the end of the line");
    assert!(!core.proves(format!("{SECRET} too").as_bytes()) && !core.proves(b""));
    let shown = format!("{gateway:?}");
    assert!(!shown.contains(SECRET) && !shown.contains(MASTER_KEY) && shown.contains("ResourceServer(core)"), "{shown}");
}

#[test]
fn the_environment_switches_it_on() {
    let env = [
        ("SIGMAGATE__OAUTH__MASTER_KEY__FILE", "master.key"),
        ("SIGMAGATE__OAUTH__ISSUER", "https://api.test"),
        ("SIGMAGATE__OAUTH__KEY_NETWORKS", "[\"127.0.0.0/8\"]"),
        ("SIGMAGATE__OAUTH__RESOURCE_SERVERS", "[{ name = \"core\", secret = { env = \"CORE\" } }]"),
        ("CORE", SECRET),
    ];
    let files = files("[oauth]\nmaster_key = \"\"", ROUTES);
    fs::write(files.dir.path().join("master.key"), format!("{MASTER_KEY}\n")).unwrap();
    let gateway = files.load(&env).unwrap().gateway;
    let oauth = gateway.oauth.unwrap();
    assert_eq!((oauth.issuer.as_deref(), gateway.key_networks.len()), (Some("https://api.test"), 1));
    assert!(oauth.resource_servers[0].proves(SECRET.as_bytes()));
}

#[test]
fn every_mistake_of_it_is_told() {
    let server = |name: &str, secret: &str| format!("[[oauth.resource_servers]]\nname = \"{name}\"\nsecret = \"{secret}\"\n");
    let without = "means nothing without `oauth.master_key`, and no token is issued";
    let issuer = |text: &str| settings(&format!("issuer = \"{text}\""));
    let rows: &[(String, &str)] = &[
        ("[oauth]\nissuer = \"https://a.test\"".into(), &format!("gateway.toml:2:10: oauth.issuer: {without}")),
        ("[oauth]\naudience = \"a\"".into(), &format!("oauth.audience: {without}")),
        ("[oauth]\nalgorithm = \"ES256\"".into(), &format!("oauth.algorithm: {without}")),
        ("[oauth]\ntoken_lifetime_secs = 60".into(), &format!("oauth.token_lifetime_secs: {without}")),
        ("[oauth]\npublish_ahead_secs = 60".into(), &format!("oauth.publish_ahead_secs: {without}")),
        (server("core", SECRET), &format!("oauth.resource_servers: {without}")),
        ("[oauth]\nissuer = \"https://a.test\"\nmaster_key = 5".into(), "oauth.master_key: expected a string or a table, found an integer"),
        ("[oauth]\nmaster_key = \"hidden\"".into(), "gateway.toml:2:14: oauth.master_key: a master key is 32 random bytes in base64"),
        ("[oauth]\nmaster_key = { file = \"gone.key\" }".into(), "oauth.master_key: `gone.key` cannot be read"),
        ("[oauth]\nmaster_key = { env = \"GONE\" }".into(), "oauth.master_key: the environment variable `GONE` is not set"),
        (issuer(""), "gateway.toml:3:10: oauth.issuer: `` is not a URL"),
        (issuer("api.test"), "oauth.issuer: `api.test` does not begin with `https://`"),
        (issuer("https://api.test/gate"), "oauth.issuer: `https://api.test/gate` has a path"),
        (issuer("/path"), "oauth.issuer: `/path` is not a whole URL"),
        (issuer("http://api.test"), "oauth.issuer: `http://api.test` does not begin with `https://`, which only an address of this"),
        (issuer("http://127.0.0.1.test"), "does not begin with `https://`"),
        (issuer("HTTPS://api.test"), "does not begin with `https://`"),
        (issuer("https://API.test"), "has no host in small letters"),
        (issuer("https://u@api.test"), "has a user name or password"),
        (issuer("https://api.test:0"), "has no usable port"),
        (issuer("https://api.test:"), "has no usable port"),
        (issuer("https://api.test?x=1"), "has a query or a fragment"),
        (issuer("https://api.test/#x"), "has a query or a fragment"),
        (issuer("https://api.test/"), "ends with `/`"),
        (issuer("https://api.test/a/"), "ends with `/`: write the address that clients know, as `https://api.example.test`"),
        (settings("audience = \"\""), "gateway.toml:3:12: oauth.audience: is empty"),
        (settings("algorithm = \"RS256\""), "gateway.toml:3:13: oauth.algorithm: `RS256` is none of `EdDSA`, `ES256`"),
        (settings("token_lifetime_secs = 59"), "oauth.token_lifetime_secs: 59 is out of bounds: expected an integer from 60 to 3600"),
        (settings("token_lifetime_secs = 3601"), "oauth.token_lifetime_secs: 3601 is out of bounds"),
        (settings("publish_ahead_secs = 604801"), "oauth.publish_ahead_secs: 604801 is out of bounds"),
        (settings("publish_ahead_secs = -1"), "oauth.publish_ahead_secs: -1 is out of bounds: expected an integer from 0 to 604800"),
        (settings("key_networks = [\"10.0.0.0/8\", \"x\"]"), "gateway.toml:3:31: oauth.key_networks[1]: `x` is not a network"),
        (settings("key_networks = [\"0.0.0.0/0\"]"), "oauth.key_networks[0]: `0.0.0.0/0` is everywhere, this machine itself included"),
        ("[oauth]\nkey_networks = [\"10.1.0.0/8\"]".into(), "oauth.key_networks[0]: `10.1.0.0/8` has bits set behind its prefix"),
        (settings("[[oauth.resource_servers]]\nname = \"core\""), "oauth.resource_servers[0]: the key `secret` is missing"),
        (settings(&server("a core", SECRET)), "gateway.toml:4:8: oauth.resource_servers[0].name: is not a name"),
        (settings(&server("smd_0123456789abcdefGHIJ", SECRET)), "oauth.resource_servers[0].name: is the name of a client"),
        (settings(&server("core", &SECRET.replace('s', "hidden")[..31])), "secret: has 31 characters: at least 32 are needed"),
        (
            settings(&(server("core", SECRET) + &server("core", SECRET))),
            "gateway.toml:7:8: oauth.resource_servers[1].name: `core` is the name of resource_servers[0] already",
        ),
        (settings("isuer = \"a\""), "oauth.isuer: unknown key; did you mean `issuer`?"),
    ];
    for (gateway, says) in rows {
        let mistakes = files(gateway, ROUTES).mistakes(&[]);
        assert!(mistakes.len() == 1 && mistakes[0].contains(says), "{says}\nin {mistakes:#?}");
        assert!(!mistakes[0].contains("hidden"), "a value that may be a secret is not shown");
    }
    for good in ["https://api.test", "https://api.test:8443", "http://localhost:8080", "http://127.0.0.1:8080", "http://[::1]:1"] {
        let gateway = files(&issuer(good), ROUTES).load(&[]).unwrap().gateway;
        assert_eq!(gateway.oauth.unwrap().issuer.as_deref(), Some(good));
    }
}

#[test]
fn no_route_leads_where_the_gateway_answers_itself() {
    let route = |prefix: &str| ROUTES.replace("/billing", prefix);
    for own in OAUTH_PATHS {
        for prefix in [own.to_owned(), format!("{own}/deeper")] {
            assert_eq!(files("", &route(&prefix)).mistakes(&[]), Vec::<String>::new(), "{prefix}: no tokens are issued");
            let mistakes = files(&settings(""), &route(&prefix)).mistakes(&[]);
            let says =
                format!("routes.toml:7:10: routes[0].prefix: the gateway answers at `{own}` itself, since `oauth.master_key` is given");
            assert!(mistakes.len() == 1 && mistakes[0].starts_with(&says), "{prefix}: {mistakes:?}");
        }
        let shouted = route(&own.to_ascii_uppercase());
        assert_eq!(files(&settings(""), &shouted).mistakes(&[]), Vec::<String>::new(), "another path");
        assert_eq!(files(&settings(""), &format!("ignore_case = true\n{shouted}")).mistakes(&[]).len(), 1, "the same path");
    }
    for beside in ["/oauth", "/oauth/tokens", "/oauth/token-x", "/", "/.well-known", "/x/oauth/token"] {
        assert_eq!(files(&settings(""), &route(beside)).mistakes(&[]), Vec::<String>::new(), "{beside}");
    }
}
