//! Why requests were refused: for those whose requests they were, and for operators about any one.

use std::str::FromStr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::api::Api;
use super::body::{Path, Query, Text};
use super::caller::Called;
use super::page::PageQuery;
use super::practices::Of;
use super::problem::Problem;
use super::refusals::Refusals;
use super::views::Page;
use crate::clock::Timestamp;
use crate::id::ClientId;
use crate::store::records::{DenialPlace, DenialRow};

/// A request that was refused.
#[derive(Debug, Serialize, ToSchema)]
pub struct DenialView {
    /// The id that its caller was given, or chose.
    request_id: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// By which client.
    client_id: Option<String>,
    /// On behalf of whom.
    user_id: Option<String>,
    /// The prefix of the route.
    route: String,
    /// The method.
    method: String,
    /// The path.
    path: String,
    /// Why.
    reason: String,
    /// The status of the answer.
    status: u16,
    /// From where.
    address: String,
    /// The newest change that was in force where it was refused.
    revision: u64,
}

impl From<DenialRow> for DenialView {
    fn from(row: DenialRow) -> Self {
        Self {
            request_id: row.request_id.to_string(),
            at: row.at,
            client_id: row.client.map(ClientId::to_text),
            user_id: row.user.map(|user| user.to_string()),
            route: row.route.to_string(),
            method: row.method.to_string(),
            path: row.path.to_string(),
            reason: row.reason.to_string(),
            status: row.status,
            address: row.address.to_string(),
            revision: row.revision.0,
        }
    }
}

/// A request that was refused, and the checks up to the one that did.
#[derive(Debug, Serialize, ToSchema)]
pub struct DecisionView {
    /// The practice.
    practice_id: String,
    /// The request.
    denial: DenialView,
    /// Every check that was made, in its order.
    checks: Vec<Check>,
}

/// One check.
#[derive(Debug, Serialize, ToSchema)]
pub struct Check {
    /// What was asked.
    #[schema(value_type = String)]
    check: &'static str,
    /// Whether it was passed.
    passed: bool,
}

/// The checks behind a genuine credential, in their order, and what refuses by each.
const CHECKS: [(&str, &[&str]); 7] = [
    ("the client is not revoked", &["revoked"]),
    ("the client is not expired", &["expired"]),
    ("the practice's API access is on", &["practice_access_disabled"]),
    ("the user is on the team and their API access is on", &["user_access_disabled"]),
    ("the client may call from this address", &["address_not_allowed"]),
    ("the scopes cover what the route asks for", &["insufficient_scope"]),
    ("the rate limit leaves room", &["rate_limited"]),
];

/// The request of the path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct OfRequest {
    /// `X-Request-Id` of its answer.
    #[param(pattern = "^[A-Za-z0-9-]{1,64}$")]
    request_id: String,
}

/// Where a page ends, as a cursor holds it.
struct Place(DenialPlace);

impl FromStr for Place {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let (at, request_id) = text.split_once('.').ok_or(())?;
        Ok(Self(DenialPlace { at: Timestamp(at.parse().map_err(|_| ())?), request_id: request_id.into() }))
    }
}

/// Lists the refused requests of a practice that the caller may see, the newest first; ten thousand are kept
#[utoipa::path(get, path = "/v1/practices/{practice_id}/denials", tag = "ledger", params(Of, PageQuery),
    responses((status = 200, description = "A page of them.", body = Page<DenialView>), Refusals))]
pub async fn list(
    State(api): State<Arc<Api>>,
    caller: Called,
    Path(Of { practice_id: Text(id) }): Path<Of>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<DenialView>>, Problem> {
    caller.must_belong(&id)?;
    api.store.practice(&id).await?;
    let after = page.after::<Place>()?.map(|Place(place)| place);
    let rows = api.store.denials_page(&id, &caller.viewer(), after.as_ref(), page.rows()?).await?;
    let (rows, next) = page.cut(rows, |row| format!("{}.{}", row.at.0, row.request_id))?;
    Ok(Json(Page { items: rows.into_iter().map(DenialView::from).collect(), next }))
}

/// Explains why a request was refused
#[utoipa::path(get, path = "/v1/decisions/{request_id}", tag = "gateway", params(OfRequest),
    responses((status = 200, description = "The checks up to the one that refused it.", body = DecisionView), Refusals))]
pub async fn explain(
    State(api): State<Arc<Api>>,
    caller: Called,
    Path(OfRequest { request_id }): Path<OfRequest>,
) -> Result<Json<DecisionView>, Problem> {
    caller.must_operate()?;
    // What concerns a personal client is its owner's alone.
    let row = api.store.denial(&request_id).await?.filter(|row| row.owner.is_none());
    let row = row.ok_or_else(|| {
        Problem::not_found(format!(
            "no refusal of a request `{request_id}` is known: it passed, its credential was nobody's, or it is too old"
        ))
    })?;
    let refused_at = CHECKS.iter().position(|(_, reasons)| reasons.contains(&&*row.reason));
    let genuine = Check { check: "the credential is genuine", passed: true };
    let made = CHECKS.iter().take(refused_at.map_or(CHECKS.len(), |at| at + 1)).enumerate();
    let checks = std::iter::once(genuine).chain(made.map(|(at, (check, _))| Check { check, passed: refused_at != Some(at) })).collect();
    Ok(Json(DecisionView { practice_id: row.practice.to_string(), denial: row.into(), checks }))
}
