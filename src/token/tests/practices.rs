//! RFC 8725, the best current practices for JWT, one test for each recommendation.

use std::collections::HashSet;

use rcgen::{KeyPair, PublicKeyData, RsaKeySize, SigningKey as _};

use super::vectors;
use super::*;

const L: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0x10,
];
const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84,
    0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];
const OWN: [Algorithm; 2] = [Algorithm::EdDsa, Algorithm::Es256];

fn key() -> SigningKey {
    SigningKey::generate(Algorithm::EdDsa).unwrap()
}

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Header and payload as they are signed.
fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", encoded(header.to_string()), encoded(claims.to_string()))
}

/// Any bytes, signed by a key of ours.
fn signed(key: &SigningKey, header: &[u8], payload: &[u8]) -> Vec<u8> {
    let message = format!("{}.{}", encoded(header), encoded(payload));
    let library = jsonwebtoken::EncodingKey::from_ed_der(key.pkcs8());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &library, jsonwebtoken::Algorithm::EdDSA).unwrap();
    format!("{message}.{signature}").into_bytes()
}

fn read(key: &SigningKey, token: impl AsRef<[u8]>) -> Result<AccessToken, Invalid> {
    whole(token.as_ref(), &set(key), &OWN, NOW)
}

/// What a key of ours has signed over other claims; `null` leaves one out.
fn claiming(key: &SigningKey, changes: &Value) -> Result<AccessToken, Invalid> {
    let mut claims = access_token().to_claims();
    claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    read(key, made(key, &header(key), &claims))
}

fn issuer(name: &str, keys: &SigningKey) -> Issuer {
    Issuer {
        trust: Trust {
            name: name.into(),
            keys: KeySource::Set(set(keys).into()),
            audiences: vec!["https://api.test".into(), "urn:api".into()],
            algorithms: OWN.to_vec(),
            leeway: Duration::ZERO,
            refresh: Duration::from_secs(300),
        },
        client_claim: None,
        practice_claim: Some("practice_id".into()),
        user_claim: Some("sub".into()),
        scope_claim: "scope".into(),
    }
}

/// What an issuer that is trusted has said by a token.
fn spoken(issuer: &Issuer, token: impl AsRef<[u8]>) -> Result<Spoken, Invalid> {
    let KeySource::Set(keys) = &issuer.trust.keys else { unreachable!("its keys are here") };
    issuer.read(&verify(&Compact::parse(token.as_ref())?, keys, &issuer.trust.algorithms)?, NOW)
}

#[test]
fn section_3_1_perform_algorithm_verification() {
    what_is_signed_is_read_again_and_by_its_own_key_and_algorithm_only();
    let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let modulus = rsa.public_key_raw().strip_suffix(&[2, 3, 1, 0, 1]).unwrap();
    let modulus = encoded(&modulus[modulus.len() - 256..]);
    let jwk = json!({ "kty": "RSA", "kid": "rsa", "n": modulus, "e": "AQAB" });
    let (keys, left_out) = KeySet::from_jwks(json!({ "keys": [jwk] }).to_string().as_bytes()).unwrap();
    assert!(left_out.is_empty());
    let claims = access_token().to_claims();
    let pem = rsa.public_key_pem();
    let secrets = [
        pem.as_bytes().to_vec(),
        pem.trim_end().as_bytes().to_vec(),
        rsa.subject_public_key_info(),
        rsa.public_key_raw().to_vec(),
        jwk.to_string().into_bytes(),
        modulus.clone().into_bytes(),
        URL_SAFE_NO_PAD.decode(&modulus).unwrap(),
        b"rsa".to_vec(),
        Vec::new(),
    ];
    for (secret, name) in secrets.iter().flat_map(|secret| ["HS256", "RS256", "PS256", "EdDSA"].map(|name| (secret, name))) {
        let message = unsigned(&json!({ "typ": "at+jwt", "alg": name, "kid": "rsa" }), &claims);
        let library = jsonwebtoken::EncodingKey::from_secret(secret);
        let code = jsonwebtoken::crypto::sign(message.as_bytes(), &library, jsonwebtoken::Algorithm::HS256).unwrap();
        let want = if matches!(name, "RS256" | "PS256") { Invalid::Signature } else { Invalid::Algorithm };
        let read = whole(format!("{message}.{code}").as_bytes(), &keys, &Algorithm::EVERY, NOW);
        assert_eq!(read.unwrap_err(), want, "the public key as a secret, as {name}");
    }
    // A key signs by one algorithm, whatever else it could do and whatever else is accepted.
    let mut pinned = jwk.clone();
    pinned["alg"] = "PS256".into();
    let (pinned, _) = KeySet::from_jwks(json!({ "keys": [pinned] }).to_string().as_bytes()).unwrap();
    let message = unsigned(&json!({ "typ": "at+jwt", "alg": "RS256", "kid": "rsa" }), &claims);
    let token = format!("{message}.{}", encoded(rsa.sign(message.as_bytes()).unwrap()));
    assert_eq!(whole(token.as_bytes(), &keys, &[Algorithm::Rs256], NOW).unwrap(), access_token());
    assert_eq!(whole(token.as_bytes(), &pinned, &Algorithm::EVERY, NOW).unwrap_err(), Invalid::Algorithm);
    assert_eq!(whole(token.as_bytes(), &keys, &OWN, NOW).unwrap_err(), Invalid::Algorithm);
}

#[test]
fn section_3_2_use_appropriate_algorithms() {
    let key = key();
    let claims = access_token().to_claims();
    let refused = [
        "none",
        "None",
        "NONE",
        "nOnE",
        "none ",
        " none",
        "HS256",
        "HS384",
        "HS512",
        "RS1",
        "ES256K",
        "ES512",
        "Ed448",
        "RSA1_5",
        "RSA-OAEP",
        "ECDH-ES",
        "dir",
        "A128KW",
        "PBES2-HS256+A128KW",
        "eddsa",
        "EdDSA\u{0}",
        "",
    ];
    for name in refused {
        assert!(name.parse::<Algorithm>().is_err(), "{name}");
        let message = unsigned(&json!({ "typ": "at+jwt", "alg": name, "kid": key.kid() }), &claims);
        for (signature, want) in [("", Invalid::Malformed), ("AA", Invalid::Algorithm), (&encoded([0; 64]), Invalid::Algorithm)] {
            assert_eq!(read(&key, format!("{message}.{signature}")).unwrap_err(), want, "{name}");
        }
    }
    for algorithm in Algorithm::EVERY {
        assert_eq!(algorithm.as_str().parse(), Ok(algorithm));
        let signs = SigningKey::generate(algorithm);
        assert_eq!(signs.is_ok(), OWN.contains(&algorithm), "our own keys are of two kinds: {algorithm}");
    }
}

#[test]
fn section_3_3_validate_all_cryptographic_operations() {
    for algorithm in OWN {
        let key = SigningKey::generate(algorithm).unwrap();
        let token = key.sign(&access_token()).unwrap();
        let (message, signature) = token.rsplit_once('.').unwrap();
        let good = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let with = |signature: &[u8]| read(&key, format!("{message}.{}", encoded(signature))).map(drop);
        assert_eq!(with(&good), Ok(()));
        for bit in 0..good.len() * 8 {
            let mut other = good.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(with(&other), Err(Invalid::Signature), "bit {bit} of {algorithm}");
        }
        let halves = |r: &[u8], s: &[u8]| [r, s].concat();
        let zero = [0; 32];
        for wrong in [
            good[..63].to_vec(),
            halves(&good, &[0]),
            halves(&good, &good),
            halves(&[0], &good),
            vec![0],
            vec![0; 64],
            vec![0xff; 64],
            halves(&good[..32], &zero),
            halves(&zero, &good[32..]),
            halves(&P256_ORDER, &P256_ORDER),
            halves(&good[..32], &P256_ORDER),
            der(&good),
        ] {
            assert_eq!(with(&wrong), Err(Invalid::Signature), "{algorithm}: {wrong:?}");
        }
        if algorithm == Algorithm::EdDsa {
            assert_eq!(with(&halves(&good[..32], &sum(&good[32..], &L))), Err(Invalid::Signature), "S has one form (RFC 8032 §5.1.7)");
        }
        // The signature of another token, and a token within a token, of which nobody has asked for the inner one.
        let another = key.sign(&AccessToken { scopes: vec!["all".parse().unwrap()], ..access_token() }).unwrap();
        assert_eq!(read(&key, format!("{}.{signature}", another.rsplit_once('.').unwrap().0)).unwrap_err(), Invalid::Signature);
    }
    let key = key();
    let nested = json!({ "typ": "at+jwt", "alg": "EdDSA", "kid": key.kid(), "cty": "JWT" }).to_string();
    let inner = key.sign(&access_token()).unwrap();
    assert_eq!(read(&key, signed(&key, nested.as_bytes(), inner.as_bytes())).unwrap_err(), Invalid::Json);
}

/// The same signature as X9.62 writes it, which JWS does not.
fn der(signature: &[u8]) -> Vec<u8> {
    let number = |bytes: &[u8]| {
        let mut bytes: Vec<u8> = bytes.iter().copied().skip_while(|byte| *byte == 0).collect();
        if bytes.first().is_none_or(|first| *first > 0x7f) {
            bytes.insert(0, 0);
        }
        [&[2, u8::try_from(bytes.len()).unwrap()], bytes.as_slice()].concat()
    };
    let both = [number(&signature[..32]), number(&signature[32..])].concat();
    [&[0x30, u8::try_from(both.len()).unwrap()], both.as_slice()].concat()
}

/// The sum of two numbers in little-endian.
fn sum(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut carry = 0;
    let byte = |(a, b): (&u8, &u8)| {
        let all = u16::from(*a) + u16::from(*b) + carry;
        carry = all >> 8;
        u8::try_from(all & 0xff).unwrap()
    };
    a.iter().zip(b).map(byte).collect()
}

#[test]
fn section_3_4_validate_cryptographic_inputs() {
    vectors::keys_that_prove_nothing_are_refused();
    let taken = |jwk: &Value| PublicKey::from_jwk(jwk.as_object().unwrap()).map(drop);
    let zeros = encoded([0; 32]);
    for (x, y) in [(&zeros, &zeros), (&encoded([0xff; 32]), &encoded([0xff; 32])), (&encoded(P256_ORDER), &zeros)] {
        assert_eq!(taken(&json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y })), Err(MalformedKey::Weak), "no point of the curve");
    }
}

#[test]
fn section_3_5_ensure_cryptographic_keys_have_sufficient_entropy() {
    a_sealed_key_is_opened_by_its_master_key_and_for_its_purpose();
    let rsa = |bytes: usize| json!({ "kty": "RSA", "kid": bytes.to_string(), "n": encoded(vec![0xff; bytes]), "e": "AQAB" });
    for weak in [rsa(64), rsa(128), rsa(255)] {
        let strong = key().public().to_jwk();
        let (keys, left_out) = KeySet::from_jwks(json!({ "keys": [weak, strong] }).to_string().as_bytes()).unwrap();
        assert_eq!((keys.len(), left_out), (1, vec![MalformedKey::Weak]), "{weak}");
        assert!(keys.find(weak["kid"].as_str()).is_none());
    }
    for length in [0, 4, 32, 64, 1024] {
        let shared = json!({ "kty": "oct", "kid": "shared", "alg": "HS256", "k": encoded(vec![7; length]) });
        let (keys, left_out) = KeySet::from_jwks(json!({ "keys": [shared] }).to_string().as_bytes()).unwrap();
        assert_eq!((keys.len(), left_out), (0, vec![MalformedKey::Kind]), "a secret that is shared, of {length} bytes");
    }
    for algorithm in OWN {
        let names: HashSet<String> = (0..20).map(|_| SigningKey::generate(algorithm).unwrap().kid().to_owned()).collect();
        assert_eq!(names.len(), 20, "a key is nobody else's");
    }
    let ids: HashSet<String> = (0..1000).map(|_| crate::id::TokenId::random().to_string()).collect();
    assert_eq!(ids.len(), 1000);
}

#[test]
fn section_3_6_avoid_compression_of_encryption_inputs() {
    let key = key();
    let claims = access_token().to_claims().to_string();
    let zipped = json!({ "typ": "at+jwt", "alg": "EdDSA", "kid": key.kid(), "zip": "DEF" }).to_string();
    let plain = header(&key).to_string();
    // A deflated block that holds its bytes as they are (RFC 1951 §3.2.4).
    let length = u16::try_from(claims.len()).unwrap();
    let stored = [&[1], &length.to_le_bytes()[..], &(!length).to_le_bytes(), claims.as_bytes()].concat();
    assert_eq!(read(&key, signed(&key, plain.as_bytes(), claims.as_bytes())).unwrap(), access_token());
    for (header, payload, want) in [
        (&zipped, claims.as_bytes(), Invalid::HeaderParameter),
        (&zipped, &stored, Invalid::HeaderParameter),
        (&plain, &stored, Invalid::Json),
    ] {
        assert_eq!(read(&key, signed(&key, header.as_bytes(), payload)).unwrap_err(), want);
    }
    let jwe = json!({ "alg": "dir", "enc": "A256GCM", "zip": "DEF" }).to_string();
    assert_eq!(read(&key, format!("{}..AAAA.AAAA.AAAA", encoded(jwe))).unwrap_err(), Invalid::Malformed, "nothing is decrypted");
}

#[test]
fn section_3_7_use_utf_8() {
    let key = key();
    let header = header(&key).to_string();
    let claims = access_token().to_claims().to_string();
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let with = |bytes: &[u8]| [b"{\"note\":\"", bytes, b"\",", &claims.as_bytes()[1..]].concat();
    let ok = |payload: &[u8]| read(&key, signed(&key, header.as_bytes(), payload)).map(drop);
    assert_eq!(ok(&with("Zoë \u{1f600}".as_bytes())), Ok(()));
    assert_eq!(ok(&with(b"\\ud83d\\ude00")), Ok(()));
    for (payload, of) in [
        (with(b"Zo\xeb"), "Latin-1"),
        (with(b"\xc0\xaf"), "a longer form than needed"),
        (with(b"\xed\xa0\x80"), "half of a pair"),
        (with(b"\\ud800"), "half of a pair, by an escape"),
        (with(b"\xf4\x90\x80\x80"), "beyond Unicode"),
        (with(b"\xff"), "no byte of UTF-8"),
        (with(b"\0"), "a control character as it is"),
        (utf16(&claims), "UTF-16"),
        ([b"\xef\xbb\xbf", claims.as_bytes()].concat(), "a byte order mark"),
    ] {
        assert_eq!(ok(&payload), Err(Invalid::Json), "{of}");
    }
    let latin = [&header.as_bytes()[..header.len() - 1], b",\"x\":\"\xeb\"}"].concat();
    for header in [utf16(&header), latin] {
        assert_eq!(read(&key, signed(&key, &header, claims.as_bytes())).unwrap_err(), Invalid::Json);
    }
    assert_eq!(read(&key, [key.sign(&access_token()).unwrap().as_bytes(), b"\xff"].concat()).unwrap_err(), Invalid::Malformed);
    // Texts are compared as they are: neither cut off at a zero nor brought into another form (§2.6 of RFC 8259).
    for iss in ["https://gw.test\u{0}", "https://gw.test\u{200b}", "https://\u{ff47}w.test", "https://gw\u{ff0e}test"] {
        assert_eq!(claiming(&key, &json!({ "iss": iss })).unwrap_err(), Invalid::Issuer, "{iss:?}");
    }
}

#[test]
fn section_3_8_validate_issuer_and_subject() {
    claims_are_those_of_a_token_for_us_and_for_now();
    let (ours, theirs) = (key(), key());
    let (login, other) = (issuer("https://login.test", &ours), issuer("https://other.test", &theirs));
    let by = |key: &SigningKey, iss: &str, sub: Value| {
        let claims = json!({ "iss": iss, "aud": "urn:api", "exp": NOW.0 / 1000 + 60, "practice_id": "p", "sub": sub });
        made(key, &json!({ "alg": "EdDSA", "kid": key.kid() }), &claims)
    };
    assert_eq!(spoken(&login, by(&ours, "https://login.test", "dr-lee".into())).unwrap().user.unwrap().as_str(), "dr-lee");
    assert_eq!(spoken(&login, by(&theirs, "https://login.test", "dr-lee".into())).unwrap_err(), Invalid::UnknownKey);
    assert_eq!(spoken(&other, by(&theirs, "https://login.test", "dr-lee".into())).unwrap_err(), Invalid::Issuer);
    for iss in ["https://login.test/", "https://LOGIN.test", "http://login.test", "https://login.test.evil", "login.test", ""] {
        assert_eq!(spoken(&login, by(&ours, iss, "dr-lee".into())).unwrap_err(), Invalid::Issuer, "{iss}");
    }
    for sub in [Value::Null, json!(7), json!(""), json!("a b"), json!(["dr-lee"]), json!("../dr-lee")] {
        assert_eq!(spoken(&login, by(&ours, "https://login.test", sub.clone())).unwrap_err(), Invalid::Claim("user_claim"), "{sub}");
    }
    for sub in [json!("smd_zzzzzzzzzzzzzzzzzzzz"), json!(""), json!("SMD_0123456789abcdefGHIJ"), json!(" smd_0123456789abcdefGHIJ")] {
        assert_eq!(claiming(&ours, &json!({ "sub": sub })).unwrap_err(), Invalid::Claim("sub"), "{sub}");
    }
}

#[test]
fn section_3_9_use_and_validate_audience() {
    let key = key();
    let login = issuer("https://login.test", &key);
    let for_them = |audience: &Value| {
        let mut claims = json!({ "iss": "https://login.test", "aud": audience, "exp": NOW.0 / 1000 + 60, "practice_id": "p", "sub": "u" });
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        spoken(&login, made(&key, &json!({ "alg": "EdDSA", "kid": key.kid() }), &claims)).map(drop)
    };
    let for_us = |audience: &Value| claiming(&key, &json!({ "aud": audience })).map(drop);
    assert_eq!((for_us(&json!("https://api.test")), for_them(&json!("https://api.test"))), (Ok(()), Ok(())));
    assert_eq!(for_us(&json!(["https://api.test"])), Err(Invalid::Claim("aud")), "we write one");
    for both in [json!(["urn:api"]), json!(["https://elsewhere.test", "urn:api"]), json!(["urn:api", "https://api.test"])] {
        assert_eq!(for_them(&both), Ok(()), "{both}");
    }
    for (audience, want) in [
        (json!("https://api.test/"), Invalid::Audience),
        (json!("https://API.test"), Invalid::Audience),
        (json!("https://api.tes"), Invalid::Audience),
        (json!("https://api.test https://elsewhere.test"), Invalid::Audience),
        (json!("*"), Invalid::Audience),
        (json!(""), Invalid::Audience),
        (json!([]), Invalid::Audience),
        (json!(["https://elsewhere.test", "https://api.test.elsewhere.test"]), Invalid::Audience),
        (json!([["https://api.test"]]), Invalid::Claim("aud")),
        (json!(["https://api.test", null]), Invalid::Claim("aud")),
        (json!({ "https://api.test": true }), Invalid::Claim("aud")),
        (json!(true), Invalid::Claim("aud")),
        (Value::Null, Invalid::Claim("aud")),
    ] {
        assert_eq!((for_us(&audience), for_them(&audience)), (Err(want), Err(want)), "{audience}");
    }
}

#[test]
fn section_3_10_do_not_trust_received_claims() {
    the_header_says_nothing_about_how_it_is_to_be_believed();
    let (key, stranger) = (key(), key());
    let claims = access_token().to_claims();
    let by_stranger = |header: Value| read(&key, made(&stranger, &header, &claims)).map(drop);
    let jwk = stranger.public().to_jwk();
    for (name, value) in [
        ("jwk", jwk.clone()),
        ("jku", json!("https://127.0.0.1:1/jwks.json")),
        ("jku", json!("http://169.254.169.254/latest/meta-data")),
        ("x5u", json!("file:///etc/passwd")),
        ("x5c", json!([STANDARD.encode([0x30, 0x00])])),
    ] {
        for kid in [key.kid(), stranger.kid()] {
            let header = json!({ "typ": "at+jwt", "alg": "EdDSA", "kid": kid, name: value });
            assert_eq!(by_stranger(header), Err(Invalid::HeaderParameter), "{name} {kid}: a key that a token brings along");
        }
    }
    assert_eq!(by_stranger(json!({ "typ": "at+jwt", "alg": "EdDSA", "kid": stranger.kid() })), Err(Invalid::UnknownKey));
    assert_eq!(by_stranger(json!({ "typ": "at+jwt", "alg": "EdDSA", "kid": key.kid() })), Err(Invalid::Signature));
    assert_eq!(by_stranger(json!({ "typ": "at+jwt", "alg": "EdDSA" })), Err(Invalid::Signature));
    for kid in ["", "*", "%", "/dev/null", "..\\..\\key", "' UNION SELECT 'key", "$(id)", "\u{0}", &format!("{}\u{0}", key.kid())] {
        let header = json!({ "typ": "at+jwt", "alg": "EdDSA", "kid": kid });
        assert_eq!(read(&key, made(&key, &header, &claims)).unwrap_err(), Invalid::UnknownKey, "{kid:?}: a word to look up, and no more");
    }
}

#[test]
fn section_3_11_use_explicit_typing() {
    a_type_that_need_not_be_said_must_not_be_another_one();
    let key = key();
    let claims = access_token().to_claims();
    let typed = |typ: &str| read(&key, made(&key, &json!({ "typ": typ, "alg": "EdDSA", "kid": key.kid() }), &claims)).map(drop);
    for typ in ["at+jwt", "AT+JWT", "application/at+jwt", "APPLICATION/at+JWT"] {
        assert_eq!(typed(typ), Ok(()), "{typ}");
    }
    for typ in [
        "JWT",
        "jwt",
        "at+jwt ",
        " at+jwt",
        "at+jwt;x=1",
        "at-jwt",
        "at",
        "application/",
        "text/at+jwt",
        "xapplication/at+jwt",
        "logout+jwt",
        "secevent+jwt",
        "dpop+jwt",
        "client-authentication+jwt",
        "oauth-authz-req+jwt",
        "token-introspection+jwt",
    ] {
        assert_eq!(typed(typ), Err(Invalid::Type), "{typ}");
    }
    assert_eq!(read(&key, made(&key, &json!({ "alg": "EdDSA", "kid": key.kid() }), &claims)).unwrap_err(), Invalid::Type);
    // Not as a claim, and not as somebody writes it over the one that is signed.
    let said = made(&key, &json!({ "alg": "EdDSA", "kid": key.kid() }), &json!({ "typ": "at+jwt" }));
    assert_eq!(read(&key, said).unwrap_err(), Invalid::Type);
    let token = String::from_utf8(made(&key, &json!({ "typ": "JWT", "alg": "EdDSA", "kid": key.kid() }), &claims)).unwrap();
    let retyped = format!("{}.{}", encoded(header(&key).to_string()), token.split_once('.').unwrap().1);
    assert_eq!(read(&key, retyped).unwrap_err(), Invalid::Signature);
}

#[test]
fn section_3_12_use_mutually_exclusive_validation_rules_for_different_kinds_of_jwts() {
    // The worst that can be: one key for everything.
    let key = key();
    let login = issuer("https://login.test", &key);
    let exp = NOW.0 / 1000 + 60;
    let client = "smd_0123456789abcdefGHIJ";
    let made = |typ: Option<&str>, claims: &Value| {
        let mut header = json!({ "alg": "EdDSA", "kid": key.kid() });
        if let Some(typ) = typ {
            header["typ"] = typ.into();
        }
        made(&key, &header, claims)
    };
    let access = made(Some("at+jwt"), &access_token().to_claims());
    let theirs = json!({ "iss": "https://login.test", "aud": "urn:api", "exp": exp, "practice_id": "p", "sub": "u", "scope": "billing" });
    let assertion = json!({ "iss": client, "sub": client, "aud": EXPECTED.issuer, "exp": exp, "jti": "1" });
    let identity = json!({ "iss": "https://login.test", "aud": client, "sub": "u", "exp": exp, "practice_id": "p", "nonce": "n" });
    let logout = json!({ "iss": "https://login.test", "aud": "urn:api", "sub": "u", "exp": exp, "practice_id": "p", "events": {} });
    for (kind, token, for_us, for_them) in [
        ("a token of ours", access, Ok(()), Err(Invalid::Issuer)),
        ("a token of theirs", made(None, &theirs), Err(Invalid::Type), Ok(())),
        ("one that says what it is", made(Some("at+jwt"), &theirs), Err(Invalid::Issuer), Ok(())),
        ("an assertion", made(None, &assertion), Err(Invalid::Type), Err(Invalid::Issuer)),
        ("an assertion of its type", made(Some("client-authentication+jwt"), &assertion), Err(Invalid::Type), Err(Invalid::Type)),
        ("an assertion that poses", made(Some("at+jwt"), &assertion), Err(Invalid::Issuer), Err(Invalid::Issuer)),
        ("an identity token", made(Some("JWT"), &identity), Err(Invalid::Type), Err(Invalid::Audience)),
        ("a logout token", made(Some("logout+jwt"), &logout), Err(Invalid::Type), Err(Invalid::Type)),
    ] {
        assert_eq!(read(&key, &token).map(drop), for_us, "{kind}");
        assert_eq!(spoken(&login, &token).map(drop), for_them, "{kind}");
    }
}
