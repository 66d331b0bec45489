"""One client of a proxy: its login, its messages, and what pins it."""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING

from lambdadb.drivers.psycopg.pins import find_pin
from lambdadb.lab.rds_proxy.messages import ENDED, message, read_message, read_startup
from lambdadb.lab.rds_proxy.session import Session
from lambdadb.lab.startup_packet import StartupPacket, fatal

if TYPE_CHECKING:
    from lambdadb.lab.rds_proxy.proxy import RdsProxy

# RDS User Guide, "Connecting to a database through RDS Proxy": PostgreSQL's startup parameters.
DOCUMENTED = (
    *("user", "database", "application_name", "client_encoding", "datestyle", "timezone"),
    *("extra_float_digits", "search_path"),
)
NO_OPTIONS = "Feature not supported: RDS Proxy currently doesn\u2019t support command-line options"
NO_PARAMETER = "Feature not supported: RDS Proxy currently doesn\u2019t support the option {}"
BORROW_TIMEOUT = "Timed-out waiting to acquire database connection"
NO_CREDENTIALS = "This RDS proxy has no credentials for the role {}"
NAMED_STATEMENT = "a named prepared statement"


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
        self.database = ""
        self.application_name = ""

    @property
    def backend_pid(self) -> int | None:
        """The process id of the session that it has now."""
        return None if self._session is None else self._session.backend_pid

    def close(self) -> None:
        """End its connection."""
        self._writer.close()

    async def serve(self) -> None:
        """Log the client in, and pass on what it sends."""
        startup = await read_startup(self._reader, self._writer)
        if startup is None or not await self._log_in(startup):
            return
        self._user, self.database = startup.user, startup.database
        self.application_name = startup.parameters.get("application_name", "")
        self._proxy.clients.add(self)
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
                self._session = await self._proxy.borrow(self._user, self.database)
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
                    self._proxy.give_back(self._user, self.database, session, clean=True)
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
