"""
Where and how a psycopg connection is opened: `lambdadb.drivers.base.Target`.
"""

from __future__ import annotations

import re
import select
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.adapt import AdaptersMap
from sqlalchemy.util import await_only

from lambdadb.drivers.base import AttemptFailed, Parameters, Proxy
from lambdadb.drivers.psycopg import tls
from lambdadb.drivers.psycopg.attempt import Attempt
from lambdadb.drivers.psycopg.connection import (
    CLOSING,
    AnyConnection,
    AsyncDeadlineConnection,
    DeadlineConnection,
)
from lambdadb.drivers.psycopg.instrumentation import describe_target
from lambdadb.drivers.psycopg.pipeline import AsyncCursor, Cursor
from lambdadb.drivers.psycopg.proxies import CANNOT_RESET, KnownProxies
from lambdadb.faults import Fault

if TYPE_CHECKING:
    from lambdadb.deadline import StatementDeadline
    from lambdadb.policy import Policy
    from lambdadb.tracing.span import Attributes

DEFAULT_PORT = 5432

# They detect a server that vanished without a message (a failover, a dropped connection): after 5 s if
# data is not acknowledged (tcp_user_timeout), and after 60 + 3 * 10 = 90 s during a long statement. This
# is below the 350 s after which NAT gateways and load balancers drop it (Amazon VPC User Guide).
_DEAD_PEER_DETECTION = {
    "tcp_user_timeout": 5000,  # milliseconds
    "keepalives_idle": 60,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class PsycopgTarget:
    """libpq's parameters, and the environment variables that libpq reads beside them."""

    parameters: Parameters
    environment: Mapping[str, str]
    asyncio: bool
    pipelines_begin: bool = False
    """Whether BEGIN is sent together with a transaction's first statement."""
    has_options: bool = False
    """Whether `options` has timeouts of the policy."""
    proxies: KnownProxies = field(default_factory=KnownProxies)
    """What the engine knows about proxies before its servers."""

    def __str__(self) -> str:
        host = self.parameters.get("host") or self.parameters.get("hostaddr") or "the default host"
        through = "" if self.proxy == "none" else f" through {self.proxy}"
        return f"{host}:{self.parameters.get('port') or DEFAULT_PORT}{through}"

    @property
    def proxy(self) -> Proxy:
        """The proxy before the server, as far as it is known."""
        return self.proxies.proxy_of(self.parameters)

    @property
    def attributes(self) -> Attributes:
        """Span attributes of a connect."""
        found = describe_target(self.parameters)
        return found if self.proxy == "none" else {**found, "lambdadb.proxy": self.proxy}

    @property
    def login_parameters(self) -> Mapping[str, object]:
        """The argument of a store of logins, with names that do not depend on the driver."""
        named = {("database" if k == "dbname" else k): v for k, v in self.parameters.items()}
        if named.get("hostaddr") and not named.get("host"):
            named["host"] = named["hostaddr"]
        return {**named, "default_port": self.environment.get("PGPORT") or DEFAULT_PORT}

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine: a socket or a loopback address."""
        return tls.is_local(self.parameters, self.environment)

    @property
    def tls_warning(self) -> str | None:
        """A warning if the caller's choice of TLS leaves the server unverified; None if it does not."""
        return tls.get_tls_warning(self.parameters, self.environment)

    def add_login(self, login: Mapping[str, object]) -> PsycopgTarget:
        """Return the target with a login. The login overrides what is there."""
        named = {("dbname" if name == "database" else name): value for name, value in login.items()}
        return replace(self, parameters={**self.parameters, **named})

    def add_session_settings(self, policy: Policy, tag: str | None) -> PsycopgTarget:
        """
        Return the target with the session's tag and timeouts, for the startup packet.

        To a proxy only the tag is sent. Both RDS Proxy and pgbouncer refuse other parameters by default
        (RDS Proxy: user, database, application_name, client_encoding, DateStyle, TimeZone,
        extra_float_digits and search_path are documented). A timeout of ours would also belong to a
        session that other clients use; `ALTER ROLE ... SET` and the proxy's own settings replace it.

        Raises:
            AttemptFailed: The policy resets sessions, which are not the client's own behind a proxy.
        """
        if policy.resets and self.proxy != "none":
            raise AttemptFailed(Fault.MISCONFIGURED, f"{self}: {CANNOT_RESET}", remedy="")
        parameters: Parameters = {**_DEAD_PEER_DETECTION, **self.parameters}
        if tag:
            parameters.setdefault("application_name", tag)
        timeouts = {
            "idle_session_timeout": policy.idle_session_timeout,
            "idle_in_transaction_session_timeout": policy.idle_in_transaction_session_timeout,
        }
        options = [f"-c {name}={round(s * 1000)}" for name, s in timeouts.items() if s is not None]
        has_options = bool(options) and self.proxy == "none"
        if has_options:
            # libpq reads PGOPTIONS only if no options are given. The caller's options come last and win.
            given = parameters.get("options", self.environment.get("PGOPTIONS", ""))
            parameters["options"] = " ".join([*options, given]).rstrip()
        return replace(self, parameters=parameters, has_options=has_options)

    def add_tls_defaults(self, *, always: bool) -> PsycopgTarget:
        """Return the target that verifies the server, unless the caller chose otherwise."""
        secured = tls.apply_tls_defaults(self.parameters, self.environment, always=always)
        return replace(self, parameters=secured)

    def check_verified(self, *, always: bool, allow_unverified: bool) -> None:
        """Raise `AttemptFailed` if a store's login must not be sent to this server."""
        tls.check_verified(
            self.parameters, self.environment, always=always, allow_unverified=allow_unverified
        )

    def learn(self, failure: AttemptFailed) -> bool:
        """Learn from the refusal of `options` that a proxy is there, if they were the policy's."""
        return self.has_options and self.proxies.learn_from_refusal(self.parameters, failure.text)

    def learn_pid(self, connection: AnyConnection, pid: int) -> None:
        """Compare the process id of the session that answers with the one that came with the login."""
        self.proxies.learn_from_session(self.parameters, connection.pgconn.backend_pid, pid)
        self._adapt_to_proxy(connection)

    def begin_attempt(self, number: int) -> Attempt:
        """Start attempt `number` (from 0) to log in."""
        return Attempt(self.parameters, number)

    def explain_rejection(self, text: str, seconds: float) -> str:
        """Return why the server was not trusted, and what to do. Makes up to two TLS handshakes."""
        return tls.explain_rejection(self.parameters, text, seconds)

    def to_dbapi_connection(
        self, attempt: Attempt, deadline: StatementDeadline, connect_until: float
    ) -> Any:
        """Return the DBAPI connection of a successful attempt, as SQLAlchemy's dialect expects it."""
        parameters = self.parameters
        attempt.pgconn.nonblocking = 1
        kind = AsyncDeadlineConnection if self.asyncio else DeadlineConnection
        connection: AnyConnection = kind(attempt.pgconn)
        connection.deadline = deadline
        connection.wait_limit = connect_until
        self.proxies.learn_from_handshake(parameters, attempt.pgconn.backend_pid)
        connection.idle_session_timeout = _find_idle_session_timeout(parameters)
        connection.poller = select.poll()
        connection.poller.register(attempt.pgconn.socket, select.POLLIN | CLOSING)
        # A replication connection does not support the extended protocol, which pipeline.py needs.
        if self.pipelines_begin and not parameters.get("replication"):
            connection.cursor_factory = AsyncCursor if self.asyncio else Cursor
        for name in ("row_factory", "cursor_factory"):
            if parameters.get(name) is not None:
                setattr(connection, name, parameters[name])
        connection.prepare_threshold = parameters.get("prepare_threshold", 5)
        connection.standby = attempt.pgconn.parameter_status(b"in_hot_standby")
        connection.learn_pid = self.learn_pid
        self._adapt_to_proxy(connection)
        if parameters.get("context") is not None:
            connection.context_adapters = AdaptersMap(parameters["context"].adapters)
        if not isinstance(connection, psycopg.AsyncConnection):
            connection.autocommit = bool(parameters.get("autocommit", False))
            return connection
        if parameters.get("autocommit"):
            await_only(connection.set_autocommit(True))
        return _adapt(connection)

    def _adapt_to_proxy(self, connection: AnyConnection) -> None:
        """
        Let a connection behind a proxy send nothing that needs a session of its own.

        A prepared statement would exist in one session of the server only, and RDS Proxy pins a client
        that prepares one. pgbouncer since 1.21 with `max_prepared_statements`, and libpq since 17, can
        do without the harm: then set `prepare_threshold` in `connect_args`.
        """
        connection.proxy = self.proxy
        if connection.proxy != "none":
            connection.prepare_threshold = self.parameters.get("prepare_threshold")
            connection.idle_session_timeout = None


def _find_idle_session_timeout(parameters: Mapping[str, Any]) -> float | None:
    """Return the seconds of the last `idle_session_timeout` in the options, if in plain milliseconds."""
    found = re.findall(r"idle[-_]session[-_]timeout=(\S+)", str(parameters.get("options", "")), re.I)
    return int(found[-1]) / 1000.0 if found and re.fullmatch(r"[1-9]\d*", found[-1]) else None


def _adapt(connection: psycopg.AsyncConnection[Any]) -> Any:
    """Wrap an asynchronous connection in the synchronous adapter of SQLAlchemy's dialect."""
    from sqlalchemy.dialects.postgresql.psycopg import PGDialectAsync_psycopg

    async def connect(*_: object, **__: object) -> psycopg.AsyncConnection[Any]:
        return connection

    dbapi: Any = PGDialectAsync_psycopg.import_dbapi()  # type: ignore[no-untyped-call]
    return dbapi.connect(async_creator_fn=connect)
