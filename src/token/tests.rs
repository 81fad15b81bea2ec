//! Tokens of our own, and what must not pass for one.

mod practices;
mod vectors;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::clock::Timestamp;

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const EXPECTED: Expected<'_> = Expected { issuer: "https://gw.test", audiences: &["https://api.test"], leeway: Duration::from_secs(5) };

fn access_token() -> AccessToken {
    AccessToken {
        issuer: EXPECTED.issuer.into(),
        audience: "https://api.test".into(),
        client_id: "smd_0123456789abcdefGHIJ".parse().unwrap(),
        practice_id: "p".parse().unwrap(),
        means: Means::Secret(3),
        scopes: vec!["billing".parse().unwrap(), "tasks".parse().unwrap()],
        id: "936da01f-9abd-4d9d-80c7-02af85c822a8".parse().unwrap(),
        issued_at: NOW,
        expires_at: NOW.after(Duration::from_secs(900)),
    }
}

fn set(key: &SigningKey) -> KeySet {
    let mut set = KeySet::default();
    set.add(key.public().clone()).unwrap();
    set
}

fn whole(token: &[u8], keys: &KeySet, algorithms: &[Algorithm], now: Timestamp) -> Result<AccessToken, Invalid> {
    let claims = verify(&Compact::parse(token)?, keys, algorithms)?.of_type(ACCESS_TOKEN_TYPE)?;
    AccessToken::from_claims(&Claims::check(claims, &EXPECTED, now)?)
}

/// A token of the key with other claims or another header.
fn made(key: &SigningKey, header: &Value, claims: &Value) -> Vec<u8> {
    key.sign_json(header, claims).unwrap().into_bytes()
}

fn header(key: &SigningKey) -> Value {
    json!({ "typ": "at+jwt", "alg": key.algorithm().as_str(), "kid": key.kid() })
}

#[test]
fn what_is_signed_is_read_again_and_by_its_own_key_and_algorithm_only() {
    for algorithm in [Algorithm::EdDsa, Algorithm::Es256] {
        let (key, other) = (SigningKey::generate(algorithm).unwrap(), SigningKey::generate(algorithm).unwrap());
        let token = key.sign(&access_token()).unwrap();
        let read = |keys: &KeySet, algorithms: &[Algorithm]| whole(token.as_bytes(), keys, algorithms, NOW);
        assert_eq!(read(&set(&key), &[algorithm]).unwrap(), access_token());
        assert_eq!(read(&set(&other), &[algorithm]).unwrap_err(), Invalid::UnknownKey);
        assert_eq!(read(&set(&key), &[Algorithm::Rs256]).unwrap_err(), Invalid::Algorithm, "configured, not asked of the token");
        // Another key under the same name.
        let (false_set, _) = KeySet::from_jwks(&named_as(&other, key.kid())).unwrap();
        assert_eq!(read(&false_set, &[algorithm]).unwrap_err(), Invalid::Signature);
        // What was told of it is enough to check by.
        let (told, left_out) = KeySet::from_jwks(json!({ "keys": [key.public().to_jwk()] }).to_string().as_bytes()).unwrap();
        assert!(left_out.is_empty() && read(&told, &[algorithm]).is_ok());
        // Kept and read again, it is the same key.
        let kept = SigningKey::from_pkcs8(algorithm, key.pkcs8().to_vec()).unwrap();
        assert_eq!(kept.kid(), key.kid());
    }
    assert_eq!(SigningKey::generate(Algorithm::Rs256).unwrap_err(), Unsignable::Algorithm(Algorithm::Rs256));
    let eddsa = SigningKey::generate(Algorithm::EdDsa).unwrap();
    assert_eq!(SigningKey::from_pkcs8(Algorithm::Es256, eddsa.pkcs8().to_vec()).unwrap_err(), Unsignable::Key);
    assert!(!format!("{eddsa:?}").contains(&STANDARD.encode(eddsa.pkcs8())));
}

fn named_as(key: &SigningKey, kid: &str) -> Vec<u8> {
    let mut jwk = key.public().to_jwk();
    jwk["kid"] = kid.into();
    json!({ "keys": [jwk] }).to_string().into_bytes()
}

#[test]
fn the_header_says_nothing_about_how_it_is_to_be_believed() {
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let claims = access_token().to_claims();
    let asked = |change: &dyn Fn(&mut Value)| {
        let mut header = header(&key);
        change(&mut header);
        whole(&made(&key, &header, &claims), &set(&key), &[Algorithm::EdDsa], NOW)
    };
    assert!(asked(&|_| ()).is_ok());
    assert!(asked(&|header| header["typ"] = "Application/AT+JWT".into()).is_ok());
    assert!(asked(&|header| header["x5t"] = "a parameter that nobody knows is passed over".into()).is_ok());
    assert!(asked(&|header| header["alg"] = "Ed25519".into()).is_ok(), "RFC 9864");
    for refused in ["crit", "b64", "jwk", "jku", "x5u", "x5c", "zip", "enc"] {
        assert_eq!(asked(&|header| header[refused] = json!(["x"])).unwrap_err(), Invalid::HeaderParameter, "{refused}");
    }
    for (name, value, want) in [
        ("alg", json!("none"), Invalid::Algorithm),
        ("alg", json!("None"), Invalid::Algorithm),
        ("alg", json!("eddsa"), Invalid::Algorithm),
        ("alg", json!("HS256"), Invalid::Algorithm),
        ("alg", json!("ES256"), Invalid::Algorithm),
        ("alg", json!(""), Invalid::Algorithm),
        ("alg", json!(["EdDSA"]), Invalid::HeaderParameter),
        ("alg", Value::Null, Invalid::HeaderParameter),
        ("kid", json!(1), Invalid::HeaderParameter),
        ("kid", json!("x".repeat(257)), Invalid::HeaderParameter),
        ("kid", json!("../../etc/passwd"), Invalid::UnknownKey),
        ("kid", json!("' OR 1=1 --"), Invalid::UnknownKey),
        ("typ", json!("JWT"), Invalid::Type),
        ("typ", json!("application/application/at+jwt"), Invalid::Type),
        ("typ", json!(""), Invalid::Type),
    ] {
        assert_eq!(asked(&|header| header[name] = value.clone()).unwrap_err(), want, "{name}: {value}");
    }
    let without = |name: &'static str| move |header: &mut Value| drop(header.as_object_mut().unwrap().remove(name));
    assert_eq!(asked(&without("alg")).unwrap_err(), Invalid::Algorithm);
    assert_eq!(asked(&without("typ")).unwrap_err(), Invalid::Type);
    assert!(asked(&without("kid")).is_ok(), "there is but one key");
    let mut two = set(&key);
    two.add(SigningKey::generate(Algorithm::EdDsa).unwrap().public().clone()).unwrap();
    let mut nameless = header(&key);
    without("kid")(&mut nameless);
    assert_eq!(whole(&made(&key, &nameless, &claims), &two, &[Algorithm::EdDsa], NOW).unwrap_err(), Invalid::UnknownKey);
    assert_eq!(two.add(key.public().clone()).unwrap_err(), MalformedKey::Twice);
}

#[test]
fn a_type_that_need_not_be_said_must_not_be_another_one() {
    let key = SigningKey::generate(Algorithm::Es256).unwrap();
    let asked = |header: &Value| {
        let token = made(&key, header, &json!({}));
        verify(&Compact::parse(&token).unwrap(), &set(&key), &[Algorithm::Es256]).unwrap().of_type_if_any(&["at+jwt", "JWT"]).map(drop)
    };
    let typed = |typ: &str| json!({ "alg": "ES256", "typ": typ });
    assert_eq!(asked(&json!({ "alg": "ES256" })), Ok(()));
    for (typ, want) in
        [("JWT", Ok(())), ("jwt", Ok(())), ("at+jwt", Ok(())), ("logout+jwt", Err(Invalid::Type)), ("dpop+jwt", Err(Invalid::Type))]
    {
        assert_eq!(asked(&typed(typ)), want, "{typ}");
    }
}

#[test]
fn claims_are_those_of_a_token_for_us_and_for_now() {
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let seconds = NOW.0 / 1000;
    let asked = |name: &str, value: Option<Value>| {
        let mut claims = access_token().to_claims();
        match value {
            Some(value) => claims[name] = value,
            None => drop(claims.as_object_mut().unwrap().remove(name)),
        }
        whole(&made(&key, &header(&key), &claims), &set(&key), &[Algorithm::EdDsa], NOW).map(drop)
    };
    for name in ["iss", "aud", "sub", "client_id", "practice_id", "scope", "jti", "iat", "exp"] {
        assert_eq!(asked(name, None), Err(Invalid::Claim(name)), "{name} is missing");
        assert_eq!(asked(name, Some(json!({}))), Err(Invalid::Claim(name)), "{name} is malformed");
    }
    assert_eq!(asked("secret_generation", None), Err(Invalid::Claim("secret_generation")), "by what it was got has to be known");
    assert_eq!(asked("client_key", Some("mark".into())), Err(Invalid::Claim("client_key")), "and one thing only");
    for (name, value, want) in [
        ("iss", json!("https://gw.test/"), Err(Invalid::Issuer)),
        ("iss", json!("https://GW.test"), Err(Invalid::Issuer)),
        ("aud", json!("https://api.test.evil"), Err(Invalid::Audience)),
        ("aud", json!([]), Err(Invalid::Audience)),
        ("aud", json!(["https://other.test"]), Err(Invalid::Audience)),
        ("aud", json!(["https://api.test", 1]), Err(Invalid::Claim("aud"))),
        ("sub", json!("smd_0123456789abcdefGHIK"), Err(Invalid::Claim("sub"))),
        ("client_id", json!("smd_short"), Err(Invalid::Claim("client_id"))),
        ("scope", json!(""), Err(Invalid::Claim("scope"))),
        ("scope", json!("billing  tasks"), Err(Invalid::Claim("scope"))),
        ("jti", json!("018f"), Err(Invalid::Claim("jti"))),
        ("secret_generation", json!(-1), Err(Invalid::Claim("secret_generation"))),
        ("secret_generation", json!(4_294_967_296_u64), Err(Invalid::Claim("secret_generation"))),
        // The clocks may be five seconds apart, and not a millisecond more.
        ("exp", json!(seconds), Ok(())),
        ("exp", json!(seconds - 4), Ok(())),
        ("exp", json!(seconds - 5), Err(Invalid::Expired)),
        ("exp", json!(f64::from(u32::try_from(seconds).unwrap()) - 4.5), Ok(())),
        ("exp", json!(0), Err(Invalid::Expired)),
        ("exp", json!(-1), Err(Invalid::Claim("exp"))),
        ("exp", json!(1e300), Err(Invalid::Claim("exp"))),
        ("exp", json!(u64::MAX), Err(Invalid::Claim("exp"))),
        ("exp", json!("1900000000"), Err(Invalid::Claim("exp"))),
        ("nbf", json!(seconds + 5), Ok(())),
        ("nbf", json!(seconds + 6), Err(Invalid::NotYet)),
        ("nbf", json!("soon"), Err(Invalid::Claim("nbf"))),
        ("iat", json!(seconds + 5), Ok(())),
        ("iat", json!(seconds + 6), Err(Invalid::NotYet)),
    ] {
        assert_eq!(asked(name, Some(value.clone())), want, "{name}: {value}");
    }
}

#[test]
fn what_could_be_read_in_two_ways_is_read_in_none() {
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let claims = access_token().to_claims().to_string();
    let signed = |header: &str, payload: &str| {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let library = jsonwebtoken::EncodingKey::from_ed_der(key.pkcs8());
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &library, jsonwebtoken::Algorithm::EdDSA).unwrap();
        whole(format!("{message}.{signature}").as_bytes(), &set(&key), &[Algorithm::EdDsa], NOW).map(drop)
    };
    let good = header(&key).to_string();
    assert_eq!(signed(&good, &claims), Ok(()));
    assert_eq!(signed(&good.replacen('{', "{\"alg\":\"none\",", 1), &claims), Err(Invalid::Json), "twice in the header");
    assert_eq!(signed(&good, &claims.replacen('{', "{\"scope\":\"clinical\",", 1)), Err(Invalid::Json), "twice in the claims");
    assert_eq!(signed(&good, &claims.replacen('{', "{\"scop\\u0065\":\"clinical\",", 1)), Err(Invalid::Json), "by an escape");
    assert_eq!(signed(&good, &claims.replacen('{', "{\"x\":[{\"a\":1,\"a\":2}],", 1)), Err(Invalid::Json), "deep inside");
    assert_eq!(signed(&good, &format!("{claims}{{}}")), Err(Invalid::Json), "two objects");
    assert_eq!(signed(&good, "[]"), Err(Invalid::Json));
    assert_eq!(signed("[]", &claims), Err(Invalid::Json));
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(4000), "]".repeat(4000));
    assert_eq!(signed(&deep, "{}"), Err(Invalid::TooLong));
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(2000), "]".repeat(2000));
    assert_eq!(signed(&deep, "{}"), Err(Invalid::Json));

    let token = key.sign(&access_token()).unwrap();
    let asked = |token: &str| whole(token.as_bytes(), &set(&key), &[Algorithm::EdDsa], NOW).map(drop).unwrap_err();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    for malformed in [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "....",
        &format!("{token}="),
        &format!("{token}."),
        &format!(" {token}"),
        &format!("{token}\n"),
        &format!("{signed}."),
        signed,
        &format!(".{signed}.{signature}"),
        &token.replace('.', ".."),
        &token.replacen('e', "\u{e9}", 1),
    ] {
        assert_eq!(asked(malformed), Invalid::Malformed, "{malformed}");
    }
    // Another base64 of the same bytes: the last letter of a signature of 64 bytes has four bits to spare.
    let last = signature.chars().last().unwrap();
    let spare = char::from(last as u8 + 1);
    assert_eq!(asked(&format!("{}{spare}", &token[..token.len() - 1])), Invalid::Malformed);
    assert_eq!(asked(&"a".repeat(MAX_LENGTH + 1)), Invalid::TooLong);
    // An empty signature, and the classic: the header says none.
    let none = format!("{}.{}.", URL_SAFE_NO_PAD.encode("{\"alg\":\"none\"}"), URL_SAFE_NO_PAD.encode(&claims));
    assert_eq!(asked(&none), Invalid::Malformed);
}

#[test]
fn sets_are_equal_that_have_the_same_keys_for_the_same_uses() {
    let [a, b, c] = [Algorithm::EdDsa, Algorithm::Es256, Algorithm::EdDsa].map(|algorithm| SigningKey::generate(algorithm).unwrap());
    let read = |keys: &[Value]| KeySet::from_jwks(json!({ "keys": keys }).to_string().as_bytes()).unwrap().0;
    let jwk = |key: &SigningKey, kid: Option<&str>| {
        let mut jwk = key.public().to_jwk();
        match kid {
            Some(kid) => jwk["kid"] = kid.into(),
            None => drop(jwk.as_object_mut().unwrap().remove("kid")),
        }
        jwk
    };
    let (one, two, nameless) = (jwk(&a, Some("1")), jwk(&b, Some("2")), jwk(&c, None));
    let set = read(&[one.clone(), two.clone(), nameless.clone()]);
    assert_eq!(set, read(&[nameless.clone(), two.clone(), one.clone()]), "the order is nothing");
    for (other, why) in [
        (read(&[one.clone(), two.clone()]), "one fewer"),
        (read(&[one.clone(), two.clone(), nameless.clone(), jwk(&b, None)]), "one more"),
        (read(&[one.clone(), two.clone(), jwk(&b, None)]), "another one"),
        (read(&[jwk(&c, Some("1")), two.clone(), nameless.clone()]), "another one of the same name"),
        (read(&[jwk(&a, Some("3")), two, nameless]), "another name"),
    ] {
        assert_ne!(set, other, "{why}");
    }
    // The same modulus for one algorithm, or for all.
    let mut rsa: Value = json!({ "kty": "RSA", "kid": "r", "e": "AQAB", "n": URL_SAFE_NO_PAD.encode([0xff; 256]) });
    let all = read(&[rsa.clone()]);
    rsa["alg"] = "RS256".into();
    assert_ne!(all, read(&[rsa]));
}

#[test]
fn a_sealed_key_is_opened_by_its_master_key_and_for_its_purpose() {
    let text = STANDARD.encode([7; 32]);
    let master = MasterKey::parse(&format!(" {text}\n")).unwrap();
    let sealed = master.seal("signing-key:a", b"secret");
    assert_eq!(master.open("signing-key:a", &sealed).unwrap().as_slice(), b"secret");
    assert!(!sealed.windows(6).any(|part| part == b"secret"));
    assert_ne!(sealed, master.seal("signing-key:a", b"secret"), "a nonce of its own each time");
    assert_eq!(master.open("signing-key:b", &sealed).unwrap_err(), NotSealedWithThis);
    assert!(MasterKey::parse(&STANDARD.encode([8; 32])).unwrap().open("signing-key:a", &sealed).is_err());
    for at in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        assert!(master.open("signing-key:a", &changed).is_err(), "byte {at}");
        assert!(master.open("signing-key:a", &sealed[..at]).is_err(), "cut at {at}");
    }
    for wrong in ["", "short", &STANDARD.encode([7; 31]), &STANDARD.encode([7; 33])] {
        assert_eq!(MasterKey::parse(wrong).unwrap_err(), MalformedMasterKey);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever is done to a token that verifies, it verifies no more.
    #[test]
    fn no_other_token_verifies(at in 0_usize..600, with in any::<u8>(), how in 0_u8..4, es256 in any::<bool>()) {
        let algorithm = if es256 { Algorithm::Es256 } else { Algorithm::EdDsa };
        let key = SigningKey::generate(algorithm).unwrap();
        let token = key.sign(&access_token()).unwrap().into_bytes();
        let at = at % token.len();
        let mut other = token.clone();
        match how {
            0 => other[at] = with,
            1 => other.insert(at, with),
            2 => drop(other.remove(at)),
            _ => other.swap(at, (at + usize::from(with)) % token.len()),
        }
        prop_assume!(other != token);
        prop_assert!(whole(&other, &set(&key), &[algorithm], NOW).is_err());
    }

    /// Nothing that comes from outside ends the process.
    #[test]
    fn anything_at_all_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Compact::parse(&bytes).is_err());
        prop_assert!(KeySet::from_jwks(&bytes).is_err());
    }

    /// JSON as serde_json reads it, unless a name is used twice.
    #[test]
    fn json_is_read_as_it_is(text in "\\{(\"[ab]\":(1|-2\\.5|null|true|\"x\"|\\[1,\\{\"c\":2\\}\\]),){0,2}\"z\":0\\}") {
        let names: Vec<&str> = text.match_indices("\"a\":").chain(text.match_indices("\"b\":")).map(|(_, name)| name).collect();
        let twice = names.len() == 2 && names[0] == names[1];
        let read = json::object(text.as_bytes());
        prop_assert_eq!(read.is_none(), twice);
        if let Some(read) = read {
            prop_assert_eq!(Value::Object(read), serde_json::from_str::<Value>(&text).unwrap());
        }
    }
}
