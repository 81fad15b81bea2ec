//! What a change of a team is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::{Entry, Write, commit_all, json, not_found};
use crate::clock::now;
use crate::entity::{Role, User};
use crate::id::{PracticeId, UserId};
use crate::store::records::{TeamMember, TeamSync};
use crate::store::{Actor, Committed, Error};

/// The longest name, in characters; the tables hold no longer one.
const NAME: usize = 200;
/// The longest address (RFC 5321 §4.5.3.1.3), and the shortest, in characters.
const EMAIL: [usize; 2] = [3, 254];

/// One row that changes something: how the member was, if they were, and is.
struct Step<'r> {
    row: usize,
    id: &'r UserId,
    before: Option<TeamMember>,
    after: TeamMember,
}

pub(in crate::store) async fn sync_team(
    mut write: impl Write,
    practice: &PracticeId,
    rows: &[TeamSync],
    by: &Actor,
) -> Result<(Vec<Result<(), Error>>, Option<Committed>), Error> {
    if write.practice(practice).await?.is_none() {
        return Err(not_found("practice", practice));
    }
    // In the order in which everybody locks them.
    let ids: Vec<UserId> = rows.iter().map(TeamSync::id).collect::<BTreeSet<_>>().into_iter().cloned().collect();
    let before: BTreeMap<UserId, TeamMember> =
        write.members(&ids).await?.into_iter().map(|member| (member.user.id.clone(), member)).collect();
    let mut after = before.clone();
    let (mut results, mut steps) = (Vec::with_capacity(rows.len()), Vec::new());
    for (row, sync) in rows.iter().enumerate() {
        let id = sync.id();
        let is = after.get(id);
        let next = step(practice, is, sync);
        if let Ok(Some(next)) = &next {
            steps.push(Step { row, id, before: is.cloned(), after: next.clone() });
            after.insert(id.clone(), next.clone());
        }
        results.push(next.map(drop));
    }
    let (known, new): (Vec<_>, Vec<_>) = after.values().partition(|member| before.contains_key(&member.user.id));
    let users: Vec<_> = new.iter().map(|member| &member.user).collect();
    let taken = if users.is_empty() { Vec::new() } else { write.insert_users(&users).await? };
    for step in &steps {
        if taken.contains(step.id) {
            results[step.row] = Err(elsewhere(step.id));
        }
    }
    steps.retain(|step| !taken.contains(step.id));
    let changed: Vec<_> = known.iter().map(|member| &member.user).filter(|user| before[&user.id].user != **user).collect();
    if !changed.is_empty() {
        write.update_users(&changed).await?;
    }
    let reached = |member: &TeamMember| (member.name.clone(), member.email.clone());
    let people: Vec<_> = after
        .values()
        .filter(|member| !taken.contains(&member.user.id))
        .filter(|member| before.get(&member.user.id).map_or((None, None), reached) != reached(member))
        .collect();
    if !people.is_empty() {
        write.put_people(&people).await?;
    }
    if results.iter().all(Result::is_err) {
        return Ok((results, None));
    }
    let entries = steps.iter().map(|step| entry(practice, step)).collect();
    Ok((results, Some(commit_all(write, Some(practice), entries, by).await?)))
}

/// What becomes of the member; `None`: they stay as they are.
fn step(practice: &PracticeId, is: Option<&TeamMember>, sync: &TeamSync) -> Result<Option<TeamMember>, Error> {
    let user = is.map(|member| &member.user);
    let next = match sync {
        TeamSync::Put { id, role, name, email } => {
            let user = put(user, practice, id, *role)?;
            fits(id, "name", name.as_deref(), 1, NAME)?;
            fits(id, "e-mail address", email.as_deref(), EMAIL[0], EMAIL[1])?;
            TeamMember { user, name: name.clone(), email: email.clone() }
        }
        TeamSync::Remove { id } => {
            let is = is.ok_or_else(|| not_found("user", id))?;
            if is.user.practice_id != *practice {
                return Err(elsewhere(id));
            }
            TeamMember { user: removed(&is.user), ..is.clone() }
        }
    };
    Ok((is != Some(&next)).then_some(next))
}

/// The user as they are once they are on the team.
pub(super) fn put(before: Option<&User>, practice: &PracticeId, id: &UserId, role: Role) -> Result<User, Error> {
    if before.is_some_and(|user| user.practice_id != *practice) {
        return Err(elsewhere(id));
    }
    let api_access = before.is_some_and(|user| user.api_access);
    Ok(User { id: id.clone(), practice_id: practice.clone(), role, api_access, left_at: None })
}

/// The user as they are once they are off it.
pub(super) fn removed(before: &User) -> User {
    // The toggle ends with the membership: coming back must not by itself bring old keys back to life.
    User { left_at: before.left_at.or_else(|| Some(now())), api_access: false, ..before.clone() }
}

/// Not which: whoever asks may have no business knowing.
fn elsewhere(id: &UserId) -> Error {
    Error::Conflict(format!("user `{id}` belongs to another practice, and cannot change it: use another id"))
}

/// What the database would refuse, and every other row with it.
fn fits(id: &UserId, what: &str, text: Option<&str>, least: usize, most: usize) -> Result<(), Error> {
    let Some(text) = text else { return Ok(()) };
    let length = text.chars().count();
    if !(least..=most).contains(&length) {
        return Err(Error::Conflict(format!("the {what} of user `{id}` has {length} characters: give {least} to {most}, or none")));
    }
    if text.chars().any(char::is_control) {
        return Err(Error::Conflict(format!("the {what} of user `{id}` has a control character: leave it out")));
    }
    Ok(())
}

/// Says what has become of the name, where something has, but of the address only that something has.
fn entry<'s>(practice: &'s PracticeId, step: &'s Step<'_>) -> Entry<'s> {
    let Step { before, after, .. } = step;
    let (mut was, mut is) = (json(&before.as_ref().map(|member| &member.user)), json(&after.user));
    let old = before.as_ref().map_or((&None, &None), |member| (&member.name, &member.email));
    if *old.0 != after.name {
        if before.is_some() {
            was["name"] = json(old.0);
        }
        is["name"] = json(&after.name);
    }
    if *old.1 != after.email {
        is["email"] = Value::from(what_became(old.1.as_ref(), after.email.as_ref()));
    }
    let action = if after.user.left_at.is_some() { "user.remove" } else { "user.put" };
    Entry { practice: Some(practice), action, target: step.id.as_str(), before: was, after: is }
}

fn what_became(old: Option<&Arc<str>>, new: Option<&Arc<str>>) -> &'static str {
    match (old, new) {
        (_, None) => "removed",
        (None, Some(_)) => "added",
        (Some(_), Some(_)) => "changed",
    }
}
