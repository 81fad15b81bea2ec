//! Clients: a practice's own, which its admins manage, and personal ones, which are their owner's alone.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::{ETAG, IF_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ipnet::IpNet;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::api::Api;
use super::body::{Body, Path, Query, Text, given, nullable};
use super::caller::{Called, Caller};
use super::page::PageQuery;
use super::practices::Of;
use super::problem::Problem;
use super::refusals::Refusals;
use super::views::{ClientChanged, ClientCreated, ClientView, Page, SecretCreated};
use crate::clock::{Timestamp, now};
use crate::entity::{Client, ClientKeys};
use crate::id::{ClientId, PracticeId, UserId};
use crate::lifecycle::{Issued, NewClientRequest, Overlap, parse_network};
use crate::scope::ScopeToken;
use crate::store::records::ClientFilter;
use crate::store::{self, ClientEdit};

/// The client of the path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct OfClient {
    /// Its public id.
    #[param(value_type = String, pattern = "^smd_[0-9A-Za-z]{20}$")]
    client_id: Text<ClientId>,
}

/// The client and the secret of the path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct OfSecret {
    /// Its public id.
    #[param(value_type = String, pattern = "^smd_[0-9A-Za-z]{20}$")]
    client_id: Text<ClientId>,
    /// Which secret of the client.
    #[param(minimum = 1, maximum = 4_294_967_295_u32)]
    generation: u32,
}

/// A network as it is written: `192.0.2.0/24`, or one address.
#[derive(Clone, Copy, Debug)]
pub struct Network(IpNet);

impl std::str::FromStr for Network {
    type Err = crate::lifecycle::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_network(text).map(Self)
    }
}

/// What a client is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewClientBody {
    /// For people.
    #[schema(
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*[^\\s\\u0000-\\u001f\\u007f-\\u009f][^\\u0000-\\u001f\\u007f-\\u009f]*$",
        max_length = 100
    )]
    name: String,
    /// What it may reach: at least one.
    #[schema(value_type = Vec<String>, min_items = 1, max_items = 64, pattern = "^[a-z][a-z0-9_.:-]{0,31}$")]
    scopes: Vec<Text<ScopeToken>>,
    /// The networks it may call from, in CIDR; none: any.
    #[serde(default)]
    #[schema(value_type = Vec<String>, max_items = 100)]
    allowed_addresses: Vec<Text<Network>>,
    /// Its rate limit, by the name of a tier of the route map.
    #[serde(default)]
    #[schema(pattern = "^[A-Za-z0-9_-]{1,64}$")]
    tier: Option<String>,
    /// When it is to end by itself.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Text<Timestamp>>,
    /// Public keys of its own, a JWK set (RFC 7517), with which it may sign in the place of its secret.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    jwks: Option<serde_json::Value>,
    /// Where such keys are.
    #[serde(default)]
    #[schema(max_length = 2048)]
    jwks_uri: Option<String>,
}

impl NewClientBody {
    fn request(self, practice: PracticeId, owner: Option<UserId>) -> Result<NewClientRequest, Problem> {
        Ok(NewClientRequest {
            practice,
            owner,
            name: self.name,
            scopes: self.scopes.into_iter().map(|Text(scope)| scope).collect(),
            allowed_addresses: self.allowed_addresses.into_iter().map(|Text(Network(network))| network).collect(),
            tier: self.tier,
            expires_at: self.expires_at.map(|Text(at)| at),
            keys: keys(self.jwks.as_ref(), self.jwks_uri.as_deref())?,
        })
    }
}

fn keys(jwks: Option<&serde_json::Value>, url: Option<&str>) -> Result<ClientKeys, Problem> {
    let jwks = jwks.map(ToString::to_string);
    let both = || Problem::invalid("`jwks` and `jwks_uri` are both there: keys are in one place (RFC 7591 section 2)");
    ClientKeys::from_either(jwks.as_deref(), url).ok_or_else(both)
}

#[expect(clippy::option_option, reason = "left out, null and given are three things here")]
/// What is to be another one; what is left out stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EditBody {
    /// For people.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = String, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*[^\\s\\u0000-\\u001f\\u007f-\\u009f][^\\u0000-\\u001f\\u007f-\\u009f]*$", max_length = 100)]
    name: Option<String>,
    /// All of what it may reach from now on.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Vec<String>, min_items = 1, max_items = 64, pattern = "^[a-z][a-z0-9_.:-]{0,31}$")]
    scopes: Option<Vec<Text<ScopeToken>>>,
    /// All the networks it may call from, from now on; none: any.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Vec<String>, max_items = 100)]
    allowed_addresses: Option<Vec<Text<Network>>>,
    /// Its rate limit; null: the standard one.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, pattern = "^[A-Za-z0-9_-]{1,64}$")]
    tier: Option<Option<String>>,
    /// When it is to end by itself; null: never.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Option<Text<Timestamp>>>,
    /// Public keys of its own; null: none.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<Object>)]
    jwks: Option<Option<serde_json::Value>>,
    /// Where its public keys are; null: nowhere.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, max_length = 2048)]
    jwks_uri: Option<Option<String>>,
}

impl EditBody {
    fn edit(self, only_if: Option<crate::entity::Version>) -> Result<ClientEdit, Problem> {
        let keys = match (self.jwks, self.jwks_uri) {
            (None, None) => None,
            (jwks, url) => Some(keys(jwks.flatten().as_ref(), url.flatten().as_deref())?),
        };
        Ok(ClientEdit {
            name: self.name,
            scopes: self.scopes.map(|scopes| scopes.into_iter().map(|Text(scope)| scope).collect()),
            allowed_addresses: self.allowed_addresses.map(|all| all.into_iter().map(|Text(Network(network))| network).collect()),
            tier: self.tier,
            expires_at: self.expires_at.map(|at| at.map(|Text(at)| at)),
            keys,
            only_if,
        })
    }
}

/// How a new secret takes the place of the old one.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSecretBody {
    /// For how long the old one goes on working.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = OverlapView)]
    overlap: Option<Text<Overlap>>,
}

/// For how long an old secret goes on working.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes the words")]
pub enum OverlapView {
    /// Not at all.
    #[schema(rename = "none")]
    None,
    /// One hour.
    #[schema(rename = "1h")]
    Hour,
    /// A day.
    #[schema(rename = "24h")]
    Day,
    /// A week.
    #[schema(rename = "7d")]
    Week,
}

/// Lists the clients of a practice, the newest first; of personal ones only the caller's own
#[utoipa::path(get, path = "/v1/practices/{practice_id}/clients", tag = "clients", params(Of, PageQuery),
    responses((status = 200, description = "A page of them.", body = Page<ClientView>), Refusals))]
pub async fn list(
    State(api): State<Arc<Api>>,
    caller: Called,
    Path(Of { practice_id: Text(id) }): Path<Of>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<ClientView>>, Problem> {
    caller.must_manage(&id)?;
    api.store.practice(&id).await?;
    page_of(&api, &ClientFilter { practice: id, visible_to: caller.viewer(), kind: None }, &page).await
}

/// A page of clients.
pub(super) async fn page_of(api: &Api, filter: &ClientFilter, page: &PageQuery) -> Result<Json<Page<ClientView>>, Problem> {
    let rows = match api.store.clients_page(filter, page.after()?, page.rows()?).await {
        Err(store::Error::NotFound { .. }) => return Err(PageQuery::unknown_cursor()),
        rows => rows?,
    };
    let (rows, next) = page.cut(rows, |row| row.client.id)?;
    let now = now();
    Ok(Json(Page { items: rows.iter().map(|row| ClientView::listed(row, now)).collect(), next }))
}

/// Makes a client of the practice
#[utoipa::path(post, path = "/v1/practices/{practice_id}/clients", tag = "clients", params(Of), request_body = NewClientBody,
    responses((status = 201, description = "It works now. The secret is shown this once.", body = ClientCreated), Refusals))]
pub async fn create(
    State(api): State<Arc<Api>>,
    caller: Called,
    Path(Of { practice_id: Text(id) }): Path<Of>,
    Body(body): Body<NewClientBody>,
) -> Result<Response, Problem> {
    caller.must_manage(&id)?;
    issue(&api, &caller, body, id, None).await
}

/// Makes a client of somebody's own, or of the practice.
pub(super) async fn issue(
    api: &Api,
    caller: &Caller,
    body: NewClientBody,
    practice: PracticeId,
    owner: Option<UserId>,
) -> Result<Response, Problem> {
    let Issued { client, secret, receipt } = api.lifecycle.create_client(body.request(practice, owner)?, &caller.actor()).await?;
    let created =
        ClientCreated { client: ClientView::new(&client, now()), client_secret: Some(secret.reveal().to_owned()), receipt: receipt.into() };
    Ok((StatusCode::CREATED, [(ETAG, etag(&client))], Json(created)).into_response())
}

/// Shows a client
#[utoipa::path(get, path = "/v1/clients/{client_id}", tag = "clients", params(OfClient),
    responses((status = 200, description = "The client.", body = ClientView, headers(("ETag", description = "For `If-Match`."))), Refusals))]
pub async fn show(
    State(api): State<Arc<Api>>,
    caller: Called,
    Path(OfClient { client_id: Text(id) }): Path<OfClient>,
) -> Result<Response, Problem> {
    let client = visible(&api, &caller, id).await?;
    Ok(([(ETAG, etag(&client))], Json(ClientView::new(&client, now()))).into_response())
}

/// Changes a client that is not revoked
#[utoipa::path(patch, path = "/v1/clients/{client_id}", tag = "clients",
    params(OfClient, ("If-Match" = Option<String>, Header, description = "Only if its `ETag` is still this one (RFC 9110 section 13.1.1).")),
    request_body = EditBody,
    responses((status = 200, description = "It is so now.", body = ClientChanged, headers(("ETag", description = "For `If-Match`."))), Refusals))]
pub async fn edit(
    State(api): State<Arc<Api>>,
    caller: Called,
    Path(OfClient { client_id: Text(id) }): Path<OfClient>,
    headers: HeaderMap,
    Body(body): Body<EditBody>,
) -> Result<Response, Problem> {
    let client = visible(&api, &caller, id).await?;
    let receipt = api.lifecycle.edit(id, body.edit(only_if(&headers, &client)?)?, &caller.actor()).await?;
    changed(&api, id, receipt).await
}

/// Makes another secret; the old one ends at once, or after the overlap
#[utoipa::path(post, path = "/v1/clients/{client_id}/secrets", tag = "clients", params(OfClient), request_body = NewSecretBody,
    responses((status = 201, description = "It works now. It is shown this once.", body = SecretCreated), Refusals))]
pub async fn add_secret(
    State(api): State<Arc<Api>>,
    caller: Called,
    Path(OfClient { client_id: Text(id) }): Path<OfClient>,
    Body(body): Body<NewSecretBody>,
) -> Result<Response, Problem> {
    visible(&api, &caller, id).await?;
    let overlap = body.overlap.map(|Text(overlap)| overlap).unwrap_or_default();
    let rotated = api.lifecycle.rotate(id, overlap, &caller.actor()).await?;
    let created = SecretCreated {
        generation: rotated.generation,
        client_secret: Some(rotated.secret.reveal().to_owned()),
        others_end: rotated.others_end,
        receipt: rotated.receipt.into(),
    };
    Ok((StatusCode::CREATED, Json(created)).into_response())
}

/// Ends a secret now
#[utoipa::path(delete, path = "/v1/clients/{client_id}/secrets/{generation}", tag = "clients", params(OfSecret),
    responses((status = 200, description = "It works no longer.", body = ClientChanged, headers(("ETag", description = "For `If-Match`."))), Refusals))]
pub async fn end_secret(
    State(api): State<Arc<Api>>,
    caller: Called,
    Path(OfSecret { client_id: Text(id), generation }): Path<OfSecret>,
) -> Result<Response, Problem> {
    visible(&api, &caller, id).await?;
    let receipt = api.lifecycle.end_secret(id, generation, &caller.actor()).await?;
    changed(&api, id, receipt).await
}

/// Revokes a client, for good
#[utoipa::path(post, path = "/v1/clients/{client_id}/revoke", tag = "clients", params(OfClient),
    responses((status = 200, description = "It works no longer, on any gateway.", body = ClientChanged, headers(("ETag", description = "For `If-Match`."))), Refusals))]
pub async fn revoke(
    State(api): State<Arc<Api>>,
    caller: Called,
    Path(OfClient { client_id: Text(id) }): Path<OfClient>,
) -> Result<Response, Problem> {
    visible(&api, &caller, id).await?;
    let receipt = api.lifecycle.revoke(id, &caller.actor()).await?;
    changed(&api, id, receipt).await
}

/// The client, if there is one that the caller may see: one and the same answer otherwise.
async fn visible(api: &Api, caller: &Caller, id: ClientId) -> Result<Client, Problem> {
    let unknown = || Problem::not_found(format!("there is no client `{id}`"));
    match api.store.client(id).await {
        Ok(client) if caller.sees(&client) => Ok(client),
        Ok(_) | Err(store::Error::NotFound { .. }) => Err(unknown()),
        Err(error) => Err(error.into()),
    }
}

async fn changed(api: &Api, id: ClientId, receipt: store::Receipt) -> Result<Response, Problem> {
    let client = api.store.client(id).await?;
    let changed = ClientChanged { client: ClientView::new(&client, now()), receipt: receipt.into() };
    Ok(([(ETAG, etag(&client))], Json(changed)).into_response())
}

/// A strong validator (RFC 9110 §8.8.3).
fn etag(client: &Client) -> String {
    format!("\"{}\"", URL_SAFE_NO_PAD.encode(client.version()))
}

/// What `If-Match` makes of it: the version that the change is for (RFC 9110 §13.1.1).
fn only_if(headers: &HeaderMap, client: &Client) -> Result<Option<crate::entity::Version>, Problem> {
    let fields: Vec<&str> = headers.get_all(IF_MATCH).iter().map(|field| field.to_str().unwrap_or_default()).collect();
    let wanted: Vec<&str> = fields.iter().flat_map(|field| field.split(',')).map(str::trim).collect();
    if wanted.is_empty() || wanted == ["*"] {
        return Ok(None);
    }
    let own = etag(client);
    if wanted.contains(&own.as_str()) {
        return Ok(Some(client.version()));
    }
    Err(store::Error::Changed { what: "client", id: client.id.to_text() }.into())
}
