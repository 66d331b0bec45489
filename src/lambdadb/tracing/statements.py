"""
The statements of an engine as spans, around each execution on a cursor.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from sqlalchemy import Connection

from lambdadb.deadline import Clock
from lambdadb.tracing import Span, Tracer, recording, tell, wanted
from lambdadb.tracing.sanitize import sanitize


class Statements:
    """
    Tells a tracer of the statements that it wants to know of, with their own time on the server and
    the wire, and never with a parameter or a literal.
    """

    def __init__(self, tracer: Tracer, clock: Clock) -> None:
        self._tracer = tracer
        self._clock = clock

    def execute(self, execute: Any, cursor: Any, statement: str, *rest: Any) -> None:
        """Execute a statement by the dialect's `execute`, and tell the tracer of it if it wants that."""
        if not recording(self._tracer):
            execute(cursor, statement, *rest)
            return
        began = self._clock.now()
        error: BaseException | None = None
        try:
            execute(cursor, statement, *rest)
        except BaseException as raised:  # cancelled, too
            error = raised
            raise
        finally:
            seconds = self._clock.now() - began
            if wanted(self._tracer, seconds):
                batch = len(rest[0]) if execute.__name__ == "do_executemany" else 1
                connection = rest[-1].root_connection
                tell(self._tracer, partial(self._span, connection, statement, seconds, batch, error))

    def _span(
        self,
        connection: Connection,
        statement: str,
        seconds: float,
        batch: int,
        error: BaseException | None,
    ) -> Span:
        text = sanitize(statement)
        dialect: Any = connection.dialect
        known: dict[str, Any] = {
            "db.system.name": "postgresql",
            "db.query.text": text,
            "db.operation.name": text.split(None, 1)[0].upper() if text.strip() else None,
            "db.operation.batch.size": batch if batch > 1 else None,
            "lambdadb.server_version": ".".join(map(str, dialect.server_version_info or ())),
            "lambdadb.driver": f"{dialect.driver} {dialect.loaded_dbapi.__version__}",
            "db.response.status_code": getattr(error, "sqlstate", None),
            "error.type": type(error).__name__ if error is not None else None,
        }
        driver: Any = connection.connection.driver_connection
        if driver is not None and not driver.closed:  # of a lost one, psycopg knows nothing any more
            session = driver.info
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
