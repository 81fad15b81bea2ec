//! A plain route, for tests.

use std::sync::Arc;
use std::time::Duration;

use super::{MethodSet, Requirement, Route};
use crate::id::RouteId;
use crate::upstream::{Server, Settings, Upstream};

pub fn route(prefix: &str, requirement: Requirement) -> Route {
    let server = Server::new("127.0.0.1:9".parse().unwrap(), None, "http://127.0.0.1:9".into());
    let upstream = Upstream::new("core", Settings::default(), vec![server]);
    Route {
        id: RouteId(0),
        prefix: prefix.parse().unwrap(),
        methods: MethodSet::ALL,
        requirement,
        scopes: "".into(),
        upstream: Arc::new(upstream),
        allow_path_parameters: false,
        websocket: false,
        forward_authorization: false,
        body_limit_bytes: 1024,
        stale_grace: Duration::ZERO,
    }
}
