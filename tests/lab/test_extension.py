"""The AWS Parameters and Secrets extension, good days and bad, before a PostgreSQL with passwords."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
from sqlalchemy import text

import lambdadb
from lambdadb import ConnectFailed, Fault, PerInvocation, ResumeRetry, aio
from lambdadb.credentials.secrets_manager import SecretsManager
from lambdadb.lab.postgres import Postgres, free_port

from .aws import KEYS, Request, Secret, SecretServer, scripted, secret_server, variables

USER = text("SELECT current_user")


class Extension:
    """Speaks the extension's protocol before the API: a token, a cache, and what can go wrong."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._cache: dict[str, str] = {}
        self.requests: list[str] = []
        self.slow = 0.0
        self.trouble: Callable[[Request], None] | None = None

    def answer(self, request: Request) -> None:
        self.requests.append(request.path)
        url = urlsplit(request.path)
        if self.trouble is not None:
            self.trouble(request)
        elif request.headers["X-Aws-Parameters-Secrets-Token"] != KEYS["AWS_SESSION_TOKEN"]:
            request.give(401, "")
        elif url.path != "/secretsmanager/get":
            request.give(404, "")
        else:
            if url.query not in self._cache:
                time.sleep(self.slow)
                self._cache[url.query] = self._value(**{k: v[0] for k, v in parse_qs(url.query).items()})
            request.give(200, self._cache[url.query])

    def _value(self, secretId: str, versionStage: str) -> str:
        value = self._client.get_secret_value(SecretId=secretId, VersionStage=versionStage)
        if "SecretBinary" in value:
            value["SecretBinary"] = base64.b64encode(value["SecretBinary"]).decode()
        del value["ResponseMetadata"]
        return json.dumps(value, default=str)


class Stage:
    """A function with the extension, its secret, and the database role that the secret is for."""

    def __init__(self, postgres: Postgres, aws: SecretServer, extension: Extension, role: str) -> None:
        self._url = postgres.url().replace("+psycopg", "")
        self.url = f"postgresql+psycopg://127.0.0.1:{postgres.port}/postgres"
        self.extension = extension
        self.role = role
        self._sql(f"CREATE ROLE {role} LOGIN PASSWORD 'p0'")
        self.secret: Secret = aws.secret(SecretString=self.value("p0"))

    def value(self, password: str) -> str:
        return json.dumps({"username": self.role, "password": password})

    def rotate(self, password: str) -> None:
        """The whole of a rotation."""
        self._sql(f"ALTER ROLE {self.role} PASSWORD '{password}'")
        self.secret.rotate(self.value(password))

    def _sql(self, statement: str) -> None:
        with psycopg.connect(self._url, autocommit=True) as admin:
            admin.execute(statement.encode())

    def user(self, limit: float = 10.0) -> object:
        """Who a new engine is logged in as."""
        store = SecretsManager(self.secret.id)
        engine = lambdadb.create_engine(self.url, credentials=store, retry=ResumeRetry(timeout=limit))
        try:
            with engine.connect() as connection:
                return connection.scalar(USER)
        finally:
            engine.dispose()


@pytest.fixture(scope="module")
def aws() -> Iterator[SecretServer]:
    with secret_server() as server:
        yield server


@pytest.fixture(scope="module")
def scram() -> Iterator[Postgres]:
    with Postgres(password="admin") as server:
        yield server


roles = itertools.count()


@pytest.fixture
def stage(scram: Postgres, aws: SecretServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """Inside Lambda, with the extension and the API both there."""
    extension = Extension(aws.client)
    with scripted(extension.answer) as port:
        variables(
            monkeypatch,
            **KEYS,
            AWS_LAMBDA_FUNCTION_NAME="orders",
            AWS_ENDPOINT_URL=aws.endpoint,
            PARAMETERS_SECRETS_EXTENSION_HTTP_PORT=str(port),
        )
        yield Stage(scram, aws, extension, f"app{next(roles)}")


@pytest.fixture
def no_api(monkeypatch: pytest.MonkeyPatch, stage: Stage) -> None:
    """The extension alone can be reached."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")


@pytest.mark.usefixtures("no_api")
def test_a_slow_miss_and_a_hit(stage: Stage, log: pytest.LogCaptureFixture) -> None:
    """The extension fetches at the first question and remembers; nothing else is asked."""
    stage.extension.slow = 0.5
    assert [stage.user(), stage.user()] == [stage.role, stage.role]
    name = stage.secret.id.replace("/", "%2F")
    path = f"/secretsmanager/get?secretId={name}&versionStage=AWSCURRENT"
    assert stage.extension.requests == [path, path]
    assert not [r for r in log.records if r.name == "lambdadb" and "Secret" in r.getMessage()]


def test_an_expired_password_is_asked_of_the_api(stage: Stage) -> None:
    """The extension gives the old one for minutes: once it is refused, its cache is gone round."""
    stage.user()
    stage.rotate("p1")
    assert stage.user() == stage.role
    assert len(stage.extension.requests) == 2


def hang(request: Request) -> None:
    threading.Event().wait(30)


def not_ready(request: Request) -> None:
    request.give(400, "not ready to serve traffic, please wait")


TROUBLES = {
    "not ready": not_ready,
    "wrong token": lambda request: request.give(401, ""),
    "error": lambda request: request.give(500, "an unexpected error occurred"),
    "no JSON": lambda request: request.give(200, "<html>"),
    "no secret": lambda request: request.give(200, "{}"),
    "cut": lambda request: None,
    "hang": hang,
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_an_extension_in_trouble_is_passed_by(
    trouble: str, stage: Stage, log: pytest.LogCaptureFixture
) -> None:
    """The API is asked instead, and the log says why."""
    stage.extension.trouble = TROUBLES[trouble]
    assert stage.user() == stage.role
    (record,) = [r for r in log.records if r.name == "lambdadb" and "Secret" in r.getMessage()]
    assert record.levelno == logging.INFO
    assert len(stage.extension.requests) == 1


@pytest.mark.usefixtures("no_api")
@pytest.mark.parametrize("trouble", TROUBLES)
def test_when_nobody_gives_the_secret_the_error_says_so_in_time(trouble: str, stage: Stage) -> None:
    """Whatever the extension does, the connect ends within its limit, in words."""
    stage.extension.trouble = TROUBLES[trouble]
    with pytest.raises(ConnectFailed, match=r"orders/.* could not be read|no answer within") as caught:
        stage.user(limit=1.0 if trouble == "hang" else 10.0)
    assert caught.value.fault is Fault.LOGIN
    assert caught.value.waited < (2.0 if trouble == "hang" else 10.0)
    assert "VPC endpoint" in str(caught.value)


def test_a_function_without_the_extension(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    """Nobody listens on its port: nothing worth a line in the log."""
    monkeypatch.setenv("PARAMETERS_SECRETS_EXTENSION_HTTP_PORT", str(free_port()))
    assert stage.user() == stage.role
    assert not [r for r in log.records if r.name == "lambdadb" and r.levelno >= logging.INFO]


def test_outside_lambda_the_extension_is_not_looked_for(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a developer's machine something else may listen on its port."""
    monkeypatch.delenv("AWS_LAMBDA_FUNCTION_NAME")
    assert stage.user() == stage.role
    assert stage.extension.requests == []


def test_an_asynchronous_engine_survives_a_rotation(stage: Stage) -> None:
    """The same store, on an event loop: the new password is found."""

    async def main() -> list[object]:
        store = SecretsManager(stage.secret.id)
        engine = aio.create_async_engine(stage.url, credentials=store, policy=PerInvocation())
        users = []
        for password in ("p1", "p2"):
            async with engine.connect() as connection:
                users.append(await connection.scalar(USER))
            stage.rotate(password)
        async with engine.connect() as connection:
            users.append(await connection.scalar(USER))
        await engine.dispose()
        return users

    assert asyncio.run(main()) == [stage.role] * 3
