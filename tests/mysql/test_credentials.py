"""Logins from Secrets Manager, as moto plays it, for users of MariaDB whose password is rotated."""

from __future__ import annotations

import itertools
import json

import pytest
from sqlalchemy import make_url, text

import lambdadb
from lambdadb import PerInvocation
from lambdadb.credentials.secrets_manager import SecretsManager

from ..lab.aws import KEYS, secret_server, variables

# moto's server takes seconds to start. tests/lab/test_rotation.py rotates under a fleet.
pytestmark = pytest.mark.sweep
WHO = text("SELECT CURRENT_USER(), DATABASE()")
NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def aws():
    with secret_server() as server:
        yield server


@pytest.fixture(params=["two keys", "all keys"])
def secret(request, server, aws, monkeypatch):
    """A user, and a secret: of RDS with user and password alone, or of a rotation's template."""
    variables(monkeypatch, **KEYS, AWS_ENDPOINT_URL=aws.endpoint)
    user = f"rotated_{next(NUMBERS)}"
    port = make_url(server.url).port
    place = {"engine": "mysql", "host": "127.0.0.1", "port": port, "dbname": "orders"}

    class Rotated:
        url = "mysql+pymysql://127.0.0.1"
        name = user

        def write(self, password):
            login = {"username": user, "password": password}
            return json.dumps(login | place if request.param == "all keys" else login)

        def rotate(self, password):
            server.ask(f"ALTER USER {user} IDENTIFIED BY '{password}'")
            self.stored.rotate(self.write(password))

    if request.param == "two keys":
        Rotated.url += f":{port}/orders"
    server.ask(f"CREATE USER {user} IDENTIFIED BY 'canary-first'")
    server.ask(f"GRANT ALL ON orders.* TO {user}")
    rotated = Rotated()
    rotated.stored = aws.secret(SecretString=rotated.write("canary-first"))
    return rotated


def test_a_rotation_is_seen_by_no_invocation(mode, secret):
    """The kept password is refused, the secret read again, and the connect goes on."""

    def steps():
        engine = mode.create_engine(
            secret.url, policy=PerInvocation(), credentials=SecretsManager(secret.stored.id)
        )
        for password in ("canary-second", "canary-third"):
            with lambdadb.invocation(engine), engine.connect() as connection:
                assert tuple(connection.execute(WHO).one()) == (f"{secret.name}@%", "orders")
            secret.rotate(password)
        with lambdadb.invocation(engine), engine.connect() as connection:
            assert connection.scalar(text("SELECT 1")) == 1
        engine.dispose()

    mode.run(steps)


def test_a_kept_connection_outlives_a_rotation(mode, secret):
    """The server does not end a session whose password has changed."""

    def steps():
        engine = mode.create_engine(secret.url, credentials=SecretsManager(secret.stored.id))
        seen = set()
        for password in ("canary-second", "canary-third"):
            with lambdadb.invocation(engine), engine.connect() as connection:
                seen.add(connection.scalar(text("SELECT CONNECTION_ID()")))
            secret.rotate(password)
        assert len(seen) == 1
        engine.dispose()

    mode.run(steps)
