"""
A span for each statement that the dialect executes on a cursor.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from sqlalchemy import Connection

from lambdadb.deadline import Clock
from lambdadb.tracing.sanitize import sanitize, sanitize_mysql
from lambdadb.tracing.span import Attributes, Span, Tracer, emit, is_recording
from lambdadb.tracing.trace import selects_statement

DescribeSession = Callable[[Any, "BaseException | None"], Attributes]
"""
What a driver knows of a session, and of the error of its statement: `db.system.name`, `db.namespace`,
`server.address`, `server.port`, `lambdadb.user`, `db.response.status_code`, as far as they are known.
"""


class StatementRecorder:
    """
    Executes statements for a dialect and records those that the tracer's `statements` selects.

    The time is the execution's own, on the wire and on the server. The text is recorded without
    literals and comments, and parameters are not recorded.

    The dialect calls it from `do_execute`, `do_executemany` and `do_execute_no_params`. SQLAlchemy's
    cursor events are not used: one listener makes SQLAlchemy prepare all of them for every statement,
    which costs ten times as much as this class does where nothing is recorded.
    """

    def __init__(self, tracer: Tracer, clock: Clock, describe: DescribeSession) -> None:
        self._tracer = tracer
        self._clock = clock
        self._describe = describe

    def execute(self, function: Any, cursor: Any, statement: str, *rest: Any) -> None:
        """
        Call `function(cursor, statement, *rest)`, one of the dialect's three methods, and record it.

        `rest` are the parameters, where the method has them, and then SQLAlchemy's execution context.
        """
        if not is_recording(self._tracer):
            function(cursor, statement, *rest)
            return
        began = self._clock.now()
        error: BaseException | None = None
        try:
            function(cursor, statement, *rest)
        except BaseException as raised:  # a cancellation, too
            error = raised
            raise
        finally:
            seconds = self._clock.now() - began
            if selects_statement(self._tracer, seconds):
                batch = len(rest[0]) if function.__name__ == "do_executemany" else 1
                connection = rest[-1].root_connection
                emit(self._tracer, partial(self._span, connection, statement, seconds, batch, error))

    def _span(
        self,
        connection: Connection,
        statement: str,
        seconds: float,
        batch: int,
        error: BaseException | None,
    ) -> Span:
        dialect: Any = connection.dialect
        text = (sanitize_mysql if dialect.name in ("mysql", "mariadb") else sanitize)(statement)
        known: dict[str, Any] = {
            "db.query.text": text,
            "db.operation.name": text.split(None, 1)[0].upper() if text.strip() else None,
            "db.operation.batch.size": batch if batch > 1 else None,
            "lambdadb.server_version": ".".join(map(str, dialect.server_version_info or ())),
            "lambdadb.driver": f"{dialect.driver} {dialect.loaded_dbapi.__version__}",
            "error.type": type(error).__name__ if error is not None else None,
            **self._describe(connection.connection.driver_connection, error),
        }
        return Span(
            name="statement",
            began=self._clock.moment()[1] - seconds,
            seconds=seconds,
            attributes={name: value for name, value in known.items() if value is not None},
            error=error,
        )
