//! A gate with everything that a decision looks at, in memory.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sigmagate::bearer::{Bearers, Own};
use sigmagate::cache::Replica;
use sigmagate::clock::{Timestamp, boot_time, now};
use sigmagate::credential::Secret;
use sigmagate::entity::{ApiAccess, Client, ClientKeys, Practice, StoredKey, StoredSecret};
use sigmagate::gate::{FailureBudget, Gate, Request};
use sigmagate::id::{ClientId, KeyId, Revision, RouteId, TokenId};
use sigmagate::limit::{Allowance, Tier, TierNames};
use sigmagate::route::{MethodSet, Requirement, Route, RouteTable};
use sigmagate::scope::{ScopeRegistry, ScopeToken};
use sigmagate::store::Snapshot;
use sigmagate::token::{AccessToken, Algorithm, Issuer, KeySet, KeySource, MasterKey, Means, SigningKey, Trust};
use sigmagate::upstream::{Server, Settings, Upstream};

/// How much of everything there is.
#[derive(Clone, Copy)]
pub struct Size {
    pub routes: u32,
    pub clients: u32,
    pub practices: u32,
}

/// A gate, and what its callers show.
pub struct World {
    pub gate: Gate,
    secret: Secret,
    size: Size,
    /// A token of ours.
    pub token: String,
    /// A token of an issuer, for a practice.
    pub foreign: String,
}

/// The id of the client with this number.
fn id(n: u32) -> ClientId {
    let mut letters = [0; 20];
    letters.iter_mut().enumerate().for_each(|(at, letter)| *letter = (n / 62u32.pow(u32::try_from(at % 4).unwrap_or(0)) % 62) as u8);
    ClientId::from_random(letters)
}

impl World {
    /// The `Authorization` of a client.
    pub fn basic(&self, client: u32) -> String {
        basic(&id(client).to_string(), self.secret.reveal())
    }

    /// A target that the scope of every client reaches, in the middle of the route map.
    pub fn target(&self) -> String {
        format!("/api/public/v1/service{}/invoices/17?page=2", self.size.routes / 2)
    }
}

/// A target that no client may reach, of so many routes.
pub fn forbidden(routes: u32) -> String {
    format!("/api/public/v1/service{}/patients/17", routes - 1)
}

/// The `Authorization` of somebody.
pub fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")))
}

/// A request that never ends to be needed.
pub fn request(authorization: &str, target: &str) -> Request<'static> {
    Request {
        method: b"GET",
        target: target.to_owned().leak().as_bytes(),
        authorization: Some(authorization.to_owned().leak().as_bytes()),
        peer: [127, 0, 0, 1].into(),
    }
}

/// A route map with so many routes.
pub fn table(registry: &ScopeRegistry, count: u32) -> RouteTable {
    let server = Server::new("127.0.0.1:9".parse().expect("an address"), None, "http://127.0.0.1:9".into());
    let upstream = Arc::new(Upstream::new("core", Settings::default(), vec![server]));
    let billing: ScopeToken = "billing".parse().expect("a scope");
    let scopes = registry.intern(&billing).expect("room for a scope");
    let clinical = registry.intern(&"clinical".parse().expect("a scope")).expect("room for a scope");
    let routes = (0..count)
        .map(|n| Route {
            id: RouteId(n),
            prefix: format!("/api/public/v1/service{n}").parse().expect("a prefix"),
            methods: MethodSet::ALL,
            // The last one is for nobody.
            requirement: Requirement::AnyOf(if n + 1 == count { clinical } else { scopes }),
            scopes: if n + 1 == count { "clinical" } else { "billing" }.into(),
            upstream: Arc::clone(&upstream),
            allow_path_parameters: false,
            websocket: false,
            forward_authorization: false,
            body_limit_bytes: 0,
            stale_grace: Duration::ZERO,
        })
        .collect();
    RouteTable::new(routes, false).expect("distinct prefixes")
}

/// Whose tokens are known to be genuine.
fn issuer(key: &SigningKey) -> Issuer {
    let mut keys = KeySet::default();
    keys.add(key.public().clone()).expect("one key");
    Issuer {
        trust: Trust {
            name: "https://login.test".into(),
            keys: KeySource::Set(Arc::new(keys)),
            audiences: vec!["https://api.test".into()],
            algorithms: vec![Algorithm::EdDsa],
            leeway: Duration::ZERO,
            refresh: Duration::from_secs(300),
        },
        client_claim: None,
        practice_claim: Some("practice".into()),
        user_claim: None,
        scope_claim: "scope".into(),
    }
}

/// A gate of this size.
pub fn world(size: Size) -> World {
    let Size { routes, clients, practices: practice_count } = size;
    let (registry, tiers) = (Arc::new(ScopeRegistry::default()), Arc::new(TierNames::default()));
    let master = MasterKey::parse(&STANDARD.encode([7; 32])).expect("32 bytes");
    let key = SigningKey::generate(Algorithm::EdDsa).expect("a key");
    let key_id: KeyId = key.kid().parse().expect("an id");
    let stored = StoredKey {
        sealed: master.seal(&StoredKey::purpose(&key_id), key.pkcs8()).into(),
        id: key_id,
        algorithm: Algorithm::EdDsa,
        created_at: Timestamp(0),
        signs_from: Some(Timestamp(0)),
        revoked_at: None,
    };
    let replica = Replica::new(Arc::clone(&registry), Arc::clone(&tiers)).with_master_key(Some(Arc::new(master)));
    let replica = Arc::new(replica);
    let secret = Secret::generate();
    let digest = secret.digest(None);
    let rows = (0..clients).map(|n| Client {
        id: id(n),
        practice_id: format!("p{}", n % practice_count).parse().expect("an id"),
        owner: None,
        name: "app".into(),
        scopes: vec!["billing".parse().expect("a scope")],
        allowed_addresses: vec![],
        tier: None,
        created_at: Timestamp(0),
        expires_at: None,
        revoked_at: None,
        secrets: vec![StoredSecret { generation: 1, digest: digest.clone(), created_at: Timestamp(0), expires_at: None, ended: false }],
        keys: ClientKeys::None,
    });
    let practices = (0..practice_count).map(|n| Practice {
        id: format!("p{n}").parse().expect("an id"),
        name: "p".into(),
        api_access: ApiAccess::Active,
    });
    replica.replace(Snapshot {
        head: Revision(1),
        practices: practices.collect(),
        clients: rows.collect(),
        signing_keys: vec![stored],
        ..Snapshot::default()
    });
    replica.extend_lease(boot_time().after(Duration::from_secs(36_000)));
    let budget = FailureBudget { per_minute: NonZeroU32::MAX, burst: NonZeroU32::MAX };
    let own = Own { issuer: "https://gw.test".into(), audience: "https://api.test".into() };
    let bearers = Arc::new(Bearers::new(Arc::clone(&replica), Arc::clone(&registry), Some(own.clone())));
    bearers.trust(&[Arc::new(issuer(&key))], |_, _| unreachable!("the keys are here"));
    let gate = Gate::new(replica, tiers, budget, None, bearers);
    let unlimited = Tier {
        name: "standard".into(),
        rate: Allowance { per_second: NonZeroU32::new(1_000_000_000).expect("not zero"), burst: NonZeroU32::MAX },
        practice: None,
        concurrent: None,
    };
    gate.install(Arc::new(table(&registry, routes)), [unlimited]);
    let client = id(clients / 2);
    let expires_at = now().after(Duration::from_secs(36_000));
    let token = key.sign(&AccessToken {
        issuer: own.issuer.to_string(),
        audience: own.audience.to_string(),
        client_id: client,
        practice_id: format!("p{}", clients / 2 % practice_count).parse().expect("an id"),
        means: Means::Secret(1),
        scopes: vec!["billing".parse().expect("a scope")],
        id: TokenId::random(),
        issued_at: now(),
        expires_at,
    });
    let foreign = json!({
        "iss": "https://login.test", "aud": "https://api.test", "exp": expires_at.0 / 1000, "practice": "p0", "scope": "billing",
    });
    let foreign = key.sign_json(&json!({ "alg": "EdDSA", "typ": "at+jwt" }), &foreign).expect("signed");
    let bearer = |token: String| format!("Bearer {token}");
    World { gate, secret, size, token: bearer(token.expect("signed")), foreign: bearer(foreign) }
}
