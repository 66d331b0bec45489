"""A session of PostgreSQL for the emulated Data API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import generators, pq, waiting
from psycopg.conninfo import make_conninfo
from psycopg.pq.abc import PGconn

from lambdadb.lab.data_api.answers import ApiError
from lambdadb.lab.data_api.statements import Rows, check, run

APPLICATION_NAME = "Data API (emulated)"


class PostgresSession:
    """
    A session.

    Args:
        url: SQLAlchemy URL of the database, by the server's own port or a cluster's in front of it.
        timeout: Seconds after which a statement is ended.
    """

    def __init__(self, url: str, timeout: float) -> None:
        conninfo = make_conninfo(
            url.replace("+psycopg", "", 1),
            application_name=APPLICATION_NAME,
            client_encoding="UTF8",
            options=f"-c statement_timeout={int(timeout * 1000)}",
        )
        try:  # PGconn.connect() would block every thread, those of the cluster among them
            self._pgconn: PGconn = waiting.wait_conn(generators.connect(conninfo), 0.1)
        except psycopg.OperationalError as error:
            raise ApiError("DatabaseErrorException", str(error).strip()) from None

    @property
    def is_open(self) -> bool:
        """Whether it has not ended."""
        return bool(self._pgconn.status == pq.ConnStatus.OK)

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return bool(self._pgconn.transaction_status != pq.TransactionStatus.IDLE)

    def execute(self, request: Mapping[str, Any], parameters: Any) -> dict[str, Any]:
        """Execute a statement and give the API's answer."""
        result = run(self._pgconn, request["sql"], parameters)
        if result.status == pq.ExecStatus.COMMAND_OK:
            return {"numberOfRecordsUpdated": int(result.command_tuples or 0), "generatedFields": []}
        rows = Rows(self._pgconn, result, request.get("resultSetOptions", {}))
        answer: dict[str, Any] = {"numberOfRecordsUpdated": 0, "records": rows.records()}
        if request.get("includeResultMetadata"):
            answer["columnMetadata"] = rows.metadata()
        return answer

    def begin(self) -> None:
        """Begin a transaction."""
        check(self._pgconn.exec_(b"BEGIN"), self._pgconn)

    def commit(self) -> bool:
        """Commit. False: the server has rolled the transaction back, since a statement had failed."""
        result = self._pgconn.exec_(b"COMMIT")
        check(result, self._pgconn)
        return bool(result.command_status == b"COMMIT")

    def close(self) -> None:
        """End the session, and roll back what is open."""
        self._pgconn.finish()
