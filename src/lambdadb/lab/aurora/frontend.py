"""Where clients of an emulated cluster are met: served, held, or failed in the chosen shape."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import ClassVar, Protocol

from lambdadb.lab import LabError
from lambdadb.lab.aurora.tunnel import Tunnel
from lambdadb.lab.clock import LabClock
from lambdadb.lab.listener import Port


class Server(Protocol):
    """What a cluster stands in front of."""

    host: str
    port: int

    @property
    def running(self) -> bool: ...
    def url(self, database: str = ..., *, host: str = ..., port: int | None = None) -> str: ...
    def start(self) -> None: ...
    def crash(self) -> None: ...


class Shape(str, Enum):
    """
    What happens to clients that connect to a paused or resuming cluster.

    HOLD is the documented behaviour: accepted, and served once the cluster is available. REFUSE
    refuses the connection, except the first one, which had to be accepted to be noticed and is
    reset. CLOSE ends the connection after PostgreSQL's startup packet, or before MySQL's greeting; RESET
    resets it there. SILENT accepts and never answers, not even after the resume. DROP leaves the SYN
    without an answer; where the system is not Linux the first client is accepted to be noticed, and
    never answered. MIX is any of the others at random: for each client, with periods in which all are
    refused or dropped.

    With PostgreSQL only: STARTING and NO_HBA answer with its errors 57P03 and 28000. With MySQL only:
    ERROR sends an error packet instead of a greeting; LOGIN_CLOSE and LOGIN_SILENT greet, and end the
    connection after the login, or never answer it.
    """

    HOLD = "hold"
    REFUSE = "refuse"
    CLOSE = "close"
    RESET = "reset"
    STARTING = "starting"
    NO_HBA = "no-hba"
    ERROR = "error"
    LOGIN_CLOSE = "login-close"
    LOGIN_SILENT = "login-silent"
    SILENT = "silent"
    DROP = "drop"
    MIX = "mix"


_ANY = (Shape.HOLD, Shape.REFUSE, Shape.CLOSE, Shape.RESET, Shape.SILENT, Shape.DROP, Shape.MIX)
POSTGRES_SHAPES = (*_ANY, Shape.STARTING, Shape.NO_HBA)
MYSQL_SHAPES = (*_ANY, Shape.ERROR, Shape.LOGIN_CLOSE, Shape.LOGIN_SILENT)
PORT_OF = {Shape.REFUSE: Port.REFUSE, Shape.DROP: Port.DROP}


@dataclass(frozen=True)
class SessionInfo:
    """A user's open connection: its tag, since when and for how long unused, in lab seconds."""

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

    Raises:
        LabError: The shape is one of the other database.
    """

    shapes: ClassVar[tuple[Shape, ...]]

    def __init__(
        self,
        server: Server,
        shape: Shape,
        clock: LabClock,
        round_trip: float,
        random: Random,
        on_error: Callable[[BaseException], None],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.shape = shape
        self.connects = 0
        self.round_trips = 0
        self.sessions: set[Session] = set()
        self.quiet_since = clock.now()
        self.woken = False
        self.available = asyncio.Event()
        self._server = server
        self._clock = clock
        self._round_trip = round_trip
        self._random = random
        self._on_error = on_error
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def shape(self) -> Shape:
        """What clients meet while the cluster is not available."""
        return self._shape

    @shape.setter
    def shape(self, shape: Shape) -> None:
        if shape not in self.shapes:
            known = ", ".join(shape.value for shape in self.shapes)
            raise LabError(
                f"The shape {shape.value!r} is not one of this database. Choose one of {known}."
            )
        self._shape = shape

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
        shape = self._draw(*self.shapes)
        return PORT_OF.get(shape, Port.ANSWER)

    def welcome(self, client: socket.socket) -> None:
        """Take a client that has connected."""
        self.connects += 1
        shape = Shape.HOLD
        if self.available.is_set():
            self.quiet_since = self._clock.now()
        else:
            self.woken = True
            shape = self._draw(*(shape for shape in self.shapes if shape not in PORT_OF))
        task = asyncio.get_running_loop().create_task(self._serve(client, shape))
        self._tasks.add(task)
        task.add_done_callback(self._served)
        task.add_done_callback(lambda _: client.close())  # also one dismissed before it began

    def _served(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._on_error(error)

    def _draw(self, *shapes: Shape) -> Shape:
        if self._shape is not Shape.MIX:
            return self._shape
        return self._random.choice([shape for shape in shapes if shape is not Shape.MIX])

    def _count_round_trip(self) -> None:
        self.round_trips += 1

    async def _serve(self, client: socket.socket, shape: Shape) -> None:
        tunnel = Tunnel(client, self._clock, self._round_trip, self._count_round_trip, self._tls)
        try:
            if shape is Shape.REFUSE:
                tunnel.reset()
            elif shape in (Shape.SILENT, Shape.DROP):
                await tunnel.wait_for_end()
            else:
                await self._meet(tunnel, shape)
        except (ConnectionError, TimeoutError, asyncio.TimeoutError):
            return  # that client is gone, or never said what it wanted
        finally:
            client.close()

    async def _meet(self, tunnel: Tunnel, shape: Shape) -> None:
        """Do what the database's protocol makes of the shape."""
        raise NotImplementedError

    async def _until_available(self, tunnel: Tunnel) -> bool:
        """Hold a client until the cluster is available. False: the client has left."""
        await self._hold()
        return not tunnel.client_left()

    async def _hold(self) -> None:
        while not self.available.is_set():
            self.woken = True
            await self.available.wait()

    @contextlib.asynccontextmanager
    async def _connect_to_server(self) -> AsyncIterator[socket.socket]:
        """Open a connection to the server."""
        with socket.socket() as server:
            server.setblocking(False)
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            target = (self._server.host, self._server.port)
            await asyncio.get_running_loop().sock_connect(server, target)
            yield server

    @contextlib.contextmanager
    def _session(self, application_name: str, tunnel: Tunnel) -> Iterator[None]:
        """Keep a session in mind while the block runs."""
        session = Session(application_name, self._clock.now(), tunnel)
        self.sessions.add(session)
        try:
            yield
        finally:
            self.sessions.discard(session)
            self.quiet_since = self._clock.now()
