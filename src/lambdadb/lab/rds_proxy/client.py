"""One client of a proxy: its login, its messages, and what pins it."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import time
from typing import TYPE_CHECKING

from lambdadb.drivers.psycopg.pins import find_pin
from lambdadb.lab.rds_proxy.arrival import Arrival
from lambdadb.lab.rds_proxy.messages import ENDED, message, read_message
from lambdadb.lab.rds_proxy.session import NoDatabase, Session
from lambdadb.lab.startup_packet import fatal

if TYPE_CHECKING:
    from lambdadb.lab.rds_proxy.proxy import RdsProxy

# RDS User Guide, "Connecting to a database through RDS Proxy": PostgreSQL's startup parameters.
DOCUMENTED = (
    *("user", "database", "application_name", "client_encoding", "datestyle", "timezone"),
    *("extra_float_digits", "search_path"),
)
NO_OPTIONS = "Feature not supported: RDS Proxy currently doesn\u2019t support command-line options"
NO_PARAMETER = "Feature not supported: RDS Proxy currently doesn\u2019t support the option {}"
NEEDS_TLS = "This RDS Proxy requires TLS connections"
IAM_NEEDS_TLS = "IAM authentication is allowed only with SSL connections"
IAM_FAILED = "IAM authentication failed for user {}. Check the IAM token for this user and try again."
BORROW_TIMEOUT = "Timed-out waiting to acquire database connection"
NO_CREDENTIALS = "This RDS proxy has no credentials for the role {}"
LINGER = 1.0  # seconds in which a client that was refused may close its connection
NAMED_STATEMENT = "a named prepared statement"


class Client:
    """One client's connection, and the session that it has now."""

    def __init__(self, proxy: RdsProxy, arrival: Arrival) -> None:
        self._proxy = proxy
        self._encrypted = arrival.encrypted
        self._reader = arrival.reader
        self._writer = arrival.writer
        self._session: Session | None = None
        self._answers: asyncio.Task[None] | None = None
        self._owed = 0  # messages that the server ends with ReadyForQuery
        self._unsynced = False  # parts of the extended protocol, whose Sync has not come
        self._is_pinned = False
        self._idle_timer: asyncio.TimerHandle | None = None
        self._user = arrival.startup.user
        self._parameters = arrival.startup.parameters
        self.database = arrival.startup.database
        self.application_name = arrival.startup.application_name

    @property
    def backend_pid(self) -> int | None:
        """The process id of the session that it has now."""
        return None if self._session is None else self._session.backend_pid

    def close(self) -> None:
        """End its connection."""
        self._writer.close()

    async def serve(self) -> None:
        """Log the client in, and pass on what it sends."""
        if (refusal := await self._log_in()) is not None:
            await self.refuse(*refusal)
            return
        self._proxy.clients.add(self)
        self._writer.write(self._proxy.login_answer())
        try:
            self._start_idle_timer()
            while await self._pass_on():
                pass
        finally:
            self._proxy.clients.discard(self)
            self._stop_idle_timer()
            if self._answers is not None:
                self._answers.cancel()
            if (session := self._session) is not None:
                self._proxy.give_back(self._user, self.database, session, clean=False)

    async def refuse(self, sqlstate: str, text: str) -> None:
        """End the connection with an error, which the client reads before it learns of the end."""
        self._writer.write(fatal(sqlstate, text))
        await self._writer.drain()
        if self._writer.can_write_eof():  # a close would discard the error if more is on the way
            self._writer.write_eof()
            with contextlib.suppress(asyncio.TimeoutError, *ENDED):
                await asyncio.wait_for(self._reader.read(), LINGER)

    async def _log_in(self) -> tuple[str, str] | None:
        """Ask for the login. Returns SQLSTATE and text of a refusal."""
        refused = [name for name in self._parameters if name.lower() not in DOCUMENTED]
        iam = self._proxy.iam
        password = self._proxy.password_of(self._user)
        if self._proxy.requires_tls and not self._encrypted:
            return "28000", NEEDS_TLS
        if iam is not None and not self._encrypted:
            return "28000", IAM_NEEDS_TLS
        if refused:
            return "0A000", NO_OPTIONS if "options" in refused else NO_PARAMETER.format(refused[0])
        if password is None:
            return "28000", NO_CREDENTIALS.format(self._user)
        # The proxy itself asks for the login. A real one asks for SCRAM or MD5, or for a token.
        self._writer.write(message(b"R", struct.pack("!I", 3)))
        _, body = await read_message(self._reader)
        given = body[:-1].decode(errors="replace")
        if iam is None and given != password:
            return "28P01", f'password authentication failed for user "{self._user}"'
        if iam is not None and not iam.accepts(given, self._user, at=time.time()):
            return "28P01", IAM_FAILED.format(self._user)
        try:
            await self._proxy.find_database(self._user, self.database)
        except NoDatabase as error:
            return "3D000", str(error)
        return None

    async def _pass_on(self) -> bool:
        """Pass one message on; False at the end."""
        kind, body = await read_message(self._reader)
        if kind == b"X":
            return False
        if self._session is None:
            self._stop_idle_timer()
            try:
                self._session = await self._proxy.borrow(self._user, self.database)
            except asyncio.TimeoutError:
                await self.refuse("08000", BORROW_TIMEOUT)
                return False
            except NoDatabase as error:
                await self.refuse("3D000", str(error))
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
                self._owed -= kind == b"Z"
                busy = self._owed or self._unsynced or self._is_pinned
                if kind == b"Z" and body == b"I" and not busy:
                    # Before the client knows, who may ask at once which sessions are in use.
                    self._session = None
                    self._start_idle_timer()
                    self._proxy.give_back(self._user, self.database, session, clean=True)
                    self._writer.write(message(kind, body))
                    return
                self._writer.write(message(kind, body))
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
