//! Who calls: shown by a management token, on every path under `/v1`, before anything else is looked at.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::api::Api;
use super::problem::Problem;
use crate::entity::{Client, Role, User};
use crate::id::{PracticeId, UserId};
use crate::store::records::Viewer;
use crate::store::{self, Actor};
use crate::token::Manager;

/// Who calls, and from where.
#[derive(Clone, Debug)]
pub struct Caller {
    who: Who,
    origin: Arc<str>,
}

#[derive(Clone, Debug)]
enum Who {
    Operator(Arc<str>),
    User { id: UserId, practice: PracticeId, admin: bool },
}

/// The caller of a request, an extension of it.
pub type Called = Extension<Caller>;

impl Caller {
    /// An operator who calls in process.
    pub(super) fn in_process() -> Self {
        Self { who: Who::Operator("cli".into()), origin: "cli".into() }
    }

    /// A user for whom somebody calls in process who holds the store itself.
    pub(super) fn for_user(user: User) -> Self {
        Self { who: Who::User { admin: user.role == Role::Admin, id: user.id, practice: user.practice_id }, origin: "cli".into() }
    }

    /// For the ledger.
    pub fn actor(&self) -> Actor {
        let name = match &self.who {
            Who::Operator(name) => format!("operator:{name}"),
            Who::User { id, .. } => format!("user:{id}"),
        };
        Actor { name, origin: self.origin.to_string() }
    }

    /// The user, unless it is an operator.
    pub fn user(&self) -> Result<(&UserId, &PracticeId), Problem> {
        match &self.who {
            Who::User { id, practice, .. } => Ok((id, practice)),
            Who::Operator(_) => Err(Problem::forbidden("this is about the caller's own access: call it as a user")),
        }
    }

    /// Who looks, for the store.
    pub fn viewer(&self) -> Viewer {
        match &self.who {
            Who::Operator(_) => Viewer::Operator,
            Who::User { id, admin: true, .. } => Viewer::Admin(id.clone()),
            Who::User { id, .. } => Viewer::Member(id.clone()),
        }
    }

    /// Those who have to do with this practice: its people, about their own, and those who manage it.
    pub fn must_belong(&self, id: &PracticeId) -> Result<(), Problem> {
        match &self.who {
            Who::User { practice, .. } if practice == id => Ok(()),
            _ => self.must_manage(id),
        }
    }

    /// Operators only.
    pub fn must_operate(&self) -> Result<(), Problem> {
        match &self.who {
            Who::Operator(_) => Ok(()),
            Who::User { .. } => Err(Problem::forbidden("only an operator may do this")),
        }
    }

    /// Those who manage this practice: its admins, and operators.
    pub fn must_manage(&self, id: &PracticeId) -> Result<(), Problem> {
        match &self.who {
            Who::Operator(_) => Ok(()),
            Who::User { practice, admin: true, .. } if practice == id => Ok(()),
            Who::User { practice, .. } if practice == id => Err(Problem::forbidden("only an admin of the practice may do this")),
            // Whether there is another practice of that id is nothing to them.
            Who::User { .. } => Err(Problem::not_found(format!("there is no practice `{id}`"))),
        }
    }

    /// Whether the caller may see a client, and then do anything with it: a personal one is its owner's alone.
    pub fn sees(&self, client: &Client) -> bool {
        match (&self.who, &client.owner) {
            (Who::Operator(_), owner) => owner.is_none(),
            (Who::User { id, .. }, Some(owner)) => id == owner,
            (Who::User { practice, admin, .. }, None) => *admin && *practice == client.practice_id,
        }
    }
}

/// Lets a request through whose caller has shown who they are.
pub async fn authenticate(
    State(api): State<Arc<Api>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    // The request itself is not held while the store is asked.
    let presented = presented(request.headers()).map(<[u8]>::to_vec);
    let found = match presented {
        Some(token) => caller(&api, peer, &token).await,
        None => Err(Problem::unauthenticated()),
    };
    match found {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

/// The one bearer token of a request.
fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else { return None };
    let (scheme, token) = field.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

async fn caller(api: &Api, peer: SocketAddr, token: &[u8]) -> Result<Caller, Problem> {
    let manager = api.running()?.managers.find(token).await.map_err(|unread| {
        tracing::info!(%peer, why = %unread, "a management token is refused");
        // That its issuer does not answer is not the fault of the one who calls.
        if unread.is_unavailable() {
            Problem::unavailable("the keys of the token's issuer could not be fetched yet")
        } else {
            Problem::unauthenticated()
        }
    })?;
    let who = match manager {
        Manager::Operator { name } => Who::Operator(name.into()),
        Manager::User { id, practice, admin } => {
            let user = match api.store.user(&id).await {
                Ok(user) if user.practice_id == practice && user.left_at.is_none() => user,
                Ok(_) | Err(store::Error::NotFound { .. }) => return Err(Problem::unauthenticated()),
                Err(error) => return Err(error.into()),
            };
            // An admin is who is called so by both: the issuer, and what we were told of the team.
            Who::User { admin: admin && user.role == Role::Admin, id, practice }
        }
    };
    Ok(Caller { who, origin: peer.ip().to_string().into() })
}
