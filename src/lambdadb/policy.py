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
    """Sessions that may be open at once. More than one only where two transactions must be."""

    checkout_timeout: float = 0.0
    """
    Seconds for which a checkout waits while all connections are in use, within the invocation's time.
    0 raises `ConnectionInUse` at once. A thread or task that has them all itself never waits.
    """

    idle_session_timeout: float | None = 60.0
    """
    Seconds without a statement after which the server ends the session (PostgreSQL 14 or later).
    None sends nothing. Never sent to an RDS Proxy, which refuses it.
    """

    idle_in_transaction_session_timeout: float | None = 60.0
    """
    Seconds without a statement inside a transaction after which the server rolls it back and ends the
    session: what a killed environment leaves behind holds its locks no longer. None sends nothing.
    """

    ping_after: float = 300.0
    """
    Seconds unused after which a checkout asks the server, once, if it is still there. Below the
    350 s after which AWS load balancers and NAT gateways drop a flow without telling either end.
    """

    def __post_init__(self) -> None:
        if not isinstance(self.connections, int) or self.connections < 1:
            raise InvalidSettings(f"connections={self.connections!r}: use 1, or 2 where two are needed.")
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
        """Whether an invocation begins with the session's settings as they were at its start."""
        return False


@dataclass(frozen=True, kw_only=True)
class PerEnvironment(Policy):
    """
    Keep one connection for the life of the execution environment.

    The fastest while the database is awake: a warm invocation connects to nothing. A frozen
    environment's open session would keep an auto-pausing cluster awake, so the server is told to
    end it after `idle_session_timeout`; the next checkout notices, and connects again.

    **Costs:** first checkout: one connect. Later: none; one ping after `ping_after` unused. With
    `reset="session"` one round trip in each later invocation.
    """

    keeps: ClassVar[bool] = True

    reset: Literal["none", "session"] = "none"
    """
    What the session is cleared of before a later invocation uses it. "session": settings, role,
    temporary tables, advisory locks, LISTEN and prepared statements, by PostgreSQL's DISCARD ALL.
    "none": nothing, as with SQLAlchemy's pools; `SET LOCAL` ends with its transaction by itself.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reset not in ("none", "session"):
            raise InvalidSettings(f"reset={self.reset!r}: use 'none' or 'session'.")

    @property
    def resets(self) -> bool:
        """Whether an invocation begins with the session's settings as they were at its start."""
        return self.reset == "session"


class PerInvocation(Policy):
    """
    Connect once per invocation and leave no session behind.

    The choice for rare invocations and for clusters that should pause. All sessions of one handler
    call share the connection in turn; leaving the invocation closes it. Outside an invocation it is
    closed when the checkout ends. The engine's knowledge of the server is kept, so that a later
    connect asks nothing twice.

    **Costs:** one connect per invocation; closing costs no round trip.
    """

    keeps: ClassVar[bool] = False
