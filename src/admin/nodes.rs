//! The gateways of the fleet.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::api::Api;
use super::caller::Called;
use super::problem::Problem;
use super::refusals::Refusals;
use crate::store::records::NodeRow;

/// The gateways in the register: those that every change waits for.
#[derive(Debug, Serialize, ToSchema)]
pub struct Nodes {
    /// The oldest first.
    items: Vec<NodeView>,
}

/// A gateway.
#[derive(Debug, Serialize, ToSchema)]
pub struct NodeView {
    /// Another one after each start.
    node_id: String,
    /// What it calls itself.
    name: Option<String>,
    /// Of which version its program is.
    version: Option<String>,
    /// Since when it has been there.
    #[schema(format = DateTime)]
    started_at: String,
    /// The newest change that is in force on it.
    applied: u64,
    /// How many changes it has not applied yet; null if it follows another history of the database, as after a failover.
    behind: Option<u64>,
    /// For how long it may go on answering after its last heartbeat, in milliseconds.
    bound_ms: u64,
}

impl From<NodeRow> for NodeView {
    fn from(node: NodeRow) -> Self {
        Self {
            node_id: node.id.to_string(),
            name: node.name.as_deref().map(str::to_owned),
            version: node.version.as_deref().map(str::to_owned),
            started_at: node.started_at.to_string(),
            applied: node.applied.0,
            behind: node.behind,
            bound_ms: u64::try_from(node.bound.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// Lists the gateways of the fleet
#[utoipa::path(get, path = "/v1/nodes", tag = "gateway",
    responses((status = 200, description = "The gateways in the register.", body = Nodes), Refusals))]
pub async fn list(State(api): State<Arc<Api>>, caller: Called) -> Result<Json<Nodes>, Problem> {
    caller.must_operate()?;
    Ok(Json(Nodes { items: api.store.nodes().await?.into_iter().map(NodeView::from).collect() }))
}
