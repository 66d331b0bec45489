"""
The statements of an engine as spans, by SQLAlchemy's events around each execution on a cursor.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import ExceptionContext

from lambdadb.deadline import Clock
from lambdadb.tracing import Span, Tracer, tell, wanted
from lambdadb.tracing.masking import masked


class Statements:
    """
    Tells a tracer of the statements that it wants to know of, with their own time on the server and
    the wire, and never with a parameter or a literal.
    """

    def __init__(self, tracer: Tracer, clock: Clock) -> None:
        self._tracer = tracer
        self._clock = clock

    def listen(self, engine: Engine) -> None:
        """Be told of each execution from now on."""
        event.listen(engine, "before_cursor_execute", self._before)
        event.listen(engine, "after_cursor_execute", self._after)
        event.listen(engine, "handle_error", self._failed)

    def _before(self, *execution: Any) -> None:
        context = execution[4]
        context.lambdadb_began = self._clock.now()

    def _after(self, *execution: Any) -> None:
        connection, _, statement, parameters, context, executemany = execution
        batch = len(parameters) if executemany else 1
        self._tell(connection, statement, context, batch, None)

    def _failed(self, failure: ExceptionContext) -> None:
        began = hasattr(failure.execution_context, "lambdadb_began")
        if began and failure.connection is not None and failure.statement is not None:
            error = failure.original_exception
            self._tell(failure.connection, failure.statement, failure.execution_context, 1, error)

    def _tell(
        self,
        connection: Connection,
        statement: str,
        context: Any,
        batch: int,
        error: BaseException | None,
    ) -> None:
        seconds = self._clock.now() - context.lambdadb_began
        if wanted(self._tracer, seconds):
            make = partial(self._span, connection, statement, seconds, batch, error)
            tell(self._tracer, make)

    def _span(
        self,
        connection: Connection,
        statement: str,
        seconds: float,
        batch: int,
        error: BaseException | None,
    ) -> Span:
        text = masked(statement)
        known: dict[str, Any] = {
            "db.system.name": "postgresql",
            "db.query.text": text,
            "db.operation.name": text.split(None, 1)[0].upper() if text.strip() else None,
            "db.operation.batch.size": batch if batch > 1 else None,
            "db.version": ".".join(map(str, connection.dialect.server_version_info or ())),
            "db.response.status_code": getattr(error, "sqlstate", None),
            "error.type": type(error).__name__ if error is not None else None,
        }
        if not connection.invalidated and not connection.closed:
            session: Any = getattr(connection.connection.driver_connection, "info", None)
            if session is not None:
                known["db.namespace"] = session.dbname
                known["server.address"] = session.host
                known["server.port"] = session.port
                known["lambdadb.user"] = session.user
        return Span(
            name="statement",
            began=self._clock.moment()[1] - seconds,
            seconds=seconds,
            attributes={name: value for name, value in known.items() if value is not None},
            error=error,
        )
