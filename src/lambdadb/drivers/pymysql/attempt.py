"""
One attempt to log in to MySQL that never blocks.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Mapping
from selectors import EVENT_READ, EVENT_WRITE
from typing import Any

from lambdadb.background import BackgroundCall
from lambdadb.drivers.base import AttemptFailed
from lambdadb.drivers.pymysql.connection import DeadlineConnection
from lambdadb.drivers.pymysql.faults import diagnose, diagnose_network
from lambdadb.drivers.pymysql.stream import Stream
from lambdadb.drivers.resolver import Resolver, needs_resolving
from lambdadb.faults import Fault

_UNDER_WAY = (0, errno.EINPROGRESS, errno.EAGAIN)
_KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 5000}
"""The same as for PostgreSQL: below the 350 s after which NAT gateways drop an idle connection."""


class Attempt:
    """
    One attempt to log in. It is a `lambdadb.drivers.base.Attempt`.

    PyMySQL's `connect_timeout` ends with the TCP handshake. So PyMySQL's login runs in a thread of its
    own, on a socket that is shut down if the attempt is given up.
    """

    def __init__(
        self,
        parameters: Mapping[str, Any],
        number: int,
        make_connection: Callable[[], DeadlineConnection],
    ) -> None:
        self.got_first_byte = False
        self.event = EVENT_READ
        self.connection: DeadlineConnection | None = None
        self._make_connection = make_connection
        self._number = number
        self._port = int(parameters["port"])
        self._bind_address = parameters.get("bind_address")
        self._plain: socket.socket | None = None
        self._stream: Stream | None = None
        self._login: BackgroundCall[None] | None = None
        self._resolver: Resolver | None = None
        self._addresses: list[Any] = []
        if path := parameters.get("unix_socket"):
            self._addresses = [str(path)]
        elif needs_resolving(parameters):
            self._resolver = Resolver(str(parameters["host"]))
            self.socket = self._resolver.socket
            return
        else:
            self._addresses = [(str(parameters["host"]), self._port)]
        self._connect_next()

    @property
    def end_is_counted(self) -> bool:
        """
        Whether TCP is connected.

        A server counts each connection that ends before its login, also one that ends before the
        greeting. It blocks a host after `max_connect_errors` of them in a row, with error 1129.
        """
        return self._login is not None

    def _connect_next(self) -> None:
        """Begin to connect to the next address."""
        address = self._addresses.pop(0)
        if isinstance(address, str):
            plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        else:
            plain = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in _KEEPALIVE.items():
                if hasattr(socket, name):
                    plain.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
            if self._bind_address:
                self._bind(plain, str(self._bind_address))
        self._plain = plain
        plain.setblocking(False)
        self._check(plain.connect_ex(address))
        if self._plain is plain:
            self.socket, self.event = plain.fileno(), EVENT_WRITE

    @staticmethod
    def _bind(plain: socket.socket, address: str) -> None:
        """Connect from this address: PyMySQL's parameter `bind_address`."""
        try:
            plain.bind((address, 0))
        except OSError as error:
            plain.close()
            raise AttemptFailed(Fault.MISCONFIGURED, f"bind_address={address}: {error}") from error

    def _check(self, code: int) -> None:
        """Try the next address if this one failed; raise if it was the last."""
        if code in _UNDER_WAY:
            return
        if self._plain is not None:
            self._plain.close()
        if not self._addresses:
            raise diagnose_network(OSError(code, os.strerror(code)))
        self._connect_next()

    def advance(self) -> bool:
        """Do what can be done now that the socket is ready; True once logged in."""
        if self._resolver is not None:
            if self._resolver.is_done():
                found = self._resolver.addresses()
                self._resolver = None
                turn = self._number % len(found)
                self._addresses = [(host, self._port) for host in (*found[turn:], *found[:turn])]
                self._connect_next()
            return False
        if self._login is not None:
            return self._login.ended and self._finish(self._login)
        plain = self._plain
        assert plain is not None
        try:
            plain.getpeername()
        except OSError:  # not connected, or not yet
            self._check(plain.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        else:
            self._begin_login(plain)
        return False

    def _begin_login(self, plain: socket.socket) -> None:
        try:
            connection = self.connection = self._make_connection()
        except (TypeError, ValueError, LookupError) as error:  # a parameter that PyMySQL does not take
            raise AttemptFailed(Fault.MISCONFIGURED, f"{type(error).__name__}: {error}") from error
        stream = self._stream = connection.stream = Stream(plain)
        self._login = BackgroundCall(lambda: connection.connect(stream))
        self.socket, self.event = self._login.socket, EVENT_READ

    def _finish(self, login: BackgroundCall[None]) -> bool:
        self.got_first_byte = True
        try:
            login.result()
        except Exception as error:
            raise diagnose(error) from error
        login.close()
        return True

    def describe_silence(self) -> AttemptFailed:
        """Return the failure that an attempt without an answer stands for."""
        if self._resolver is not None:
            text = "resolving the host name: no answer so far"
            return AttemptFailed(Fault.UNREACHABLE, text, silent=True)
        if self._login is None:
            return AttemptFailed(Fault.UNREACHABLE, "connecting: no answer so far", silent=True)
        text = "the connection was accepted, but the login was not answered so far"
        return AttemptFailed(Fault.RESUMING, text, silent=True)

    def close(self) -> None:
        """End the attempt, and its session if it has one."""
        if self._resolver is not None:
            self._resolver.close()
        if self._login is not None:
            self._login.close()
        if self._stream is not None:
            self._stream.shutdown()  # its thread, which waits for it, closes it
            if self._login is not None and self._login.ended:
                self._stream.close()
        elif self._plain is not None:
            self._plain.close()
