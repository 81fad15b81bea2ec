//! The route map: the longest prefix of whole segments wins.

use std::collections::HashMap;
use std::sync::Arc;

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
    /// Whether the caller's `Authorization` is handed on.
    pub forward_authorization: bool,
    /// The longest content it takes, in bytes.
    pub body_limit_bytes: u64,
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
