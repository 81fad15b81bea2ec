"""requests-oauthlib against the gateway, with PyJWT for keys. It knows no discovery of its own: the well-known address
is asked with requests, as its documentation does."""

import time
import uuid
from importlib.metadata import version

import jwt
import requests
from oauthlib.oauth2 import BackendApplicationClient, OAuth2Error
from requests.auth import HTTPBasicAuth
from requests_oauthlib import OAuth2Session

from walk import Walk, raises, refused, same

walk = Walk(*(f"{name} {version(name)}" for name in ["requests-oauthlib", "oauthlib", "PyJWT"]))
settings = walk.settings
issuer, api = settings["issuer"], settings["api"]
billing, jwt_client = settings["billing"], settings["jwt_client"]
basic = HTTPBasicAuth(billing["client_id"], billing["client_secret"])


def session(client_id, scope=None):
    return OAuth2Session(client=BackendApplicationClient(client_id=client_id, scope=scope))


def introspect(token, auth):
    # The library has no call for RFC 7662.
    answer = requests.post(metadata["introspection_endpoint"], data={"token": token}, auth=auth, timeout=30)
    answer.raise_for_status()
    return answer.json()


with walk.step("discovery"):
    answer = requests.get(f"{issuer}/.well-known/oauth-authorization-server", timeout=30)
    answer.raise_for_status()
    metadata = answer.json()
    same("issuer", metadata["issuer"], issuer)
    token_url = metadata["token_endpoint"]

with walk.step("token by client_secret_basic"):
    token = session(billing["client_id"]).fetch_token(token_url, auth=basic)
    same("token_type", token["token_type"], "Bearer")
    same("scope", sorted(token["scope"]), ["billing", "tasks"])
    assert token["expires_in"] > 0

with walk.step("token by client_secret_post"):
    token = session(billing["client_id"]).fetch_token(
        token_url, client_secret=billing["client_secret"], include_client_id=True
    )
    same("scope", sorted(token["scope"]), ["billing", "tasks"])

with walk.step("fewer scopes than granted"):
    # The library warns, and the warning is an error here, if the answer has other scopes than were asked for.
    app = session(billing["client_id"], ["billing"])
    token = app.fetch_token(token_url, auth=basic)
    same("scope", token["scope"], ["billing"])

with walk.step("API call within the scope"):
    same("status", app.get(f"{api}/billing/invoices").status_code, 200)

with walk.step("API call outside the scope"):
    refused(app.get(f"{api}/patients"), 403, "insufficient_scope")

with walk.step("what the token says of its bearer"):
    same("client_id", app.get(f"{issuer}/oauth/whoami").json()["client_id"], billing["client_id"])

with walk.step("introspection by the client"):
    state = introspect(token["access_token"], basic)
    same("active", state["active"], True)
    same("client_id", state["client_id"], billing["client_id"])
    same("scope", state["scope"], "billing")

with walk.step("introspection by a resource server"):
    core = HTTPBasicAuth(settings["resource_server"]["name"], settings["resource_server"]["secret"])
    state = introspect(token["access_token"], core)
    same("active", state["active"], True)
    same("client_id", state["client_id"], billing["client_id"])

with walk.step("the token by itself"):
    published = requests.get(metadata["jwks_uri"], timeout=30).json()
    header = jwt.get_unverified_header(token["access_token"])
    same("typ", header["typ"], "at+jwt")
    key = jwt.PyJWKSet.from_dict(published)[header["kid"]]
    claims = jwt.decode(
        token["access_token"],
        key,
        algorithms=[header["alg"]],
        issuer=issuer,
        audience=settings["audience"],
        options={"require": ["iss", "exp", "aud", "sub", "client_id", "iat", "jti"]},
    )
    same("client_id", claims["client_id"], billing["client_id"])
    same("scope", claims["scope"], "billing")


def assertion(audience, key, kid, algorithm):
    now = int(time.time())
    me = jwt_client["client_id"]
    claims = {"iss": me, "sub": me, "aud": audience, "jti": str(uuid.uuid4()), "iat": now, "exp": now + 60}
    return jwt.encode(claims, key, algorithm, headers={"kid": kid})


def by_assertion(signed):
    app = session(jwt_client["client_id"], ["billing"])
    token = app.fetch_token(
        token_url,
        include_client_id=True,
        client_assertion_type="urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        client_assertion=signed,
    )
    same("scope", token["scope"], ["billing"])
    same("status", app.get(f"{api}/billing/invoices").status_code, 200)


for algorithm, key, kid in [
    ("ES384", jwt_client["private_key_pem"], jwt_client["kid"]),
    ("RS384", jwt_client["rsa_private_key_pem"], jwt_client["rsa_kid"]),
]:
    for what, audience in [("the token endpoint", token_url), ("the issuer", issuer)]:
        with walk.step(f"token by private_key_jwt, {algorithm}, for {what}"):
            signed = assertion(audience, key, kid, algorithm)
            by_assertion(signed)
    with walk.step(f"an assertion is good for one time, {algorithm}"):
        with raises(OAuth2Error, "invalid_client"):
            by_assertion(signed)

with walk.step("an assertion for somebody else"):
    with raises(OAuth2Error, "invalid_client"):
        by_assertion(assertion("https://elsewhere.example.test", jwt_client["private_key_pem"], jwt_client["kid"], "ES384"))

with walk.step("a wrong secret"):
    with raises(OAuth2Error, "invalid_client"):
        session(billing["client_id"]).fetch_token(token_url, client_secret=billing["client_secret"][:-1])

with walk.step("an unknown scope"):
    with raises(OAuth2Error, "invalid_scope"):
        session(billing["client_id"], ["no-such-scope"]).fetch_token(token_url, auth=basic)

with walk.step("revocation"):
    url, headers, body = app._client.prepare_token_revocation_request(metadata["revocation_endpoint"], token["access_token"])
    for time_ in ["the first time", "again"]:
        answer = requests.post(url, headers=headers, data=body, auth=basic, timeout=30)
        same(time_, answer.status_code, 200)

with walk.step("a revoked token is not active"):
    for asking in [basic, core]:
        same("introspection", introspect(token["access_token"], asking), {"active": False})

with walk.step("API call with a revoked token"):
    refused(app.get(f"{api}/billing/invoices"), 401, "invalid_token")

with walk.step("a new token after that"):
    app.fetch_token(token_url, auth=basic)
    same("status", app.get(f"{api}/billing/invoices").status_code, 200)

walk.end()
