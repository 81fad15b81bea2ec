//! Tokens at the gate: genuine is not enough, what they rest on has to count now.

use super::*;
use crate::bearer::{LEEWAY, Own};
use crate::clock::now;
use crate::entity::{RevokedToken, StoredKey};
use crate::id::{KeyId, TokenId};
use crate::token::{AccessToken, Algorithm, MasterKey, Means, SigningKey};

pub(super) fn master_key() -> MasterKey {
    MasterKey::parse(&STANDARD.encode([7; 32])).unwrap()
}

pub(super) fn own() -> Own {
    Own { issuer: "https://gw.test".into(), audience: "https://api.test".into() }
}

/// A world with a signing key in it.
struct Issuing {
    world: World,
    key: SigningKey,
    stored: StoredKey,
}

impl Issuing {
    fn new() -> Self {
        let mut world = World::new();
        let (key, stored) = signing_key();
        world.change(Change::SigningKey(stored.id.clone(), Some(stored.clone())));
        Self { world, key, stored }
    }

    fn token(&self, name: &str, scopes: &[&str]) -> AccessToken {
        let (_, client_id, _) = self.world.secrets.iter().find(|(known, ..)| *known == name).unwrap();
        AccessToken {
            issuer: own().issuer.to_string(),
            audience: own().audience.to_string(),
            client_id: *client_id,
            practice_id: "p".parse().unwrap(),
            means: Means::Secret(1),
            scopes: scopes.iter().map(|scope| scope.parse().unwrap()).collect(),
            id: TokenId::random(),
            issued_at: now(),
            expires_at: now().after(Duration::from_secs(900)),
        }
    }

    fn signed(&self, token: &AccessToken) -> String {
        format!("Bearer {}", self.key.sign(token).unwrap())
    }

    fn label(&self, line: &str, token: &AccessToken) -> &'static str {
        self.world.label(line, Some(&self.signed(token)))
    }
}

fn signing_key() -> (SigningKey, StoredKey) {
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let id: KeyId = key.kid().parse().unwrap();
    let sealed = master_key().seal(&StoredKey::purpose(&id), key.pkcs8()).into();
    (key, StoredKey { id, algorithm: Algorithm::EdDsa, sealed, created_at: Timestamp(0), signs_from: Some(Timestamp(0)), revoked_at: None })
}

fn scopes(permit: &Permit) -> String {
    permit.identity().unwrap().scopes.to_str().unwrap().to_owned()
}

#[test]
fn a_token_passes_where_its_scopes_and_those_of_its_client_both_do() {
    let issuing = Issuing::new();
    let full = issuing.token("all", &["all"]);
    let narrow = issuing.token("all", &["billing"]);
    let wide = issuing.token("billing", &["billing", "clinical"]);
    let claims_all = issuing.token("billing", &["all"]);
    let strange = issuing.token("billing", &["imaging"]);
    for (line, token, want) in [
        ("GET /billing/7", &full, "permit"),
        ("GET /patients/7", &full, "permit"),
        ("GET /billing/7", &narrow, "permit"),
        ("GET /patients/7", &narrow, "insufficient_scope"),
        ("GET /billing/7", &wide, "permit"),
        ("GET /patients/7", &wide, "insufficient_scope"),
        ("GET /patients/7", &claims_all, "insufficient_scope"),
        ("GET /billing/7", &strange, "insufficient_scope"),
        ("GET /billing/7", &issuing.token("personal", &["billing"]), "permit"),
        ("GET /billing/7", &issuing.token("revoked", &["billing"]), "revoked"),
        ("GET /billing/7", &issuing.token("expired", &["billing"]), "expired"),
        ("GET /billing/7", &issuing.token("listed", &["billing"]), "address_not_allowed"),
    ] {
        for _ in 0..2 {
            assert_eq!(issuing.label(line, token), want, "{line} {token:?}, known or not");
        }
    }
    // The upstream is told what counts, and not what the token says.
    for (token, told) in [(&full, "all"), (&narrow, "billing"), (&wide, "billing"), (&claims_all, "billing")] {
        let permit = issuing.world.decide("GET /billing/7", Some(&issuing.signed(token))).unwrap();
        assert_eq!(scopes(&permit), told);
    }
    assert_eq!(issuing.world.label("GET /docs/x", Some("Bearer x")), "permit", "nobody is asked on a public route");
}

#[test]
fn a_token_that_is_not_ours_or_not_for_now_is_refused_each_time_it_comes() {
    let issuing = Issuing::new();
    let good = issuing.token("billing", &["billing"]);
    let (other, _) = signing_key();
    let seconds = |millis: i64| Timestamp(now().0 + millis);
    let leeway = i64::try_from(LEEWAY.as_millis()).unwrap();
    for (token, want) in [
        (AccessToken { issuer: "https://other.test".into(), ..good.clone() }, "untrusted_token"),
        (AccessToken { audience: "https://other.test".into(), ..good.clone() }, "misdirected_token"),
        (AccessToken { expires_at: seconds(-leeway - 1000), ..good.clone() }, "token_expired"),
        (AccessToken { issued_at: seconds(leeway + 60_000), ..good.clone() }, "token_not_yet_valid"),
        (AccessToken { means: Means::Secret(2), ..good.clone() }, "secret_ended"),
        (AccessToken { means: Means::Key("none".into()), ..good.clone() }, "key_ended"),
        (AccessToken { client_id: ClientId::from_random([99; 20]), ..good.clone() }, "unknown_client"),
    ] {
        for _ in 0..2 {
            assert_eq!(issuing.label("GET /billing", &token), want, "{token:?}");
        }
    }
    for (value, want) in [
        (format!("Bearer {}", other.sign(&good).unwrap()), "untrusted_token"),
        (issuing.signed(&good).replace("Bearer ", "Bearer a"), "malformed_token"),
        (format!("{}=", issuing.signed(&good)), "malformed_token"),
        (format!("{}A", issuing.signed(&good)), "untrusted_token"),
    ] {
        assert_eq!(issuing.world.label("GET /billing", Some(&value)), want);
    }
    // A known token is over when its time is, known or not.
    let (short, lasting) = (AccessToken { expires_at: seconds(-leeway + 300), ..good.clone() }, issuing.signed(&good));
    let short = issuing.signed(&short);
    let begun = issuing.world.decide("GET /billing", Some(&short));
    while issuing.world.label("GET /billing", Some(&short)) == "permit" {
        std::thread::yield_now();
    }
    assert_eq!(issuing.world.label("GET /billing", Some(&short)), "token_expired");
    assert_eq!(issuing.world.label("GET /billing", Some(&lasting)), "permit");
    // And what it has begun ends at the next occasion.
    if let Ok(begun) = begun {
        issuing.world.replica.touch();
        assert_eq!(issuing.world.gate.recheck(&begun).unwrap_err().label(), "token_expired");
    }
}

#[test]
fn whatever_a_token_rests_on_ends_it_at_once_and_what_it_has_begun() {
    type End = fn(&mut Issuing, &AccessToken);
    let ended: [(&str, End); 6] = [
        ("token_revoked", |issuing, token| {
            let row = RevokedToken { id: token.id, client_id: token.client_id, expires_at: token.expires_at, revoked_at: now() };
            issuing.world.change(Change::RevokedToken(token.id, Some(row)));
        }),
        ("key_ended", |issuing, _| {
            let revoked = StoredKey { revoked_at: Some(now()), ..issuing.stored.clone() };
            issuing.world.change(Change::SigningKey(revoked.id.clone(), Some(revoked)));
        }),
        ("key_ended", |issuing, _| issuing.world.change(Change::SigningKey(issuing.stored.id.clone(), None))),
        ("unknown_client", |issuing, token| issuing.world.change(Change::Client(token.client_id, None))),
        ("practice_access_disabled", |issuing, _| {
            issuing.world.change(Change::Practice("p".parse().unwrap(), Some(practice(ApiAccess::Disabled))));
        }),
        ("user_access_disabled", |issuing, _| issuing.world.change(Change::User("member".parse().unwrap(), Some(member(false))))),
    ];
    for (want, end) in ended {
        let mut issuing = Issuing::new();
        let token = issuing.token("personal", &["billing"]);
        let another = issuing.token("personal", &["billing"]);
        let permit = issuing.world.decide("GET /billing", Some(&issuing.signed(&token))).unwrap();
        let other = issuing.world.decide("GET /billing", Some(&issuing.signed(&another))).unwrap();
        issuing.world.gate.recheck(&permit).unwrap();
        end(&mut issuing, &token);
        let denial = issuing.world.gate.recheck(&permit).unwrap_err();
        assert_eq!(denial.label(), want);
        // A key that is gone checks nothing: then nobody knows whose token it was.
        let label = issuing.label("GET /billing", &token);
        assert_eq!(label, want);
        let only_this_one = want == "token_revoked";
        assert_eq!(issuing.world.gate.recheck(&other).is_ok(), only_this_one, "{want}");
        assert_eq!(issuing.label("GET /billing", &another) == "permit", only_this_one, "{want}");
    }
}

#[test]
fn what_changes_of_keys_and_tokens_concerns_those_who_came_by_a_token() {
    let issuing = Issuing::new();
    let token = issuing.token("billing", &["billing"]);
    let by_token = issuing.world.decide("GET /billing", Some(&issuing.signed(&token))).unwrap();
    let by_secret = issuing.world.decide("GET /billing", Some(&issuing.world.basic("billing"))).unwrap();
    let public = issuing.world.decide("GET /docs/x", None).unwrap();
    let of_token = [Change::RevokedToken(token.id, None)];
    let of_key = [Change::SigningKey(issuing.stored.id.clone(), None)];
    let of_client = [Change::Client(token.client_id, None)];
    for (changes, by_both) in [(&of_token, false), (&of_key, false), (&of_client, true)] {
        let touched = Touched::These(changes);
        assert!(by_token.concerned_by(&touched));
        assert_eq!(by_secret.concerned_by(&touched), by_both);
        assert!(!public.concerned_by(&touched));
    }
}
