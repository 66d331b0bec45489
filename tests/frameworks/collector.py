"""A collector of OpenTelemetry, and the variables by which ADOT's layer sets up a function for it."""

from __future__ import annotations

import gzip
import http.server
import os
import threading
from pathlib import Path
from typing import Any

from opentelemetry.instrumentation import auto_instrumentation
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from .table import EXAMPLES


class Collector(http.server.ThreadingHTTPServer):
    """A collector of OpenTelemetry, which keeps the spans that it gets."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), CollectorRequest)
        self.spans: list[Any] = []
        threading.Thread(target=self.serve_forever, args=[0.05], daemon=True).start()

    def names(self, *libraries: str) -> list[str]:
        """The names of the spans of these libraries, in the order of their ends."""
        found = [
            (span.end_time_unix_nano, span.name) for scope, span in self.spans if scope in libraries
        ]
        return [name for _, name in sorted(found)]


class CollectorRequest(http.server.BaseHTTPRequestHandler):
    """Spans in OTLP, as protobuf over HTTP."""

    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        if self.path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    self.server.spans += [(scope.scope.name, span) for span in scope.spans]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def adot(handler: str, collector: Collector, disabled: str) -> dict[str, str]:
    """The variables by which ADOT's layer sets up a function, with its distribution from PyPI."""
    url = f"http://127.0.0.1:{collector.server_port}"
    folders = [Path(auto_instrumentation.__file__).parent, EXAMPLES / "frameworks", EXAMPLES]
    return {
        "_HANDLER": handler,
        "PYTHONPATH": os.pathsep.join(map(str, folders)),
        "OTEL_PYTHON_DISTRO": "aws_distro",
        "OTEL_PYTHON_CONFIGURATOR": "aws_configurator",
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": disabled,
        "OTEL_TRACES_SAMPLER": "always_on",
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_ENDPOINT": url,
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{url}/v1/traces",
    }
