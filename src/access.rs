//! The decision: who may pass, as a function of facts.

mod authorize;
mod denial;

pub use authorize::{Authorized, Check, Facts, OwnerFacts, Step, authorize, authorize_anonymous, standing, steps};
pub use denial::{CredentialFault, Denial, MalformedRequest};
