"""A tracer that keeps the spans of a test."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lambdadb.lab import LabError
from lambdadb.pool import GuardedPool
from lambdadb.tracing import Span, Tracer
from lambdadb.tracing.span import StatementFilter

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine


class SpanRecorder(Tracer):
    """
    A tracer that keeps what engines of this process do: connects, statements, repeated units of work.

    Give it to an engine that the test makes, as `tracer=`. `watch` puts it into one that is there.

    Attributes:
        spans: The spans in the order in which they ended.
    """

    def __init__(self, statements: StatementFilter = "all") -> None:
        self.spans: list[Span] = []
        self.statements = statements
        self._stack = ExitStack()

    def record(self, span: Span) -> None:
        """Keep a span."""
        self.spans.append(span)

    def named(self, name: str) -> list[Span]:
        """Those with this name: "connect", "statement" or "transaction"."""
        return [span for span in self.spans if span.name == name]

    def watch(self, engine: Engine | AsyncEngine) -> None:
        """
        Keep what this engine does, in place of its own tracer, until the end of the test.

        Raises:
            LabError: It is not an engine of lambdadb.
        """
        if not isinstance(engine.pool, GuardedPool):
            raise LabError("spans.watch(engine): it was not made by lambdadb.create_engine.")
        connector, dialect = engine.pool.connector, engine.dialect
        from lambdadb.tracing.statements import StatementRecorder

        recorder = StatementRecorder(self, connector.clock, connector.driver.describe_session)
        self._change(connector, "settings", replace(connector.settings, tracer=self))
        self._change(dialect, "statements", recorder)

    def _change(self, thing: Any, name: str, value: object) -> None:
        self._stack.callback(setattr, thing, name, getattr(thing, name))
        setattr(thing, name, value)

    def close(self) -> None:
        """Give the engines that were watched their own tracers back."""
        self._stack.close()
