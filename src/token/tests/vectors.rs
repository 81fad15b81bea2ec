//! The examples of the RFCs.

use serde_json::{Value, json};

use super::super::*;

fn key(jwk: &Value) -> Result<PublicKey, MalformedKey> {
    PublicKey::from_jwk(jwk.as_object().unwrap())
}

fn verified(token: &str, jwk: &Value, algorithm: Algorithm) -> Result<Vec<u8>, Invalid> {
    let mut set = KeySet::default();
    set.add(key(jwk).unwrap()).unwrap();
    Ok(verify(&Compact::parse(token.as_bytes())?, &set, &[algorithm])?.payload().to_vec())
}

const JOE: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
const JOE_TEXT: &str = "{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n \"http://example.com/is_root\":true}";

#[test]
fn rfc_7515_appendix_a() {
    let hs256 = format!("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{JOE}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
    assert_eq!(Compact::parse(hs256.as_bytes()).unwrap_err(), Invalid::Algorithm, "A.1: a shared secret");

    let rsa = json!({ "kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ" });
    let rs256 = format!(
        "eyJhbGciOiJSUzI1NiJ9.{JOE}.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
    );
    assert_eq!(verified(&rs256, &rsa, Algorithm::Rs256).unwrap(), JOE_TEXT.as_bytes(), "A.2");

    let p256 = json!({ "kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0" });
    let es256 =
        format!("eyJhbGciOiJFUzI1NiJ9.{JOE}.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q");
    assert_eq!(verified(&es256, &p256, Algorithm::Es256).unwrap(), JOE_TEXT.as_bytes(), "A.3");
    assert_eq!(verified(&es256, &rsa, Algorithm::Es256).unwrap_err(), Invalid::Algorithm, "a key of another kind");

    let es512 = "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA.AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn";
    assert_eq!(Compact::parse(es512.as_bytes()).unwrap_err(), Invalid::Algorithm, "A.4: not among ours");
    let none = format!("eyJhbGciOiJub25lIn0.{JOE}.");
    assert_eq!(Compact::parse(none.as_bytes()).unwrap_err(), Invalid::Malformed, "A.5: unsecured");
    let crit = "eyJhbGciOiJub25lIiwNCiAiY3JpdCI6WyJodHRwOi8vZXhhbXBsZS5jb20vVU5ERUZJTkVEIl0sDQogImh0dHA6Ly9leGFtcGxlLmNvbS9VTkRFRklORUQiOnRydWUNCn0.RkFJTA.AA";
    assert_eq!(Compact::parse(crit.as_bytes()).unwrap_err(), Invalid::HeaderParameter, "appendix E");
}

#[test]
fn rfc_7517_appendix_a_and_rfc_7638() {
    let set = br#"{"keys": [
        {"kty":"EC", "crv":"P-256", "x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
         "y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM", "use":"enc", "kid":"1"},
        {"kty":"RSA", "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
         "e":"AQAB", "alg":"RS256", "kid":"2011-04-29"}]}"#;
    let (keys, left_out) = KeySet::from_jwks(set).unwrap();
    assert_eq!((keys.len(), left_out), (1, vec![MalformedKey::Purpose]), "the first one is for encryption");
    let rsa = keys.find(Some("2011-04-29")).unwrap();
    assert_eq!(rsa.thumbprint(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs", "RFC 7638 §3.1");
    assert!(rsa.takes(Algorithm::Rs256) && !rsa.takes(Algorithm::Ps256), "its `alg` is the only one");
    assert_eq!(rsa.to_jwk()["n"], serde_json::from_slice::<Value>(set).unwrap()["keys"][1]["n"]);
}

/// The keys of RFC 7520 §3.1 and §3.3, and the text that all of its signatures are over.
#[test]
fn rfc_7520_section_4() {
    let rsa = json!({ "kty": "RSA", "kid": "bilbo.baggins@hobbiton.example", "use": "sig", "e": "AQAB", "n": "n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRojdNhxJWTDvNd7nqQ0VEiZQHz_AJmSCpMaJMRBSFKrKb2wqVwGU_NsYOYL-QtiWN2lbzcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6cS6M1FZcD1NNLYD5lFHpPI9bTwJlsde3uhGqC0ZCuEHg8lhzwOHrtIQbS0FVbb9k3-tVTU4fg_3L_vniUFAKwuCLqKnS2BYwdq_mzSnbLY7h_qixoR7jig3__kRhuaxwUkRz5iaiQkqgc5gHdrNP5zw" });
    let text = "SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW5kIGlmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN3ZXB0IG9mZiB0by4";
    let rs256 = format!(
        "eyJhbGciOiJSUzI1NiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9.{text}.MRjdkly7_-oTPTS3AXP41iQIGKa80A0ZmTuV5MEaHoxnW2e5CZ5NlKtainoFmKZopdHM1O2U4mwzJdQx996ivp83xuglII7PNDi84wnB-BDkoBwA78185hX-Es4JIwmDLJK3lfWRa-XtL0RnltuYv746iYTh_qHRD68BNt1uSNCrUCTJDt5aAE6x8wW1Kt9eRo4QPocSadnHXFxnt8Is9UzpERV0ePPQdLuW3IS_de3xyIrDaLGdjluPxUAhb6L2aXic1U12podGU0KLUQSE_oI-ZnmKJ3F4uOZDnd6QZWJushZ41Axf_fcIe8u9ipH84ogoree7vjbU5y18kDquDg"
    );
    let ps384 = format!(
        "eyJhbGciOiJQUzM4NCIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9.{text}.cu22eBqkYDKgIlTpzDXGvaFfz6WGoz7fUDcfT0kkOy42miAh2qyBzk1xEsnk2IpN6-tPid6VrklHkqsGqDqHCdP6O8TTB5dDDItllVo6_1OLPpcbUrhiUSMxbbXUvdvWXzg-UD8biiReQFlfz28zGWVsdiNAUf8ZnyPEgVFn442ZdNqiVJRmBqrYRXe8P_ijQ7p8Vdz0TTrxUeT3lm8d9shnr2lfJT8ImUjvAA2Xez2Mlp8cBE5awDzT0qI0n6uiP1aCN_2_jLAeQTlqRHtfa64QQSUmFAAjVKPbByi7xho0uTOcbH510a6GYmJUAfmWjwZ6oD4ifKo8DYM-X72Eaw"
    );
    for (token, algorithm, other, section) in
        [(rs256, Algorithm::Rs256, Algorithm::Ps256, "4.1"), (ps384, Algorithm::Ps384, Algorithm::Rs384, "4.2")]
    {
        let read = verified(&token, &rsa, algorithm).unwrap();
        assert!(read.starts_with("It’s a dangerous business, Frodo,".as_bytes()), "{section}");
        assert_eq!(verified(&token, &rsa, other).unwrap_err(), Invalid::Algorithm, "{section}");
    }
    let es512 = format!(
        "eyJhbGciOiJFUzUxMiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9.{text}.AE_R_YZCChjn4791jSQCrdPZCNYqHXCTZH0-JZGYNlaAjP2kqaluUIIUnC9qvbu9Plon7KRTzoNEuT4Va2cmL1eJAQy3mtPBu_u_sDDyYjnAMDxXPn7XrT0lw-kvAD890jl8e2puQens_IEKBpHABlsbEPX6sFY8OcGDqoRuBomu9xQ2"
    );
    assert_eq!(Compact::parse(es512.as_bytes()).unwrap_err(), Invalid::Algorithm, "4.3: not among ours");
    let hs256 = format!(
        "eyJhbGciOiJIUzI1NiIsImtpZCI6IjAxOGMwYWU1LTRkOWItNDcxYi1iZmQ2LWVlZjMxNGJjNzAzNyJ9.{text}.s0h6KThzkfBBBkLspW1h84VsJZFTsPPqMDA7g1Md7p0"
    );
    assert_eq!(Compact::parse(hs256.as_bytes()).unwrap_err(), Invalid::Algorithm, "4.4: a shared secret");
}

#[test]
fn rfc_8037_appendix_a() {
    let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" });
    assert_eq!(key(&jwk).unwrap().thumbprint(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k", "A.3");
    let token = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    assert_eq!(verified(token, &jwk, Algorithm::EdDsa).unwrap(), b"Example of Ed25519 signing", "A.5");
    let mut private = jwk.clone();
    private["d"] = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A".into();
    assert_eq!(key(&private).unwrap_err(), MalformedKey::Kind, "A.1: a private key has leaked");
}

#[test]
pub(super) fn keys_that_prove_nothing_are_refused() {
    let p256 = json!({ "kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0" });
    let with = |changes: Value| {
        let mut jwk = p256.clone();
        for (name, value) in changes.as_object().unwrap() {
            jwk[name] = value.clone();
        }
        key(&jwk).map(drop)
    };
    assert_eq!(with(json!({})), Ok(()));
    assert_eq!(with(json!({ "use": "sig", "alg": "ES256", "key_ops": ["verify"] })), Ok(()));
    let other = "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4";
    for (changes, want) in [
        (json!({ "x": other }), MalformedKey::Weak),
        (json!({ "x": "AA" }), MalformedKey::Member("x")),
        (json!({ "x": format!("{other}=") }), MalformedKey::Member("x")),
        (json!({ "y": 1 }), MalformedKey::Member("y")),
        (json!({ "crv": "P-384" }), MalformedKey::Member("x")),
        (json!({ "crv": "P-521" }), MalformedKey::Kind),
        (json!({ "crv": "secp256k1" }), MalformedKey::Kind),
        (json!({ "kty": "oct", "k": "AAAA" }), MalformedKey::Kind),
        (json!({ "kty": "OKP", "crv": "X25519" }), MalformedKey::Kind),
        (json!({ "use": "enc" }), MalformedKey::Purpose),
        (json!({ "key_ops": ["sign"] }), MalformedKey::Purpose),
        (json!({ "key_ops": "verify" }), MalformedKey::Member("key_ops")),
        (json!({ "alg": "HS256" }), MalformedKey::Purpose),
        (json!({ "alg": "ES384" }), MalformedKey::Purpose),
    ] {
        assert_eq!(with(changes.clone()), Err(want), "{changes}");
    }
    let encode = |bytes: &[u8]| base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, bytes);
    let rsa = |bits: usize, e: &[u8]| {
        let mut n = vec![0xff; bits / 8];
        n[0] = 0x80;
        key(&json!({ "kty": "RSA", "n": encode(&n), "e": encode(e) })).map(drop)
    };
    assert_eq!(rsa(2048, &[1, 0, 1]), Ok(()));
    assert_eq!(rsa(2048, &[3]), Ok(()));
    for (bits, e) in [(1024, &[1, 0, 1][..]), (2040, &[1, 0, 1]), (8200, &[1, 0, 1]), (2048, &[1]), (2048, &[2]), (2048, &[1, 0, 0, 0, 1])]
    {
        assert_eq!(rsa(bits, e), Err(MalformedKey::Weak), "{bits} {e:?}");
    }
    assert_eq!(rsa(2048, &[0, 1, 0, 1]), Err(MalformedKey::Member("n")), "a second form of the same key");
    // A key that is no point at all.
    assert_eq!(key(&json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(&[0xff; 31]) })).map(drop), Err(MalformedKey::Member("x")));
    // Of these points there are but a few multiples, so that one signature is right for many messages; and they have more
    // than one form.
    let y = |first: u8, fill: u8, last: u8| encode(&[&[first], &[fill; 30][..], &[last]].concat());
    for x in [
        y(1, 0, 0),
        y(1, 0, 0x80),
        y(0, 0, 0),
        y(0, 0, 0x80),
        y(0xec, 0xff, 0x7f),
        y(0xec, 0xff, 0xff),
        y(0xed, 0xff, 0x7f),
        y(0xed, 0xff, 0xff),
        y(0xee, 0xff, 0x7f),
        y(0xee, 0xff, 0xff),
        "JuiVj8KyJ7BFw_SJ8u-Y8NXfrAXTxjM5sTgCiG1T_AU".to_owned(),
        "JuiVj8KyJ7BFw_SJ8u-Y8NXfrAXTxjM5sTgCiG1T_IU".to_owned(),
        "xxdqcD1N2E-6PAt2DRBnDyogU_osOczGTsf9d5KsA3o".to_owned(),
        "xxdqcD1N2E-6PAt2DRBnDyogU_osOczGTsf9d5KsA_o".to_owned(),
    ] {
        assert_eq!(key(&json!({ "kty": "OKP", "crv": "Ed25519", "x": x })).map(drop), Err(MalformedKey::Weak), "{x}");
    }
    for set in ["{}", "[]", "{\"keys\":{}}", "{\"keys\":[1]}"] {
        assert_eq!(KeySet::from_jwks(set.as_bytes()).unwrap_err(), MalformedKey::Set, "{set}");
    }
    let many = json!({ "keys": vec![json!({}); 101] }).to_string();
    assert_eq!(KeySet::from_jwks(many.as_bytes()).unwrap_err(), MalformedKey::Set);
}
