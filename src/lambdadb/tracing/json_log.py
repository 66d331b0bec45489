"""
One JSON line per span in the function's log, where CloudWatch Logs Insights finds it.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from lambdadb.tracing import Span, Statements, Tracer
from lambdadb.tracing.sanitize import reason, short


class JsonLog(Tracer):
    """
    Write each connect, and the statements asked for, as one line of JSON with flat keys.

    For functions without tracing, and for figures over weeks: Logs Insights counts and averages
    them. A span's parts are not written, only what they add up to.

    Args:
        statements: Which statements are written: "all", "none", "traced", or the seconds from which on.
        write: Called with each line. The default prints it as it is, which Insights understands
            beside any other log format.

    **Costs:** some 10 microseconds a line, and CloudWatch's price for some 300 bytes.
    """

    def __init__(
        self,
        statements: Statements = "none",
        *,
        write: Callable[[str], object] = print,
    ) -> None:
        self.statements = statements
        self._write = write

    def record(self, span: Span) -> None:
        """Write it."""
        line = {"lambdadb": span.name, "seconds": span.seconds, **short(span.attributes)}
        line = {key: round(one, 6) if isinstance(one, float) else one for key, one in line.items()}
        if span.error is not None:
            line["error"] = type(span.error).__name__
            if text := reason(span.error):
                line["message"] = text
        self._write(json.dumps(line, ensure_ascii=False))
