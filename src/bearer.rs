//! Bearer tokens (RFC 6750): for whom one speaks, and the memory of those that were found genuine.
//!
//! What is remembered is who somebody is, never what was decided: [`Bearer::stands`] asks the live state on every use.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderValue;
use moka::sync::Cache;

use crate::access::{CredentialFault, Facts};
use crate::cache::{Party, Replica, View};
use crate::clock::Timestamp;
use crate::id::{ClientId, KeyId, TokenId};
use crate::scope::{ScopeRegistry, ScopeSet, ScopeToken};
use crate::token::{ACCESS_TOKEN_TYPE, AccessToken, Algorithm, Claims, Compact, Expected, Invalid, Means, verify};

/// How far the clocks of the nodes may be apart: a token is good for so much longer, and may be from so far ahead.
pub const LEEWAY: Duration = Duration::from_secs(5);
/// What our own keys sign by.
const OWN_ALGORITHMS: [Algorithm; 2] = [Algorithm::EdDsa, Algorithm::Es256];
/// What remembered tokens may take, in bytes.
const MEMORY: u64 = 64 * 1024 * 1024;
/// What one takes beside its own length, about.
const OVERHEAD: u32 = 512;
/// The longest that a token is remembered; it is over sooner, mostly.
const REMEMBERED: Duration = Duration::from_hours(1);

/// A token that was found genuine.
#[derive(Debug)]
pub struct Bearer {
    client: ClientId,
    means: Means,
    token: TokenId,
    key: KeyId,
    scopes: Narrowed,
    issued_at: Timestamp,
    expires_at: Timestamp,
}

/// The scopes that a token was made for: at most those that count now.
#[derive(Debug)]
struct Narrowed {
    set: ScopeSet,
    names: Box<[(ScopeToken, ScopeSet)]>,
    header: HeaderValue,
    /// Some name was not known yet when the token was read: it is to be read again once more names are.
    known_of: Option<usize>,
}

impl Narrowed {
    fn new(scopes: &[ScopeToken], registry: &ScopeRegistry) -> Self {
        let known = registry.known();
        let names: Vec<_> = scopes.iter().filter_map(|scope| registry.find(scope).map(|set| (scope.clone(), set))).collect();
        let set = names.iter().fold(ScopeSet::EMPTY, |all, (_, set)| all.union(*set));
        let known_of = (names.len() < scopes.len()).then_some(known);
        Self { set, header: header(names.iter().map(|(name, _)| name)), names: names.into(), known_of }
    }
}

fn header<'a>(names: impl Iterator<Item = &'a ScopeToken>) -> HeaderValue {
    let text = names.map(ScopeToken::as_str).collect::<Vec<_>>().join(" ");
    HeaderValue::try_from(text).expect("scopes are printable ASCII")
}

impl Bearer {
    /// The client that it was issued to.
    #[must_use]
    pub const fn client_id(&self) -> ClientId {
        self.client
    }

    /// What it was got with.
    #[must_use]
    pub const fn means(&self) -> &Means {
        &self.means
    }

    /// Its own id.
    #[must_use]
    pub const fn token_id(&self) -> TokenId {
        self.token
    }

    /// When it was issued.
    #[must_use]
    pub const fn issued_at(&self) -> Timestamp {
        self.issued_at
    }

    /// From when on it is over, but for the leeway.
    #[must_use]
    pub const fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// For whom it speaks, and what is true of them now.
    ///
    /// # Errors
    /// Why it counts no longer, though it is genuine and its time is not over.
    pub fn stands(&self, view: &View<'_>, peer: IpAddr, now: Timestamp) -> Result<(Party, Facts), CredentialFault> {
        if !view.trusts(&self.key) {
            return Err(CredentialFault::KeyEnded);
        }
        if view.is_revoked(self.token) {
            return Err(CredentialFault::TokenRevoked);
        }
        let client = view.client(self.client).ok_or(CredentialFault::UnknownClient)?;
        if !client.means_usable(&self.means, now) {
            return Err(match self.means {
                Means::Secret(_) => CredentialFault::SecretEnded,
                Means::Key(_) => CredentialFault::KeyEnded,
            });
        }
        let facts = client.facts(peer, now);
        let scopes = facts.scopes.intersection(self.scopes.set);
        Ok((Party::Client(client), Facts { scopes, ..facts }))
    }

    /// The names of the scopes that count: those of the token that `party` still has.
    #[must_use]
    pub fn scopes(&self, party: &Party) -> HeaderValue {
        let Some(client) = party.client() else { return self.scopes.header.clone() };
        let granted = client.scopes();
        if granted.covers(self.scopes.set) {
            return self.scopes.header.clone();
        }
        if self.scopes.set == ScopeSet::ALL {
            return HeaderValue::from_str(client.scope_text()).expect("scopes are printable ASCII");
        }
        header(self.scopes.names.iter().filter(|(_, set)| granted.covers(*set)).map(|(name, _)| name))
    }
}

/// How often a token was known already, and how often it had to be verified.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lookups {
    /// Known.
    pub hits: u64,
    /// Verified, or found not to be genuine.
    pub misses: u64,
    /// How many are remembered.
    pub entries: u64,
}

/// Who issues tokens here, and for what.
#[derive(Clone, Debug)]
pub struct Own {
    /// `iss`.
    pub issuer: Arc<str>,
    /// `aud`.
    pub audience: Arc<str>,
}

/// A token as it came.
type Token = Box<[u8]>;

/// Reads bearer tokens.
pub struct Bearers {
    replica: Arc<Replica>,
    registry: Arc<ScopeRegistry>,
    own: Own,
    /// Only what was found genuine is here, so nobody pushes out what others use without tokens of their own. The key is
    /// the token itself, compared in full.
    known: Cache<Token, Arc<Bearer>, foldhash::fast::RandomState>,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl Bearers {
    /// Reads tokens of this issuer, which is ourselves.
    #[must_use]
    pub fn new(replica: Arc<Replica>, registry: Arc<ScopeRegistry>, own: Own) -> Self {
        let known = Cache::builder()
            .max_capacity(MEMORY)
            .weigher(|token: &Token, _: &Arc<Bearer>| u32::try_from(token.len()).unwrap_or(u32::MAX).saturating_add(OVERHEAD))
            .time_to_live(REMEMBERED)
            .build_with_hasher(foldhash::fast::RandomState::default());
        Self { replica, registry, own, known, hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    /// Who issues tokens here.
    #[must_use]
    pub const fn own(&self) -> &Own {
        &self.own
    }

    /// Reads a token: one that is genuine, and whose time has come and is not over.
    ///
    /// # Errors
    /// [`Invalid`] says what is wrong with it.
    pub fn read(&self, token: &[u8], now: Timestamp) -> Result<Arc<Bearer>, Invalid> {
        if let Some(bearer) = self.known.get(token).filter(|bearer| !self.is_outdated(bearer)) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return if now < bearer.expires_at.after(LEEWAY) { Ok(bearer) } else { Err(Invalid::Expired) };
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let bearer = Arc::new(self.verify(token, now)?);
        self.known.insert(token.into(), Arc::clone(&bearer));
        Ok(bearer)
    }

    fn is_outdated(&self, bearer: &Bearer) -> bool {
        bearer.scopes.known_of.is_some_and(|known| self.registry.known() != known)
    }

    fn verify(&self, token: &[u8], now: Timestamp) -> Result<Bearer, Invalid> {
        let compact = Compact::parse(token)?;
        let ring = self.replica.ring();
        let kid = compact.kid().and_then(|kid| kid.parse::<KeyId>().ok()).ok_or(Invalid::UnknownKey)?;
        let claims = verify(&compact, ring.verifying(), &OWN_ALGORITHMS)?.of_type(ACCESS_TOKEN_TYPE)?;
        let expected = Expected { issuer: &self.own.issuer, audiences: &[&self.own.audience], leeway: LEEWAY };
        let token = AccessToken::from_claims(&Claims::check(claims, &expected, now)?)?;
        Ok(Bearer {
            client: token.client_id,
            means: token.means,
            token: token.id,
            key: kid,
            scopes: Narrowed::new(&token.scopes, &self.registry),
            issued_at: token.issued_at,
            expires_at: token.expires_at,
        })
    }

    /// How often tokens were known.
    #[must_use]
    pub fn lookups(&self) -> Lookups {
        Lookups { hits: self.hits.load(Ordering::Relaxed), misses: self.misses.load(Ordering::Relaxed), entries: self.known.entry_count() }
    }
}
