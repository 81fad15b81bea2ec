//! The decision: who may pass, as a function of facts.

mod authorize;
mod denial;

pub use authorize::{Check, Facts, OwnerFacts, Step, authorize, steps};
pub use denial::{CredentialFault, Denial, MalformedRequest};
