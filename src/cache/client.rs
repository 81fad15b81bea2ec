//! One client as the hot path needs it.

use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use ipnet::IpNet;

use super::sync::{AtomicBool, Ordering};
use super::{PracticeCell, UserCell};
use crate::clock::Timestamp;
use crate::credential::{self, Presented, SecretDigest};
use crate::digest::sha256;
use crate::entity::{Client, ClientKeys, StoredSecret};
use crate::id::{ClientId, PracticeId, UserId};
use crate::limit::TierId;
use crate::scope::{ScopeRegistry, ScopeSet, ScopeToken};
use crate::token::{KeySet, Means, PublicKey};

/// How many ended secrets are kept, so that an owner can be told that an old one is still in use.
const ENDED_KEPT: usize = 4;

/// A client, with direct lines to its practice and its owner.
pub struct ClientRecord {
    id: ClientId,
    pub(super) practice: Arc<PracticeCell>,
    pub(super) owner: Option<Arc<UserCell>>,
    pub(super) granted: Arc<Granted>,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) revoked: bool,
    pub(super) fenced: AtomicBool,
    tier: TierId,
    secrets: Box<[LiveSecret]>,
    allowed: Box<[IpNet]>,
    keys: Option<Arc<OwnKeys>>,
}

/// The public keys of a client (RFC 7523), and what a token says of the one that it was got with.
#[derive(Debug)]
pub enum OwnKeys {
    /// These, and their thumbprints, which are what tokens say.
    Set(KeySet, Box<[String]>),
    /// Those that are found at an address.
    Url {
        /// The address.
        url: Arc<str>,
        /// What every token that was got with one of them says.
        mark: Box<str>,
    },
}

impl OwnKeys {
    fn new(id: ClientId, keys: &ClientKeys) -> Option<Self> {
        match keys {
            ClientKeys::None => None,
            ClientKeys::Url(url) => Some(Self::Url { url: Arc::clone(url), mark: URL_SAFE_NO_PAD.encode(sha256(url.as_bytes())).into() }),
            ClientKeys::Jwks(text) => match KeySet::from_jwks(text.as_bytes()) {
                Ok((keys, _)) => {
                    let marks = keys.iter().map(PublicKey::thumbprint).collect();
                    Some(Self::Set(keys, marks))
                }
                Err(error) => {
                    tracing::error!(client = %id, %error, "the keys of a client are not understood; nothing is admitted by them");
                    None
                }
            },
        }
    }

    /// Whether a token that says this of the key that it was got with still counts.
    fn has(&self, mark: &str) -> bool {
        match self {
            Self::Set(_, marks) => marks.iter().any(|own| own == mark),
            Self::Url { mark: own, .. } => **own == *mark,
        }
    }
}

struct LiveSecret {
    generation: u32,
    digest: SecretDigest,
    expires_at: Option<Timestamp>,
    /// Had ended when it was read: for good, even if the clock is set back.
    ended: bool,
}

/// Of those that ended, the newest are enough; the newest of all come first.
fn forget_the_oldest(secrets: &mut Vec<LiveSecret>) {
    let mut ended = 0;
    secrets.retain(|secret| {
        ended += usize::from(secret.ended);
        !secret.ended || ended <= ENDED_KEPT
    });
}

impl LiveSecret {
    fn new(secret: &StoredSecret, now: Timestamp) -> Self {
        Self { generation: secret.generation, digest: secret.digest.clone(), expires_at: secret.expires_at, ended: !secret.usable_at(now) }
    }

    fn usable_at(&self, now: Timestamp) -> bool {
        !self.ended && credential::usable_at(self.expires_at, now)
    }
}

/// Scopes granted, as bits and as the upstream is told.
pub(super) struct Granted {
    pub(super) set: ScopeSet,
    header: HeaderValue,
}

impl Granted {
    pub(super) fn new(text: &str, scopes: &[ScopeToken], registry: &ScopeRegistry) -> Self {
        // A name beyond the registry's limit can be asked for by no route, so leaving it out takes nothing away.
        let set = scopes.iter().filter_map(|scope| registry.intern(scope).ok()).fold(ScopeSet::EMPTY, ScopeSet::union);
        Self { set, header: header(text) }
    }
}

/// Who the caller is, as header values ready to be sent upstream.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The practice.
    pub practice_id: HeaderValue,
    /// The client, if it is one of ours.
    pub client_id: Option<HeaderValue>,
    /// The owner of a personal client.
    pub user_id: Option<HeaderValue>,
    /// Granted scopes, separated by blanks.
    pub scopes: HeaderValue,
}

/// Which of a client's secrets was presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretMatch {
    /// One that works; its generation.
    Usable(u32),
    /// One that has ended; its generation.
    Ended(u32),
    /// None of them.
    Wrong,
}

impl ClientRecord {
    pub(super) fn new(
        client: &Client,
        practice: Arc<PracticeCell>,
        owner: Option<Arc<UserCell>>,
        granted: Arc<Granted>,
        tier: TierId,
    ) -> Self {
        let now = crate::clock::now();
        let mut secrets = client.secrets.iter().map(|secret| LiveSecret::new(secret, now)).collect();
        forget_the_oldest(&mut secrets);
        Self {
            id: client.id,
            practice,
            owner,
            granted,
            expires_at: client.expires_at,
            revoked: client.revoked_at.is_some(),
            fenced: AtomicBool::new(false),
            tier,
            secrets: secrets.into(),
            allowed: client.allowed_addresses.clone().into(),
            keys: OwnKeys::new(client.id, &client.keys).map(Arc::new),
        }
    }

    /// Adds a secret that was read later, at `now`.
    pub(super) fn add_secret(&mut self, secret: &StoredSecret, now: Timestamp) {
        let mut secrets = std::mem::take(&mut self.secrets).into_vec();
        let place = secrets.partition_point(|known| known.generation > secret.generation);
        secrets.reserve_exact(1);
        secrets.insert(place, LiveSecret::new(secret, now));
        forget_the_oldest(&mut secrets);
        self.secrets = secrets.into();
    }

    /// The newer record, with what had ended for good here ended there as well; `None` where it is so already.
    pub(super) fn keep_ended(&self, newer: &Self) -> Option<Self> {
        let ended = |generation: u32| self.secrets.iter().any(|secret| secret.generation == generation && secret.ended);
        let forgotten = newer.secrets.iter().any(|secret| !secret.ended && ended(secret.generation));
        if !forgotten && (newer.revoked || !self.revoked) {
            return None;
        }
        let secrets = newer.secrets.iter().map(|secret| LiveSecret {
            generation: secret.generation,
            digest: secret.digest.clone(),
            expires_at: secret.expires_at,
            ended: secret.ended || ended(secret.generation),
        });
        Some(Self {
            id: newer.id,
            practice: Arc::clone(&newer.practice),
            owner: newer.owner.clone(),
            granted: Arc::clone(&newer.granted),
            expires_at: newer.expires_at,
            revoked: newer.revoked || self.revoked,
            fenced: AtomicBool::new(newer.fenced.load(Ordering::Acquire)),
            tier: newer.tier,
            secrets: secrets.collect(),
            allowed: newer.allowed.clone(),
            keys: newer.keys.clone(),
        })
    }

    /// Its id.
    pub const fn id(&self) -> ClientId {
        self.id
    }

    /// Its practice.
    pub fn practice_id(&self) -> &PracticeId {
        &self.practice.id
    }

    /// Its owner, when it is personal.
    pub fn owner_id(&self) -> Option<&UserId> {
        self.owner.as_ref().map(|owner| &owner.id)
    }

    /// The rate limit it has.
    pub const fn tier(&self) -> TierId {
        self.tier
    }

    /// Who the caller is, for the upstream.
    pub fn identity(&self) -> Identity {
        let mut text = [0; ClientId::LENGTH];
        Identity {
            practice_id: self.practice.header.clone(),
            client_id: Some(HeaderValue::from_bytes(self.id.write(&mut text)).expect("a client id is ASCII")),
            user_id: self.owner.as_ref().map(|owner| owner.header.clone()),
            scopes: self.granted.header.clone(),
        }
    }

    /// Which of the secrets was presented. Every one is compared, each in constant time.
    pub fn match_secret(&self, presented: &Presented, now: Timestamp) -> SecretMatch {
        let mut found = SecretMatch::Wrong;
        for secret in &self.secrets {
            if presented.proves(&secret.digest) {
                found = if secret.usable_at(now) { SecretMatch::Usable(secret.generation) } else { SecretMatch::Ended(secret.generation) };
            }
        }
        found
    }

    /// Its own keys, if it has any.
    pub fn keys(&self) -> Option<&OwnKeys> {
        self.keys.as_deref()
    }

    /// Whether it is revoked or expired: then nothing that it shows counts.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.revoked || self.expires_at.is_some_and(|end| now >= end)
    }

    /// Whether what a token was got with still works.
    pub fn means_usable(&self, means: &Means, now: Timestamp) -> bool {
        match means {
            Means::Secret(generation) => self.secret_usable(*generation, now),
            Means::Key(mark) => self.keys().is_some_and(|keys| keys.has(mark)),
        }
    }

    /// The scopes that it was granted.
    pub fn scopes(&self) -> ScopeSet {
        self.granted.set
    }

    /// Their names, separated by blanks.
    pub fn scope_text(&self) -> &str {
        self.granted.header.to_str().unwrap_or_default()
    }

    /// When it ends by itself, if it does.
    pub const fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at
    }

    /// When the secret of this generation ends, if it does.
    pub fn secret_end(&self, generation: u32) -> Option<Timestamp> {
        self.secrets.iter().find(|secret| secret.generation == generation).and_then(|secret| secret.expires_at)
    }

    /// Whether the secret of this generation still works.
    pub fn secret_usable(&self, generation: u32, now: Timestamp) -> bool {
        self.secrets.iter().any(|secret| secret.generation == generation && secret.usable_at(now))
    }

    pub(super) fn allows(&self, peer: IpAddr) -> bool {
        // An IPv4 caller on a dual-stack socket arrives as ::ffff:a.b.c.d; the list says a.b.c.d.
        let peer = peer.to_canonical();
        self.allowed.is_empty() || self.allowed.iter().any(|net| net.contains(&peer))
    }
}

pub(super) fn header(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("ids and scopes are printable ASCII")
}
