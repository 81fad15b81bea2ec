//! Users and people.

use sqlx::{AssertSqlSafe, SqliteConnection};

use super::{SqliteStore, read, rows};
use crate::id::{PracticeId, UserId};
use crate::store::Error;
use crate::store::records::TeamMember;

impl SqliteStore {
    pub(super) async fn list_team(&self, of: &PracticeId) -> Result<Vec<TeamMember>, Error> {
        let mut conn = self.conn().await?;
        if read::practice(&mut conn, of).await?.is_none() {
            return Err(Error::NotFound { what: "practice", id: of.to_string() });
        }
        let sql = AssertSqlSafe(format!("{} WHERE practice_id = ? ORDER BY user_id", rows::MEMBER));
        let found = sqlx::query(sql).bind(of.as_str()).fetch_all(&mut *conn).await?;
        found.iter().map(rows::member).collect()
    }

    pub(super) async fn one_member(&self, id: &UserId) -> Result<TeamMember, Error> {
        member(&mut *self.conn().await?, id).await?.ok_or_else(|| Error::NotFound { what: "user", id: id.to_string() })
    }
}

/// The user and their name, if there is one.
pub(super) async fn member(conn: &mut SqliteConnection, id: &UserId) -> Result<Option<TeamMember>, Error> {
    let sql = AssertSqlSafe(format!("{} WHERE user_id = ?", rows::MEMBER));
    sqlx::query(sql).bind(id.as_str()).fetch_optional(conn).await?.as_ref().map(rows::member).transpose()
}

pub(super) async fn put_people(conn: &mut SqliteConnection, people: &[&TeamMember]) -> Result<(), Error> {
    for member in people {
        sqlx::query(
            "INSERT INTO people (user_id, name, email) VALUES (?, ?, ?)
             ON CONFLICT (user_id) DO UPDATE SET name = excluded.name, email = excluded.email",
        )
        .bind(member.user.id.as_str())
        .bind(member.name.as_deref())
        .bind(member.email.as_deref())
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}
