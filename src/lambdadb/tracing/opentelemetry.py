"""
Spans and metrics of OpenTelemetry, by its semantic conventions for databases.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

try:
    from opentelemetry import metrics, trace
    from opentelemetry.context import Context
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{error}: install OpenTelemetry's API with pip install opentelemetry-api, or add the ADOT "
        "layer to the function."
    ) from error

from lambdadb.tracing import Span, Statements, Tracer
from lambdadb.tracing.sanitize import reason

# The conventions' advice for both metrics.
_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)

_OF_METRICS = (
    *("db.system.name", "db.namespace", "db.operation.name", "db.response.status_code"),
    *("error.type", "server.address", "server.port"),
)


class OpenTelemetry(Tracer):
    """
    Record connects, and the statements asked for, as spans and metrics of OpenTelemetry.

    Needs its API only; who receives them is decided by the SDK that the function or a Lambda layer
    (ADOT) sets up, before or after this is made. Without one, nothing is recorded.

    Metrics: `db.client.operation.duration` of each statement recorded, and
    `db.client.connection.create_time` of each connect.

    Args:
        statements: Which statements are recorded: "all", "none", "traced", or the seconds from which on.
        tracer_provider: Makes the spans; OpenTelemetry's global one by default.
        meter_provider: Makes the metrics; OpenTelemetry's global one by default.

    **Costs:** nothing without an SDK but a question to its API.
    """

    def __init__(
        self,
        statements: Statements = "none",
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        self.statements = statements
        self._providers = tracer_provider, meter_provider
        self._tracer = trace.get_tracer("lambdadb", tracer_provider=tracer_provider)
        meter = metrics.get_meter("lambdadb", meter_provider=meter_provider)
        self._durations = {
            "statement": _histogram(meter, "db.client.operation.duration", "Of a statement."),
            "connect": _histogram(meter, "db.client.connection.create_time", "Of a new connection."),
        }

    def recording(self) -> bool:
        """Whether an SDK is set up: the providers that the API itself brings do nothing."""
        given_tracers, given_meters = self._providers
        tracers = given_tracers or trace.get_tracer_provider()
        meters = given_meters or metrics.get_meter_provider()
        own = ("opentelemetry.trace", "opentelemetry.metrics")
        return not all(type(one).__module__.startswith(own) for one in (tracers, meters))

    def record(self, span: Span) -> None:
        """Record it and its parts, in the span that is current here."""
        self._span(span, None)
        if (histogram := self._durations.get(span.name)) is None:
            return
        attributes = _attributes(span)
        of_metric = {name: attributes[name] for name in _OF_METRICS if name in attributes}
        if span.name == "connect":
            place = [of_metric.get(f"server.{name}", "") for name in ("address", "port")]
            of_metric["db.client.connection.pool.name"] = (
                f"{place[0]}:{place[1]}/{of_metric.get('db.namespace', '')}"
            )
        histogram.record(span.seconds, of_metric)

    def _span(self, span: Span, parent: Context | None) -> None:
        remote = span.name in self._durations
        made = self._tracer.start_span(
            _name(span),
            context=parent,
            kind=trace.SpanKind.CLIENT if remote else trace.SpanKind.INTERNAL,
            attributes=_attributes(span),
            start_time=_nanoseconds(span.began),
        )
        end = _nanoseconds(span.began + span.seconds)
        if made.is_recording():
            for part in span.children:
                self._span(part, trace.set_span_in_context(made))
            if span.error is not None:
                _fail(made, span.error, end)
        made.end(end)

    @contextmanager
    def block(self, name: str) -> Iterator[None]:
        """A span that is current inside the block."""
        with self._tracer.start_as_current_span(
            name, record_exception=False, set_status_on_exception=False
        ) as made:
            try:
                yield
            except BaseException as error:  # cancelled, too
                made.set_attribute("error.type", type(error).__name__)
                _fail(made, error, None)
                raise


def _histogram(meter: metrics.Meter, name: str, description: str) -> metrics.Histogram:
    try:
        return meter.create_histogram(
            name, "s", description, explicit_bucket_boundaries_advisory=_BUCKETS
        )
    except TypeError:  # an older API, which cannot carry the advice
        return meter.create_histogram(name, "s", description)


def _name(span: Span) -> str:
    """`SELECT orders`, `connect orders`: what was done, and where."""
    if span.name not in ("connect", "statement"):
        return span.name
    done = span.attributes.get("db.operation.name", span.name)
    return f"{done} {span.attributes.get('db.namespace', '')}".rstrip()


def _attributes(span: Span) -> Mapping[str, Any]:
    if span.error is None:
        return span.attributes
    return {"error.type": type(span.error).__name__, **span.attributes}


def _fail(made: trace.Span, error: BaseException, at: int | None) -> None:
    text = reason(error)
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    made.set_status(trace.StatusCode.ERROR, text or type(error).__name__)
    made.add_event("exception", {"exception.type": kind, "exception.message": text}, at)


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
