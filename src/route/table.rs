//! The route map: the longest prefix of whole segments wins.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Method, MethodSet, PathPrefix};
use crate::id::RouteId;
use crate::scope::ScopeSet;
use crate::upstream::Upstream;

/// What a route asks of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// Nothing: whoever calls is let through, without an identity.
    Public,
    /// A client with any of these scopes.
    AnyOf(ScopeSet),
    /// A client with every one of these scopes.
    AllOf(ScopeSet),
}

impl Requirement {
    /// Whether a client that was granted `scopes` meets it.
    #[must_use]
    pub const fn met_by(&self, scopes: ScopeSet) -> bool {
        match self {
            Self::Public => true,
            Self::AnyOf(any) => scopes.meets(*any),
            // An empty set would be covered by everyone; configuration refuses it, and so does this.
            Self::AllOf(every) => !every.is_empty() && scopes.covers(*every),
        }
    }
}

/// One route.
#[derive(Debug)]
pub struct Route {
    /// Its place in the route file.
    pub id: RouteId,
    /// What its paths begin with.
    pub prefix: PathPrefix,
    /// The methods it takes.
    pub methods: MethodSet,
    /// What it asks for.
    pub requirement: Requirement,
    /// The scopes that `requirement` names, separated by blanks: what `insufficient_scope` tells the caller.
    pub scopes: Arc<str>,
    /// Where it leads.
    pub upstream: Arc<Upstream>,
    /// Whether segments may have `;` parameters.
    pub allow_path_parameters: bool,
    /// Whether WebSockets may go through it (RFC 6455).
    pub websocket: bool,
    /// Whether the caller's `Authorization` is handed on.
    pub forward_authorization: bool,
    /// The longest content it takes, in bytes.
    pub body_limit_bytes: u64,
    /// How much longer than the lease it may be answered. Every change is said to be in force that much later at the worst.
    pub stale_grace: Duration,
}

/// Why no route was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotFound {
    /// No prefix covers the path.
    NoRoute,
    /// The longest prefix has no route for the method; these are the methods it has.
    MethodNotAllowed(Arc<str>),
}

/// Two routes that claim the same requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The one that stands first in the file.
    pub first: RouteId,
    /// The one that repeats it.
    pub second: RouteId,
}

/// Every route, ready to be searched. The time of a search grows with the segments of the path, not with the routes.
#[derive(Debug)]
pub struct RouteTable {
    nodes: Vec<Node>,
    routes: Vec<Arc<Route>>,
    ignore_case: bool,
}

#[derive(Debug, Default)]
struct Node {
    children: HashMap<Box<str>, usize, foldhash::fast::FixedState>,
    routes: Vec<Arc<Route>>,
    allow: Arc<str>,
}

impl RouteTable {
    /// A table of these routes. With `ignore_case`, ASCII letters of paths match in either case, for upstreams that do
    /// the same; what is forwarded keeps its case.
    ///
    /// # Errors
    /// Every pair of routes of one prefix that share a method.
    pub fn new(routes: Vec<Route>, ignore_case: bool) -> Result<Self, Vec<Conflict>> {
        let mut table = Self { nodes: vec![Node::default()], routes: Vec::with_capacity(routes.len()), ignore_case };
        let mut conflicts = Vec::new();
        for route in routes {
            let route = Arc::new(route);
            let mut at = 0;
            for segment in route.prefix.segments() {
                let key: Box<str> = if ignore_case { segment.to_ascii_lowercase().into() } else { segment.into() };
                let next = table.nodes.len();
                at = *table.nodes[at].children.entry(key).or_insert(next);
                if at == next {
                    table.nodes.push(Node::default());
                }
            }
            let node = &mut table.nodes[at];
            conflicts.extend(
                node.routes
                    .iter()
                    .filter(|other| other.methods.meets(route.methods))
                    .map(|other| Conflict { first: other.id, second: route.id }),
            );
            node.routes.push(Arc::clone(&route));
            let allow = node.routes.iter().fold(MethodSet::default(), |set, route| set.union(route.methods));
            node.allow = allow.to_string().into();
            table.routes.push(route);
        }
        if conflicts.is_empty() { Ok(table) } else { Err(conflicts) }
    }

    /// The route of a canonical path and a method; `None` as method stands for one that no route takes.
    ///
    /// The longest prefix decides alone: if it lacks the method, a shorter one is not asked.
    ///
    /// # Errors
    /// [`NotFound`], with the methods that the prefix has.
    pub fn find(&self, path: &str, method: Option<Method>) -> Result<&Arc<Route>, NotFound> {
        let node = if self.ignore_case { self.node(&path.to_ascii_lowercase()) } else { self.node(path) };
        let node = node.ok_or(NotFound::NoRoute)?;
        let route = method.and_then(|method| node.routes.iter().find(|route| route.methods.has(method)));
        route.ok_or_else(|| NotFound::MethodNotAllowed(Arc::clone(&node.allow)))
    }

    /// The routes in the order of the file.
    #[must_use]
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// The longest that any route may be answered after the end of the lease.
    #[must_use]
    pub fn longest_stale_grace(&self) -> Duration {
        self.routes.iter().map(|route| route.stale_grace).max().unwrap_or_default()
    }

    fn node(&self, path: &str) -> Option<&Node> {
        let mut node = &self.nodes[0];
        let mut best = (!node.routes.is_empty()).then_some(node);
        for segment in path.split('/').skip(1) {
            let Some(&next) = node.children.get(segment) else { break };
            node = &self.nodes[next];
            if !node.routes.is_empty() {
                best = Some(node);
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn route(id: u32, prefix: &str, methods: MethodSet) -> Route {
        Route { id: RouteId(id), methods, ..crate::route::tests_support::route(prefix, Requirement::Public) }
    }

    /// The plain definition: of every prefix that covers the path the longest, and of its routes the one with the method.
    fn oracle(routes: &[Arc<Route>], path: &str, method: Method) -> Result<RouteId, NotFound> {
        let longest = routes.iter().filter(|route| route.prefix.covers(path)).map(|route| route.prefix.as_str().len()).max();
        let longest = longest.ok_or(NotFound::NoRoute)?;
        let at: Vec<_> = routes.iter().filter(|route| route.prefix.covers(path) && route.prefix.as_str().len() == longest).collect();
        let found = at.iter().find(|route| route.methods.has(method));
        found.map(|route| route.id).ok_or_else(|| {
            NotFound::MethodNotAllowed(at.iter().fold(MethodSet::default(), |set, route| set.union(route.methods)).to_string().into())
        })
    }

    /// Routes with distinct prefixes and methods made of few names, so that they nest and collide.
    fn table(prefixes: &[(String, u8)]) -> RouteTable {
        let mut claimed: Vec<(String, MethodSet)> = Vec::new();
        let mut routes = Vec::new();
        for (prefix, methods) in prefixes {
            let methods: MethodSet = Method::EVERY.into_iter().filter(|m| methods & (1 << *m as u8) != 0).collect();
            if methods == MethodSet::default() || claimed.iter().any(|(other, taken)| other == prefix && taken.meets(methods)) {
                continue;
            }
            claimed.push((prefix.clone(), methods));
            routes.push(route(u32::try_from(routes.len()).unwrap(), prefix, methods));
        }
        RouteTable::new(routes, false).unwrap()
    }

    fn path() -> impl Strategy<Value = String> {
        prop::collection::vec("[abc]{1,2}", 0..5).prop_map(|segments| format!("/{}", segments.join("/")))
    }

    proptest! {
        #[test]
        fn the_longest_prefix_agrees_with_a_plain_scan(prefixes in prop::collection::vec((path(), any::<u8>()), 1..12), paths in prop::collection::vec((path(), any::<bool>(), 0usize..7), 20)) {
            let table = table(&prefixes);
            for (path, slash, method) in paths {
                let path = if slash && path != "/" { format!("{path}/") } else { path };
                let method = Method::EVERY[method];
                prop_assert_eq!(table.find(&path, Some(method)).map(|route| route.id), oracle(table.routes(), &path, method), "{} {:?}", path, method);
            }
        }
    }

    #[test]
    fn ten_thousand_routes_agree_with_a_plain_scan() {
        let prefixes: Vec<_> = (0..10_000u32).map(|n| (format!("/api/{}/{}/{}", n % 7, n % 101, n), 0x7f)).collect();
        let table = table(&prefixes);
        assert_eq!(table.routes().len(), 10_000);
        for n in (0..10_000u32).step_by(97) {
            for path in [
                format!("/api/{}/{}/{n}", n % 7, n % 101),
                format!("/api/{}/{}/{n}/x/y", n % 7, n % 101),
                format!("/api/{}/{}/{n}x", n % 7, n % 101),
            ] {
                assert_eq!(
                    table.find(&path, Some(Method::Get)).map(|route| route.id),
                    oracle(table.routes(), &path, Method::Get),
                    "{path}"
                );
            }
        }
    }

    #[test]
    fn two_routes_may_share_a_prefix_but_not_a_method() {
        let get = MethodSet::from_iter([Method::Get]);
        let post = MethodSet::from_iter([Method::Post]);
        let table = RouteTable::new(vec![route(0, "/a", get), route(1, "/a", post)], false).unwrap();
        assert_eq!(table.find("/a", Some(Method::Post)).unwrap().id, RouteId(1));
        assert_eq!(table.find("/a", Some(Method::Put)).unwrap_err(), NotFound::MethodNotAllowed("GET, POST".into()));
        assert_eq!(table.find("/a", None).unwrap_err(), NotFound::MethodNotAllowed("GET, POST".into()));
        let conflict = RouteTable::new(vec![route(0, "/a", get), route(1, "/a", MethodSet::ALL)], false).unwrap_err();
        assert_eq!(conflict, [Conflict { first: RouteId(0), second: RouteId(1) }]);
    }

    #[test]
    fn case_counts_unless_the_upstream_ignores_it() {
        let exact = RouteTable::new(vec![route(0, "/Patients", MethodSet::ALL)], false).unwrap();
        assert!(exact.find("/Patients/1", Some(Method::Get)).is_ok());
        assert_eq!(exact.find("/PATIENTS/1", Some(Method::Get)).unwrap_err(), NotFound::NoRoute);
        let either = RouteTable::new(vec![route(0, "/Patients", MethodSet::ALL)], true).unwrap();
        assert!(either.find("/PATIENTS/1", Some(Method::Get)).is_ok());
        assert!(RouteTable::new(vec![route(0, "/a", MethodSet::ALL), route(1, "/A", MethodSet::ALL)], true).is_err());
    }
}
