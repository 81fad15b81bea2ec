//! The management API: its paths, and the document that describes them.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::{Json, Router};
use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::Problem;
use super::{attempts, caller, clients, config, denials, idempotency, ledger, me, nodes, practices, sync, team, usage};
use crate::bearer::Managers;
use crate::gate::Gate;
use crate::lifecycle::Lifecycle;
use crate::limit::FailureLimit;
use crate::store::Store;

/// The longest content that is read, in bytes.
pub(super) const CONTENT: usize = 64 * 1024;

/// Reloads the route map; how often that has been done, or all that is wrong with it. Blocks.
pub type Reload = Arc<dyn Fn() -> Result<u64, Vec<String>> + Send + Sync>;

/// The gateway that the API belongs to.
pub struct Running {
    /// What decides there.
    pub gate: Arc<Gate>,
    /// Who says who calls.
    pub managers: Managers,
    /// Takes up a new route map.
    pub reload: Reload,
}

/// What the API works with.
pub struct Api {
    pub(super) store: Arc<dyn Store>,
    pub(super) lifecycle: Lifecycle,
    pub(super) attempts: FailureLimit,
    running: Option<Running>,
    changed: Box<dyn Fn() + Send + Sync>,
}

impl Api {
    /// An API over this life cycle, of this gateway.
    #[must_use]
    pub fn new(lifecycle: Lifecycle, running: Running) -> Self {
        Self { running: Some(running), ..Self::without_gateway(lifecycle) }
    }

    /// An API of no gateway: nobody can call it but in process.
    pub(super) fn without_gateway(lifecycle: Lifecycle) -> Self {
        Self { store: Arc::clone(lifecycle.store()), lifecycle, attempts: attempts::limit(), running: None, changed: Box::new(|| ()) }
    }

    /// The gateway, for what is about it.
    pub(super) fn running(&self) -> Result<&Running, Problem> {
        self.running.as_ref().ok_or_else(|| {
            Problem::new(
                StatusCode::CONFLICT,
                "no_gateway",
                "this is about a running gateway: ask that one, at its management listener (`--api`)",
            )
        })
    }

    /// Calls `changed` after each request that may have changed something, for whoever waits for that.
    #[must_use]
    pub fn with_changed(mut self, changed: impl Fn() + Send + Sync + 'static) -> Self {
        self.changed = Box::new(changed);
        self
    }
}

/// Describes how callers show who they are.
struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut Document) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT");
        let scheme = scheme.description(Some("A management token, as `sigmagate management-token` mints."));
        document.components.get_or_insert_default().add_security_scheme("management", SecurityScheme::Http(scheme.build()));
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "sigmagate management",
        description = "The whole life cycle of API access: practices, teams, clients and their secrets.\n\nA change is answered when it is in force on every gateway; the receipt says so. What a caller may not see is 404.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    modifiers(&Security),
    security(("management" = [])),
)]
struct Described;

fn described() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::with_openapi(Described::openapi())
        .routes(routes!(practices::list))
        .routes(routes!(practices::put))
        .routes(routes!(practices::access))
        .routes(routes!(practices::request))
        .routes(routes!(practices::approve))
        .routes(routes!(practices::disable))
        .routes(routes!(practices::enable))
        .routes(routes!(team::list))
        .routes(routes!(sync::sync))
        .routes(routes!(team::put, team::remove))
        .routes(routes!(team::set_access))
        .routes(routes!(clients::list, clients::create))
        .routes(routes!(clients::show, clients::edit))
        .routes(routes!(clients::add_secret))
        .routes(routes!(clients::end_secret))
        .routes(routes!(clients::revoke))
        .routes(routes!(me::access))
        .routes(routes!(me::clients, me::create))
        .routes(routes!(ledger::list))
        .routes(routes!(usage::show))
        .routes(routes!(denials::list))
        .routes(routes!(denials::explain))
        .routes(routes!(nodes::list))
        .routes(routes!(config::show))
        .routes(routes!(config::reload))
}

/// The document (OpenAPI 3.1), made from the code.
#[must_use]
pub fn document() -> Document {
    described().into_openapi()
}

/// The paths under `/v1`, which nobody reaches without a management token, and the document, which everybody may read.
pub(super) fn router(api: Arc<Api>) -> Router {
    let (paths, document) = trusting(&api);
    let document = Arc::new(document);
    paths
        .route_layer(middleware::from_fn_with_state(Arc::clone(&api), caller::authenticate))
        .layer(DefaultBodyLimit::max(CONTENT))
        .with_state(api)
        .route("/openapi.json", axum::routing::get(move || async move { Json(document) }))
}

/// The paths for those who are known already, and the document.
pub(super) fn trusting(api: &Arc<Api>) -> (Router<Arc<Api>>, Document) {
    let (paths, document) = described().split_for_parts();
    let paths = paths
        .route_layer(middleware::from_fn_with_state(Arc::clone(api), changed))
        .route_layer(middleware::from_fn_with_state(Arc::clone(api), idempotency::once))
        .route_layer(middleware::from_fn_with_state(Arc::clone(api), attempts::note));
    (paths, document)
}

async fn changed(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let changes = !request.method().is_safe();
    let response = next.run(request).await;
    if changes {
        (api.changed)();
    }
    response
}
