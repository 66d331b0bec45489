"""Aurora serverless v2 in front of a real server: it pauses, wakes, and fails on the way.

The rules are those of the Aurora User Guide's pages on auto-pause; the failures during a resume
are those that users have reported.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from random import Random
from types import TracebackType
from typing import Any

from lambdadb.lab import LabError
from lambdadb.lab.aurora.frontend import Frontend, Server, SessionInfo, Shape
from lambdadb.lab.aurora.mysql_frontend import MySQLFrontend
from lambdadb.lab.aurora.postgres_frontend import PostgresFrontend
from lambdadb.lab.clock import LabClock
from lambdadb.lab.listener import ANY_ADDRESS, LOOPBACK, SEES_SYN, Listener, Port
from lambdadb.lab.mariadb import MariaDB

TICK = 0.01
MIX_PERIODS = 8


class State(str, Enum):
    """What the cluster is doing."""

    AVAILABLE = "available"
    PAUSED = "paused"
    RESUMING = "resuming"


@dataclass(frozen=True)
class ClusterEvent:
    """
    Something that the cluster did.

    Args:
        at: Lab seconds of the cluster's clock.
        kind: "paused", "resuming", "available", "blocked" (open sessions keep it from pausing)
            or "failed" (its server did not start or stop).
        reason: Why.
    """

    at: float
    kind: str
    reason: str


class Cluster:
    """
    An Aurora serverless v2 cluster, hot or cold (auto-pausing), before a real PostgreSQL or MariaDB.

    A cold cluster pauses when no user connection was open for `auto_pause` seconds, and never
    while one is open, however idle. Any attempt to connect wakes it, even one with a wrong
    password. A pause stops the server as a crash would, so that sequences lose the values that
    they had reserved, which is what ids published from a real cluster show. Connections made to
    the server's own port, past the cluster, are not seen. Closing leaves the server as it is.

    Args:
        server: The server; started and stopped as needed.
        auto_pause: Lab seconds without a connection until it pauses; `None` never pauses (hot).
        resume: Lab seconds that a resume takes; never less than the server's start, about 0.1 s
            of real time.
        deep_after: A pause longer than this many lab seconds is a deep one.
        deep_resume: Lab seconds that the resume from a deep pause takes.
        shape: What clients meet until the cluster is available. What a resuming Aurora MySQL says is
            not published: test with each shape.
        error_number: The number of the error packet of the shape ERROR.
        clock: The lab's time; real time by default.
        round_trip: Network delay in real seconds, half of it each way; none for TCP's handshake.
        port: Port to listen on; 0 chooses a free one.
        tls: The server's side of TLS, with its certificate; None: encryption is declined.
        host: IPv4 address of this machine to listen on. Anything else than a loopback address lets
            other machines, and containers, connect; the server's password is all that stops them.
        paused: Whether it starts paused.
        on_event: Called with every event, in the cluster's thread.
        random: Source of the MIX shape's choices.

    Raises:
        LabError: From `start()`: the port is in use, or the server did not start. From `close()`:
            what made the cluster fail while it ran.
    """

    def __init__(
        self,
        server: Server,
        *,
        auto_pause: float | None = None,
        resume: float = 15.0,
        deep_after: float = 86400.0,
        deep_resume: float = 30.0,
        shape: Shape = Shape.HOLD,
        error_number: int = 1040,
        clock: LabClock | None = None,
        round_trip: float = 0.0,
        tls: ssl.SSLContext | None = None,
        port: int = 0,
        host: str = LOOPBACK,
        paused: bool = False,
        on_event: Callable[[ClusterEvent], None] | None = None,
        random: Random | None = None,
    ) -> None:
        self.server = server
        self.auto_pause = auto_pause
        self.resume = resume
        self.deep_after = deep_after
        self.deep_resume = deep_resume
        self.clock = clock or LabClock()
        self.port = port
        self.host = host
        self.state = State.PAUSED if paused else State.AVAILABLE
        self.events: list[ClusterEvent] = []
        self.available_since = 0.0
        self._resume_ends = 0.0
        self._on_event = on_event
        meeting = (server, shape, self.clock, round_trip, random or Random(), self._fail)
        self._frontend: Frontend
        if isinstance(server, MariaDB):
            if tls is not None:
                raise LabError("TLS is emulated for PostgreSQL only: give MariaDB its own certificate.")
            self._frontend = MySQLFrontend(*meeting, error_number=error_number)
        else:
            self._frontend = PostgresFrontend(*meeting, tls)
        self._blockers: Counter[str] = Counter()
        self._pauses: list[tuple[float, float | None]] = []
        self._started = self._ended = 0.0
        self._closing = False
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()

    def url(self, database: str | None = None) -> str:
        """SQLAlchemy URL of a database through the cluster, with the password in clear text."""
        host = LOOPBACK if self.host == ANY_ADDRESS else self.host
        if database is None:
            return self.server.url(host=host, port=self.port)
        return self.server.url(database, host=host, port=self.port)

    def start(self) -> None:
        """Start listening, with the server running or, when paused, stopped."""
        self._listener = Listener(self.port, self._frontend.welcome, host=self.host)
        self.port = self._listener.port
        try:
            if self.state is State.PAUSED:
                self.server.crash()
            else:
                self.server.start()
        except BaseException:
            self._listener.close()
            raise
        self._started = self.clock.now()
        if self.state is State.PAUSED:
            self._pauses.append((self._started, None))
        else:
            self._frontend.open()
            self.available_since = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"cluster:{self.port}", daemon=True)
        self._thread.start()
        self._ready.wait()

    def close(self) -> None:
        """Close every connection and the port; raise what made the cluster fail, if anything."""
        if self._thread is not None:
            self._closing = True
            self._thread.join()
            self._thread = None
            self._ended = self.clock.now()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise LabError(f"The cluster on port {self.port} failed: {failure}") from failure

    def __enter__(self) -> Cluster:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def shape(self) -> Shape:
        """What clients meet until the cluster is available. It may be changed between resumes."""
        return self._frontend.shape

    @shape.setter
    def shape(self, shape: Shape) -> None:
        self._frontend.shape = shape

    @property
    def connects(self) -> int:
        """TCP connections accepted from clients so far."""
        return self._frontend.connects

    @property
    def round_trips(self) -> int:
        """Round trips of all clients so far, as `Tunnel` counts them, logins included."""
        return self._frontend.round_trips

    @property
    def resume_left(self) -> float | None:
        """Lab seconds until its resume is over; None while it does not resume."""
        resuming = self.state is State.RESUMING
        return max(self._resume_ends - self.clock.now(), 0.0) if resuming else None

    def settle(self) -> None:
        """Wait until it has done what is due by its clock: a pause, or a resume that a client began."""
        while self._is_due() and not self._closing:
            time.sleep(TICK)

    def _is_due(self) -> bool:
        if self.state is State.AVAILABLE:
            if self.auto_pause is None or self._frontend.sessions:
                return False
            return self.clock.now() - self._frontend.quiet_since >= self.auto_pause
        return self._is_woken() if self.state is State.PAUSED else self.resume_left == 0.0

    def sessions(self) -> list[SessionInfo]:
        """User connections that are open now, oldest first."""
        now = self.clock.now()
        open_now = sorted(self._frontend.sessions, key=lambda session: session.since)
        return [
            SessionInfo(session.application_name, session.since, now - session.tunnel.used)
            for session in open_now
        ]

    def paused_share(self, since: float = 0.0) -> float:
        """Share of the time that it was paused, 0 to 1, from lab second `since` until now."""
        until = self._ended or self.clock.now()
        start = max(since, self._started)
        spans = [(max(begin, start), end or until) for begin, end in tuple(self._pauses)]
        paused = sum(max(end - begin, 0.0) for begin, end in spans)
        return paused / (until - start) if until > start else 0.0

    # From here on everything runs in the cluster's own thread.

    def _run(self) -> None:
        try:
            asyncio.run(self._live())
        except Exception as error:
            self._fail(error)
        finally:
            self._ready.set()

    def _fail(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self._closing = True

    async def _live(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self._fail(failure_in(context)))
        try:
            self._listener.set_mode(self._port_mode())
            self._ready.set()
            while not self._closing:
                if self.state is State.AVAILABLE and self._pause_is_due():
                    await self._pause()
                elif self.state is State.PAUSED and self._is_woken():
                    await self._resume()
                await asyncio.sleep(TICK)
        except LabError as error:
            self._emit("failed", str(error))
            raise
        finally:
            self._listener.close()
            await self._frontend.dismiss()

    def _emit(self, kind: str, reason: str) -> None:
        event = ClusterEvent(self.clock.now(), kind, reason)
        self.events.append(event)
        if self._on_event is not None:
            self._on_event(event)

    def _pause_is_due(self) -> bool:
        now = self.clock.now()
        if self.auto_pause is None or now - self._frontend.quiet_since < self.auto_pause:
            return False
        sessions = self._frontend.sessions
        if sessions:
            if now - max(session.tunnel.used for session in sessions) >= self.auto_pause:
                self._report_blockers()
            return False
        self._blockers.clear()
        # Whoever waits at the port came in time.
        self._listener.accept_waiting()
        return self.clock.now() - self._frontend.quiet_since >= self.auto_pause

    def _report_blockers(self) -> None:
        blockers = Counter(session.application_name for session in self._frontend.sessions)
        if blockers == self._blockers:
            return
        self._blockers = blockers
        sessions = self.sessions()
        parts = []
        for name, count in blockers.most_common():
            idle = max(session.idle for session in sessions if session.application_name == name)
            parts.append(f"{count} of {name or '(no application_name)'}, idle for {idle:.0f} s")
        self._emit("blocked", f"open connections keep it from pausing: {'; '.join(parts)}")

    async def _pause(self) -> None:
        self.state = State.PAUSED
        self._frontend.shut()
        self._pauses.append((self.clock.now(), None))
        self._emit("paused", f"no user connection for {self.auto_pause:.0f} s")
        self._listener.set_mode(self._port_mode())
        await asyncio.to_thread(self.server.crash)

    def _is_woken(self) -> bool:
        dropping = self._listener.mode is Port.DROP
        return self._frontend.woken or (dropping and self._listener.syn_waits())

    async def _resume(self) -> None:
        began = self.clock.now()
        paused_at = self._pauses[-1][0]
        deep = began - paused_at > self.deep_after
        duration = self.deep_resume if deep else self.resume
        self._pauses[-1] = (paused_at, began)
        self._resume_ends = began + duration
        self.state = State.RESUMING
        self._emit("resuming", f"a connection attempt after {began - paused_at:.0f} s of pause")
        starting = asyncio.create_task(asyncio.to_thread(self.server.start))
        period = -1
        while not starting.done() or self.clock.now() < self._resume_ends:
            now_period = int((self.clock.now() - began) / max(duration, TICK) * MIX_PERIODS)
            if now_period != period:
                period = now_period
                self._listener.set_mode(self._port_mode())
            await asyncio.sleep(TICK)
            if self._closing and starting.done():
                return
        await starting
        self._frontend.open()
        self._listener.set_mode(Port.ANSWER)
        self.available_since = time.monotonic()
        # Last, as other threads read it: whoever connects from now on is served.
        self.state = State.AVAILABLE
        self._emit("available", f"resumed in {self.clock.now() - began:.1f} s")

    def _port_mode(self) -> Port:
        """What the port does in the present state."""
        if self.state is State.RESUMING:
            return self._frontend.port_mode()
        # The SYN of another machine, or of a container, is not in this system's list.
        sees_syn = SEES_SYN and self.host == LOOPBACK
        dropping = self.state is State.PAUSED and self.shape is Shape.DROP and sees_syn
        return Port.DROP if dropping else Port.ANSWER


def failure_in(context: dict[str, Any]) -> BaseException:
    """The error that the event loop reports, which may come without an exception."""
    error: BaseException | None = context.get("exception")
    return error or LabError(context["message"])
