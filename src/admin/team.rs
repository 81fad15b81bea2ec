//! Who is on a practice's team, and whose own keys work.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::api::Api;
use super::body::{Body, Path, Query, Text};
use super::caller::Called;
use super::page::PageQuery;
use super::practices::Of;
use super::problem::Problem;
use super::refusals::Refusals;
use super::views::{MemberChanged, MemberView, Page, Receipt, RoleView};
use crate::entity::Role;
use crate::id::{PracticeId, UserId};
use crate::store;
use crate::store::records::TeamSync;

/// The practice and the user of the path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct OfUser {
    /// SigmaMD's id of the practice.
    #[param(value_type = String, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    practice_id: Text<PracticeId>,
    /// SigmaMD's id of the user.
    #[param(value_type = String, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    user_id: Text<UserId>,
}

/// What SigmaMD says of somebody.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MemberBody {
    /// What they are on the team.
    #[schema(value_type = RoleView)]
    role: Text<Role>,
    /// For people; left out: not known.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    /// Where mail reaches them; left out: nowhere.
    #[serde(default)]
    #[schema(min_length = 3, max_length = 254)]
    email: Option<String>,
}

/// Whether somebody's own keys work.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessBody {
    /// On or off.
    api_access: bool,
}

/// Lists the team, by id; those who have left too
#[utoipa::path(get, path = "/v1/practices/{practice_id}/team", tag = "team", params(Of, PageQuery),
    responses((status = 200, description = "A page of it.", body = Page<MemberView>), Refusals))]
pub async fn list(
    State(api): State<Arc<Api>>,
    caller: Called,
    Path(Of { practice_id: Text(id) }): Path<Of>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<MemberView>>, Problem> {
    caller.must_manage(&id)?;
    api.store.practice(&id).await?;
    let (members, next) = page.of(api.store.team(&id).await?, |member| member.user.id.clone())?;
    Ok(Json(Page { items: members.into_iter().map(MemberView::from).collect(), next }))
}

/// Puts somebody on the team, with their access off, or changes what they are, as SigmaMD says
#[utoipa::path(put, path = "/v1/practices/{practice_id}/team/{user_id}", tag = "team", params(OfUser), request_body = MemberBody,
    responses((status = 200, description = "It is so now.", body = MemberChanged), Refusals))]
pub async fn put(
    State(api): State<Arc<Api>>,
    caller: Called,
    Path(OfUser { practice_id: Text(practice), user_id: Text(id) }): Path<OfUser>,
    Body(body): Body<MemberBody>,
) -> Result<Json<MemberChanged>, Problem> {
    caller.must_operate()?;
    let row = TeamSync::Put { id: id.clone(), role: body.role.0, name: body.name.map(Into::into), email: body.email.map(Into::into) };
    let (mut results, receipt) = api.lifecycle.sync_team(&practice, &[row], &caller.actor()).await?;
    results.pop().expect("one row has one result")?;
    let member = api.store.team_member(&id).await?;
    Ok(Json(MemberChanged { user: member.into(), receipt: receipt.map(Receipt::from) }))
}

/// Takes somebody off the team: their own keys stop
#[utoipa::path(delete, path = "/v1/practices/{practice_id}/team/{user_id}", tag = "team", params(OfUser),
    responses((status = 200, description = "They have left.", body = MemberChanged), Refusals))]
pub async fn remove(
    State(api): State<Arc<Api>>,
    caller: Called,
    Path(OfUser { practice_id: Text(practice), user_id: Text(id) }): Path<OfUser>,
) -> Result<Json<MemberChanged>, Problem> {
    caller.must_operate()?;
    of(&api, &practice, &id).await?;
    let receipt = api.lifecycle.remove_user(&id, &caller.actor()).await?;
    changed(&api, &id, receipt).await
}

/// Turns somebody's own keys on or off
#[utoipa::path(put, path = "/v1/practices/{practice_id}/team/{user_id}/api-access", tag = "team", params(OfUser), request_body = AccessBody,
    responses((status = 200, description = "It is so now.", body = MemberChanged), Refusals))]
pub async fn set_access(
    State(api): State<Arc<Api>>,
    caller: Called,
    Path(OfUser { practice_id: Text(practice), user_id: Text(id) }): Path<OfUser>,
    Body(body): Body<AccessBody>,
) -> Result<Json<MemberChanged>, Problem> {
    caller.must_manage(&practice)?;
    of(&api, &practice, &id).await?;
    let receipt = api.lifecycle.set_user_access(&id, body.api_access, &caller.actor()).await?;
    changed(&api, &id, receipt).await
}

/// Somebody of another practice is nobody here.
async fn of(api: &Api, practice: &PracticeId, id: &UserId) -> Result<(), Problem> {
    let unknown = || Problem::not_found(format!("there is no user `{id}`"));
    match api.store.user(id).await {
        Ok(user) if user.practice_id == *practice => Ok(()),
        Ok(_) | Err(store::Error::NotFound { .. }) => Err(unknown()),
        Err(error) => Err(error.into()),
    }
}

async fn changed(api: &Api, id: &UserId, receipt: store::Receipt) -> Result<Json<MemberChanged>, Problem> {
    let member = api.store.team_member(id).await?;
    Ok(Json(MemberChanged { user: member.into(), receipt: Some(Receipt::from(receipt)) }))
}
