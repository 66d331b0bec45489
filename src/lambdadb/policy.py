"""
When a connection is opened and when it is closed: the two policies that an engine can have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from lambdadb.errors import InvalidSettings


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What both policies share; choose `PerEnvironment` or `PerInvocation`."""

    keeps: ClassVar[bool]
    """Whether a connection outlives the invocation that opened it."""

    connections: int = 1
    """How many sessions may be open at once. Use more than 1 only if two transactions must be open."""

    checkout_timeout: float = 0.0
    """
    Seconds for which a checkout waits while all connections are in use, within the invocation's time.
    0 raises `ConnectionInUse` at once. A thread or task never waits for connections of its own.
    """

    idle_session_timeout: float | None = 60.0
    """
    Seconds without a statement after which the server ends the session (PostgreSQL 14 or later).
    None sends nothing. It is never sent to an RDS Proxy, which refuses it.
    """

    idle_in_transaction_session_timeout: float | None = 60.0
    """
    Seconds without a statement inside a transaction after which the server rolls it back and ends the
    session. So a killed environment does not keep its locks. None sends nothing.
    """

    ping_after: float = 300.0
    """
    Seconds unused after which a checkout sends a ping. It is below the 350 s after which AWS load
    balancers and NAT gateways drop an idle connection without a message to either end.
    """

    def __post_init__(self) -> None:
        if not isinstance(self.connections, int) or self.connections < 1:
            raise InvalidSettings(
                f"connections={self.connections!r}: use 1, or 2 for two transactions at once."
            )
        for name in ("checkout_timeout", "ping_after"):
            seconds = getattr(self, name)
            if not (isinstance(seconds, (int, float)) and seconds >= 0):
                raise InvalidSettings(f"{name}={seconds!r}: use 0 or more seconds.")
        for name in ("idle_session_timeout", "idle_in_transaction_session_timeout"):
            seconds = getattr(self, name)
            if seconds is not None and not (isinstance(seconds, (int, float)) and seconds >= 0.001):
                raise InvalidSettings(f"{name}={seconds!r}: use seconds above 0, or None.")

    @property
    def resets(self) -> bool:
        """Whether the session is reset before a later invocation uses it."""
        return False


@dataclass(frozen=True, kw_only=True)
class PerEnvironment(Policy):
    """
    Keep one connection for the life of the execution environment.

    It is the fastest policy while the database is awake, because a warm invocation does not connect.
    An open session of a frozen environment would keep an auto-pausing cluster awake. So the server
    ends it after `idle_session_timeout`. The next checkout notices this and connects again.

    **Costs:** one connect at the first checkout. Later checkouts cost none, or one ping after
    `ping_after` seconds unused. `reset="session"` costs one round trip in each later invocation.
    """

    keeps: ClassVar[bool] = True

    reset: Literal["none", "session"] = "none"
    """
    What is reset in the session before a later invocation uses it. "session": settings, role,
    temporary tables, advisory locks, LISTEN and prepared statements, by PostgreSQL's DISCARD ALL.
    "none": nothing, as with SQLAlchemy's pools. `SET LOCAL` always ends with its transaction.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reset not in ("none", "session"):
            raise InvalidSettings(f"reset={self.reset!r}: use 'none' or 'session'.")

    @property
    def resets(self) -> bool:
        """Whether the session is reset before a later invocation uses it."""
        return self.reset == "session"


class PerInvocation(Policy):
    """
    Connect once per invocation and leave no session behind.

    Use it for rare invocations, and for clusters that should pause. All sessions of one handler call
    use the connection in turn, and the end of the invocation closes it. Outside an invocation it is
    closed when the checkout ends. The engine keeps what it learned about the server, so a later
    connect does not query it again.

    **Costs:** one connect per invocation; closing costs no round trip.
    """

    keeps: ClassVar[bool] = False
