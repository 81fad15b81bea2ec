//! Practices, and the life cycle of their API access.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::api::Api;
use super::body::{Body, Path, Query, Text};
use super::caller::Called;
use super::page::PageQuery;
use super::problem::Problem;
use super::refusals::Refusals;
use super::views::{LastUseView, Page, PracticeChanged, PracticeView, Receipt};
use crate::clock::{Timestamp, now};
use crate::id::PracticeId;
use crate::store::records::ClientRow;
use crate::{lifecycle, store};

/// Who was active within so many milliseconds would miss it.
const ACTIVE: i64 = 24 * 3600 * 1000;

/// The practice of the path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct Of {
    /// SigmaMD's id of the practice.
    #[param(value_type = String, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    pub practice_id: Text<PracticeId>,
}

/// What SigmaMD says of a practice.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PracticeBody {
    /// For people.
    #[schema(
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*[^\\s\\u0000-\\u001f\\u007f-\\u009f][^\\u0000-\\u001f\\u007f-\\u009f]*$",
        max_length = 100
    )]
    name: String,
}

/// How a practice is switched off.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DisableQuery {
    /// Only tells what would stop.
    dry_run: bool,
}

/// What would stop if the practice were switched off now: what was used in the last 24 hours. Of keys of people's own is
/// told only how many people use some.
#[derive(Debug, Serialize, ToSchema)]
pub struct Preview {
    /// Nothing was changed.
    #[schema(value_type = bool)]
    dry_run: bool,
    /// The practice.
    practice: PracticeView,
    /// The practice's own clients, the last used first.
    clients: Vec<Stopping>,
    /// How many people use personal clients.
    people: u64,
}

/// A client that would stop.
#[derive(Debug, Serialize, ToSchema)]
pub struct Stopping {
    /// Its public id.
    client_id: String,
    /// For people.
    name: String,
    /// How it was last used.
    last_used: Option<LastUseView>,
}

/// What was changed, or would stop.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Disabled {
    /// With `dry_run`.
    Preview(Preview),
    /// Without.
    Changed(PracticeChanged),
}

/// Lists every practice, by id
#[utoipa::path(get, path = "/v1/practices", tag = "practices", params(PageQuery),
    responses((status = 200, description = "A page of them.", body = Page<PracticeView>), Refusals))]
pub async fn list(State(api): State<Arc<Api>>, caller: Called, Query(page): Query<PageQuery>) -> Result<Json<Page<PracticeView>>, Problem> {
    caller.must_operate()?;
    let (practices, next) = page.of(api.store.practices().await?, |practice| practice.id.clone())?;
    Ok(Json(Page { items: practices.into_iter().map(PracticeView::from).collect(), next }))
}

/// Creates or renames a practice, as SigmaMD says
#[utoipa::path(put, path = "/v1/practices/{practice_id}", tag = "practices", params(Of), request_body = PracticeBody,
    responses((status = 200, description = "It is so now.", body = PracticeChanged), Refusals))]
pub async fn put(
    State(api): State<Arc<Api>>,
    caller: Called,
    Path(Of { practice_id: Text(id) }): Path<Of>,
    Body(body): Body<PracticeBody>,
) -> Result<Json<PracticeChanged>, Problem> {
    caller.must_operate()?;
    let receipt = api.lifecycle.put_practice(&id, &body.name, &caller.actor()).await?;
    changed(&api, &id, receipt).await
}

/// Tells how a practice's API access stands
#[utoipa::path(get, path = "/v1/practices/{practice_id}/api-access", tag = "practices", params(Of),
    responses((status = 200, description = "The practice.", body = PracticeView), Refusals))]
pub async fn access(
    State(api): State<Arc<Api>>,
    caller: Called,
    Path(Of { practice_id: Text(id) }): Path<Of>,
) -> Result<Json<PracticeView>, Problem> {
    caller.must_manage(&id)?;
    Ok(Json(api.store.practice(&id).await?.into()))
}

/// Asks for API access
#[utoipa::path(post, path = "/v1/practices/{practice_id}/api-access/request", tag = "practices", params(Of),
    responses((status = 200, description = "An operator will answer.", body = PracticeChanged), Refusals))]
pub async fn request(
    State(api): State<Arc<Api>>,
    caller: Called,
    Path(Of { practice_id: Text(id) }): Path<Of>,
) -> Result<Json<PracticeChanged>, Problem> {
    caller.must_manage(&id)?;
    let receipt = api.lifecycle.request(&id, &caller.actor()).await?;
    changed(&api, &id, receipt).await
}

/// Grants API access
#[utoipa::path(post, path = "/v1/practices/{practice_id}/api-access/approve", tag = "practices", params(Of),
    responses((status = 200, description = "It is on.", body = PracticeChanged), Refusals))]
pub async fn approve(
    State(api): State<Arc<Api>>,
    caller: Called,
    Path(Of { practice_id: Text(id) }): Path<Of>,
) -> Result<Json<PracticeChanged>, Problem> {
    caller.must_operate()?;
    let receipt = api.lifecycle.approve(&id, &caller.actor()).await?;
    changed(&api, &id, receipt).await
}

/// Switches API access off, for every client of the practice and of its people; or tells what that would stop
#[utoipa::path(post, path = "/v1/practices/{practice_id}/api-access/disable", tag = "practices", params(Of, DisableQuery),
    responses((status = 200, description = "It is off; or what would be.", body = Disabled), Refusals))]
pub async fn disable(
    State(api): State<Arc<Api>>,
    caller: Called,
    Path(Of { practice_id: Text(id) }): Path<Of>,
    Query(query): Query<DisableQuery>,
) -> Result<Json<Disabled>, Problem> {
    caller.must_manage(&id)?;
    if query.dry_run {
        return Ok(Json(Disabled::Preview(preview(&api, &id).await?)));
    }
    let receipt = api.lifecycle.disable(&id, &caller.actor()).await?;
    let Json(changed) = changed(&api, &id, receipt).await?;
    Ok(Json(Disabled::Changed(changed)))
}

async fn preview(api: &Api, id: &PracticeId) -> Result<Preview, store::Error> {
    let practice = api.store.practice(id).await?;
    let active = api.store.active_since(id, Timestamp(now().0 - ACTIVE)).await?;
    let stopping = |row: ClientRow| Stopping {
        client_id: row.client.id.to_text(),
        name: row.client.name.to_string(),
        last_used: row.last_used.as_ref().map(LastUseView::from),
    };
    Ok(Preview {
        dry_run: true,
        practice: practice.into(),
        clients: active.clients.into_iter().map(stopping).collect(),
        people: active.people,
    })
}

/// Switches API access on again, with everything that was not itself revoked
#[utoipa::path(post, path = "/v1/practices/{practice_id}/api-access/enable", tag = "practices", params(Of),
    responses((status = 200, description = "It is on.", body = PracticeChanged), Refusals))]
pub async fn enable(
    State(api): State<Arc<Api>>,
    caller: Called,
    Path(Of { practice_id: Text(id) }): Path<Of>,
) -> Result<Json<PracticeChanged>, Problem> {
    caller.must_manage(&id)?;
    let receipt = api.lifecycle.enable(&id, &caller.actor()).await?;
    changed(&api, &id, receipt).await
}

async fn changed(api: &Api, id: &PracticeId, receipt: store::Receipt) -> Result<Json<PracticeChanged>, Problem> {
    let practice = api.store.practice(id).await.map_err(lifecycle::Error::from)?;
    Ok(Json(PracticeChanged { practice: practice.into(), receipt: Receipt::from(receipt) }))
}
