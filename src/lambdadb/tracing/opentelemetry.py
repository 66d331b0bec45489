"""
Spans and metrics of OpenTelemetry, with the names of its semantic conventions for databases.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

try:
    from opentelemetry import metrics, trace
    from opentelemetry.context import Context
except ModuleNotFoundError as error:
    from lambdadb.extras import install_command

    raise ModuleNotFoundError(
        f"{error}: install OpenTelemetry's API ({install_command('otel')}, or pip install "
        "opentelemetry-api), or add the ADOT layer to the function."
    ) from error

from lambdadb.tracing.sanitize import get_message
from lambdadb.tracing.span import Span, StatementFilter, Tracer

# Bucket boundaries in seconds, as the conventions advise for both metrics.
_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)

_METRIC_ATTRIBUTES = (
    *("db.system.name", "db.namespace", "db.operation.name", "db.response.status_code"),
    *("error.type", "server.address", "server.port"),
)


class OpenTelemetry(Tracer):
    """
    Record connects, and the selected statements, as spans and metrics of OpenTelemetry.

    Needs OpenTelemetry's API only. The SDK that receives the spans is set up by the function or by a
    Lambda layer (ADOT), before or after this object is made. Without an SDK nothing is recorded.

    Metrics: `db.client.operation.duration` for each recorded statement, and
    `db.client.connection.create_time` for each connect.

    Args:
        statements: Which statements are recorded: "all", "none", "traced" (those in `trace` blocks), or
            a number of seconds: those that take as long or longer.
        tracer_provider: Makes the spans; OpenTelemetry's global one by default.
        meter_provider: Makes the metrics; OpenTelemetry's global one by default.

    **Costs:** without an SDK, one check of the API's providers for each connect and statement.
    """

    def __init__(
        self,
        statements: StatementFilter = "none",
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        self.statements = statements
        self._providers = tracer_provider, meter_provider
        self._tracer = trace.get_tracer("lambdadb", tracer_provider=tracer_provider)
        meter = metrics.get_meter("lambdadb", meter_provider=meter_provider)
        self._durations = {
            "statement": _make_histogram(meter, "db.client.operation.duration", "Of a statement."),
            "connect": _make_histogram(
                meter, "db.client.connection.create_time", "Of a new connection."
            ),
        }

    def recording(self) -> bool:
        """Whether an SDK is set up. The providers that the API brings itself do nothing."""
        given_tracers, given_meters = self._providers
        tracers = given_tracers or trace.get_tracer_provider()
        meters = given_meters or metrics.get_meter_provider()
        own = ("opentelemetry.trace", "opentelemetry.metrics")
        return not all(type(one).__module__.startswith(own) for one in (tracers, meters))

    def record(self, span: Span) -> None:
        """Record the span and its parts, as children of the current span."""
        self._record(span, None)
        if (histogram := self._durations.get(span.name)) is None:
            return
        attributes = _attributes(span)
        of_metric = {name: attributes[name] for name in _METRIC_ATTRIBUTES if name in attributes}
        if span.name == "connect":
            host, port = (of_metric.get(f"server.{name}", "") for name in ("address", "port"))
            database = of_metric.get("db.namespace", "")
            of_metric["db.client.connection.pool.name"] = f"{host}:{port}/{database}"
        histogram.record(span.seconds, of_metric)

    def _record(self, span: Span, parent: Context | None) -> None:
        if isinstance(span.handle, trace.Span):
            made = span.handle
            made.update_name(_make_name(span))
            made.set_attributes(_attributes(span))
        else:
            made = self._start(span, parent)
        end = _nanoseconds(span.began + span.seconds)
        if made.is_recording():
            for part in span.children:
                self._record(part, trace.set_span_in_context(made))
            if span.error is not None:
                _set_error(made, span.error, end)
        made.end(end)

    def _start(self, span: Span, parent: Context | None) -> trace.Span:
        is_remote = span.name in self._durations
        return self._tracer.start_span(
            _make_name(span),
            context=parent,
            kind=trace.SpanKind.CLIENT if is_remote else trace.SpanKind.INTERNAL,
            attributes=_attributes(span),
            start_time=_nanoseconds(span.began),
        )

    @contextmanager
    def start_span(self, name: str, began: float) -> Iterator[object]:
        """Start a span that is current in the block; `record` ends it."""
        made = self._start(Span(name=name, began=began, seconds=0.0), None)
        with trace.use_span(made, record_exception=False, set_status_on_exception=False):
            yield made

    @contextmanager
    def block(self, name: str) -> Iterator[None]:
        """Make a span that is current inside the block."""
        with self._tracer.start_as_current_span(
            name, record_exception=False, set_status_on_exception=False
        ) as made:
            try:
                yield
            except BaseException as error:  # a cancellation, too
                made.set_attribute("error.type", type(error).__name__)
                _set_error(made, error, None)
                raise


def _make_histogram(meter: metrics.Meter, name: str, description: str) -> metrics.Histogram:
    try:
        return meter.create_histogram(
            name, "s", description, explicit_bucket_boundaries_advisory=_BUCKETS
        )
    except TypeError:  # an older API without this argument
        return meter.create_histogram(name, "s", description)


def _make_name(span: Span) -> str:
    """`SELECT orders`, `connect orders`: the operation and the database."""
    if span.name not in ("connect", "statement"):
        return span.name
    done = span.attributes.get("db.operation.name", span.name)
    return f"{done} {span.attributes.get('db.namespace', '')}".rstrip()


def _attributes(span: Span) -> Mapping[str, Any]:
    if span.error is None:
        return span.attributes
    return {"error.type": type(span.error).__name__, **span.attributes}


def _set_error(made: trace.Span, error: BaseException, at: int | None) -> None:
    text = get_message(error)
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    made.set_status(trace.StatusCode.ERROR, text or type(error).__name__)
    made.add_event("exception", {"exception.type": kind, "exception.message": text}, at)


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
