"""What the libraries of APM products see of an engine, and the table of it in docs/apm.md."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from lambdadb.lab.postgres import Postgres

from .conftest import SQLALCHEMY_20

PAGE = Path(__file__).parents[2] / "docs" / "apm.md"
pytestmark = pytest.mark.frameworks

WORK = """
    import json, os
    from sqlalchemy import text

    def work(engine):
        with engine.begin() as connection:
            connection.execute(text("SELECT :n"), {"n": 42})
            connection.execute(text("SELECT 'canary-literal'"))
        engine.dispose()

    def show(names, texts):
        print(json.dumps({
            "connect": any("connect" in name for name in names),
            "statements": sum(name.startswith("SELECT") for name in names),
            "literals": any("canary-literal" in str(text) for text in texts),
        }))
"""
OPENTELEMETRY = """
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    spans, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(provider)
"""
SHOW_OPENTELEMETRY = """
    found = spans.get_finished_spans()
    show([s.name for s in found], [s.attributes for s in found])
"""
DATADOG = """
    from ddtrace.trace import TraceFilter, tracer
    found = []

    class Keep(TraceFilter):
        def process_trace(self, trace):
            found.extend(trace)
            return None

    tracer.configure(trace_processors=[Keep()])
"""
SENTRY = """
    import sentry_sdk
    kept = []
    sentry_sdk.init(dsn="http://key@127.0.0.1:9/1", traces_sample_rate=1.0, instrumenter=INSTRUMENTER,
                    before_send_transaction=lambda event, hint: kept.append(event))
"""
# The code that sets each one up, makes an engine, works with it and shows what was recorded.
SWITCHES = {
    "OpenTelemetry: `SQLAlchemyInstrumentor`": OPENTELEMETRY
    + """
    from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
    SQLAlchemyInstrumentor().instrument()
    from lambdadb import create_engine
    work(create_engine(os.environ["DATABASE_URL"]))
    """
    + SHOW_OPENTELEMETRY,
    "OpenTelemetry: `PsycopgInstrumentor`": OPENTELEMETRY
    + """
    from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor
    PsycopgInstrumentor().instrument()
    from lambdadb import create_engine
    work(create_engine(os.environ["DATABASE_URL"]))
    """
    + SHOW_OPENTELEMETRY,
    'OpenTelemetry: `tracer=OpenTelemetry("all")`': OPENTELEMETRY
    + """
    from lambdadb import create_engine
    from lambdadb.tracing.opentelemetry import OpenTelemetry
    work(create_engine(os.environ["DATABASE_URL"], tracer=OpenTelemetry("all")))
    """
    + SHOW_OPENTELEMETRY,
    "Datadog: `patch(sqlalchemy=True)`": DATADOG
    + """
    import ddtrace
    ddtrace.patch(sqlalchemy=True)
    from lambdadb import create_engine
    work(create_engine(os.environ["DATABASE_URL"]))
    tracer.flush()
    show([s.resource for s in found], [s.resource for s in found])
    """,
    "Datadog: `patch(psycopg=True)`": DATADOG
    + """
    import ddtrace
    ddtrace.patch(psycopg=True)
    from lambdadb import create_engine
    work(create_engine(os.environ["DATABASE_URL"]))
    tracer.flush()
    show([s.resource for s in found], [s.resource for s in found])
    """,
    'Datadog: `tracer=OpenTelemetry("all")`, `DD_TRACE_OTEL_ENABLED=true`': DATADOG
    + """
    os.environ["DD_TRACE_OTEL_ENABLED"] = "true"
    from ddtrace.opentelemetry import TracerProvider
    from opentelemetry.trace import set_tracer_provider
    set_tracer_provider(TracerProvider())
    from lambdadb import create_engine
    from lambdadb.tracing.opentelemetry import OpenTelemetry
    work(create_engine(os.environ["DATABASE_URL"], tracer=OpenTelemetry("all")))
    tracer.flush()
    show([s.resource for s in found], [s.get_tags() for s in found])
    """,
    "Sentry: its SQLAlchemy integration, which is on": SENTRY.replace("INSTRUMENTER", '"sentry"')
    + """
    from lambdadb import create_engine
    with sentry_sdk.start_transaction(name="orders"):
        work(create_engine(os.environ["DATABASE_URL"]))
    found = [span for event in kept for span in event["spans"]]
    show([s["description"] for s in found], [s["description"] for s in found])
    """,
    'Sentry: `tracer=OpenTelemetry("all")`, `instrumenter="otel"`': SENTRY.replace(
        "INSTRUMENTER", '"otel"'
    )
    + """
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from sentry_sdk.integrations.opentelemetry import SentrySpanProcessor
    provider = TracerProvider()
    provider.add_span_processor(SentrySpanProcessor())
    trace.set_tracer_provider(provider)
    from lambdadb import create_engine
    from lambdadb.tracing.opentelemetry import OpenTelemetry
    engine = create_engine(os.environ["DATABASE_URL"], tracer=OpenTelemetry("all"))
    with trace.get_tracer("orders").start_as_current_span("orders"):
        work(engine)
    found = [span for event in kept for span in event["spans"]]
    show([s["description"] for s in found], [s.get("data") for s in found])
    """,
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with Postgres() as server:
        yield server.url()


def see(source: str, url: str) -> dict[str, bool | int]:
    """What was recorded of one connect and two statements, in a process of its own."""
    program = textwrap.dedent(WORK) + textwrap.dedent(source)
    variables = {**os.environ, "DATABASE_URL": url, "DD_TRACE_AGENT_URL": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=variables, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    seen: dict[str, bool | int] = json.loads(done.stdout.splitlines()[-1])
    return seen


@pytest.mark.parametrize(
    "switch",
    [
        pytest.param(switch, marks=SQLALCHEMY_20 if "`SQLAlchemyInstrumentor`" in switch else [])
        for switch in SWITCHES
    ],
)
def test_the_page_says_what_is_seen(switch: str, url: str) -> None:
    """Its row: whether there is a span of the connect, of each statement, and whether it shows data."""
    seen = see(SWITCHES[switch], url)
    connect, statements, literals = (
        ("yes" if seen[what] else "no") for what in ("connect", "statements", "literals")
    )
    assert seen["statements"] in (0, 2)
    assert f"| {switch} | {connect} | {statements} | {literals} |" in PAGE.read_text()
