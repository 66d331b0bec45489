"""
Frameworks on lambdadb: each example is a function that runs against a cluster that is paused.

`nox -s frameworks` installs them. What the tests see makes the table of docs/frameworks.md, which
`nox -s frameworks -- --write` renews.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import flask
import flask_sqlalchemy
import pytest
from moto.server import ThreadedMotoServer

from lambdadb import PerInvocation
from lambdadb.lab.process import Process
from lambdadb.lab.xray.daemon import XRayDaemon, nested

from . import events
from .conftest import EXAMPLES, FUNCTION, SQLALCHEMY_20, Shop
from .table import Table, read_page, uses_of_lambdadb, write_page

if TYPE_CHECKING:
    from .collector import Collector

PARTS = {"attempt", "login", "resume", "wait"}  # of a connect
FOLDER = EXAMPLES / "frameworks"
pytestmark = pytest.mark.frameworks


@dataclass(frozen=True)
class Example:
    """A framework's function, its events, and what it answers to each of them."""

    framework: str
    handler: str
    events: tuple[Any, Any]
    answers: tuple[Any, Any]
    by_url: bool = False

    @property
    def file(self) -> Path:
        return FOLDER / f"{self.handler.partition('.')[0]}.py"

    def invoke(self, shop: Shop, number: int = 0) -> Any:
        """Its answer to one of the events."""
        shop.set(DATABASE_URL=shop.plugin_url if self.by_url else shop.url)
        return shop.invoke(self.handler, self.events[number])


TEA = (events.http("/orders/tea"),) * 2
STORED = ({"id": 1}, {"id": 2})
QUESTION = {"texts": ["tea", "milk"], "question": "tea"}
NOTES = ({"notes": [["tea", [1, 0, 0]], ["milk", [0, 1, 0]]], "near": [0.9, 0, 0]},) * 2
FOUND = (["tea"], ["tea"])
WEB = [
    Example("FastAPI with Mangum", "fastapi_app.lambda_handler", TEA, STORED),
    Example("FastAPI and SQLModel", "sqlmodel_app.lambda_handler", TEA, STORED),
    Example("Flask-SQLAlchemy, with 503", "flask_app.lambda_handler", TEA, STORED, by_url=True),
    Example("Powertools: events, Logger, Tracer", "powertools_app.lambda_handler", TEA, STORED),
    Example(
        "Chalice",
        "chalice_app.app",
        (events.rest("/orders/tea", "/orders/{item}", item="tea"),) * 2,
        STORED,
    ),
]
OTHERS = [
    Example("Flask-SQLAlchemy", "flask_by_url.lambda_handler", TEA, STORED, by_url=True),
    Example(
        "Powertools: batch",
        "powertools_batch.lambda_handler",
        (events.sqs({"item": "tea"}, {"item": "milk"}), events.sqs({"item": "tea"}, {"cup": "tea"})),
        ({"batchItemFailures": []}, {"batchItemFailures": [{"itemIdentifier": "m-2"}]}),
    ),
    Example("pandas", "pandas_report.lambda_handler", (None, None), (0, 0)),
    Example(
        "SQLAlchemy-Utils",
        "sqlalchemy_utils_app.lambda_handler",
        ({"email": "Ann@Example.com"},) * 2,
        ("ann@example.com",) * 2,
        by_url=True,
    ),
    Example(
        "langchain",
        "langchain_by_url.lambda_handler",
        ({**QUESTION, "create": True}, QUESTION),
        FOUND,
        by_url=True,
    ),
    Example(
        "langchain, with the deadline",
        "langchain_search.lambda_handler",
        ({**QUESTION, "create": True}, QUESTION),
        FOUND,
    ),
    Example("LlamaIndex", "llamaindex_by_url.lambda_handler", NOTES, FOUND, by_url=True),
    Example("LlamaIndex, with the deadline", "llamaindex_search.lambda_handler", NOTES, FOUND),
]


def content(answer: Any) -> Any:
    """The body of an HTTP answer with status 200; any other answer as it is."""
    if isinstance(answer, dict) and "statusCode" in answer:
        assert answer["statusCode"] == 200, answer
        return json.loads(answer["body"])
    return answer


def run(example: Example, shop: Shop) -> int:
    """A resume is waited for, and a lost session replaced. Returns the sessions that are open then."""
    assert content(example.invoke(shop, 0)) == example.answers[0]
    assert shop.settle() == 1
    shop.end_sessions()
    assert content(example.invoke(shop, 1)) == example.answers[1]
    return shop.settle()


@pytest.mark.parametrize("example", WEB, ids=lambda example: example.framework)
def test_a_web_framework(example: Example, shop: Shop, table: Table) -> None:
    """It stores orders, and answers 503 with Retry-After if a resume takes longer than it may."""
    sessions = run(example, shop)
    shop.sleep(seconds_left=4.0)
    answer = example.invoke(shop)
    assert answer["statusCode"] == 503
    found = answer.get("headers") or {n: each[0] for n, each in answer["multiValueHeaders"].items()}
    assert int({name.lower(): value for name, value in found.items()}["retry-after"]) > 0
    table.add(example.framework, example.file, sessions=sessions, answers_503=True)


@pytest.mark.parametrize("example", OTHERS, ids=lambda example: example.framework)
def test_a_library(example: Example, shop: Shop, table: Table) -> None:
    """It does its work on one session with the function's name."""
    table.add(example.framework, example.file, sessions=run(example, shop))


class WebAdapter:
    """
    Uvicorn as the Lambda Web Adapter runs it: frozen between requests, with the context in a header.

    The adapter itself is a program of AWS that is on no package index.
    """

    def __init__(self, shop: Shop) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        command = [sys.executable, "-m", "uvicorn", "fastapi_app:app", "--port", str(self._port)]
        variables = {"DATABASE_URL": shop.url, "AWS_LAMBDA_FUNCTION_NAME": FUNCTION}
        self._process = Process(command, env={**os.environ, **variables}, cwd=FOLDER)

    def wait(self) -> None:
        """Ask until it answers, as the adapter does, and freeze it."""
        ends = time.monotonic() + 60.0
        while time.monotonic() < ends:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self._port}/docs", timeout=5.0).close()
            except urllib.error.URLError:
                time.sleep(0.05)
            else:
                self._process.send_signal(signal.SIGSTOP)
                return
        raise AssertionError("uvicorn has not started")

    def post(self, path: str, timeout: float = 60.0) -> tuple[int, Any]:
        """One invocation: status and body."""
        context = {"deadline": (time.time() + timeout) * 1000.0, "invoked_function_arn": ""}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}{path}",
            headers={"x-amzn-lambda-context": json.dumps(context)},
            method="POST",
        )
        self._process.send_signal(signal.SIGCONT)
        try:
            with urllib.request.urlopen(request, timeout=120.0) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                said = error.read().decode()
            return error.code, json.loads(said) if said.startswith("{") else said
        finally:
            self._process.send_signal(signal.SIGSTOP)

    def close(self) -> None:
        self._process.kill()


def test_the_lambda_web_adapter(shop: Shop, table: Table) -> None:
    """The same application in uvicorn: the deadline comes in a header of the request."""
    with closing(WebAdapter(shop)) as adapter:
        adapter.wait()
        assert adapter.post("/orders/tea") == (200, {"id": 1})
        sessions = shop.settle()
        shop.end_sessions()
        assert adapter.post("/orders/tea", timeout=10.0) == (200, {"id": 2})
        shop.sleep(seconds_left=4.0)
        ends = time.monotonic() + 30.0
        status, body = adapter.post("/orders/tea", timeout=4.0)
        # The second request's note may have been frozen. Then it has the session until its time is over.
        while status == 500 and time.monotonic() < ends:
            status, body = adapter.post("/orders/tea", timeout=4.0)
    assert (status, body["retryAfter"] > 0) == (503, True)
    file = FOLDER / "fastapi_app.py"
    table.add("FastAPI with the Lambda Web Adapter", file, sessions=sessions, answers_503=True)


@pytest.fixture
def idempotency_table() -> Iterator[dict[str, str]]:
    """DynamoDB's table for Powertools in moto's server: the function's variables."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    variables = {
        "AWS_ENDPOINT_URL": "http://{}:{}".format(*server.get_host_and_port()),
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "IDEMPOTENCY_TABLE": "answers",
    }
    client = boto3.Session("AKIDEXAMPLE", "secret", region_name="us-east-1").client(
        "dynamodb", endpoint_url=variables["AWS_ENDPOINT_URL"]
    )
    client.create_table(
        TableName="answers",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    yield variables
    client.delete_table(TableName="answers")
    server.stop()


def test_powertools_idempotency(idempotency_table: dict[str, str], shop: Shop, table: Table) -> None:
    """A repeated request gets the first answer, and stores nothing."""
    shop.set(**idempotency_table)
    handler = "powertools_idempotency.lambda_handler"
    for _ in range(2):
        assert shop.invoke(handler, {"request": "r-1", "item": "tea"}) == {"id": 1}
    assert shop.invoke(handler, {"request": "r-2", "item": "tea"}) == {"id": 2}
    file = FOLDER / "powertools_idempotency.py"
    table.add("Powertools: idempotency", file, sessions=shop.settle())


def test_alembic(shop: Shop, table: Table) -> None:
    """Alembic's own template waits for a resume and leaves no session."""
    subprocess.run(
        [sys.executable, "-m", "alembic", "-c", "alembic.ini", "upgrade", "head"],
        cwd=FOLDER / "alembic_by_url",
        env={**os.environ, "DATABASE_URL": shop.plugin_url, "PYTHONDONTWRITEBYTECODE": "1"},
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert shop.query("SELECT version_num FROM alembic_version") == [("1",)]
    assert shop.query("SELECT count(*) FROM made_by_alembic") == [(0,)]
    sessions = shop.settle(0)
    table.add("Alembic", FOLDER / "alembic_by_url" / "env.py", sessions=sessions)


def test_the_xray_sdks_patch_all(xray: XRayDaemon, shop: Shop, table: Table) -> None:
    """One trace: a subsegment for our connect, and one for the statement."""
    assert shop.invoke("xray_patched.lambda_handler", {"item": "tea"}) == {"id": 1}
    connect, statement = nested(xray.settle())
    assert connect.document["annotations"]["lambdadb"] == "connect"
    assert statement.document["sql"]["sanitized_query"].startswith("INSERT INTO orders")
    assert (statement.children, xray.problems) == ([], [])
    table.add("aws-xray-sdk `patch_all`", FOLDER / "xray_patched.py", sessions=shop.settle())


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector of OpenTelemetry on this machine."""
    from .collector import Collector  # the packages of the group `frameworks`

    with Collector() as collector:
        yield collector
        collector.shutdown()


OURS, LAMBDA = "lambdadb", "opentelemetry.instrumentation.aws_lambda"
SQLALCHEMY = "opentelemetry.instrumentation.sqlalchemy"


@pytest.mark.parametrize(
    ("framework", "handler", "disabled", "spans"),
    [
        (
            "ADOT's distribution of OpenTelemetry",
            "traced_otel.lambda_handler",
            "sqlalchemy,psycopg",
            ["connect", "INSERT", FUNCTION, "INSERT", FUNCTION],
        ),
        pytest.param(
            "OpenTelemetry's instrumentation of SQLAlchemy",
            "otel_instrumented.lambda_handler",
            "sqlalchemy,psycopg,aws-lambda",
            ["connect", *["connect", "INSERT", FUNCTION] * 2],
            marks=SQLALCHEMY_20,
        ),
    ],
)
def test_opentelemetry(
    framework: str,
    handler: str,
    disabled: str,
    spans: list[str],
    shop: Shop,
    collector: Collector,
    table: Table,
) -> None:
    """The collector gets the function's span with the connect, and each statement once."""
    from .collector import adot

    shop.set(**adot(handler, collector, disabled))
    assert [shop.invoke(handler, {"item": "tea"}) for _ in range(2)] == [{"id": 1}, {"id": 2}]
    names = [name.split()[0] for name in collector.names(OURS, SQLALCHEMY, LAMBDA)]
    assert [name for name in names if name not in PARTS] == spans
    file = next(path for path in (FOLDER, EXAMPLES) for path in path.glob(f"{handler.split('.')[0]}.py"))
    table.add(framework, file, sessions=shop.settle())


def test_flasks_engine_options() -> None:
    """They are keywords of `create_engine`, lambdadb's among them."""
    app = flask.Flask("orders")
    app.config["SQLALCHEMY_DATABASE_URI"] = "postgresql+psycopg://app@db.example/shop?plugin=lambdadb"
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"policy": PerInvocation()}
    db = flask_sqlalchemy.SQLAlchemy(app)
    with app.app_context():
        pool: Any = db.engine.pool
        assert pool.policy == PerInvocation()


def test_lines_are_counted(tmp_path: Path) -> None:
    """Imports of lambdadb and uses of what they import, but not `create_engine`."""
    example = tmp_path / "example.py"
    example.write_text(
        "from lambdadb import create_engine, handler\n\nengine = create_engine('')\n\n\n"
        "@handler(engine)\ndef lambda_handler(event, context): ...\n"
    )
    assert uses_of_lambdadb(example) == {1: {"create_engine", "handler"}, 6: {"handler"}}


@SQLALCHEMY_20
def test_the_page_has_this_table(request: pytest.FixtureRequest, table: Table) -> None:
    """What the tests before this one have seen, in docs/frameworks.md."""
    if request.config.getoption("keyword"):
        pytest.skip("the table needs every test, and -k has left some out")
    if request.config.getoption("--write", default=False):
        write_page(table)
    assert read_page() == table.render()
