//! The management API through its own listener: who may do what, and what it does to requests on the other one.

/// Runs stories on one store and on the other.
macro_rules! on_both_stores {
    ($($story:ident),+ $(,)?) => {
        on_both_stores!(sqlite, Sqlite, "", $($story),+);
        on_both_stores!(postgres, Postgres, "", $($story),+);
    };
    ($settings:expr => $($story:ident),+ $(,)?) => {
        on_both_stores!(sqlite, Sqlite, $settings, $($story),+);
        on_both_stores!(postgres, Postgres, $settings, $($story),+);
    };
    ($module:ident, $database:ident, $settings:expr, $($story:ident),+) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $story() {
                    super::$story($crate::api::Managed::on($crate::support::Database::$database, $settings).await).await;
                }
            )+
        }
    };
}

mod command;
mod inputs;
mod issuers;
mod rules;
mod story;
mod table;
mod told;

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use sigmagate::cache::KeyRing;
use sigmagate::clock::now;
use sigmagate::token::{MANAGEMENT_TOKEN_TYPE, Manager, MasterKey};

use crate::support::{Database, ROUTES, World};

const MASTER_KEY: [u8; 32] = [7; 32];

/// A world with a management API.
struct Managed {
    world: World,
    ring: KeyRing,
}

/// What was answered.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    json: Value,
}

impl Answer {
    /// The answer, which has this status.
    #[track_caller]
    fn is(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.json);
        self.json
    }

    /// A refusal of this status and code.
    #[track_caller]
    fn refused(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.json["code"].as_str()), (status, Some(code)), "{}", self.json);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.json["request_id"].as_str(), Some(self.headers["x-request-id"].to_str().unwrap()));
        assert_eq!(self.headers["cache-control"], "no-store");
    }
}

impl Managed {
    /// One on a store, with more settings.
    async fn on(database: Database, settings: &str) -> Self {
        let key = STANDARD.encode(MASTER_KEY);
        let world =
            World::on(database, &format!("{settings}[oauth]\nmaster_key = \"{key}\"\nkey_networks = [\"127.0.0.0/8\"]\n"), ROUTES).await;
        let keys = world.lifecycle.store().signing_keys().await.unwrap();
        Self { world, ring: KeyRing::opened(keys, &MasterKey::parse(&key).unwrap()) }
    }

    fn token(&self, manager: &Manager) -> String {
        let signer = self.ring.signer(now()).unwrap();
        let header = json!({ "typ": MANAGEMENT_TOKEN_TYPE, "alg": signer.algorithm().as_str(), "kid": signer.kid() });
        signer.sign_json(&header, &manager.to_claims(now(), now().after(Duration::from_secs(600)))).unwrap()
    }

    fn operator(&self) -> String {
        self.token(&Manager::Operator { name: "ops".into() })
    }

    fn user(&self, id: &str, practice: &str, admin: bool) -> String {
        self.token(&Manager::User { id: id.parse().unwrap(), practice: practice.parse().unwrap(), admin })
    }

    /// A request of `METHOD /path`.
    async fn ask(&self, token: &str, line: &str, body: Option<Value>) -> Answer {
        self.send(token, line, body, &[]).await
    }

    async fn send(&self, token: &str, line: &str, body: Option<Value>, headers: &[(&str, &str)]) -> Answer {
        let (method, path) = line.split_once(' ').unwrap();
        let mut request = self.world.http.request(method.parse().unwrap(), self.world.management(path)).bearer_auth(token);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Answer { status, headers, json: response.json().await.unwrap_or_default() }
    }

    /// The mails of a kind, oldest first: whom each is for, its subject and its text; once there are so many.
    async fn mails(&self, kind: &str, count: usize) -> Vec<(String, String, String)> {
        let folder = self.world.dir.path().join("mail");
        loop {
            let files = std::fs::read_dir(&folder).map(|files| files.map(|file| file.unwrap().path()).collect()).unwrap_or_default();
            let mut files: Vec<PathBuf> = files;
            files.retain(|file| file.file_name().unwrap().to_str().unwrap().ends_with(&format!("-{kind}.eml")));
            if files.len() < count {
                tokio::task::yield_now().await;
                continue;
            }
            files.sort();
            let told = files.iter().map(|file| {
                let content = std::fs::read(file).unwrap();
                let mail = mail_parser::MessageParser::default().parse(&content).unwrap();
                let to = mail.to().unwrap().first().unwrap().address().unwrap().to_owned();
                (to, mail.subject().unwrap().to_owned(), mail.body_text(0).unwrap().into_owned())
            });
            return told.collect();
        }
    }

    /// How the data plane answers a client.
    async fn status(&self, path: &str, created: &Value) -> u16 {
        let (id, secret) = (created["client"]["client_id"].as_str().unwrap(), created["client_secret"].as_str());
        self.world.http.get(self.world.url(path)).basic_auth(id, secret).send().await.unwrap().status().as_u16()
    }
}
