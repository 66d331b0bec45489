"""
A driver without a database: a server in memory that does what a test tells it.

It is the smallest driver that `lambdadb.drivers.base` admits, and an example for the next real one.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.exc import DBAPIError

from lambdadb.drivers import register
from lambdadb.drivers.base import AttemptFailed
from lambdadb.errors import InvocationEnded, LambdaDBError, TransactionEnded
from lambdadb.faults import Fault


class Error(Exception):
    """The root of the driver's errors, as DB-API asks for one."""


class Conflict(Error):
    """The server rolled the transaction back; another run may succeed."""


class Lost(Error):
    """The connection is gone."""


class UnitEnded(Error):
    """A unit of work ends its transaction by itself, or goes on after its end."""


@dataclass
class Server:
    """The server: its rows, its sessions, and what it does next."""

    rows: list[str] = field(default_factory=list)
    sessions: list[Connection] = field(default_factory=list)
    committed: set[str] = field(default_factory=set)
    logins: list[Mapping[str, Any]] = field(default_factory=list)
    failures: list[AttemptFailed] = field(default_factory=list)
    """What the next attempts to log in meet, one each."""
    lose_commit: str = ""
    """`done` or `not done`: the answer to the next COMMIT is lost."""
    numbers: Any = field(default_factory=lambda: itertools.count(1))


SERVER = Server()


class Cursor:
    """A DB-API cursor that knows three statements: INSERT, CONFLICT and anything else."""

    description = None
    rowcount = -1
    arraysize = 1

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def execute(self, statement: str, parameters: Any = ()) -> None:
        connection = self._connection
        connection.check()
        connection.begin()
        if statement.startswith("CONFLICT"):
            connection.pending.clear()
            raise Conflict("another transaction was first")
        if statement.startswith("INSERT"):
            connection.pending.append(str(next(iter(dict(parameters).values()))))
            self.rowcount = 1

    def fetchall(self) -> list[Any]:
        return []

    def close(self) -> None:
        """Nothing is held."""


class Connection:
    """A DB-API connection: a session of the server."""

    def __init__(self, server: Server, parameters: Mapping[str, Any]) -> None:
        self.server = server
        self.tag = parameters.get("tag")
        self.pending: list[str] = []
        self.transaction: str | None = None
        self.commit_state = "none"
        self.unit: Transaction | None = None
        self.closed = self.aborted = self.autocommit = False
        server.sessions.append(self)

    def check(self) -> None:
        if self.aborted:
            raise Lost("aborted")
        if self.closed or self not in self.server.sessions:
            self.close()
            raise Lost("the connection is closed")

    def begin(self) -> str:
        if self.transaction is None:
            if self.unit is not None:
                raise UnitEnded("the unit of work has ended its transaction")
            self.transaction = str(next(self.server.numbers))
            self.commit_state = "none"
        return self.transaction

    def cursor(self) -> Cursor:
        return Cursor(self)

    def commit(self) -> None:
        if self.transaction is None:
            return
        self.check()
        if self.unit is not None and not self.unit.may_commit:
            raise UnitEnded("a unit of work leaves COMMIT to run_transaction")
        self.commit_state = "sent"
        lost, self.server.lose_commit = self.server.lose_commit, ""
        if lost != "not done":
            self.server.rows += self.pending
            self.server.committed.add(self.transaction)
        if lost:
            self.close()
            raise Lost("the answer did not come")
        self.commit_state = "done"
        self.transaction = None
        self.pending = []

    def rollback(self) -> None:
        self.transaction = None
        self.pending = []

    def close(self) -> None:
        self.closed = True
        if self in self.server.sessions:
            self.server.sessions.remove(self)


class Attempt:
    """An attempt to log in that is answered at once; its socket is a pipe that is always readable."""

    event = 1  # selectors.EVENT_READ
    got_first_byte = end_is_counted = False

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self.parameters = parameters
        self.socket, self._writer = os.pipe()
        os.write(self._writer, b"!")

    def advance(self) -> bool:
        self.got_first_byte = True
        SERVER.logins.append(self.parameters)
        if SERVER.failures:
            raise SERVER.failures.pop(0)
        return True

    def describe_silence(self) -> AttemptFailed:
        return AttemptFailed(Fault.UNREACHABLE, "no answer so far", silent=True)

    def close(self) -> None:
        if self._writer != -1:
            os.close(self.socket)
            os.close(self._writer)
            self._writer = -1


@dataclass
class Transaction:
    """A transaction of the scripted server."""

    connection: Connection
    id: str
    committed_by_unit = False
    may_be_committed_by_unit = False
    may_be_committed_apart = False
    doubt = "the server has forgotten it"
    may_commit = False

    @property
    def commit_state(self) -> Any:
        return self.connection.commit_state

    @property
    def is_lost(self) -> bool:
        return self.connection.closed

    def allow_commit(self) -> None:
        if self.connection.transaction != self.id:
            raise UnitEnded("the unit's transaction has failed or ended")
        self.may_commit = True

    def leave(self) -> None:
        self.connection.unit = None


@dataclass(frozen=True)
class ScriptedTarget:
    """`lambdadb.drivers.base.Target` for the server in memory."""

    parameters: dict[str, Any]
    is_local = False
    tls_warning = None

    def __str__(self) -> str:
        return f"{self.parameters.get('host')}:1234"

    @property
    def attributes(self) -> Mapping[str, str]:
        return {"db.system.name": "scripted", "server.address": str(self.parameters.get("host"))}

    @property
    def login_parameters(self) -> Mapping[str, object]:
        return {**self.parameters, "default_port": 1234}

    def add_login(self, login: Mapping[str, object]) -> ScriptedTarget:
        return ScriptedTarget({**self.parameters, **login})

    def add_session_settings(self, policy: Any, tag: str | None) -> ScriptedTarget:
        return ScriptedTarget({"tag": tag, **self.parameters})

    def add_tls_defaults(self, *, always: bool) -> ScriptedTarget:
        return self

    def check_verified(self, *, always: bool, allow_unverified: bool) -> None:
        """It is in this process."""

    def learn(self, failure: AttemptFailed) -> bool:
        return False

    def begin_attempt(self, number: int) -> Attempt:
        return Attempt(self.parameters)

    def explain_rejection(self, text: str, seconds: float) -> str:
        return text

    def to_dbapi_connection(self, attempt: Attempt, deadline: Any, connect_until: float) -> Connection:
        attempt.close()
        return Connection(SERVER, self.parameters)


class ScriptedDriver:
    """`lambdadb.drivers.base.Driver` for the server in memory."""

    session_tag_bytes = 10

    def choose_proxy(self, proxy: Any) -> None:
        assert proxy is None, "there is no proxy before it"

    def check_installation(self, *, traced: bool) -> None:
        """Nothing is installed."""

    def check_parameters(self, parameters: Mapping[str, Any]) -> None:
        """All are good."""

    def make_target(self, arguments: Any, parameters: Mapping[str, Any]) -> ScriptedTarget:
        return ScriptedTarget(dict(parameters))

    def error(self, text: str) -> Exception:
        return Error(text)

    def describe_session(self, connection: Any, error: BaseException | None) -> Mapping[str, str]:
        return {"db.system.name": "scripted"}

    def liveness(self, connection: Connection) -> Any:
        return "quiet" if connection in SERVER.sessions else "closed"

    def has_proxy(self, connection: Connection) -> bool:
        return False

    def is_reusable(self, connection: Connection) -> bool:
        return connection.transaction is None and not connection.closed

    def idle_session_timeout(self, connection: Connection) -> None:
        """Never."""

    def reset_session(self, connection: Connection) -> bool:
        return connection in SERVER.sessions

    def set_wait_limit(self, connection: Connection, moment: float | None) -> None:
        """It answers at once."""

    def abort(self, connection: Connection) -> None:
        connection.aborted = True
        connection.close()

    def begin(self, connection: Any) -> Transaction:
        own: Connection = connection.connection.driver_connection
        own.unit = Transaction(own, own.begin())
        return own.unit

    def ask_outcome(self, connection: Any, transaction: Transaction) -> Any:
        return "committed" if transaction.id in SERVER.committed else "aborted"

    def names_same_tables(self, connection: Any, transaction: Transaction) -> bool:
        return True

    def meaning(self, error: BaseException, transaction: Transaction | None = None) -> Any:
        original = error.orig if isinstance(error, DBAPIError) else error
        if isinstance(original, (UnitEnded, TransactionEnded)):
            return "ended"
        if isinstance(error, DBAPIError) and error.connection_invalidated:
            return "lost"
        return "conflict" if isinstance(original, Conflict) else "other"

    def translate(self, error: BaseException) -> LambdaDBError | None:
        if isinstance(error, Lost) and "aborted" in str(error):
            return InvocationEnded("the invocation in which this session began has ended")
        if isinstance(error, UnitEnded):
            return TransactionEnded(str(error))
        return error if isinstance(error, LambdaDBError) else None


class ScriptedDialect(DefaultDialect):
    """SQLAlchemy's dialect for it."""

    name = "scripted"
    driver = "memory"
    supports_statement_cache = True
    default_paramstyle = "named"

    def __init__(self, *, connector: Any, statements: Any = None, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.connector = connector

    @classmethod
    def import_dbapi(cls) -> Any:
        return SimpleNamespace(Error=Error, paramstyle="named", __version__="1")

    @classmethod
    def make_driver(cls) -> ScriptedDriver:
        return ScriptedDriver()

    @classmethod
    def engine_created(cls, engine: Any) -> None:
        event.listen(engine, "handle_error", translate_error, retval=True)

    def connect(self, *arguments: Any, **keywords: Any) -> Any:
        return self.connector.connect(self.connector.driver.make_target(arguments, keywords))

    def initialize(self, connection: Any) -> None:
        """There is nothing to ask."""
        self.default_isolation_level = "SERIALIZABLE"

    def get_isolation_level_values(self, dbapi_conn: Any) -> Any:
        return ("AUTOCOMMIT", "SERIALIZABLE")

    def get_isolation_level(self, dbapi_connection: Any) -> Any:
        return "SERIALIZABLE"

    def set_isolation_level(self, dbapi_connection: Any, level: Any) -> None:
        dbapi_connection.autocommit = level == "AUTOCOMMIT"

    def is_disconnect(self, e: Any, connection: Any, cursor: Any) -> bool:
        return isinstance(e, Lost)


def translate_error(context: Any) -> LambdaDBError | None:
    """SQLAlchemy's `handle_error` listener."""
    return ScriptedDriver().translate(context.original_exception)


register(("scripted", "scripted+memory"), "lambdadb+scripted", __name__, "ScriptedDialect")
