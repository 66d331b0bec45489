"""`RdsProxy`: a loopback port, its clients and its pools of sessions."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import ssl
import struct
import threading
from collections.abc import Mapping
from types import TracebackType

from lambdadb.lab import LabError
from lambdadb.lab.listener import Listener, Port
from lambdadb.lab.postgres.server import Postgres
from lambdadb.lab.rds_proxy.arrival import receive
from lambdadb.lab.rds_proxy.client import Client
from lambdadb.lab.rds_proxy.iam import IamLogins
from lambdadb.lab.rds_proxy.messages import ENDED, message
from lambdadb.lab.rds_proxy.session import Pool, Session

TOO_MANY = "The maximum number of client connections to the proxy exceeded"
RETRY = 0.1  # seconds between logins to a server that is down


class RdsProxy:
    """
    A loopback port that gives the sessions of a server to clients, for one transaction each.

    It refuses undocumented startup parameters, ignores requests to cancel, pins by the documented rules,
    and ends what waits or idles too long. Not emulated: initialization queries, failover, and the 24
    hours after which a client is ended. Unverified: documented startup parameters are accepted and not
    passed on, and a database that does not exist is refused at the login. Used as a context manager it
    starts on entry and closes at the end.

    It runs in a thread of this process. A client in the same process that waits without letting other
    threads run waits for good, such as psycopg's `PGconn.get_result()` before the result is there.

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
        tls: The proxy's side of TLS, with its certificate; None: encryption is declined.
        requires_tls: Whether clients without TLS are refused (RequireTLS).
        iam: Whose tokens are accepted, in place of passwords (IAMAuth REQUIRED). It needs `tls`. To
            the server the proxy logs in with the passwords of `users`.

    Raises:
        LabError: `requires_tls` or `iam` without `tls`.

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
        tls: ssl.SSLContext | None = None,
        requires_tls: bool = False,
        iam: IamLogins | None = None,
    ) -> None:
        if tls is None and (requires_tls or iam is not None):
            raise LabError("An RDS Proxy that requires TLS, as IAM does, needs tls=.")
        self.server = server
        self.port = 0
        self.pins: list[str] = []
        self.borrows = 0
        self.borrow_timeout = borrow_timeout
        self.idle_client_timeout = idle_client_timeout
        self.pins_named_statements = pins_named_statements
        self.requires_tls = requires_tls
        self.iam = iam
        self.tasks: set[asyncio.Task[None]] = set()
        self.clients: set[Client] = set()
        self._sessions = sessions
        self._max_clients = max_clients
        self._users = users
        self._tls = tls
        self._pools: dict[tuple[str, str], Pool] = {}
        self._parameters: dict[str, str] = {}
        self._thread: threading.Thread | None = None

    def url(self, database: str = "postgres") -> str:
        """SQLAlchemy URL of a database through the proxy, with the password in clear text."""
        url = self.server.url(database, port=self.port)
        return url if self._tls is not None else f"{url}?sslmode=disable"

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

    def list_clients(self, database: str) -> list[tuple[str, int | None]]:
        """Return `application_name`, and the process id of the session that it has, of each client."""
        return [
            (client.application_name, client.backend_pid)
            for client in tuple(self.clients)
            if client.database == database
        ]

    def end_clients(self, database: str) -> None:
        """Close the connections of a database's clients, as a failover does."""
        for client in tuple(self.clients):
            if client.database == database:
                self._loop.call_soon_threadsafe(client.close)

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

    async def find_database(self, user: str, database: str) -> None:
        """
        Open the first session of a user in a database, if the server answers.

        Raises:
            NoDatabase: The server has no such database.
        """
        if (user, database) in self._pools:
            return
        with contextlib.suppress(ConnectionError):
            session = await Session.open(self.server.port, user, self.password_of(user) or "", database)
            if (user, database) in self._pools:  # another client's login was faster
                session.close()
                return
            session.start_watching()
            pool = self._pools[user, database] = Pool(self._sessions)
            pool.idle.append(session)

    async def borrow(self, user: str, database: str) -> Session:
        """
        Take a session.

        Raises:
            asyncio.TimeoutError: There was none within the borrow timeout.
            NoDatabase: The database has been dropped.
        """
        pool = self._pools.setdefault((user, database), Pool(self._sessions))
        session = await asyncio.wait_for(self._take(pool, user, database), self.borrow_timeout)
        self.borrows += 1
        return session

    def give_back(self, user: str, database: str, session: Session, *, clean: bool) -> None:
        """Free a session, or end it if its client left something in it."""
        pool = self._pools[user, database]
        if clean:
            session.start_watching()
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
                        await session.stop_watching()
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
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _serve(self, connection: socket.socket) -> None:
        arrival = None
        try:
            arrival = await receive(connection, self._tls)
            if arrival is not None:
                client = Client(self, arrival)
                if len(self.tasks) > self._max_clients:
                    await client.refuse("53300", TOO_MANY)
                else:
                    await client.serve()
                await arrival.writer.drain()
        except ENDED:
            pass
        finally:
            (connection if arrival is None else arrival.writer).close()

    async def _end(self) -> None:
        self._listener.close()
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for pool in self._pools.values():
            for session in pool.idle:
                session.close()
        await asyncio.sleep(0)  # closes the transports
        await self._loop.shutdown_default_executor()
