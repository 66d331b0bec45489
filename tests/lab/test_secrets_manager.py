"""Secrets Manager over HTTP, as moto's server plays it: by request of our own, by botocore, by boto3."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest

from lambdadb.credentials import LoginUnavailable
from lambdadb.credentials.aws import secret_reader, transport
from lambdadb.credentials.secrets_manager import SecretsManager
from lambdadb.deadline import Clock
from lambdadb.lab.postgres import free_port

from .aws import KEYS, Request, SecretServer, scripted, secret_server, variables

Make = Callable[..., SecretsManager]
JSON = json.dumps({"username": "app", "password": "pw", "host": "h", "port": 5433, "dbname": "d"})
WHOLE = {"user": "app", "password": "pw", "host": "h", "port": 5433, "database": "d"}


@pytest.fixture(scope="module")
def server() -> Iterator[SecretServer]:
    with secret_server() as server:
        yield server


@pytest.fixture(params=["request", "botocore", "client"])
def make(
    request: pytest.FixtureRequest, server: SecretServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Make]:
    """A store that reads in one of three ways."""
    if request.param == "client":
        variables(monkeypatch)
        yield lambda secret_id: SecretsManager(secret_id, client=server.client)
        return
    variables(monkeypatch, **KEYS, AWS_ENDPOINT_URL=server.endpoint)
    if request.param == "botocore":
        monkeypatch.setenv("AWS_USE_FIPS_ENDPOINT", "false")
    made: list[SecretsManager] = []

    def build(secret_id: str) -> SecretsManager:
        made.append(SecretsManager(secret_id))
        return made[-1]

    yield build
    assert all((store._reader._made is not None) == (request.param == "botocore") for store in made)


def first(store: SecretsManager, **parameters: object) -> Any:
    return next(iter(store.logins(parameters)))


@pytest.mark.parametrize(
    ("value", "login"),
    [
        ({"SecretString": "pw\n"}, {"password": "pw"}),
        ({"SecretBinary": b"pw"}, {"password": "pw"}),
        ({"SecretString": JSON}, WHOLE),
        ({"SecretBinary": JSON.encode()}, WHOLE),
        ({"SecretString": '{"username": "app", "password": "pw"}'}, {"user": "app", "password": "pw"}),
    ],
)
def test_every_shape(value: Any, login: Any, make: Make, server: SecretServer) -> None:
    """A password, RDS's JSON, RDS's own master secret, binary: by name and by ARN."""
    secret = server.secret(**value)
    known = {} if "user" in login else {"user": "url_user"}
    assert first(make(secret.id), **known) == login
    assert first(make(secret.arn), **known) == login


def test_the_stages_of_a_rotation(make: Make, server: SecretServer) -> None:
    """The current secret from memory, as it is now, the pending one, the current one again."""
    secret = server.secret(SecretString="old")
    store = make(secret.id)
    assert first(store, user="app") == {"password": "old"}
    secret.create("new")
    logins = [login["password"] for login in store.logins({"user": "app"})]
    assert logins == ["old", "old", "new", "old"]
    secret.finish()
    logins = [login["password"] for login in make(secret.id).logins({"user": "app"})]
    assert logins == ["new"] * 3


def test_a_secret_that_is_not_there(make: Make, server: SecretServer) -> None:
    """The service's code and what to look at, whoever asked; so too if it is to be deleted."""
    with pytest.raises(LoginUnavailable, match=r"'orders/none'.*ResourceNotFoundException.*region"):
        first(make("orders/none"))
    secret = server.secret(SecretString="pw")
    server.client.delete_secret(SecretId=secret.id)
    with pytest.raises(LoginUnavailable, match=r"InvalidRequestException.*marked for deletion"):
        first(make(secret.id))


def cut(request: Request) -> None:
    pass


def hang(request: Request) -> None:
    threading.Event().wait(5)


def drip_headers(request: Request) -> None:
    """A byte now and then: no wait is long, and the answer never ends."""
    drip(request, b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 1000)


def drip_body(request: Request) -> None:
    drip(request, b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + b" " * 1000)


def drip(request: Request, data: bytes) -> None:
    for number in range(len(data)):
        with contextlib.suppress(OSError):
            request.wfile.write(data[number : number + 1])
            request.wfile.flush()
        threading.Event().wait(0.03)


@pytest.mark.parametrize(
    "trouble",
    [
        cut,
        hang,
        lambda request: request.give(500, '{"__type": "InternalServiceError"}'),
        lambda request: request.give(403, "<html>a gateway's own page</html>"),
        lambda request: request.give(200, "<html>another one</html>"),
        lambda request: request.give(200, "{}"),
    ],
)
def test_what_our_request_does_not_get_botocore_does(
    trouble: Callable[[Request], None], monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    """An answer that is none, or that may pass, is not the end; and the log says what it was."""

    def answer(request: Request) -> None:
        if "Botocore" in request.headers.get("User-Agent", ""):
            request.give(200, json.dumps({"SecretString": JSON}))
        else:
            trouble(request)

    with scripted(answer) as port:
        variables(monkeypatch, **KEYS, AWS_ENDPOINT_URL_SECRETS_MANAGER=f"http://127.0.0.1:{port}")
        assert first(SecretsManager("orders/app")) == WHOLE
    (record,) = [r for r in log.records if r.name == "lambdadb"]
    assert record.levelno == logging.INFO
    assert "the-token" not in record.getMessage()


@pytest.mark.parametrize("trouble", [drip_headers, drip_body, hang])
def test_an_answer_that_never_ends_is_given_up(
    trouble: Callable[[Request], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One deadline for the whole of each request, however often something comes: half a minute here."""
    monkeypatch.setattr(secret_reader, "TIMEOUT", 0.2)
    monkeypatch.setattr(secret_reader, "CLIENT_TIMEOUT", 0.5)
    asked: list[str] = []

    def answer(request: Request) -> None:
        asked.append(request.headers["User-Agent"] or "own")
        trouble(request)

    began = time.monotonic()
    with scripted(answer) as port:
        variables(monkeypatch, **KEYS, AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}")
        with pytest.raises(LoginUnavailable, match=r"TimeoutError.*; .*Timeout"):
            first(SecretsManager("orders/app"))
    assert time.monotonic() - began < 15.0
    assert asked[0] == "own"


def test_a_tls_handshake_that_never_ends_is_given_up() -> None:
    """The same deadline holds while the server's certificate is waited for."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = ("https", "127.0.0.1", listener.getsockname()[1])
        with pytest.raises(transport.NoAnswer, match="TimeoutError"):
            transport.exchange("GET", url, "/", {}, seconds=0.2, clock=Clock())


@pytest.mark.parametrize("code", ["ThrottlingException", "TooManyRequestsException"])
def test_throttling_costs_one_request(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets Manager says that too many come: botocore does not send some more."""
    seen: list[Request] = []

    def answer(request: Request) -> None:
        seen.append(request)
        request.give(400, json.dumps({"__type": code, "message": "slow down"}))

    with scripted(answer) as port:
        variables(monkeypatch, **KEYS, AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}")
        with pytest.raises(LoginUnavailable, match=f"400 {code}: too many requests"):
            first(SecretsManager("orders/app"))
    assert len(seen) == 1


@pytest.mark.parametrize("text", ['{"a":' * 50_000, '{"SecretString": ["x"]}', '{"SecretString": "{"}'])
def test_an_answer_of_any_shape_ends_in_words(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nested without end, of a wrong type, or a secret that is broken: an error of the store."""
    with scripted(lambda request: request.give(200, text)) as port:
        variables(monkeypatch, **KEYS, AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}")
        with pytest.raises(LoginUnavailable, match="'orders/app'"):
            first(SecretsManager("orders/app"))


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://user:{}@127.0.0.1:1",
        "http://user:{}/x@127.0.0.1:1",
        "http://user:{}@127.0.0.1:port",
        "user:{}@127.0.0.1:1",
        "http://127.0.0.1:{}",
        "{}",
    ],
)
@pytest.mark.parametrize("more", [{}, {"AWS_USE_FIPS_ENDPOINT": "false"}])
@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SECRETS_MANAGER"])
def test_an_endpoint_with_a_password_is_not_shown(
    name: str,
    more: dict[str, str],
    endpoint: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not in an error, and not in a line of the log, whoever makes the request."""
    caplog.set_level(logging.INFO)
    variables(monkeypatch, **KEYS, **more, **{name: endpoint.format("canary-endpoint")})
    with pytest.raises(LoginUnavailable, match="not shown") as caught:
        first(SecretsManager("orders/app"))
    assert "canary" not in str(caught.value) + caplog.text
    assert caught.value.__context__ is None


@pytest.mark.parametrize("kind", ["boto3", "botocore"])
def test_a_session_reads_and_nothing_else_is_asked(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An assumed role's session: its keys and its region, although the function's are there too."""
    signed: list[str] = []

    def answer(request: Request) -> None:
        signed.append(request.headers["Authorization"])
        request.give(200, json.dumps({"SecretString": JSON}))

    with scripted(answer) as port:
        variables(
            monkeypatch,
            **KEYS,
            AWS_LAMBDA_FUNCTION_NAME="orders",
            AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}",
            PARAMETERS_SECRETS_EXTENSION_HTTP_PORT=str(port),
        )
        boto = boto3.Session("AKIDROLE", "role-secret", "role-token", region_name="eu-west-3")
        store = SecretsManager("orders/app", session=boto if kind == "boto3" else boto._session)
        assert first(store) == WHOLE
    (authorization,) = signed
    assert "Credential=AKIDROLE/" in authorization
    assert "/eu-west-3/secretsmanager/" in authorization


def test_what_nobody_answers_names_every_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error tells of the request and of botocore, and of neither's keys."""
    port = free_port()
    variables(monkeypatch, **KEYS, AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}")
    with pytest.raises(
        LoginUnavailable, match=rf":{port}: ConnectionRefusedError.*EndpointConnection"
    ) as e:
        first(SecretsManager("orders/app"))
    assert "the-secret-key" not in str(e.value)


def test_our_request_is_signed_for_the_secret_and_the_region(monkeypatch: pytest.MonkeyPatch) -> None:
    """What arrives: the action, the secret, the stage, the ARN's region, the session's token."""
    seen: list[Request] = []

    def answer(request: Request) -> None:
        seen.append(request)
        request.give(200, json.dumps({"SecretString": JSON}))

    arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:orders/app-AbCdEf"
    with scripted(answer) as port:
        variables(monkeypatch, **KEYS, AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}")
        first(SecretsManager(arn))
    (request,) = seen
    assert json.loads(request.body) == {"SecretId": arn, "VersionStage": "AWSCURRENT"}
    assert request.headers["X-Amz-Target"] == "secretsmanager.GetSecretValue"
    assert request.headers["X-Amz-Security-Token"] == "the-token"
    assert "/eu-west-1/secretsmanager/aws4_request" in request.headers["Authorization"]
