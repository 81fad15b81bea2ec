//! Reading the change log, and everything there is.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join;
use sqlx::AssertSqlSafe;
use sqlx::sqlite::SqliteConnection;

use super::fault::damaged;
use super::packed::{Page, Values};
use super::rows::{self, Table};
use crate::entity::{Client, Practice, RevokedToken, StoredKey, User};
use crate::id::{ClientId, KeyId, PracticeId, TokenId, UserId};
use crate::store::rows::Row;
use crate::store::unclear::understood;
use crate::store::{Change, Error, Fill};

/// What is read of a table at a time.
pub(super) const ROWS: usize = 512;

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
    walk(conn, rows::PRACTICE, None, |rows, _| each(rows, rows::practice, |practice| fill.practice(practice))).await?;
    walk(conn, rows::USER, None, |rows, _| each(rows, rows::user, |user| fill.user(user))).await?;
    walk(conn, rows::SIGNING_KEY, None, |rows, _| each(rows, rows::signing_key, |key| fill.signing_key(key))).await?;
    walk(conn, rows::REVOKED_TOKEN, None, |rows, _| each(rows, rows::revoked_token, |token| fill.revoked_token(token))).await?;
    walk(conn, rows::CLIENT, Some(rows::SECRET), |rows, secrets| {
        let mut clients: Vec<Client> = rows.iter().filter_map(|row| understood(rows::client(row))).collect();
        // Both come in the order of the ids, so one walk along the clients finds each secret its place.
        let mut owners = clients.iter_mut().peekable();
        for (id, secret) in secrets.iter().filter_map(|row| understood(rows::secret(row))) {
            while owners.next_if(|client| client.id < id).is_some() {}
            if let Some(client) = owners.peek_mut().filter(|client| client.id == id) {
                client.secrets.push(secret);
            }
        }
        for mut client in clients {
            // The newest first.
            client.secrets.reverse();
            fill.client(client);
        }
    })
    .await
}

/// What each of the rows is read as, if it is understood.
fn each<'a, T>(rows: &[Values<'a>], read: impl Fn(&Values<'a>) -> Result<T, Error>, take: impl FnMut(T)) {
    rows.iter().filter_map(|row| understood(read(row))).for_each(take);
}

/// Walks through a table in the order of its key, and has some rows looked at while those after them are read: with the rows of
/// another one, if any, that have the same keys.
async fn walk(
    conn: &mut SqliteConnection,
    table: Table,
    other: Option<Table>,
    mut each: impl FnMut(&[Values<'_>], &[Values<'_>]),
) -> Result<(), Error> {
    let (mut at, mut next) = (String::new(), some(conn, table, other, "").await?);
    loop {
        let page = next;
        let look = async {
            let (opened, others) = (page.rows.open()?, page.others.open()?);
            let rows = opened.rows();
            for row in &rows {
                // What cannot be read is passed over here too, unless the next rows are to be found by it.
                let Ok(Some(key)) = row.text(0) else { continue };
                // What the index leads to must stand in its order, or rows may be missing from it.
                if key <= &*at {
                    return Err(damaged(&format!("`{key}` is out of order")));
                }
                key.clone_into(&mut at);
            }
            if page.last.as_ref().is_none_or(|last| *last != at) && !rows.is_empty() {
                return Err(damaged(&format!("a {} is not a text", table.key())));
            }
            each(&rows, &others.rows());
            Ok(())
        };
        let Some(last) = &page.last else { return look.await };
        // Begun first: it goes on in another thread.
        let (more, looked) = join(some(conn, table, other, last), look).await;
        looked?;
        next = more?;
    }
}

/// Some rows after a key, and those of the other table for the same keys.
async fn some(conn: &mut SqliteConnection, table: Table, other: Option<Table>, after: &str) -> Result<Page, Error> {
    let key = table.key();
    Page::read(conn, &table, other.as_ref(), &format!("WHERE {key} > ?1 ORDER BY {key} LIMIT {ROWS}"), after).await
}
