"""Authlib against the gateway, as its documentation shows it: only the address is known."""

from importlib.metadata import version

import requests
from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata, get_well_known_url
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, RSAKey

from walk import Walk, raises, refused, same

walk = Walk(f"Authlib {version('Authlib')}", f"joserfc {version('joserfc')}")
settings = walk.settings
issuer, api = settings["issuer"], settings["api"]
billing, jwt_client = settings["billing"], settings["jwt_client"]


def session(client, secret, **more):
    return OAuth2Session(client, secret, token_endpoint=metadata["token_endpoint"], **more)


def by_secret(method="client_secret_basic", **more):
    return session(billing["client_id"], billing["client_secret"], token_endpoint_auth_method=method, **more)


with walk.step("discovery"):
    answer = requests.get(get_well_known_url(issuer, external=True), timeout=30)
    answer.raise_for_status()
    metadata = AuthorizationServerMetadata(answer.json())
    # Not `metadata.validate()`: it takes an empty list of response types, all that a server without an authorization
    # endpoint can say, for a missing one. Everything else is as Authlib wants it.
    for key in metadata.REGISTRY_KEYS:
        if key != "response_types_supported":
            getattr(metadata, f"validate_{key}")()
    same("response_types_supported", metadata["response_types_supported"], [])
    same("issuer", metadata["issuer"], issuer)
    same("grant_types_supported", metadata["grant_types_supported"], ["client_credentials"])
    for method in ["client_secret_basic", "client_secret_post", "private_key_jwt"]:
        assert method in metadata["token_endpoint_auth_methods_supported"], method
    for algorithm in ["ES384", "RS384"]:
        assert algorithm in metadata["token_endpoint_auth_signing_alg_values_supported"], algorithm
    for scope in ["billing", "tasks", "clinical"]:
        assert scope in metadata["scopes_supported"], scope

for method in ["client_secret_basic", "client_secret_post"]:
    with walk.step(f"token by {method}"):
        token = by_secret(method).fetch_token(grant_type="client_credentials")
        same("token_type", token["token_type"], "Bearer")
        same("scope", sorted(token["scope"].split()), ["billing", "tasks"])
        assert token["expires_in"] > 0

with walk.step("fewer scopes than granted"):
    app = by_secret(scope="billing")
    token = app.fetch_token(grant_type="client_credentials")
    same("scope", token["scope"], "billing")

with walk.step("API call within the scope"):
    same("status", app.get(f"{api}/billing/invoices").status_code, 200)

with walk.step("API call outside the scope"):
    refused(app.get(f"{api}/patients"), 403, "insufficient_scope")

with walk.step("what the token says of its bearer"):
    whoami = app.get(f"{issuer}/oauth/whoami").json()
    same("client_id", whoami["client_id"], billing["client_id"])
    same("scope", whoami["scope"], "billing")

with walk.step("introspection by the client"):
    state = app.introspect_token(metadata["introspection_endpoint"], token["access_token"]).json()
    same("active", state["active"], True)
    same("client_id", state["client_id"], billing["client_id"])
    same("scope", state["scope"], "billing")

with walk.step("introspection by a resource server"):
    core = session(settings["resource_server"]["name"], settings["resource_server"]["secret"])
    state = core.introspect_token(metadata["introspection_endpoint"], token["access_token"]).json()
    same("active", state["active"], True)
    same("client_id", state["client_id"], billing["client_id"])

with walk.step("the token by itself"):
    # Authlib's own `JWTBearerTokenValidator` leaves the algorithms to joserfc, whose defaults have neither EdDSA nor Ed25519.
    keys = KeySet.import_key_set(requests.get(metadata["jwks_uri"], timeout=30).json())
    read = jwt.decode(token["access_token"], keys, algorithms=["EdDSA", "ES256"])
    needed = {name: {"essential": True} for name in ["exp", "sub", "client_id", "iat", "jti"]}
    needed["iss"] = {"essential": True, "value": issuer}
    needed["aud"] = {"essential": True, "value": settings["audience"]}
    jwt.JWTClaimsRegistry(**needed).validate(read.claims)
    same("typ", read.header["typ"], "at+jwt")
    same("client_id", read.claims["client_id"], billing["client_id"])
    same("scope", read.claims["scope"], "billing")

for algorithm, key in [
    ("ES384", ECKey.import_key(jwt_client["private_key_pem"], {"kid": jwt_client["kid"]})),
    ("RS384", RSAKey.import_key(jwt_client["rsa_private_key_pem"], {"kid": jwt_client["rsa_kid"]})),
]:
    with walk.step(f"token by private_key_jwt, {algorithm}"):
        signed = session(jwt_client["client_id"], key, token_endpoint_auth_method="private_key_jwt", scope="billing")
        signed.register_client_auth_method(
            PrivateKeyJWT(metadata["token_endpoint"], headers={"kid": key.kid}, alg=algorithm)
        )
        same("scope", signed.fetch_token(grant_type="client_credentials")["scope"], "billing")
        same("status", signed.get(f"{api}/billing/invoices").status_code, 200)

    with walk.step(f"an assertion is good for one time, {algorithm}"):

        class SignedOnce(PrivateKeyJWT):
            assertion = None

            def sign(self, auth, token_endpoint):
                self.assertion = self.assertion or super().sign(auth, token_endpoint)
                return self.assertion

        signed = session(jwt_client["client_id"], key, token_endpoint_auth_method="private_key_jwt")
        signed.register_client_auth_method(SignedOnce(metadata["token_endpoint"], headers={"kid": key.kid}, alg=algorithm))
        signed.fetch_token(grant_type="client_credentials")
        with raises(OAuthError, "invalid_client"):
            signed.fetch_token(grant_type="client_credentials")

for method in ["client_secret_basic", "client_secret_post"]:
    with walk.step(f"a wrong secret by {method}"):
        wrong = session(billing["client_id"], billing["client_secret"][:-1], token_endpoint_auth_method=method)
        with raises(OAuthError, "invalid_client"):
            wrong.fetch_token(grant_type="client_credentials")

with walk.step("an unknown scope"):
    with raises(OAuthError, "invalid_scope"):
        by_secret().fetch_token(grant_type="client_credentials", scope="no-such-scope")

with walk.step("an unknown grant"):
    with raises(OAuthError, "unsupported_grant_type"):
        by_secret().fetch_token(grant_type="password", username="somebody", password="something")

with walk.step("revocation"):
    for time in ["the first time", "again"]:
        same(time, app.revoke_token(metadata["revocation_endpoint"], token["access_token"]).status_code, 200)

with walk.step("a revoked token is not active"):
    for asking in [app, core]:
        state = asking.introspect_token(metadata["introspection_endpoint"], token["access_token"]).json()
        same("introspection", state, {"active": False})

with walk.step("API call with a revoked token"):
    refused(app.get(f"{api}/billing/invoices"), 401, "invalid_token")

with walk.step("a new token after that"):
    app.fetch_token(grant_type="client_credentials")
    same("status", app.get(f"{api}/billing/invoices").status_code, 200)

walk.end()
