//! What the store is asked: lists and single rows.

use std::collections::HashMap;

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::{PgStore, rows};
use crate::entity::{Client, Practice, StoredSecret, User};
use crate::id::{ClientId, PracticeId, UserId};
use crate::store::{Error, audit};

/// Every statement of the transaction sees the same.
pub(super) const ONE_VIEW: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// What a row is read for: to be shown, or to be changed by the transaction, which then keeps others from changing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum For {
    Show,
    Change,
}

impl For {
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Show => "",
            // Not `FOR UPDATE`, which would keep out rows that merely refer to this one.
            Self::Change => " FOR NO KEY UPDATE",
        }
    }
}

impl PgStore {
    pub(super) async fn list_practices(&self) -> Result<Vec<Practice>, Error> {
        let sql = AssertSqlSafe(format!("{} ORDER BY practice_id COLLATE \"C\"", rows::PRACTICE));
        let found = sqlx::query(sql).fetch_all(&mut *self.conn().await?).await?;
        found.iter().map(rows::practice).collect()
    }

    pub(super) async fn one_practice(&self, id: &PracticeId) -> Result<Practice, Error> {
        let found = practice(&mut *self.conn().await?, id, For::Show).await?;
        found.ok_or_else(|| Error::NotFound { what: "practice", id: id.to_string() })
    }

    pub(super) async fn list_users(&self, of: &PracticeId) -> Result<Vec<User>, Error> {
        let mut conn = self.conn().await?;
        if practice(&mut conn, of, For::Show).await?.is_none() {
            return Err(Error::NotFound { what: "practice", id: of.to_string() });
        }
        let sql = AssertSqlSafe(format!("{} WHERE practice_id = $1 ORDER BY user_id COLLATE \"C\"", rows::USER));
        let found = sqlx::query(sql).bind(of.as_str()).fetch_all(&mut *conn).await?;
        found.iter().map(rows::user).collect()
    }

    pub(super) async fn one_user(&self, id: &UserId) -> Result<User, Error> {
        let found = user(&mut *self.conn().await?, id, For::Show).await?;
        found.ok_or_else(|| Error::NotFound { what: "user", id: id.to_string() })
    }

    pub(super) async fn list_clients(&self, practice: Option<&PracticeId>, owner: Option<&UserId>) -> Result<Vec<Client>, Error> {
        let filter = "($1::text IS NULL OR practice_id = $1) AND ($2::text IS NULL OR owner = $2)";
        let of_clients = format!("{} WHERE {filter} ORDER BY created_at DESC, client_id COLLATE \"C\"", rows::CLIENT);
        let of_secrets =
            format!("{} WHERE client_id IN (SELECT client_id FROM gateway.clients WHERE {filter}) ORDER BY generation DESC", rows::SECRET);
        let mut conn = self.conn().await?;
        let mut transaction = conn.begin_with(ONE_VIEW).await?;
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
        let mut transaction = conn.begin_with(ONE_VIEW).await?;
        let found = client(&mut transaction, id, For::Show).await?;
        transaction.commit().await?;
        found.ok_or_else(|| Error::NotFound { what: "client", id: id.to_string() })
    }

    pub(super) async fn list_events(&self, of: Option<&PracticeId>) -> Result<Vec<audit::Event>, Error> {
        let sql = AssertSqlSafe(format!("{} WHERE $1::text IS NULL OR practice_id = $1 ORDER BY id", rows::EVENT));
        let found = sqlx::query(sql).bind(of.map(PracticeId::as_str)).fetch_all(&mut *self.conn().await?).await?;
        found.iter().map(rows::event).collect()
    }
}

/// The practice, if there is one.
pub(super) async fn practice(conn: &mut PgConnection, id: &PracticeId, how: For) -> Result<Option<Practice>, Error> {
    let sql = AssertSqlSafe(format!("{} WHERE practice_id = $1{}", rows::PRACTICE, how.suffix()));
    sqlx::query(sql).bind(id.as_str()).fetch_optional(conn).await?.as_ref().map(rows::practice).transpose()
}

/// The user, if there is one.
pub(super) async fn user(conn: &mut PgConnection, id: &UserId, how: For) -> Result<Option<User>, Error> {
    let sql = AssertSqlSafe(format!("{} WHERE user_id = $1{}", rows::USER, how.suffix()));
    sqlx::query(sql).bind(id.as_str()).fetch_optional(conn).await?.as_ref().map(rows::user).transpose()
}

/// The client with its secrets, if there is one.
pub(super) async fn client(conn: &mut PgConnection, id: ClientId, how: For) -> Result<Option<Client>, Error> {
    let sql = AssertSqlSafe(format!("{} WHERE client_id = $1{}", rows::CLIENT, how.suffix()));
    let Some(row) = sqlx::query(sql).bind(id.to_text()).fetch_optional(&mut *conn).await? else { return Ok(None) };
    let mut client = rows::client(&row)?;
    let sql = AssertSqlSafe(format!("{} WHERE client_id = $1 ORDER BY generation DESC", rows::SECRET));
    for row in &sqlx::query(sql).bind(id.to_text()).fetch_all(conn).await? {
        client.secrets.push(rows::secret(row)?.1);
    }
    Ok(Some(client))
}
