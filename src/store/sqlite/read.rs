//! What the store is asked: lists and single rows.

use std::collections::HashMap;

use sqlx::{AssertSqlSafe, SqliteConnection};

use super::{SqliteStore, rows};
use crate::entity::{Client, Practice, StoredSecret, User};
use crate::id::{ClientId, PracticeId, UserId};
use crate::store::{Error, audit};

impl SqliteStore {
    pub(super) async fn list_practices(&self) -> Result<Vec<Practice>, Error> {
        let sql = AssertSqlSafe(format!("{} ORDER BY practice_id", rows::PRACTICE));
        let found = sqlx::query(sql).fetch_all(&mut *self.conn().await?).await?;
        found.iter().map(rows::practice).collect()
    }

    pub(super) async fn one_practice(&self, id: &PracticeId) -> Result<Practice, Error> {
        practice(&mut *self.conn().await?, id).await?.ok_or_else(|| Error::NotFound { what: "practice", id: id.to_string() })
    }

    pub(super) async fn list_users(&self, of: &PracticeId) -> Result<Vec<User>, Error> {
        let mut conn = self.conn().await?;
        if practice(&mut conn, of).await?.is_none() {
            return Err(Error::NotFound { what: "practice", id: of.to_string() });
        }
        let sql = AssertSqlSafe(format!("{} WHERE practice_id = ? ORDER BY user_id", rows::USER));
        let found = sqlx::query(sql).bind(of.as_str()).fetch_all(&mut *conn).await?;
        found.iter().map(rows::user).collect()
    }

    pub(super) async fn one_user(&self, id: &UserId) -> Result<User, Error> {
        user(&mut *self.conn().await?, id).await?.ok_or_else(|| Error::NotFound { what: "user", id: id.to_string() })
    }

    pub(super) async fn list_clients(&self, practice: Option<&PracticeId>, owner: Option<&UserId>) -> Result<Vec<Client>, Error> {
        // Spelled out, so that each form finds its index.
        let filter = match (practice, owner) {
            (None, None) => "?1 IS NULL AND ?2 IS NULL",
            (Some(_), None) => "practice_id = ?1 AND ?2 IS NULL",
            (None, Some(_)) => "?1 IS NULL AND owner = ?2",
            (Some(_), Some(_)) => "practice_id = ?1 AND owner = ?2",
        };
        let of_clients = format!("{} WHERE {filter} ORDER BY created_at DESC, client_id", rows::CLIENT);
        let of_secrets =
            format!("{} WHERE client_id IN (SELECT client_id FROM clients WHERE {filter}) ORDER BY generation DESC", rows::SECRET);
        let mut conn = self.conn().await?;
        // One transaction, or a secret could be missing that was made between the two readings.
        let mut transaction = sqlx::Connection::begin(&mut *conn).await?;
        let (practice, owner) = (practice.map(PracticeId::as_str), owner.map(UserId::as_str));
        let clients = sqlx::query(AssertSqlSafe(of_clients)).bind(practice).bind(owner).fetch_all(&mut *transaction).await?;
        let secrets = sqlx::query(AssertSqlSafe(of_secrets)).bind(practice).bind(owner).fetch_all(&mut *transaction).await?;
        transaction.commit().await?;
        let mut by_client: HashMap<ClientId, Vec<StoredSecret>> = HashMap::new();
        for row in &secrets {
            let (id, secret) = rows::secret(row)?;
            by_client.entry(id).or_default().push(secret);
        }
        let mut clients: Vec<Client> = clients.iter().map(rows::client).collect::<Result<_, _>>()?;
        for client in &mut clients {
            client.secrets = by_client.remove(&client.id).unwrap_or_default();
        }
        Ok(clients)
    }

    pub(super) async fn one_client(&self, id: ClientId) -> Result<Client, Error> {
        let mut conn = self.conn().await?;
        let mut transaction = sqlx::Connection::begin(&mut *conn).await?;
        let client = client(&mut transaction, id).await?;
        transaction.commit().await?;
        client.ok_or_else(|| Error::NotFound { what: "client", id: id.to_string() })
    }

    pub(super) async fn list_events(&self, of: Option<&PracticeId>) -> Result<Vec<audit::Event>, Error> {
        let filter = if of.is_some() { "practice_id = ?1" } else { "?1 IS NULL" };
        let sql = AssertSqlSafe(format!("{} WHERE {filter} ORDER BY id", rows::EVENT));
        let found = sqlx::query(sql).bind(of.map(PracticeId::as_str)).fetch_all(&mut *self.conn().await?).await?;
        found.iter().map(rows::event).collect()
    }
}

/// The practice, if there is one.
pub(super) async fn practice(conn: &mut SqliteConnection, id: &PracticeId) -> Result<Option<Practice>, Error> {
    let sql = AssertSqlSafe(format!("{} WHERE practice_id = ?", rows::PRACTICE));
    sqlx::query(sql).bind(id.as_str()).fetch_optional(conn).await?.as_ref().map(rows::practice).transpose()
}

/// The user, if there is one.
pub(super) async fn user(conn: &mut SqliteConnection, id: &UserId) -> Result<Option<User>, Error> {
    let sql = AssertSqlSafe(format!("{} WHERE user_id = ?", rows::USER));
    sqlx::query(sql).bind(id.as_str()).fetch_optional(conn).await?.as_ref().map(rows::user).transpose()
}

/// The client with its secrets, if there is one.
pub(super) async fn client(conn: &mut SqliteConnection, id: ClientId) -> Result<Option<Client>, Error> {
    let sql = AssertSqlSafe(format!("{} WHERE client_id = ?", rows::CLIENT));
    let Some(row) = sqlx::query(sql).bind(id.to_text()).fetch_optional(&mut *conn).await? else { return Ok(None) };
    let mut client = rows::client(&row)?;
    let sql = AssertSqlSafe(format!("{} WHERE client_id = ? ORDER BY generation DESC", rows::SECRET));
    for row in &sqlx::query(sql).bind(id.to_text()).fetch_all(conn).await? {
        client.secrets.push(rows::secret(row)?.1);
    }
    Ok(Some(client))
}
