//! Tokens of trusted issuers at the gate: the issuer says who calls, and what that one may do is what holds here, now.

use serde_json::{Value, json};

use super::*;
use crate::bearer::Own;
use crate::clock::now;
use crate::token::{Algorithm, Issuer, KeySet, KeySource, SigningKey, Trust};

const LOGIN: &str = "https://login.test";

/// A world that trusts an issuer.
struct Trusting {
    world: World,
    key: SigningKey,
    issuer: Issuer,
}

fn set(keys: &[&SigningKey]) -> KeySource {
    let mut set = KeySet::default();
    for key in keys {
        set.add(key.public().clone()).unwrap();
    }
    KeySource::Set(Arc::new(set))
}

impl Trusting {
    fn new() -> Self {
        let key = SigningKey::generate(Algorithm::Es256).unwrap();
        let issuer = Issuer {
            trust: Trust {
                name: LOGIN.into(),
                keys: set(&[&key]),
                audiences: vec!["https://api.test".into(), "https://old.test".into()],
                algorithms: vec![Algorithm::Es256],
                leeway: Duration::from_secs(30),
                refresh: Duration::from_secs(300),
            },
            client_claim: None,
            practice_claim: Some("practice".into()),
            user_claim: None,
            scope_claim: "scope".into(),
        };
        Self { world: World::new(), key, issuer }.trusting(|_| {})
    }

    /// With the block changed so.
    fn trusting(mut self, change: impl FnOnce(&mut Issuer)) -> Self {
        change(&mut self.issuer);
        self.trust(&[&self.issuer]);
        self
    }

    fn trust(&self, issuers: &[&Issuer]) {
        let issuers: Vec<_> = issuers.iter().map(|issuer| Arc::new((*issuer).clone())).collect();
        self.world.gate.bearers().trust(&issuers, |_, _| unreachable!("no keys are at a URL"));
    }

    /// A token with these claims beside the usual ones.
    fn token(&self, claims: &Value) -> String {
        Self::signed_by(&self.key, claims)
    }

    fn signed_by(key: &SigningKey, claims: &Value) -> String {
        let mut all = json!({ "iss": LOGIN, "aud": "https://api.test", "exp": now().0 / 1000 + 600 });
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        let header = json!({ "alg": key.algorithm().as_str(), "kid": key.kid() });
        format!("Bearer {}", key.sign_json(&header, &all).unwrap())
    }

    /// What is answered, the first time and when the token is known.
    fn label(&self, line: &str, claims: &Value) -> &'static str {
        let token = self.token(claims);
        let first = self.world.label(line, Some(&token));
        assert_eq!(self.world.label(line, Some(&token)), first, "known or not");
        first
    }

    fn client(&self, name: &str) -> String {
        self.world.secrets.iter().find(|(known, ..)| *known == name).unwrap().1.to_text()
    }
}

fn told(permit: &Permit) -> [String; 4] {
    let identity = permit.identity().unwrap();
    let text = |value: Option<&http::HeaderValue>| value.map_or("-", |value| value.to_str().unwrap()).to_owned();
    [Some(&identity.practice_id), identity.client_id.as_ref(), identity.user_id.as_ref(), Some(&identity.scopes)].map(text)
}

#[test]
fn a_token_of_an_issuer_counts_for_whom_it_names_as_far_as_that_one_may_go() {
    let trusting = Trusting::new().trusting(|issuer| issuer.user_claim = Some("sub".into()));
    for (line, claims, want) in [
        ("GET /billing", json!({ "practice": "p", "sub": "member", "scope": "billing" }), "permit"),
        ("GET /billing", json!({ "practice": "p", "sub": "member", "scope": ["openid", "billing"] }), "permit"),
        ("GET /patients", json!({ "practice": "p", "sub": "member", "scope": "billing" }), "insufficient_scope"),
        ("GET /billing", json!({ "practice": "p", "sub": "member", "scope": "" }), "insufficient_scope"),
        ("GET /billing", json!({ "practice": "p", "sub": "member" }), "insufficient_scope"),
        ("GET /billing", json!({ "practice": "p", "sub": "member", "scope": "all" }), "insufficient_scope"),
        ("GET /billing", json!({ "practice": "p", "sub": "nobody", "scope": "billing" }), "user_access_disabled"),
        ("GET /billing", json!({ "practice": "q", "sub": "member", "scope": "billing" }), "practice_access_disabled"),
        ("GET /billing", json!({ "practice": "p", "scope": "billing" }), "misdirected_token"),
        ("GET /billing", json!({ "sub": "member", "scope": "billing" }), "misdirected_token"),
        ("GET /billing", json!({ "practice": "p", "sub": "member", "scope": 7 }), "misdirected_token"),
        ("GET /billing", json!({ "practice": "p", "sub": "member", "aud": "https://else.test" }), "misdirected_token"),
        ("GET /billing", json!({ "practice": "p", "sub": "member", "exp": now().0 / 1000 - 31 }), "token_expired"),
        ("GET /billing", json!({ "practice": "p", "sub": "member", "nbf": now().0 / 1000 + 90 }), "token_not_yet_valid"),
        ("GET /billing", json!({ "practice": "p", "sub": "member", "iss": "https://login.test/" }), "untrusted_token"),
        ("GET /billing", json!({ "practice": "p", "sub": "member", "iss": ["https://login.test"] }), "untrusted_token"),
        ("GET /billing", json!({ "practice": "p", "sub": "member", "iss": tokens::own().issuer }), "untrusted_token"),
    ] {
        assert_eq!(trusting.label(line, &claims), want, "{line} {claims}");
    }
    let within = json!({ "practice": "p", "sub": "member", "scope": "billing offline", "exp": now().0 / 1000 - 20 });
    let permit = trusting.world.decide("GET /billing", Some(&trusting.token(&within))).unwrap();
    assert_eq!(told(&permit), ["p", "-", "member", "billing"], "and the leeway is the one of the block");
}

#[test]
fn through_a_client_a_token_has_no_more_than_the_client_was_granted() {
    let both = |issuer: &mut Issuer| issuer.client_claim = Some("azp".into());
    let trusting = Trusting::new().trusting(both).trusting(|issuer| issuer.practice_claim = None);
    let (billing, personal) = (trusting.client("billing"), trusting.client("personal"));
    for (line, claims, want) in [
        ("GET /billing", json!({ "azp": billing, "scope": "billing clinical" }), "permit"),
        ("GET /patients", json!({ "azp": billing, "scope": "billing clinical" }), "insufficient_scope"),
        ("GET /patients", json!({ "azp": billing, "scope": "all" }), "insufficient_scope"),
        ("GET /billing", json!({ "azp": billing }), "insufficient_scope"),
        ("GET /billing", json!({ "azp": personal, "scope": "billing" }), "permit"),
        ("GET /billing", json!({ "azp": trusting.client("revoked"), "scope": "billing" }), "revoked"),
        ("GET /billing", json!({ "azp": trusting.client("expired"), "scope": "billing" }), "expired"),
        ("GET /billing", json!({ "azp": trusting.client("listed"), "scope": "billing" }), "address_not_allowed"),
        ("GET /billing", json!({ "azp": "smd_zzzzzzzzzzzzzzzzzzzz", "scope": "billing" }), "unknown_client"),
        ("GET /billing", json!({ "azp": "another-app", "scope": "billing" }), "misdirected_token"),
        ("GET /billing", json!({ "client_id": billing, "scope": "billing" }), "misdirected_token"),
    ] {
        assert_eq!(trusting.label(line, &claims), want, "{line} {claims}");
    }
    let wide = trusting.token(&json!({ "azp": billing, "scope": "billing clinical" }));
    assert_eq!(told(&trusting.world.decide("GET /billing", Some(&wide)).unwrap()), ["p", &billing, "-", "billing"]);
    let own = trusting.token(&json!({ "azp": personal, "scope": "billing" }));
    assert_eq!(told(&trusting.world.decide("GET /billing", Some(&own)).unwrap()), ["p", &personal, "member", "billing"]);
    // The limit is the client's.
    let limited = json!({ "azp": trusting.client("limited"), "scope": "billing" });
    let labels = [0; 2].map(|_| trusting.world.label("GET /billing", Some(&trusting.token(&limited))));
    assert_eq!(labels, ["permit", "rate_limited"]);
}

#[test]
fn a_user_comes_by_their_own_client_or_by_one_of_their_practice() {
    let trusting = Trusting::new().trusting(|issuer| {
        issuer.client_claim = Some("azp".into());
        issuer.user_claim = Some("sub".into());
    });
    let mut trusting = trusting;
    let other = User { id: "other".parse().unwrap(), ..member(true) };
    trusting.world.change(Change::User(other.id.clone(), Some(other)));
    let (billing, personal) = (trusting.client("billing"), trusting.client("personal"));
    let claims = |client: &str, user: &str, practice: &str| json!({ "azp": client, "sub": user, "practice": practice, "scope": "billing" });
    for (claims, want) in [
        (claims(&billing, "member", "p"), "permit"),
        (claims(&billing, "other", "p"), "permit"),
        (claims(&billing, "nobody", "p"), "user_access_disabled"),
        (claims(&billing, "member", "q"), "misdirected_token"),
        (claims(&personal, "member", "p"), "permit"),
        (claims(&personal, "other", "p"), "misdirected_token"),
    ] {
        assert_eq!(trusting.label("GET /billing", &claims), want, "{claims}");
    }
    let token = trusting.token(&claims(&billing, "other", "p"));
    let permit = trusting.world.decide("GET /billing", Some(&token)).unwrap();
    assert_eq!(told(&permit), ["p", &billing, "other", "billing"]);
    // Each of the three ends it.
    let off = User { id: "other".parse().unwrap(), ..member(false) };
    let of_user = Change::User(off.id.clone(), Some(off));
    assert!(permit.concerned_by(&Touched::These(std::slice::from_ref(&of_user))));
    assert!(!permit.concerned_by(&Touched::These(&[Change::User("member".parse().unwrap(), None)])));
    trusting.world.change(of_user);
    assert_eq!(trusting.world.gate.recheck(&permit).unwrap_err().label(), "user_access_disabled");
    assert_eq!(trusting.world.label("GET /billing", Some(&token)), "user_access_disabled");
    let token = trusting.token(&claims(&billing, "member", "p"));
    let permit = trusting.world.decide("GET /billing", Some(&token)).unwrap();
    let id = ClientId::parse(billing.as_bytes()).unwrap();
    let of_client = Change::Client(id, None);
    assert!(permit.concerned_by(&Touched::These(std::slice::from_ref(&of_client))));
    trusting.world.change(of_client);
    assert_eq!(trusting.world.gate.recheck(&permit).unwrap_err().label(), "unknown_client");
}

#[test]
fn practice_and_user_end_what_an_issuer_has_vouched_for() {
    type End = fn(&mut World);
    let ends: [(&str, End); 3] = [
        ("practice_access_disabled", |world| world.change(Change::Practice("p".parse().unwrap(), Some(practice(ApiAccess::Disabled))))),
        ("user_access_disabled", |world| world.change(Change::User("member".parse().unwrap(), Some(member(false))))),
        ("user_access_disabled", |world| world.change(Change::User("member".parse().unwrap(), None))),
    ];
    for (want, end) in ends {
        let mut trusting = Trusting::new().trusting(|issuer| issuer.user_claim = Some("sub".into()));
        let token = trusting.token(&json!({ "practice": "p", "sub": "member", "scope": "billing" }));
        let permit = trusting.world.decide("GET /billing", Some(&token)).unwrap();
        end(&mut trusting.world);
        assert_eq!(trusting.world.gate.recheck(&permit).unwrap_err().label(), want);
        assert_eq!(trusting.world.label("GET /billing", Some(&token)), want);
    }
}

#[test]
fn an_issuer_is_trusted_as_the_route_map_says_now() {
    type Change = fn(&mut Issuer);
    let claims = json!({ "practice": "p", "scope": "billing" });
    let changes: [(&str, Change); 4] = [
        ("untrusted_token", |issuer| issuer.trust.algorithms = vec![Algorithm::EdDsa]),
        ("misdirected_token", |issuer| issuer.trust.audiences = vec!["https://new.test".into()]),
        ("misdirected_token", |issuer| issuer.practice_claim = Some("org".into())),
        ("untrusted_token", |issuer| issuer.trust.keys = set(&[&SigningKey::generate(Algorithm::Es256).unwrap()])),
    ];
    for (want, change) in changes {
        let trusting = Trusting::new();
        let token = trusting.token(&claims);
        let permit = trusting.world.decide("GET /billing", Some(&token)).unwrap();
        let trusting = trusting.trusting(|_| {});
        trusting.world.gate.recheck(&permit).expect("the same block again changes nothing");
        let trusting = trusting.trusting(|issuer| issuer.trust.audiences.push("https://more.test".into()));
        trusting.world.gate.recheck(&permit).expect("nor does one that takes nothing away");
        let trusting = trusting.trusting(change);
        assert_eq!(trusting.world.gate.recheck(&permit).unwrap_err().label(), want);
        assert_eq!(trusting.world.label("GET /billing", Some(&token)), want);
    }
    let trusting = Trusting::new();
    let token = trusting.token(&claims);
    let permit = trusting.world.decide("GET /billing", Some(&token)).unwrap();
    let settled = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let seen = Arc::clone(&settled);
    trusting.world.gate.on_change(Box::new(move |touched| {
        assert!(matches!(touched, Touched::Anything));
        seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }));
    trusting.trust(&[&trusting.issuer]);
    assert_eq!(settled.load(std::sync::atomic::Ordering::Relaxed), 0);
    trusting.trust(&[]);
    assert_eq!(settled.load(std::sync::atomic::Ordering::Relaxed), 1, "what has begun is asked about again");
    assert_eq!(trusting.world.gate.recheck(&permit).unwrap_err().label(), "untrusted_token");
    assert_eq!(trusting.world.label("GET /billing", Some(&token)), "untrusted_token");
    trusting.trust(&[&trusting.issuer]);
    assert_eq!(trusting.world.label("GET /billing", Some(&token)), "permit", "trusted again");
}

#[test]
fn nobody_speaks_for_another_issuer_nor_for_us() {
    let trusting = Trusting::new();
    let stranger = SigningKey::generate(Algorithm::Es256).unwrap();
    let mut other = trusting.issuer.clone();
    (other.trust.name, other.trust.keys) = ("https://other.test".into(), set(&[&stranger]));
    // One that calls itself what we call ourselves is not listened to.
    let mut posing = other.clone();
    posing.trust.name = Arc::clone(&tokens::own().issuer);
    trusting.trust(&[&trusting.issuer, &other, &posing]);
    let claims = |iss: &str| json!({ "iss": iss, "practice": "p", "scope": "billing" });
    let Own { issuer: ours, .. } = tokens::own();
    for (key, iss, want) in [
        (&trusting.key, LOGIN, "permit"),
        (&stranger, "https://other.test", "permit"),
        (&stranger, LOGIN, "untrusted_token"),
        (&trusting.key, "https://other.test", "untrusted_token"),
        (&stranger, &ours, "untrusted_token"),
    ] {
        assert_eq!(trusting.world.label("GET /billing", Some(&Trusting::signed_by(key, &claims(iss)))), want, "{iss}");
    }
    // Which of several keys it was is for the token to say.
    let mut two = trusting.issuer.clone();
    two.trust.keys = set(&[&trusting.key, &stranger]);
    trusting.trust(&[&two]);
    let all = json!({ "iss": LOGIN, "aud": "https://old.test", "exp": now().0 / 1000 + 600, "practice": "p", "scope": "billing" });
    let nameless = format!("Bearer {}", stranger.sign_json(&json!({ "alg": "ES256" }), &all).unwrap());
    assert_eq!(trusting.world.label("GET /billing", Some(&nameless)), "untrusted_token");
    two.trust.keys = set(&[&stranger]);
    trusting.trust(&[&two]);
    assert_eq!(trusting.world.label("GET /billing", Some(&nameless)), "permit", "there is but one");
    for typ in ["JWT", "at+jwt", "application/at+jwt"] {
        let typed = stranger.sign_json(&json!({ "alg": "ES256", "typ": typ }), &all).unwrap();
        assert_eq!(trusting.world.label("GET /billing", Some(&format!("Bearer {typed}"))), "permit", "{typ}");
    }
    for typ in ["logout+jwt", "dpop+jwt", "client-authentication+jwt"] {
        let typed = stranger.sign_json(&json!({ "alg": "ES256", "typ": typ }), &all).unwrap();
        assert_eq!(trusting.world.label("GET /billing", Some(&format!("Bearer {typed}"))), "misdirected_token", "{typ}");
    }
}
