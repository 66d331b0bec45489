"""
Resolve host names in a thread, so that a slow name server cannot exceed a deadline.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from typing import Any

from lambdadb.background import BackgroundCall
from lambdadb.drivers.base import AttemptFailed
from lambdadb.faults import Fault


def needs_resolving(parameters: Mapping[str, Any]) -> bool:
    """Whether there is one host name to resolve. The driver resolves the names of several hosts."""
    host = str(parameters.get("host") or "")
    if not host or parameters.get("hostaddr") or host.startswith(("/", "@")) or "," in host:
        return False
    return not is_address(host)


def is_address(host: str) -> bool:
    """Whether it is an IP address, which needs no resolving."""
    with contextlib.suppress(OSError):
        return bool(socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host))
    return False


class Resolver:
    """
    A host name that is being resolved.

    The C library resolves names by a blocking call with a timeout of its own (glibc: 5 s, twice).

    Attributes:
        socket: The descriptor of a socket that becomes readable when the answer is there.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        # For a str, Python would import its codec "idna", which takes a millisecond.
        name = host.encode() if host.isascii() else host
        self._call = BackgroundCall(lambda: socket.getaddrinfo(name, None, type=socket.SOCK_STREAM))
        self.socket = self._call.socket

    def is_done(self) -> bool:
        """Whether the answer has come."""
        return self._call.ended

    def addresses(self) -> list[str]:
        """
        Return the host's addresses, each once, in the resolver's order.

        Raises:
            AttemptFailed: The host has no address, or the resolver failed.
        """
        self.close()
        try:
            return list(dict.fromkeys(str(found[4][0]) for found in self._call.result()))
        except socket.gaierror as error:
            passing = error.errno == socket.EAI_AGAIN
            raise self._make_failure(error.strerror or str(error), passing=passing) from error
        except (OSError, UnicodeError) as error:
            raise self._make_failure(str(error), passing=isinstance(error, OSError)) from error

    def _make_failure(self, why: str, *, passing: bool) -> AttemptFailed:
        fault = Fault.UNREACHABLE if passing else Fault.MISCONFIGURED
        return AttemptFailed(fault, f'could not translate host name "{self._host}" to address: {why}')

    def close(self) -> None:
        """Stop waiting for the answer."""
        self._call.close()
