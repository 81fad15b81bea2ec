//! What the schema of `gateway.toml` cannot say.

use super::*;

/// The only mistake that these settings have.
fn mistake(gateway: &str) -> String {
    let mistakes = files(gateway, ROUTES).mistakes(&[]);
    assert_eq!(mistakes.len(), 1, "{gateway}: {mistakes:?}");
    mistakes.concat()
}

fn listeners(addresses: &[&str]) -> String {
    addresses.iter().fold(String::new(), |text, address| format!("{text}[[listeners]]\naddress = \"{address}\"\n"))
}

#[test]
fn nobody_is_trusted_as_a_proxy_by_accident() {
    for (network, says) in [
        ("0.0.0.0/0", "`0.0.0.0/0` is everyone"),
        ("::/0", "`::/0` is everyone"),
        ("10.1.2.3/0", "`10.1.2.3/0` is everyone"),
        ("10.1.0.0/8", "`10.1.0.0/8` has bits set behind its prefix: write `10.0.0.0/8`, or a longer prefix"),
        ("fd00::1/64", "write `fd00::/64`"),
        ("10.0.0.0/33", "is not a network"),
    ] {
        let mistake = mistake(&format!("[limits]\ntrusted_proxies = [\"{network}\"]"));
        assert!(mistake.starts_with("gateway.toml:2:20: limits.trusted_proxies[0]: ") && mistake.contains(says), "{mistake}");
    }
    let gateway = "[limits]\ntrusted_proxies = [\"10.0.0.0/8\", \"10.1.2.3\", \"10.1.2.3/32\", \"fd00::/8\"]";
    assert_eq!(files(gateway, ROUTES).load(&[]).unwrap().gateway.limits.trusted_proxies.len(), 4);
}

#[test]
fn no_two_listeners_have_one_address() {
    let (one, two) = ("127.0.0.1:7001", "[::1]:7001");
    let operators = |address: &str| format!("[management]\naddress = \"{address}\"\n");
    for (gateway, says) in [
        (listeners(&[one, two, one]), "gateway.toml:6:11: listeners[2].address: `127.0.0.1:7001` is the address of listeners[0] already"),
        (
            listeners(&[two, one]) + &operators(one),
            "gateway.toml:6:11: management.address: `127.0.0.1:7001` is the address of listeners[1] already",
        ),
        (
            operators("127.0.0.1:8080"),
            "gateway.toml:2:11: management.address: `127.0.0.1:8080` is the address of the listener that there is",
        ),
        (listeners(&["127.0.0.1:8081"]), "gateway.toml:2:11: listeners[0].address: `127.0.0.1:8081` is where operators connect unless"),
    ] {
        let mistake = mistake(&gateway);
        assert!(mistake.starts_with(says), "{mistake}");
    }
    let free = "127.0.0.1:0";
    let gateway = listeners(&[free, free, one, two]) + &operators(free);
    assert_eq!(files(&gateway, ROUTES).load(&[]).unwrap().gateway.listeners.len(), 4, "port 0 is another one each time");
}

#[test]
fn a_certificate_and_its_key_are_proved_before_they_are_used() {
    let [own, other] = ["gate.test", "other.test"].map(|name| rcgen::generate_simple_self_signed([name.to_owned()]).unwrap());
    let (certificate, key) = (own.cert.pem(), own.signing_key.serialize_pem());
    let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned();
    let gateway = "[[listeners]]\naddress = \"[::1]:8443\"\ntls = { certificate = \"c.pem\", key = \"k.pem\" }";
    let (of_certificate, of_key) = ("gateway.toml:3:23: listeners[0].tls.certificate: ", "gateway.toml:3:38: listeners[0].tls.key: ");
    for (c, k, says) in [
        (None, None, vec![(of_certificate, "there is no file `c.pem`"), (of_key, "there is no file `k.pem`")]),
        (Some(&certificate), None, vec![(of_key, "there is no file `k.pem`")]),
        (Some(&key), Some(&certificate), vec![(of_certificate, "`c.pem` holds no certificate"), (of_key, "`k.pem` holds no private key")]),
        (Some(&String::new()), Some(&key), vec![(of_certificate, "`c.pem` holds no certificate")]),
        (Some(&certificate), Some(&encrypted), vec![(of_key, "`k.pem` is encrypted")]),
        (
            Some(&certificate),
            Some(&other.signing_key.serialize_pem()),
            vec![(of_key, "the key `k.pem` does not fit the certificate `c.pem`: ")],
        ),
        (Some(&garbage), Some(&key), vec![(of_key, "does not fit the certificate")]),
        (Some(&certificate), Some(&key), vec![]),
        (Some(&(certificate.clone() + &other.cert.pem())), Some(&(certificate.clone() + &key)), vec![]),
    ] {
        let files = files(gateway, ROUTES);
        for (name, text) in [("c.pem", c), ("k.pem", k)] {
            if let Some(text) = text {
                fs::write(files.dir.path().join(name), text).unwrap();
            }
        }
        let mistakes = files.mistakes(&[]);
        assert_eq!(mistakes.len(), says.len(), "{mistakes:?}");
        for (mistake, (begins, says)) in mistakes.iter().zip(says) {
            assert!(mistake.starts_with(begins) && mistake.contains(says), "{says} in {mistake}");
            assert!(!mistake.contains("BEGIN"), "nothing of a key is shown");
        }
        let none = std::iter::empty();
        assert!(load_gateway(files.sources.gateway.as_deref(), none).is_ok(), "whoever manages need not be able to read the key");
    }
    let unreadable = files(gateway, ROUTES);
    fs::create_dir(unreadable.dir.path().join("c.pem")).unwrap();
    assert!(unreadable.mistakes(&[])[0].contains("`c.pem` cannot be read: "), "{:?}", unreadable.mistakes(&[]));
}

#[test]
fn whatever_else_a_listener_presents_is_proved_too() {
    let [one, two, nameless] = [vec!["one.test", "*.one.test"], vec!["two.test", "One.Test"], vec![]].map(|names| {
        let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        rcgen::generate_simple_self_signed(names).unwrap()
    });
    let pair = "certificate = \"one.pem\", key = \"one.key\"";
    let with = |more: &str, rest: &str| {
        let tls = format!("tls = {{ {pair}, certificates = [{{ certificate = \"{more}.pem\", key = \"{more}.key\" }}]{rest} }}");
        (format!("[[listeners]]\naddress = \"[::1]:8443\"\n{tls}"), format!("[management]\n{tls}"))
    };
    for (more, rest, says) in [
        ("two", "", Some("tls.certificates[0].certificate: the certificate `two.pem` is for `one.test`, as another one before it is")),
        ("nameless", "", Some("tls.certificates[0].certificate: the certificate `nameless.pem` is for no name of DNS")),
        ("missing", "", Some("tls.certificates[0].certificate: there is no file `missing.pem`")),
        ("one", "", Some("`one.pem` is for `one.test`, as another one before it is")),
        ("other", ", client_ca = \"one.key\"", Some("tls.client_ca: `one.key` holds no certificate in PEM")),
        ("other", ", min_version = \"1.1\"", Some("tls.min_version: ")),
        ("other", ", client_ca = \"one.pem\", min_version = \"1.3\"", None),
    ] {
        let (listeners, management) = with(more, rest);
        for (gateway, at) in [(listeners, "listeners[0]."), (management, "management.")] {
            let files = files(&gateway, ROUTES);
            let other = rcgen::generate_simple_self_signed(["other.test".to_owned()]).unwrap();
            for (name, made) in [("one", &one), ("two", &two), ("nameless", &nameless), ("other", &other)] {
                fs::write(files.dir.path().join(format!("{name}.pem")), made.cert.pem()).unwrap();
                fs::write(files.dir.path().join(format!("{name}.key")), made.signing_key.serialize_pem()).unwrap();
            }
            match says {
                None => assert!(files.load(&[]).is_ok(), "{:?}", files.load(&[]).err()),
                Some(says) => {
                    let mistakes = files.mistakes(&[]);
                    assert!(mistakes[0].contains(says) && mistakes[0].contains(at), "{says}: {mistakes:?}");
                }
            }
        }
    }
}

#[test]
fn the_canary_runs_only_where_it_is_switched_on() {
    for (settings, every) in [
        ("", None),
        ("[canary]", None),
        ("[canary]\nevery_secs = 5", None),
        ("[canary]\nenabled = false", None),
        ("[canary]\nenabled = true", Some(60)),
        ("[canary]\nenabled = true\nevery_secs = 5", Some(5)),
    ] {
        let gateway = files(settings, ROUTES).load(&[]).unwrap().gateway;
        assert_eq!(gateway.canary.map(|every| every.as_secs()), every, "{settings}");
    }
    let switched_on = files("", ROUTES).load(&[("SIGMAGATE__CANARY__ENABLED", "true")]).unwrap();
    assert!(switched_on.gateway.canary.is_some());
}
