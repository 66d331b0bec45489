"""Traces of real functions: AWS's runtime client, PostgreSQL, and a listener as X-Ray's daemon."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from lambdadb.lab.aurora import Cluster
from lambdadb.lab.environment import Environment, FunctionError
from lambdadb.lab.postgres import Postgres
from lambdadb.lab.xray.daemon import Node, XRayDaemon, nested

from .aws import KEYS, SecretServer, secret_server

Make = Callable[..., Environment]

ROOT = "Root=1-5759e988-bd862e3fe1be46a99427279{};Parent=53995c3f42cd8ad{};Sampled={}"
DATABASE = "postgres@127.0.0.1"
CANARY = "canary-7355608"


@pytest.fixture
def daemon() -> Iterator[XRayDaemon]:
    with XRayDaemon() as daemon:
        yield daemon
        assert daemon.problems == []


@pytest.fixture
def make(tmp_path: Path, daemon: XRayDaemon, postgres: Postgres) -> Iterator[Make]:
    """A function from its source, that reports to the daemon."""
    made: list[Environment] = []

    def build(source: str, url: str = postgres.url(), **options: object) -> Environment:
        (tmp_path / "function.py").write_text(textwrap.dedent(source))
        variables = {
            "AWS_XRAY_DAEMON_ADDRESS": daemon.address,
            "DATABASE_URL": url,
            "PYTHONWARNINGS": "error::UserWarning",
            "POWERTOOLS_SERVICE_NAME": "orders",
        }
        made.append(
            Environment(
                "function.handler", function_name="orders", path=[tmp_path], environment=variables
            )
        )
        return made[-1]

    yield build
    for environment in made:
        environment.close()


PLAIN = """
    import os, sys
    import lambdadb
    from lambdadb import trace
    from lambdadb.tracing.xray import XRay
    from sqlalchemy import text
    engine = lambdadb.create_engine(os.environ["DATABASE_URL"], tracer=XRay("all"))
    @trace("query_user")
    def query_user(name):
        with engine.begin() as connection:
            connection.execute(text("SELECT :name, 42, 'a literal'"), {"name": name}).one()
    @lambdadb.handler(engine)
    def handler(event, context):
        query_user(event)
        return [name for name in sys.modules if name.startswith("aws_xray_sdk")]
"""


def subtree(documents: list[dict[str, object]], name: str) -> Node:
    """The one node of that name."""
    (found,) = [node for root in nested(documents) for node in root.walk() if node.name == name]
    return found


def test_a_sampled_invocation(make: Make, daemon: XRayDaemon) -> None:
    """Block, connect and statement are in the segment that the header names, without the SDK."""
    assert make(PLAIN).invoke("ann", trace_id=ROOT.format(3, 8, 1)) == []
    (tree,) = nested(daemon.wait(3))
    assert tree.names == ("query_user", (DATABASE, ("attempt",)), (DATABASE,))
    assert tree.document["trace_id"] == "1-5759e988-bd862e3fe1be46a994272793"
    assert tree.document["parent_id"] == "53995c3f42cd8ad8"
    connect, statement = (child.document for child in tree.children)
    assert connect["annotations"]["function"] == "orders"
    assert connect["annotations"]["cold_start"] is True
    assert statement["sql"]["sanitized_query"] == "SELECT %(name)s, ?, ?"
    assert statement["sql"]["database_version"].startswith("18")


def test_each_invocation_is_in_its_own_trace(make: Make, daemon: XRayDaemon) -> None:
    """Sampled and not, in turn, in one environment; what is not sampled leaves nothing."""
    environment = make(PLAIN)
    for number, is_sampled in enumerate([0, 1, 0, 1]):
        environment.invoke("ann", trace_id=ROOT.format(number, number, is_sampled))
    parents = [tree.document["parent_id"] for tree in nested(daemon.wait(4))]
    assert sorted(parents) == ["53995c3f42cd8ad1", "53995c3f42cd8ad3"]
    assert environment.init_count == 1


def test_not_sampled(make: Make, daemon: XRayDaemon) -> None:
    """Nothing is sent, and neither the SDK nor what makes documents does anything."""
    assert make(PLAIN).invoke("ann", trace_id=ROOT.format(3, 8, 0)) == []
    assert daemon.settle() == []


def test_during_init(make: Make, daemon: XRayDaemon) -> None:
    """A connect in module scope belongs to no trace: not a document, not a line in the log."""
    environment = make("""
        import os
        import aws_xray_sdk.core
        import lambdadb
        from lambdadb import trace
        from lambdadb.tracing.xray import XRay
        engine = lambdadb.create_engine(os.environ["DATABASE_URL"], tracer=XRay("all"))
        traced = "_X_AMZN_TRACE_ID" in os.environ
        with trace("init"):
            engine.connect().close()
        def handler(event, context):
            return traced
    """)
    assert environment.invoke(None) is False
    assert daemon.settle() == []
    assert environment.log == []


def test_a_resume(make: Make, daemon: XRayDaemon, postgres: Postgres) -> None:
    """The connect tells that the cluster slept, and for how long the function waited."""
    with Cluster(postgres, auto_pause=60.0, resume=2.0, paused=True) as cluster:
        make(PLAIN, cluster.url()).invoke("ann")
    connect = subtree(daemon.wait(3), "resume").document
    tree = nested(daemon.documents)[0].children[0]
    assert tree.document["annotations"]["resumed"] is True
    assert tree.document["annotations"]["fault"] == connect["annotations"]["fault"]
    assert 1.0 < connect["end_time"] - connect["start_time"] < 30.0


def test_powertools_in_the_same_handler(make: Make, daemon: XRayDaemon) -> None:
    """One trace: its subsegments around ours, ours around its."""
    environment = make("""
        import os
        from aws_lambda_powertools import Tracer
        import lambdadb
        from lambdadb import trace
        from lambdadb.tracing.xray import XRay
        from sqlalchemy import text
        tracer = Tracer(auto_patch=False)
        engine = lambdadb.create_engine(os.environ["DATABASE_URL"], tracer=XRay("all"))
        @tracer.capture_method(capture_response=False)
        def store():
            with engine.begin() as connection:
                connection.execute(text("SELECT 1"))
        @tracer.capture_lambda_handler(capture_response=False)
        @lambdadb.handler(engine)
        def handler(event, context):
            with trace("checkout"):
                store()
    """)
    environment.invoke(None, trace_id=ROOT.format(3, 8, 1))
    (tree,) = nested(daemon.wait(5))
    store = ("## function.store", (DATABASE, ("attempt",)), (DATABASE,))
    assert tree.names == ("## handler", ("checkout", store))
    assert {document["trace_id"] for document in daemon.documents} == {
        "1-5759e988-bd862e3fe1be46a994272793"
    }
    assert environment.log == []


@pytest.mark.parametrize("sdk", ["", "import aws_xray_sdk.core"])
def test_tasks_of_an_asynchronous_engine(make: Make, daemon: XRayDaemon, sdk: str) -> None:
    """Statements of parallel tasks are in their own task's block, the connects too."""
    environment = make(f"""
        import asyncio, os
        import lambdadb
        {sdk}
        from lambdadb import PerEnvironment
        from lambdadb.aio import create_async_engine
        from lambdadb import trace
        from lambdadb.tracing.xray import XRay
        from sqlalchemy import text
        engine = create_async_engine(
            os.environ["DATABASE_URL"], tracer=XRay("all"), policy=PerEnvironment(connections=2)
        )
        @trace("query")
        async def query(name, seconds):
            with trace(name):
                async with engine.connect() as connection:
                    await connection.execute(text(f"SELECT 1 AS {{name}} FROM pg_sleep({{seconds}})"))
                    await connection.execute(text(f"SELECT 2 AS {{name}}"))
        @lambdadb.handler(engine)
        async def handler(event, context):
            await asyncio.gather(query("slow", 0.3), query("quick", 0.1))
    """)
    environment.invoke(None)
    trees = nested(daemon.wait(10))
    assert [tree.names[0] for tree in trees] == ["query", "query"]
    for tree, name in zip(trees, ["slow", "quick"], strict=True):
        (block,) = tree.children
        assert block.name == name
        queries = [child.document["sql"].get("sanitized_query") for child in block.children]
        assert queries == [None, f"SELECT ? AS {name} FROM pg_sleep(?)", f"SELECT ? AS {name}"]


def test_threads(make: Make, daemon: XRayDaemon) -> None:
    """What a handler's threads do is in its trace."""
    environment = make("""
        import os
        from concurrent.futures import ThreadPoolExecutor
        import lambdadb
        from lambdadb import trace
        from lambdadb.tracing.xray import XRay
        from sqlalchemy import text
        engine = lambdadb.create_engine(
            os.environ["DATABASE_URL"], tracer=XRay(), policy=lambdadb.PerEnvironment(connections=2)
        )
        def query(number):
            with trace(f"query_{number}"), engine.connect() as connection:
                connection.execute(text("SELECT pg_sleep(0.1)"))
        @lambdadb.handler(engine)
        def handler(event, context):
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(query, (1, 2)))
    """)
    environment.invoke(None)
    trees = nested(daemon.wait(4))
    expected = [(f"query_{number}", (DATABASE, ("attempt",))) for number in (1, 2)]
    assert sorted(tree.names for tree in trees) == expected


def test_no_daemon_no_difference(make: Make, daemon: XRayDaemon) -> None:
    """A daemon that is not there changes neither result nor log."""
    environment = make(PLAIN)
    environment.variables["AWS_XRAY_DAEMON_ADDRESS"] = "127.0.0.1:1"
    assert environment.invoke("ann") == []
    assert environment.log == []


def test_canaries(make: Make, daemon: XRayDaemon, postgres: Postgres) -> None:
    """No password, parameter, literal, comment or value that the server quotes is in any document."""
    environment = make(
        f"""
        import os
        import lambdadb
        from lambdadb import trace
        from lambdadb.tracing.xray import XRay
        from lambdadb.tracing import Tracer
        from lambdadb.tracing.json_log import JsonLog
        from sqlalchemy import text
        class Both(Tracer):
            statements = "all"
            def __init__(self): self.all = XRay("all"), JsonLog("all")
            def record(self, span): [one.record(span) for one in self.all]
            def block(self, name): return self.all[0].block(name)
        engine = lambdadb.create_engine(os.environ["DATABASE_URL"], tracer=Both())
        @lambdadb.handler(engine)
        def handler(event, context):
            with trace("block"), engine.begin() as connection:
                connection.execute(text("CREATE TEMPORARY TABLE t (name text PRIMARY KEY) -- {CANARY}"))
                for _ in range(2):
                    connection.execute(text("INSERT INTO t VALUES (:name) /* {CANARY} */"),
                                       {{"name": "{CANARY}"}})
        """,
        re.sub("//.*@", f"//canary:{CANARY}@", postgres.url()),
    )
    with psycopg.connect(postgres.url().replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"CREATE ROLE canary SUPERUSER LOGIN PASSWORD '{CANARY}'")
    with pytest.raises(FunctionError, match=CANARY):  # the function's own answer is its own affair
        environment.invoke(None)
    documents = json.dumps(daemon.wait(5))
    assert "UniqueViolation" in documents
    assert CANARY not in documents
    lines = [line for line in environment.log if line.startswith("{")]
    assert [json.loads(line)["lambdadb"] for line in lines] == ["connect"] + ["statement"] * 3
    assert CANARY not in "".join(lines)


STORE = """
    import asyncio, os
    import boto3
    import lambdadb
    from aws_xray_sdk.core import patch, xray_recorder
    from lambdadb.aio import create_async_engine
    from lambdadb.tracing.xray import XRay
    patch(["botocore"])
    class Store:
        def logins(self, parameters):
            client = boto3.client("secretsmanager", endpoint_url=os.environ["SECRETS"])
            secret = client.get_secret_value(SecretId=os.environ["SECRET_ID"])
            yield {"password": secret["SecretString"]}
    settings = {"tracer": TRACER, "credentials": Store()}
    def connect():
        engine = lambdadb.create_engine(os.environ["DATABASE_URL"], **settings)
        engine.connect().close()
        engine.dispose()
    async def connect_async():
        engine = create_async_engine(os.environ["DATABASE_URL"], **settings)
        async with engine.connect():
            pass
        await engine.dispose()
    def handler(event, context):
        with xray_recorder.in_subsegment("## handler"):
            CONNECT
"""
OUTSIDE_LAMBDA = """
xray_recorder.configure(sampling=False, service="request")
with xray_recorder.in_segment("request"):
    handler(None, None)
"""
CONNECTS = {"sync": "connect()", "async": "asyncio.run(connect_async())"}


@pytest.fixture(scope="module")
def secrets() -> Iterator[SecretServer]:
    with secret_server() as server:
        yield server


@pytest.mark.parametrize("tracer", ["XRay()", "None"])
@pytest.mark.parametrize("mode", CONNECTS)
@pytest.mark.parametrize("where", ["Lambda", "elsewhere"])
def test_a_secret_is_read_inside_the_login(
    make: Make,
    daemon: XRayDaemon,
    secrets: SecretServer,
    where: str,
    mode: str,
    tracer: str,
    postgres: Postgres,
) -> None:
    """boto3's subsegment, by the SDK's patch, is in `login`; without a tracer, in the handler's."""
    url = make_url(postgres.url())
    secret = secrets.secret(SecretString=url.password)
    bare = url._replace(password=None).render_as_string()
    source = textwrap.dedent(STORE.replace("TRACER", tracer).replace("CONNECT", CONNECTS[mode]))
    variables = {**KEYS, "AWS_DEFAULT_REGION": KEYS["AWS_REGION"]}
    variables |= {"SECRETS": secrets.endpoint, "SECRET_ID": secret.id}
    if where == "Lambda":
        environment = make(source, bare)
        environment.variables.update(variables)
        environment.invoke(None, trace_id=ROOT.format(3, 8, 1))
        assert environment.log == []
    else:
        program = source + OUTSIDE_LAMBDA
        variables |= {"AWS_XRAY_DAEMON_ADDRESS": daemon.address, "DATABASE_URL": bare}
        command = [sys.executable, "-W", "error::UserWarning", "-c", program]
        ran = subprocess.run(
            command, env={**os.environ, **variables}, capture_output=True, text=True, check=True
        )
        assert ran.stderr == ""
    daemon.settle()
    inside = ("secretsmanager",)
    if tracer != "None":
        inside = (DATABASE, ("login", inside), ("attempt",))
    assert subtree(daemon.documents, "## handler").names == ("## handler", inside)
    assert url.password not in json.dumps(daemon.documents)


def test_opentelemetry_behind_a_layer(make: Make, tmp_path: Path) -> None:
    """A wrapper sets the providers and wraps the handler, as ADOT's layer does: one trace."""
    (tmp_path / "wrapper.py").write_text(
        textwrap.dedent("""
            import importlib
            from opentelemetry import trace
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import SimpleSpanProcessor
            from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
            exporter = InMemorySpanExporter()
            provider = TracerProvider()
            provider.add_span_processor(SimpleSpanProcessor(exporter))
            trace.set_tracer_provider(provider)
            inner = importlib.import_module("function").handler
            def handler(event, context):
                with trace.get_tracer("layer").start_as_current_span("orders"):
                    inner(event, context)
                spans = exporter.get_finished_spans()
                names = {span.context.span_id: span.name for span in spans}
                return [[span.name, names.get(span.parent.span_id) if span.parent else None]
                        for span in spans]
        """)
    )
    environment = make(PLAIN.replace("xray import XRay", "opentelemetry import OpenTelemetry as XRay"))
    environment.handler = "wrapper.handler"
    assert environment.invoke("ann") == [
        ["attempt", "connect postgres"],
        ["connect postgres", "query_user"],
        ["SELECT postgres", "query_user"],
        ["query_user", "orders"],
        ["orders", None],
    ]
