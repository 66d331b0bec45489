"""Where clients of an emulated cluster are met: served, held, or failed in the chosen shape."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from random import Random

from lambdadb.lab.aurora.tunnel import Tunnel
from lambdadb.lab.clock import LabClock
from lambdadb.lab.listener import LOOPBACK, Port
from lambdadb.lab.postgres import Postgres
from lambdadb.lab.startup_packet import StartupPacket, fatal

STARTUP_TIMEOUT = 60.0  # PostgreSQL's authentication_timeout


class Shape(str, Enum):
    """
    What happens to clients that connect to a paused or resuming cluster.

    HOLD is the documented behaviour: accepted, and served once the cluster is available. REFUSE
    refuses the connection, except the first one, which had to be accepted to be noticed and is
    reset. CLOSE ends the connection after the startup packet, RESET resets it. STARTING and
    NO_HBA answer with PostgreSQL's errors 57P03 and 28000. SILENT accepts and never answers, not
    even after the resume. DROP leaves the SYN without an answer; where the system is not Linux
    the first client is accepted to be noticed, and never answered. MIX is any of the others at
    random: for each client, with periods in which all are refused or dropped.
    """

    HOLD = "hold"
    REFUSE = "refuse"
    CLOSE = "close"
    RESET = "reset"
    STARTING = "starting"
    NO_HBA = "no-hba"
    SILENT = "silent"
    DROP = "drop"
    MIX = "mix"


SHAPES = tuple(shape for shape in Shape if shape is not Shape.MIX)
ACCEPTING = tuple(shape for shape in SHAPES if shape not in (Shape.REFUSE, Shape.DROP))
PORT_OF = {Shape.REFUSE: Port.REFUSE, Shape.DROP: Port.DROP}


@dataclass(frozen=True)
class SessionInfo:
    """A user's open connection: since when and for how long unused, in lab seconds."""

    application_name: str
    since: float
    idle: float


@dataclass(frozen=True, eq=False)
class Session:
    """An open connection, as the cluster keeps it in mind."""

    application_name: str
    since: float
    tunnel: Tunnel


class Frontend:
    """
    Meets every client that connects, and knows which of them have a session.

    Args:
        server: Where sessions lead.
        shape: What clients meet while the cluster is not available.
        clock: The lab's time.
        round_trip: Network delay in real seconds.
        random: Source of the MIX shape's choices.
        on_error: Called with an error that no client is to blame for.
        tls: The server's side of TLS; None: encryption is declined.
    """

    def __init__(
        self,
        server: Postgres,
        shape: Shape,
        clock: LabClock,
        round_trip: float,
        random: Random,
        on_error: Callable[[BaseException], None],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.connects = 0
        self.round_trips = 0
        self.sessions: set[Session] = set()
        self.quiet_since = clock.now()
        self.woken = False
        self.available = asyncio.Event()
        self._server = server
        self._shape = shape
        self._clock = clock
        self._round_trip = round_trip
        self._random = random
        self._on_error = on_error
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Serve clients from now on, those first who were held."""
        self.quiet_since = self._clock.now()
        self.available.set()

    def shut(self) -> None:
        """Fail clients from now on; `woken` tells whether one came."""
        self.woken = False
        self.available.clear()

    async def dismiss(self) -> None:
        """Close every client's connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def port_mode(self) -> Port:
        """What the port does during a resume: one period's draw when the failures are mixed."""
        shape = self._random.choice(SHAPES) if self._shape is Shape.MIX else self._shape
        return PORT_OF.get(shape, Port.ANSWER)

    def welcome(self, client: socket.socket) -> None:
        """Take a client that has connected."""
        self.connects += 1
        shape = Shape.HOLD
        if self.available.is_set():
            self.quiet_since = self._clock.now()
        else:
            self.woken = True
            shape = self._random.choice(ACCEPTING) if self._shape is Shape.MIX else self._shape
        task = asyncio.get_running_loop().create_task(self._serve(client, shape))
        self._tasks.add(task)
        task.add_done_callback(self._served)
        task.add_done_callback(lambda _: client.close())  # also one dismissed before it began

    def _served(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._on_error(error)

    def _count_round_trip(self) -> None:
        self.round_trips += 1

    async def _serve(self, client: socket.socket, shape: Shape) -> None:
        tunnel = Tunnel(client, self._clock, self._round_trip, self._count_round_trip, self._tls)
        try:
            if shape is Shape.REFUSE or (shape is Shape.RESET and await tunnel.wait_for_client()):
                tunnel.reset()
            elif shape in (Shape.SILENT, Shape.DROP):
                await tunnel.wait_for_end()
            elif shape is not Shape.RESET:
                if self._tls is not None and shape is Shape.HOLD:
                    # Held from its first packet on: the answer to its wish for TLS is late, too.
                    await self._hold()
                startup = await asyncio.wait_for(tunnel.read_startup(), STARTUP_TIMEOUT)
                if startup is not None:
                    await self._answer(tunnel, startup, shape)
        except (ConnectionError, TimeoutError, asyncio.TimeoutError):
            return  # that client is gone, or never said what it wanted
        finally:
            client.close()

    async def _answer(self, tunnel: Tunnel, startup: StartupPacket, shape: Shape) -> None:
        if startup.is_cancel:
            if self.available.is_set():
                await self._forward(tunnel, startup)
        elif shape is Shape.STARTING:
            await tunnel.answer(fatal("57P03", "the database system is starting up"))
        elif shape is Shape.NO_HBA:
            entry = f'host "{LOOPBACK}", user "{startup.user}", database "{startup.database}"'
            text = f"no pg_hba.conf entry for {entry}, SSL encryption"
            await tunnel.answer(fatal("28000", text))
        elif shape is Shape.HOLD:
            await self._hold()
            if not tunnel.client_left():
                await self._hold_session(tunnel, startup)

    async def _hold(self) -> None:
        """Wait until the cluster is available; a wait wakes it."""
        while not self.available.is_set():
            self.woken = True
            await self.available.wait()

    async def _hold_session(self, tunnel: Tunnel, startup: StartupPacket) -> None:
        session = Session(startup.application_name, self._clock.now(), tunnel)
        self.sessions.add(session)
        try:
            await self._forward(tunnel, startup)
        finally:
            self.sessions.discard(session)
            self.quiet_since = self._clock.now()

    async def _forward(self, tunnel: Tunnel, startup: StartupPacket) -> None:
        with socket.socket() as server:
            server.setblocking(False)
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            target = (LOOPBACK, self._server.port)
            await asyncio.get_running_loop().sock_connect(server, target)
            await tunnel.forward(server, startup.raw)
