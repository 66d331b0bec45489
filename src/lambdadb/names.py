"""
Host names, resolved so that the wait for a name server has an end.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
from collections.abc import Mapping
from typing import Any

from lambdadb.faults import fault_of
from lambdadb.retry import AttemptFailed


def names_a_host(parameters: Mapping[str, Any]) -> bool:
    """Whether there is one host name to resolve; libpq itself resolves the names of several hosts."""
    host = str(parameters.get("host") or "")
    if not host or parameters.get("hostaddr") or host.startswith(("/", "@")) or "," in host:
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False


class Names:
    """
    A host name being resolved in a thread, so that a slow name server cannot outlast the deadline.

    libpq would resolve it by itself, but blocking, with the resolver's own timeout (glibc: 5 s, twice).
    """

    def __init__(self, host: str, turn: int) -> None:
        self._host = host
        self._turn = turn
        self._answer: list[str] | str | None = None  # addresses, or why there are none
        self._reader, self._writer = socket.socketpair()
        self.socket = self._reader.fileno()
        threading.Thread(target=self._resolve, daemon=True).start()

    def _resolve(self) -> None:
        try:
            found = socket.getaddrinfo(self._host, None, type=socket.SOCK_STREAM)
            self._answer = list(dict.fromkeys(str(address[4][0]) for address in found))
        except Exception as error:
            self._answer = getattr(error, "strerror", None) or str(error)
        with self._writer, contextlib.suppress(OSError):  # nobody waits any more
            self._writer.send(b"!")

    def known(self) -> bool:
        """Whether the answer has come."""
        return self._answer is not None

    def addresses(self, parameters: Mapping[str, Any]) -> dict[str, str]:
        """
        libpq's parameters that lead to each address, beginning at another one in each `turn`.

        Raises:
            AttemptFailed: There is none.
        """
        self.close()
        if not isinstance(self._answer, list):
            text = f'could not translate host name "{self._host}" to address: {self._answer}'
            raise AttemptFailed(fault_of(text), text)
        count = len(self._answer)
        turn = self._turn % max(count, 1)
        port = str(parameters.get("port") or "")
        return {
            "hostaddr": ",".join([*self._answer[turn:], *self._answer[:turn]]),
            "host": ",".join([self._host] * count),
            **({"port": ",".join([port] * count)} if port else {}),
        }

    def close(self) -> None:
        """Listen no longer."""
        self._reader.close()
