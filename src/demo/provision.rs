//! The practice, the people and the clients of the demo.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::entity::Role;
use crate::lifecycle::{Issued, Lifecycle, NewClientRequest};
use crate::store::Actor;

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

/// Provisions the practice, or goes on with the one that the folder's `demo.json` tells of.
///
/// # Errors
/// What the store refuses.
pub async fn provision(lifecycle: &Lifecycle, dir: &Path) -> anyhow::Result<Demo> {
    if let Some(demo) = earlier(lifecycle, dir).await {
        return Ok(demo);
    }
    let by = Actor { name: "operator".into(), origin: "demo".into() };
    let suffix = uuid::Uuid::now_v7().simple().to_string();
    let id = |what: &str| format!("{what}-{}", &suffix[20..]);
    let (practice, admin, member) = (id("practice").parse()?, id("admin").parse()?, id("member").parse()?);
    lifecycle.put_practice(&practice, "Harbour Street Clinic", &by).await?;
    lifecycle.put_user(&practice, &admin, Role::Admin, &by).await?;
    lifecycle.put_user(&practice, &member, Role::Member, &by).await?;
    lifecycle.approve(&practice, &by).await?;
    for user in [&admin, &member] {
        lifecycle.set_user_access(user, true, &by).await?;
    }
    let mut clients = BTreeMap::new();
    let kinds = [
        ("billing", "Ledger export", "billing", false),
        ("clinical", "Lab results", "clinical", false),
        ("all", "Practice dashboard", "all", false),
        ("personal", "My invoice script", "billing", true),
        ("revoked", "Old integration", "billing", false),
    ];
    for (kind, name, scope, personal) in kinds {
        let owner = personal.then(|| member.clone());
        let new = NewClientRequest { owner: owner.clone(), ..NewClientRequest::new(practice.clone(), name, vec![scope.parse()?]) };
        let Issued { client, secret, .. } = lifecycle.create_client(new, &by).await?;
        if kind == "revoked" {
            lifecycle.revoke(client.id, &by).await?;
        }
        let credential = Credential {
            client_id: client.id.to_string(),
            client_secret: secret.reveal().to_owned(),
            scopes: vec![scope.to_owned()],
            owner: owner.map(|owner| owner.to_string()),
        };
        clients.insert(kind.to_owned(), credential);
    }
    let users = Users { admin: admin.to_string(), member: member.to_string() };
    Ok(Demo { practice_id: practice.to_string(), users, clients, ..Demo::default() })
}

/// What an earlier run left in the folder, if the store still knows its practice.
async fn earlier(lifecycle: &Lifecycle, dir: &Path) -> Option<Demo> {
    let demo: Demo = serde_json::from_str(&fs::read_to_string(dir.join("demo.json")).ok()?).ok()?;
    lifecycle.store().practice(&demo.practice_id.parse().ok()?).await.ok()?;
    Some(demo)
}
