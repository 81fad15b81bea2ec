//! The ledger.

use sqlx::PgConnection;

use super::write::{each, moment};
use crate::id::PracticeId;
use crate::store::Error;
use crate::store::audit::{Event, Hash};

pub(super) async fn next_events(
    conn: &mut PgConnection,
    practice: Option<&PracticeId>,
    count: usize,
) -> Result<(Vec<u64>, Option<Hash>), Error> {
    // Held until the commit: who comes next finds these events as the last ones. (No practice has an empty id; of NULL
    // there would be no lock at all.)
    sqlx::query("SELECT pg_advisory_xact_lock(1936549749, hashtext($1))")
        .bind(practice.map_or("", PracticeId::as_str))
        .execute(&mut *conn)
        .await?;
    let of_practice = "SELECT (SELECT array_agg(nextval('gateway.audit_event_id')) FROM generate_series(1, $2)),
        (SELECT hash FROM gateway.audit_events WHERE practice_id = $1 ORDER BY id DESC LIMIT 1)";
    let of_none = "SELECT (SELECT array_agg(nextval('gateway.audit_event_id')) FROM generate_series(1, $2)),
        (SELECT hash FROM gateway.audit_events WHERE practice_id IS NULL AND $1::text IS NULL ORDER BY id DESC LIMIT 1)";
    // Two, for `IS NOT DISTINCT FROM` finds no index.
    let (ids, prev): (Vec<i64>, Option<Vec<u8>>) = sqlx::query_as(if practice.is_some() { of_practice } else { of_none })
        .bind(practice.map(PracticeId::as_str))
        .bind(i32::try_from(count).unwrap_or(i32::MAX))
        .fetch_one(conn)
        .await?;
    let prev = prev.map(|hash| Hash(hash.try_into().expect("a CHECK keeps hashes at 32 bytes")));
    Ok((ids.into_iter().map(|id| u64::try_from(id).expect("a sequence counts up from 1")).collect(), prev))
}

/// In one statement, in which each row finds those before it.
pub(super) async fn insert_events(conn: &mut PgConnection, events: &[Event]) -> Result<(), Error> {
    sqlx::query(concat!(
        "INSERT INTO gateway.audit_events (id, at, practice_id, actor, origin, action, target, before, after, prev_hash, hash)
         SELECT id, ",
        moment!("at"),
        ", practice_id, actor, origin, action, target, before, after, prev_hash, hash
         FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
                     $10::bytea[], $11::bytea[])
              AS told (id, at, practice_id, actor, origin, action, target, before, after, prev_hash, hash)
         ORDER BY id"
    ))
    .bind(each(events, |event| i64::try_from(event.id).unwrap_or(i64::MAX)))
    .bind(each(events, |event| event.at.0))
    .bind(each(events, |event| event.practice_id.as_ref().map(PracticeId::as_str)))
    .bind(each(events, |event| event.actor.as_str()))
    .bind(each(events, |event| event.origin.as_str()))
    .bind(each(events, |event| event.action.as_str()))
    .bind(each(events, |event| event.target.as_str()))
    .bind(each(events, |event| event.before.to_string()))
    .bind(each(events, |event| event.after.to_string()))
    .bind(each(events, |event| event.prev_hash.0.as_slice()))
    .bind(each(events, |event| event.hash.0.as_slice()))
    .execute(conn)
    .await?;
    Ok(())
}
