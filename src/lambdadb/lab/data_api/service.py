"""The five calls of the Data API, carried out by a PostgreSQL server."""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import generators, pq, waiting
from psycopg.conninfo import make_conninfo
from psycopg.pq.abc import PGconn

from lambdadb.lab.aurora import Cluster, Server, State
from lambdadb.lab.clock import LabClock
from lambdadb.lab.data_api.answers import ApiError
from lambdadb.lab.data_api.statements import Rows, check, run

APPLICATION_NAME = "Data API (emulated)"
IDLE_TRANSACTION = 180.0  # seconds without a call after which a transaction is rolled back
LONGEST_TRANSACTION = 86_400.0
CALL_TIMEOUT = 45.0

Request = Mapping[str, Any]


@dataclass(repr=False, eq=False)
class Transaction:
    """An open transaction, with a session of its own."""

    pgconn: PGconn
    began: float
    used: float
    caller: str
    """The `app/` part of the caller's User-Agent."""
    busy: threading.Lock = field(default_factory=threading.Lock)


class Service:
    """
    The calls of the API for one cluster and one secret.

    Args:
        server: The database.
        cluster: The emulated cluster in front of it, if it can pause.
        clock: The lab's time, for transactions that nobody uses.
        call_timeout: Seconds after which a statement is ended.
    """

    def __init__(
        self,
        server: Server,
        cluster: Cluster | None,
        *,
        cluster_arn: str,
        secret_arn: str,
        clock: LabClock,
        call_timeout: float,
    ) -> None:
        self.resuming = "DatabaseResumingException"
        self.transactions: dict[str, Transaction] = {}
        self._server = server
        self._cluster = cluster
        self._arns = {"resourceArn": cluster_arn, "secretArn": secret_arn}
        self._clock = clock
        self._call_timeout = call_timeout
        self._lock = threading.Lock()
        self.calls: dict[str, Callable[[Request], dict[str, Any]]] = {
            "Execute": self._execute,
            "BatchExecute": self._execute_batch,
            "BeginTransaction": self._begin,
            "CommitTransaction": self._commit,
            "RollbackTransaction": self._roll_back,
        }

    def carry_out(self, call: str, request: Request, caller: str) -> dict[str, Any]:
        """
        Carry out one call.

        Raises:
            ApiError: The API's answer is an error.
        """
        if request.get("resourceArn") != self._arns["resourceArn"]:
            raise ApiError("DatabaseNotFoundException", "The DB cluster doesn't exist.")
        if request.get("secretArn") != self._arns["secretArn"]:
            raise ApiError("InvalidSecretException", "The Secrets Manager secret isn't valid.")
        if "schema" in request:
            raise ApiError("ValidationException", "Database schema is not supported.")
        return self.calls[call]({**request, "caller": caller})

    def end_idle(self) -> None:
        """Roll back the transactions that nobody has used for 3 minutes, and those of 24 hours."""
        now = self._clock.now()
        for name, one in list(self.transactions.items()):
            if now - one.used > IDLE_TRANSACTION or now - one.began > LONGEST_TRANSACTION:
                with contextlib.suppress(ApiError):
                    self._take(name).pgconn.finish()

    def close(self) -> None:
        """End every transaction."""
        for one in self.transactions.values():
            one.pgconn.finish()
        self.transactions.clear()

    def _execute(self, request: Request) -> dict[str, Any]:
        with self._session(request) as pgconn:
            result = run(pgconn, request["sql"], request.get("parameters", ()))
            if result.status == pq.ExecStatus.COMMAND_OK:
                updated = int(result.command_tuples or 0)
                return {"numberOfRecordsUpdated": updated, "generatedFields": []}
            rows = Rows(pgconn, result, request.get("resultSetOptions", {}))
            answer: dict[str, Any] = {"numberOfRecordsUpdated": 0, "records": rows.records()}
            if request.get("includeResultMetadata"):
                answer["columnMetadata"] = rows.metadata()
            return answer

    def _execute_batch(self, request: Request) -> dict[str, Any]:
        sets = request.get("parameterSets") or [[]]
        with self._session(request) as pgconn:
            alone = pgconn.transaction_status == pq.TransactionStatus.IDLE
            if alone:  # a batch is carried out as a whole, or not at all
                check(pgconn.exec_(b"BEGIN"), pgconn)
            for parameters in sets:
                run(pgconn, request["sql"], parameters)
            if alone:
                check(pgconn.exec_(b"COMMIT"), pgconn)
        return {"updateResults": [{"generatedFields": []} for _ in sets]}

    def _begin(self, request: Request) -> dict[str, Any]:
        self.end_idle()
        pgconn = self._connect(request)
        check(pgconn.exec_(b"BEGIN"), pgconn)
        name, now = secrets.token_urlsafe(96), self._clock.now()
        self.transactions[name] = Transaction(pgconn, now, now, request["caller"])
        return {"transactionId": name}

    def _commit(self, request: Request) -> dict[str, Any]:
        one = self._take(str(request.get("transactionId")))
        try:
            result = one.pgconn.exec_(b"COMMIT")
            check(result, one.pgconn)
        finally:
            one.pgconn.finish()
        done = result.command_status == b"COMMIT"
        return {"transactionStatus": "Transaction Committed" if done else "Rollback Complete"}

    def _roll_back(self, request: Request) -> dict[str, Any]:
        one = self._take(str(request.get("transactionId")))
        one.pgconn.finish()
        return {"transactionStatus": "Rollback Complete"}

    def _take(self, name: str) -> Transaction:
        """Take a transaction out, to end it."""
        one = self._find(name)
        if not one.busy.acquire(blocking=False):
            raise ApiError("DatabaseErrorException", "Transaction is still running a query")
        with self._lock:
            if self.transactions.pop(name, None) is None:
                raise ApiError("TransactionNotFoundException", f"Transaction {name} is not found")
        return one

    def _find(self, name: str) -> Transaction:
        if (one := self.transactions.get(name)) is None:
            raise ApiError("TransactionNotFoundException", f"Transaction {name} is not found")
        return one

    @contextlib.contextmanager
    def _session(self, request: Request) -> Iterator[PGconn]:
        """The transaction's session, or one for a single statement."""
        if (name := request.get("transactionId")) is None:
            pgconn = self._connect(request)
            try:
                yield pgconn
            finally:
                pgconn.finish()
            return
        self.end_idle()
        one = self._find(name)
        if not one.busy.acquire(blocking=False):
            raise ApiError("DatabaseErrorException", "Transaction is still running a query")
        try:
            one.used = self._clock.now()
            yield one.pgconn
        finally:
            one.used = self._clock.now()
            one.busy.release()
            if one.pgconn.status != pq.ConnStatus.OK:
                self.transactions.pop(name, None)

    def _connect(self, request: Request) -> PGconn:
        port = self._server.port if self._cluster is None else self._cluster.port
        if self._cluster is not None and self._cluster.state is not State.AVAILABLE:
            self._wake(self._cluster)
        conninfo = make_conninfo(
            self._server.url(request.get("database") or "postgres", port=port).replace(
                "+psycopg", "", 1
            ),
            application_name=APPLICATION_NAME,
            client_encoding="UTF8",
            options=f"-c statement_timeout={int(self._call_timeout * 1000)}",
        )
        try:  # PGconn.connect() would block every thread, those of the cluster among them
            pgconn: PGconn = waiting.wait_conn(generators.connect(conninfo), 0.1)
        except psycopg.OperationalError as error:
            raise ApiError("DatabaseErrorException", str(error).strip()) from None
        return pgconn

    def _wake(self, cluster: Cluster) -> None:
        """Start the resume, as any connection to the cluster does, and answer that it goes on."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", cluster.port), 1.0):
            pass
        raise ApiError(
            self.resuming,
            "The Aurora DB instance is resuming after being auto-paused. Please wait a few seconds and "
            "try again.",
        )
