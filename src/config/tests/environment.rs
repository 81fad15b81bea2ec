//! What the environment may say.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::*;

#[test]
fn the_environment_overrides_single_keys() {
    let files = files("[store]\nurl = \"sqlite://a\"\n[limits]\nconnections = 5", ROUTES);
    let env = [
        ("SIGMAGATE__STORE__URL", "sqlite://b"),
        ("SIGMAGATE__LIMITS__CONNECTIONS", "7"),
        ("SIGMAGATE__LIMITS__FAILED_AUTHENTICATIONS", "{ burst = 9 }"),
        ("SIGMAGATE__LISTENERS", "[{ address = \"127.0.0.1:0\" }, { address = \"[::1]:0\" }]"),
        ("SIGMAGATE_ELSE", "x"),
        ("PATH", "/bin"),
    ];
    let gateway = files.load(&env).unwrap().gateway;
    assert_eq!((gateway.store.url.as_str(), gateway.limits.connections, gateway.limits.failures_burst.get()), ("sqlite://b", 7, 9));
    assert_eq!(gateway.listeners.len(), 2);
    let mistakes = files.mistakes(&[("SIGMAGATE__STORE__ULR", "x"), ("SIGMAGATE__LIMITS__CONNECTIONS", "many")]);
    assert!(
        mistakes.iter().any(|m| m.starts_with("environment variable SIGMAGATE__STORE__ULR: store.ulr: unknown key; did you mean `url`?")),
        "{mistakes:?}"
    );
    assert!(
        mistakes
            .iter()
            .any(|m| m.starts_with("environment variable SIGMAGATE__LIMITS__CONNECTIONS: limits.connections: expected an integer")),
        "{mistakes:?}"
    );
}

#[test]
fn a_secret_comes_from_a_file_or_the_environment() {
    let files = files("[store]\nsecret_pepper = { file = \"pepper.key\" }\nurl = { env = \"PATH\" }", ROUTES);
    fs::write(files.dir.path().join("pepper.key"), "0123456789abcdef\n").unwrap();
    let mistakes = files.mistakes(&[("PATH", "/bin")]);
    assert!(
        mistakes.len() == 1
            && mistakes[0].contains("store.url: expected `sqlite://PATH` or `postgres://USER:PASSWORD@HOST/DATABASE`, found no scheme"),
        "{mistakes:?}"
    );
    let gateway = files.load(&[("SIGMAGATE__STORE__URL", "sqlite://a")]).unwrap().gateway;
    assert!(gateway.store.secret_pepper.is_some());
    assert!(!format!("{gateway:?}").contains("0123456789abcdef"));
}

/// The start of the only mistake, or nothing.
fn told(files: &Files, env: &[(&str, &str)]) -> String {
    let mistakes = files.mistakes(env);
    assert!(mistakes.len() <= 1, "{env:?}: {mistakes:?}");
    mistakes.concat()
}

#[test]
fn a_secret_can_be_overridden_in_any_form() {
    let (long, digits) = ("a pepper of many words", "1234567890123456");
    for gateway in [
        "",
        "[store]\nsecret_pepper = \"short\"",
        "[store]\nsecret_pepper = { env = \"GONE\" }",
        "[store]\nsecret_pepper = { file = \"gone\" }",
    ] {
        let files = files(gateway, ROUTES);
        fs::write(files.dir.path().join("pepper.key"), long).unwrap();
        for env in [
            &[("SIGMAGATE__STORE__SECRET_PEPPER", long)][..],
            &[("SIGMAGATE__STORE__SECRET_PEPPER", digits)],
            &[("SIGMAGATE__STORE__SECRET_PEPPER__FILE", "pepper.key")],
            &[("SIGMAGATE__STORE__SECRET_PEPPER__ENV", "MINE"), ("MINE", long)],
            &[("SIGMAGATE__STORE__SECRET_PEPPER", "{ file = \"pepper.key\" }")],
            &[("SIGMAGATE__STORE", "{ secret_pepper = { env = \"GONE\" } }"), ("SIGMAGATE__STORE__SECRET_PEPPER__FILE", "pepper.key")],
        ] {
            assert_eq!(told(&files, env), "", "{gateway} {env:?}");
            assert!(files.load(env).unwrap().gateway.store.secret_pepper.is_some(), "{gateway} {env:?}");
        }
        for (env, says) in [
            (
                &[("SIGMAGATE__STORE__SECRET_PEPPER__FILE", "none")][..],
                "environment variable SIGMAGATE__STORE__SECRET_PEPPER__FILE: store.secret_pepper: `none` cannot be read",
            ),
            (&[("SIGMAGATE__STORE__SECRET_PEPPER__ENV", "MINE")], "store.secret_pepper: the environment variable `MINE` is not set"),
            (
                &[
                    ("SIGMAGATE__STORE__SECRET_PEPPER__ENV", "MINE"),
                    ("SIGMAGATE__STORE__SECRET_PEPPER__FILE", "pepper.key"),
                    ("MINE", long),
                ],
                "SECRET_PEPPER__ENV: store.secret_pepper.env: cannot stand beside `file`: keep one of them",
            ),
            (&[("SIGMAGATE__STORE__SECRET_PEPPER__FIEL", "x")], "store.secret_pepper.fiel: unknown key; did you mean `file`?"),
        ] {
            assert!(told(&files, env).contains(says), "{gateway}: {:?}", files.mistakes(env));
        }
    }
}

#[test]
fn the_longer_name_counts_whatever_order_the_environment_has() {
    let files = files("", ROUTES);
    let [short, long] = [("SIGMAGATE__STORE", "{ url = \"sqlite://a\", migrate = false }"), ("SIGMAGATE__STORE__URL", "sqlite://b")];
    for env in [[short, long], [long, short]] {
        let store = files.load(&env).unwrap().gateway.store;
        assert_eq!((store.url.as_str(), store.migrate), ("sqlite://b", false));
    }
}

#[test]
fn a_variable_that_is_not_text_is_a_mistake_if_it_is_ours() {
    let files = files("[store]\nsecret_pepper = { env = \"MINE\" }", ROUTES);
    let bytes = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
    let said = |name: &[u8], value: &[u8]| {
        let env = [(bytes(name), bytes(value)), ("MINE".into(), "0123456789abcdef".into())];
        load(&files.sources, env, &ScopeRegistry::default())
            .err()
            .map(|mistakes| mistakes.0.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    assert_eq!(said(b"ELSE", b"\xff"), None, "not ours");
    assert_eq!(said(b"EL\xffSE", b"x"), None, "not ours");
    assert_eq!(said(b"SIGMAGATE_ELSE", b"\xff"), None, "not a setting");
    let not_text = |name: &str| Some(vec![format!("environment variable {name}: is not UTF-8: only text can override a setting")]);
    assert_eq!(said(b"SIGMAGATE__STORE__URL", b"sqlite://\xff"), not_text("SIGMAGATE__STORE__URL"));
    assert_eq!(said(b"SIGMAGATE__\xff", b"x"), not_text("SIGMAGATE__\u{fffd}"));
    let env = [("MINE".into(), bytes(b"0123456789abcdef\xff"))];
    let mistakes = load(&files.sources, env, &ScopeRegistry::default()).unwrap_err().to_string();
    assert!(mistakes.contains("store.secret_pepper: the environment variable `MINE` is not UTF-8"), "{mistakes}");
}
