//! Where a request goes and what it takes to go there.

mod method;
mod prefix;
mod table;
mod target;
#[cfg(test)]
pub(crate) mod tests_support;

pub use method::{Method, MethodSet, UnknownMethod};
pub use prefix::{MalformedPrefix, PathPrefix};
pub use table::{Conflict, NotFound, Requirement, Route, RouteTable};
pub use target::{MalformedTarget, RequestTarget};
