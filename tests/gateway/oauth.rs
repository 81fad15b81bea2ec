//! The authorization server through the real listener: what it gives, what it refuses, and what a token is worth.

mod errors;
mod issued;
mod operator;
mod worth;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::RequestBuilder;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use sigmagate::clock::now;
use sigmagate::entity::ClientKeys;
use sigmagate::lifecycle::NewClientRequest;
use sigmagate::token::{Algorithm, SigningKey};

use crate::support::{ROUTES, World};

const CORE_SECRET: &str = "core-secret-that-is-long-enough-00";
const GRANT: (&str, &str) = ("grant_type", "client_credentials");
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A world that issues tokens, with a resource server and a client that signs.
struct Issuing {
    world: World,
    issuer: String,
    signs: String,
    key: SigningKey,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    text: String,
    json: Value,
}

impl Issuing {
    async fn new() -> Self {
        Self::with("").await
    }

    /// With these lines in the block `oauth`.
    async fn with(oauth: &str) -> Self {
        let settings = format!(
            "[limits.failed_authentications]\nper_minute = 1000000\nburst = 1000000\n[oauth]\nmaster_key = \"{}\"\n{oauth}\n\
             [[oauth.resource_servers]]\nname = \"core\"\nsecret = \"{CORE_SECRET}\"\n",
            STANDARD.encode([7; 32])
        );
        let world = World::with(&settings, ROUTES).await;
        let issuer = world.url("");
        let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
        let mut new = NewClientRequest::new(world.practice.clone(), "signs", vec!["billing".parse().unwrap()]);
        new.keys = ClientKeys::Jwks(json!({ "keys": [key.public().to_jwk()] }).to_string().into());
        let signs = world.lifecycle.create_client(new, &world.by).await.unwrap().client.id.to_string();
        Self { world, issuer, signs, key }
    }

    /// A form from nobody.
    fn form(&self, path: &str, form: &[(&str, &str)]) -> RequestBuilder {
        let text: String = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        self.text(path, &text)
    }

    /// The same, as it is written.
    fn text(&self, path: &str, form: &str) -> RequestBuilder {
        let request = self.world.http.post(self.world.url(path)).header("content-type", "application/x-www-form-urlencoded");
        request.body(form.to_owned())
    }

    /// A form from a client that shows its secret.
    fn by(&self, app: &str, path: &str, form: &[(&str, &str)]) -> RequestBuilder {
        self.form(path, form).header("authorization", self.world.authorization(app))
    }

    /// A form from the resource server.
    fn by_core(&self, path: &str, form: &[(&str, &str)]) -> RequestBuilder {
        self.form(path, form).basic_auth("core", Some(CORE_SECRET))
    }

    async fn token(&self, app: &str) -> String {
        let answer = send(self.by(app, "/oauth/token", &[GRANT])).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json["access_token"].as_str().unwrap().to_owned()
    }

    /// An assertion of the client that signs, with these claims in the place of the usual ones; `null` leaves one out.
    fn assertion(&self, header: &Value, claims: &Value) -> String {
        let mut all = json!({
            "iss": self.signs, "sub": self.signs, "aud": self.issuer, "exp": now().0 / 1000 + 300, "iat": now().0 / 1000,
            "jti": uuid::Uuid::new_v4().to_string(),
        });
        let mut head = json!({ "alg": "EdDSA", "kid": self.key.kid() });
        for (of, changes) in [(&mut all, claims), (&mut head, header)] {
            let of = of.as_object_mut().unwrap();
            of.extend(changes.as_object().unwrap().clone());
            of.retain(|_, value| !value.is_null());
        }
        self.key.sign_json(&head, &all).unwrap()
    }

    fn by_assertion(&self, path: &str, assertion: &str, form: &[(&str, &str)]) -> RequestBuilder {
        let shown = [("client_assertion_type", JWT_BEARER), ("client_assertion", assertion)];
        self.form(path, &[&shown[..], form].concat())
    }

    /// How the data plane answers this token.
    async fn status(&self, path: &str, token: &str) -> u16 {
        self.world.http.get(self.world.url(path)).bearer_auth(token).send().await.unwrap().status().as_u16()
    }
}

async fn send(request: RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.unwrap();
    let json = serde_json::from_str(&text).unwrap_or(Value::Null);
    Answer { status, headers, text, json }
}

/// Neither kept by anybody on the way, nor taken for anything but JSON.
fn check_headers(answer: &Answer) {
    assert_eq!(answer.headers["content-type"], "application/json", "{}", answer.text);
    assert_eq!((&answer.headers["cache-control"], &answer.headers["pragma"]), (&"no-store".parse().unwrap(), &"no-cache".parse().unwrap()));
    assert!(answer.headers.contains_key("x-request-id") && !answer.headers.contains_key("server"), "{:?}", answer.headers);
}

/// A part of a token, whoever has signed it.
fn part(token: &str, at: usize) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(at).unwrap()).unwrap()).unwrap()
}
