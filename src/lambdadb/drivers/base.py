"""
The protocols of a driver.

A driver is one object for each engine. It has no connection. A listener to SQLAlchemy's `do_connect`
event may make a connection that is not of the driver's own class. Every method that takes a connection
accepts such a connection too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

from lambdadb.faults import Fault

if TYPE_CHECKING:
    import sqlalchemy

    from lambdadb.deadline import StatementDeadline
    from lambdadb.errors import LambdaDBError
    from lambdadb.policy import Policy
    from lambdadb.tracing.span import Attributes

Parameters = dict[str, Any]
"""The arguments of a driver's `connect()`, with its own names."""

Liveness = Literal["quiet", "readable", "closed"]
"""
The state of the socket of an idle connection.

`quiet`: nothing came, so the connection is alive as far as this host knows. `readable`: data came
unasked, such as a notification or the server's last message; a ping decides. `closed`: the server, or
something in the network, has ended the connection.
"""

Proxy = Literal["rds-proxy", "pgbouncer", "none"]
"""
What shares the server's sessions among its clients. `pgbouncer` stands for all poolers but RDS Proxy.
`none`: each connection has a session of its own.
"""

Outcome = Literal["committed", "aborted", "unknown"]
"""What became of a transaction. `unknown`: the server's answer proves nothing."""

Meaning = Literal[
    "conflict", "not the writer", "lost", "out of time", "unanswered commit", "ended", "other"
]
"""
What an error of a statement means for its transaction.

`conflict`: the server rolled it back, and another run may succeed. `not the writer`: the node takes no
writes; another connect may find the one that does. `lost`: the connection is gone. `out of time`: the
invocation's time was over. `unanswered commit`: it was over before the answer to a statement of the unit
that may be a COMMIT. `ended`: the unit of work has ended the transaction, or tried to commit it.
`other`: any other error.
"""


class AttemptFailed(Exception):
    """
    One attempt to connect failed, or has got no answer so far.

    Attributes:
        fault: What was wrong.
        text: The driver's own words.
        silent: Whether it only has no answer so far.
        refused: Whether nothing listens at the address.
        remedy: What to do; by default the fault's own remedy.
    """

    def __init__(
        self,
        fault: Fault,
        text: str,
        *,
        silent: bool = False,
        refused: bool = False,
        remedy: str | None = None,
    ) -> None:
        super().__init__(text)
        self.fault = fault
        self.text = text
        self.silent = silent
        self.refused = refused
        self.remedy = fault.remedy if remedy is None else remedy

    def change_fault(self, fault: Fault) -> None:
        """Make it another fault, with the remedy of that one."""
        self.fault, self.remedy = fault, fault.remedy


class Attempt(Protocol):
    """
    One attempt to log in, which never blocks. Every method may raise `AttemptFailed`.

    Attributes:
        socket: The descriptor to wait on; it may change with each `advance()`.
        event: What to wait for: `selectors.EVENT_READ` or `EVENT_WRITE`.
        got_first_byte: Whether a byte of the server has come.
        end_is_counted: Whether the server counts an end of the attempt as an error of this host.
    """

    socket: int
    event: int
    got_first_byte: bool

    @property
    def end_is_counted(self) -> bool: ...

    def advance(self) -> bool:
        """Do what can be done now that the socket is ready; True once logged in."""

    def describe_silence(self) -> AttemptFailed:
        """Return the failure that an attempt without an answer stands for."""

    def close(self) -> None:
        """End the attempt, and its session if it has one."""


class Transaction(Protocol):
    """The transaction of a unit of work. Its outcome can be asked for after its connection is lost."""

    doubt: str
    """Why an outcome that is `unknown` cannot be known, for the error."""

    @property
    def id(self) -> str:
        """The transaction's id on the server; empty if the node takes no writes."""

    @property
    def commit_state(self) -> Literal["none", "sent", "done"]:
        """How far its COMMIT came: not sent or refused, sent and not answered, or carried out."""

    @property
    def is_lost(self) -> bool:
        """Whether its connection is gone."""

    @property
    def committed_by_unit(self) -> bool | None:
        """Whether the unit of work itself committed it; None if only the server knows."""

    @property
    def may_be_committed_by_unit(self) -> bool:
        """Whether a COMMIT that the unit of work sent may have been carried out without an answer."""

    @property
    def may_be_committed_apart(self) -> bool:
        """
        Whether a text without an answer may have committed something after the transaction's end.

        No question to the server can find that out.
        """

    def allow_commit(self) -> None:
        """
        Allow COMMIT, since the unit of work has returned. Until then the connection refuses it.

        COMMIT is carried out for this transaction only, never for another one that the unit has begun.
        If this one has failed or ended, the method raises an error whose meaning is `ended`.
        """

    def leave(self) -> None:
        """End the unit of work. Its connection is an ordinary one again."""


class Target(Protocol):
    """
    A server, and all parameters of a session there.

    It is frozen: each method that adds something returns another target. `str()` is host and port, and
    the proxy if one is known.
    """

    parameters: Parameters
    """The arguments of the driver's own `connect()`."""

    @property
    def attributes(self) -> Attributes:
        """Span attributes of a connect, such as `server.address`."""

    @property
    def login_parameters(self) -> Mapping[str, object]:
        """The argument of a store of logins: `user`, `host`, `port`, `database`, `default_port`."""

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine: a socket or a loopback address."""

    @property
    def tls_warning(self) -> str | None:
        """A warning if the caller's choice of TLS leaves the server unverified; None if it does not."""

    def add_login(self, login: Mapping[str, object]) -> Target:
        """Return the target with a login. The login overrides what is there."""

    def add_session_settings(self, policy: Policy, tag: str | None) -> Target:
        """Return the target with the session's tag and timeouts. What is already there stays."""

    def add_tls_defaults(self, *, always: bool) -> Target:
        """
        Return the target that verifies the server, unless the caller chose otherwise.

        With `always` a server on this machine is verified too. Raises `AttemptFailed` if the root
        certificates are missing.
        """

    def check_verified(self, *, always: bool, allow_unverified: bool) -> None:
        """Raise `AttemptFailed` if a store's login must not be sent to this server."""

    def learn(self, failure: AttemptFailed) -> bool:
        """
        Learn from a refusal that the server is behind a proxy.

        True if the next attempt, which sends what the proxy accepts, may succeed.
        """

    def begin_attempt(self, number: int) -> Attempt:
        """Start attempt `number` (from 0) to log in. Each begins at another host or address."""

    def explain_rejection(self, text: str, seconds: float) -> str:
        """Return why the server was not trusted, and what to do. May connect, for `seconds` at most."""

    def to_dbapi_connection(
        self, attempt: Attempt, deadline: StatementDeadline, connect_until: float
    ) -> Any:
        """
        Return the DBAPI connection of a successful attempt.

        Its statements end with `deadline` and, until `set_wait_limit(connection, None)`, at
        `connect_until`.
        """


class Driver(Protocol):
    """A database driver, for the connector, the pool and the transaction loop."""

    session_tag_bytes: int
    """The longest session tag in bytes. The server cuts a longer one."""

    def choose_proxy(self, proxy: Proxy | None) -> None:
        """Set the proxy that the engine's settings name; None: it is to be found."""

    def check_installation(self, *, traced: bool) -> None:
        """
        Log, while the engine is made, what the installed driver lacks.

        Args:
            traced: Whether the engine's own tracer records statements.
        """

    def check_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Raise `InvalidSettings`, while the engine is made, for parameters that cannot work."""

    def make_target(self, arguments: Sequence[Any], parameters: Mapping[str, Any]) -> Target:
        """Return the target of the driver's `connect(*arguments, **parameters)`."""

    def error(self, text: str) -> Exception:
        """Return the driver's error for a failed connect. It contains no password."""

    def describe_session(self, connection: Any, error: BaseException | None) -> Attributes:
        """Return the span attributes of a statement: those of its session and of its error."""

    def liveness(self, connection: Any) -> Liveness:
        """Return the state of an idle connection, without a round trip."""

    def has_proxy(self, connection: Any) -> bool:
        """Whether a proxy answers a ping of this connection, and shares sessions of the server."""

    def is_reusable(self, connection: Any) -> bool:
        """Whether a returned connection is outside of a transaction and expects no answer."""

    def idle_session_timeout(self, connection: Any) -> float | None:
        """Return the seconds unused after which the server ends a session; None if unknown or never."""

    def reset_session(self, connection: Any) -> bool:
        """
        Reset an idle session to the state in which it began, in one round trip.

        False if that is not possible. Then the connection has to be replaced.
        """

    def set_wait_limit(self, connection: Any, moment: float | None) -> None:
        """Set the moment at which every wait ends. None: only the deadline of statements ends it."""

    def abort(self, connection: Any) -> None:
        """End a session that another thread may be using. A running statement is cancelled."""

    def begin(self, connection: sqlalchemy.Connection) -> Transaction:
        """
        Begin the transaction of a unit of work, in the one round trip of BEGIN.

        Until `Transaction.leave()` the connection begins no other transaction. Raises
        `InvalidSettings` for a connection that is not of the driver's own class.
        """

    def ask_outcome(self, connection: sqlalchemy.Connection, transaction: Transaction) -> Outcome | None:
        """
        Ask on another connection what became of a transaction, in one or two round trips.

        None if it is not decided yet, or this node does not know it. A session that still has the
        transaction open is ended.
        """

    def names_same_tables(self, connection: sqlalchemy.Connection, transaction: Transaction) -> bool:
        """Whether a table's name means the same table here as where the transaction began."""

    def meaning(self, error: BaseException, transaction: Transaction | None = None) -> Meaning:
        """Return what an error, SQLAlchemy's or the driver's own, means for its transaction."""

    def translate(self, error: BaseException) -> LambdaDBError | None:
        """Return lambdadb's error for it; None if it has none."""
