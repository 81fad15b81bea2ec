//! Reading the change log, and everything there is.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Row};

use super::fault::unusable;
use super::rows;
use crate::entity::{Client, Practice, RevokedToken, StoredKey, User};
use crate::id::{ClientId, KeyId, PracticeId, TokenId, UserId};
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
    let changed = |select: &str, column: &str, kind: &str| {
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
    let mut page = Page::new(rows::PRACTICE, "practice_id");
    while let Some(found) = page.next(conn).await? {
        found.iter().filter_map(|row| understood(rows::practice(row))).for_each(|practice| fill.practice(practice));
    }
    let mut page = Page::new(rows::USER, "user_id");
    while let Some(found) = page.next(conn).await? {
        found.iter().filter_map(|row| understood(rows::user(row))).for_each(|user| fill.user(user));
    }
    let mut page = Page::new(rows::SIGNING_KEY, "key_id");
    while let Some(found) = page.next(conn).await? {
        found.iter().filter_map(|row| understood(rows::signing_key(row))).for_each(|key| fill.signing_key(key));
    }
    let mut page = Page::new(rows::REVOKED_TOKEN, "token_id");
    while let Some(found) = page.next(conn).await? {
        found.iter().filter_map(|row| understood(rows::revoked_token(row))).for_each(|token| fill.revoked_token(token));
    }
    let secrets = format!("{} WHERE client_id > ? AND client_id <= ? ORDER BY client_id, generation DESC", rows::SECRET);
    let mut page = Page::new(rows::CLIENT, "client_id");
    loop {
        let after = page.after.clone();
        let Some(found) = page.next(conn).await? else { return Ok(()) };
        let mut clients: Vec<Client> = found.iter().filter_map(|row| understood(rows::client(row))).collect();
        // Both come in the order of the ids, so one walk along the clients finds each secret its place.
        let mut walk = clients.iter_mut().peekable();
        for row in &sqlx::query(AssertSqlSafe(secrets.as_str())).bind(after).bind(&page.after).fetch_all(&mut *conn).await? {
            let Some((id, secret)) = understood(rows::secret(row)) else { continue };
            while walk.next_if(|client| client.id < id).is_some() {}
            if let Some(client) = walk.peek_mut().filter(|client| client.id == id) {
                client.secrets.push(secret);
            }
        }
        for client in clients {
            fill.client(client);
        }
    }
}

/// A walk through a table in the order of its key.
struct Page {
    sql: String,
    key: &'static str,
    after: String,
    done: bool,
}

impl Page {
    const ROWS: usize = 512;

    fn new(select: &str, key: &'static str) -> Self {
        let sql = format!("{select} WHERE {key} > ? ORDER BY {key} LIMIT {}", Self::ROWS);
        Self { sql, key, after: String::new(), done: false }
    }

    async fn next(&mut self, conn: &mut SqliteConnection) -> Result<Option<Vec<SqliteRow>>, Error> {
        if self.done {
            return Ok(None);
        }
        let found = sqlx::query(AssertSqlSafe(self.sql.as_str())).bind(&self.after).fetch_all(conn).await?;
        self.done = found.len() < Self::ROWS;
        // What the index leads to must stand in its order, or rows may be missing from it.
        for row in &found {
            // What cannot be read is passed over, here too.
            let Ok(key) = row.try_get::<&str, _>(self.key) else { continue };
            if key <= &*self.after {
                return Err(unusable(format!(
                    "the database is damaged (`{key}` is out of order): stop sigmagate and put the newest backup in its place"
                )));
            }
            key.clone_into(&mut self.after);
        }
        let Some(last) = found.last() else { return Ok(None) };
        self.after = last.try_get(self.key)?;
        Ok(Some(found))
    }
}
