"""
What the rest of lambdadb needs of a driver: the protocols that every driver fulfils.

A driver is one object for each engine. It holds no connection. A connection that a listener to
SQLAlchemy's `do_connect` event made is another object than the driver's own; every method that takes
a connection accepts it.
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
"""What a driver's `connect()` takes, by its own names."""

Liveness = Literal["quiet", "readable", "closed"]
"""
What the socket of an idle connection shows.

`quiet`: nothing came, so it is alive as far as this host knows. `readable`: something came that nobody
asked for, such as a notification or the server's last words; a ping decides. `closed`: the server, or
something on the way, has ended it.
"""

Outcome = Literal["committed", "aborted", "unknown"]
"""What became of a transaction. `unknown`: the server's answer would prove nothing."""

Meaning = Literal["conflict", "not the writer", "lost", "out of time", "ended", "other"]
"""
What an error of a statement means for its transaction.

`conflict`: the server rolled it back, and another run may succeed. `not the writer`: the node takes no
writes; another connect may find the one that does. `lost`: the connection is gone. `out of time`: the
invocation's time was over. `ended`: the unit of work has ended the transaction, or was to commit it.
`other`: the rest.
"""


class AttemptFailed(Exception):
    """
    One attempt to connect failed, or has not been answered so far.

    Attributes:
        fault: What was wrong.
        text: The driver's own words.
        silent: Whether it is only unanswered so far.
        refused: Whether nothing listens at the address.
        remedy: What to do, where more is known than the fault alone tells.
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


class Attempt(Protocol):
    """
    One attempt to log in, which never blocks. Every method may raise `AttemptFailed`.

    Attributes:
        socket: The descriptor to wait on; it may change with each `advance()`.
        event: What to wait for: `selectors.EVENT_READ` or `EVENT_WRITE`.
        got_first_byte: Whether the server has said anything yet.
    """

    socket: int
    event: int
    got_first_byte: bool

    def advance(self) -> bool:
        """Do what can be done now that the socket is ready; True once logged in."""

    def describe_silence(self) -> AttemptFailed:
        """What it means that no answer has come so far."""

    def close(self) -> None:
        """End it and, if it has one, its session."""


class Transaction(Protocol):
    """A transaction of a unit of work, whose outcome can be asked for after its connection is lost."""

    @property
    def id(self) -> str:
        """The server's name of it; empty if nothing can be written on that node."""

    @property
    def commit_state(self) -> Literal["none", "sent", "done"]:
        """How far its COMMIT came: not sent or refused, sent and not answered, carried out."""

    @property
    def is_lost(self) -> bool:
        """Whether its connection is gone."""

    @property
    def committed_by_unit(self) -> bool | None:
        """Whether the unit of work itself committed it; None if only the server can tell."""

    def allow_commit(self) -> None:
        """
        The unit of work has returned: COMMIT may be sent now. Until then the connection refuses it.

        It is carried out for this transaction only, never for another one that the unit has begun. If
        this one has failed or ended already, this raises an error whose meaning is `ended`.
        """

    def leave(self) -> None:
        """The unit of work is over: its connection is an ordinary one again."""


class Target(Protocol):
    """
    A server, and everything that a session there is opened with.

    It is frozen: each method that adds something gives another target. `str()` is host and port.
    """

    parameters: Parameters
    """What the driver's own `connect()` would take."""

    @property
    def attributes(self) -> Attributes:
        """Span attributes of a connect, such as `server.address`."""

    @property
    def login_parameters(self) -> Mapping[str, object]:
        """What a store of logins is asked with: `user`, `host`, `port`, `database`, `default_port`."""

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine: a socket or a loopback address."""

    @property
    def tls_warning(self) -> str | None:
        """What the caller's choice of TLS leaves unverified; None if nothing."""

    def add_login(self, login: Mapping[str, object]) -> Target:
        """The target with a login, which wins over what is there."""

    def add_session_settings(self, policy: Policy, tag: str | None) -> Target:
        """The target with the session's name and timeouts; what is there already stays."""

    def add_tls_defaults(self, *, always: bool) -> Target:
        """The target that verifies the server, unless the caller chose otherwise; this machine too if
        `always`. Raises `AttemptFailed` where there is nothing to verify it with."""

    def check_verified(self, *, always: bool, allow_unverified: bool) -> None:
        """Raise `AttemptFailed` where a store's login must not be sent to this server."""

    def begin_attempt(self, number: int) -> Attempt:
        """Start attempt `number` (from 0) to log in; each begins at another host or address."""

    def explain_rejection(self, text: str, seconds: float) -> str:
        """Why the server was not trusted, and what to do; may connect, for `seconds` at most."""

    def to_dbapi_connection(
        self, attempt: Attempt, deadline: StatementDeadline, connect_until: float
    ) -> Any:
        """
        The DBAPI connection of a successful attempt.

        Its statements end with `deadline` and, until `set_wait_limit(connection, None)`, at
        `connect_until`.
        """


class Driver(Protocol):
    """A database driver, as the connector, the pool and the transaction loop see it."""

    session_tag_bytes: int
    """How long a session tag may be; the server cuts a longer one."""

    def check_installation(self, *, traced: bool) -> None:
        """
        Log, while the engine is made, what the installed driver lacks or does differently.

        Args:
            traced: Whether the engine's own tracer records statements.
        """

    def check_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Refuse, while the engine is made, parameters that cannot work; raises `InvalidSettings`."""

    def make_target(self, arguments: Sequence[Any], parameters: Mapping[str, Any]) -> Target:
        """Where the driver's `connect(*arguments, **parameters)` would connect to."""

    def error(self, text: str) -> Exception:
        """The driver's error for a failed connect; it holds no password."""

    def describe_session(self, connection: Any, error: BaseException | None) -> Attributes:
        """Span attributes of a statement: what is known of its session and of its error."""

    def liveness(self, connection: Any) -> Liveness:
        """Whether an idle connection is still there, without a round trip."""

    def is_reusable(self, connection: Any) -> bool:
        """Whether a returned connection is between transactions and nothing sent to it is on its way."""

    def idle_session_timeout(self, connection: Any) -> float | None:
        """Seconds unused after which the server ends its session; None if not known, or never."""

    def reset_session(self, connection: Any) -> bool:
        """
        Bring an idle session back to the state in which it began; one round trip.

        False if that is not possible: then the connection has to be replaced.
        """

    def set_wait_limit(self, connection: Any, moment: float | None) -> None:
        """The moment at which every wait is given up; None: when the deadline of statements says so."""

    def abort(self, connection: Any) -> None:
        """End a session that another thread may be using; a running statement is cancelled."""

    def begin(self, connection: sqlalchemy.Connection) -> Transaction:
        """
        Begin the transaction of a unit of work; one round trip, BEGIN's own.

        Until `Transaction.leave()` the connection begins no other one by itself. Raises
        `InvalidSettings` for a connection that is not the driver's own.
        """

    def ask_outcome(self, connection: sqlalchemy.Connection, transaction: Transaction) -> Outcome | None:
        """
        Ask another connection what became of a transaction; one round trip, or two.

        None if it is not decided yet, or not known to this node. A session that has it open is ended.
        """

    def names_same_tables(self, connection: sqlalchemy.Connection, transaction: Transaction) -> bool:
        """Whether a table's name leads to the same table here as where the transaction began."""

    def meaning(self, error: BaseException, transaction: Transaction | None = None) -> Meaning:
        """What an error of a statement, SQLAlchemy's or the driver's own, means for its transaction."""

    def translate(self, error: BaseException) -> LambdaDBError | None:
        """What an error is for lambdadb's callers; None if it is the server's or somebody else's."""
