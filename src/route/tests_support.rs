//! A plain route, for tests.

use std::sync::Arc;
use std::time::Duration;

use super::{MethodSet, Requirement, Route};
use crate::id::RouteId;
use crate::upstream::{Server, Upstream};

pub fn route(prefix: &str, requirement: Requirement) -> Route {
    let server = Server { address: "127.0.0.1:9".parse().unwrap(), tls_name: None, origin: "http://127.0.0.1:9".into() };
    let upstream = Upstream {
        name: "core".into(),
        servers: vec![server],
        connect_timeout: Duration::from_secs(1),
        response_timeout: Duration::from_secs(1),
        retries: 0,
        turn: std::sync::atomic::AtomicUsize::default(),
    };
    Route {
        id: RouteId(0),
        prefix: prefix.parse().unwrap(),
        methods: MethodSet::ALL,
        requirement,
        scopes: "".into(),
        upstream: Arc::new(upstream),
        allow_path_parameters: false,
        forward_authorization: false,
        body_limit_bytes: 1024,
        stale_grace: Duration::ZERO,
    }
}
