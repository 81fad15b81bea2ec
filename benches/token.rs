//! What a token costs that nobody has seen before, and what issuing one does; and one that is refused before its signature
//! is looked at. `cargo bench --bench token`

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use sigmagate::clock::Timestamp;
use sigmagate::token::{ACCESS_TOKEN_TYPE, AccessToken, Algorithm, Claims, Compact, Expected, Invalid, KeySet, Means, SigningKey, verify};

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const EXPECTED: Expected<'_> =
    Expected { issuer: "https://gateway.example", audiences: &["https://api.example"], leeway: Duration::from_secs(5) };

fn access_token() -> AccessToken {
    AccessToken {
        issuer: EXPECTED.issuer.to_owned(),
        audience: EXPECTED.audiences[0].to_owned(),
        client_id: "smd_0123456789abcdefGHIJ".parse().expect("a client id"),
        practice_id: "p_0123456789".parse().expect("a practice id"),
        means: Means::Secret(1),
        scopes: ["billing", "appointments", "tasks"].iter().map(|scope| scope.parse().expect("a scope")).collect(),
        id: "936da01f-9abd-4d9d-80c7-02af85c822a8".parse().expect("a token id"),
        issued_at: NOW,
        expires_at: NOW.after(Duration::from_secs(900)),
    }
}

fn read(token: &[u8], keys: &KeySet, algorithm: Algorithm) -> Result<AccessToken, Invalid> {
    let claims = verify(&Compact::parse(token)?, keys, &[algorithm])?.of_type(ACCESS_TOKEN_TYPE)?;
    AccessToken::from_claims(&Claims::check(claims, &EXPECTED, NOW)?)
}

fn tokens(c: &mut Criterion) {
    for algorithm in [Algorithm::EdDsa, Algorithm::Es256] {
        let key = SigningKey::generate(algorithm).expect("a key");
        let mut keys = KeySet::default();
        keys.add(key.public().clone()).expect("the only key");
        let token = key.sign(&access_token()).expect("a token");
        assert_eq!(read(token.as_bytes(), &keys, algorithm).as_ref(), Ok(&access_token()));
        c.bench_function(&format!("first verification/{algorithm}"), |b| {
            b.iter(|| read(black_box(token.as_bytes()), &keys, algorithm).is_ok());
        });
        let strange = SigningKey::generate(algorithm).expect("a key").sign(&access_token()).expect("a token");
        assert_eq!(read(strange.as_bytes(), &keys, algorithm), Err(Invalid::UnknownKey));
        c.bench_function(&format!("unknown key/{algorithm}"), |b| b.iter(|| read(black_box(strange.as_bytes()), &keys, algorithm).is_ok()));
        c.bench_function(&format!("issue/{algorithm}"), |b| b.iter(|| key.sign(black_box(&access_token())).is_ok()));
    }
}

criterion_group!(benches, tokens);
criterion_main!(benches);
