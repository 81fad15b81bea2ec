//! One transaction that changes something.

use async_trait::async_trait;
use sqlx::{Sqlite, SqliteConnection, Transaction};
use tokio::sync::MutexGuard;

use super::records::outbox;
use super::{SqliteStore, ledger, read, rows, team, tokens};
use crate::clock::Timestamp;
use crate::entity::{Client, Practice, RevokedToken, StoredKey, StoredSecret, User};
use crate::id::{ClientId, KeyId, PracticeId, Revision, UserId};
use crate::store::audit::{Event, Hash};
use crate::store::records::TeamMember;
use crate::store::records::mail::NewMail;
use crate::store::rules::Write;
use crate::store::{Committed, Error};

/// It holds the write lock from its start, so that what it reads stays true until it commits.
pub(super) struct SqliteWrite<'s> {
    store: &'s SqliteStore,
    transaction: Transaction<'static, Sqlite>,
    _turn: MutexGuard<'s, ()>,
}

impl SqliteStore {
    pub(super) async fn begin(&self) -> Result<SqliteWrite<'_>, Error> {
        self.shared.sound.check().await?;
        let turn = self.shared.writing.lock().await;
        Ok(SqliteWrite { store: self, transaction: self.shared.connections.begin().await?, _turn: turn })
    }
}

impl SqliteWrite<'_> {
    pub(super) fn conn(&mut self) -> &mut SqliteConnection {
        &mut self.transaction
    }

    /// Commits what is no change for the feeds.
    pub(super) async fn done(self) -> Result<(), Error> {
        self.transaction.commit().await?;
        self.store.shared.connections.check()
    }
}

/// The newest revision that the transaction sees.
pub(super) async fn head(conn: &mut SqliteConnection) -> Result<Revision, Error> {
    let head: i64 = sqlx::query_scalar(
        "SELECT max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'changes'), 0), coalesce((SELECT max(revision) FROM changes), 0))",
    )
    .fetch_one(conn)
    .await?;
    Ok(Revision(u64::try_from(head).unwrap_or(0)))
}

#[async_trait]
impl Write for SqliteWrite<'_> {
    async fn practice(&mut self, id: &PracticeId) -> Result<Option<Practice>, Error> {
        read::practice(&mut self.transaction, id).await
    }

    async fn user(&mut self, id: &UserId) -> Result<Option<User>, Error> {
        read::user(&mut self.transaction, id).await
    }

    async fn client(&mut self, id: ClientId) -> Result<Option<Client>, Error> {
        read::client(&mut self.transaction, id).await
    }

    async fn insert_practice(&mut self, practice: &Practice) -> Result<(), Error> {
        sqlx::query("INSERT INTO practices (practice_id, name, api_access) VALUES (?, ?, ?)")
            .bind(practice.id.as_str())
            .bind(&*practice.name)
            .bind(practice.api_access.as_str())
            .execute(&mut *self.transaction)
            .await?;
        Ok(())
    }

    async fn update_practice(&mut self, practice: &Practice) -> Result<(), Error> {
        sqlx::query("UPDATE practices SET name = ?2, api_access = ?3 WHERE practice_id = ?1")
            .bind(practice.id.as_str())
            .bind(&*practice.name)
            .bind(practice.api_access.as_str())
            .execute(&mut *self.transaction)
            .await?;
        Ok(())
    }

    async fn insert_user(&mut self, user: &User) -> Result<(), Error> {
        sqlx::query("INSERT INTO users (user_id, practice_id, role, api_access, left_at) VALUES (?, ?, ?, ?, ?)")
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
        sqlx::query("UPDATE users SET role = ?2, api_access = ?3, left_at = ?4 WHERE user_id = ?1")
            .bind(user.id.as_str())
            .bind(user.role.as_str())
            .bind(user.api_access)
            .bind(user.left_at.map(|at| at.0))
            .execute(&mut *self.transaction)
            .await?;
        Ok(())
    }

    async fn insert_client(&mut self, client: &Client) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO clients (client_id, practice_id, owner, name, scopes, allowed_addresses, tier, created_at, expires_at, revoked_at,
                 jwks, jwks_url)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(client.id.to_text())
        .bind(client.practice_id.as_str())
        .bind(client.owner.as_ref().map(UserId::as_str))
        .bind(&*client.name)
        .bind(rows::join(&client.scopes))
        .bind(rows::join(&client.allowed_addresses))
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
        sqlx::query(
            "UPDATE clients SET name = ?2, scopes = ?3, allowed_addresses = ?4, tier = ?5, expires_at = ?6, revoked_at = ?7,
                 jwks = ?8, jwks_url = ?9
             WHERE client_id = ?1",
        )
        .bind(client.id.to_text())
        .bind(&*client.name)
        .bind(rows::join(&client.scopes))
        .bind(rows::join(&client.allowed_addresses))
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
        sqlx::query(
            "INSERT INTO client_secrets (client_id, generation, digest_kind, digest, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(client.to_text())
        .bind(secret.generation)
        .bind(secret.digest.kind().as_str())
        .bind(secret.digest.bytes().as_slice())
        .bind(secret.created_at.0)
        .bind(secret.expires_at.map(|at| at.0))
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    async fn end_secret(&mut self, client: ClientId, generation: u32, end: Timestamp, ended: bool) -> Result<(), Error> {
        sqlx::query("UPDATE client_secrets SET expires_at = ?3, ended = ?4 WHERE client_id = ?1 AND generation = ?2")
            .bind(client.to_text())
            .bind(generation)
            .bind(end.0)
            .bind(ended)
            .execute(&mut *self.transaction)
            .await?;
        Ok(())
    }

    async fn signing_key(&mut self, id: &KeyId) -> Result<Option<StoredKey>, Error> {
        tokens::signing_key(&mut self.transaction, id).await
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
        let mut found = Vec::new();
        for id in ids {
            found.extend(team::member(&mut self.transaction, id).await?);
        }
        Ok(found)
    }

    async fn insert_users(&mut self, users: &[&User]) -> Result<Vec<UserId>, Error> {
        for user in users {
            self.insert_user(user).await?;
        }
        // Nobody else can have: they would have waited.
        Ok(Vec::new())
    }

    async fn update_users(&mut self, users: &[&User]) -> Result<(), Error> {
        for user in users {
            self.update_user(user).await?;
        }
        Ok(())
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

    async fn commit(mut self) -> Result<Committed, Error> {
        let head = head(&mut self.transaction).await?;
        self.transaction.commit().await?;
        let committed = Committed::now(head);
        self.store.shared.connections.check()?;
        Ok(committed)
    }
}
