//! Bearer tokens (RFC 6750): for whom one speaks, and the memory of those that were found genuine.
//!
//! What is remembered is who somebody is, never what was decided: [`Bearer::stands`] asks the live state on every use.

mod holder;
mod managers;
mod trusted;

pub use holder::{Bearer, Origin};
pub use managers::Managers;
pub use trusted::{SignedBy, Trusted, Wanted};

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use moka::sync::Cache;

use crate::access::{CredentialFault, Denial};
use crate::cache::Replica;
use crate::clock::{self, Timestamp};
use crate::id::KeyId;
use crate::jwks::Remote;
use crate::scope::ScopeRegistry;
use crate::token::{ACCESS_TOKEN_TYPE, AccessToken, Algorithm, Claims, Compact, Expected, Invalid, Issuer, Spoken, Trust, verify};
use holder::{Holder, Narrowed};

/// How far the clocks of the nodes may be apart: a token of ours is good for so much longer, and may be from so far ahead.
pub const LEEWAY: Duration = Duration::from_secs(5);
/// What our own keys sign by.
const OWN_ALGORITHMS: [Algorithm; 2] = [Algorithm::EdDsa, Algorithm::Es256];
/// What remembered tokens may take, in bytes.
const MEMORY: u64 = 64 * 1024 * 1024;
/// What one takes beside its own length, about.
const OVERHEAD: u32 = 512;
/// The longest that a token is remembered; it is over sooner, mostly.
const REMEMBERED: Duration = Duration::from_hours(1);

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

/// Why a token could not be read.
#[derive(Debug)]
pub enum Unread {
    /// Something is wrong with it.
    Invalid(Invalid),
    /// It may be signed by a key that is still to be fetched.
    KeyWanted(Wanted),
}

impl Unread {
    /// Whether nobody can tell, since no key of its issuer could be fetched yet.
    #[must_use]
    pub const fn is_unavailable(&self) -> bool {
        matches!(self, Self::KeyWanted(wanted) if !wanted.has_keys)
    }
}

impl std::fmt::Display for Unread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Invalid(invalid) => invalid.fmt(f),
            Self::KeyWanted(_) if self.is_unavailable() => f.write_str("no key of its issuer could be fetched yet"),
            Self::KeyWanted(_) => f.write_str("it is signed by a key that its issuer does not have"),
        }
    }
}

impl From<Invalid> for Unread {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

impl From<Unread> for Denial {
    /// What it means if there is nothing more to be done about it.
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Invalid(invalid) => Self::CredentialInvalid(invalid.into()),
            // That its issuer does not answer is not the fault of the one who calls.
            Unread::KeyWanted(_) if unread.is_unavailable() => Self::Unavailable,
            Unread::KeyWanted(_) => Self::CredentialInvalid(CredentialFault::UntrustedToken),
        }
    }
}

/// A token as it came.
type Token = Arc<[u8]>;

/// Reads bearer tokens.
pub struct Bearers {
    replica: Arc<Replica>,
    registry: Arc<ScopeRegistry>,
    /// `None`: no tokens are issued here.
    own: Option<Own>,
    trusted: ArcSwap<Vec<Arc<Trusted>>>,
    /// Only what was found genuine is here, so nobody pushes out what others use without tokens of their own. The key is
    /// the token itself, compared in full.
    known: Cache<Token, Arc<Bearer>, foldhash::fast::RandomState>,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl Bearers {
    /// Reads tokens that are issued here, if any are.
    #[must_use]
    pub fn new(replica: Arc<Replica>, registry: Arc<ScopeRegistry>, own: Option<Own>) -> Self {
        let known = Cache::builder()
            .max_capacity(MEMORY)
            .weigher(|token: &Token, _: &Arc<Bearer>| u32::try_from(token.len()).unwrap_or(u32::MAX).saturating_add(OVERHEAD))
            .time_to_live(REMEMBERED)
            .build_with_hasher(foldhash::fast::RandomState::default());
        let trusted = ArcSwap::default();
        Self { replica, registry, own, trusted, known, hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    /// Trusts these issuers and no others, from now on and for what has begun. Keys that come from the same place as before
    /// are kept. `follow` makes what fetches the keys of one, which is then run on the runtime of the caller.
    pub fn trust(&self, issuers: &[Arc<Issuer>], follow: impl Fn(&Trust, &Arc<str>) -> Arc<Remote>) {
        let before = self.trusted.load_full();
        let now: Vec<_> = issuers
            .iter()
            .map(|issuer| match before.iter().find(|trusted| trusted.issuer().trust.name == issuer.trust.name) {
                Some(same) if same.issuer() == issuer => Arc::clone(same),
                other => Arc::new(Trusted::new(Arc::clone(issuer), other.map(|other| &**other), &follow)),
            })
            .collect();
        self.trusted.store(Arc::new(now.clone()));
        let mut changed = false;
        for gone in before.iter().filter(|old| !now.iter().any(|new| Arc::ptr_eq(old, new))) {
            gone.retire(now.iter().any(|new| new.shares_keys_with(gone)));
            changed = true;
        }
        if changed {
            self.replica.touch();
        }
    }

    /// Reads a token: one that is genuine, and whose time has come and is not over.
    ///
    /// # Errors
    /// [`Unread`] says what is wrong with it.
    pub fn read(&self, token: &[u8], now: Timestamp) -> Result<Arc<Bearer>, Unread> {
        if let Some(bearer) = self.known.get(token).filter(|bearer| !self.is_outdated(bearer)) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return if bearer.is_over(now) { Err(Invalid::Expired.into()) } else { Ok(bearer) };
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let token: Token = token.into();
        let bearer = Arc::new(self.verify(&token, now)?);
        self.known.insert(token, Arc::clone(&bearer));
        Ok(bearer)
    }

    /// The token as it would be read now: what its issuer is trusted for may be another thing than it was.
    ///
    /// # Errors
    /// [`Unread`] says what is wrong with it.
    pub fn again(&self, bearer: &Arc<Bearer>, now: Timestamp) -> Result<Arc<Bearer>, Unread> {
        if self.is_outdated(bearer) { self.read(&bearer.token, now) } else { Ok(Arc::clone(bearer)) }
    }

    /// As [`Bearers::read`], and waits for a key that is still to be fetched: 6 seconds at most.
    ///
    /// # Errors
    /// [`Unread`] says what is wrong with it.
    pub async fn find(&self, token: &[u8]) -> Result<Arc<Bearer>, Unread> {
        match self.read(token, clock::now()) {
            Err(Unread::KeyWanted(wanted)) => {
                wanted.fetch().await;
                self.read(token, clock::now())
            }
            read => read,
        }
    }

    /// Whether it has to be read anew, which then says what is wrong if something is.
    fn is_outdated(&self, bearer: &Bearer) -> bool {
        let ended = match &bearer.origin {
            Origin::Own { .. } => false,
            Origin::Trusted { issuer, key } => issuer.is_retired() || !issuer.vouches_for(key),
        };
        ended || bearer.scopes.is_outdated(&self.registry)
    }

    fn verify(&self, token: &Token, now: Timestamp) -> Result<Bearer, Unread> {
        let compact = Compact::parse(token)?;
        let trusted = self.trusted.load();
        let ours = |own: &&Own| {
            // With a key of ours it is ours or nobody's: an issuer only speaks by its own.
            trusted.is_empty()
                || compact.kid().is_some_and(|kid| self.replica.ring().verifying().find(Some(kid)).is_some())
                || compact.claimed("iss").is_some_and(|iss| *iss == *own.issuer)
        };
        if let Some(own) = self.own.as_ref().filter(ours) {
            return Ok(self.verify_own(token, &compact, own, now)?);
        }
        // Only to find the keys by: whether it is true the signature says.
        let claimed = compact.claimed("iss").ok_or(Invalid::Issuer)?;
        let issuer = trusted.iter().find(|trusted| *trusted.issuer().trust.name == *claimed).ok_or(Invalid::Issuer)?;
        self.verify_trusted(token, &compact, issuer, now)
    }

    fn verify_own(&self, text: &Token, compact: &Compact<'_>, own: &Own, now: Timestamp) -> Result<Bearer, Invalid> {
        let ring = self.replica.ring();
        let key = compact.kid().and_then(|kid| kid.parse::<KeyId>().ok()).ok_or(Invalid::UnknownKey)?;
        let claims = verify(compact, ring.verifying(), &OWN_ALGORITHMS)?.of_type(ACCESS_TOKEN_TYPE)?;
        let expected = Expected { issuer: &own.issuer, audiences: &[&own.audience], leeway: LEEWAY };
        let token = AccessToken::from_claims(&Claims::check(claims, &expected, now)?)?;
        Ok(Bearer {
            token: Arc::clone(text),
            origin: Origin::Own { token: token.id, key, means: token.means },
            holder: Holder::Client { id: token.client_id, practice: None, user: None },
            scopes: Narrowed::new(&token.scopes, &self.registry),
            issued_at: Some(token.issued_at),
            expires_at: token.expires_at,
            leeway: LEEWAY,
        })
    }

    fn verify_trusted(&self, text: &Token, compact: &Compact<'_>, trusted: &Arc<Trusted>, now: Timestamp) -> Result<Bearer, Unread> {
        let issuer = trusted.issuer();
        let (verified, key) = trusted.keys().verify(compact, &issuer.trust.algorithms)?;
        let Spoken { client, practice, user, scopes, expires_at, issued_at } = issuer.read(&verified, now)?;
        let mut scopes = scopes;
        if client.is_none() {
            // Every scope there will ever be is for a practice to grant: here nobody has.
            scopes.retain(|scope| !scope.is_all());
        }
        let holder = match (client, practice) {
            (Some(id), practice) => Holder::Client { id, practice, user },
            (None, Some(practice)) => Holder::Team { practice, user },
            (None, None) => return Err(Invalid::Claim("practice_claim").into()),
        };
        Ok(Bearer {
            token: Arc::clone(text),
            origin: Origin::Trusted { issuer: Arc::clone(trusted), key },
            holder,
            scopes: Narrowed::new(&scopes, &self.registry),
            issued_at,
            expires_at,
            leeway: issuer.trust.leeway,
        })
    }

    /// How often tokens were known.
    #[must_use]
    pub fn lookups(&self) -> Lookups {
        Lookups { hits: self.hits.load(Ordering::Relaxed), misses: self.misses.load(Ordering::Relaxed), entries: self.known.entry_count() }
    }
}
