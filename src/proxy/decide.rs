//! What every request meets, whoever carries it: who asks for what, whether they may, and which server it goes to.

use std::sync::Arc;

use http::header::HOST;
use http::{HeaderValue, Version};
use pingora::http::RequestHeader;
use pingora::{Error, ErrorSource, ErrorType, Result};

use super::context::Context;
use super::headers::Fields;
use super::request::Facts;
use super::{Shared, ids, request, wire};
use crate::access::{Denial, MalformedRequest};
use crate::bearer::Wanted;
use crate::gate;
use crate::oauth::{Endpoint, OAuth};
use crate::upstream::Server;

#[expect(clippy::unnecessary_box_returns, reason = "pingora's errors are boxed everywhere")]
/// An error that stands for `Context::denial`.
pub fn refused() -> Box<Error> {
    Error::explain(ErrorType::Custom("refused"), "the gateway refused the request")
}

#[expect(clippy::unnecessary_box_returns, reason = "pingora's errors are boxed everywhere")]
/// The error that stands for this denial.
pub fn denied(denial: Denial, context: &mut Context) -> Box<Error> {
    context.denial = Some(denial);
    refused()
}

/// What went wrong, without pingora's own words on it: those quote the bytes of an answer that it could not parse.
fn cause(error: &Error) -> String {
    let kind = error.root_etype().as_str();
    match error.root_cause().downcast_ref::<std::io::Error>() {
        Some(io) => format!("{kind}: {io}"),
        None => kind.to_owned(),
    }
}

impl Shared {
    /// What of the gateway's own a target in origin-form is for, if it is.
    pub(super) fn own_endpoint(&self, target: &[u8]) -> Option<(&OAuth, Endpoint)> {
        let own = self.own.as_ref()?;
        Some((own, Endpoint::of(target)?))
    }

    /// The same of a header as pingora has read it.
    pub(super) fn own_endpoint_of(&self, header: &RequestHeader) -> Option<(&OAuth, Endpoint)> {
        let target = header.raw_path();
        let host = header.headers.get(HOST).map(HeaderValue::as_bytes).unwrap_or_default();
        // A target that cannot be read is for nobody: `decide` says why.
        self.own_endpoint(if header.version == Version::HTTP_2 { target } else { wire::origin_form(target, host).ok()? })
    }

    /// Notes who asks.
    pub(super) fn note(&self, fields: &impl Fields, context: &mut Context) {
        context.request_id = ids::request_id(fields, context.at);
        (context.client_address, context.trusted) = request::client(fields, context.peer(), &self.settings);
    }

    /// Decides; the permit, or the refusal, is then in `context`. Not if a key is to be fetched first, which `at_last` is too
    /// late for.
    pub(super) fn decide(&self, method: &[u8], facts: Result<Facts<'_>, Denial>, at_last: bool, context: &mut Context) -> Option<Wanted> {
        let facts = match facts {
            Ok(facts) => facts,
            Err(denial) => {
                context.denial = Some(denial);
                return None;
            }
        };
        let request = gate::Request { method, target: facts.target, authorization: facts.authorization, peer: context.client_address };
        let decision = if at_last {
            self.gate.decide(&request)
        } else {
            match self.gate.try_decide(&request) {
                Ok(decision) => decision,
                Err(wanted) => return Some(wanted),
            }
        };
        context.route = decision.route;
        context.whose = decision.whose;
        context.quota = decision.quota;
        if let Some(target) = decision.target.filter(|target| facts.rewritten || target.rewritten()) {
            context.target = Some(target.as_str().into());
        }
        match decision.outcome {
            Ok(permit) if facts.content_length.is_some_and(|length| length > permit.route().body_limit_bytes) => {
                context.denial = Some(Denial::BodyTooLarge);
            }
            Ok(permit) => {
                let permit = Arc::new(permit);
                if let Some(scope) = &context.scope {
                    // Set once: a request is decided once.
                    let _ = scope.permit.set(Arc::clone(&permit));
                }
                context.permit = Some(permit);
            }
            Err(denial) => context.denial = Some(denial),
        }
        None
    }

    /// Takes the request its place with the upstream, if it was admitted and there is one.
    pub(super) fn enter(context: &mut Context) {
        if let Some(upstream) = context.upstream()
            && let Err(denial) = context.attempts.enter(&upstream)
        {
            context.permit = None;
            context.denial = Some(denial);
        }
    }

    /// Whether the permit still holds: nothing goes on in either direction for a credential that no longer counts.
    pub(super) fn ask_again(&self, context: &mut Context) -> Result<()> {
        let permit = context.permit.as_ref().ok_or_else(refused)?;
        self.gate.recheck(permit).map_err(|denial| {
            context.denial = Some(denial);
            refused()
        })
    }

    /// The server for the next try.
    pub(super) fn pick(context: &mut Context) -> Result<Arc<Server>> {
        // Without a permit there is no route to take the upstream from: nothing is forwarded.
        let permit = context.permit.as_ref().ok_or_else(refused)?;
        context.attempts.pick(permit, context.client_address).map_err(|denial| denied(denial, context))
    }
}

/// Notes how a request failed: the refusal that it stands for, if there is somebody to tell, and a line if it was the upstream.
pub fn note_failure(error: &Error, context: &mut Context) {
    if context.denial.is_none() {
        context.denial = denial_of(error);
    }
    if error.esource() == &ErrorSource::Upstream {
        let upstream = context.route.as_ref().map_or("", |route| &*route.upstream.name);
        let request_id = context.request_id.to_str().unwrap_or_default();
        tracing::warn!(request_id, upstream, error = %cause(error), "the upstream failed");
    }
}

/// Which refusal an error of pingora's stands for; `None`: the client has left, there is nobody to tell.
fn denial_of(error: &Error) -> Option<Denial> {
    let malformed = error.root_cause().downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    if let Some(wrong) = malformed.and_then(|cause| cause.downcast_ref::<super::chunks::MalformedChunk>()) {
        return Some(Denial::Malformed(MalformedRequest::Message(wrong.0)));
    }
    match (error.esource(), error.etype()) {
        (ErrorSource::Upstream, ErrorType::ReadTimedout | ErrorType::WriteTimedout) => Some(Denial::UpstreamTimeout),
        (ErrorSource::Upstream, _) => Some(Denial::UpstreamUnreachable),
        (ErrorSource::Downstream, ErrorType::ReadTimedout) => Some(Denial::RequestTimeout),
        (
            ErrorSource::Downstream,
            ErrorType::WriteError | ErrorType::WriteTimedout | ErrorType::ReadError | ErrorType::ConnectionClosed | ErrorType::H2Error,
        ) => None,
        (ErrorSource::Downstream, _) => Some(Denial::Malformed(MalformedRequest::Message("the request cannot be read"))),
        _ => Some(Denial::Internal),
    }
}
