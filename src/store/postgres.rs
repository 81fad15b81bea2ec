//! The store of a fleet: PostgreSQL, followed by any number of gateways.

mod barrier;
mod changes;
mod commit;
mod copied;
mod fault;
mod feed;
mod ledger;
mod notice;
mod open;
mod quick;
mod read;
mod records;
mod register;
mod rows;
mod team;
#[cfg(test)]
mod tests;
mod tokens;
mod told;
mod write;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::Postgres;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPool};
use tokio::time::timeout;

use self::feed::PgFeed;
use crate::clock::Timestamp;
use crate::credential::SecretDigest;
use crate::entity::{ApiAccess, Client, Practice, RevokedToken, Role, StoredKey, User};
use crate::id::{ClientId, KeyId, PracticeId, UserId};
use crate::store::records::TeamSync;
use crate::store::{Actor, ClientEdit, Committed, Error, Feed, NewClient, Receipt, Store, Synced, audit, rules};

/// How long a reading may take; longer than the server gives a statement.
const READ_LIMIT: Duration = Duration::from_secs(12);
/// How long a change may take with all its statements.
const CHANGE_LIMIT: Duration = Duration::from_secs(30);

/// How the gateways of a fleet hold together. Every one of them may have its own; a barrier goes by the longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long a gateway may answer after it last proved itself current.
    pub lease: Duration,
    /// How often it proves that.
    pub heartbeat: Duration,
    /// The longest that the machine may stand still without its clock showing it, as a virtual machine may that is moved.
    pub freeze_allowance: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { lease: Duration::from_secs(5), heartbeat: Duration::from_secs(1), freeze_allowance: Duration::ZERO }
    }
}

/// How a fleet holds together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fleet {
    /// Leases and heartbeats.
    pub timing: Timing,
    /// Whether somebody else vouches that the database loses nothing it has acknowledged; else its settings have to.
    pub durability_asserted: bool,
}

impl Timing {
    /// How long after a heartbeat was sent its lease may be believed in, on any clock that is right within a thousandth:
    /// (L+P)(1+ρ)/(1−ρ), and at most one tick more. In whole milliseconds, as the register has it: cut off there, it
    /// would be too short.
    pub(super) fn bound(&self) -> Duration {
        self.bound_with(Duration::ZERO)
    }

    /// The same for a node that answers `grace` longer.
    pub(super) fn bound_with(&self, grace: Duration) -> Duration {
        let exact = (self.lease + grace + self.freeze_allowance) * 1001 / 999;
        Duration::from_millis(u64::try_from(exact.as_millis()).unwrap_or(u64::MAX - 1) + 1)
    }

    /// How long a question may take before its connection is given up.
    pub(super) fn patience(&self) -> Duration {
        Duration::from_millis(1500).min(self.lease / 2)
    }
}

/// The store of a fleet.
#[derive(Clone, Debug)]
pub struct PgStore {
    pool: PgPool,
    shared: Arc<Shared>,
}

/// What the store and its feeds have in common.
#[derive(Debug)]
struct Shared {
    options: PgConnectOptions,
    timing: Timing,
    /// Host and database, as errors name them: never the password.
    place: String,
}

impl PgStore {
    /// Opens the database at a URL `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full`. With `migrate` its
    /// schema is created or brought up to date first; without, it has to be up to date.
    ///
    /// # Errors
    /// [`Error::Unusable`] says what is wrong and what to do.
    pub async fn open(url: &str, fleet: &Fleet, migrate: bool) -> Result<Self, Error> {
        let options = open::options(url)?;
        let place = open::place(&options);
        let pool = open::connect(&options, fleet, migrate).await.map_err(|error| fault::explain(&place, error))?;
        Ok(Self { pool, shared: Arc::new(Shared { options, timing: fleet.timing, place }) })
    }

    /// Closes every connection of the store; feeds have their own.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    async fn conn(&self) -> Result<PoolConnection<Postgres>, Error> {
        Ok(self.pool.acquire().await?)
    }

    fn explained<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        result.map_err(|error| fault::explain(&self.shared.place, error))
    }

    /// What only reads, but not for ever: the server's own limits end nothing once the server itself stands still.
    async fn read<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.within(READ_LIMIT, "", work).await
    }

    /// One change. Its commit has a limit of its own, within this one.
    async fn change<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.within(CHANGE_LIMIT, ", so the change may or may not have been made: do it again", work).await
    }

    async fn within<T>(&self, limit: Duration, so: &str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let place = &self.shared.place;
        let done = timeout(limit, work).await;
        self.explained(done.unwrap_or_else(|_| Err(fault::unusable(format!("{place} did not answer within {} s{so}", limit.as_secs())))))
    }
}

#[async_trait]
impl Store for PgStore {
    async fn feed(&self) -> Result<Box<dyn Feed>, Error> {
        Ok(Box::new(PgFeed::new(Arc::clone(&self.shared))))
    }

    async fn practices(&self) -> Result<Vec<Practice>, Error> {
        self.read(self.list_practices()).await
    }

    async fn practice(&self, id: &PracticeId) -> Result<Practice, Error> {
        self.read(self.one_practice(id)).await
    }

    async fn put_practice(&self, id: &PracticeId, name: &str, by: &Actor) -> Result<Committed, Error> {
        self.change(async { rules::put_practice(self.begin().await?, id, name, by).await }).await
    }

    async fn set_practice_access(&self, id: &PracticeId, from: &[ApiAccess], to: ApiAccess, by: &Actor) -> Result<Committed, Error> {
        self.change(async { rules::set_practice_access(self.begin().await?, id, from, to, by).await }).await
    }

    async fn users(&self, practice: &PracticeId) -> Result<Vec<User>, Error> {
        self.read(self.list_users(practice)).await
    }

    async fn user(&self, id: &UserId) -> Result<User, Error> {
        self.read(self.one_user(id)).await
    }

    async fn put_user(&self, practice: &PracticeId, id: &UserId, role: Role, by: &Actor) -> Result<Committed, Error> {
        self.change(async { rules::put_user(self.begin().await?, practice, id, role, by).await }).await
    }

    async fn set_user_access(&self, id: &UserId, on: bool, by: &Actor) -> Result<Committed, Error> {
        self.change(async { rules::set_user_access(self.begin().await?, id, on, by).await }).await
    }

    async fn remove_user(&self, id: &UserId, by: &Actor) -> Result<Committed, Error> {
        self.change(async { rules::remove_user(self.begin().await?, id, by).await }).await
    }

    async fn sync_team(&self, practice: &PracticeId, rows: &[TeamSync], by: &Actor) -> Result<Synced, Error> {
        self.change(async { rules::team::sync_team(self.begin().await?, practice, rows, by).await }).await
    }

    async fn clients(&self, practice: Option<&PracticeId>, owner: Option<&UserId>) -> Result<Vec<Client>, Error> {
        self.read(self.list_clients(practice, owner)).await
    }

    async fn client(&self, id: ClientId) -> Result<Client, Error> {
        self.read(self.one_client(id)).await
    }

    async fn create_client(&self, new: &NewClient, by: &Actor) -> Result<Committed, Error> {
        self.change(async { rules::create_client(self.begin().await?, &new.client, by).await }).await
    }

    async fn edit_client(&self, id: ClientId, edit: &ClientEdit, by: &Actor) -> Result<Committed, Error> {
        self.change(async { rules::edit_client(self.begin().await?, id, edit, by).await }).await
    }

    async fn add_secret(
        &self,
        id: ClientId,
        digest: &SecretDigest,
        now: Timestamp,
        others_end: Timestamp,
        by: &Actor,
    ) -> Result<(u32, Committed), Error> {
        self.change(async { rules::add_secret(self.begin().await?, id, digest, now, others_end, by).await }).await
    }

    async fn end_secret(&self, id: ClientId, generation: u32, now: Timestamp, by: &Actor) -> Result<Committed, Error> {
        self.change(async { rules::end_secret(self.begin().await?, id, generation, now, by).await }).await
    }

    async fn revoke_client(&self, id: ClientId, now: Timestamp, by: &Actor) -> Result<Committed, Error> {
        self.change(async { rules::revoke_client(self.begin().await?, id, now, by).await }).await
    }

    async fn signing_keys(&self) -> Result<Vec<StoredKey>, Error> {
        self.read(self.list_signing_keys()).await
    }

    async fn add_signing_key(&self, key: &StoredKey, by: &Actor) -> Result<Committed, Error> {
        self.change(async { rules::tokens::add_signing_key(self.begin().await?, key, by).await }).await
    }

    async fn plan_signing_key(&self, id: &KeyId, signs_from: Timestamp, by: &Actor) -> Result<Committed, Error> {
        self.change(async { rules::tokens::plan_signing_key(self.begin().await?, id, signs_from, by).await }).await
    }

    async fn revoke_signing_key(&self, id: &KeyId, now: Timestamp, by: &Actor) -> Result<Committed, Error> {
        self.change(async { rules::tokens::revoke_signing_key(self.begin().await?, id, now, by).await }).await
    }

    async fn revoke_token(&self, token: &RevokedToken, by: &Actor) -> Result<Committed, Error> {
        self.change(async { rules::tokens::revoke_token(self.begin().await?, token, by).await }).await
    }

    async fn use_assertion(&self, client: ClientId, digest: [u8; 32], until: Timestamp) -> Result<bool, Error> {
        self.change(self.note_assertion(client, digest, until)).await
    }

    async fn prune_tokens(&self) -> Result<(), Error> {
        self.change(self.forget_all()).await
    }

    fn serves_one(&self) -> bool {
        false
    }

    fn lease(&self) -> Duration {
        self.shared.timing.lease
    }

    async fn barrier(&self, committed: Committed) -> Result<Receipt, Error> {
        self.explained(self.await_nodes(&committed).await)
    }

    async fn audit(&self, practice: Option<&PracticeId>) -> Result<Vec<audit::Event>, Error> {
        self.read(self.list_events(practice)).await
    }
}
