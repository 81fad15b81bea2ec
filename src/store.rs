//! Where practices, users and clients are kept.
//!
//! Every backend passes the same suite (`tests/store`). Every change to a row that access depends on raises a numbered
//! change in the database itself, whoever makes it.

pub mod audit;
mod postgres;
pub mod records;
mod rows;
mod rules;
mod sqlite;
#[cfg(test)]
mod suite;
mod unclear;

pub use postgres::{Fleet, PgStore, Timing};
pub use records::Records;
pub use sqlite::SqliteStore;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::clock::{BootTime, Timestamp, boot_time};
use crate::entity::{ApiAccess, Client, ClientKeys, Practice, RevokedToken, Role, StoredKey, StoredSecret, User, Version};
use crate::id::{ClientId, KeyId, PracticeId, Revision, TokenId, UserId};
use crate::store::records::TeamSync;

/// Whether a URL names a database that a fleet can share, which is PostgreSQL; else it is a file of SQLite.
#[must_use]
pub fn is_fleet(url: &str) -> bool {
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

/// Opens the store at a URL. With `migrate` its schema is created or brought up to date first; without, it has to be.
///
/// # Errors
/// [`Error::Unusable`] says what is wrong and what to do.
pub async fn open(url: &str, fleet: &Fleet, migrate: bool) -> Result<Arc<dyn Store>, Error> {
    Ok(if is_fleet(url) { Arc::new(PgStore::open(url, fleet, migrate).await?) } else { Arc::new(SqliteStore::open(url, migrate).await?) })
}

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing of that id.
    #[error("there is no {what} `{id}`")]
    NotFound {
        /// `practice`, `user`, `client`, `secret` or `signing key`.
        what: &'static str,
        /// The id that was asked for.
        id: String,
    },
    /// The present state does not allow it; the text says which state and what would allow it.
    #[error("{0}")]
    Conflict(String),
    /// It is another one by now than the caller has looked at.
    #[error("{what} `{id}` has been changed since: look at it again")]
    Changed {
        /// `client`.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// The database cannot be used; the text says what to do.
    #[error("{message}")]
    Unusable {
        /// What is wrong and what to do.
        message: String,
        /// The cause.
        #[source]
        source: Option<sqlx::Error>,
    },
    /// This node is no longer in the register, so nobody waits for it: it has to stop answering at once, and join anew.
    #[error("{0}: the node stops answering, and joins anew")]
    Deposed(String),
    /// The database failed; a write may or may not have happened.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    /// A row says something that the program cannot understand, as after a change by hand.
    #[error("row `{key}` of table `{table}` is not understood: {why}")]
    Row {
        /// The table.
        table: &'static str,
        /// The row's key.
        key: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Who made a change, for the audit. The CLI on the local store is `operator`.
#[derive(Clone, Debug)]
pub struct Actor {
    /// `operator`, or `user:ID`.
    pub name: String,
    /// From where: `cli`, or an address.
    pub origin: String,
}

/// Takes in a reading of everything, one entity after the other, so that it is never all held twice.
pub trait Fill: Send {
    /// One practice.
    fn practice(&mut self, practice: Practice);
    /// One user.
    fn user(&mut self, user: User);
    /// About how many clients there will be, before the first.
    fn expect(&mut self, clients: usize);
    /// One client, with none, some or all of its secrets.
    fn client(&mut self, client: Client);
    /// One more secret of a client that has been given.
    fn secret(&mut self, of: ClientId, secret: StoredSecret);
    /// One signing key.
    fn signing_key(&mut self, key: StoredKey);
    /// One token that was revoked by itself.
    fn revoked_token(&mut self, token: RevokedToken);
    /// After everything else: what nobody is to be admitted by until more is told of it.
    fn fence(&mut self, of: &Subject);
}

/// Everything that access depends on, as of one revision, held in lists.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// The newest change that the snapshot includes.
    pub head: Revision,
    /// Every practice.
    pub practices: Vec<Practice>,
    /// Every user.
    pub users: Vec<User>,
    /// Every client, with its secrets.
    pub clients: Vec<Client>,
    /// Every signing key.
    pub signing_keys: Vec<StoredKey>,
    /// Every token that was revoked by itself, and is still remembered.
    pub revoked_tokens: Vec<RevokedToken>,
    /// What is about to lose access.
    pub fences: Vec<Subject>,
}

impl Fill for Snapshot {
    fn practice(&mut self, practice: Practice) {
        self.practices.push(practice);
    }

    fn user(&mut self, user: User) {
        self.users.push(user);
    }

    fn expect(&mut self, clients: usize) {
        self.clients.reserve(clients);
    }

    fn client(&mut self, client: Client) {
        self.clients.push(client);
    }

    fn secret(&mut self, of: ClientId, secret: StoredSecret) {
        let Some(client) = self.clients.iter_mut().find(|client| client.id == of) else { return };
        client.secrets.push(secret);
        client.secrets.sort_unstable_by_key(|secret| std::cmp::Reverse(secret.generation));
    }

    fn signing_key(&mut self, key: StoredKey) {
        self.signing_keys.push(key);
    }

    fn revoked_token(&mut self, token: RevokedToken) {
        self.revoked_tokens.push(token);
    }

    fn fence(&mut self, of: &Subject) {
        self.fences.push(of.clone());
    }
}

/// An entity that access depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A practice.
    Practice(PracticeId),
    /// A user.
    User(UserId),
    /// A client.
    Client(ClientId),
}

/// One entity as it is now; `None`: its row is gone.
#[derive(Clone, Debug)]
pub enum Change {
    /// A practice.
    Practice(PracticeId, Option<Practice>),
    /// A user.
    User(UserId, Option<User>),
    /// A client; a change to one of its secrets is a change to the client.
    Client(ClientId, Option<Client>),
    /// A signing key.
    SigningKey(KeyId, Option<StoredKey>),
    /// A token that was revoked by itself; `None`: it need not be remembered any longer.
    RevokedToken(TokenId, Option<RevokedToken>),
    /// Access is about to be taken from it, by a transaction that is waiting for every node to know: nobody is admitted by
    /// it until the next change of it. Comes after the change that tells what it is.
    Fenced(Subject),
}

/// What happened after some revision.
#[derive(Debug)]
pub enum Changes {
    /// Nothing has been committed since the last call.
    Unchanged,
    /// The entities that changed, as they are at `head`.
    Batch {
        /// The newest change that is included.
        head: Revision,
        /// How long before this was read the oldest of them was committed, by the database's clock.
        age: Duration,
        /// The entities, each once.
        changes: Vec<Change>,
    },
    /// The change log no longer reaches back that far, or goes less far than was asked (a backup was put in its place):
    /// take a snapshot.
    Gap,
}

/// A node's line to the change log. Not shared: each node has one, and calls it in turn.
#[async_trait]
pub trait Feed: Send {
    /// Registers the node, so that barriers wait for it. Before the snapshot, or a change in between could be missed by both.
    /// Returns its id. `instead_of` is what this process was before, and no longer answers as: nobody needs to wait for it.
    async fn register(&mut self, instead_of: Option<&str>) -> Result<String, Error>;
    /// Reads everything there is into `fill`, in one consistent reading; returns the newest change that it includes.
    ///
    /// # Errors
    /// What has been filled in by then is of no use.
    async fn snapshot(&mut self, fill: &mut dyn Fill) -> Result<Revision, Error>;
    /// What changed after `after`. A successful answer proves that, when it was asked, nothing else had been committed.
    ///
    /// # Errors
    /// Whenever that cannot be proven: the file is locked, gone, or another one; a trigger is missing; the node is no longer registered.
    async fn poll(&mut self, after: Revision) -> Result<Changes, Error>;
    /// Says how much longer than its lease this node would answer: the next polls write it down for the barriers.
    fn want_grace(&mut self, grace: Duration);
    /// How much of that barriers have known of since before the last successful poll.
    fn known_grace(&self) -> Duration;
    /// Tells barriers that everything up to `applied` is in force on this node.
    async fn acknowledge(&mut self, applied: Revision) -> Result<(), Error>;
    /// Takes the node out of the register; it must have stopped admitting.
    async fn leave(&mut self) -> Result<(), Error>;
    /// Waits until it is time to poll again.
    async fn due(&mut self);
    /// How long a call may take; by then it has failed.
    fn patience(&self) -> Duration;
    /// How many nodes the register had at the last poll, this one included; a store without a fleet has but one.
    fn nodes(&self) -> usize {
        1
    }
    /// A second line, for a store whose polls are too far apart for changes to wait for the next one.
    fn quick(&self) -> Option<Box<dyn Quick>> {
        None
    }
}

/// A line that learns of changes at once, but vouches for nothing: that it is silent does not prove that nothing has changed.
#[async_trait]
pub trait Quick: Send {
    /// Waits until something may have changed; once in a while, in vain, so that a dead line is found out.
    async fn hint(&mut self) -> Result<(), Error>;
    /// What changed after `after`.
    async fn read(&mut self, after: Revision) -> Result<Changes, Error>;
    /// As [`Feed::acknowledge`].
    async fn acknowledge(&mut self, applied: Revision) -> Result<(), Error>;
}

/// A change that is committed, but perhaps not yet in force. Only [`Store::barrier`] turns it into the [`Receipt`] that
/// callers are given, so nobody can forget to wait.
#[derive(Debug)]
#[must_use = "the change is in force everywhere only after `Store::barrier`"]
pub struct Committed {
    revision: Revision,
    at: BootTime,
    history: Option<String>,
}

impl Committed {
    /// A change whose commit has just been acknowledged. Waiting counts from now: from any earlier moment it would be
    /// too short for a node that proved itself current just before the commit.
    pub(crate) fn now(revision: Revision) -> Self {
        Self { revision, at: boot_time(), history: None }
    }

    /// A change whose commit has just been acknowledged, in this history of the database: no other one's register tells
    /// who has applied it.
    pub(crate) fn now_in(history: String, revision: Revision) -> Self {
        Self { history: Some(history), ..Self::now(revision) }
    }

    /// The history in which it was committed, where a database can have more than one.
    pub(crate) fn history(&self) -> Option<&str> {
        self.history.as_deref()
    }

    /// The change.
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// When its commit was acknowledged.
    pub const fn acknowledged_at(&self) -> BootTime {
        self.at
    }
}

/// A new client, as the store takes it.
#[derive(Clone, Debug)]
pub struct NewClient {
    /// The row, with its first secret.
    pub client: Client,
}

/// What became of each row, and the change that they were together, if any was in order.
pub type Synced = (Vec<Result<(), Error>>, Option<Committed>);

/// The rows behind the life cycle. Each call is one transaction that also writes the audit event.
#[async_trait]
pub trait Store: Records {
    /// Opens a node's line to the change log.
    async fn feed(&self) -> Result<Box<dyn Feed>, Error>;

    /// Every practice, by id.
    async fn practices(&self) -> Result<Vec<Practice>, Error>;
    /// One practice.
    async fn practice(&self, id: &PracticeId) -> Result<Practice, Error>;
    /// Creates the practice, with `none` as its API access, or renames it.
    async fn put_practice(&self, id: &PracticeId, name: &str, by: &Actor) -> Result<Committed, Error>;
    /// Moves the practice from one of the states `from` to `to`; [`Error::Conflict`] from any other.
    async fn set_practice_access(&self, id: &PracticeId, from: &[ApiAccess], to: ApiAccess, by: &Actor) -> Result<Committed, Error>;

    /// The users of a practice, by id.
    async fn users(&self, practice: &PracticeId) -> Result<Vec<User>, Error>;
    /// One user.
    async fn user(&self, id: &UserId) -> Result<User, Error>;
    /// Creates the user with API access off, or changes the role, or takes them back on the team. A user of another practice is a conflict.
    async fn put_user(&self, practice: &PracticeId, id: &UserId, role: Role, by: &Actor) -> Result<Committed, Error>;
    /// Turns the user's API access on or off.
    async fn set_user_access(&self, id: &UserId, on: bool, by: &Actor) -> Result<Committed, Error>;
    /// The user leaves the team, and their API access ends: back on the team, they start with it off.
    async fn remove_user(&self, id: &UserId, by: &Actor) -> Result<Committed, Error>;
    /// Takes in what SigmaMD says of its users: all in one transaction, but a row that is refused spoils no other. The rows
    /// count in their order, and each has its result: [`Error::Conflict`] for a user of another practice or a text of a wrong
    /// length, [`Error::NotFound`] where an unknown one was to be removed. A row that changes nothing leaves no trace. There
    /// is nothing to wait for if every row was refused.
    async fn sync_team(&self, practice: &PracticeId, rows: &[TeamSync], by: &Actor) -> Result<Synced, Error>;

    /// The clients of a practice, or of one owner, newest first; revoked ones too.
    async fn clients(&self, practice: Option<&PracticeId>, owner: Option<&UserId>) -> Result<Vec<Client>, Error>;
    /// One client.
    async fn client(&self, id: ClientId) -> Result<Client, Error>;
    /// Creates a client. In the same transaction: the practice is active, and the owner, if any, is on its team with the toggle on.
    async fn create_client(&self, new: &NewClient, by: &Actor) -> Result<Committed, Error>;
    /// Changes name, scopes, addresses, tier, expiry or keys of a client that is not revoked; what is `None` stays.
    async fn edit_client(&self, id: ClientId, edit: &ClientEdit, by: &Actor) -> Result<Committed, Error>;
    /// Adds a secret of the next generation. The one before it ends at `others_end` unless it ends sooner, and every older
    /// one ends `now`: a client has two live secrets at most.
    async fn add_secret(
        &self,
        id: ClientId,
        digest: &crate::credential::SecretDigest,
        now: Timestamp,
        others_end: Timestamp,
        by: &Actor,
    ) -> Result<(u32, Committed), Error>;
    /// Ends one secret now, if it has not ended already.
    async fn end_secret(&self, id: ClientId, generation: u32, now: Timestamp, by: &Actor) -> Result<Committed, Error>;
    /// Revokes a client for good; a client that is revoked already stays as it is.
    async fn revoke_client(&self, id: ClientId, now: Timestamp, by: &Actor) -> Result<Committed, Error>;

    /// Every signing key, the newest first.
    async fn signing_keys(&self) -> Result<Vec<StoredKey>, Error>;
    /// Adds a signing key, which signs nothing yet: its `signs_from` is `None`.
    async fn add_signing_key(&self, key: &StoredKey, by: &Actor) -> Result<Committed, Error>;
    /// Has a key sign from a moment on. Once it is planned it stays so: for the same moment again this changes nothing, for
    /// another one it is a [`Error::Conflict`], as for a revoked key.
    async fn plan_signing_key(&self, id: &KeyId, signs_from: Timestamp, by: &Actor) -> Result<Committed, Error>;
    /// Takes a key out of use for good; one that is revoked already stays as it is.
    async fn revoke_signing_key(&self, id: &KeyId, now: Timestamp, by: &Actor) -> Result<Committed, Error>;
    /// Revokes one token for good; one that is revoked already stays as it is. The ledger of the client's practice has it.
    async fn revoke_token(&self, token: &RevokedToken, by: &Actor) -> Result<Committed, Error>;
    /// Takes note that a client has used the assertion of this digest (RFC 7523 §3, `jti`), so that nobody uses it again on
    /// any node; false if it was used already. That there is such a client is not looked at. It is remembered until `until`, and a day longer. Raises no change.
    async fn use_assertion(&self, client: ClientId, digest: [u8; 32], until: Timestamp) -> Result<bool, Error>;
    /// Forgets revoked tokens and used assertions whose time was over a day ago, requests that came so long ago, mail that was
    /// sent or given up 30 days ago, and usage of 400 days ago, by the database's clock. Feeds do it by themselves once a
    /// minute.
    async fn prune_tokens(&self) -> Result<(), Error>;

    /// How long a node may answer after it last proved itself current.
    fn lease(&self) -> Duration;

    /// Whether one gateway alone can serve it at a time.
    fn serves_one(&self) -> bool;

    /// Waits until every registered node has applied the change or can no longer answer.
    ///
    /// # Errors
    /// If the register cannot be read; the change stands, and is in force everywhere after the lease length.
    async fn barrier(&self, committed: Committed) -> Result<Receipt, Error>;

    /// The audit events, oldest first: those of a practice, or all.
    async fn audit(&self, practice: Option<&PracticeId>) -> Result<Vec<audit::Event>, Error>;
}

/// What may be changed of a client; `None` stays as it is.
#[derive(Clone, Debug, Default)]
pub struct ClientEdit {
    /// For people.
    pub name: Option<String>,
    /// At least one.
    pub scopes: Option<Vec<crate::scope::ScopeToken>>,
    /// Empty: any address.
    pub allowed_addresses: Option<Vec<ipnet::IpNet>>,
    /// `Some(None)`: the standard tier.
    pub tier: Option<Option<String>>,
    /// `Some(None)`: never.
    pub expires_at: Option<Option<Timestamp>>,
    /// In the place of those before.
    pub keys: Option<ClientKeys>,
    /// Only if the client is still of this version: [`Error::Changed`] otherwise.
    pub only_if: Option<Version>,
}

/// How a change came into force.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Receipt {
    /// The change.
    pub revision: Revision,
    /// Nodes that have applied it.
    pub applied: u32,
    /// Nodes that had not, and can no longer answer.
    pub expired: u32,
    /// How long the change may take at the worst: a node that can neither apply it nor be asked has stopped answering by
    /// then, counted from the commit.
    #[serde(rename = "bound_ms", serialize_with = "as_millis")]
    pub bound: Duration,
    /// How long the call waited.
    #[serde(rename = "waited_ms", serialize_with = "as_millis")]
    pub waited: Duration,
}

fn as_millis<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
