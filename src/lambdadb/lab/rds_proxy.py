"""
An emulated RDS Proxy in front of a `Postgres`, for tests of what RDS Proxy refuses, pins and times out.

Its rules are those of the RDS User Guide's pages on RDS Proxy. What no page says is marked "unverified"
here, and can be changed where it matters.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import struct
import threading
from collections.abc import Mapping
from types import TracebackType

from psycopg import pq
from psycopg.pq.abc import PGconn

from lambdadb.drivers.psycopg.pins import find_pin
from lambdadb.lab import LabError
from lambdadb.lab.listener import Listener, Port
from lambdadb.lab.postgres.server import Postgres
from lambdadb.lab.startup_packet import NOT_ENCRYPTED, StartupPacket, fatal, packet_length, parse

# RDS User Guide, "Connecting to a database through RDS Proxy": PostgreSQL's startup parameters.
DOCUMENTED = (
    *("user", "database", "application_name", "client_encoding", "datestyle", "timezone"),
    *("extra_float_digits", "search_path"),
)
NO_OPTIONS = "Feature not supported: RDS Proxy currently doesn\u2019t support command-line options"
NO_PARAMETER = "Feature not supported: RDS Proxy currently doesn\u2019t support the option {}"
BORROW_TIMEOUT = "Timed-out waiting to acquire database connection"
TOO_MANY = "The maximum number of client connections to the proxy exceeded"
NO_CREDENTIALS = "This RDS proxy has no credentials for the role {}"
# What a session reports at its start, for the clients' own logins.
REPORTED = (
    *("server_version", "server_encoding", "client_encoding", "is_superuser", "in_hot_standby"),
    *("session_authorization", "DateStyle", "IntervalStyle", "TimeZone", "integer_datetimes"),
    *("standard_conforming_strings", "default_transaction_read_only"),
)
NAMED_STATEMENT = "a named prepared statement"
RETRY = 0.1  # seconds between logins to a server that is down
ENDED = (ConnectionError, asyncio.IncompleteReadError)


class Session:
    """A session of the server. libpq logs in, and then leaves the socket to the proxy."""

    def __init__(self, pgconn: PGconn) -> None:
        self._pgconn = pgconn
        self.parameters = {
            name: value.decode()
            for name in REPORTED
            if (value := pgconn.parameter_status(name.encode())) is not None
        }

    @classmethod
    async def open(cls, port: int, user: str, password: str, database: str) -> Session:
        """Log in. Raises `ConnectionError` if the server is not there."""
        given = {"host": "127.0.0.1", "port": str(port), "user": user, "password": password}
        conninfo = " ".join(f"{name}='{value}'" for name, value in given.items())
        conninfo += f" dbname='{database}' sslmode=disable"
        pgconn = await asyncio.to_thread(pq.PGconn.connect, conninfo.encode())
        if pgconn.status != pq.ConnStatus.OK:
            text = pgconn.error_message.decode(errors="replace")
            pgconn.finish()
            raise ConnectionError(text)
        session = cls(pgconn)
        stream = socket.socket(fileno=os.dup(pgconn.socket))
        session.reader, session.writer = await asyncio.open_connection(sock=stream)
        return session

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def ended(self) -> bool:
        """Whether the server has ended it."""
        return self.reader.at_eof()

    def close(self) -> None:
        """End it: the server rolls back what is open."""
        self.writer.close()
        self._pgconn.finish()


class Pool:
    """The sessions of one user in one database."""

    def __init__(self, size: int) -> None:
        self.slots = asyncio.Semaphore(size)
        self.idle: list[Session] = []


class RdsProxy:
    """
    A loopback port that gives the sessions of a server to clients, for one transaction each.

    It refuses undocumented startup parameters, ignores requests to cancel, pins by the documented rules,
    and ends what waits or idles too long. Not emulated: TLS, IAM, initialization queries, failover, and
    the 24 hours after which a client is ended. Documented startup parameters are accepted and not
    passed on (unverified). Used as a context manager it starts on entry and closes at the end.

    Args:
        server: The server behind it.
        sessions: Sessions for each user and database (MaxConnectionsPercent of `max_connections`).
        max_clients: Clients at once. The limit of a real proxy is not documented.
        borrow_timeout: ConnectionBorrowTimeout, in seconds. It runs while the server is down, too.
        idle_client_timeout: IdleClientTimeout, in seconds. How a real proxy ends a client is not
            documented: this one closes the connection (unverified).
        pins_named_statements: Whether a prepared statement of the protocol pins. AWS's sources
            disagree: its announcement of 2024 says that it does not, its toolkit of 2026 that it may.
        users: Passwords by user; by default the server's superuser.

    Attributes:
        pins: What pinned each client that was pinned so far.
        borrows: How often a session was given to a client.
    """

    def __init__(
        self,
        server: Postgres,
        *,
        sessions: int = 5,
        max_clients: int = 1000,
        borrow_timeout: float = 120.0,
        idle_client_timeout: float = 1800.0,
        pins_named_statements: bool = True,
        users: Mapping[str, str] | None = None,
    ) -> None:
        self.server = server
        self.port = 0
        self.pins: list[str] = []
        self.borrows = 0
        self.borrow_timeout = borrow_timeout
        self.idle_client_timeout = idle_client_timeout
        self.pins_named_statements = pins_named_statements
        self.clients: set[asyncio.Task[None]] = set()
        self._sessions = sessions
        self._max_clients = max_clients
        self._users = users
        self._pools: dict[tuple[str, str], Pool] = {}
        self._parameters: dict[str, str] = {}
        self._thread: threading.Thread | None = None

    def url(self, database: str = "postgres") -> str:
        """SQLAlchemy URL of a database through the proxy, with the password in clear text."""
        return f"{self.server.url(database, port=self.port)}?sslmode=disable"

    def start(self) -> None:
        """
        Start listening on `port`.

        Raises:
            LabError: The server does not run.
        """
        self._loop = asyncio.new_event_loop()
        self._listener = Listener(0, self._welcome)
        self.port = self._listener.port
        name = f"rds-proxy:{self.port}"
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._begin(), self._loop).result()
        except ConnectionError as error:
            self.close()
            raise LabError(f"The server behind the RDS Proxy does not answer: {error}") from error

    def close(self) -> None:
        """End all connections and give the port back."""
        if self._thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._thread = None
        self._loop.close()

    def __enter__(self) -> RdsProxy:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # From here on everything runs in the proxy's own thread.

    def password_of(self, user: str) -> str | None:
        """The password of a user; None if the proxy has no secret of it."""
        users = {"postgres": self.server.password} if self._users is None else self._users
        return users.get(user)

    async def borrow(self, user: str, database: str) -> Session:
        """Take a session. Raises `asyncio.TimeoutError` after the borrow timeout."""
        pool = self._pools.setdefault((user, database), Pool(self._sessions))
        session = await asyncio.wait_for(self._take(pool, user, database), self.borrow_timeout)
        self.borrows += 1
        return session

    def give_back(self, user: str, database: str, session: Session, *, clean: bool) -> None:
        """Free a session, or end it if its client left something in it."""
        pool = self._pools[user, database]
        if clean:
            pool.idle.append(session)
        else:
            session.close()
        pool.slots.release()

    def login_answer(self) -> bytes:
        """What a client gets after its login. The process id is random (unverified)."""
        parts = [message(b"R", struct.pack("!I", 0))]
        parts += [
            message(b"S", f"{name}\0{value}\0".encode()) for name, value in self._parameters.items()
        ]
        return b"".join([*parts, message(b"K", secrets.token_bytes(8)), message(b"Z", b"I")])

    async def _take(self, pool: Pool, user: str, database: str) -> Session:
        """Take a free session or open one, as soon as the server answers."""
        await pool.slots.acquire()
        password = self.password_of(user) or ""
        try:
            while True:
                while pool.idle:
                    session = pool.idle.pop()
                    if not session.ended:
                        return session
                    session.close()
                with contextlib.suppress(ConnectionError):
                    return await Session.open(self.server.port, user, password, database)
                await asyncio.sleep(RETRY)
        except BaseException:
            pool.slots.release()
            raise

    async def _begin(self) -> None:
        first = await Session.open(self.server.port, "postgres", self.server.password, "postgres")
        self._parameters = first.parameters
        first.close()
        self._listener.set_mode(Port.ANSWER)

    def _welcome(self, connection: socket.socket) -> None:
        task = self._loop.create_task(self._serve(connection))
        self.clients.add(task)
        task.add_done_callback(self.clients.discard)

    async def _serve(self, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=connection)
        try:
            if len(self.clients) > self._max_clients:
                await read_startup(reader, writer)
                writer.write(fatal("53300", TOO_MANY))
            else:
                await Client(self, reader, writer).serve()
            await writer.drain()
        except ENDED:
            pass
        finally:
            writer.close()

    async def _end(self) -> None:
        self._listener.close()
        tasks = list(self.clients)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for pool in self._pools.values():
            for session in pool.idle:
                session.close()
        await asyncio.sleep(0)  # closes the transports
        await self._loop.shutdown_default_executor()


class Client:
    """One client's connection, and the session that it has now."""

    def __init__(
        self, proxy: RdsProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._proxy = proxy
        self._reader = reader
        self._writer = writer
        self._session: Session | None = None
        self._answers: asyncio.Task[None] | None = None
        self._owed = 0  # messages that the server ends with ReadyForQuery
        self._unsynced = False  # parts of the extended protocol, whose Sync has not come
        self._is_pinned = False
        self._idle_timer: asyncio.TimerHandle | None = None

    async def serve(self) -> None:
        """Log the client in, and pass on what it sends."""
        startup = await read_startup(self._reader, self._writer)
        if startup is None or not await self._log_in(startup):
            return
        self._user, self._database = startup.user, startup.database
        try:
            self._start_idle_timer()
            while await self._pass_on():
                pass
        finally:
            self._stop_idle_timer()
            if self._answers is not None:
                self._answers.cancel()
            if (session := self._session) is not None:
                self._proxy.give_back(self._user, self._database, session, clean=False)

    async def _log_in(self, startup: StartupPacket) -> bool:
        refused = [name for name in startup.parameters if name.lower() not in DOCUMENTED]
        password = self._proxy.password_of(startup.user)
        if refused:
            text = NO_OPTIONS if "options" in refused else NO_PARAMETER.format(refused[0])
            self._writer.write(fatal("0A000", text))
        elif password is None:
            self._writer.write(fatal("28000", NO_CREDENTIALS.format(startup.user)))
        else:
            # The proxy itself asks for the login. A real one asks for SCRAM or MD5, or for a token.
            self._writer.write(message(b"R", struct.pack("!I", 3)))
            _, given = await read_message(self._reader)
            if given[:-1].decode(errors="replace") == password:
                self._writer.write(self._proxy.login_answer())
                return True
            text = f'password authentication failed for user "{startup.user}"'
            self._writer.write(fatal("28P01", text))
        return False

    async def _pass_on(self) -> bool:
        """Pass one message on; False at the end."""
        kind, body = await read_message(self._reader)
        if kind == b"X":
            return False
        if self._session is None:
            self._stop_idle_timer()
            try:
                self._session = await self._proxy.borrow(self._user, self._database)
            except asyncio.TimeoutError:
                self._writer.write(fatal("08000", BORROW_TIMEOUT))
                return False
            self._answers = asyncio.create_task(self._carry_answers(self._session))
        self._look_for_pin(kind, body)
        self._owed += kind in (b"Q", b"S", b"F")
        self._unsynced = kind not in (b"Q", b"S", b"F", b"d", b"c", b"f")
        self._session.writer.write(message(kind, body))
        await self._session.writer.drain()
        return True

    async def _carry_answers(self, session: Session) -> None:
        """Carry the server's answers, until the transaction is over and the session is free."""
        try:
            while True:
                kind, body = await read_message(session.reader)
                self._writer.write(message(kind, body))
                if kind != b"Z":
                    continue
                self._owed -= 1
                if body == b"I" and not (self._owed or self._unsynced or self._is_pinned):
                    self._session = None
                    self._start_idle_timer()
                    self._proxy.give_back(self._user, self._database, session, clean=True)
                    return
        except ENDED:
            self._writer.close()  # the server ended it, and so the client is ended

    def _start_idle_timer(self) -> None:
        loop = asyncio.get_running_loop()
        self._idle_timer = loop.call_later(self._proxy.idle_client_timeout, self._writer.close)

    def _stop_idle_timer(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()

    def _look_for_pin(self, kind: bytes, body: bytes) -> None:
        if self._is_pinned or kind not in (b"Q", b"P"):
            return
        name, _, rest = body.partition(b"\0") if kind == b"P" else (b"", b"", body)
        found = find_pin(rest.partition(b"\0")[0])
        reason = found[0] if found is not None else None
        if name and self._proxy.pins_named_statements:
            reason = NAMED_STATEMENT
        if reason is not None:
            self._is_pinned = True
            self._proxy.pins.append(reason)


async def read_startup(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> StartupPacket | None:
    """Read the startup packet, declining encryption before it; None for a request to cancel."""
    while True:
        head = await reader.readexactly(4)
        length = packet_length(head)
        if length is None:
            return None
        startup = parse(head + await reader.readexactly(length - 4))
        if startup.is_cancel:
            return None  # ignored: RDS Proxy has no cancel
        if not startup.asks_encryption:
            return startup
        writer.write(NOT_ENCRYPTED)


async def read_message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read a message: its type, and its body."""
    head = await reader.readexactly(5)
    return head[:1], await reader.readexactly(int.from_bytes(head[1:], "big") - 4)


def message(kind: bytes, body: bytes) -> bytes:
    """A message of the protocol."""
    return kind + struct.pack("!I", len(body) + 4) + body
