//! The hot cache: a complete replica, in memory, of what access depends on, and the lease that vouches for it.
//!
//! Filled by a snapshot, kept by ordered changes. Nothing is ever looked up in the store for a request: who is not
//! here does not exist.

mod client;
mod filling;
mod freshness;
mod party;
mod ring;
mod sync;

pub use client::{ClientRecord, Identity, OwnKeys, SecretMatch};
pub use filling::Filling;
pub use freshness::{Epoch, Stale};
pub use party::{Party, TeamRecord};
pub use ring::KeyRing;

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use dashmap::DashMap;
use http::HeaderValue;

use crate::access::{Facts, OwnerFacts};
use crate::clock::{self, BootTime, Timestamp};
use crate::entity::{ApiAccess, Client, Practice, RevokedToken, StoredKey, User};
use crate::id::{ClientId, KeyId, PracticeId, Revision, TokenId, UserId};
use crate::limit::TierNames;
use crate::scope::ScopeRegistry;
use crate::store::{Change, Fill, Snapshot, Subject};
use crate::token::MasterKey;
use client::Granted;
use freshness::Freshness;
use sync::{AtomicBool, AtomicU8, AtomicU64, Ordering};

type Map<K, V> = DashMap<K, V, foldhash::fast::RandomState>;

/// Proof that everything up to a revision is in force on this node: what an acknowledgement needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied(Revision);

impl Applied {
    /// The newest change in force.
    #[must_use]
    pub const fn revision(self) -> Revision {
        self.0
    }
}

/// The replica of one node.
pub struct Replica {
    freshness: Freshness,
    tables: ArcSwap<Tables>,
    scopes: Arc<ScopeRegistry>,
    tiers: Arc<TierNames>,
    /// What signing keys are opened with; without, there are none.
    master: Option<Arc<MasterKey>>,
    settle: OnceLock<Settle>,
    /// The longest grace that a route wants, in nanoseconds.
    wanted_grace: AtomicU64,
}

/// What is to happen when something has changed, before the change counts as applied.
pub type Settle = Box<dyn Fn(&Touched<'_>) + Send + Sync>;

/// What has changed.
#[derive(Clone, Copy, Debug)]
pub enum Touched<'a> {
    /// These entities.
    These(&'a [Change]),
    /// Anything may have: the contents were replaced, or nobody vouches for them any more.
    Anything,
}

/// How many entities the replica holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    /// Practices.
    pub practices: usize,
    /// Users.
    pub users: usize,
    /// Clients, revoked ones too.
    pub clients: usize,
}

#[derive(Default)]
struct Tables {
    practices: Map<PracticeId, Arc<PracticeCell>>,
    users: Map<UserId, Arc<UserCell>>,
    clients: Map<ClientId, Arc<ClientRecord>>,
    /// Grants that many clients share, each kept once.
    grants: Map<Box<str>, Arc<Granted>>,
    /// Tokens that were revoked by themselves, and when they would have expired.
    revoked_tokens: Map<TokenId, Timestamp>,
    ring: ArcSwap<KeyRing>,
}

/// The contents at one moment, for who judges by them.
pub struct View<'a>(&'a Tables);

impl View<'_> {
    /// A client.
    #[must_use]
    pub fn client(&self, id: ClientId) -> Option<Arc<ClientRecord>> {
        self.0.clients.get(&id).map(|entry| Arc::clone(&entry))
    }

    /// A practice, and one of its people, as an issuer names them; with the client through which they come, if there is one.
    #[must_use]
    pub fn team(&self, practice: &PracticeId, user: Option<&UserId>, client: Option<Arc<ClientRecord>>) -> TeamRecord {
        TeamRecord::find(self.0, practice, user, client)
    }

    /// Whether a token was revoked by itself.
    #[must_use]
    pub fn is_revoked(&self, token: TokenId) -> bool {
        self.0.revoked_tokens.contains_key(&token)
    }

    /// Whether what this key of ours has signed still counts.
    #[must_use]
    pub fn trusts(&self, key: &KeyId) -> bool {
        self.0.ring.load().trusts(key)
    }
}

/// A practice; its clients point here, so that one store switches them all.
struct PracticeCell {
    id: PracticeId,
    header: HeaderValue,
    access: AtomicU8,
    fenced: AtomicBool,
}

/// A user; their personal clients point here.
struct UserCell {
    id: UserId,
    header: HeaderValue,
    practice: OnceLock<Arc<PracticeCell>>,
    flags: AtomicU8,
}

const API_ACCESS: u8 = 1;
const ON_TEAM: u8 = 2;
const FENCED: u8 = 4;

impl Replica {
    /// An empty replica without a lease: it admits nobody.
    #[must_use]
    pub fn new(scopes: Arc<ScopeRegistry>, tiers: Arc<TierNames>) -> Self {
        Self {
            freshness: Freshness::new(),
            tables: ArcSwap::default(),
            scopes,
            tiers,
            master: None,
            settle: OnceLock::new(),
            wanted_grace: AtomicU64::new(0),
        }
    }

    /// The same, with signing keys, which are opened with this key.
    #[must_use]
    pub fn with_master_key(self, master: Option<Arc<MasterKey>>) -> Self {
        Self { master, ..self }
    }

    /// Has `settle` run after each change and before it counts as applied, and when the lease ends: what rests on an
    /// earlier decision is to be ended by it. Only the first one counts.
    pub fn on_change(&self, settle: Settle) {
        let _ = self.settle.set(settle);
    }

    fn settle(&self, touched: &Touched<'_>) {
        if let Some(settle) = self.settle.get() {
            settle(touched);
        }
    }

    /// Begins to fill new tables aside: nobody waits, and nobody sees half of them.
    #[must_use]
    pub fn filling(&self) -> Filling<'_> {
        Filling { replica: self, tables: Tables::default(), begun: clock::now() }
    }

    /// Puts a snapshot in the place of everything held so far.
    pub fn replace(&self, snapshot: Snapshot) -> Applied {
        let mut filling = self.filling();
        snapshot.practices.into_iter().for_each(|practice| filling.practice(practice));
        snapshot.users.into_iter().for_each(|user| filling.user(user));
        snapshot.clients.into_iter().for_each(|client| filling.client(client));
        snapshot.signing_keys.into_iter().for_each(|key| filling.signing_key(key));
        snapshot.revoked_tokens.into_iter().for_each(|token| filling.revoked_token(token));
        snapshot.fences.iter().for_each(|subject| filling.fence(subject));
        filling.finish(snapshot.head)
    }

    /// Applies the changes from `base` to `head`, unless the replica is further on already, so that an older answer never
    /// undoes a newer one; nor if it has been put back to before `base`.
    pub fn apply(&self, base: Revision, head: Revision, changes: &[Change]) -> Applied {
        let write = || {
            let tables = self.tables.load();
            for change in changes {
                match change {
                    Change::Practice(id, practice) => tables.set_practice(id, practice.as_ref()),
                    Change::User(id, user) => tables.set_user(id, user.as_ref()),
                    Change::Client(id, client) => self.set_client(&tables, *id, client.as_ref()),
                    Change::SigningKey(id, key) => self.set_key(&tables, id, key.clone()),
                    Change::RevokedToken(id, token) => tables.set_token(*id, token.as_ref()),
                    Change::Fenced(subject) => tables.fence(subject),
                }
            }
        };
        self.freshness.apply(base.0, head.0, write, || self.settle(&Touched::These(changes)));
        Applied(self.applied())
    }

    /// Has everything that rests on an earlier decision ask again: something beside the contents has changed.
    pub fn touch(&self) {
        self.freshness.touch(|| self.settle(&Touched::Anything));
    }

    /// Vouches for the replica until `until`. Only for a moment counted from *before* the store was asked, by an answer
    /// that has been applied.
    pub fn extend_lease(&self, until: BootTime) {
        self.freshness.extend(until.0);
    }

    /// Ends the lease: nobody is admitted until it is extended again.
    pub fn end_lease(&self) {
        self.freshness.end();
        self.settle(&Touched::Anything);
    }

    /// Has the cut end what no longer holds once the lease has run out, while others still have their grace.
    pub fn lapse(&self) {
        self.settle(&Touched::Anything);
    }

    /// Says how long after the lease the most lenient route would go on. Nobody does until the register of nodes knows,
    /// so that barriers wait as long.
    pub fn want_grace(&self, longest: Duration) {
        self.wanted_grace.store(nanos(longest), Ordering::Release);
    }

    /// What [`Replica::want_grace`] was told last.
    #[must_use]
    pub fn wanted_grace(&self) -> Duration {
        Duration::from_nanos(self.wanted_grace.load(Ordering::Acquire))
    }

    /// Allows a grace after the lease, up to `most`: no more than the register of nodes knows of, and will until this is
    /// called again.
    pub fn allow_grace(&self, most: Duration) {
        self.freshness.set_grace(nanos(most));
    }

    /// The grace that is allowed.
    #[must_use]
    pub fn grace(&self) -> Duration {
        Duration::from_nanos(self.freshness.grace())
    }

    /// Until when the replica may be believed.
    #[must_use]
    pub fn lease_until(&self) -> BootTime {
        BootTime(self.freshness.lease_until())
    }

    /// The newest change in force.
    #[must_use]
    pub fn applied(&self) -> Revision {
        Revision(self.freshness.applied())
    }

    /// How much is held.
    #[must_use]
    pub fn entries(&self) -> Entries {
        self.tables.load().entries()
    }

    /// Reads a client and what `judge` makes of it, at one moment at which the replica was whole and vouched for.
    ///
    /// `judge` may run more than once, when changes come in meanwhile. `grace` is how long after the end of the lease the
    /// replica is still good enough, as far as that is allowed.
    ///
    /// # Errors
    /// [`Stale`] without a valid lease.
    pub fn read<T>(
        &self,
        id: ClientId,
        grace: Duration,
        mut judge: impl FnMut(Option<&Arc<ClientRecord>>) -> T,
    ) -> Result<(T, Epoch), Stale> {
        self.freshness.read(nanos(grace), || clock::boot_time().0, || judge(self.tables.load().clients.get(&id).as_deref()))
    }

    /// As [`Replica::read`], of whatever `judge` looks at.
    ///
    /// # Errors
    /// [`Stale`] without a valid lease.
    pub fn view<T>(&self, grace: Duration, mut judge: impl FnMut(&View<'_>) -> T) -> Result<(T, Epoch), Stale> {
        self.freshness.read(nanos(grace), || clock::boot_time().0, || judge(&View(&self.tables.load())))
    }

    /// The signing keys as they are now.
    #[must_use]
    pub fn ring(&self) -> Arc<KeyRing> {
        self.tables.load().ring.load_full()
    }

    /// Whether nothing has changed since `epoch`, and the lease still holds, or the grace.
    #[must_use]
    pub fn unchanged_since(&self, epoch: Epoch, grace: Duration) -> bool {
        self.freshness.unchanged_since(epoch, nanos(grace), || clock::boot_time().0)
    }

    /// The record of a client whether or not the replica may be believed: for explanations, not for decisions.
    #[must_use]
    pub fn peek(&self, id: ClientId) -> Option<Arc<ClientRecord>> {
        self.tables.load().clients.get(&id).map(|entry| Arc::clone(&entry))
    }

    fn set_key(&self, tables: &Tables, id: &KeyId, key: Option<StoredKey>) {
        let ring = tables.ring.load().with(id, key, self.master.as_deref());
        tables.ring.store(Arc::new(ring));
    }

    fn set_client(&self, tables: &Tables, id: ClientId, client: Option<&Client>) {
        let Some(client) = client else {
            tables.clients.remove(&id);
            return;
        };
        let key = client.scopes.iter().map(crate::scope::ScopeToken::as_str).collect::<Vec<_>>().join(" ");
        let granted = tables.grants.get(&*key).map(|entry| Arc::clone(&entry));
        let granted = granted.unwrap_or_else(|| {
            let granted = Arc::new(Granted::new(&key, &client.scopes, &self.scopes));
            tables.grants.insert(key.into(), Arc::clone(&granted));
            granted
        });
        let practice = tables.practice(&client.practice_id);
        let owner = client.owner.as_ref().map(|owner| tables.user(owner));
        let record = ClientRecord::new(client, practice, owner, granted, self.tiers.intern(client.tier.as_deref()));
        tables.clients.insert(id, Arc::new(record));
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Tables {
    fn entries(&self) -> Entries {
        Entries { practices: self.practices.len(), users: self.users.len(), clients: self.clients.len() }
    }

    /// The cell of a practice; one that nobody has told us about is off.
    fn practice(&self, id: &PracticeId) -> Arc<PracticeCell> {
        if let Some(cell) = self.practices.get(id) {
            return Arc::clone(&cell);
        }
        let cell = PracticeCell {
            id: id.clone(),
            header: client::header(id.as_str()),
            access: AtomicU8::new(ApiAccess::None as u8),
            fenced: AtomicBool::new(false),
        };
        Arc::clone(&self.practices.entry(id.clone()).or_insert(Arc::new(cell)))
    }

    /// The cell of a user; one that nobody has told us about is off.
    fn user(&self, id: &UserId) -> Arc<UserCell> {
        if let Some(cell) = self.users.get(id) {
            return Arc::clone(&cell);
        }
        let cell = UserCell { id: id.clone(), header: client::header(id.as_str()), practice: OnceLock::new(), flags: AtomicU8::new(0) };
        Arc::clone(&self.users.entry(id.clone()).or_insert(Arc::new(cell)))
    }

    fn set_practice(&self, id: &PracticeId, practice: Option<&Practice>) {
        let access = practice.map_or(ApiAccess::None, |practice| practice.api_access);
        let cell = self.practice(id);
        cell.access.store(access as u8, Ordering::Release);
        cell.fenced.store(false, Ordering::Release);
    }

    fn set_user(&self, id: &UserId, user: Option<&User>) {
        let cell = self.user(id);
        let mut flags = 0;
        if let Some(user) = user {
            let practice = self.practice(&user.practice_id);
            // A user never changes practice; should the table say so all the same, the user is on no team.
            let same = Arc::ptr_eq(cell.practice.get_or_init(|| Arc::clone(&practice)), &practice);
            flags = if user.api_access { API_ACCESS } else { 0 } | if user.left_at.is_none() && same { ON_TEAM } else { 0 };
        }
        cell.flags.store(flags, Ordering::Release);
    }

    fn set_token(&self, id: TokenId, token: Option<&RevokedToken>) {
        match token {
            Some(token) => drop(self.revoked_tokens.insert(id, token.expires_at)),
            None => drop(self.revoked_tokens.remove(&id)),
        }
    }

    /// Until the subject is told of anew.
    fn fence(&self, subject: &Subject) {
        match subject {
            Subject::Practice(id) => self.practice(id).fenced.store(true, Ordering::Release),
            Subject::User(id) => drop(self.user(id).flags.fetch_or(FENCED, Ordering::AcqRel)),
            Subject::Client(id) => {
                if let Some(client) = self.clients.get(id) {
                    client.fenced.store(true, Ordering::Release);
                }
            }
        }
    }
}

impl PracticeCell {
    fn is_fenced(&self) -> bool {
        self.fenced.load(Ordering::Acquire)
    }

    fn access(&self) -> ApiAccess {
        let access = self.access.load(Ordering::Acquire);
        ApiAccess::EVERY.iter().copied().find(|word| *word as u8 == access).unwrap_or(ApiAccess::None)
    }
}

impl UserCell {
    fn is_fenced(&self) -> bool {
        self.flags.load(Ordering::Acquire) & FENCED != 0
    }
}

/// What is true of a user of a practice; somebody of whom nobody has told us is not on its team.
fn owner_facts(of: Option<(&Arc<UserCell>, &Arc<PracticeCell>)>) -> OwnerFacts {
    let Some((user, practice)) = of else { return OwnerFacts { api_access: false, on_team: false } };
    let flags = user.flags.load(Ordering::Acquire);
    let same_practice = user.practice.get().is_some_and(|of_user| Arc::ptr_eq(of_user, practice));
    OwnerFacts { api_access: flags & API_ACCESS != 0, on_team: flags & ON_TEAM != 0 && same_practice }
}

impl std::fmt::Debug for ClientRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ClientRecord({})", self.id())
    }
}

impl ClientRecord {
    /// What is true of the client for a caller at `peer` at `now`.
    #[must_use]
    pub fn facts(&self, peer: IpAddr, now: Timestamp) -> Facts {
        let fenced =
            self.fenced.load(Ordering::Acquire) || self.practice.is_fenced() || self.owner.as_ref().is_some_and(|owner| owner.is_fenced());
        Facts {
            fenced,
            revoked: self.revoked,
            expired: self.expires_at.is_some_and(|end| now >= end),
            practice: self.practice.access(),
            owner: self.owner.as_ref().map(|owner| owner_facts(Some((owner, &self.practice)))),
            address_allowed: self.allows(peer),
            scopes: self.granted.set,
        }
    }
}

#[cfg(test)]
mod tests;
