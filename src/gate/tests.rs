mod issuers;
mod tokens;

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::clock::boot_time;
use crate::credential::Secret;
use crate::entity::{ApiAccess, Client, ClientKeys, Practice, Role, StoredSecret, User};
use crate::id::{ClientId, Revision, RouteId};
use crate::limit::Allowance;
use crate::route::{MethodSet, Requirement};
use crate::scope::{ScopeRegistry, ScopeToken};
use crate::store::{Change, Snapshot};

/// A gate with one practice, some people and some clients, all of them in memory.
struct World {
    gate: Gate,
    replica: Arc<Replica>,
    head: u64,
    secrets: Vec<(&'static str, ClientId, Secret)>,
}

fn route(registry: &ScopeRegistry, id: u32, prefix: &str, methods: MethodSet, scopes: &[&str]) -> Route {
    let tokens: Vec<ScopeToken> = scopes.iter().map(|scope| scope.parse().unwrap()).collect();
    let requirement = if tokens.is_empty() { Requirement::Public } else { Requirement::AnyOf(registry.intern_all(&tokens).unwrap()) };
    let base = crate::route::tests_support::route(prefix, requirement);
    Route { id: RouteId(id), methods, scopes: scopes.join(" ").into(), ..base }
}

impl World {
    fn new() -> Self {
        let registry = Arc::new(ScopeRegistry::default());
        let tiers = Arc::new(TierNames::default());
        let replica = Replica::new(Arc::clone(&registry), Arc::clone(&tiers)).with_master_key(Some(Arc::new(tokens::master_key())));
        let replica = Arc::new(replica);
        let budget = FailureBudget { per_minute: NonZeroU32::MIN, burst: NonZeroU32::new(1000).unwrap() };
        let bearers = Arc::new(Bearers::new(Arc::clone(&replica), Arc::clone(&registry), Some(tokens::own())));
        let gate = Gate::new(Arc::clone(&replica), tiers, budget, None, bearers);
        let get = MethodSet::from_iter([Method::Get, Method::Head]);
        let routes = vec![
            route(&registry, 0, "/billing", MethodSet::ALL, &["billing"]),
            route(&registry, 1, "/billing/statements", get, &["billing", "clinical"]),
            route(&registry, 2, "/patients", get, &["clinical"]),
            route(&registry, 3, "/docs", MethodSet::ALL, &[]),
        ];
        let one = Tier {
            name: "one".into(),
            rate: Allowance { per_second: NonZeroU32::MIN, burst: NonZeroU32::MIN },
            practice: None,
            concurrent: None,
        };
        gate.install(Arc::new(RouteTable::new(routes, false).unwrap()), [one]);
        let mut world = Self { gate, replica, head: 1, secrets: Vec::new() };
        let mut clients = Vec::new();
        let kinds: [(&str, Option<&str>, &[&str]); 8] = [
            ("billing", None, &["billing"]),
            ("clinical", None, &["clinical"]),
            ("all", None, &["all"]),
            ("personal", Some("member"), &["billing"]),
            ("revoked", None, &["billing"]),
            ("expired", None, &["billing"]),
            ("listed", None, &["billing"]),
            ("limited", None, &["billing"]),
        ];
        for (n, (name, owner, scopes)) in kinds.into_iter().enumerate() {
            let secret = Secret::generate();
            let client = Client {
                id: ClientId::from_random([u8::try_from(n).unwrap(); 20]),
                practice_id: "p".parse().unwrap(),
                owner: owner.map(|owner| owner.parse().unwrap()),
                name: name.into(),
                scopes: scopes.iter().map(|scope| scope.parse().unwrap()).collect(),
                allowed_addresses: if name == "listed" { vec!["10.0.0.0/8".parse().unwrap()] } else { vec![] },
                tier: (name == "limited").then(|| "one".into()),
                created_at: Timestamp(0),
                expires_at: (name == "expired").then_some(Timestamp(1)),
                revoked_at: (name == "revoked").then_some(Timestamp(1)),
                secrets: vec![StoredSecret {
                    generation: 1,
                    digest: secret.digest(None),
                    created_at: Timestamp(0),
                    expires_at: None,
                    ended: false,
                }],
                keys: ClientKeys::None,
            };
            world.secrets.push((name, client.id, secret));
            clients.push(client);
        }
        world.replica.replace(Snapshot {
            head: Revision(1),
            practices: vec![practice(ApiAccess::Active)],
            users: vec![member(true)],
            clients,
            ..Snapshot::default()
        });
        world.replica.extend_lease(boot_time().after(Duration::from_secs(3600)));
        world
    }

    fn change(&mut self, change: Change) {
        self.head += 1;
        self.replica.apply(Revision(self.head - 1), Revision(self.head), &[change]);
    }

    fn basic(&self, name: &str) -> String {
        let (_, id, secret) = self.secrets.iter().find(|(known, ..)| *known == name).unwrap();
        format!("Basic {}", STANDARD.encode(format!("{id}:{}", secret.reveal())))
    }

    fn decide(&self, line: &str, authorization: Option<&str>) -> Result<Permit, Denial> {
        let (method, target) = line.split_once(' ').unwrap();
        let request = Request {
            method: method.as_bytes(),
            target: target.as_bytes(),
            authorization: authorization.map(str::as_bytes),
            peer: "127.0.0.1".parse().unwrap(),
        };
        self.gate.decide(&request).outcome
    }

    fn label(&self, line: &str, authorization: Option<&str>) -> &'static str {
        self.decide(line, authorization).map_or_else(|denial| denial.label(), |_| "permit")
    }
}

fn practice(api_access: ApiAccess) -> Practice {
    Practice { id: "p".parse().unwrap(), name: "Practice".into(), api_access }
}

fn member(api_access: bool) -> User {
    User { id: "member".parse().unwrap(), practice_id: "p".parse().unwrap(), role: Role::Member, api_access, left_at: None }
}

#[test]
fn every_answer_of_the_gate_has_a_request_that_gets_it() {
    let mut world = World::new();
    let unknown = format!("Basic {}", STANDARD.encode(format!("smd_{}:{}", "z".repeat(20), Secret::generate().reveal())));
    let (_, id, _) = world.secrets[0];
    let wrong = format!("Basic {}", STANDARD.encode(format!("{id}:{}", Secret::generate().reveal())));
    let of = |world: &World, name: &str| Some(world.basic(name));
    let rows = [
        ("GET /billing/7", of(&world, "billing"), "permit"),
        ("DELETE /billing/7", of(&world, "billing"), "permit"),
        ("GET /billing", of(&world, "all"), "permit"),
        ("GET /billing", of(&world, "personal"), "permit"),
        ("GET /docs/x", None, "permit"),
        ("GET /docs/x", Some("Bearer x".into()), "permit"),
        ("GET /billing/statements/1", of(&world, "clinical"), "permit"),
        ("GET /billing/../patients", of(&world, "billing"), "malformed_target"),
        ("GET /billing;a/7", of(&world, "billing"), "no_route"),
        ("GET /billing/7;a", of(&world, "billing"), "malformed_target"),
        ("GET /billing?access_token=x", of(&world, "billing"), "credential_in_query"),
        ("GET /docs?access_token=x", None, "credential_in_query"),
        ("GET /billing", Some("Basic a, Basic b".into()), "two_credentials"),
        ("GET /billing", Some("Basic !".into()), "malformed_authorization"),
        ("GET /", of(&world, "all"), "no_route"),
        ("GET /billingx", of(&world, "all"), "no_route"),
        ("GET /billing.evil", of(&world, "all"), "no_route"),
        ("GET /BILLING", of(&world, "all"), "no_route"),
        ("GET /metrics", of(&world, "all"), "no_route"),
        ("POST /patients", of(&world, "all"), "method_not_allowed"),
        ("TRACE /billing", of(&world, "all"), "method_not_allowed"),
        ("get /billing", of(&world, "all"), "method_not_allowed"),
        ("POST /billing/statements", of(&world, "billing"), "method_not_allowed"),
        ("GET /billing", None, "credential_missing"),
        ("GET /billing", Some("Basic YTpi".into()), "malformed_credential"),
        ("GET /billing", Some("Digest x".into()), "unknown_scheme"),
        ("GET /billing", Some("Bearer x".into()), "malformed_token"),
        ("GET /billing", Some(unknown), "unknown_client"),
        ("GET /billing", Some(wrong), "wrong_secret"),
        ("GET /billing", of(&world, "revoked"), "revoked"),
        ("GET /billing", of(&world, "expired"), "expired"),
        ("GET /billing", of(&world, "listed"), "address_not_allowed"),
        ("GET /patients/1", of(&world, "billing"), "insufficient_scope"),
        ("GET /%70atients/1", of(&world, "billing"), "insufficient_scope"),
        ("GET /patients/1?/billing/", of(&world, "billing"), "insufficient_scope"),
        ("GET /billing", of(&world, "limited"), "permit"),
        ("GET /billing", of(&world, "limited"), "rate_limited"),
    ];
    let mut seen = BTreeSet::new();
    for (line, authorization, want) in rows {
        assert_eq!(world.label(line, authorization.as_deref()), want, "{line} {authorization:?}");
        seen.insert(want);
    }
    world.change(Change::User("member".parse().unwrap(), Some(member(false))));
    assert_eq!(world.label("GET /billing", of(&world, "personal").as_deref()), "user_access_disabled");
    assert_eq!(world.label("GET /billing", of(&world, "billing").as_deref()), "permit", "the practice's own clients go on");
    world.change(Change::Practice("p".parse().unwrap(), Some(practice(ApiAccess::Disabled))));
    assert_eq!(world.label("GET /billing", of(&world, "billing").as_deref()), "practice_access_disabled");
    assert_eq!(world.label("GET /billing", of(&world, "personal").as_deref()), "practice_access_disabled", "the practice is asked first");
    world.change(Change::Practice("p".parse().unwrap(), Some(practice(ApiAccess::Active))));
    world.change(Change::User("member".parse().unwrap(), Some(member(true))));
    for name in ["billing", "personal"] {
        assert_eq!(world.label("GET /billing", of(&world, name).as_deref()), "permit", "on again restores {name}");
    }
    world.replica.end_lease();
    for name in ["billing", "revoked"] {
        assert_eq!(world.label("GET /billing", of(&world, name).as_deref()), "unavailable");
    }
    assert_eq!(world.label("GET /docs/x", None), "permit", "a public route rests on nothing that could be stale");
    seen.extend(["user_access_disabled", "practice_access_disabled", "unavailable"]);
    // What is left belongs to the messages around the decision, and to the upstream; `secret_ended`, `too_many_failures` and
    // what is wrong with tokens have tests of their own.
    let elsewhere = [
        "malformed_message",
        "uri_too_long",
        "headers_too_large",
        "expectation_failed",
        "body_too_large",
        "request_timeout",
        "too_many_failures",
        "too_many_at_once",
        "overloaded",
        "upstream_busy",
        "no_server",
        "upstream_unreachable",
        "upstream_timeout",
        "internal_error",
        "secret_ended",
        "untrusted_token",
        "misdirected_token",
        "token_expired",
        "token_not_yet_valid",
        "token_revoked",
        "key_ended",
        "replayed",
    ];
    let every: BTreeSet<_> = Denial::every_label().into_iter().collect();
    seen.remove("permit");
    assert_eq!(seen.union(&BTreeSet::from(elsewhere)).copied().collect::<BTreeSet<_>>(), every);
}

#[test]
fn a_permit_is_looked_at_again_before_it_is_used() {
    let mut world = World::new();
    let permit = world.decide("GET /billing", Some(&world.basic("personal"))).unwrap();
    assert_eq!(world.gate.recheck(&permit), Ok(()));
    world.change(Change::Practice("other".parse().unwrap(), None));
    assert_eq!(world.gate.recheck(&permit), Ok(()), "a change that does not concern it");
    world.change(Change::User("member".parse().unwrap(), Some(member(false))));
    assert_eq!(world.gate.recheck(&permit), Err(Denial::UserDisabled));
    world.change(Change::User("member".parse().unwrap(), Some(member(true))));
    assert_eq!(world.gate.recheck(&permit), Ok(()));
    world.change(Change::Client(permit.party().and_then(Party::client_id).unwrap(), None));
    assert_eq!(world.gate.recheck(&permit).unwrap_err().label(), "unknown_client");
    world.replica.end_lease();
    assert_eq!(world.gate.recheck(&permit), Err(Denial::Unavailable));
}

#[test]
fn an_address_that_keeps_failing_is_told_to_wait_and_others_and_right_credentials_are_not() {
    let world = World::new();
    let right = world.basic("billing");
    for _ in 0..1000 {
        assert_eq!(world.label("GET /billing", Some("Basic YTpi")), "malformed_credential");
    }
    assert_eq!(world.label("GET /billing", Some("Basic YTpi")), "too_many_failures");
    assert_eq!(world.label("GET /billing", Some(&right)), "permit");
    assert_eq!(world.label("GET /billing", None), "credential_missing", "nothing was tried");
}
