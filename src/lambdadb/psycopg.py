"""
The road over psycopg 3: attempts to log in that never block, the session's startup parameters, and
the check for a dead socket. What differs between drivers is here and nowhere else.
"""

from __future__ import annotations

import re
import select
import selectors
from collections.abc import Mapping
from typing import Any, Literal

import psycopg
from psycopg import pq
from psycopg.adapt import AdaptersMap
from psycopg.conninfo import make_conninfo
from sqlalchemy.util import await_only

from lambdadb.faults import Fault, fault_of
from lambdadb.policy import Policy
from lambdadb.retry import AttemptFailed

AnyConnection = psycopg.Connection[Any] | psycopg.AsyncConnection[Any]

# Keywords of psycopg.connect() that are not libpq's.
_PSYCOPG_KEYWORDS = ("autocommit", "prepare_threshold", "context", "row_factory", "cursor_factory")

_PROXY_HOST = re.compile(r"\.proxy-[^.]+\.[^.]+\.rds\.amazonaws\.com(\.cn)?$")

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

    Raises:
        AttemptFailed: From any method, when the server or the network said no.
    """

    def __init__(self, conninfo: str) -> None:
        self.pgconn = pq.PGconn.connect_start(conninfo.encode())
        self.event = selectors.EVENT_WRITE
        self.logged_in = False

    @property
    def socket(self) -> int:
        """The descriptor to wait on; libpq may change it from one address to the next."""
        return self.pgconn.socket

    def advance(self) -> bool:
        """Do what can be done now; True once logged in."""
        status = self.pgconn.connect_poll()
        if status == pq.PollingStatus.FAILED:
            text = self.pgconn.error_message.decode(errors="replace").strip()
            raise AttemptFailed(fault_of(text), text)
        self.logged_in = status == pq.PollingStatus.OK
        reading = status == pq.PollingStatus.READING
        self.event = selectors.EVENT_READ if reading else selectors.EVENT_WRITE
        return self.logged_in

    def silence(self) -> AttemptFailed:
        """What it means that no answer has come so far."""
        if self.pgconn.status == pq.ConnStatus.STARTED:
            return AttemptFailed(Fault.UNREACHABLE, "connecting: no answer so far", silent=True)
        text = "the connection was accepted, but the login was not answered so far"
        return AttemptFailed(Fault.RESUMING, text, silent=True)

    def close(self) -> None:
        """End it and, if it has one, its session."""
        self.pgconn.finish()


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
        if policy.idle_session_timeout is not None and not self.behind_proxy(parameters):
            option = f"-c idle_session_timeout={round(policy.idle_session_timeout * 1000)}"
            parameters["options"] = f"{option} {parameters.get('options', '')}".rstrip()
        return parameters

    @staticmethod
    def behind_proxy(parameters: Mapping[str, Any]) -> bool:
        """
        Whether the host is an RDS Proxy endpoint, which refuses the startup parameter `options`.

        The refusal: "RDS Proxy currently doesn't support command-line options" (0A000).
        """
        return bool(_PROXY_HOST.search(str(parameters.get("host", ""))))

    @staticmethod
    def target(parameters: Mapping[str, Any]) -> str:
        """Host and port as shown to people."""
        host = parameters.get("host") or parameters.get("hostaddr") or "the default host"
        return f"{host}:{parameters.get('port') or 5432}"

    @staticmethod
    def attempt(parameters: Mapping[str, Any]) -> Attempt:
        """Start an attempt to log in. Resolving the host name may block."""
        libpq = {k: v for k, v in parameters.items() if k not in _PSYCOPG_KEYWORDS}
        return Attempt(make_conninfo("", **libpq))

    def adopt(self, attempt: Attempt, parameters: Mapping[str, Any]) -> Any:
        """The DBAPI connection that the engine's dialect expects, made of a successful attempt."""
        attempt.pgconn.nonblocking = 1
        kind = psycopg.AsyncConnection if self._asyncio else psycopg.Connection
        connection: AnyConnection = kind(attempt.pgconn)
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


# What an idle connection's socket tells without asking the server. quiet: alive, as far as this host
# knows. readable: something came unasked, a notification or the server's last words; a ping settles it.
# closed: the server, or something on the way, has ended the connection.
SocketState = Literal["quiet", "readable", "closed"]

# Linux alone tells a socket that the peer closed from one that has data; elsewhere both are readable.
_CLOSING = getattr(select, "POLLRDHUP", 0)
_CLOSED = _CLOSING | select.POLLHUP | select.POLLERR | select.POLLNVAL


def socket_state(connection: AnyConnection) -> SocketState:
    """
    Whether an idle connection is still there, found out without a round trip.

    Sees whatever reached this host: FIN and RST, and so every ordinary end of a session. It cannot see a
    flow that was dropped in silence. **Costs:** no round trip; about a microsecond.
    """
    if connection.pgconn.status != pq.ConnStatus.OK:
        return "closed"
    poll = select.poll()
    poll.register(connection.pgconn.socket, select.POLLIN | _CLOSING)
    for _, event in poll.poll(0):
        return "closed" if event & _CLOSED else "readable"
    return "quiet"
