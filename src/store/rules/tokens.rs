//! What a change of a signing key or of one token is.

use super::{Entry, Write, commit, json, not_found};
use crate::clock::Timestamp;
use crate::entity::{RevokedToken, StoredKey};
use crate::id::KeyId;
use crate::store::{Actor, Committed, Error};

pub(in crate::store) async fn add_signing_key(mut write: impl Write, key: &StoredKey, by: &Actor) -> Result<Committed, Error> {
    if key.signs_from.is_some() || key.revoked_at.is_some() {
        return Err(Error::Conflict(format!("signing key `{}` is new, so it signs nothing yet and is not revoked", key.id)));
    }
    match write.signing_key(&key.id).await? {
        Some(before) if before == *key => return write.commit().await,
        Some(_) => return Err(Error::Conflict(format!("signing key `{}` is there already: make another", key.id))),
        None => write.insert_signing_key(key).await?,
    }
    commit_key(write, None, key, "signing_key.add", by).await
}

pub(in crate::store) async fn plan_signing_key(
    mut write: impl Write,
    id: &KeyId,
    signs_from: Timestamp,
    by: &Actor,
) -> Result<Committed, Error> {
    let before = write.signing_key(id).await?.ok_or_else(|| not_found("signing key", id))?;
    if let Some(at) = before.revoked_at {
        return Err(Error::Conflict(format!("signing key `{id}` was revoked at {at}, which is final: make another")));
    }
    match before.signs_from {
        Some(planned) if planned == signs_from => return write.commit().await,
        Some(planned) => {
            return Err(Error::Conflict(format!("signing key `{id}` is planned to sign from {planned} on, which stays so: plan another")));
        }
        None => {}
    }
    let after = StoredKey { signs_from: Some(signs_from), ..before.clone() };
    write.update_signing_key(&after).await?;
    commit_key(write, Some(&before), &after, "signing_key.plan", by).await
}

pub(in crate::store) async fn revoke_signing_key(
    mut write: impl Write,
    id: &KeyId,
    now: Timestamp,
    by: &Actor,
) -> Result<Committed, Error> {
    let before = write.signing_key(id).await?.ok_or_else(|| not_found("signing key", id))?;
    if before.revoked_at.is_some() {
        return write.commit().await;
    }
    let after = StoredKey { revoked_at: Some(now), ..before.clone() };
    write.update_signing_key(&after).await?;
    commit_key(write, Some(&before), &after, "signing_key.revoke", by).await
}

/// A key concerns every practice, so its events are in the ledger of none.
async fn commit_key(
    write: impl Write,
    before: Option<&StoredKey>,
    after: &StoredKey,
    action: &'static str,
    by: &Actor,
) -> Result<Committed, Error> {
    let entry = Entry { practice: None, action, target: after.id.as_str(), before: json(&before), after: json(after) };
    commit(write, entry, by).await
}

pub(in crate::store) async fn revoke_token(mut write: impl Write, token: &RevokedToken, by: &Actor) -> Result<Committed, Error> {
    let practice = write.practice_of(token.client_id).await?.ok_or_else(|| not_found("client", &token.client_id))?;
    if !write.insert_revoked_token(token).await? {
        return write.commit().await;
    }
    let target = token.id.to_string();
    let before = None::<&RevokedToken>;
    let entry = Entry { practice: Some(&practice), action: "token.revoke", target: &target, before: json(&before), after: json(token) };
    commit(write, entry, by).await
}
