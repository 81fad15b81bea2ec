//! What a change is, whatever the database: what it needs to find, what it leaves behind, and what the ledger says of it.

pub(super) mod team;
pub(super) mod tokens;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::audit::{Event, Hash};
use super::records::mail::{NewMail, To};
use super::records::{MailKind, Note, TeamMember};
use super::{Actor, ClientEdit, Committed, Error};
use crate::clock::{Timestamp, now};
use crate::credential::SecretDigest;
use crate::entity::{ApiAccess, Client, Practice, RevokedToken, Role, StoredKey, StoredSecret, User};
use crate::id::{ClientId, KeyId, PracticeId, UserId};

/// One transaction. What it reads stays true until it commits; dropped, it has changed nothing.
#[async_trait]
pub(super) trait Write: Send + Sized {
    async fn practice(&mut self, id: &PracticeId) -> Result<Option<Practice>, Error>;
    async fn user(&mut self, id: &UserId) -> Result<Option<User>, Error>;
    async fn client(&mut self, id: ClientId) -> Result<Option<Client>, Error>;
    async fn insert_practice(&mut self, practice: &Practice) -> Result<(), Error>;
    async fn update_practice(&mut self, practice: &Practice) -> Result<(), Error>;
    async fn insert_user(&mut self, user: &User) -> Result<(), Error>;
    async fn update_user(&mut self, user: &User) -> Result<(), Error>;
    /// Of these users those that there are, with their names.
    async fn members(&mut self, ids: &[UserId]) -> Result<Vec<TeamMember>, Error>;
    /// Gives those that somebody else has inserted meanwhile.
    async fn insert_users(&mut self, users: &[&User]) -> Result<Vec<UserId>, Error>;
    async fn update_users(&mut self, users: &[&User]) -> Result<(), Error>;
    /// The names and addresses of users.
    async fn put_people(&mut self, people: &[&TeamMember]) -> Result<(), Error>;
    /// Without its secrets.
    async fn insert_client(&mut self, client: &Client) -> Result<(), Error>;
    /// What may change of a client; not its secrets.
    async fn update_client(&mut self, client: &Client) -> Result<(), Error>;
    async fn insert_secret(&mut self, client: ClientId, secret: &StoredSecret) -> Result<(), Error>;
    /// The end of one secret, which has none yet or a later one.
    /// With `ended` it is over, whatever a clock says; that is final.
    async fn end_secret(&mut self, client: ClientId, generation: u32, end: Timestamp, ended: bool) -> Result<(), Error>;
    async fn signing_key(&mut self, id: &KeyId) -> Result<Option<StoredKey>, Error>;
    async fn insert_signing_key(&mut self, key: &StoredKey) -> Result<(), Error>;
    /// What may change of a key: from when on it signs, and that it is revoked.
    async fn update_signing_key(&mut self, key: &StoredKey) -> Result<(), Error>;
    /// The practice of a client, which it keeps.
    async fn practice_of(&mut self, client: ClientId) -> Result<Option<PracticeId>, Error>;
    /// False if the token is there already.
    async fn insert_revoked_token(&mut self, token: &RevokedToken) -> Result<bool, Error>;
    /// Queues mail, which is sent once this has committed.
    async fn queue_mail(&mut self, mail: &NewMail<'_>) -> Result<(), Error>;
    /// The ids for so many events, and the hash of the last one of this practice, or of none. From here on nobody else writes
    /// events of the same until this commits.
    async fn next_events(&mut self, practice: Option<&PracticeId>, count: usize) -> Result<(Vec<u64>, Option<Hash>), Error>;
    /// In their order.
    async fn insert_events(&mut self, events: &[Event]) -> Result<(), Error>;
    /// Commits. Where nothing was changed, gives the newest change, which is not older than the one that is repeated.
    async fn commit(self) -> Result<Committed, Error>;
}

/// What the ledger is told of a change.
struct Entry<'e> {
    /// `None`: what concerns them all.
    practice: Option<&'e PracticeId>,
    action: &'static str,
    target: &'e str,
    before: Value,
    after: Value,
}

async fn commit(write: impl Write, entry: Entry<'_>, by: &Actor) -> Result<Committed, Error> {
    commit_all(write, entry.practice, vec![entry], by).await
}

/// Commits what the ledger of one practice is told of in these entries.
async fn commit_all(mut write: impl Write, practice: Option<&PracticeId>, entries: Vec<Entry<'_>>, by: &Actor) -> Result<Committed, Error> {
    if entries.is_empty() {
        return write.commit().await;
    }
    let (ids, mut prev_hash) = write.next_events(practice, entries.len()).await?;
    let mut events = Vec::with_capacity(entries.len());
    for (id, entry) in ids.into_iter().zip(entries) {
        let mut event = Event {
            id,
            at: now(),
            practice_id: entry.practice.cloned(),
            actor: by.name.clone(),
            origin: by.origin.clone(),
            action: entry.action.to_owned(),
            target: entry.target.to_owned(),
            before: entry.before,
            after: entry.after,
            prev_hash: prev_hash.unwrap_or_default(),
            hash: Hash::default(),
        };
        event.hash = event.computed_hash();
        prev_hash = Some(event.hash);
        events.push(event);
    }
    write.insert_events(&events).await?;
    write.commit().await
}

fn json<T: serde::Serialize>(value: &T) -> Value {
    serde_json::to_value(value).expect("entities have text keys only")
}

fn not_found(what: &'static str, id: &dyn std::fmt::Display) -> Error {
    Error::NotFound { what, id: id.to_string() }
}

pub(super) async fn put_practice(mut write: impl Write, id: &PracticeId, name: &str, by: &Actor) -> Result<Committed, Error> {
    let before = write.practice(id).await?;
    let api_access = before.as_ref().map_or(ApiAccess::None, |practice| practice.api_access);
    let after = Practice { id: id.clone(), name: name.into(), api_access };
    match &before {
        Some(before) if *before == after => return write.commit().await,
        Some(_) => write.update_practice(&after).await?,
        None => write.insert_practice(&after).await?,
    }
    let entry = Entry { practice: Some(id), action: "practice.put", target: id.as_str(), before: json(&before), after: json(&after) };
    commit(write, entry, by).await
}

pub(super) async fn set_practice_access(
    mut write: impl Write,
    id: &PracticeId,
    from: &[ApiAccess],
    to: ApiAccess,
    by: &Actor,
) -> Result<Committed, Error> {
    let before = write.practice(id).await?.ok_or_else(|| not_found("practice", id))?;
    if before.api_access == to {
        return write.commit().await;
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
    write.update_practice(&after).await?;
    let mail = match (before.api_access, to) {
        (_, ApiAccess::Requested) => Some((MailKind::AccessRequested, To::Operators)),
        (ApiAccess::None | ApiAccess::Requested, ApiAccess::Active) => Some((MailKind::AccessApproved, To::Admins)),
        (_, ApiAccess::Disabled) => Some((MailKind::AccessDisabled, To::Admins)),
        (_, ApiAccess::Active | ApiAccess::None) => None,
    };
    if let Some((kind, to)) = mail {
        write.queue_mail(&NewMail { kind, practice: id, client: None, to, details: json!({ "by": by.name }) }).await?;
    }
    let action = match (before.api_access, to) {
        (_, ApiAccess::Requested) => "practice.request",
        (ApiAccess::Disabled, ApiAccess::Active) => "practice.enable",
        (_, ApiAccess::Active) => "practice.approve",
        (_, ApiAccess::Disabled) => "practice.disable",
        (_, ApiAccess::None) => "practice.reset",
    };
    let entry = Entry { practice: Some(id), action, target: id.as_str(), before: json(&before), after: json(&after) };
    commit(write, entry, by).await
}

pub(super) async fn put_user(
    mut write: impl Write,
    practice: &PracticeId,
    id: &UserId,
    role: Role,
    by: &Actor,
) -> Result<Committed, Error> {
    if write.practice(practice).await?.is_none() {
        return Err(not_found("practice", practice));
    }
    let before = write.user(id).await?;
    let after = team::put(before.as_ref(), practice, id, role)?;
    match &before {
        Some(before) if *before == after => return write.commit().await,
        Some(_) => write.update_user(&after).await?,
        None => write.insert_user(&after).await?,
    }
    let entry = Entry { practice: Some(practice), action: "user.put", target: id.as_str(), before: json(&before), after: json(&after) };
    commit(write, entry, by).await
}

pub(super) async fn set_user_access(mut write: impl Write, id: &UserId, on: bool, by: &Actor) -> Result<Committed, Error> {
    let before = write.user(id).await?.ok_or_else(|| not_found("user", id))?;
    if before.api_access == on {
        return write.commit().await;
    }
    if on && before.left_at.is_some() {
        return Err(Error::Conflict(format!(
            "user `{id}` is no longer on the team of practice `{}`: put them back on it first",
            before.practice_id
        )));
    }
    let after = User { api_access: on, ..before.clone() };
    change_user(write, &before, &after, if on { "user.access_on" } else { "user.access_off" }, by).await
}

pub(super) async fn remove_user(mut write: impl Write, id: &UserId, by: &Actor) -> Result<Committed, Error> {
    let before = write.user(id).await?.ok_or_else(|| not_found("user", id))?;
    if before.left_at.is_some() && !before.api_access {
        return write.commit().await;
    }
    let after = team::removed(&before);
    change_user(write, &before, &after, "user.remove", by).await
}

async fn change_user(mut write: impl Write, before: &User, after: &User, action: &'static str, by: &Actor) -> Result<Committed, Error> {
    write.update_user(after).await?;
    let entry = Entry { practice: Some(&after.practice_id), action, target: after.id.as_str(), before: json(before), after: json(after) };
    commit(write, entry, by).await
}

pub(super) async fn create_client(mut write: impl Write, new: &Client, by: &Actor) -> Result<Committed, Error> {
    let id = &new.practice_id;
    let practice = write.practice(id).await?.ok_or_else(|| not_found("practice", id))?;
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
        let user = write.user(owner).await?.filter(|user| user.practice_id == *id && user.left_at.is_none());
        let user = user.ok_or_else(|| Error::Conflict(format!("user `{owner}` is not on the team of practice `{id}`: put them on it")))?;
        if !user.api_access {
            return Err(Error::Conflict(format!("the API access of user `{owner}` is off: an admin of the practice has to turn it on")));
        }
    }
    write.insert_client(new).await?;
    for secret in &new.secrets {
        write.insert_secret(new.id, secret).await?;
    }
    let target = new.id.to_text();
    let entry = Entry { practice: Some(id), action: "client.create", target: &target, before: Value::Null, after: json(new) };
    commit(write, entry, by).await
}

pub(super) async fn edit_client(mut write: impl Write, id: ClientId, edit: &ClientEdit, by: &Actor) -> Result<Committed, Error> {
    let before = usable(&mut write, id).await?;
    if edit.only_if.as_ref().is_some_and(|version| *version != before.version()) {
        return Err(Error::Changed { what: "client", id: id.to_text() });
    }
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
    if let Some(keys) = &edit.keys {
        after.keys.clone_from(keys);
    }
    if before == after {
        return write.commit().await;
    }
    write.update_client(&after).await?;
    commit_client(write, &before, &after, "client.edit", by).await
}

pub(super) async fn add_secret(
    mut write: impl Write,
    id: ClientId,
    digest: &SecretDigest,
    now: Timestamp,
    others_end: Timestamp,
    by: &Actor,
) -> Result<(u32, Committed), Error> {
    let before = usable(&mut write, id).await?;
    let newest = before.secrets.iter().map(|secret| secret.generation).max().unwrap_or(0);
    let generation =
        newest.checked_add(1).ok_or_else(|| Error::Conflict(format!("client `{id}` has had every secret it can: create another")))?;
    // At most two live secrets: the overlap is for the newest of the old ones, and those before it end now.
    for secret in &before.secrets {
        let end = if secret.generation == newest { others_end } else { now };
        end_at(&mut write, id, secret, end, end <= now).await?;
    }
    write.insert_secret(id, &StoredSecret { generation, digest: digest.clone(), created_at: now, expires_at: None, ended: false }).await?;
    let after = write.client(id).await?.ok_or_else(|| not_found("client", &id))?;
    if generation > 1 {
        let details = json!({ "by": by.name, "generation": generation, "others_end": others_end });
        queue_about(&mut write, &after, MailKind::SecretRegenerated, details).await?;
    }
    Ok((generation, commit_client(write, &before, &after, "client.rotate", by).await?))
}

pub(super) async fn end_secret(
    mut write: impl Write,
    id: ClientId,
    generation: u32,
    now: Timestamp,
    by: &Actor,
) -> Result<Committed, Error> {
    let before = write.client(id).await?.ok_or_else(|| not_found("client", &id))?;
    let secret = before.secrets.iter().find(|secret| secret.generation == generation);
    let secret = secret.ok_or_else(|| not_found("secret", &format_args!("{id}/{generation}")))?;
    if secret.ended {
        return write.commit().await;
    }
    end_at(&mut write, id, secret, now, true).await?;
    let after = write.client(id).await?.ok_or_else(|| not_found("client", &id))?;
    commit_client(write, &before, &after, "client.end_secret", by).await
}

/// Ends a secret at `end`, unless it ends sooner. What is over now is not left to the clocks of the nodes, which may be
/// behind that of the caller.
async fn end_at(write: &mut impl Write, id: ClientId, secret: &StoredSecret, end: Timestamp, ended: bool) -> Result<(), Error> {
    let sooner = secret.expires_at.is_none_or(|ends| ends > end);
    if !sooner && (secret.ended || !ended) {
        return Ok(());
    }
    let end = secret.expires_at.map_or(end, |ends| ends.min(end));
    write.end_secret(id, secret.generation, end, secret.ended || ended).await
}

pub(super) async fn revoke_client(mut write: impl Write, id: ClientId, now: Timestamp, by: &Actor) -> Result<Committed, Error> {
    let before = write.client(id).await?.ok_or_else(|| not_found("client", &id))?;
    if before.revoked_at.is_some() {
        return write.commit().await;
    }
    let after = Client { revoked_at: Some(now), ..before.clone() };
    write.update_client(&after).await?;
    queue_about(&mut write, &after, MailKind::ClientRevoked, json!({ "by": by.name })).await?;
    commit_client(write, &before, &after, "client.revoke", by).await
}

/// An entry about something that changes nothing.
pub(super) async fn note(mut write: impl Write, note: &Note, by: &Actor) -> Result<(), Error> {
    let practice = match &note.practice {
        Some(id) => write.practice(id).await?.map(|practice| practice.id),
        None => None,
    };
    let entry =
        Entry { practice: practice.as_ref(), action: note.action, target: &note.target, before: Value::Null, after: note.after.clone() };
    commit(write, entry, by).await.map(drop)
}

async fn queue_about(write: &mut impl Write, client: &Client, kind: MailKind, details: Value) -> Result<(), Error> {
    let to = To::holders(client.owner.as_ref());
    write.queue_mail(&NewMail { kind, practice: &client.practice_id, client: Some(client.id), to, details }).await
}

async fn commit_client(write: impl Write, before: &Client, after: &Client, action: &'static str, by: &Actor) -> Result<Committed, Error> {
    let target = after.id.to_text();
    let (told_before, told_after) = (told(before, after), told(after, before));
    let entry = Entry { practice: Some(&after.practice_id), action, target: &target, before: json(&told_before), after: json(&told_after) };
    commit(write, entry, by).await
}

/// What the ledger is told of a client that changes: of its secrets those that are in use, and those that the change
/// makes or ends. Earlier events tell of the rest, which would make each rotation's event longer than the one before.
fn told(client: &Client, other: &Client) -> Client {
    let now = now();
    let worth = |secret: &&StoredSecret| secret.usable_at(now) || !other.secrets.contains(secret);
    Client { secrets: client.secrets.iter().filter(worth).cloned().collect(), ..client.clone() }
}

/// The client, which is not revoked.
async fn usable(write: &mut impl Write, id: ClientId) -> Result<Client, Error> {
    let client = write.client(id).await?.ok_or_else(|| not_found("client", &id))?;
    match client.revoked_at {
        None => Ok(client),
        Some(at) => Err(Error::Conflict(format!("client `{id}` was revoked at {at}, which is final: create another client"))),
    }
}
