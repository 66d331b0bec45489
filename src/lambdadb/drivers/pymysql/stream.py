"""
The socket of a connection to MySQL.

PyMySQL waits in its socket. This one waits by other means: in the thread of a login until it is closed,
afterwards until the deadline of a statement, and in an asynchronous engine on the event loop. So there
is one implementation of the protocol for both kinds of engine.
"""

from __future__ import annotations

import contextlib
import io
import select
import socket
import ssl
from collections.abc import Callable
from selectors import EVENT_READ, EVENT_WRITE
from typing import Any

from lambdadb.deadline import Clock

# Only Linux distinguishes a socket that the peer closed from one with data. Elsewhere both are readable.
_CLOSING = getattr(select, "POLLRDHUP", 0)
_NOT_READY = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_BUFFER = 32_768  # bytes that are read at once; some milliseconds of PyMySQL's work
_LONG = 3600.0  # seconds of one turn of a wait that nothing but the socket ends


class Stream:
    """
    A connected socket with the methods that PyMySQL calls: it is passed to PyMySQL's `connect(sock)`.

    Attributes:
        wait: Waits until the descriptor is ready for `EVENT_READ` or `EVENT_WRITE`; may raise.
        before_command: Called before the first byte of a command is sent; may raise.
        expects_answer: Whether something was sent since the last byte came.
        shares: Whether it waits before each read, also for what is here. Then an event loop has turns
            while PyMySQL reads a long result.
    """

    def __init__(self, plain: socket.socket) -> None:
        plain.setblocking(False)
        self._socket = plain
        self._poller: select.poll | None = None
        self.wait: Callable[[int, int], None] = _wait_forever
        self.before_command: Callable[[], None] = lambda: None
        self.expects_answer = False
        self.shares = False
        self.is_encrypted = False

    # What PyMySQL calls

    def settimeout(self, seconds: float | None) -> None:
        """Do nothing: `wait` decides how long a wait takes."""

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return a file that reads from it."""
        assert mode == "rb"
        return io.BufferedReader(_Reader(self), _BUFFER)

    def sendall(self, data: bytes) -> None:
        """Send all of it."""
        if not self.expects_answer:
            self.before_command()
        self.expects_answer = True
        rest = memoryview(data)
        while rest:
            rest = rest[self._until_ready(EVENT_WRITE, self._socket.send, rest) :]

    def recv_into(self, buffer: Any) -> int:
        """Receive what there is, at least one byte; 0 at the end."""
        # MySQL answers one command at a time, so nothing can be here already of a new answer.
        if self.expects_answer or self.shares:
            try:
                self.wait(self._socket.fileno(), EVENT_READ)
            except BaseException:
                self.close()
                raise
        count: int = self._until_ready(EVENT_READ, self._socket.recv_into, buffer)
        self.expects_answer = False
        return count

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    # What lambdadb calls

    @property
    def is_closed(self) -> bool:
        """Whether it was closed on this side."""
        return self._socket.fileno() < 0

    @property
    def peer(self) -> Any:
        """The server's address, as of `socket.getpeername()`. Raises `OSError` once it has ended."""
        return self._socket.getpeername()

    def start_tls(self, context: ssl.SSLContext, host: str) -> Stream:
        """Encrypt what follows. Raises `ssl.SSLError` if the server is not verified."""
        tls = ssl.SSLContext.wrap_socket(
            context, self._socket, server_hostname=host, do_handshake_on_connect=False
        )
        self._socket = tls
        self._until_ready(EVENT_READ, tls.do_handshake)
        self.is_encrypted = True
        return self

    def shutdown(self) -> None:
        """End the connection, also while another thread waits for it. That thread finds it closed."""
        # SSLSocket.shutdown() would first let the other thread go on without encryption.
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def has_ended(self) -> bool:
        """Whether the server, or something in the network, has ended an idle connection; no wait."""
        if self.is_closed:
            return True
        if self._poller is None:
            self._poller = select.poll()
            self._poller.register(self._socket.fileno(), select.POLLIN | _CLOSING)
        if not self._poller.poll(0):
            return False
        # The server sends nothing unasked but its farewell: error 4031 of MySQL, or an end. TLS may
        # have messages of its own, which leave nothing to read.
        try:
            self._socket.recv(1)
        except _NOT_READY:
            return False
        except OSError:
            return True
        return True

    def _until_ready(self, event: int, act: Callable[..., Any], *arguments: Any) -> Any:
        """Call `act`, and wait, for `event` unless TLS waits for another one, until it can be done."""
        try:
            while True:
                try:
                    return act(*arguments)
                except ssl.SSLWantWriteError:
                    wanted = EVENT_WRITE
                except ssl.SSLWantReadError:
                    wanted = EVENT_READ
                except BlockingIOError:
                    wanted = event
                self.wait(self._socket.fileno(), wanted)
        except BaseException:
            self.close()  # in the middle of a message: nothing else can be sent
            raise


class _Reader(io.RawIOBase):
    """Reads from a stream."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._stream.recv_into(buffer)


def _wait_forever(descriptor: int, event: int) -> None:
    """Wait until the descriptor is ready, or shut down by another thread."""
    while not Clock().wait({descriptor: event}, _LONG):
        pass
