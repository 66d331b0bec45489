"""
Who holds the connections of a server: a view of its sessions, and the rules that read it.

A session view is data, whichever database it comes from: `postgresql.read_session_view` makes one.
Nothing here asks a server.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from lambdadb.operate.checks import Finding, Weight

AURORA_PAUSE = "Aurora User Guide, Scaling to Zero ACUs with automatic pause and resume"

LONG_TRANSACTION = 60.0
"""Seconds after which an open transaction is called long: lambdadb's own limit for one that is idle."""
NEARLY_FULL = 0.8
"""Share of the slots of ordinary users from which a server is called nearly full."""
MANY = 10
"""Sessions of one holder below which it is never called the main holder."""
# What AWS itself has open. These sessions use slots. The health check is one of them, and keeps no
# cluster awake (Aurora User Guide).
AWS_USERS = ("rdsadmin",)


@dataclass(frozen=True, kw_only=True)
class Session:
    """One session of a server. Durations are in seconds."""

    id: int
    """The server's own number for it: a pid in PostgreSQL, a connection id in MySQL."""
    name: str
    """Its tag, such as a function's name; empty: it has none."""
    user: str
    database: str
    client: str
    """Address of the client; empty: unknown, or a socket on the server."""
    state: str
    """`active`, `idle`, `idle in transaction`, …; `unknown` without the right to see it."""
    age: float | None
    idle: float | None
    """Since its last statement ended; None: one is running, or it is unknown."""
    transaction: float | None = None
    """Since its transaction began; None: none is open, or it is unknown."""
    waits_for: tuple[int, ...] = ()
    """The sessions whose locks it waits for."""
    encrypted: bool | None = None
    statement: str = ""
    """The one that is running or was the last, without literals."""
    idle_timeout: float | None = None
    """
    When the server ends it for being idle, by the settings of its role, its database and the server. 0:
    never. None: unknown. A client may have chosen another time for itself, as lambdadb's do.
    """

    @property
    def is_aws(self) -> bool:
        """Whether AWS has opened it for itself."""
        return self.user in AWS_USERS

    @property
    def holder(self) -> str:
        """Who holds it: its tag, or else its user and client."""
        if self.name:
            return self.name
        return f"(no name) {self.user}" + (f"@{self.client}" if self.client else "")


@dataclass(frozen=True, kw_only=True)
class Slots:
    """The connections that a server can take."""

    limit: int
    """max_connections."""
    reserved: int
    """Those that ordinary users cannot take."""
    used: int
    """By all sessions, the one that asked included."""

    @property
    def ordinary(self) -> int:
        """How many there are for ordinary users."""
        return self.limit - self.reserved

    @property
    def free(self) -> int:
        """How many ordinary users can still take."""
        return max(self.ordinary - self.used, 0)


@dataclass(frozen=True, kw_only=True)
class SessionView:
    """The sessions of one server at one moment, without the session that asked."""

    server: str
    """Host, port and database."""
    kind: str
    """`PostgreSQL` or `MySQL`."""
    version: str
    reader: bool
    """Whether it takes no writes."""
    slots: Slots
    sessions: tuple[Session, ...]
    sees_all: bool
    """Whether the role may see the state of other users' sessions."""
    role: str
    """The role that asked."""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """All sessions of one holder. Durations are in seconds."""

    name: str
    users: tuple[str, ...]
    count: int
    states: dict[str, int] = field(default_factory=dict)
    age: float | None
    """Of its oldest session."""
    idle: float | None
    """Of the session that is idle for the longest time."""
    share: float
    """Of all sessions, 0 to 1."""
    stands_out: bool
    """Whether it has most of the sessions."""


def holders(view: SessionView) -> list[Holder]:
    """Who holds the sessions, the largest first."""
    groups: dict[str, list[Session]] = defaultdict(list)
    for session in view.sessions:
        groups[session.holder].append(session)
    found = [
        Holder(
            name=name,
            users=tuple(sorted({session.user for session in group})),
            count=len(group),
            states=dict(Counter(session.state for session in group).most_common()),
            age=longest(session.age for session in group),
            idle=longest(session.idle for session in group),
            share=len(group) / len(view.sessions),
            stands_out=len(group) >= MANY and 2 * len(group) > len(view.sessions),
        )
        for name, group in groups.items()
    ]
    return sorted(found, key=lambda holder: (-holder.count, holder.name))


def longest(values: Iterable[float | None]) -> float | None:
    """The largest of the values that are known."""
    return max((value for value in values if value is not None), default=None)


def blockers(view: SessionView) -> list[tuple[Session, int]]:
    """
    Sessions that others wait for and that wait for nobody, with the number of sessions behind them.

    Those who wait in a circle are left out: the server ends one of them by itself, as a deadlock.
    """
    by_id = {session.id: session for session in view.sessions}
    behind: Counter[int] = Counter()
    for session in view.sessions:
        seen: set[int] = set()
        ahead = list(session.waits_for)
        while ahead:
            number = ahead.pop()
            if number in seen or number not in by_id:
                continue
            seen.add(number)
            ahead += by_id[number].waits_for
        behind.update(number for number in seen if not by_id[number].waits_for)
    return [(by_id[number], count) for number, count in behind.most_common()]


def examine(view: SessionView) -> list[Finding]:
    """All that the sessions show, the worst first."""
    found = [
        *check_slots(view),
        *check_blockers(view),
        *check_long_transactions(view),
        *check_main_holder(view),
        *check_names(view),
        *check_visibility(view),
    ]
    return sorted(found, key=lambda finding: finding.weight.rank)


def check_slots(view: SessionView) -> list[Finding]:
    """Ordinary users need free slots."""
    slots = view.slots
    if slots.used < NEARLY_FULL * slots.ordinary:
        return []
    first = holders(view)[0] if view.sessions else None
    by_whom = f"; {first.name} holds {first.count}" if first else ""
    limit = (
        "ALTER ROLE app CONNECTION LIMIT 50"
        if view.kind == "PostgreSQL"
        else "ALTER USER app WITH MAX_USER_CONNECTIONS 50"
    )
    return [
        Finding(
            "slots",
            f"{slots.used} connections are in use; ordinary users can have {slots.ordinary}{by_whom}.",
            "Lower the reserved concurrency of the function that holds most, or give its role a limit: "
            f"{limit}. Or raise the cluster's maximum capacity and reboot it.",
            "" if slots.free else "Connects of ordinary users fail now with: too many connections.",
            weight=Weight.WARNING if slots.free else Weight.CRITICAL,
        )
    ]


def check_blockers(view: SessionView) -> list[Finding]:
    """No session should keep others waiting for its locks."""
    return [
        Finding(
            "blocker",
            f"{describe(session)} keeps {count} other session(s) waiting for its locks; its "
            f"transaction began {duration(session.transaction)} ago. "
            f"Its last statement: {session.statement or 'unknown'}",
            end_session(view, session),
            "Those sessions wait until its transaction ends.",
        )
        for session, count in blockers(view)
    ]


def check_long_transactions(view: SessionView) -> list[Finding]:
    """A transaction should end within a minute, unless it blocks others, which is said already."""
    blocking = {session.id for session, _ in blockers(view)}
    return [
        Finding(
            "long transaction",
            f"{describe(session)} is in a transaction for {duration(session.transaction)}, "
            f"{session.state}. Its last statement: {session.statement or 'unknown'}",
            end_session(view, session),
            "It keeps its locks, and rows that were deleted since then cannot be cleaned up.",
            weight=Weight.WARNING,
        )
        for session in view.sessions
        if (session.transaction or 0.0) > LONG_TRANSACTION and session.id not in blocking
    ]


def check_main_holder(view: SessionView) -> list[Finding]:
    """A holder with most of the sessions deserves a look, and more so if it has most of the slots."""
    return [
        Finding(
            "main holder",
            f"{holder.name} holds {holder.count} of {len(view.sessions)} sessions"
            + (f", one of them idle for {duration(holder.idle)}." if holder.idle else "."),
            "If it is a function: lower its reserved concurrency, close its connection after each "
            "invocation (PerInvocation), or let the server end idle sessions sooner.",
            weight=Weight.WARNING if 2 * holder.count >= view.slots.ordinary else Weight.NOTE,
        )
        for holder in holders(view)
        if holder.stands_out
    ]


def check_names(view: SessionView) -> list[Finding]:
    """A session should say who it belongs to."""
    nameless = [session for session in view.sessions if not session.name and not session.is_aws]
    if not nameless:
        return []
    who = Counter(session.holder.removeprefix("(no name) ") for session in nameless)
    listed = ", ".join(f"{name} ({count})" for name, count in who.most_common(3))
    return [
        Finding(
            "no name",
            f"{len(nameless)} session(s) do not say who they belong to: {listed}.",
            "Name them: lambdadb does it by itself, other clients with application_name (PostgreSQL) or "
            "program_name (MySQL) in their URL.",
            "Nobody can tell by the server which function holds them.",
            weight=Weight.NOTE,
        )
    ]


def check_visibility(view: SessionView) -> list[Finding]:
    """The role needs the right to see other users' sessions."""
    if view.sees_all:
        return []
    grant = (
        f'GRANT pg_read_all_stats TO "{view.role}"'
        if view.kind == "PostgreSQL"
        else f"GRANT PROCESS ON *.* TO '{view.role}'"
    )
    return [
        Finding(
            "visibility",
            f"The role {view.role} sees nothing but the names of other users' sessions.",
            grant,
            "States, idle times, transactions and locks of other users are missing here.",
            "PostgreSQL, Predefined Roles" if view.kind == "PostgreSQL" else "MySQL, SHOW PROCESSLIST",
            Weight.NOTE,
        )
    ]


@dataclass(frozen=True, kw_only=True)
class Wakefulness:
    """What keeps a cluster awake, if nobody does anything any more."""

    holder: str
    count: int
    seconds: float | None
    """Until the last of its sessions is ended by the server; None: the server does not end it."""
    reason: str


def keeps_awake(view: SessionView) -> list[Wakefulness]:
    """
    Who keeps an auto-pausing cluster awake, the longest first.

    Any open session does, also one that runs nothing (Aurora User Guide), except AWS's own.
    """
    groups: dict[str, list[Session]] = defaultdict(list)
    for session in view.sessions:
        if not session.is_aws:
            groups[session.holder].append(session)
    found = []
    for name, group in groups.items():
        last = max(group, key=lambda session: endless(ends_after(session)))
        found.append(
            Wakefulness(holder=name, count=len(group), seconds=ends_after(last), reason=why_open(last))
        )
    return sorted(found, key=lambda one: (-endless(one.seconds), -one.count, one.holder))


def endless(seconds: float | None) -> float:
    """The seconds; infinity for None."""
    return float("inf") if seconds is None else seconds


def ends_after(session: Session) -> float | None:
    """Seconds after which the server ends a session that does nothing more; None: not by itself."""
    if session.state != "idle" or not session.idle_timeout or session.idle is None:
        return None
    return max(session.idle_timeout - session.idle, 0.0)


def why_open(session: Session) -> str:
    """Why a session stays open, in a few words."""
    if session.state == "unknown":
        return "its state is not visible"
    if session.state != "idle":
        return "it is running a statement" if session.state == "active" else f"it is {session.state}"
    if session.idle_timeout == 0:
        return "no idle timeout ends it, unless its client has set one"
    if session.idle_timeout is None:
        return "its idle timeout is unknown"
    return f"idle timeout {duration(session.idle_timeout)}"


def end_session(view: SessionView, session: Session) -> str:
    """The statement that ends a session."""
    if view.kind == "PostgreSQL":
        return f"SELECT pg_terminate_backend({session.id})"
    return f"CALL mysql.rds_kill({session.id})  -- elsewhere than on RDS: KILL {session.id}"


def describe(session: Session) -> str:
    """A session in a few words."""
    return f"Session {session.id} of {session.holder} (user {session.user})"


def duration(seconds: float | None) -> str:
    """A duration in one unit: 12 s, 5 min, 3 h, 2 d."""
    if seconds is None:
        return "?"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
