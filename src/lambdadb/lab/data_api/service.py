"""The five calls of the Data API, carried out by a PostgreSQL or a MariaDB."""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from sqlalchemy import make_url

from lambdadb.lab.aurora import Cluster, Server, State
from lambdadb.lab.clock import LabClock
from lambdadb.lab.data_api.answers import ApiError
from lambdadb.lab.data_api.postgres_session import PostgresSession

IDLE_TRANSACTION = 180.0  # seconds without a call after which a transaction is rolled back
LONGEST_TRANSACTION = 86_400.0
CALL_TIMEOUT = 45.0

Request = Mapping[str, Any]


class Session(Protocol):
    """A session of the database."""

    @property
    def is_open(self) -> bool:
        """Whether it has not ended."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""

    def execute(self, request: Request, parameters: Any) -> dict[str, Any]:
        """Execute a statement and give the API's answer."""

    def begin(self) -> None:
        """Begin a transaction."""

    def commit(self) -> bool:
        """Commit. False: the server has rolled the transaction back."""

    def close(self) -> None:
        """End the session, and roll back what is open."""


@dataclass(repr=False, eq=False)
class Transaction:
    """An open transaction, with a session of its own."""

    session: Session
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
        self.server = server
        self.is_mysql = make_url(server.url()).get_backend_name() == "mysql"
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
                    self._take(name).session.close()

    def close(self) -> None:
        """End every transaction."""
        for one in self.transactions.values():
            one.session.close()
        self.transactions.clear()

    def _execute(self, request: Request) -> dict[str, Any]:
        with self._session(request) as session:
            return session.execute(request, request.get("parameters", ()))

    def _execute_batch(self, request: Request) -> dict[str, Any]:
        sets = request.get("parameterSets") or [[]]
        with self._session(request) as session:
            alone = not session.in_transaction
            if alone:  # a batch is carried out as a whole, or not at all
                session.begin()
            answers = [session.execute(request, parameters) for parameters in sets]
            if alone:
                session.commit()
        return {
            "updateResults": [{"generatedFields": one.get("generatedFields", [])} for one in answers]
        }

    def _begin(self, request: Request) -> dict[str, Any]:
        self.end_idle()
        session = self._connect(request)
        session.begin()
        name, now = secrets.token_urlsafe(96), self._clock.now()
        self.transactions[name] = Transaction(session, now, now, request["caller"])
        return {"transactionId": name}

    def _commit(self, request: Request) -> dict[str, Any]:
        one = self._take(str(request.get("transactionId")))
        try:
            done = one.session.commit()
        finally:
            one.session.close()
        return {"transactionStatus": "Transaction Committed" if done else "Rollback Complete"}

    def _roll_back(self, request: Request) -> dict[str, Any]:
        one = self._take(str(request.get("transactionId")))
        one.session.close()
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
    def _session(self, request: Request) -> Iterator[Session]:
        """The transaction's session, or one for a single statement."""
        if (name := request.get("transactionId")) is None:
            session = self._connect(request)
            try:
                yield session
            finally:
                session.close()
            return
        self.end_idle()
        one = self._find(name)
        if not one.busy.acquire(blocking=False):
            raise ApiError("DatabaseErrorException", "Transaction is still running a query")
        try:
            one.used = self._clock.now()
            yield one.session
        finally:
            one.used = self._clock.now()
            one.busy.release()
            if not one.session.is_open:
                self.transactions.pop(name, None)

    def _connect(self, request: Request) -> Session:
        if self._cluster is not None and self._cluster.state is not State.AVAILABLE:
            self._wake(self._cluster)
        place = self._cluster or self.server
        name = request.get("database")
        if self.is_mysql:
            from lambdadb.lab.data_api.mariadb_session import MariaDBSession

            return MariaDBSession(place.url(name) if name else place.url(), self._call_timeout)
        return PostgresSession(place.url(name or "postgres"), self._call_timeout)

    def _wake(self, cluster: Cluster) -> None:
        """Start the resume, as any connection to the cluster does, and answer that it goes on."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", cluster.port), 1.0):
            pass
        raise ApiError(
            self.resuming,
            "The Aurora DB instance is resuming after being auto-paused. Please wait a few seconds and "
            "try again.",
        )
