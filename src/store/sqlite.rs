//! The embedded store: one SQLite file, one gateway, and any number of command lines beside it.

mod barrier;
mod changes;
mod connections;
mod fault;
mod feed;
mod ledger;
mod lock;
mod open;
mod packed;
mod read;
mod records;
mod rows;
mod sound;
mod team;
mod tokens;
mod write;
mod written;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use sqlx::pool::PoolConnection;
use sqlx::{ConnectOptions, Sqlite};

use self::connections::Connections;
use self::fault::explain;
use self::feed::SqliteFeed;
use self::lock::{ServeLock, Watched};
use self::open::Schema;
use self::sound::Sound;
use crate::clock::Timestamp;
use crate::credential::SecretDigest;
use crate::entity::{ApiAccess, Client, Practice, RevokedToken, Role, StoredKey, User};
use crate::id::{ClientId, KeyId, PracticeId, UserId};
use crate::store::records::TeamSync;
use crate::store::{Actor, ClientEdit, Committed, Error, Feed, NewClient, Receipt, Store, Synced, audit, rules};

/// How long a node may answer after it last proved itself current.
pub const LEASE: Duration = Duration::from_secs(1);

/// How long to wait for another process's transaction.
const BUSY: Duration = Duration::from_secs(5);

/// The embedded store.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    shared: Arc<Shared>,
}

/// What the store and its feeds have in common.
#[derive(Debug)]
struct Shared {
    path: PathBuf,
    connections: Arc<Connections>,
    schema: Schema,
    sound: Sound,
    /// Held from the first registration until the node leaves or the process ends, not just while a feed lives: when a
    /// feed fails and is opened anew, this process still answers under its old lease, and a barrier that found the lock
    /// free would take it for dead.
    serving: Mutex<Option<ServeLock>>,
    /// One writer at a time: waiting here is fair and wakes at once, waiting for SQLite's lock is neither.
    writing: tokio::sync::Mutex<()>,
}

impl SqliteStore {
    /// Opens the database at a path, or at a URL `sqlite://PATH`. With `migrate` it is created and brought up to date
    /// first; without, it has to be there and up to date.
    ///
    /// # Errors
    /// [`Error::Unusable`] says what is wrong with the file and what to do.
    pub async fn open(url_or_path: &str, migrate: bool) -> Result<Self, Error> {
        Self::open_waiting(url_or_path, migrate, BUSY).await
    }

    async fn open_waiting(url_or_path: &str, migrate: bool, busy: Duration) -> Result<Self, Error> {
        let path = open::path_of(url_or_path)?;
        open::prepare(&path, migrate)?;
        Self::connect(&path, migrate, busy).await.map_err(|error| explain(&path, error))
    }

    async fn connect(path: &Path, migrate: bool, busy: Duration) -> Result<Self, Error> {
        // Before any connection to it, so that each is known to be to this file.
        let file = Watched::new(path.to_owned())?;
        let options = open::options(path, busy);
        let ready = async {
            let mut conn = options.connect().await?;
            open::make_ready(path, &mut conn, migrate).await?;
            Ok::<_, Error>(conn)
        };
        // Each has a thread of its own.
        let (schema, ready) = tokio::join!(Schema::expected(), ready);
        let (schema, mut conn) = (schema?, ready?);
        schema.verify(path, &mut conn).await?;
        let connections = Connections::new(path, file, conn, options)?;
        let shared = Shared {
            path: path.to_owned(),
            sound: Sound::new(path.to_owned(), connections.pool().clone()),
            connections: Arc::new(connections),
            schema,
            serving: Mutex::new(None),
            writing: tokio::sync::Mutex::new(()),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The database file.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Closes every connection of the store; feeds have their own.
    pub async fn close(&self) {
        self.shared.connections.close().await;
    }

    /// A connection to what is known to be the file at the path.
    async fn conn(&self) -> Result<PoolConnection<Sqlite>, Error> {
        self.shared.sound.check().await?;
        self.shared.connections.acquire().await
    }

    fn explained<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        result.map_err(|error| explain(&self.shared.path, error))
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn feed(&self) -> Result<Box<dyn Feed>, Error> {
        Ok(Box::new(self.explained(SqliteFeed::open(self.shared.clone()).await)?))
    }

    async fn practices(&self) -> Result<Vec<Practice>, Error> {
        self.explained(self.list_practices().await)
    }

    async fn practice(&self, id: &PracticeId) -> Result<Practice, Error> {
        self.explained(self.one_practice(id).await)
    }

    async fn put_practice(&self, id: &PracticeId, name: &str, by: &Actor) -> Result<Committed, Error> {
        self.explained(async { rules::put_practice(self.begin().await?, id, name, by).await }.await)
    }

    async fn set_practice_access(&self, id: &PracticeId, from: &[ApiAccess], to: ApiAccess, by: &Actor) -> Result<Committed, Error> {
        self.explained(async { rules::set_practice_access(self.begin().await?, id, from, to, by).await }.await)
    }

    async fn users(&self, practice: &PracticeId) -> Result<Vec<User>, Error> {
        self.explained(self.list_users(practice).await)
    }

    async fn user(&self, id: &UserId) -> Result<User, Error> {
        self.explained(self.one_user(id).await)
    }

    async fn put_user(&self, practice: &PracticeId, id: &UserId, role: Role, by: &Actor) -> Result<Committed, Error> {
        self.explained(async { rules::put_user(self.begin().await?, practice, id, role, by).await }.await)
    }

    async fn set_user_access(&self, id: &UserId, on: bool, by: &Actor) -> Result<Committed, Error> {
        self.explained(async { rules::set_user_access(self.begin().await?, id, on, by).await }.await)
    }

    async fn remove_user(&self, id: &UserId, by: &Actor) -> Result<Committed, Error> {
        self.explained(async { rules::remove_user(self.begin().await?, id, by).await }.await)
    }

    async fn sync_team(&self, practice: &PracticeId, rows: &[TeamSync], by: &Actor) -> Result<Synced, Error> {
        self.explained(async { rules::team::sync_team(self.begin().await?, practice, rows, by).await }.await)
    }

    async fn clients(&self, practice: Option<&PracticeId>, owner: Option<&UserId>) -> Result<Vec<Client>, Error> {
        self.explained(self.list_clients(practice, owner).await)
    }

    async fn client(&self, id: ClientId) -> Result<Client, Error> {
        self.explained(self.one_client(id).await)
    }

    async fn create_client(&self, new: &NewClient, by: &Actor) -> Result<Committed, Error> {
        self.explained(async { rules::create_client(self.begin().await?, &new.client, by).await }.await)
    }

    async fn edit_client(&self, id: ClientId, edit: &ClientEdit, by: &Actor) -> Result<Committed, Error> {
        self.explained(async { rules::edit_client(self.begin().await?, id, edit, by).await }.await)
    }

    async fn add_secret(
        &self,
        id: ClientId,
        digest: &SecretDigest,
        now: Timestamp,
        others_end: Timestamp,
        by: &Actor,
    ) -> Result<(u32, Committed), Error> {
        self.explained(async { rules::add_secret(self.begin().await?, id, digest, now, others_end, by).await }.await)
    }

    async fn end_secret(&self, id: ClientId, generation: u32, now: Timestamp, by: &Actor) -> Result<Committed, Error> {
        self.explained(async { rules::end_secret(self.begin().await?, id, generation, now, by).await }.await)
    }

    async fn revoke_client(&self, id: ClientId, now: Timestamp, by: &Actor) -> Result<Committed, Error> {
        self.explained(async { rules::revoke_client(self.begin().await?, id, now, by).await }.await)
    }

    async fn signing_keys(&self) -> Result<Vec<StoredKey>, Error> {
        self.explained(self.list_signing_keys().await)
    }

    async fn add_signing_key(&self, key: &StoredKey, by: &Actor) -> Result<Committed, Error> {
        self.explained(async { rules::tokens::add_signing_key(self.begin().await?, key, by).await }.await)
    }

    async fn plan_signing_key(&self, id: &KeyId, signs_from: Timestamp, by: &Actor) -> Result<Committed, Error> {
        self.explained(async { rules::tokens::plan_signing_key(self.begin().await?, id, signs_from, by).await }.await)
    }

    async fn revoke_signing_key(&self, id: &KeyId, now: Timestamp, by: &Actor) -> Result<Committed, Error> {
        self.explained(async { rules::tokens::revoke_signing_key(self.begin().await?, id, now, by).await }.await)
    }

    async fn revoke_token(&self, token: &RevokedToken, by: &Actor) -> Result<Committed, Error> {
        self.explained(async { rules::tokens::revoke_token(self.begin().await?, token, by).await }.await)
    }

    async fn use_assertion(&self, client: ClientId, digest: [u8; 32], until: Timestamp) -> Result<bool, Error> {
        self.explained(self.note_assertion(client, digest, until).await)
    }

    async fn prune_tokens(&self) -> Result<(), Error> {
        self.explained(self.forget_all().await)
    }

    fn serves_one(&self) -> bool {
        true
    }

    fn lease(&self) -> Duration {
        LEASE
    }

    async fn barrier(&self, committed: Committed) -> Result<Receipt, Error> {
        self.explained(self.await_nodes(&committed).await)
    }

    async fn audit(&self, practice: Option<&PracticeId>) -> Result<Vec<audit::Event>, Error> {
        self.explained(self.list_events(practice).await)
    }
}

#[cfg(test)]
mod tests;
