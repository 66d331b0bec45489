"""A port that answers, refuses, or leaves every SYN without an answer."""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from collections.abc import Callable
from enum import Enum
from pathlib import Path

from lambdadb.lab import LabError

LOOPBACK = "127.0.0.1"
ANY_ADDRESS = "0.0.0.0"  # noqa: S104 only where the caller asks for it
BACKLOG = 1024
# Only Linux shows the SYNs that wait for an answer.
SEES_SYN = sys.platform == "linux"
SYN_SENT = "02"


class Port(str, Enum):
    """What a port does with a client's SYN."""

    ANSWER = "answer"
    REFUSE = "refuse"
    DROP = "drop"


class Listener:
    """
    A port that keeps its number while it answers, refuses or ignores clients.

    Args:
        port: The port; 0 chooses a free one.
        on_client: Called with each client's socket.
        host: IPv4 address of this machine to listen on; `0.0.0.0` is all of them.

    Raises:
        LabError: Another program has the port, or the address is not this machine's.
    """

    def __init__(
        self, port: int, on_client: Callable[[socket.socket], None], *, host: str = LOOPBACK
    ) -> None:
        self._host = host
        self._on_client = on_client
        self._filler: socket.socket | None = None
        self._socket: socket.socket | None = None
        # Bound for as long as the listener lives and never listening: while nothing else has the
        # port either, clients are refused, and no other socket is given its number.
        self._keeper = bind(host, port)
        self._keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self.port: int = self._keeper.getsockname()[1]
        self.mode = Port.REFUSE

    def set_mode(self, mode: Port) -> None:
        """Change what happens to clients; those who wait unaccepted are reset."""
        if mode is self.mode:
            return
        self.accept_waiting()
        self._stop_listening()
        self.mode = mode
        if mode is Port.REFUSE:
            return
        self._socket = bind(self._host, self.port, shared=True)
        if mode is Port.ANSWER:
            self._socket.listen(BACKLOG)
            asyncio.get_running_loop().add_reader(self._socket, self.accept_waiting)
        else:
            # A full queue: with a backlog of 0 there is room for one, and we are that one.
            self._socket.listen(0)
            self._filler = socket.socket()
            self._filler.setblocking(False)
            self._filler.connect_ex((self._host, self.port))

    def accept_waiting(self) -> None:
        """Hand every client that has come to `on_client`."""
        while self.mode is Port.ANSWER and self._socket is not None:
            try:
                client, _ = self._socket.accept()
            except BlockingIOError:
                return
            except ConnectionError:  # that client is gone already
                continue
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._on_client(client)

    def syn_waits(self) -> bool:
        """Whether a client of this machine has sent a SYN and got no answer; Linux only."""
        target = f"{socket.htonl(0x7F000001):08X}:{self.port:04X}"
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, _, remote, state, *_ = line.split()
            if remote == target and state == SYN_SENT:
                return True
        return False

    def close(self) -> None:
        """Give the port back."""
        self._stop_listening()
        self._keeper.close()

    def _stop_listening(self) -> None:
        if self._socket is not None:
            if self.mode is Port.ANSWER:
                asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        if self._filler is not None:
            self._filler.close()
            self._filler = None
        self.mode = Port.REFUSE


def bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """
    Bind a port without listening: until then the system refuses every client.

    SO_REUSEADDR is inherited by the sockets of clients, and lets the port be bound again while such a
    client still holds its end, as a frozen function does.

    Args:
        shared: Beside a socket of ours that has the port already.

    Raises:
        LabError: The port is in use, or cannot be used.
    """
    bound = socket.socket()
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.setblocking(False)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise LabError(
                f"Port {port} on {host} is in use by another program. "
                "Choose another port, or 0 for any free one."
            ) from error
        raise LabError(f"Port {port} on {host} cannot be used: {error.strerror or error}.") from error
    return bound
