"""
Where and how a PyMySQL connection is opened: `lambdadb.drivers.base.Target`.
"""

from __future__ import annotations

import math
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from lambdadb.deadline import Clock
from lambdadb.drivers.base import AttemptFailed, Parameters
from lambdadb.drivers.pymysql import tls
from lambdadb.drivers.pymysql.attempt import Attempt
from lambdadb.drivers.pymysql.connection import DeadlineConnection
from lambdadb.drivers.pymysql.stream import Stream
from lambdadb.drivers.rds_endpoint import is_proxy
from lambdadb.faults import Fault

if TYPE_CHECKING:
    from lambdadb.deadline import StatementDeadline
    from lambdadb.policy import Policy
    from lambdadb.tracing.span import Attributes

DEFAULT_PORT = 3306
CANCEL = 5  # seconds after which the thread that cancels gives up
_SYSTEM = {"db.system.name": "mysql"}


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class PyMySQLTarget:
    """PyMySQL's parameters, and what lambdadb adds to them."""

    parameters: Parameters
    environment: Mapping[str, str]
    idle_session_timeout: int | None = None
    """The session's `wait_timeout` in seconds; None leaves the server's."""
    tls_context: ssl.SSLContext | None = None
    """None: without TLS."""

    def __str__(self) -> str:
        if path := self.parameters.get("unix_socket"):
            return str(path)
        return f"{self.parameters.get('host') or 'localhost'}:{self._port}"

    @property
    def _port(self) -> int:
        return int(self.parameters.get("port") or DEFAULT_PORT)

    @property
    def attributes(self) -> Attributes:
        """Span attributes of a connect, from its parameters, because it may have no session."""
        known = {
            **_SYSTEM,
            "db.namespace": _drop_suspicious(self.parameters.get("database"), "@:"),
            "server.address": _drop_suspicious(self.parameters.get("host"), "@"),
            "server.port": self._port,
            "lambdadb.user": self.parameters.get("user"),
        }
        return {name: value for name, value in known.items() if value is not None}

    @property
    def login_parameters(self) -> Mapping[str, object]:
        """The argument of a store of logins."""
        return {**self.parameters, "default_port": DEFAULT_PORT}

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine: a socket or a loopback address."""
        return tls.is_local(self.parameters)

    @property
    def tls_warning(self) -> str | None:
        """A warning if the caller's choice of TLS leaves the server unverified; None if it does not."""
        return tls.get_tls_warning(self.parameters)

    def add_login(self, login: Mapping[str, object]) -> PyMySQLTarget:
        """Return the target with a login. The login overrides what is there."""
        return replace(self, parameters={**self.parameters, **login})

    def add_session_settings(self, policy: Policy, tag: str | None) -> PyMySQLTarget:
        """
        Return the target with the session's tag and timeout.

        MySQL has one timeout for a session that is idle, inside and outside of a transaction, in whole
        seconds. RDS Proxy gets none: it may keep a session to itself after a SET.
        """
        parameters = dict(self.parameters)
        if tag:
            parameters.setdefault("program_name", tag)
        timeouts = [policy.idle_session_timeout, policy.idle_in_transaction_session_timeout]
        shortest = min((math.ceil(s) for s in timeouts if s is not None), default=None)
        proxy = is_proxy(str(parameters.get("host", "")))
        return replace(self, parameters=parameters, idle_session_timeout=None if proxy else shortest)

    def add_tls_defaults(self, *, always: bool) -> PyMySQLTarget:
        """Return the target that verifies the server, unless the caller chose otherwise."""
        mode = tls.find_mode(self.parameters, always=always)
        if mode == "plain":
            return self
        return replace(self, tls_context=tls.make_context(self.parameters, self.environment, mode))

    def check_verified(self, *, always: bool, allow_unverified: bool) -> None:
        """Raise `AttemptFailed` if a store's login must not be sent to this server."""
        tls.check_verified(self.parameters, always=always, allow_unverified=allow_unverified)

    def learn(self, failure: AttemptFailed) -> bool:
        """Learn nothing: no refusal shows that a proxy is there."""
        del failure
        return False

    def begin_attempt(self, number: int) -> Attempt:
        """Start attempt `number` (from 0) to log in."""
        place = {**self.parameters, "host": self.parameters.get("host") or "localhost"}
        return Attempt({**place, "port": self._port}, number, self._make_connection)

    def explain_rejection(self, text: str, seconds: float) -> str:
        """Return why the server was not trusted, and what to do. Does not connect."""
        del seconds
        return tls.explain_rejection(text)

    def to_dbapi_connection(
        self, attempt: Attempt, deadline: StatementDeadline, connect_until: float
    ) -> Any:
        """Return the DBAPI connection of a successful attempt, as SQLAlchemy's dialect expects it."""
        connection = attempt.connection
        assert connection is not None
        if not is_proxy(str(self.parameters.get("host", ""))):
            # The ids of a proxy's sessions are not the server's: KILL QUERY might meet somebody else's.
            connection.dial = partial(dial_plainly, self._make_connection)
        connection.watch(deadline, connect_until)
        return connection

    def _make_connection(self) -> DeadlineConnection:
        """Make a connection that is not open."""
        given = self.parameters
        names = given.keys() - set(tls.PARAMETERS) - {"autocommit", "auth_plugin_map", "port"}
        connection = DeadlineConnection(
            **{name: given[name] for name in names},
            # With a context PyMySQL refuses a server that offers no TLS.
            **({"ssl": self.tls_context} if self.tls_context else {"ssl_disabled": True}),
            port=self._port,
            autocommit=None,
            auth_plugin_map={
                **({} if self.tls_context or self.is_local else _IN_CLEAR),
                **given.get("auth_plugin_map", {}),
            },
            defer_connect=True,
        )
        connection.trusts_key = self.is_local
        settings = {"autocommit": int(bool(given.get("autocommit", False)))}
        if self.idle_session_timeout is not None:
            settings["wait_timeout"] = self.idle_session_timeout
            if "wait_timeout" not in str(given.get("init_command", "")):
                connection.idle_session_timeout = float(self.idle_session_timeout)
        connection.session_settings = settings
        return connection


def dial_plainly(make_connection: Callable[[], DeadlineConnection], address: Any) -> DeadlineConnection:
    """
    Open a second session for one command; everything in it ends after `CANCEL` seconds.

    Args:
        make_connection: Makes a connection that is not open.
        address: The server's, as of `socket.getpeername()`.

    Raises:
        pymysql.Error: It could not be opened.
    """
    connection = make_connection()
    if isinstance(address, str):
        plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        plain.connect(address)
    else:
        plain = socket.create_connection(address[:2], timeout=CANCEL)
    stream = connection.stream = Stream(plain)
    clock = Clock()
    end = clock.now() + CANCEL

    def wait(descriptor: int, event: int) -> None:
        if not clock.wait({descriptor: event}, end - clock.now()):
            raise TimeoutError("no answer to KILL QUERY")

    stream.wait = wait
    connection.connect(stream)
    return connection


class _Refused:
    """A kind of login that sends the password in clear, on a connection without TLS."""

    def __init__(self, connection: Any) -> None:
        del connection

    def authenticate(self, packet: object) -> None:
        """Refuse it."""
        del packet
        raise AttemptFailed(
            Fault.UNTRUSTED,
            "the server asked for the password in clear, on a connection without TLS. It was not sent",
        )


_IN_CLEAR = {"mysql_clear_password": _Refused, "dialog": _Refused}


def _drop_suspicious(name: Any, characters: str) -> str | None:
    return None if name is None or any(one in str(name) for one in characters) else str(name)
