//! The rules of access as a table: every state of the practice, of the caller and of the client, and every action, through
//! the API; and whether the key works then, through the data plane.

use serde_json::{Value, json};
use sigmagate::clock::Timestamp;
use sigmagate::entity::Role;
use sigmagate::id::{PracticeId, UserId};
use sigmagate::lifecycle::{Issued, NewClientRequest};
use sigmagate::store::ClientEdit;

use super::Managed;
use crate::support::MANY_FAILURES;

// Many of the keys do not work, and that is no attack.
on_both_stores!(super::MANY_FAILURES => whoever_does_whatever_whenever_is_answered_as_the_table_says);

/// practice, toggle of the caller, role of the caller, whose client, its state, action: the status. The first row counts;
/// `*` is anything, `|` between what may be.
const TABLE: &str = "
none|requested|disabled  *    admin   practice  new             create                  409
*                        *    member  practice  new             create                  403
active                   *    admin   practice  new             create                  201
active                   on   *       own       new             create                  201
*                        *    *       own       new             create                  409
*                        *    member  practice  *               see|edit|rotate|revoke  404
*                        *    *       other     *               see|edit|rotate|revoke  404
*                        *    *       *         active|expired  see|edit|revoke         200
*                        *    *       *         active|expired  rotate                  201
*                        *    *       *         expired         use                     401
*                        *    *       *         revoked         see|revoke              200
*                        *    *       *         revoked         edit|rotate             409
*                        *    *       *         revoked         use                     401
disabled                 *    *       *         active          use                     403
active                   *    *       practice  active          use                     200
active                   *    *       other     active          use                     200
active                   on   *       own       active          use                     200
active                   off  *       own       active          use                     403
";

fn expected(cell: [&str; 6]) -> u16 {
    let rows = TABLE.lines().filter(|line| !line.is_empty());
    let fits = |row: &Vec<&str>| cell.iter().zip(row).all(|(value, words)| *words == "*" || words.split('|').any(|word| word == *value));
    let row = rows.map(|line| line.split_whitespace().collect::<Vec<_>>()).find(fits);
    row.unwrap_or_else(|| panic!("no row for {cell:?}"))[6].parse().unwrap()
}

/// Everybody and everything of one practice, made while it was on.
struct Practice<'m> {
    managed: &'m Managed,
    id: PracticeId,
}

impl Practice<'_> {
    async fn user(&self, name: &str, role: Role) -> UserId {
        let (lifecycle, by) = (&self.managed.world.lifecycle, &self.managed.world.by);
        let id: UserId = format!("{}-{name}", self.id).parse().unwrap();
        lifecycle.put_user(&self.id, &id, role, by).await.unwrap();
        lifecycle.set_user_access(&id, true, by).await.unwrap();
        id
    }

    /// A client in a state: what `Managed::status` takes.
    async fn client(&self, owner: Option<&UserId>, state: &str) -> Value {
        let (lifecycle, by) = (&self.managed.world.lifecycle, &self.managed.world.by);
        let mut new = NewClientRequest::new(self.id.clone(), "app", vec!["billing".parse().unwrap()]);
        new.owner = owner.cloned();
        let Issued { client, secret, .. } = lifecycle.create_client(new, by).await.unwrap();
        match state {
            "revoked" => drop(lifecycle.revoke(client.id, by).await.unwrap()),
            // The store does not ask whether an end is past.
            "expired" => {
                let edit = ClientEdit { expires_at: Some(Some(Timestamp(1))), ..ClientEdit::default() };
                drop(lifecycle.store().edit_client(client.id, &edit, by).await.unwrap());
            }
            _ => {}
        }
        json!({ "client": { "client_id": client.id.to_text() }, "client_secret": secret.reveal() })
    }
}

async fn whoever_does_whatever_whenever_is_answered_as_the_table_says(managed: Managed) {
    let (lifecycle, by) = (&managed.world.lifecycle, &managed.world.by);
    let mut cells = 0;
    for practice in ["none", "requested", "active", "disabled"] {
        let id: PracticeId = format!("p-{practice}").parse().unwrap();
        lifecycle.put_practice(&id, practice, by).await.unwrap();
        let made = Practice { managed: &managed, id: id.clone() };
        let mut callers = Vec::new();
        for (role, of) in [("admin", Role::Admin), ("member", Role::Member)] {
            for toggle in ["on", "off"] {
                callers.push((role, toggle, made.user(&format!("{role}-{toggle}"), of).await));
            }
        }
        let other = made.user("other", Role::Member).await;
        // What there is, while the practice is on: a client of its own for each cell, since some actions are final.
        let mut prepared = Vec::new();
        if ["active", "disabled"].contains(&practice) {
            lifecycle.approve(&id, by).await.unwrap();
            for (role, toggle, user) in &callers {
                for (kind, owner) in [("practice", None), ("own", Some(user)), ("other", Some(&other))] {
                    for state in ["active", "expired", "revoked"] {
                        for action in ["see", "edit", "rotate", "revoke", "use"] {
                            let client = made.client(owner, state).await;
                            prepared.push(([practice, *toggle, *role, kind, state, action], user.clone(), client));
                        }
                    }
                }
            }
        }
        for (_, _, user) in callers.iter().filter(|(_, toggle, _)| *toggle == "off") {
            lifecycle.set_user_access(user, false, by).await.unwrap();
        }
        match practice {
            "requested" => drop(lifecycle.request(&id, by).await.unwrap()),
            "disabled" => drop(lifecycle.disable(&id, by).await.unwrap()),
            _ => {}
        }
        for (role, toggle, user) in &callers {
            let token = managed.user(user.as_str(), id.as_str(), *role == "admin");
            let app = Some(json!({ "name": "app", "scopes": ["billing"] }));
            for (kind, line) in [("practice", format!("POST /v1/practices/{id}/clients")), ("own", "POST /v1/me/clients".to_owned())] {
                let cell = [practice, *toggle, *role, kind, "new", "create"];
                let answer = managed.ask(&token, &line, app.clone()).await;
                assert_eq!(answer.status, expected(cell), "{cell:?} {}", answer.json);
                if answer.status == 201 {
                    assert_eq!(managed.status("/billing", &answer.json).await, 200, "{cell:?}: it works at once");
                }
                cells += 1;
            }
        }
        for (cell, user, client) in &prepared {
            let token = managed.user(user.as_str(), id.as_str(), cell[2] == "admin");
            let path = format!("/v1/clients/{}", client["client"]["client_id"].as_str().unwrap());
            let before = managed.status("/billing", client).await;
            let status = match cell[5] {
                "see" => managed.ask(&token, &format!("GET {path}"), None).await.status,
                "edit" => managed.ask(&token, &format!("PATCH {path}"), Some(json!({ "name": "other" }))).await.status,
                "rotate" => managed.ask(&token, &format!("POST {path}/secrets"), Some(json!({ "overlap": "none" }))).await.status,
                "revoke" => managed.ask(&token, &format!("POST {path}/revoke"), None).await.status,
                _ => before,
            };
            assert_eq!(status, expected(*cell), "{cell:?}");
            // What was refused has changed nothing; a secret that was replaced and a client that was revoked are over at once.
            let over = matches!(cell[5], "rotate" | "revoke") && status < 300;
            assert_eq!(managed.status("/billing", client).await, if over { 401 } else { before }, "{cell:?}: afterwards");
            cells += 1;
        }
    }
    assert_eq!(cells, 4 * 4 * 2 + 2 * 4 * 3 * 3 * 5);
}
