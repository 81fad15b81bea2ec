//! The route map in force, and taking up a new one.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::api::Api;
use super::caller::Called;
use super::problem::Problem;
use super::refusals::Refusals;
use crate::route::Requirement;

/// The route map that this gateway goes by.
#[derive(Debug, Serialize, ToSchema)]
pub struct ConfigView {
    /// The scopes that it declares.
    scopes: Vec<String>,
    /// Its routes; the longest prefix wins.
    routes: Vec<RouteView>,
}

/// One route.
#[derive(Debug, Serialize, ToSchema)]
pub struct RouteView {
    /// Matches whole segments.
    prefix: String,
    /// The scopes of which one is needed.
    scopes: Vec<String>,
    /// Whether nobody is asked who they are.
    public: bool,
    /// Where it leads.
    upstream: String,
}

/// How often a route map has been taken up.
#[derive(Debug, Serialize, ToSchema)]
pub struct Reloaded {
    /// 1 for the one at the start.
    generation: u64,
}

/// Shows the route map in force
#[utoipa::path(get, path = "/v1/config", tag = "gateway",
    responses((status = 200, description = "The route map.", body = ConfigView), Refusals))]
pub async fn show(State(api): State<Arc<Api>>, caller: Called) -> Result<Json<ConfigView>, Problem> {
    caller.must_operate()?;
    let gate = &api.running()?.gate;
    let table = gate.routes();
    let routes = table.routes().iter().map(|route| RouteView {
        prefix: route.prefix.to_string(),
        scopes: route.scopes.split(' ').filter(|scope| !scope.is_empty()).map(str::to_owned).collect(),
        public: matches!(route.requirement, Requirement::Public),
        upstream: route.upstream.name.to_string(),
    });
    Ok(Json(ConfigView { scopes: gate.scopes().iter().map(ToString::to_string).collect(), routes: routes.collect() }))
}

/// Takes up the route file as it is now; a wrong one changes nothing
#[utoipa::path(post, path = "/v1/config/reload", tag = "gateway",
    responses((status = 200, description = "It is in force.", body = Reloaded), Refusals))]
pub async fn reload(State(api): State<Arc<Api>>, caller: Called) -> Result<Json<Reloaded>, Problem> {
    caller.must_operate()?;
    let reload = Arc::clone(&api.running()?.reload);
    let reloaded = tokio::task::spawn_blocking(move || reload()).await.map_err(|_| Problem::unavailable("the reload has failed"))?;
    let generation = reloaded.map_err(|mistakes| Problem::new(StatusCode::CONFLICT, "invalid_config", mistakes.join("\n")))?;
    Ok(Json(Reloaded { generation }))
}
