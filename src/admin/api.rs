//! The management API: its paths, and the document that describes them.

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};
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

/// What answers at each path, and what is said of it.
const ROUTES: &[fn() -> UtoipaMethodRouter<Arc<Api>>] = &[
    || routes!(practices::list),
    || routes!(practices::put),
    || routes!(practices::access),
    || routes!(practices::request),
    || routes!(practices::approve),
    || routes!(practices::disable),
    || routes!(practices::enable),
    || routes!(team::list),
    || routes!(sync::sync),
    || routes!(team::put, team::remove),
    || routes!(team::set_access),
    || routes!(clients::list, clients::create),
    || routes!(clients::show, clients::edit),
    || routes!(clients::add_secret),
    || routes!(clients::end_secret),
    || routes!(clients::revoke),
    || routes!(me::access),
    || routes!(me::clients, me::create),
    || routes!(ledger::list),
    || routes!(usage::show),
    || routes!(denials::list),
    || routes!(denials::explain),
    || routes!(nodes::list),
    || routes!(config::show),
    || routes!(config::reload),
];

/// The document (OpenAPI 3.1), made from the code.
#[must_use]
pub fn document() -> Document {
    let described = OpenApiRouter::with_openapi(Described::openapi());
    ROUTES.iter().fold(described, |described, routes| described.routes(routes())).into_openapi()
}

/// The document as it is told, made when somebody asks for it first: as text it is an eighth of what it is made from.
static TOLD: LazyLock<Bytes> = LazyLock::new(|| serde_json::to_vec(&document()).expect("a document that is text").into());

/// The paths under `/v1`, which nobody reaches without a management token, and the document, which everybody may read.
pub(super) fn router(api: Arc<Api>) -> Router {
    trusting(&api)
        .route_layer(middleware::from_fn_with_state(Arc::clone(&api), caller::authenticate))
        .layer(DefaultBodyLimit::max(CONTENT))
        .with_state(api)
        .route("/openapi.json", axum::routing::get(|| async { ([(header::CONTENT_TYPE, "application/json")], TOLD.clone()) }))
}

/// The paths for those who are known already.
pub(super) fn trusting(api: &Arc<Api>) -> Router<Arc<Api>> {
    let paths = ROUTES.iter().fold(Router::new(), |router, routes| {
        let (_, described, methods) = routes();
        described.paths.keys().fold(router, |router, path| router.route(path, methods.clone()))
    });
    paths
        .route_layer(middleware::from_fn_with_state(Arc::clone(api), changed))
        .route_layer(middleware::from_fn_with_state(Arc::clone(api), idempotency::once))
        .route_layer(middleware::from_fn_with_state(Arc::clone(api), attempts::note))
}

async fn changed(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let changes = !request.method().is_safe();
    let response = next.run(request).await;
    if changes {
        (api.changed)();
    }
    response
}
