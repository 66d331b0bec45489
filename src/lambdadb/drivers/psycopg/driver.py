"""
The road over psycopg 3: attempts to log in that never block, the session's startup parameters, and
the check for a dead socket. What differs between drivers is here and nowhere else.
"""

from __future__ import annotations

import re
import select
import selectors
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import psycopg
import sqlalchemy
from psycopg import generators, pq
from psycopg.abc import PQGen
from psycopg.adapt import AdaptersMap
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq.abc import PGresult
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import await_only

from lambdadb.drivers.base import AttemptFailed
from lambdadb.drivers.psycopg.connection import (
    AnyConnection,
    AsyncDeadlineConnection,
    DeadlineConnection,
    StatementDeadline,
    StatementTimeout,
    out_of_time,
)
from lambdadb.drivers.psycopg.pipeline import AsyncCursor, Cursor
from lambdadb.drivers.rds_endpoint import is_proxy
from lambdadb.drivers.resolver import Names, names_a_host
from lambdadb.faults import Fault, fault_of

if TYPE_CHECKING:
    from lambdadb.policy import Policy

# Keywords of psycopg.connect() that are not libpq's.
_PSYCOPG_KEYWORDS = ("autocommit", "prepare_threshold", "context", "row_factory", "cursor_factory")

_HOSTS = ("host", "hostaddr", "port")

# A peer that vanished without a word (failover, a dropped flow) is noticed after these: unacknowledged
# data after 5 s (tcp_user_timeout); silence during a long statement after 60 + 3 * 10 s, below the
# 350 s after which NAT gateways and load balancers forget a flow (Amazon VPC User Guide).
_LIVENESS = {
    "tcp_user_timeout": 5000,  # milliseconds
    "keepalives_idle": 60,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}


class Attempt:
    """
    One attempt to log in, driven without blocking through libpq's own state machine.

    psycopg.connect() takes whole seconds and at least two of them as its timeout, and gives no view
    of how far it came; Lambda's remaining time is finer than that.

    Attributes:
        socket: The descriptor to wait on.
        event: What to wait for on the socket: `selectors.EVENT_READ` or `EVENT_WRITE`.
        heard: Whether the server has said anything yet.

    Raises:
        AttemptFailed: From any method, when the server or the network said no.
    """

    def __init__(self, parameters: Mapping[str, Any], number: int) -> None:
        self._parameters = {k: v for k, v in parameters.items() if k not in _PSYCOPG_KEYWORDS}
        self.heard = False
        self._names: Names | None = None
        if names_a_host(parameters):
            self._names = Names(str(parameters["host"]), number)
            self.socket, self.event = self._names.socket, selectors.EVENT_READ
        else:
            self._start()

    def _start(self, **addresses: str) -> None:
        # What UTF-8 does not know stays as it is, or the error would show the password.
        conninfo = _conninfo({**self._parameters, **addresses}).encode(errors="surrogatepass")
        self.pgconn = pq.PGconn.connect_start(conninfo)
        self.event = selectors.EVENT_WRITE

    def advance(self) -> bool:
        """Do what can be done now that the socket is ready; True once logged in."""
        if self._names is not None:
            if not self._names.known():
                return False
            addresses = self._names.addresses(self._parameters)
            self._names = None
            self._start(**addresses)
        else:
            self.heard = self.heard or self.event == selectors.EVENT_READ
        status = self.pgconn.connect_poll()
        if status == pq.PollingStatus.FAILED:
            text = self.pgconn.error_message.decode(errors="replace").strip()
            raise AttemptFailed(fault_of(text), text)
        self.socket = self.pgconn.socket  # libpq may change it from one address to the next
        reading = status == pq.PollingStatus.READING
        self.event = selectors.EVENT_READ if reading else selectors.EVENT_WRITE
        return bool(status == pq.PollingStatus.OK)

    def silence(self) -> AttemptFailed:
        """What it means that no answer has come so far."""
        if self._names is not None:
            return AttemptFailed(
                Fault.UNREACHABLE, "resolving the host name: no answer so far", silent=True
            )
        if self.pgconn.status == pq.ConnStatus.STARTED:
            return AttemptFailed(Fault.UNREACHABLE, "connecting: no answer so far", silent=True)
        text = "the connection was accepted, but the login was not answered so far"
        return AttemptFailed(Fault.RESUMING, text, silent=True)

    def quiet(self) -> bool:
        """Whether the server, after a successful login, has said nothing more, such as farewell."""
        poller = select.poll()
        poller.register(self.pgconn.socket, select.POLLIN | _CLOSING)
        return not poller.poll(0)

    def close(self) -> None:
        """End it and, if it has one, its session."""
        if self._names is not None:
            self._names.close()
        else:
            self.pgconn.finish()


def _conninfo(parameters: Mapping[str, Any]) -> str:
    """
    libpq's connection string (PostgreSQL, "Connection Strings"), whose mistakes libpq itself tells.

    psycopg's make_conninfo() would parse it again, for a tenth of a connect's processor time.
    """
    given = {name: str(value) for name, value in parameters.items() if value is not None}
    escaped = {name: re.sub(r"(['\\\\])", r"\\\1", value) for name, value in given.items()}
    return " ".join(f"{name}='{value}'" for name, value in escaped.items())


class Driver:
    """psycopg 3, for a synchronous engine or (`asyncio`) an asynchronous one."""

    def __init__(self, *, asyncio: bool) -> None:
        from sqlalchemy.dialects.postgresql import psycopg as dialects

        self._asyncio = asyncio
        dialect = dialects.dialect_async if asyncio else dialects.dialect
        self.dbapi: Any = dialect.import_dbapi()  # type: ignore[no-untyped-call]

    def error(self, text: str) -> Exception:
        """The driver's error for a failed connect, without the connection that knows the password."""
        return psycopg.OperationalError(text)

    def startup(self, parameters: Mapping[str, Any], policy: Policy, tag: str | None) -> dict[str, Any]:
        """
        `parameters` with what the session is to know of itself, none of which costs a round trip.

        What the caller set wins.
        """
        parameters = {**_LIVENESS, **parameters}
        if tag:
            parameters.setdefault("application_name", tag)
        timeouts = {
            "idle_session_timeout": policy.idle_session_timeout,
            "idle_in_transaction_session_timeout": policy.idle_in_transaction_session_timeout,
        }
        options = [f"-c {name}={round(s * 1000)}" for name, s in timeouts.items() if s is not None]
        if options and not self.behind_proxy(parameters):
            parameters["options"] = " ".join([*options, parameters.get("options", "")]).rstrip()
        return parameters

    @staticmethod
    def behind_proxy(parameters: Mapping[str, Any]) -> bool:
        """
        Whether the host is an RDS Proxy endpoint, which refuses the startup parameter `options`.

        The refusal: "RDS Proxy currently doesn't support command-line options" (0A000).
        """
        return is_proxy(str(parameters.get("host", "")))

    @staticmethod
    def target(parameters: Mapping[str, Any]) -> str:
        """Host and port as shown to people."""
        host = parameters.get("host") or parameters.get("hostaddr") or "the default host"
        return f"{host}:{parameters.get('port') or 5432}"

    @staticmethod
    def parameters(conninfo: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """What `psycopg.connect(conninfo, **parameters)` would connect with."""
        return {**(conninfo_to_dict(conninfo) if conninfo else {}), **parameters}

    @staticmethod
    def to_neutral_parameters(
        parameters: Mapping[str, Any], environment: Mapping[str, str]
    ) -> dict[str, Any]:
        """What a store of logins is given: `parameters` with `database`, `host` and `default_port`."""
        neutral = {("database" if name == "dbname" else name): v for name, v in parameters.items()}
        if neutral.get("hostaddr") and not neutral.get("host"):
            neutral["host"] = neutral["hostaddr"]
        return {**neutral, "default_port": environment.get("PGPORT") or 5432}

    @staticmethod
    def to_driver_parameters(login: Mapping[str, Any]) -> dict[str, Any]:
        """The login of a store by libpq's names."""
        return {("dbname" if name == "database" else name): value for name, value in login.items()}

    @staticmethod
    def attempt(parameters: Mapping[str, Any], number: int) -> Attempt:
        """
        Start attempt `number` (from 0) to log in.

        With several hosts or addresses, each attempt begins at the next one: a silent first one hides
        no other.
        """
        lists = {name: str(parameters[name]).split(",") for name in _HOSTS if parameters.get(name)}
        hosts = max((len(values) for values in lists.values()), default=1)
        turn = number % hosts
        turned = {n: ",".join([*v[turn:], *v[:turn]]) for n, v in lists.items() if len(v) == hosts}
        return Attempt({**parameters, **turned}, number)

    def adopt(
        self, attempt: Attempt, parameters: Mapping[str, Any], bounds: StatementDeadline, limit: float
    ) -> Any:
        """
        The DBAPI connection that the engine's dialect expects, made of a successful attempt.

        Until the engine has asked its first questions, statements end at `limit`.
        """
        attempt.pgconn.nonblocking = 1
        kind = AsyncDeadlineConnection if self._asyncio else DeadlineConnection
        connection: AnyConnection = kind(attempt.pgconn)
        connection.bounds = bounds
        connection.limit = limit
        connection.poller = select.poll()
        connection.poller.register(attempt.pgconn.socket, select.POLLIN | _CLOSING)
        # A replication connection takes no extended protocol, which carries two messages at once.
        if psycopg.capabilities.has_pipeline() and not parameters.get("replication"):
            connection.cursor_factory = AsyncCursor if self._asyncio else Cursor
        for name in ("row_factory", "cursor_factory"):
            if parameters.get(name) is not None:
                setattr(connection, name, parameters[name])
        connection.prepare_threshold = parameters.get(
            "prepare_threshold", None if self.behind_proxy(parameters) else 5
        )
        if parameters.get("context") is not None:
            # psycopg.connect() does the same; there is no public way to say it to a connection.
            connection._adapters = AdaptersMap(parameters["context"].adapters)
        if not isinstance(connection, psycopg.AsyncConnection):
            connection.autocommit = bool(parameters.get("autocommit", False))
            return connection
        if parameters.get("autocommit"):
            await_only(connection.set_autocommit(True))

        async def adopted(*_: object, **__: object) -> AnyConnection:
            return connection

        return self.dbapi.connect(async_creator_fn=adopted)


def unlimited(dbapi_connection: Any, record: ConnectionPoolEntry) -> None:  # noqa: ARG001 SQLAlchemy's
    """SQLAlchemy's `connect` listener that ends the time limit of a connect."""
    driver: AnyConnection = record.driver_connection  # type: ignore[assignment]
    driver.limit = None


# What an idle connection's socket tells without asking the server. quiet: alive, as far as this host
# knows. readable: something came unasked, a notification or the server's last words; a ping settles it.
# closed: the server, or something on the way, has ended the connection.
SocketState = Literal["quiet", "readable", "closed"]

# Linux alone tells a socket that the peer closed from one that has data; elsewhere both are readable.
_CLOSING = getattr(select, "POLLRDHUP", 0)
_OK = pq.ConnStatus.OK
_CLOSED = _CLOSING | select.POLLHUP | select.POLLERR | select.POLLNVAL


def socket_state(connection: AnyConnection) -> SocketState:
    """
    Whether an idle connection is still there, found out without a round trip.

    Sees whatever reached this host: FIN and RST, and so every ordinary end of a session. It cannot see a
    flow that was dropped in silence. **Costs:** no round trip; about a microsecond.
    """
    if connection.pgconn.status != _OK:
        return "closed"
    if not isinstance(connection, (DeadlineConnection, AsyncDeadlineConnection)):
        return "readable"  # a do_connect listener made it
    for _, event in connection.poller.poll(0):
        return "closed" if event & _CLOSED else "readable"
    return "quiet"


@dataclass(repr=False, eq=False)
class TransactionHandle:
    """A transaction, and what identifies it to the server when its connection is lost."""

    driver: AnyConnection
    xid: str
    """Its `xid8`; empty if it is read-only."""
    backend: int
    """The process id of its session."""
    incarnation: str
    """When the server, or its shared memory, last started: another one may reuse `xid`."""

    @property
    def is_begun(self) -> bool:
        """Whether it has not been ended, well or not."""
        ended = (pq.TransactionStatus.IDLE, pq.TransactionStatus.UNKNOWN)
        return self.driver.pgconn.transaction_status not in ended

    @property
    def is_open(self) -> bool:
        """Whether it is still the connection's, and nothing in it has failed."""
        return bool(self.driver.pgconn.transaction_status == pq.TransactionStatus.INTRANS)


# pg_stat_bgwriter is reset by every crash recovery, also by one that the postmaster survived, whose
# start time then stays the same (PostgreSQL, src/backend/utils/activity/pgstat.c).
_WHO = (
    "SELECT pg_current_xact_id()::text, pg_backend_pid()::text, pg_postmaster_start_time()::text"
    " || ' ' || (SELECT stats_reset FROM pg_stat_bgwriter)::text"
)


def _asked(driver: AnyConnection, query: str) -> PQGen[list[PGresult]]:
    driver.pgconn.send_query(query.encode())
    results: list[PGresult] = yield from generators.execute(driver.pgconn)
    return results


def ask(driver: AnyConnection, query: str) -> list[tuple[str | None, ...]]:
    """
    The rows of the last statement of `query`, which is sent as it is, without a BEGIN.

    Raises:
        psycopg.Error: The server's refusal, or the loss of the connection.

    **Costs:** one round trip.
    """
    results: Any = driver.wait(_asked(driver, query))
    if isinstance(driver, psycopg.AsyncConnection):
        results = await_only(results)
    for result in results:
        if result.status == pq.ExecStatus.FATAL_ERROR:
            raise psycopg.errors.error_from_result(result)
    last = results[-1]
    values = [[last.get_value(r, c) for c in range(last.nfields)] for r in range(last.ntuples)]
    return [tuple(None if v is None else v.decode() for v in row) for row in values]


def begin(connection: sqlalchemy.Connection) -> TransactionHandle:
    """
    Begin a transaction whose fate can be asked for later.

    psycopg, finding the transaction open, sends no BEGIN of its own.

    **Costs:** one round trip, BEGIN's own.
    """
    driver: AnyConnection = connection.connection.driver_connection  # type: ignore[assignment]
    driver.commit_state = "none"
    begin = "BEGIN"
    if driver.isolation_level is not None:
        begin += f" ISOLATION LEVEL {driver.isolation_level.name.replace('_', ' ')}"
    begin += " READ ONLY" if driver.read_only else f"; {_WHO}"
    try:
        rows = ask(driver, begin)
    except StatementTimeout as error:
        if driver.closed:
            connection.invalidate(error)
        raise out_of_time(error) from error
    except psycopg.Error as error:
        if driver.closed:
            connection.invalidate(error)
        raise DBAPIError.instance(
            begin, None, error, psycopg.Error, connection_invalidated=driver.closed
        ) from error
    if driver.read_only:
        return TransactionHandle(driver, "", 0, "")
    ((xid, backend, incarnation),) = rows
    return TransactionHandle(driver, xid or "", int(backend or 0), incarnation or "")
