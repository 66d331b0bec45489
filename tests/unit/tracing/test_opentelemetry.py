"""OpenTelemetry's spans and metrics, as its own SDK receives them."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import textwrap

import pytest
from opentelemetry import trace as api
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from psycopg.errors import UniqueViolation

from lambdadb.deadline import Clock
from lambdadb.errors import OutOfTime
from lambdadb.tracing import Span, trace
from lambdadb.tracing.opentelemetry import OpenTelemetry
from lambdadb.tracing.span import start_span
from lambdadb.tracing.trace import register

PLACE = {
    "db.system.name": "postgresql",
    "db.namespace": "orders",
    "server.address": "db.example.com",
    "server.port": 5432,
}
STATEMENT = {**PLACE, "db.query.text": "SELECT * FROM t WHERE id = ?", "db.operation.name": "SELECT"}


class Received:
    """A tracer, and what an SDK behind it receives."""

    def __init__(self, **options):
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(**options)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        meters = MeterProvider(metric_readers=[self.reader])
        self.tracer = OpenTelemetry(tracer_provider=self.provider, meter_provider=meters)

    @property
    def spans(self):
        return {span.name: span for span in self.exporter.get_finished_spans()}

    @property
    def points(self):
        data = self.reader.get_metrics_data()
        metrics = data.resource_metrics[0].scope_metrics[0].metrics if data else []
        return {metric.name: (metric.unit, metric.data.data_points[0]) for metric in metrics}


@pytest.fixture
def received():
    return Received()


def test_a_statement_by_the_semantic_conventions(received):
    """A client span named by operation and database, with its own time and the stable attributes."""
    received.tracer.record(Span(name="statement", began=100.5, seconds=0.25, attributes=STATEMENT))
    span = received.spans["SELECT orders"]
    assert span.kind is api.SpanKind.CLIENT
    assert (span.start_time, span.end_time) == (100_500_000_000, 100_750_000_000)
    assert dict(span.attributes) == STATEMENT
    assert span.status.status_code is api.StatusCode.UNSET


def test_a_resume_inside_its_connect(received):
    """The parts of a connect are its children, in its own time."""
    attempt = Span(name="attempt", began=101.0, seconds=1.0, attributes={"lambdadb.fault": "resuming"})
    resume = Span(name="resume", began=100.5, seconds=15.0, children=(attempt,))
    with received.provider.get_tracer("handler").start_as_current_span("handler"):
        received.tracer.record(
            Span(name="connect", began=100.0, seconds=16.0, attributes=PLACE, children=(resume,))
        )
    spans = received.spans
    names = ["handler", "connect orders", "resume", "attempt"]
    for outer, inner in itertools.pairwise(names):
        assert spans[inner].parent.span_id == spans[outer].context.span_id
    assert spans["resume"].kind is api.SpanKind.INTERNAL
    assert spans["resume"].end_time == 115_500_000_000
    assert spans["attempt"].attributes["lambdadb.fault"] == "resuming"


def test_durations_are_metrics(received):
    """Of statements and connects, in seconds, in the advised buckets, without the query's text."""
    received.tracer.record(Span(name="statement", began=100.0, seconds=0.25, attributes=STATEMENT))
    received.tracer.record(Span(name="connect", began=100.0, seconds=16.0, attributes=PLACE))
    unit, point = received.points["db.client.operation.duration"]
    assert (unit, point.sum, point.count) == ("s", 0.25, 1)
    assert list(point.explicit_bounds) == [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0]
    assert dict(point.attributes) == {**PLACE, "db.operation.name": "SELECT"}
    unit, point = received.points["db.client.connection.create_time"]
    assert (unit, point.sum) == ("s", 16.0)
    assert point.attributes["db.client.connection.pool.name"] == "db.example.com:5432/orders"


def test_an_error(received):
    """Its type, and lambdadb's own message; the server's may quote what is in a row. No stack."""
    ours = OutOfTime("Time was over.", sent=True)
    theirs = UniqueViolation("Key (email)=(ann@example.com) already exists")
    received.tracer.record(Span(name="ours", began=100.0, seconds=1.0, error=ours))
    received.tracer.record(
        Span(name="statement", began=100.0, seconds=1.0, attributes=STATEMENT, error=theirs)
    )
    span = received.spans["ours"]
    assert span.status.status_code is api.StatusCode.ERROR
    assert span.attributes["error.type"] == "OutOfTime"
    assert dict(span.events[0].attributes) == {
        "exception.type": "lambdadb.errors.OutOfTime",
        "exception.message": "Time was over.",
    }
    assert span.events[0].timestamp == 101_000_000_000
    assert "ann@example.com" not in received.spans["SELECT orders"].to_json()
    assert (
        received.points["db.client.operation.duration"][1].attributes["error.type"] == "UniqueViolation"
    )


def test_blocks_nest_in_parallel_tasks(received):
    """What a task records is in its own block, whatever other tasks do meanwhile."""
    register(received.tracer)

    async def task(name, turns):
        with trace(name):
            for _ in range(turns):
                await asyncio.sleep(0)
            received.tracer.record(Span(name=f"in {name}", began=100.0, seconds=1.0))

    async def all_of_them():
        with trace("outer"):
            await asyncio.gather(task("slow", 9), task("quick", 2))

    asyncio.run(all_of_them())
    spans = received.spans
    for inner, outer in [
        ("in slow", "slow"),
        ("in quick", "quick"),
        ("slow", "outer"),
        ("quick", "outer"),
    ]:
        assert spans[inner].parent.span_id == spans[outer].context.span_id


def test_a_failed_block_shows_no_message(received):
    """The user's own error: its type only, and its way to the caller."""
    register(received.tracer)
    with pytest.raises(ValueError, match=r"ann@example\.com"), trace("render"):
        raise ValueError("ann@example.com")
    span = received.spans["render"]
    assert span.status.status_code is api.StatusCode.ERROR
    assert span.attributes["error.type"] == "ValueError"
    assert "ann@example.com" not in span.to_json()


def test_not_sampled():
    """Nothing is exported, but durations count all the same."""
    received = Received(sampler=ALWAYS_OFF)
    received.tracer.record(
        Span(name="statement", began=100.0, seconds=1.0, attributes=STATEMENT, error=OSError())
    )
    assert not received.spans
    assert received.points["db.client.operation.duration"][1].count == 1


def run(program):
    """A program in a process of its own, as providers are global and can be set once."""
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_without_an_sdk_nothing_is_recorded_nor_imported():
    """The API's own providers do nothing, so no span is made for them."""
    assert run("""
        import sys
        from lambdadb.tracing.opentelemetry import OpenTelemetry
        print(OpenTelemetry().recording(), "opentelemetry.sdk" in sys.modules)
    """) == ["False", "False"]


def test_a_provider_set_before_or_after():
    """As ADOT's layer sets it before the handler is imported, or as a handler may set it itself."""
    program = """
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        from lambdadb.tracing import Span
        from lambdadb.tracing.opentelemetry import OpenTelemetry
        exporter = InMemorySpanExporter()
        def setup():
            provider = TracerProvider()
            provider.add_span_processor(SimpleSpanProcessor(exporter))
            trace.set_tracer_provider(provider)
        {}
        assert tracer.recording()
        tracer.record(Span(name="transaction", began=1.0, seconds=1.0))
        print(*[span.name for span in exporter.get_finished_spans()])
    """
    for order in ("setup(); tracer = OpenTelemetry()", "tracer = OpenTelemetry(); setup()"):
        assert run(program.replace("{}", order)) == ["transaction"]


def test_without_the_api_the_package_to_install_is_named():
    """An import error says what to do."""
    assert run("""
        import sys
        sys.modules["opentelemetry"] = None
        try:
            import lambdadb.tracing.opentelemetry
        except ModuleNotFoundError as error:
            print("pip install opentelemetry-api" in str(error))
    """) == ["True"]


def test_what_a_login_s_store_records_is_inside_the_login(received):
    """A span of another library, in the thread of a login, is in `login`, which is in `connect`."""
    other = received.provider.get_tracer("botocore")

    def read_secret():
        with other.start_as_current_span("GetSecretValue"):
            return {"password": "known"}

    with received.provider.get_tracer("handler").start_as_current_span("handler"):
        with start_span(received.tracer, "connect", 100.0) as connect:
            with start_span(received.tracer, "login", 100.5) as login:
                Clock().result(read_secret, 30.0)
            part = Span(name="login", began=100.5, seconds=1.0, handle=login)
            received.tracer.record(
                Span(
                    name="connect",
                    began=100.0,
                    seconds=2.0,
                    attributes=PLACE,
                    children=(part,),
                    handle=connect,
                )
            )
        with other.start_as_current_span("after"):
            pass
    spans = received.spans
    names = ["handler", "connect orders", "login", "GetSecretValue"]
    for outer, inner in itertools.pairwise(names):
        assert spans[inner].parent.span_id == spans[outer].context.span_id
    assert spans["after"].parent.span_id == spans["handler"].context.span_id
    connect, login = spans["connect orders"], spans["login"]
    assert (connect.start_time, connect.end_time) == (100_000_000_000, 102_000_000_000)
    assert (login.start_time, login.end_time) == (100_500_000_000, 101_500_000_000)
    assert (connect.kind, login.kind) == (api.SpanKind.CLIENT, api.SpanKind.INTERNAL)
    assert dict(connect.attributes) == PLACE
