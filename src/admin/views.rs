//! What the API tells of things.

use serde::Serialize;
use utoipa::ToSchema;

use crate::clock::Timestamp;
use crate::entity::{Client, ClientKeys, Practice, StoredSecret};
use crate::store;
use crate::store::records::{ClientRow, LastUse, TeamMember};

/// A practice.
#[derive(Debug, Serialize, ToSchema)]
pub struct PracticeView {
    /// SigmaMD's id.
    practice_id: String,
    /// For people.
    name: String,
    /// `none -> requested -> active <-> disabled`.
    #[schema(value_type = ApiAccessView)]
    api_access: &'static str,
}

/// Whether a practice may be reached through the API.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "describes the words")]
pub enum ApiAccessView {
    /// Never asked for.
    None,
    /// Asked for; an operator has not answered yet.
    Requested,
    /// On.
    Active,
    /// Switched off by the practice.
    Disabled,
}

impl From<Practice> for PracticeView {
    fn from(practice: Practice) -> Self {
        Self { practice_id: practice.id.to_string(), name: practice.name.to_string(), api_access: practice.api_access.as_str() }
    }
}

/// How a change came into force.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Receipt {
    /// The change.
    revision: u64,
    /// Gateways that have applied it.
    applied: u32,
    /// Gateways that had not, and can no longer answer.
    expired: u32,
    /// By when a gateway that could neither apply it nor be asked would have stopped answering, counted from the commit.
    bound_ms: u64,
    /// How long was waited for it.
    waited_ms: u64,
}

impl From<store::Receipt> for Receipt {
    fn from(receipt: store::Receipt) -> Self {
        let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self {
            revision: receipt.revision.0,
            applied: receipt.applied,
            expired: receipt.expired,
            bound_ms: millis(receipt.bound),
            waited_ms: millis(receipt.waited),
        }
    }
}

/// A practice that was changed.
#[derive(Debug, Serialize, ToSchema)]
pub struct PracticeChanged {
    /// As it is now.
    pub practice: PracticeView,
    /// How that came into force.
    pub receipt: Receipt,
}

/// Somebody of a practice's team.
#[derive(Debug, Serialize, ToSchema)]
pub struct MemberView {
    /// SigmaMD's id.
    user_id: String,
    /// The practice.
    practice_id: String,
    /// For people.
    name: Option<String>,
    /// Where mail reaches them.
    email: Option<String>,
    /// `admin` or `member`.
    #[schema(value_type = RoleView)]
    role: &'static str,
    /// Whether their own clients work, which admins decide.
    api_access: bool,
    /// When they left, if they did.
    #[schema(value_type = Option<String>, format = DateTime)]
    left_at: Option<Timestamp>,
}

/// What somebody is on the team.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "describes the words")]
pub enum RoleView {
    /// Manages the practice's API access.
    Admin,
    /// Everybody else.
    Member,
}

impl From<TeamMember> for MemberView {
    fn from(member: TeamMember) -> Self {
        let TeamMember { user, name, email } = member;
        Self {
            name: name.as_deref().map(str::to_owned),
            email: email.as_deref().map(str::to_owned),
            user_id: user.id.to_string(),
            practice_id: user.practice_id.to_string(),
            role: user.role.as_str(),
            api_access: user.api_access,
            left_at: user.left_at,
        }
    }
}

/// Somebody of a team who was changed.
#[derive(Debug, Serialize, ToSchema)]
pub struct MemberChanged {
    /// As they are now.
    pub user: MemberView,
    /// How that came into force; null: it was so already.
    pub receipt: Option<Receipt>,
}

/// An application's credential.
#[derive(Debug, Serialize, ToSchema)]
pub struct ClientView {
    /// Its public id.
    pub client_id: String,
    /// For people.
    name: String,
    /// The practice whose data it reaches.
    practice_id: String,
    /// The user whose own it is; null for one of the practice.
    owner: Option<String>,
    /// `active`, `revoked` or `expired`. (Whether the practice and the owner are on is said there.)
    #[schema(value_type = ClientStatus)]
    status: &'static str,
    /// What it may reach.
    scopes: Vec<String>,
    /// The networks it may call from; none: any.
    allowed_addresses: Vec<String>,
    /// Its rate limit; null: the standard one.
    tier: Option<String>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it ends by itself, if it does.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// When it was revoked, if it was: for good.
    #[schema(value_type = Option<String>, format = DateTime)]
    revoked_at: Option<Timestamp>,
    /// Its secrets, the newest first; not what they are.
    secrets: Vec<SecretView>,
    /// Public keys of its own, a JWK set (RFC 7517), if they are here.
    #[schema(value_type = Option<Object>)]
    jwks: Option<serde_json::Value>,
    /// Where its public keys are, if they are elsewhere.
    jwks_uri: Option<String>,
    /// How it was last used, in a list; left out: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used: Option<LastUseView>,
}

/// How a client was last used.
#[derive(Debug, Serialize, ToSchema)]
pub struct LastUseView {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// From where.
    address: String,
    /// By which of its secrets; 0: by a key of its own.
    generation: u32,
}

impl From<&LastUse> for LastUseView {
    fn from(last: &LastUse) -> Self {
        Self { at: last.at, address: last.address.to_string(), generation: last.generation }
    }
}

/// Whether a client still is.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "describes the words")]
pub enum ClientStatus {
    /// It works, as far as the practice and its owner are on.
    Active,
    /// Somebody has revoked it.
    Revoked,
    /// Its time is over.
    Expired,
}

/// One secret of a client.
#[derive(Debug, Serialize, ToSchema)]
pub struct SecretView {
    /// 1 for the first, one more with each.
    generation: u32,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it ends or ended; null: with the client.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// Whether it still works.
    usable: bool,
}

impl ClientView {
    pub fn new(client: &Client, now: Timestamp) -> Self {
        let secret = |secret: &StoredSecret| SecretView {
            generation: secret.generation,
            created_at: secret.created_at,
            expires_at: secret.expires_at,
            usable: client.revoked_at.is_none() && secret.usable_at(now),
        };
        Self {
            client_id: client.id.to_text(),
            name: client.name.to_string(),
            practice_id: client.practice_id.to_string(),
            owner: client.owner.as_ref().map(ToString::to_string),
            status: match client {
                Client { revoked_at: Some(_), .. } => "revoked",
                Client { expires_at: Some(end), .. } if *end <= now => "expired",
                Client { .. } => "active",
            },
            scopes: client.scopes.iter().map(ToString::to_string).collect(),
            allowed_addresses: client.allowed_addresses.iter().map(ToString::to_string).collect(),
            tier: client.tier.as_deref().map(str::to_owned),
            created_at: client.created_at,
            expires_at: client.expires_at,
            revoked_at: client.revoked_at,
            secrets: client.secrets.iter().map(secret).collect(),
            jwks: client.keys.jwks().and_then(|text| serde_json::from_str(text).ok()),
            jwks_uri: match &client.keys {
                ClientKeys::Url(url) => Some(url.to_string()),
                ClientKeys::None | ClientKeys::Jwks(_) => None,
            },
            last_used: None,
        }
    }

    /// As a list shows it.
    pub fn listed(row: &ClientRow, now: Timestamp) -> Self {
        Self { last_used: row.last_used.as_ref().map(LastUseView::from), ..Self::new(&row.client, now) }
    }
}

/// A client that was made, with its secret: the one time that it is shown.
#[derive(Debug, Serialize, ToSchema)]
pub struct ClientCreated {
    /// The client.
    pub client: ClientView,
    /// Its secret. Nobody can be shown it again: null in an answer that is repeated.
    pub client_secret: Option<String>,
    /// How it came into force.
    pub receipt: Receipt,
}

/// A client that was changed.
#[derive(Debug, Serialize, ToSchema)]
pub struct ClientChanged {
    /// As it is now.
    pub client: ClientView,
    /// How that came into force.
    pub receipt: Receipt,
}

/// A new secret, the one time that it is shown.
#[derive(Debug, Serialize, ToSchema)]
pub struct SecretCreated {
    /// Which one of the client it is.
    pub generation: u32,
    /// The secret. Nobody can be shown it again: null in an answer that is repeated.
    pub client_secret: Option<String>,
    /// When the secrets before it end, or ended.
    #[schema(value_type = String, format = DateTime)]
    pub others_end: Timestamp,
    /// How it came into force.
    pub receipt: Receipt,
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T: ToSchema> {
    /// What is on it.
    pub items: Vec<T>,
    /// `cursor` of the next page; null: this is the last one.
    pub next: Option<String>,
}
