"""
What the rest of lambdadb needs of a driver: the protocols that every driver fulfils.

A driver is one object for each engine. It holds no connection. A connection that a listener to
SQLAlchemy's `do_connect` event made is another object than the driver's own; every method that takes
a connection accepts it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol

from lambdadb.faults import Fault

if TYPE_CHECKING:
    import sqlalchemy

    from lambdadb.deadline import StatementDeadline
    from lambdadb.policy import Policy

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

Meaning = Literal["conflict", "not the writer", "lost", "other"]
"""
What an error of a statement means for its transaction.

`conflict`: the server rolled it back, and another run may succeed. `not the writer`: the node takes no
writes; another connect may find the one that does. `lost`: the connection is gone. `other`: the rest.
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
    """A transaction whose outcome can be asked for after its connection is lost."""

    id: str
    """The server's name of it; empty if it cannot have written anything."""

    @property
    def commit_state(self) -> Literal["none", "sent", "done"]:
        """How far its COMMIT came."""

    @property
    def is_begun(self) -> bool:
        """Whether it has not been ended, well or not."""

    @property
    def is_open(self) -> bool:
        """Whether it has not been ended, and nothing in it has failed."""


class Driver(Protocol):
    """A database driver, as the connector, the pool and the transaction loop see it."""

    system: str
    """OpenTelemetry's `db.system.name`."""
    default_port: int
    """The port where none is given."""
    session_tag_bytes: int
    """How long a session tag may be; the server cuts a longer one."""

    def check_parameters(self, parameters: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        """Refuse, while the engine is made, parameters that cannot work; raises `InvalidSettings`."""

    def check_installation(self) -> None:
        """Log, while the engine is made, what the installed driver lacks or does differently."""

    def connect_parameters(self, *arguments: Any, **keywords: Any) -> Parameters:
        """The parameters that the driver's own `connect()` would connect with."""

    def add_session_settings(
        self, parameters: Mapping[str, Any], policy: Policy, tag: str | None
    ) -> Parameters:
        """`parameters` with the session's name and timeouts; what is set already stays."""

    def add_tls_defaults(
        self, parameters: Mapping[str, Any], environment: Mapping[str, str]
    ) -> Parameters:
        """`parameters` that verify the server, unless the caller chose otherwise."""

    def describe_tls_weakness(
        self, parameters: Mapping[str, Any], environment: Mapping[str, str]
    ) -> str | None:
        """What the caller's choice leaves unverified; None if nothing."""

    def explain_rejection(self, parameters: Mapping[str, Any], text: str, seconds: float) -> str:
        """Why a server was not trusted, and what to do; may connect, for `seconds` at most."""

    def is_local(self, parameters: Mapping[str, Any], environment: Mapping[str, str]) -> bool:
        """Whether the server is on this machine: a socket or a loopback address."""

    def begin_attempt(self, parameters: Mapping[str, Any], number: int) -> Attempt:
        """Start attempt `number` (from 0) to log in; each begins at another host or address."""

    def to_dbapi_connection(
        self,
        attempt: Attempt,
        parameters: Mapping[str, Any],
        deadline: StatementDeadline,
        connect_until: float,
    ) -> Any:
        """
        The DBAPI connection of a successful attempt.

        Its statements end with `deadline` and, until `set_wait_limit(connection, None)`, at
        `connect_until`.
        """

    def error(self, text: str) -> Exception:
        """The driver's error for a failed connect; it holds no password."""

    def target(self, parameters: Mapping[str, Any]) -> str:
        """Host and port, for people."""

    def describe(self, parameters: Mapping[str, Any]) -> dict[str, str | int]:
        """Span attributes of a connect: `db.namespace`, `server.address`, `server.port`, user."""

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
        """Begin a transaction whose outcome can be asked for; one round trip, BEGIN's own."""

    def ask_outcome(self, connection: sqlalchemy.Connection, transaction: Transaction) -> Outcome | None:
        """
        Ask another connection, in one round trip, what became of a transaction.

        None if it is not decided yet, or not known to this node. A session that has it open is ended.
        """

    def meaning(self, error: BaseException) -> Meaning:
        """What an error of a statement, SQLAlchemy's or the driver's own, means for its transaction."""
