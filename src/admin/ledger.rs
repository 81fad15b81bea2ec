//! The ledger of a practice: who did what, when, from where.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::api::Api;
use super::body::{Path, Query, Text};
use super::caller::Called;
use super::page::PageQuery;
use super::practices::Of;
use super::problem::Problem;
use super::refusals::Refusals;
use super::views::Page;
use crate::clock::Timestamp;
use crate::store::audit::Event;
use crate::store::records::Note;

/// One entry.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventView {
    /// Counts up over all practices.
    id: u64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// Who.
    actor: String,
    /// From where.
    origin: String,
    /// What was done, as `client.revoke`.
    action: String,
    /// To what.
    target: String,
    /// How it was; null: it was not.
    #[schema(value_type = Option<Object>)]
    before: Value,
    /// How it is since.
    #[schema(value_type = Option<Object>)]
    after: Value,
    /// The hash of the entry before it in the chain of the practice.
    prev_hash: String,
    /// The hash of this one.
    hash: String,
}

impl From<Event> for EventView {
    fn from(event: Event) -> Self {
        let Event { id, at, practice_id: _, actor, origin, action, target, before, after, prev_hash, hash } = event;
        Self { id, at, actor, origin, action, target, before, after, prev_hash: prev_hash.to_string(), hash: hash.to_string() }
    }
}

/// Lists what was done in a practice, the newest first; nothing of the personal clients of others
#[utoipa::path(get, path = "/v1/practices/{practice_id}/audit", tag = "ledger", params(Of, PageQuery),
    responses((status = 200, description = "A page of it.", body = Page<EventView>), Refusals))]
pub async fn list(
    State(api): State<Arc<Api>>,
    caller: Called,
    Path(Of { practice_id: Text(id) }): Path<Of>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<EventView>>, Problem> {
    caller.must_belong(&id)?;
    api.store.practice(&id).await?;
    let events = api.store.events_page(&id, &caller.viewer(), page.after()?, page.rows()?).await?;
    let (events, next) = page.cut(events, |event| event.id)?;
    // Nobody reads it without being in it. What this page begins with is older.
    let read = Note { practice: Some(id.clone()), action: "audit.read", target: id.to_string(), after: json!({ "events": events.len() }) };
    api.store.note(&read, &caller.actor()).await?;
    Ok(Json(Page { items: events.into_iter().map(EventView::from).collect(), next }))
}
