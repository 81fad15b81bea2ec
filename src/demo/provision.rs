//! The practice, the people and the clients of the demo.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context;
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::id::{PracticeId, UserId};
use crate::manage::Api;

/// What `demo.json` says. Its shape is documented in the README and kept.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Demo {
    /// Where applications connect.
    pub gateway_url: String,
    /// Where operators connect.
    pub management_url: String,
    /// The service behind the gateway.
    pub upstream_url: String,
    /// The store.
    pub database_url: String,
    /// The one practice.
    pub practice_id: String,
    /// Its people.
    pub users: Users,
    /// `billing`, `clinical`, `all`, `personal` and `revoked`.
    pub clients: BTreeMap<String, Credential>,
}

/// The people of the demo's practice.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Users {
    /// An admin.
    pub admin: String,
    /// A member, who owns the personal client.
    pub member: String,
}

/// One client of the demo, secret included.
#[derive(Debug, Serialize, Deserialize)]
pub struct Credential {
    /// Its id.
    pub client_id: String,
    /// Its secret, in the clear: this is a demo.
    pub client_secret: String,
    /// What it may reach.
    pub scopes: Vec<String>,
    /// Whose it is, when it is personal.
    pub owner: Option<String>,
}

/// Provisions the practice through the management API, or goes on with the one that the folder's `demo.json` tells of.
/// `as_user` gives the API as one of its people calls it: personal keys are for nobody else to make.
///
/// # Errors
/// What the API refuses.
pub async fn provision(api: &Api, as_user: impl AsyncFn(UserId, PracticeId) -> anyhow::Result<Api>, dir: &Path) -> anyhow::Result<Demo> {
    if let Some(demo) = earlier(api, dir).await {
        return Ok(demo);
    }
    let suffix = uuid::Uuid::now_v7().simple().to_string();
    let id = |what: &str| format!("{what}-{}", &suffix[20..]);
    let (practice, admin, member) = (id("practice"), id("admin"), id("member"));
    let of = |rest: &str| format!("/v1/practices/{practice}{rest}");
    api.send(Method::PUT, &of(""), Some(&json!({ "name": "Harbour Street Clinic" }))).await?;
    for (user, role, name) in [(&admin, "admin", "Ana Ruiz"), (&member, "member", "Bo Lee")] {
        let body = json!({ "role": role, "name": name, "email": format!("{user}@clinic.example") });
        api.send(Method::PUT, &of(&format!("/team/{user}")), Some(&body)).await?;
    }
    api.post(&of("/api-access/request"), None).await?;
    api.post(&of("/api-access/approve"), None).await?;
    for user in [&admin, &member] {
        let body = json!({ "api_access": true });
        api.send(Method::PUT, &of(&format!("/team/{user}/api-access")), Some(&body)).await?;
    }
    let own = as_user(member.parse()?, practice.parse()?).await?;
    let mut clients = BTreeMap::new();
    let kinds = [
        ("billing", "Ledger export", "billing", false),
        ("clinical", "Lab results", "clinical", false),
        ("all", "Practice dashboard", "all", false),
        ("personal", "My invoice script", "billing", true),
        ("revoked", "Old integration", "billing", false),
    ];
    for (kind, name, scope, personal) in kinds {
        let body = json!({ "name": name, "scopes": [scope] });
        let created =
            if personal { own.post("/v1/me/clients", Some(&body)).await? } else { api.post(&of("/clients"), Some(&body)).await? };
        let text = |value: &Value| value.as_str().map(str::to_owned).context("a client without an id or a secret");
        let client_id = text(&created["client"]["client_id"])?;
        if kind == "revoked" {
            api.post(&format!("/v1/clients/{client_id}/revoke"), None).await?;
        }
        let client_secret = text(&created["client_secret"])?;
        let owner = personal.then(|| member.clone());
        clients.insert(kind.to_owned(), Credential { client_id, client_secret, scopes: vec![scope.to_owned()], owner });
    }
    Ok(Demo { practice_id: practice, users: Users { admin, member }, clients, ..Demo::default() })
}

/// What an earlier run left in the folder, if the store still knows its practice.
async fn earlier(api: &Api, dir: &Path) -> Option<Demo> {
    let demo: Demo = serde_json::from_str(&fs::read_to_string(dir.join("demo.json")).ok()?).ok()?;
    api.get(&format!("/v1/practices/{}/api-access", demo.practice_id)).await.ok()?;
    Some(demo)
}
