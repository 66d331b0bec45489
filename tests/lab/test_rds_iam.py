"""AWS keys that expire, from a real endpoint of container credentials, as under SnapStart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest

from lambdadb.credentials import LoginUnavailable
from lambdadb.credentials.rds_iam import RdsIam

from .aws import KEYS, Request, scripted, variables

URL = {"host": "orders.cluster-c9.eu-west-1.rds.amazonaws.com", "port": 5432, "user": "app"}


class Endpoint:
    """Gives each caller new keys, good for `minutes`, if it shows its authorization."""

    def __init__(self) -> None:
        self.minutes = 60.0
        self.given = 0

    def answer(self, request: Request) -> None:
        if request.headers["Authorization"] != "the-authorization":
            request.give(403, "{}")
            return
        self.given += 1
        expires = datetime.now(timezone.utc) + timedelta(minutes=self.minutes)
        keys = {
            "AccessKeyId": f"ASIA{self.given}",
            "SecretAccessKey": "the-secret-key",
            "Token": f"token{self.given}",
            "Expiration": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        request.give(200, json.dumps(keys))


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    endpoint = Endpoint()
    with scripted(endpoint.answer) as port:
        variables(
            monkeypatch,
            AWS_CONTAINER_CREDENTIALS_FULL_URI=f"http://127.0.0.1:{port}/v1/credentials",
            AWS_CONTAINER_AUTHORIZATION_TOKEN="the-authorization",
        )
        yield endpoint


def token(store: RdsIam) -> str:
    (login,) = store.logins(URL)
    return str(login["password"])


def test_expiring_keys_are_renewed(endpoint: Endpoint) -> None:
    """A token is signed with keys that are still good: those about to expire are fetched anew."""
    store = RdsIam()
    for minutes, fetched in ((5.0, True), (5.0, True), (60.0, True), (60.0, False)):
        endpoint.minutes, before = minutes, endpoint.given
        signed = token(store)
        assert (endpoint.given > before) == fetched
        assert f"Credential=ASIA{endpoint.given}%2F" in signed
        assert f"Security-Token=token{endpoint.given}&" in signed


def test_keys_of_the_environment_come_first(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Lambda puts the role's keys into variables, nobody is asked."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    assert "Credential=AKIDEXAMPLE%2F" in token(RdsIam())
    assert endpoint.given == 0


def test_keys_that_nobody_gives_are_an_error(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text says where they were looked for, without the authorization."""
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "another")
    with pytest.raises(LoginUnavailable, match="No AWS credentials: CredentialRetrievalError") as caught:
        token(RdsIam())
    assert "another" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.usefixtures("endpoint")
@pytest.mark.parametrize("store", ["rds_iam.RdsIam()", "secrets_manager.SecretsManager('orders/app')"])
@pytest.mark.parametrize("snapstart", [True, False])
def test_under_snapstart_botocore_is_imported_before_the_snapshot(store: str, snapstart: bool) -> None:
    """A store in module scope brings botocore into the snapshot if it will need it, and only then."""
    module = store.partition(".")[0]
    code = f"from lambdadb.credentials import {module}\n{store}\n"
    code += "import sys\nprint('botocore' in sys.modules)"
    environment = {**os.environ, **({} if snapstart else KEYS)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{snapstart}\n"
