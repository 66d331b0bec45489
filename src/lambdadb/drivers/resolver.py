"""
Host names, resolved so that the wait for a name server has an end.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from typing import Any

from lambdadb.background import BackgroundCall
from lambdadb.drivers.base import AttemptFailed
from lambdadb.faults import fault_of


def names_a_host(parameters: Mapping[str, Any]) -> bool:
    """Whether there is one host name to resolve; libpq itself resolves the names of several hosts."""
    host = str(parameters.get("host") or "")
    if not host or parameters.get("hostaddr") or host.startswith(("/", "@")) or "," in host:
        return False
    return not is_address(host)


def is_address(host: str) -> bool:
    """Whether it is an address, which needs no resolving."""
    for family in (socket.AF_INET6,) if ":" in host else (socket.AF_INET,):
        with contextlib.suppress(OSError):
            return bool(socket.inet_pton(family, host))
    return False


class Names:
    """
    A host name being resolved in a thread, so that a slow name server cannot outlast the deadline.

    libpq would resolve it by itself, but blocking, with the resolver's own timeout (glibc: 5 s, twice).
    """

    def __init__(self, host: str, turn: int) -> None:
        self._host = host
        self._turn = turn
        # As text it would be looked at by the codec "idna", whose import takes a millisecond.
        name = host.encode() if host.isascii() else host
        self._call = BackgroundCall(lambda: socket.getaddrinfo(name, None, type=socket.SOCK_STREAM))
        self.socket = self._call.socket

    def known(self) -> bool:
        """Whether the answer has come."""
        return self._call.ended

    def addresses(self, parameters: Mapping[str, Any]) -> dict[str, str]:
        """
        libpq's parameters that lead to each address, beginning at another one in each `turn`.

        Raises:
            AttemptFailed: There is none.
        """
        self.close()
        try:
            found = list(dict.fromkeys(str(address[4][0]) for address in self._call.result()))
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or str(error)
            text = f'could not translate host name "{self._host}" to address: {why}'
            raise AttemptFailed(fault_of(text), text) from error
        turn = self._turn % len(found)
        port = str(parameters.get("port") or "")
        return {
            "hostaddr": ",".join([*found[turn:], *found[:turn]]),
            "host": ",".join([self._host] * len(found)),
            **({"port": ",".join([port] * len(found))} if port else {}),
        }

    def close(self) -> None:
        """Listen no longer."""
        self._call.close()
