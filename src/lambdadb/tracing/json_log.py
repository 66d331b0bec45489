"""
One line of JSON per span in the function's log, for CloudWatch Logs Insights.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from lambdadb.tracing.sanitize import get_message, shorten_names
from lambdadb.tracing.span import Span, StatementFilter, Tracer


class JsonLog(Tracer):
    """
    Write each connect, and the selected statements, as one line of JSON with flat keys.

    Use it for functions without tracing, and for statistics over weeks: Logs Insights counts and
    averages the lines. The parts of a span are not written.

    Args:
        statements: Which statements are written: "all", "none", "traced" (those in `trace` blocks), or
            a number of seconds: those that take as long or longer.
        write: Called with each line. The default prints the line. Logs Insights finds its fields
            whatever the format of the other lines is.

    **Costs:** about 10 microseconds a line, and CloudWatch's price for about 300 bytes.
    """

    def __init__(
        self,
        statements: StatementFilter = "none",
        *,
        write: Callable[[str], object] = print,
    ) -> None:
        self.statements = statements
        self._write = write

    def record(self, span: Span) -> None:
        """Write the span as one line."""
        line = {"lambdadb": span.name, "seconds": span.seconds, **shorten_names(span.attributes)}
        line = {
            key: round(value, 6) if isinstance(value, float) else value for key, value in line.items()
        }
        if span.error is not None:
            line["error"] = type(span.error).__name__
            if text := get_message(span.error):
                line["message"] = text
        self._write(json.dumps(line, ensure_ascii=False))
