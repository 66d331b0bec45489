"""
psycopg 3 as `lambdadb.drivers.base.Driver`.
"""

from __future__ import annotations

import logging
import os
import select
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import psycopg
import sqlalchemy
from psycopg import pq
from psycopg.adapt import AdaptersMap
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.util import await_only

from lambdadb.drivers.base import Liveness, Meaning, Outcome, Parameters
from lambdadb.drivers.psycopg import tls, transaction
from lambdadb.drivers.psycopg.attempt import Attempt
from lambdadb.drivers.psycopg.connection import (
    AnyConnection,
    AsyncDeadlineConnection,
    DeadlineConnection,
)
from lambdadb.drivers.psycopg.pipeline import AsyncCursor, Cursor, find_missing
from lambdadb.drivers.rds_endpoint import is_proxy
from lambdadb.errors import InvalidSettings

if TYPE_CHECKING:
    from lambdadb.deadline import StatementDeadline
    from lambdadb.policy import Policy

logger = logging.getLogger("lambdadb")

# A peer that vanished without a word (failover, a dropped flow) is noticed after these: unacknowledged
# data after 5 s (tcp_user_timeout); silence during a long statement after 60 + 3 * 10 = 90 s, below
# the 350 s after which NAT gateways and load balancers forget a flow (Amazon VPC User Guide).
_DEAD_PEER_DETECTION = {
    "tcp_user_timeout": 5000,  # milliseconds
    "keepalives_idle": 60,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}

_SSLMODES = ("verify-full", "verify-ca", "require", "prefer", "allow", "disable")

# Linux alone tells a socket that the peer closed from one that has data; elsewhere both are readable.
_CLOSING = getattr(select, "POLLRDHUP", 0)
_CLOSED = _CLOSING | select.POLLHUP | select.POLLERR | select.POLLNVAL
_OK = pq.ConnStatus.OK


class PsycopgDriver:
    """psycopg 3, for a synchronous engine or (`asyncio`) an asynchronous one."""

    system = "postgresql"
    default_port = 5432
    session_tag_bytes = 63  # NAMEDATALEN - 1: the server cuts a longer application_name silently

    def __init__(self, *, asyncio: bool) -> None:
        self._asyncio = asyncio
        self._pipelines_begin = False

    # Before the first connect

    def check_parameters(self, parameters: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        """
        Refuse parameters that cannot work.

        Raises:
            InvalidSettings: One of them is not libpq's, or is decided elsewhere.
        """
        del environment
        if "connect_timeout" in parameters:
            raise InvalidSettings(
                "connect_timeout: say it as retry=ResumeRetry(timeout=seconds), which also respects the "
                "time that Lambda has left; remove it from the URL and from connect_args."
            )
        if (mode := parameters.get("sslmode", "verify-full")) not in _SSLMODES:
            raise InvalidSettings(f"sslmode={mode!r}: use one of {', '.join(_SSLMODES)}.")

    def check_installation(self) -> None:
        """Log what the installed psycopg and libpq lack; what depends on it costs a round trip more."""
        missing = find_missing()
        if not psycopg.capabilities.has_pipeline():
            missing.append("pipeline mode (libpq 14)")
        self._pipelines_begin = not missing
        if missing:
            logger.info(
                "psycopg %s has no %s: BEGIN is sent by itself, which costs each transaction one round "
                "trip more.",
                psycopg.__version__,
                ", ".join(missing),
            )

    def connect_parameters(self, *arguments: Any, **keywords: Any) -> Parameters:
        """What `psycopg.connect(*arguments, **keywords)` would connect with."""
        conninfo = arguments[0] if arguments else ""
        return {**(conninfo_to_dict(conninfo) if conninfo else {}), **keywords}

    # Opening

    def add_session_settings(
        self, parameters: Mapping[str, Any], policy: Policy, tag: str | None
    ) -> Parameters:
        """`parameters` with the session's name and timeouts, in the startup packet: no round trip."""
        completed: Parameters = {**_DEAD_PEER_DETECTION, **parameters}
        if tag:
            completed.setdefault("application_name", tag)
        timeouts = {
            "idle_session_timeout": policy.idle_session_timeout,
            "idle_in_transaction_session_timeout": policy.idle_in_transaction_session_timeout,
        }
        options = [f"-c {name}={round(s * 1000)}" for name, s in timeouts.items() if s is not None]
        if options and not _behind_rds_proxy(parameters):
            # libpq reads PGOPTIONS only where no options are given. The caller's come last and win.
            given = completed.get("options", os.environ.get("PGOPTIONS", ""))
            completed["options"] = " ".join([*options, given]).rstrip()
        return completed

    def add_tls_defaults(
        self, parameters: Mapping[str, Any], environment: Mapping[str, str]
    ) -> Parameters:
        """`parameters` that verify the server, unless the caller chose otherwise."""
        return tls.verified(parameters, environment)

    def describe_tls_weakness(
        self, parameters: Mapping[str, Any], environment: Mapping[str, str]
    ) -> str | None:
        """What the caller's choice leaves unverified; None if nothing."""
        return tls.weaker(parameters, environment)

    def explain_rejection(self, parameters: Mapping[str, Any], text: str, seconds: float) -> str:
        """Why a server was not trusted, and what to do; two TLS handshakes at most, no login."""
        return tls.explained(parameters, text, seconds)

    def is_local(self, parameters: Mapping[str, Any], environment: Mapping[str, str]) -> bool:
        """Whether the server is on this machine: a socket or a loopback address."""
        return tls.is_local(parameters, environment)

    def begin_attempt(self, parameters: Mapping[str, Any], number: int) -> Attempt:
        """Start attempt `number` (from 0) to log in."""
        return Attempt(parameters, number)

    def to_dbapi_connection(
        self,
        attempt: Attempt,
        parameters: Mapping[str, Any],
        deadline: StatementDeadline,
        connect_until: float,
    ) -> Any:
        """The DBAPI connection of a successful attempt, as SQLAlchemy's dialect expects it."""
        attempt.pgconn.nonblocking = 1
        kind = AsyncDeadlineConnection if self._asyncio else DeadlineConnection
        connection: AnyConnection = kind(attempt.pgconn)
        connection.deadline = deadline
        connection.wait_limit = connect_until
        connection.poller = select.poll()
        connection.poller.register(attempt.pgconn.socket, select.POLLIN | _CLOSING)
        # A replication connection takes no extended protocol, which carries two messages at once.
        if self._pipelines_begin and not parameters.get("replication"):
            connection.cursor_factory = AsyncCursor if self._asyncio else Cursor
        for name in ("row_factory", "cursor_factory"):
            if parameters.get(name) is not None:
                setattr(connection, name, parameters[name])
        connection.prepare_threshold = parameters.get(
            "prepare_threshold", None if _behind_rds_proxy(parameters) else 5
        )
        if parameters.get("context") is not None:
            connection.context_adapters = AdaptersMap(parameters["context"].adapters)
        if not isinstance(connection, psycopg.AsyncConnection):
            connection.autocommit = bool(parameters.get("autocommit", False))
            return connection
        if parameters.get("autocommit"):
            await_only(connection.set_autocommit(True))
        return _adapt(connection)

    def error(self, text: str) -> Exception:
        """The driver's error for a failed connect, without the connection that knows the password."""
        return psycopg.OperationalError(text)

    def target(self, parameters: Mapping[str, Any]) -> str:
        """Host and port, for people."""
        host = parameters.get("host") or parameters.get("hostaddr") or "the default host"
        return f"{host}:{parameters.get('port') or self.default_port}"

    def describe(self, parameters: Mapping[str, Any]) -> dict[str, str | int]:
        """Span attributes of a connect."""
        port = str(parameters.get("port") or self.default_port).split(",")[0]
        known: dict[str, Any] = {
            "db.namespace": parameters.get("dbname"),
            "server.address": parameters.get("host") or parameters.get("hostaddr"),
            "server.port": int(port),
            "lambdadb.user": parameters.get("user"),
        }
        return {name: value for name, value in known.items() if value is not None}

    # Keeping

    def liveness(self, connection: Any) -> Liveness:
        """
        Whether an idle connection is still there, found out without a round trip.

        Sees whatever reached this host: FIN and RST, and so every ordinary end of a session. It cannot
        see a flow that was dropped in silence. **Costs:** no round trip; about a microsecond.
        """
        if connection.pgconn.status != _OK:
            return "closed"
        if not isinstance(connection, (DeadlineConnection, AsyncDeadlineConnection)):
            return "readable"  # a do_connect listener made it
        for _, event in connection.poller.poll(0):
            return "closed" if event & _CLOSED else "readable"
        return "quiet"

    def is_reusable(self, connection: Any) -> bool:
        """Whether a returned connection is between transactions and nothing sent to it is on its way."""
        # A cancel that was sent may arrive late, and would then hit another statement. A transaction
        # that is still open was meant to be rolled back, whoever was to do it.
        timed_out = getattr(connection, "timed_out", False)  # a do_connect listener may have made it
        pgconn = connection.pgconn
        return not timed_out and pgconn.transaction_status == pgconn.pipeline_status == 0

    def set_wait_limit(self, connection: Any, moment: float | None) -> None:
        """The moment at which every wait is given up; None: when the deadline of statements says so."""
        connection.wait_limit = moment

    def abort(self, connection: Any) -> None:
        """End a session that another thread may be using; a running statement is cancelled."""
        getattr(connection, "abort", connection.pgconn.finish)()

    # Transactions

    def begin(self, connection: sqlalchemy.Connection) -> transaction.TransactionHandle:
        """Begin a transaction whose outcome can be asked for; one round trip, BEGIN's own."""
        return transaction.begin(connection)

    def ask_outcome(self, connection: sqlalchemy.Connection, transaction_: Any) -> Outcome | None:
        """Ask another connection what became of a transaction; one round trip."""
        return transaction.ask_outcome(connection, transaction_)

    def meaning(self, error: BaseException) -> Meaning:
        """What an error of a statement means for its transaction."""
        return transaction.meaning_of(error)


def _behind_rds_proxy(parameters: Mapping[str, Any]) -> bool:
    """
    Whether the host is an RDS Proxy endpoint, which refuses the startup parameter `options`.

    The refusal: "RDS Proxy currently doesn't support command-line options" (0A000).
    """
    return is_proxy(str(parameters.get("host", "")))


def _adapt(connection: psycopg.AsyncConnection[Any]) -> Any:
    """The synchronous face that SQLAlchemy's asynchronous dialect gives to psycopg's connections."""
    from sqlalchemy.dialects.postgresql.psycopg import PGDialectAsync_psycopg

    async def connect(*_: object, **__: object) -> psycopg.AsyncConnection[Any]:
        return connection

    dbapi: Any = PGDialectAsync_psycopg.import_dbapi()  # type: ignore[no-untyped-call]
    return dbapi.connect(async_creator_fn=connect)
