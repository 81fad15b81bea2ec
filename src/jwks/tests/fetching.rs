//! What is fetched, and from where not.

use std::net::SocketAddr;

use proptest::prelude::*;
use reqwest::dns::Resolve;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::jwks::fetcher::{MAX_BYTES, NotPermitted, Permitted};

/// Answers every request with these bytes, and then hangs up or, if it is to `stall`, says nothing more.
async fn serve(answer: String, stall: bool) -> (SocketAddr, Count) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, count) = (listener.local_addr().unwrap(), Count::default());
    let counted = count.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            counted.add();
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await?);
                }
                assert!(head.starts_with(b"GET /keys HTTP/1.1\r\n"), "{}", String::from_utf8_lossy(&head));
                stream.write_all(answer.as_bytes()).await?;
                if stall {
                    std::future::pending::<()>().await;
                }
                stream.shutdown().await
            });
        }
    });
    (address, count)
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn fetcher() -> Fetcher {
    Fetcher::new(&networks(&["127.0.0.0/8", "::1/128"]))
}

async fn fetched(answer: String) -> Result<KeySet, Error> {
    let (address, _) = serve(answer, false).await;
    fetcher().fetch(&format!("http://{address}/keys")).await
}

#[tokio::test]
async fn keys_are_what_is_answered_and_nothing_else_is() {
    let a = key("a");
    let good = jwks(&[&a, &json!({ "kty": "oct", "k": "c2VjcmV0" })]);
    assert_eq!(fetched(ok(&good)).await.unwrap(), set(&[&a]), "what is no public key is left out");
    assert!(fetched(ok(&jwks(&[]))).await.unwrap().is_empty(), "all of them withdrawn");
    assert!(fetched(format!("HTTP/1.1 200 OK\r\n\r\n{good}")).await.is_ok(), "of a length that is not said");
    let chunked = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{good}\r\n0\r\n\r\n", good.len());
    assert!(fetched(chunked).await.is_ok());
    for (answer, says) in [
        (ok("<html>"), "it answers something else than keys"),
        (ok(""), "it answers something else than keys"),
        (ok("{\"keys\":{}}"), "it answers something else than keys"),
        (ok(&jwks(&[&a, &a])), "it answers something else than keys"),
        ("HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n".into(), "it answers 500, not 200"),
        (ok(&good).replacen("200 OK", "203 Else", 1), "it answers 203, not 200"),
        (ok(&" ".repeat(MAX_BYTES + 1)), "it answers more than 262144 bytes"),
        (format!("HTTP/1.1 200 OK\r\n\r\n{}", " ".repeat(MAX_BYTES + 1)), "it answers more than 262144 bytes"),
        ("SSH-2.0-x\r\n".into(), "it cannot be reached"),
        (ok(&good).replacen("length: ", "length: 1", 1), "it cannot be reached"),
        (String::new(), "it cannot be reached"),
    ] {
        assert_eq!(fetched(answer.clone()).await.unwrap_err().to_string(), says, "{answer:.80}");
    }
    // As much as there may be.
    let most = format!("{good}{}", " ".repeat(MAX_BYTES - good.len()));
    assert!(fetched(ok(&most)).await.is_ok());
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (elsewhere, count) = serve(ok(&jwks(&[&key("a")])), false).await;
    for status in [301, 302, 303, 307, 308] {
        let answer = format!("HTTP/1.1 {status} Else\r\nlocation: http://{elsewhere}/keys\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(fetched(answer).await.unwrap_err().to_string(), format!("it answers {status}, not 200"));
    }
    assert_eq!(count.get(), 0);
}

#[tokio::test]
async fn whoever_never_ends_is_left() {
    // Both at once: each takes as long as is waited at all.
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{";
    let (silent, slow) = (serve(String::new(), true).await.0, serve(head.into(), true).await.0);
    let fetcher = fetcher();
    let urls = [silent, slow].map(|address| format!("http://{address}/keys"));
    let (silent, slow) = tokio::join!(fetcher.fetch(&urls[0]), fetcher.fetch(&urls[1]));
    assert!(matches!((&silent, &slow), (Err(Error::Slow), Err(Error::Slow))), "{silent:?} {slow:?}");
}

#[tokio::test]
async fn nothing_is_asked_of_an_address_that_is_not_permitted() {
    let (address, count) = serve(ok(&jwks(&[&key("a")])), false).await;
    let port = address.port();
    let refused = Fetcher::new(&networks(&["10.0.0.0/8"]));
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0x7f.1", "2130706433", "127.1", "[::1]", "LOCALHOST"] {
        for scheme in ["http", "https"] {
            let error = refused.fetch(&format!("{scheme}://{host}:{port}/keys")).await.unwrap_err();
            assert!(matches!(error, Error::Forbidden(_)), "{scheme}://{host}: {error:?}");
        }
    }
    assert_eq!(count.get(), 0);
    // A name whose look is innocent is refused for what it resolves to.
    refused.client().await.unwrap();
    let innocent = Fetcher { networks: fetcher().networks().clone(), ..refused.clone() };
    let error = innocent.fetch(&format!("http://localhost:{port}/keys")).await.unwrap_err();
    assert!(matches!(error, Error::Forbidden(address) if address.is_loopback()), "{error:?}");
    assert_eq!(count.get(), 0);
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
        let keys = fetcher().fetch(&format!("http://{host}:{port}/keys")).await;
        assert!(keys.is_ok(), "{host}: {keys:?}");
    }
}

#[tokio::test]
async fn a_name_is_its_permitted_addresses() {
    let resolved = async |allowed: &[&str]| Permitted(Networks::new(&networks(allowed))).resolve("localhost".parse().unwrap()).await;
    assert!(resolved(&[]).await.err().unwrap().is::<NotPermitted>());
    assert!(resolved(&["10.0.0.0/8", "fd00::/8"]).await.err().unwrap().is::<NotPermitted>());
    let addresses: Vec<_> = resolved(&["127.0.0.0/8"]).await.unwrap().collect();
    assert!(!addresses.is_empty() && addresses.iter().all(SocketAddr::is_ipv4), "{addresses:?}");
}

#[test]
fn public_is_what_everybody_can_reach() {
    let open = Networks::new(&[]);
    for address in ["1.1.1.1", "9.9.9.9", "100.63.0.1", "100.128.0.1", "172.15.0.1", "172.32.0.1", "192.0.1.1", "198.20.0.1", "223.0.0.1"] {
        assert!(open.permit(address.parse().unwrap()), "{address}");
        let translated = format!("64:ff9b::{address}").parse().unwrap();
        assert!(open.permit(translated), "{translated}");
        assert!(open.permit(format!("::ffff:{address}").parse().unwrap()));
    }
    for address in [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.255",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.0.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
    ] {
        assert!(!open.permit(address.parse().unwrap()), "{address}");
        for embedded in ["::ffff:", "64:ff9b::", "::"] {
            let embedded: IpAddr = format!("{embedded}{address}").parse().unwrap();
            assert!(!open.permit(embedded), "{embedded}");
        }
    }
    for address in ["2606:4700::1111", "2a00::1", "2001:200::1", "3ffe::1"] {
        assert!(open.permit(address.parse().unwrap()), "{address}");
    }
    for address in [
        "::",
        "::1",
        "::1.1.1.1",
        "64:ff9b:1::1.1.1.1",
        "100::1",
        "2001::1",
        "2001:1ff::1",
        "2001:db8::1",
        "2002:101:101::1",
        "3fff::1",
        "4000::1",
        "5f00::1",
        "fc00::1",
        "fd12::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ] {
        assert!(!open.permit(address.parse().unwrap()), "{address}");
    }
    let own = Networks::new(&networks(&["10.1.0.0/16", "fd00::/8"]));
    for (address, permitted) in
        [("10.1.2.3", true), ("::ffff:10.1.2.3", true), ("10.2.0.1", false), ("fd00::1", true), ("fc00::1", false), ("1.1.1.1", true)]
    {
        assert_eq!(own.permit(address.parse().unwrap()), permitted, "{address}");
    }
}

#[test]
fn a_url_says_what_it_means() {
    let own = Networks::new(&networks(&["127.0.0.1/32", "10.0.0.0/8"]));
    for (text, says) in [
        ("https://keys.test/jwks.json?x=1", None),
        ("https://10.1.2.3:8443/", None),
        ("http://localhost:1/", None),
        ("http://127.0.0.1", None),
        ("http://127.0.0.2", Some("127.0.0.2 is not on the public internet, and not in `oauth.key_networks`")),
        ("https://[::1]/", Some("::1 is not on the public internet, and not in `oauth.key_networks`")),
        ("http://10.1.2.3/", Some("it is not encrypted, which only this machine itself need not be: ")),
        ("http://keys.test/", Some("it is not encrypted")),
        ("http://localhost.keys.test/", Some("it is not encrypted")),
        ("ftp://keys.test/", Some("it has another scheme")),
        ("file:///etc/passwd", Some("it has no host")),
        ("https://u:p@keys.test/", Some("it has a user name or password")),
        ("https://u@keys.test/", Some("it has a user name or password")),
        ("https://keys.test/#a", Some("it has a fragment")),
        ("https://keys.test:0/", Some("it has no usable port")),
        ("https://keys.test\\@10.0.0.1/", Some("it has a blank, a control character or a backslash")),
        (" https://keys.test/", Some("it has a blank")),
        ("https://keys.test/\n", Some("it has a blank")),
        ("keys.test", Some("it is no URL")),
        ("", Some("it is no URL")),
        ("https://", Some("it is no URL")),
    ] {
        let said = check(text, &own).err().map(|error| error.to_string());
        match says {
            None => assert_eq!(said, None, "{text}"),
            Some(says) => assert!(said.as_ref().is_some_and(|said| said.starts_with(says)), "{text}: {said:?}"),
        }
    }
    assert!(check(&format!("https://keys.test/{}", "a".repeat(2048)), &own).is_err());
}

proptest! {
    /// Nobody gets past by writing the same address in another way: what is permitted does not depend on it.
    #[test]
    fn an_address_is_the_same_however_it_is_written(bits: u32) {
        let open = Networks::new(&[]);
        let address = std::net::Ipv4Addr::from(bits);
        let permitted = open.permit(address.into());
        prop_assert_eq!(open.permit(address.to_ipv6_mapped().into()), permitted);
        for host in [format!("{bits}"), format!("0x{bits:x}"), format!("[::ffff:{address}]")] {
            prop_assert_eq!(check(&format!("https://{host}/"), &open).is_ok(), permitted, "{}", host);
        }
    }
}

#[tokio::test]
async fn a_storm_of_unknown_keys_reaches_a_server_once() {
    let (address, count) = serve(ok(&jwks(&[&key("a")])), false).await;
    let url = format!("http://{address}/keys");
    let remote = Remote::new(url.as_str(), MIN_INTERVAL, fetcher(), Arc::new(|fetched| assert_ne!(fetched, Fetched::Failed)));
    let storm = (0..100).map(|_| remote.refresh_for_unknown(0));
    assert!(futures_util::future::join_all(storm).await.into_iter().all(|changed| changed));
    assert!(!remote.refresh_for_unknown(1).await);
    assert_eq!((count.get(), remote.keys().unwrap().len()), (1, 1));
    let clients = ClientKeySets::new(fetcher());
    let storm = (0..100).map(|_| clients.keys(&url, Some(1)));
    assert!(futures_util::future::join_all(storm).await.into_iter().all(|keys| keys.is_ok_and(|(_, generation)| generation == 1)));
    assert_eq!(count.get(), 2);
}
