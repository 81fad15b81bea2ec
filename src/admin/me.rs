//! What is the caller's own: their toggle, which they see and cannot change, and their personal clients.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::api::Api;
use super::body::{Body, Query};
use super::caller::Called;
use super::clients::{NewClientBody, issue, page_of};
use super::page::PageQuery;
use super::problem::Problem;
use super::refusals::Refusals;
use super::views::{ClientCreated, ClientView, MemberView, Page, PracticeView};
use crate::store::records::{ClientFilter, Viewer};

/// How it stands with the caller's own access: personal clients work while both are on.
#[derive(Debug, Serialize, ToSchema)]
pub struct OwnAccess {
    /// The caller.
    user: MemberView,
    /// Their practice.
    practice: PracticeView,
}

/// Tells how the caller's own access stands
#[utoipa::path(get, path = "/v1/me/api-access", tag = "me",
    responses((status = 200, description = "The caller and their practice.", body = OwnAccess), Refusals))]
pub async fn access(State(api): State<Arc<Api>>, caller: Called) -> Result<Json<OwnAccess>, Problem> {
    let (user, practice) = caller.user()?;
    let (user, practice) = (api.store.team_member(user).await?, api.store.practice(practice).await?);
    Ok(Json(OwnAccess { user: user.into(), practice: practice.into() }))
}

/// Lists the caller's personal clients, the newest first
#[utoipa::path(get, path = "/v1/me/clients", tag = "me", params(PageQuery),
    responses((status = 200, description = "A page of them.", body = Page<ClientView>), Refusals))]
pub async fn clients(
    State(api): State<Arc<Api>>,
    caller: Called,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<ClientView>>, Problem> {
    let (user, practice) = caller.user()?;
    page_of(&api, &ClientFilter { practice: practice.clone(), visible_to: Viewer::Member(user.clone()), kind: None }, &page).await
}

/// Makes a personal client, which nobody else sees
#[utoipa::path(post, path = "/v1/me/clients", tag = "me", request_body = NewClientBody,
    responses((status = 201, description = "It works now. The secret is shown this once.", body = ClientCreated), Refusals))]
pub async fn create(State(api): State<Arc<Api>>, caller: Called, Body(body): Body<NewClientBody>) -> Result<Response, Problem> {
    let (user, practice) = caller.user()?;
    issue(&api, &caller, body, practice.clone(), Some(user.clone())).await
}
