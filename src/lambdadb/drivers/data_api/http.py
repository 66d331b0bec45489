"""
One HTTP connection that is kept between calls. Its waits are those of a `Clock`.

So the same code serves synchronous engines and, on the event loop, asynchronous ones. A kept connection
leads to AWS's endpoint and not to the database, so it keeps no cluster awake.
"""

from __future__ import annotations

import errno
import http.client
import io
import select
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from selectors import EVENT_READ, EVENT_WRITE
from typing import Any

from lambdadb.deadline import Clock
from lambdadb.drivers.base import AttemptFailed
from lambdadb.drivers.resolver import Resolver, is_address

# Seconds unused after which a new connection is made. The service closes an idle one without a warning,
# and a request that meets the close gets no answer.
KEEP = 5.0
_LARGEST_ANSWER = 16 << 20
_UNDER_WAY = (0, errno.EINPROGRESS, errno.EAGAIN)


class NotSent(Exception):
    """The request did not reach the service as a whole, so it has no effect."""


class NoAnswer(Exception):
    """The request was sent, and no whole answer came. It may have an effect."""


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpConnection:
    """
    A connection to one host, made again when it is needed.

    Args:
        url: Scheme, host and port.
    """

    def __init__(self, url: tuple[str, str, int]) -> None:
        self._scheme, self._host, self._port = url
        self._socket: Any = None
        self._used = (0.0, 0.0)
        self._is_shut_down = False

    def post(
        self, path: str, headers: Mapping[str, str], body: bytes, *, clock: Clock, until: float
    ) -> Answer:
        """
        Send one POST request and return its answer. It is sent once.

        Args:
            until: The moment, on `clock`, at which all of it ends.

        Raises:
            NotSent: It has no effect.
            NoAnswer: It may have one.
        """
        sent = False
        try:
            if not self._is_usable(clock):
                self.close()
                self._connect(clock, until)
            lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
            lines += [f"content-length: {len(body)}", "", ""]
            if self._is_shut_down:
                raise OSError("shut down")  # noqa: TRY301 it is handled as the others are
            stream = _Stream(self._socket, clock, until)
            stream.send("\r\n".join(lines).encode("latin-1") + body)
            sent = True
            # Also where the answer is there already: SQLAlchemy's AsyncConnection takes a statement that
            # has never been waited for as an error.
            _wait(self._socket, EVENT_READ, clock, until)
            answer = self._read(stream)
        except (OSError, http.client.HTTPException, AttemptFailed) as error:
            self.close()
            kind = NoAnswer if sent else NotSent
            raise kind(f"{self._host}:{self._port}: {_describe(error)}") from error
        except BaseException:  # cancelled, or interrupted
            self.close()
            raise
        self._used = clock.moment()
        if self._is_shut_down:
            self.close()
        return answer

    def _read(self, stream: _Stream) -> Answer:
        response = http.client.HTTPResponse(stream, method="POST")  # type: ignore[arg-type]
        response.begin()
        body = response.read(_LARGEST_ANSWER)  # raises IncompleteRead for a part of an answer
        if response.length:
            raise http.client.HTTPException(f"the answer is larger than {_LARGEST_ANSWER} bytes")
        closes = response.will_close
        answer = Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, body)
        response.close()
        if closes:
            self.close()
        return answer

    def shut_down(self) -> None:
        """End the connection for good, while another thread waits on it, which gets an error."""
        self._is_shut_down = True
        if (inside := self._socket) is not None:
            try:
                inside.shutdown(socket.SHUT_RDWR)
            except OSError:
                return

    def close(self) -> None:
        """Close the connection."""
        inside, self._socket = self._socket, None
        if inside is not None:
            inside.close()

    def _is_usable(self, clock: Clock) -> bool:
        """Whether the kept connection is young enough, and nothing has come on it, such as its end."""
        if self._socket is None or clock.idle_since(self._used) > KEEP:
            return False
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        return not poll.poll(0)

    def _connect(self, clock: Clock, until: float) -> None:
        failure = OSError("the name has no address")
        for address in self._resolve(clock, until):
            plain = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
            try:
                plain.setblocking(False)
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                _check(plain.connect_ex((address, self._port)))
                _wait(plain, EVENT_WRITE, clock, until)
                _check(plain.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
                self._socket = self._handshake(plain, clock, until)
                return
            except OSError as error:
                plain.close()
                failure = error
            except BaseException:
                plain.close()
                raise
        raise failure

    def _resolve(self, clock: Clock, until: float) -> list[str]:
        if is_address(self._host):
            return [self._host]
        resolver = Resolver(self._host)
        if not clock.wait({resolver.socket: EVENT_READ}, until - clock.now()):
            resolver.close()
            raise TimeoutError("resolving the host name took too long")
        return resolver.addresses()

    def _handshake(self, plain: socket.socket, clock: Clock, until: float) -> Any:
        if self._scheme == "http":
            return plain
        inside = _tls_context().wrap_socket(
            plain, server_hostname=self._host, do_handshake_on_connect=False
        )
        try:
            _retry(inside, inside.do_handshake, EVENT_READ, clock, until)
        except BaseException:
            inside.close()
            raise
        return inside


class _Stream:
    """A socket for `http.client.HTTPResponse`, and the sending of a request."""

    def __init__(self, inside: Any, clock: Clock, until: float) -> None:
        self._inside, self._clock, self._until = inside, clock, until

    def send(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            send = partial(self._inside.send, left)
            left = left[_retry(self._inside, send, EVENT_WRITE, self._clock, self._until) :]

    def makefile(self, mode: str) -> io.BufferedReader:
        assert mode == "rb", mode
        return io.BufferedReader(_Reader(self._inside, self._clock, self._until), 65_536)


class _Reader(io.RawIOBase):
    """What comes from a socket until a moment."""

    def __init__(self, inside: Any, clock: Clock, until: float) -> None:
        self._inside, self._clock, self._until = inside, clock, until

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        received: int = _retry(
            self._inside, lambda: self._inside.recv_into(buffer), EVENT_READ, self._clock, self._until
        )
        return received


def _check(code: int) -> None:
    """Raise the error of a connect that has failed."""
    if code not in _UNDER_WAY:
        raise OSError(code, errno.errorcode.get(code, "failed"))


def _retry(inside: Any, act: Any, event: int, clock: Clock, until: float) -> Any:
    """Call `act()` until the socket need not be waited for."""
    while True:
        try:
            return act()
        except ssl.SSLWantReadError:
            event = EVENT_READ
        except ssl.SSLWantWriteError:
            event = EVENT_WRITE
        except BlockingIOError:
            pass
        _wait(inside, event, clock, until)


def _wait(inside: Any, event: int, clock: Clock, until: float) -> None:
    while not clock.wait({inside.fileno(): event}, until - clock.now()):
        if clock.now() >= until:
            raise TimeoutError("timed out")


@lru_cache(maxsize=1)
def _tls_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _describe(error: Exception) -> str:
    """A text that repeats nothing of request and answer. Only an OSError's own text is known not to."""
    said = isinstance(error, (OSError, AttemptFailed)) and str(error)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
