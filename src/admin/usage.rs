//! What clients did: how many requests, by day and scope.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::api::Api;
use super::body::{Path, Query, Text};
use super::caller::Called;
use super::practices::Of;
use super::problem::Problem;
use super::refusals::Refusals;
use crate::clock::{Day, now};
use crate::id::ClientId;
use crate::store::records::UsageRow;

/// The most days that are told of at once.
const DAYS: i32 = 400;
/// So many days are told of if nobody says how many.
const USUAL: i32 = 30;

/// Of which days, and of whom.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct UsageQuery {
    /// The first day (UTC); left out: 29 days before the last.
    #[serde(default)]
    #[param(value_type = Option<String>, format = Date)]
    from: Option<Text<Day>>,
    /// The last day; left out: today.
    #[serde(default)]
    #[param(value_type = Option<String>, format = Date)]
    to: Option<Text<Day>>,
    /// One client only.
    #[serde(default)]
    #[param(value_type = Option<String>, pattern = "^smd_[0-9A-Za-z]{20}$")]
    client_id: Option<Text<ClientId>>,
}

/// What clients did, by day, client and scope. What was done in the last half minute may still be missing.
#[derive(Debug, Serialize, ToSchema)]
pub struct UsageView {
    /// The first day.
    #[schema(value_type = String, format = Date)]
    from: Day,
    /// The last day.
    #[schema(value_type = String, format = Date)]
    to: Day,
    /// So many requests.
    rows: Vec<RowView>,
}

/// One client, on one day, by one scope.
#[derive(Debug, Serialize, ToSchema)]
pub struct RowView {
    /// When.
    #[schema(value_type = String, format = Date)]
    day: Day,
    /// Whose.
    client_id: String,
    /// By which scope they were admitted, or which they lacked; null: none was needed.
    scope: Option<String>,
    /// How many there were.
    requests: u64,
    /// How many of them were refused.
    refused: u64,
}

impl From<UsageRow> for RowView {
    fn from(row: UsageRow) -> Self {
        let UsageRow { day, client, scope, requests, refused } = row;
        Self { day, client_id: client.to_text(), scope: scope.map(|scope| scope.to_string()), requests, refused }
    }
}

/// Tells what the clients of a practice did that the caller may see
#[utoipa::path(get, path = "/v1/practices/{practice_id}/usage", tag = "ledger", params(Of, UsageQuery),
    responses((status = 200, description = "By day, client and scope.", body = UsageView), Refusals))]
pub async fn show(
    State(api): State<Arc<Api>>,
    caller: Called,
    Path(Of { practice_id: Text(id) }): Path<Of>,
    Query(query): Query<UsageQuery>,
) -> Result<Json<UsageView>, Problem> {
    caller.must_belong(&id)?;
    api.store.practice(&id).await?;
    let to = query.to.map_or_else(|| Day::of(now()), |Text(day)| day);
    let from = query.from.map_or(Day(to.0.saturating_sub(USUAL - 1)), |Text(day)| day);
    if from > to || to.0.saturating_sub(from.0) >= DAYS {
        return Err(Problem::invalid(format!("from {from} to {to} is not 1 to {DAYS} days")));
    }
    let rows = api.store.usage(&id, &caller.viewer(), from, to, query.client_id.map(|Text(client)| client)).await?;
    Ok(Json(UsageView { from, to, rows: rows.into_iter().map(RowView::from).collect() }))
}
