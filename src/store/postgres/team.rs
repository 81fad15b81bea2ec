//! Users and people, many at a time.

use sqlx::{AssertSqlSafe, PgConnection};

use super::read::For;
use super::write::{each, moment};
use super::{PgStore, read, rows};
use crate::entity::User;
use crate::id::{PracticeId, UserId};
use crate::store::Error;
use crate::store::records::TeamMember;

impl PgStore {
    pub(super) async fn list_team(&self, of: &PracticeId) -> Result<Vec<TeamMember>, Error> {
        let mut conn = self.conn().await?;
        if read::practice(&mut conn, of, For::Show).await?.is_none() {
            return Err(Error::NotFound { what: "practice", id: of.to_string() });
        }
        let sql = AssertSqlSafe(format!("{} WHERE practice_id = $1 ORDER BY user_id COLLATE \"C\"", rows::MEMBER));
        let found = sqlx::query(sql).bind(of.as_str()).fetch_all(&mut *conn).await?;
        found.iter().map(rows::member).collect()
    }

    pub(super) async fn one_member(&self, id: &UserId) -> Result<TeamMember, Error> {
        let sql = AssertSqlSafe(format!("{} WHERE user_id = $1", rows::MEMBER));
        let found = sqlx::query(sql).bind(id.as_str()).fetch_optional(&mut *self.conn().await?).await?;
        rows::member(&found.ok_or_else(|| Error::NotFound { what: "user", id: id.to_string() })?)
    }
}

/// Locked in the order of their ids.
pub(super) async fn members(conn: &mut PgConnection, ids: &[UserId]) -> Result<Vec<TeamMember>, Error> {
    let sql = format!("{} WHERE user_id = ANY ($1) ORDER BY user_id COLLATE \"C\"{} OF users", rows::MEMBER, For::Change.suffix());
    let found = sqlx::query(AssertSqlSafe(sql)).bind(each(ids, UserId::as_str)).fetch_all(conn).await?;
    found.iter().map(rows::member).collect()
}

pub(super) async fn insert_users(conn: &mut PgConnection, users: &[&User]) -> Result<Vec<UserId>, Error> {
    let inserted: Vec<String> = sqlx::query_scalar(concat!(
        "INSERT INTO gateway.users (user_id, practice_id, role, api_access, left_at)
         SELECT user_id, practice_id, role, api_access, ",
        moment!("left_at"),
        " FROM unnest($1::text[], $2::text[], $3::text[], $4::boolean[], $5::bigint[])
               AS new (user_id, practice_id, role, api_access, left_at)
         ON CONFLICT DO NOTHING RETURNING user_id"
    ))
    .bind(each(users, |user| user.id.as_str()))
    .bind(each(users, |user| user.practice_id.as_str()))
    .bind(each(users, |user| user.role.as_str()))
    .bind(each(users, |user| user.api_access))
    .bind(each(users, |user| user.left_at.map(|at| at.0)))
    .fetch_all(conn)
    .await?;
    let inserted: std::collections::HashSet<String> = inserted.into_iter().collect();
    Ok(users.iter().map(|user| &user.id).filter(|id| !inserted.contains(id.as_str())).cloned().collect())
}

pub(super) async fn update_users(conn: &mut PgConnection, users: &[&User]) -> Result<(), Error> {
    sqlx::query(concat!(
        "UPDATE gateway.users SET role = new.role, api_access = new.api_access, left_at = ",
        moment!("new.left_at"),
        " FROM unnest($1::text[], $2::text[], $3::boolean[], $4::bigint[]) AS new (user_id, role, api_access, left_at)
         WHERE users.user_id = new.user_id"
    ))
    .bind(each(users, |user| user.id.as_str()))
    .bind(each(users, |user| user.role.as_str()))
    .bind(each(users, |user| user.api_access))
    .bind(each(users, |user| user.left_at.map(|at| at.0)))
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn put_people(conn: &mut PgConnection, people: &[&TeamMember]) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO gateway.people (user_id, name, email) SELECT * FROM unnest($1::text[], $2::text[], $3::text[])
         ON CONFLICT (user_id) DO UPDATE SET name = excluded.name, email = excluded.email",
    )
    .bind(each(people, |member| member.user.id.as_str()))
    .bind(each(people, |member| member.name.as_deref()))
    .bind(each(people, |member| member.email.as_deref()))
    .execute(conn)
    .await?;
    Ok(())
}
