//! What the schema of `routes.toml` cannot say.

use std::net::SocketAddr;

use super::*;
use crate::config::upstreams::resolve;
use crate::upstream::Origin;

#[test]
fn a_name_is_plain_since_it_becomes_a_label() {
    let long = "a".repeat(65);
    for name in ["", "a b", "a.b", "é", "a\\n", "a\\u001b[2J", &long] {
        let upstream = ROUTES.replace("[upstreams.core]", &format!("[upstreams.\"{name}\"]")).replace("\"core\"", &format!("\"{name}\""));
        let tier = format!("{ROUTES}[tiers.\"{name}\"]\nper_second = 1\nburst = 1\n");
        for (routes, place) in [(upstream, "routes.toml:3:1: upstreams."), (tier, "routes.toml:10:1: tiers.")] {
            let mistakes = files("", &routes).mistakes(&[]);
            assert!(mistakes.len() == 1 && mistakes[0].contains("is not a name: expected 1 to 64 letters"), "{mistakes:?}");
            assert!(mistakes[0].starts_with(place) && !mistakes[0].contains(['\n', '\u{1b}']), "{mistakes:?}");
        }
        let scope = ROUTES.replace("\"clinical\"", &format!("\"{name}\""));
        let mistakes = files("", &scope).mistakes(&[]);
        let word = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'.') && name.len() <= 32;
        assert_eq!(mistakes.len(), usize::from(!word), "{mistakes:?}");
    }
    let routes = format!("{}[tiers.Gold_2]\nper_second = 1\nburst = 1\n", ROUTES.replace("core", "core-2_B"));
    assert!(files("", &routes).load(&[]).is_ok());
}

#[test]
fn a_host_with_several_addresses_is_as_many_servers() {
    let servers = |origin: &str, addresses: &[&str]| {
        let resolved = |_: &str, port| Ok(addresses.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), port)).collect());
        let servers = resolve(&Origin::parse(origin)?, None, resolved)?;
        assert!(servers.iter().all(|server| &*server.origin == origin.trim_end_matches('/')));
        Ok::<_, String>(servers.into_iter().map(|server| (server.address.to_string(), server.tls_name)).collect::<Vec<_>>())
    };
    let plain = |addresses: &[&str]| Ok(addresses.iter().map(|address| ((*address).to_owned(), None)).collect());
    for (resolved, used) in [
        (&["10.0.0.1", "10.0.0.2", "10.0.0.3"][..], &["10.0.0.1:9001", "10.0.0.2:9001", "10.0.0.3:9001"][..]),
        (&["10.0.0.1", "10.0.0.1"], &["10.0.0.1:9001"]),
        (&["fd00::1", "10.0.0.1", "fd00::2"], &["[fd00::1]:9001", "[fd00::2]:9001"]),
        (&["10.0.0.1", "fd00::1"], &["10.0.0.1:9001"]),
        (&["::1", "127.0.0.1"], &["127.0.0.1:9001"]),
        (&["::1"], &["[::1]:9001"]),
    ] {
        assert_eq!(servers("http://billing.internal:9001", resolved), plain(used), "{resolved:?}");
    }
    let named = servers("https://billing.internal/", &["10.0.0.1", "10.0.0.2"]).unwrap();
    assert!(named.len() == 2 && named.iter().all(|(_, name)| name.as_deref() == Some("billing.internal")), "{named:?}");
    assert!(servers("http://billing.internal", &[]).unwrap_err().contains("`billing.internal` has no address"));
    let fails = resolve(&Origin::parse("http://billing.internal").unwrap(), None, |_, _| Err(std::io::ErrorKind::TimedOut.into()));
    assert!(fails.unwrap_err().contains("`billing.internal` cannot be resolved (timed out)"));
}
