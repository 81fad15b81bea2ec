"""What the walks of the libraries have in common: the settings, and how steps are told. No OAuth in here.

The settings are a JSON file, named by the first argument:

    issuer, api, audience     addresses: the gateway's, that of its API, and what access tokens are for
    ca_file                   the certificate authority that vouches for the gateway
    billing                   client_id, client_secret; granted "billing tasks"
    jwt_client                client_id; private_key_pem and kid (P-384), rsa_private_key_pem and rsa_kid; granted "billing tasks"
    resource_server           name, secret
"""

import json
import os
import sys
import traceback
from contextlib import contextmanager


class Walk:
    def __init__(self, *libraries):
        with open(sys.argv[1], encoding="utf-8") as file:
            self.settings = json.load(file)
        # As on a machine whose administrator has installed the authority; and nothing in between.
        os.environ["REQUESTS_CA_BUNDLE"] = self.settings["ca_file"]
        os.environ["NO_PROXY"] = "*"
        self.passed = 0
        print("using", ", ".join(libraries), flush=True)

    @contextmanager
    def step(self, name):
        """One promise. The first that is not kept ends the walk."""
        try:
            yield
        except Exception as error:  # Whatever it was, the step is what to tell.
            traceback.print_exc(chain=False)
            print(f"failed {name}: {type(error).__name__}: {error}", file=sys.stderr)
            sys.exit(1)
        self.passed += 1
        print("ok", name, flush=True)

    def end(self):
        print("passed", self.passed)


def same(what, got, wanted):
    if got != wanted:
        raise AssertionError(f"{what}: expected {wanted!r}, got {got!r}")


def refused(response, status, error):
    """An API call that was refused, with the challenge of RFC 6750 §3."""
    challenge = response.headers.get("WWW-Authenticate", "")
    same("status", response.status_code, status)
    if "Bearer" not in challenge or f'error="{error}"' not in challenge:
        raise AssertionError(f'WWW-Authenticate: expected Bearer with error="{error}", got {challenge!r}')


@contextmanager
def raises(exception, error):
    """The library itself says what the gateway had against the request (RFC 6749 §5.2)."""
    try:
        yield
    except exception as raised:
        same("error", raised.error, error)
    else:
        raise AssertionError(f"expected {exception.__name__} with {error}, and nothing was raised")
