"""
One HTTP request and its answer, with one deadline for all of it.

http.client's own timeout holds for each wait: a server that sends a byte a second would never meet it.
"""

from __future__ import annotations

import http.client
import io
import socket
from typing import Any

from lambdadb.deadline import Clock, Deadline

# Bytes: a secret has 64 KiB at most, some of it escaped.
_LONGEST = 1 << 20


class NoAnswer(Exception):
    """No HTTP answer came in time; the text says why, and repeats nothing of request and answer."""


class NobodyListens(NoAnswer):
    """The connection was refused: there is no server on that port."""


def exchange(
    method: str,
    url: tuple[str, str, int],
    path: str,
    headers: dict[str, str],
    body: bytes | None = None,
    *,
    seconds: float,
    clock: Clock,
) -> tuple[int, str]:
    """
    Send one request. Returns the status and the text of the answer, 1 MiB of it at most.

    Args:
        url: Scheme, host and port.
        seconds: After so long it ends, however much has come. Resolving the host is not counted.

    Raises:
        NoAnswer: Nothing came in time, or something else than HTTP.
    """
    scheme, host, port = url
    connection = _Connection(host, port, tls=scheme != "http", seconds=seconds, clock=clock)
    connection.set_debuglevel(0)  # which would print the headers
    try:
        connection.request(method, path, body, headers)
        with connection.getresponse() as response:
            return response.status, response.read(_LONGEST).decode(errors="replace")
    except Exception as error:
        # Only of an OSError is it certain that its text repeats nothing of request and answer.
        why = f": {error}" if isinstance(error, OSError) else ""
        kind = NobodyListens if isinstance(error, ConnectionRefusedError) else NoAnswer
        failure = kind(f"{host}:{port}: {type(error).__name__}{why}")
    finally:
        connection.close()
    raise failure  # here and not above, where it would have a __context__ that may know the answer


class _Connection(http.client.HTTPConnection):
    """An HTTP or HTTPS connection whose every wait ends at the same moment."""

    def __init__(self, host: str, port: int, *, tls: bool, seconds: float, clock: Clock) -> None:
        super().__init__(host, port)
        self._tls = tls
        self._deadline = Deadline(clock.now() + seconds)
        self._clock = clock

    def connect(self) -> None:
        """Connect to the first address that accepts, and do the TLS handshake."""
        plain = self._connect_plain()
        try:
            inside = self._handshake(plain) if self._tls else plain
            self.sock: Any = _DeadlineSocket(inside, self._deadline, self._clock)
        except BaseException:
            plain.close()
            raise

    def _connect_plain(self) -> socket.socket:
        failure = OSError("the name has no address")
        for family, kind, protocol, _, address in socket.getaddrinfo(
            self.host, self.port, type=socket.SOCK_STREAM
        ):
            plain = socket.socket(family, kind, protocol)
            try:
                plain.settimeout(_remaining(self._deadline, self._clock))
                plain.connect(address)
            except OSError as error:
                plain.close()
                failure = error
            else:
                return plain
        raise failure

    def _handshake(self, plain: socket.socket) -> socket.socket:
        import ssl

        context = ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])
        plain.settimeout(_remaining(self._deadline, self._clock))
        return context.wrap_socket(plain, server_hostname=self.host)


class _DeadlineSocket:
    """The part of a socket that http.client uses."""

    def __init__(self, inside: socket.socket, deadline: Deadline, clock: Clock) -> None:
        self._inside = inside
        self._deadline = deadline
        self._clock = clock

    def sendall(self, data: bytes) -> None:
        self._inside.settimeout(_remaining(self._deadline, self._clock))
        self._inside.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        assert mode == "rb", mode
        return io.BufferedReader(_DeadlineReader(self._inside, self._deadline, self._clock))

    def close(self) -> None:
        self._inside.close()


class _DeadlineReader(io.RawIOBase):
    """What is read from a socket until a deadline."""

    def __init__(self, inside: socket.socket, deadline: Deadline, clock: Clock) -> None:
        self._inside = inside
        # It keeps the socket open after the connection's close(), as http.client expects.
        self._raw: Any = inside.makefile("rb", buffering=0)
        self._deadline = deadline
        self._clock = clock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._inside.settimeout(_remaining(self._deadline, self._clock))
        received: int = self._raw.readinto(buffer)
        return received

    def close(self) -> None:
        self._raw.close()
        super().close()


def _remaining(deadline: Deadline, clock: Clock) -> float:
    """
    Seconds until the deadline.

    Raises:
        TimeoutError: None are left.
    """
    left = deadline.remaining(clock)
    if left <= 0:
        raise TimeoutError("timed out")
    return left
