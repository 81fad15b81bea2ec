//! What clients do, by the day.

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, Connection};

use super::super::read::ONE_VIEW;
use super::super::rows::{self, usage_row};
use super::super::write::moment;
use super::super::{PgStore, records::page::add_secrets};
use crate::clock::{Day, Timestamp};
use crate::id::{ClientId, PracticeId};
use crate::scope::ScopeToken;
use crate::store::Error;
use crate::store::records::{Active, ClientRow, SecretUse, UsageDelta, UsageRow, Viewer};

impl PgStore {
    /// In the order of the keys, so that no two nodes wait for each other, and each key once, as a statement takes it.
    pub(super) async fn count_usage(&self, deltas: &[UsageDelta], uses: &[SecretUse]) -> Result<(), Error> {
        let mut sums: BTreeMap<(Day, ClientId, &str), [u64; 2]> = BTreeMap::new();
        for delta in deltas {
            let sum = sums.entry((delta.day, delta.client, delta.scope.as_ref().map_or("", ScopeToken::as_str))).or_default();
            *sum = [sum[0].saturating_add(delta.requests), sum[1].saturating_add(delta.refused)];
        }
        let mut last: BTreeMap<(ClientId, u32), &SecretUse> = BTreeMap::new();
        for used in uses {
            let newest = last.entry((used.client, used.generation)).or_insert(used);
            if newest.at < used.at {
                *newest = used;
            }
        }
        let mut transaction = self.pool.begin().await?;
        if !sums.is_empty() {
            sqlx::query(
                "INSERT INTO gateway.usage_daily (day, client_id, scope, requests, refused)
                 SELECT date '1970-01-01' + day, client_id, scope, requests, refused
                 FROM unnest($1::int[], $2::text[], $3::text[], $4::bigint[], $5::bigint[])
                      WITH ORDINALITY AS more (day, client_id, scope, requests, refused, place)
                 WHERE EXISTS (SELECT FROM gateway.clients WHERE clients.client_id = more.client_id) ORDER BY place
                 ON CONFLICT (day, client_id, scope) DO UPDATE
                 SET requests = usage_daily.requests + excluded.requests, refused = usage_daily.refused + excluded.refused",
            )
            .bind(sums.keys().map(|(day, ..)| day.0).collect::<Vec<_>>())
            .bind(sums.keys().map(|(_, client, _)| client.to_text()).collect::<Vec<_>>())
            .bind(sums.keys().map(|(.., scope)| *scope).collect::<Vec<_>>())
            .bind(sums.values().map(|sum| count(sum[0])).collect::<Vec<_>>())
            .bind(sums.values().map(|sum| count(sum[1])).collect::<Vec<_>>())
            .execute(&mut *transaction)
            .await?;
        }
        if !last.is_empty() {
            sqlx::query(concat!(
                "INSERT INTO gateway.secret_uses (client_id, generation, last_used_at, address) SELECT client_id, generation, ",
                moment!("at"),
                ", address::inet FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[])
                     WITH ORDINALITY AS used (client_id, generation, at, address, place)
                 WHERE EXISTS (SELECT FROM gateway.clients WHERE clients.client_id = used.client_id) ORDER BY place
                 ON CONFLICT (client_id, generation) DO UPDATE SET last_used_at = excluded.last_used_at, address = excluded.address
                 WHERE secret_uses.last_used_at < excluded.last_used_at"
            ))
            .bind(last.values().map(|used| used.client.to_text()).collect::<Vec<_>>())
            .bind(last.values().map(|used| i64::from(used.generation)).collect::<Vec<_>>())
            .bind(last.values().map(|used| used.at.0).collect::<Vec<_>>())
            .bind(last.values().map(|used| used.address.to_string()).collect::<Vec<_>>())
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    pub(super) async fn list_usage(
        &self,
        practice: &PracticeId,
        viewer: &Viewer,
        days: [Day; 2],
        client: Option<ClientId>,
    ) -> Result<Vec<UsageRow>, Error> {
        let found = sqlx::query(
            "SELECT client_id, (day - date '1970-01-01')::bigint, scope, requests, refused
             FROM gateway.clients JOIN gateway.usage_daily USING (client_id)
             WHERE practice_id = $1 AND ((owner IS NULL AND $2) OR owner = $3) AND ($6::text IS NULL OR client_id = $6)
                 AND day BETWEEN date '1970-01-01' + $4 AND date '1970-01-01' + $5
             ORDER BY day, client_id COLLATE \"C\", scope COLLATE \"C\"",
        )
        .bind(practice.as_str())
        .bind(viewer.sees_shared())
        .bind(viewer.own())
        .bind(within_dates(days[0]))
        .bind(within_dates(days[1]))
        .bind(client.map(ClientId::to_text))
        .fetch_all(&mut *self.conn().await?)
        .await?;
        found.iter().map(usage_row).collect()
    }

    pub(super) async fn list_active(&self, practice: &PracticeId, since: Timestamp) -> Result<Active, Error> {
        let mut conn = self.conn().await?;
        let mut transaction = conn.begin_with(ONE_VIEW).await?;
        let sql = format!(
            concat!(
                "{} WHERE practice_id = $1 AND owner IS NULL AND last_used_at >= ",
                moment!("$2"),
                " ORDER BY last_used_at DESC, client_id COLLATE \"C\""
            ),
            rows::CLIENT_ROW
        );
        let found = sqlx::query(AssertSqlSafe(sql)).bind(practice.as_str()).bind(since.0).fetch_all(&mut *transaction).await?;
        let mut clients: Vec<ClientRow> = found.iter().map(rows::client_row).collect::<Result<_, _>>()?;
        add_secrets(&mut transaction, &mut clients).await?;
        let people: i64 = sqlx::query_scalar(concat!(
            "SELECT count(DISTINCT owner) FROM gateway.clients JOIN gateway.secret_uses USING (client_id)
             WHERE practice_id = $1 AND last_used_at >= ",
            moment!("$2")
        ))
        .bind(practice.as_str())
        .bind(since.0)
        .fetch_one(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(Active { clients, people: u64::try_from(people).unwrap_or(0) })
    }
}

fn count(sum: u64) -> i64 {
    i64::try_from(sum).unwrap_or(i64::MAX)
}

/// A day that there is in the calendar of the database.
fn within_dates(day: Day) -> i32 {
    day.0.clamp(-1_000_000, 1_000_000)
}
