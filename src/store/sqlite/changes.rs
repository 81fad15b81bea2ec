//! Reading the change log, and everything there is.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::AssertSqlSafe;
use sqlx::sqlite::SqliteConnection;

use super::fault::unusable;
use super::packed::{Page, Values};
use super::rows::{self, Table};
use crate::entity::{Client, Practice, RevokedToken, StoredKey, User};
use crate::id::{ClientId, KeyId, PracticeId, TokenId, UserId};
use crate::store::rows::Row;
use crate::store::unclear::understood;
use crate::store::{Change, Error, Fill};

/// What changed after a revision, each entity once, as it is now.
pub(super) async fn batch(conn: &mut SqliteConnection, after: i64) -> Result<Vec<Change>, Error> {
    let keys: Vec<(String, String)> =
        sqlx::query_as("SELECT DISTINCT kind, key FROM changes WHERE revision > ?").bind(after).fetch_all(&mut *conn).await?;
    let mut practices: BTreeMap<PracticeId, Option<Practice>> = BTreeMap::new();
    let mut users: BTreeMap<UserId, Option<User>> = BTreeMap::new();
    let mut clients: BTreeMap<ClientId, Option<Client>> = BTreeMap::new();
    let mut signing_keys: BTreeMap<KeyId, Option<StoredKey>> = BTreeMap::new();
    let mut revoked_tokens: BTreeMap<TokenId, Option<RevokedToken>> = BTreeMap::new();
    let mut kinds = BTreeSet::new();
    for (kind, key) in &keys {
        // Absent until its row is found and understood.
        let known = match kind.as_str() {
            "practice" => key.parse().map(|id| drop(practices.insert(id, None))),
            "user" => key.parse().map(|id| drop(users.insert(id, None))),
            "client" => key.parse().map(|id| drop(clients.insert(id, None))),
            "key" => key.parse().map(|id| drop(signing_keys.insert(id, None))),
            "token" => key.parse().map(|id| {
                revoked_tokens.insert(id, None);
            }),
            _ => {
                tracing::error!(kind, key, "a change of a kind that this program does not know is passed over");
                continue;
            }
        };
        kinds.insert(kind.as_str());
        if let Err(error) = known {
            // What has no valid id was never taken in, so there is nothing to take out.
            tracing::error!(%error, kind, "a changed row has no valid id; nothing is admitted by it");
        }
    }
    let changed = |select: Table, column: &str, kind: &str| {
        AssertSqlSafe(format!("{select} WHERE {column} IN (SELECT key FROM changes WHERE revision > ? AND kind = '{kind}')"))
    };
    if kinds.contains("practice") {
        let sql = changed(rows::PRACTICE, "practice_id", "practice");
        for row in &sqlx::query(sql).bind(after).fetch_all(&mut *conn).await? {
            practices.extend(understood(rows::practice(row)).map(|practice| (practice.id.clone(), Some(practice))));
        }
    }
    if kinds.contains("user") {
        let sql = changed(rows::USER, "user_id", "user");
        for row in &sqlx::query(sql).bind(after).fetch_all(&mut *conn).await? {
            users.extend(understood(rows::user(row)).map(|user| (user.id.clone(), Some(user))));
        }
    }
    if kinds.contains("client") {
        let sql = changed(rows::CLIENT, "client_id", "client");
        for row in &sqlx::query(sql).bind(after).fetch_all(&mut *conn).await? {
            clients.extend(understood(rows::client(row)).map(|client| (client.id, Some(client))));
        }
        let sql = changed(rows::SECRET, "client_id", "client");
        for row in &sqlx::query(sql).bind(after).fetch_all(&mut *conn).await? {
            let Some((id, secret)) = understood(rows::secret(row)) else { continue };
            if let Some(Some(client)) = clients.get_mut(&id) {
                client.secrets.push(secret);
            }
        }
        for client in clients.values_mut().flatten() {
            client.secrets.sort_unstable_by_key(|secret| std::cmp::Reverse(secret.generation));
        }
    }
    if kinds.contains("key") {
        let sql = changed(rows::SIGNING_KEY, "key_id", "key");
        for row in &sqlx::query(sql).bind(after).fetch_all(&mut *conn).await? {
            signing_keys.extend(understood(rows::signing_key(row)).map(|key| (key.id.clone(), Some(key))));
        }
    }
    if kinds.contains("token") {
        let sql = changed(rows::REVOKED_TOKEN, "token_id", "token");
        for row in &sqlx::query(sql).bind(after).fetch_all(&mut *conn).await? {
            revoked_tokens.extend(understood(rows::revoked_token(row)).map(|token| (token.id, Some(token))));
        }
    }
    let practices = practices.into_iter().map(|(id, practice)| Change::Practice(id, practice));
    let users = users.into_iter().map(|(id, user)| Change::User(id, user));
    let clients = clients.into_iter().map(|(id, client)| Change::Client(id, client));
    let signing_keys = signing_keys.into_iter().map(|(id, key)| Change::SigningKey(id, key));
    let revoked_tokens = revoked_tokens.into_iter().map(|(id, token)| Change::RevokedToken(id, token));
    Ok(practices.chain(users).chain(clients).chain(signing_keys).chain(revoked_tokens).collect())
}

/// Reads the tables a page at a time: a million rows at once would take far more memory than what is made of them.
pub(super) async fn read_all(conn: &mut SqliteConnection, fill: &mut dyn Fill) -> Result<(), Error> {
    let mut walk = Walk::along(rows::PRACTICE);
    while walk.next(conn, |row| understood(rows::practice(row)).into_iter().for_each(|practice| fill.practice(practice))).await? {}
    let mut walk = Walk::along(rows::USER);
    while walk.next(conn, |row| understood(rows::user(row)).into_iter().for_each(|user| fill.user(user))).await? {}
    let mut walk = Walk::along(rows::SIGNING_KEY);
    while walk.next(conn, |row| understood(rows::signing_key(row)).into_iter().for_each(|key| fill.signing_key(key))).await? {}
    let mut walk = Walk::along(rows::REVOKED_TOKEN);
    while walk.next(conn, |row| understood(rows::revoked_token(row)).into_iter().for_each(|token| fill.revoked_token(token))).await? {}
    let of_these = "WHERE client_id > ?1 AND client_id <= ?2 ORDER BY client_id, generation DESC";
    let (mut walk, mut more) = (Walk::along(rows::CLIENT), true);
    while more {
        let (after, mut clients) = (walk.after.clone(), Vec::<Client>::with_capacity(Walk::ROWS));
        more = walk.next(conn, |row| clients.extend(understood(rows::client(row)))).await?;
        // Both come in the order of the ids, so one walk along the clients finds each secret its place.
        let mut owners = clients.iter_mut().peekable();
        let secrets = Page::read(conn, &rows::SECRET, of_these, &[&after, &walk.after]).await?;
        for row in &secrets.rows()? {
            let Some((id, secret)) = understood(rows::secret(row)) else { continue };
            while owners.next_if(|client| client.id < id).is_some() {}
            if let Some(client) = owners.peek_mut().filter(|client| client.id == id) {
                client.secrets.push(secret);
            }
        }
        for client in clients {
            fill.client(client);
        }
    }
    Ok(())
}

/// A walk through a table in the order of its key.
struct Walk {
    table: Table,
    which: String,
    /// The key of the last row that was read.
    after: String,
}

impl Walk {
    const ROWS: usize = 512;

    fn along(table: Table) -> Self {
        let key = table.key();
        Self { table, which: format!("WHERE {key} > ?1 ORDER BY {key} LIMIT {}", Self::ROWS), after: String::new() }
    }

    /// Reads some rows more; whether there may be others after them.
    async fn next(&mut self, conn: &mut SqliteConnection, mut each: impl FnMut(&Values<'_>)) -> Result<bool, Error> {
        let page = Page::read(conn, &self.table, &self.which, &[&self.after]).await?;
        let rows = page.rows()?;
        let (mut known, key) = (true, self.table.key());
        for row in &rows {
            // What cannot be read is passed over here too, unless the next rows are to be found by it.
            known = false;
            if let Ok(Some(text)) = row.text(0) {
                // What the index leads to must stand in its order, or rows may be missing from it.
                if text <= &*self.after {
                    return Err(damaged(&format!("`{text}` is out of order")));
                }
                text.clone_into(&mut self.after);
                known = true;
            }
            each(row);
        }
        if known { Ok(rows.len() == Self::ROWS) } else { Err(damaged(&format!("a {key} is not a text"))) }
    }
}

fn damaged(how: &str) -> Error {
    unusable(format!("the database is damaged ({how}): stop sigmagate and put the newest backup in its place"))
}
