//! The ledger.

use sqlx::SqliteConnection;

use crate::id::PracticeId;
use crate::store::Error;
use crate::store::audit::{Event, Hash};

pub(super) async fn next_events(
    conn: &mut SqliteConnection,
    practice: Option<&PracticeId>,
    count: usize,
) -> Result<(Vec<u64>, Option<Hash>), Error> {
    let id: i64 = sqlx::query_scalar("SELECT coalesce(max(id), 0) + 1 FROM audit_events").fetch_one(&mut *conn).await?;
    let prev: Option<Vec<u8>> = sqlx::query_scalar("SELECT hash FROM audit_events WHERE practice_id IS ? ORDER BY id DESC LIMIT 1")
        .bind(practice.map(PracticeId::as_str))
        .fetch_optional(conn)
        .await?;
    let prev = prev.map(|hash| Hash(hash.try_into().expect("a CHECK keeps hashes at 32 bytes")));
    Ok(((u64::try_from(id).expect("the table's ids are positive")..).take(count).collect(), prev))
}

pub(super) async fn insert_events(conn: &mut SqliteConnection, events: &[Event]) -> Result<(), Error> {
    for event in events {
        sqlx::query(
            "INSERT INTO audit_events (id, at, practice_id, actor, origin, action, target, before, after, prev_hash, hash)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(i64::try_from(event.id).unwrap_or(i64::MAX))
        .bind(event.at.0)
        .bind(event.practice_id.as_ref().map(PracticeId::as_str))
        .bind(&event.actor)
        .bind(&event.origin)
        .bind(&event.action)
        .bind(&event.target)
        .bind(event.before.to_string())
        .bind(event.after.to_string())
        .bind(event.prev_hash.0.as_slice())
        .bind(event.hash.0.as_slice())
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}
