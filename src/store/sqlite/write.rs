//! What the store is told: each change one transaction, with its audit event.

use serde_json::Value;
use sqlx::{Sqlite, SqliteConnection, Transaction};
use tokio::sync::MutexGuard;

use super::{SqliteStore, read, rows};
use crate::clock::{Timestamp, now};
use crate::credential::SecretDigest;
use crate::entity::{ApiAccess, Client, Practice, Role, User};
use crate::id::{ClientId, PracticeId, Revision, UserId};
use crate::store::audit::{Event, Hash};
use crate::store::{Actor, ClientEdit, Committed, Error};

/// One transaction that holds the write lock from its start, so that what it reads stays true until it commits.
struct Write<'s> {
    store: &'s SqliteStore,
    transaction: Transaction<'static, Sqlite>,
    _turn: MutexGuard<'s, ()>,
}

/// What the ledger is told of a change.
struct Entry<'e> {
    practice: &'e PracticeId,
    action: &'static str,
    target: &'e str,
    before: Value,
    after: Value,
}

impl Write<'_> {
    fn conn(&mut self) -> &mut SqliteConnection {
        &mut self.transaction
    }

    /// Commits, with the audit event if something has changed. A retry of what was done already commits nothing, and
    /// then stands for the newest change, which is not older than the one it repeats.
    async fn commit(mut self, entry: Option<Entry<'_>>, by: &Actor) -> Result<Committed, Error> {
        if let Some(entry) = entry {
            record(&mut self.transaction, entry, by).await?;
        }
        let head = head(&mut self.transaction).await?;
        self.transaction.commit().await?;
        let committed = Committed::now(head);
        // Had the file been moved away meanwhile, the change would be in a file that nobody reads any more.
        self.store.shared.file.check()?;
        Ok(committed)
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

async fn record(conn: &mut SqliteConnection, entry: Entry<'_>, by: &Actor) -> Result<(), Error> {
    let id: i64 = sqlx::query_scalar("SELECT coalesce(max(id), 0) + 1 FROM audit_events").fetch_one(&mut *conn).await?;
    let prev: Option<Vec<u8>> = sqlx::query_scalar("SELECT hash FROM audit_events WHERE practice_id = ? ORDER BY id DESC LIMIT 1")
        .bind(entry.practice.as_str())
        .fetch_optional(&mut *conn)
        .await?;
    let mut event = Event {
        id: u64::try_from(id).expect("the table's ids are positive"),
        at: now(),
        practice_id: Some(entry.practice.clone()),
        actor: by.name.clone(),
        origin: by.origin.clone(),
        action: entry.action.to_owned(),
        target: entry.target.to_owned(),
        before: entry.before,
        after: entry.after,
        prev_hash: Hash(prev.map_or(Ok([0; 32]), <[u8; 32]>::try_from).expect("a CHECK keeps hashes at 32 bytes")),
        hash: Hash::default(),
    };
    event.hash = event.computed_hash();
    sqlx::query(
        "INSERT INTO audit_events (id, at, practice_id, actor, origin, action, target, before, after, prev_hash, hash)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(id)
    .bind(event.at.0)
    .bind(entry.practice.as_str())
    .bind(&event.actor)
    .bind(&event.origin)
    .bind(&event.action)
    .bind(&event.target)
    .bind(event.before.to_string())
    .bind(event.after.to_string())
    .bind(event.prev_hash.0.as_slice())
    .bind(event.hash.0.as_slice())
    .execute(conn)
    .await?;
    Ok(())
}

fn json<T: serde::Serialize>(value: &T) -> Value {
    serde_json::to_value(value).expect("entities have text keys only")
}

fn not_found(what: &'static str, id: &dyn std::fmt::Display) -> Error {
    Error::NotFound { what, id: id.to_string() }
}

impl SqliteStore {
    async fn begin(&self) -> Result<Write<'_>, Error> {
        let turn = self.shared.writing.lock().await;
        self.shared.file.check()?;
        Ok(Write { store: self, transaction: self.pool.begin_with("BEGIN IMMEDIATE").await?, _turn: turn })
    }

    pub(super) async fn write_practice(&self, id: &PracticeId, name: &str, by: &Actor) -> Result<Committed, Error> {
        let mut write = self.begin().await?;
        let before = read::practice(write.conn(), id).await?;
        let after = Practice {
            id: id.clone(),
            name: name.into(),
            api_access: before.as_ref().map_or(ApiAccess::None, |practice| practice.api_access),
        };
        if before.as_ref() == Some(&after) {
            return write.commit(None, by).await;
        }
        let sql = if before.is_some() {
            "UPDATE practices SET name = ?2 WHERE practice_id = ?1"
        } else {
            "INSERT INTO practices (practice_id, name, api_access) VALUES (?1, ?2, 'none')"
        };
        sqlx::query(sql).bind(id.as_str()).bind(name).execute(write.conn()).await?;
        let entry = Entry { practice: id, action: "practice.put", target: id.as_str(), before: json(&before), after: json(&after) };
        write.commit(Some(entry), by).await
    }

    pub(super) async fn write_practice_access(
        &self,
        id: &PracticeId,
        from: &[ApiAccess],
        to: ApiAccess,
        by: &Actor,
    ) -> Result<Committed, Error> {
        let mut write = self.begin().await?;
        let before = read::practice(write.conn(), id).await?.ok_or_else(|| not_found("practice", id))?;
        if before.api_access == to {
            return write.commit(None, by).await;
        }
        if !from.contains(&before.api_access) {
            let from: Vec<_> = from.iter().map(|state| format!("`{state}`")).collect();
            return Err(Error::Conflict(format!(
                "the API access of practice `{id}` is `{}`: only {} can become `{to}`",
                before.api_access,
                from.join(" or ")
            )));
        }
        let after = Practice { api_access: to, ..before.clone() };
        sqlx::query("UPDATE practices SET api_access = ? WHERE practice_id = ?")
            .bind(to.as_str())
            .bind(id.as_str())
            .execute(write.conn())
            .await?;
        let action = match (before.api_access, to) {
            (_, ApiAccess::Requested) => "practice.request",
            (ApiAccess::Disabled, ApiAccess::Active) => "practice.enable",
            (_, ApiAccess::Active) => "practice.approve",
            (_, ApiAccess::Disabled) => "practice.disable",
            (_, ApiAccess::None) => "practice.reset",
        };
        let entry = Entry { practice: id, action, target: id.as_str(), before: json(&before), after: json(&after) };
        write.commit(Some(entry), by).await
    }

    pub(super) async fn write_user(&self, practice: &PracticeId, id: &UserId, role: Role, by: &Actor) -> Result<Committed, Error> {
        let mut write = self.begin().await?;
        if read::practice(write.conn(), practice).await?.is_none() {
            return Err(not_found("practice", practice));
        }
        let before = read::user(write.conn(), id).await?;
        if before.as_ref().is_some_and(|user| user.practice_id != *practice) {
            // Not which: whoever asks may have no business knowing.
            return Err(Error::Conflict(format!("user `{id}` belongs to another practice, and cannot change it: use another id")));
        }
        let api_access = before.as_ref().is_some_and(|user| user.api_access);
        let after = User { id: id.clone(), practice_id: practice.clone(), role, api_access, left_at: None };
        if before.as_ref() == Some(&after) {
            return write.commit(None, by).await;
        }
        let sql = if before.is_some() {
            "UPDATE users SET role = ?3, left_at = NULL WHERE user_id = ?1 AND practice_id = ?2"
        } else {
            "INSERT INTO users (user_id, practice_id, role) VALUES (?1, ?2, ?3)"
        };
        sqlx::query(sql).bind(id.as_str()).bind(practice.as_str()).bind(role.as_str()).execute(write.conn()).await?;
        let entry = Entry { practice, action: "user.put", target: id.as_str(), before: json(&before), after: json(&after) };
        write.commit(Some(entry), by).await
    }

    pub(super) async fn write_user_access(&self, id: &UserId, on: bool, by: &Actor) -> Result<Committed, Error> {
        let mut write = self.begin().await?;
        let before = read::user(write.conn(), id).await?.ok_or_else(|| not_found("user", id))?;
        if before.api_access == on {
            return write.commit(None, by).await;
        }
        if on && before.left_at.is_some() {
            return Err(Error::Conflict(format!(
                "user `{id}` is no longer on the team of practice `{}`: put them back on it first",
                before.practice_id
            )));
        }
        let after = User { api_access: on, ..before.clone() };
        self.update_user(write, &before, &after, if on { "user.access_on" } else { "user.access_off" }, by).await
    }

    pub(super) async fn write_user_left(&self, id: &UserId, by: &Actor) -> Result<Committed, Error> {
        let mut write = self.begin().await?;
        let before = read::user(write.conn(), id).await?.ok_or_else(|| not_found("user", id))?;
        if before.left_at.is_some() && !before.api_access {
            return write.commit(None, by).await;
        }
        // The toggle ends with the membership: coming back must not by itself bring old keys back to life.
        let after = User { left_at: before.left_at.or(Some(now())), api_access: false, ..before.clone() };
        self.update_user(write, &before, &after, "user.remove", by).await
    }

    async fn update_user(
        &self,
        mut write: Write<'_>,
        before: &User,
        after: &User,
        action: &'static str,
        by: &Actor,
    ) -> Result<Committed, Error> {
        sqlx::query("UPDATE users SET api_access = ?, left_at = ? WHERE user_id = ?")
            .bind(after.api_access)
            .bind(after.left_at.map(|at| at.0))
            .bind(after.id.as_str())
            .execute(write.conn())
            .await?;
        let entry = Entry { practice: &after.practice_id, action, target: after.id.as_str(), before: json(before), after: json(after) };
        write.commit(Some(entry), by).await
    }

    pub(super) async fn write_client(&self, new: &Client, by: &Actor) -> Result<Committed, Error> {
        let mut write = self.begin().await?;
        let id = &new.practice_id;
        let practice = read::practice(write.conn(), id).await?.ok_or_else(|| not_found("practice", id))?;
        let advice = match practice.api_access {
            ApiAccess::Active => None,
            ApiAccess::None => Some("request API access, and have an operator approve it"),
            ApiAccess::Requested => Some("an operator has to approve the request first"),
            ApiAccess::Disabled => Some("enable it first"),
        };
        if let Some(advice) = advice {
            return Err(Error::Conflict(format!("the API access of practice `{id}` is `{}`: {advice}", practice.api_access)));
        }
        if let Some(owner) = &new.owner {
            let user = read::user(write.conn(), owner).await?;
            let user = user.filter(|user| user.practice_id == *id && user.left_at.is_none());
            let user =
                user.ok_or_else(|| Error::Conflict(format!("user `{owner}` is not on the team of practice `{id}`: put them on it")))?;
            if !user.api_access {
                return Err(Error::Conflict(format!(
                    "the API access of user `{owner}` is off: an admin of the practice has to turn it on"
                )));
            }
        }
        sqlx::query(
            "INSERT INTO clients (client_id, practice_id, owner, name, scopes, allowed_addresses, tier, created_at, expires_at, revoked_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)",
        )
        .bind(new.id.to_text())
        .bind(id.as_str())
        .bind(new.owner.as_ref().map(UserId::as_str))
        .bind(&*new.name)
        .bind(rows::join(&new.scopes))
        .bind(rows::join(&new.allowed_addresses))
        .bind(new.tier.as_deref())
        .bind(new.created_at.0)
        .bind(new.expires_at.map(|at| at.0))
        .execute(write.conn())
        .await?;
        for secret in &new.secrets {
            insert_secret(write.conn(), new.id, secret.generation, &secret.digest, secret.created_at, secret.expires_at).await?;
        }
        let target = new.id.to_text();
        let entry = Entry { practice: id, action: "client.create", target: &target, before: Value::Null, after: json(new) };
        write.commit(Some(entry), by).await
    }

    pub(super) async fn write_client_edit(&self, id: ClientId, edit: &ClientEdit, by: &Actor) -> Result<Committed, Error> {
        let mut write = self.begin().await?;
        let before = usable(write.conn(), id).await?;
        let mut after = before.clone();
        if let Some(name) = &edit.name {
            after.name = name.as_str().into();
        }
        if let Some(scopes) = &edit.scopes {
            after.scopes.clone_from(scopes);
        }
        if let Some(addresses) = &edit.allowed_addresses {
            after.allowed_addresses.clone_from(addresses);
        }
        if let Some(tier) = &edit.tier {
            after.tier = tier.as_deref().map(Into::into);
        }
        if let Some(expires_at) = edit.expires_at {
            after.expires_at = expires_at;
        }
        if before == after {
            return write.commit(None, by).await;
        }
        sqlx::query("UPDATE clients SET name = ?, scopes = ?, allowed_addresses = ?, tier = ?, expires_at = ? WHERE client_id = ?")
            .bind(&*after.name)
            .bind(rows::join(&after.scopes))
            .bind(rows::join(&after.allowed_addresses))
            .bind(after.tier.as_deref())
            .bind(after.expires_at.map(|at| at.0))
            .bind(id.to_text())
            .execute(write.conn())
            .await?;
        Self::commit_client(write, &before, &after, "client.edit", by).await
    }

    pub(super) async fn write_secret(
        &self,
        id: ClientId,
        digest: &SecretDigest,
        now: Timestamp,
        others_end: Timestamp,
        by: &Actor,
    ) -> Result<(u32, Committed), Error> {
        let mut write = self.begin().await?;
        let before = usable(write.conn(), id).await?;
        let newest = before.secrets.iter().map(|secret| secret.generation).max().unwrap_or(0);
        let generation =
            newest.checked_add(1).ok_or_else(|| Error::Conflict(format!("client `{id}` has had every secret it can: create another")))?;
        // At most two live secrets: the overlap is for the newest of the old ones, and those before it end now.
        for (end, generations) in [(others_end, newest..=newest), (now, 0..=newest.saturating_sub(1))] {
            sqlx::query(
                "UPDATE client_secrets SET expires_at = ?1
                 WHERE client_id = ?2 AND generation BETWEEN ?3 AND ?4 AND (expires_at IS NULL OR expires_at > ?1)",
            )
            .bind(end.0)
            .bind(id.to_text())
            .bind(generations.start())
            .bind(generations.end())
            .execute(write.conn())
            .await?;
        }
        insert_secret(write.conn(), id, generation, digest, now, None).await?;
        let after = usable(write.conn(), id).await?;
        Ok((generation, Self::commit_client(write, &before, &after, "client.rotate", by).await?))
    }

    pub(super) async fn write_secret_end(&self, id: ClientId, generation: u32, now: Timestamp, by: &Actor) -> Result<Committed, Error> {
        let mut write = self.begin().await?;
        let before = read::client(write.conn(), id).await?.ok_or_else(|| not_found("client", &id))?;
        if !before.secrets.iter().any(|secret| secret.generation == generation) {
            return Err(not_found("secret", &format_args!("{id}/{generation}")));
        }
        sqlx::query(
            "UPDATE client_secrets SET expires_at = ?1 WHERE client_id = ?2 AND generation = ?3 AND (expires_at IS NULL OR expires_at > ?1)",
        )
        .bind(now.0)
        .bind(id.to_text())
        .bind(generation)
        .execute(write.conn())
        .await?;
        let after = read::client(write.conn(), id).await?.ok_or_else(|| not_found("client", &id))?;
        if before == after {
            return write.commit(None, by).await;
        }
        Self::commit_client(write, &before, &after, "client.end_secret", by).await
    }

    pub(super) async fn write_client_revoked(&self, id: ClientId, now: Timestamp, by: &Actor) -> Result<Committed, Error> {
        let mut write = self.begin().await?;
        let before = read::client(write.conn(), id).await?.ok_or_else(|| not_found("client", &id))?;
        if before.revoked_at.is_some() {
            return write.commit(None, by).await;
        }
        sqlx::query("UPDATE clients SET revoked_at = ? WHERE client_id = ?").bind(now.0).bind(id.to_text()).execute(write.conn()).await?;
        let after = Client { revoked_at: Some(now), ..before.clone() };
        Self::commit_client(write, &before, &after, "client.revoke", by).await
    }

    async fn commit_client(
        write: Write<'_>,
        before: &Client,
        after: &Client,
        action: &'static str,
        by: &Actor,
    ) -> Result<Committed, Error> {
        let target = after.id.to_text();
        let entry = Entry { practice: &after.practice_id, action, target: &target, before: json(before), after: json(after) };
        write.commit(Some(entry), by).await
    }
}

/// The client, which is not revoked.
async fn usable(conn: &mut SqliteConnection, id: ClientId) -> Result<Client, Error> {
    let client = read::client(conn, id).await?.ok_or_else(|| not_found("client", &id))?;
    match client.revoked_at {
        None => Ok(client),
        Some(at) => Err(Error::Conflict(format!("client `{id}` was revoked at {at}, which is final: create another client"))),
    }
}

async fn insert_secret(
    conn: &mut SqliteConnection,
    client: ClientId,
    generation: u32,
    digest: &SecretDigest,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO client_secrets (client_id, generation, digest_kind, digest, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(client.to_text())
    .bind(generation)
    .bind(digest.kind().as_str())
    .bind(digest.bytes().as_slice())
    .bind(created_at.0)
    .bind(expires_at.map(|at| at.0))
    .execute(conn)
    .await?;
    Ok(())
}
