//! One transaction that changes something.
//!
//! Rows are locked in the order practice, user, client; or it is one key or token alone; then the ledger of the practice; then, at the very end, the
//! order of the changes. So no two transactions wait for each other.

use async_trait::async_trait;
use sqlx::{Postgres, Transaction};

use super::read::{self, For};
use super::records::outbox;
use super::{PgStore, commit, ledger, team, tokens};
use crate::clock::Timestamp;
use crate::entity::{Client, Practice, RevokedToken, StoredKey, StoredSecret, User};
use crate::id::{ClientId, KeyId, PracticeId, Revision, UserId};
use crate::store::audit::{Event, Hash};
use crate::store::records::TeamMember;
use crate::store::records::mail::NewMail;
use crate::store::rules::Write;
use crate::store::{Committed, Error};

/// A moment of ours in SQL; exact, where a division would not be.
macro_rules! moment {
    ($parameter:literal) => {
        concat!("timestamptz 'epoch' + ", $parameter, "::bigint * interval '1 millisecond'")
    };
}
pub(super) use moment;

/// What it has read for a change nobody else changes until it commits.
pub(super) struct PgWrite {
    transaction: Transaction<'static, Postgres>,
}

impl PgStore {
    pub(super) async fn begin(&self) -> Result<PgWrite, Error> {
        Ok(PgWrite { transaction: self.pool.begin().await? })
    }
}

#[async_trait]
impl Write for PgWrite {
    async fn practice(&mut self, id: &PracticeId) -> Result<Option<Practice>, Error> {
        read::practice(&mut self.transaction, id, For::Change).await
    }

    async fn user(&mut self, id: &UserId) -> Result<Option<User>, Error> {
        read::user(&mut self.transaction, id, For::Change).await
    }

    async fn client(&mut self, id: ClientId) -> Result<Option<Client>, Error> {
        read::client(&mut self.transaction, id, For::Change).await
    }

    async fn insert_practice(&mut self, practice: &Practice) -> Result<(), Error> {
        sqlx::query("INSERT INTO gateway.practices (practice_id, name, api_access) VALUES ($1, $2, $3)")
            .bind(practice.id.as_str())
            .bind(&*practice.name)
            .bind(practice.api_access.as_str())
            .execute(&mut *self.transaction)
            .await?;
        Ok(())
    }

    async fn update_practice(&mut self, practice: &Practice) -> Result<(), Error> {
        sqlx::query("UPDATE gateway.practices SET name = $2, api_access = $3 WHERE practice_id = $1")
            .bind(practice.id.as_str())
            .bind(&*practice.name)
            .bind(practice.api_access.as_str())
            .execute(&mut *self.transaction)
            .await?;
        Ok(())
    }

    async fn insert_user(&mut self, user: &User) -> Result<(), Error> {
        sqlx::query(concat!(
            "INSERT INTO gateway.users (user_id, practice_id, role, api_access, left_at) VALUES ($1, $2, $3, $4, ",
            moment!("$5"),
            ")"
        ))
        .bind(user.id.as_str())
        .bind(user.practice_id.as_str())
        .bind(user.role.as_str())
        .bind(user.api_access)
        .bind(user.left_at.map(|at| at.0))
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    async fn update_user(&mut self, user: &User) -> Result<(), Error> {
        sqlx::query(concat!("UPDATE gateway.users SET role = $2, api_access = $3, left_at = ", moment!("$4"), " WHERE user_id = $1"))
            .bind(user.id.as_str())
            .bind(user.role.as_str())
            .bind(user.api_access)
            .bind(user.left_at.map(|at| at.0))
            .execute(&mut *self.transaction)
            .await?;
        Ok(())
    }

    async fn insert_client(&mut self, client: &Client) -> Result<(), Error> {
        sqlx::query(concat!(
            "INSERT INTO gateway.clients (client_id, practice_id, owner, name, scopes, allowed_addresses, tier, created_at, expires_at, revoked_at, jwks, jwks_url)
             VALUES ($1, $2, $3, $4, $5, $6::text[]::cidr[], $7, ",
            moment!("$8"),
            ", ",
            moment!("$9"),
            ", ",
            moment!("$10"),
            ", $11, $12)"
        ))
        .bind(client.id.to_text())
        .bind(client.practice_id.as_str())
        .bind(client.owner.as_ref().map(UserId::as_str))
        .bind(&*client.name)
        .bind(texts(&client.scopes))
        .bind(texts(&client.allowed_addresses))
        .bind(client.tier.as_deref())
        .bind(client.created_at.0)
        .bind(client.expires_at.map(|at| at.0))
        .bind(client.revoked_at.map(|at| at.0))
        .bind(client.keys.jwks())
        .bind(client.keys.url())
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    async fn update_client(&mut self, client: &Client) -> Result<(), Error> {
        sqlx::query(concat!(
            "UPDATE gateway.clients SET name = $2, scopes = $3, allowed_addresses = $4::text[]::cidr[], tier = $5, expires_at = ",
            moment!("$6"),
            ", revoked_at = ",
            moment!("$7"),
            ", jwks = $8, jwks_url = $9 WHERE client_id = $1"
        ))
        .bind(client.id.to_text())
        .bind(&*client.name)
        .bind(texts(&client.scopes))
        .bind(texts(&client.allowed_addresses))
        .bind(client.tier.as_deref())
        .bind(client.expires_at.map(|at| at.0))
        .bind(client.revoked_at.map(|at| at.0))
        .bind(client.keys.jwks())
        .bind(client.keys.url())
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    async fn insert_secret(&mut self, client: ClientId, secret: &StoredSecret) -> Result<(), Error> {
        sqlx::query(concat!(
            "INSERT INTO gateway.client_secrets (client_id, generation, digest_kind, digest, created_at, expires_at) VALUES ($1, $2, $3, $4, ",
            moment!("$5"),
            ", ",
            moment!("$6"),
            ")"
        ))
        .bind(client.to_text())
        .bind(i64::from(secret.generation))
        .bind(secret.digest.kind().as_str())
        .bind(secret.digest.bytes().as_slice())
        .bind(secret.created_at.0)
        .bind(secret.expires_at.map(|at| at.0))
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    async fn end_secret(&mut self, client: ClientId, generation: u32, end: Timestamp, ended: bool) -> Result<(), Error> {
        let sql = concat!(
            "UPDATE gateway.client_secrets SET expires_at = ",
            moment!("$3"),
            ", ended = $4 WHERE client_id = $1 AND generation = $2"
        );
        sqlx::query(sql).bind(client.to_text()).bind(i64::from(generation)).bind(end.0).bind(ended).execute(&mut *self.transaction).await?;
        Ok(())
    }

    async fn signing_key(&mut self, id: &KeyId) -> Result<Option<StoredKey>, Error> {
        tokens::signing_key(&mut self.transaction, id, For::Change).await
    }

    async fn insert_signing_key(&mut self, key: &StoredKey) -> Result<(), Error> {
        tokens::insert_signing_key(&mut self.transaction, key).await
    }

    async fn update_signing_key(&mut self, key: &StoredKey) -> Result<(), Error> {
        tokens::update_signing_key(&mut self.transaction, key).await
    }

    async fn practice_of(&mut self, client: ClientId) -> Result<Option<PracticeId>, Error> {
        tokens::practice_of(&mut self.transaction, client).await
    }

    async fn insert_revoked_token(&mut self, token: &RevokedToken) -> Result<bool, Error> {
        tokens::insert_revoked_token(&mut self.transaction, token).await
    }

    async fn members(&mut self, ids: &[UserId]) -> Result<Vec<TeamMember>, Error> {
        team::members(&mut self.transaction, ids).await
    }

    async fn insert_users(&mut self, users: &[&User]) -> Result<Vec<UserId>, Error> {
        team::insert_users(&mut self.transaction, users).await
    }

    async fn update_users(&mut self, users: &[&User]) -> Result<(), Error> {
        team::update_users(&mut self.transaction, users).await
    }

    async fn put_people(&mut self, people: &[&TeamMember]) -> Result<(), Error> {
        team::put_people(&mut self.transaction, people).await
    }

    async fn queue_mail(&mut self, mail: &NewMail<'_>) -> Result<(), Error> {
        outbox::queue(&mut self.transaction, mail).await
    }

    async fn next_events(&mut self, practice: Option<&PracticeId>, count: usize) -> Result<(Vec<u64>, Option<Hash>), Error> {
        ledger::next_events(&mut self.transaction, practice, count).await
    }

    async fn insert_events(&mut self, events: &[Event]) -> Result<(), Error> {
        ledger::insert_events(&mut self.transaction, events).await
    }

    async fn commit(self) -> Result<Committed, Error> {
        commit::commit(self.transaction).await
    }
}

fn texts<T: std::fmt::Display>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

/// One column of what is written many rows at a time.
pub(super) fn each<'t, I, T>(items: &'t [I], what: impl FnMut(&'t I) -> T) -> Vec<T> {
    items.iter().map(what).collect()
}

/// A number of the change log.
pub(super) fn revision_of(number: i64) -> Revision {
    Revision(u64::try_from(number).unwrap_or(0))
}
