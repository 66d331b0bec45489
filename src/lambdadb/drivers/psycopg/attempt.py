"""
One attempt to log in to PostgreSQL that never blocks.
"""

from __future__ import annotations

import re
import selectors
from collections.abc import Mapping
from typing import Any

from psycopg import pq

from lambdadb.drivers.base import AttemptFailed
from lambdadb.drivers.psycopg.faults import diagnose
from lambdadb.drivers.resolver import Resolver, needs_resolving
from lambdadb.faults import Fault

# Keywords of psycopg.connect() that are not libpq's.
_PSYCOPG_KEYWORDS = ("autocommit", "prepare_threshold", "context", "row_factory", "cursor_factory")

_HOSTS = ("host", "hostaddr", "port")


class Attempt:
    """
    One attempt to log in, with libpq's non-blocking functions. It is a `lambdadb.drivers.base.Attempt`.

    psycopg.connect() is not used: its timeout is in whole seconds, at least two, and it does not report
    how far it came.

    With several hosts or addresses, each attempt begins at another one. So a first host that does not
    answer does not keep the attempts from the others.
    """

    end_is_counted = False

    def __init__(self, parameters: Mapping[str, Any], number: int) -> None:
        self._parameters = {k: v for k, v in parameters.items() if k not in _PSYCOPG_KEYWORDS}
        self._number = number
        self.got_first_byte = False
        self._resolver: Resolver | None = None
        if needs_resolving(parameters):
            self._resolver = Resolver(str(parameters["host"]))
            self.socket, self.event = self._resolver.socket, selectors.EVENT_READ
        else:
            self._start(_rotate_hosts(self._parameters, number))

    def _start(self, parameters: Mapping[str, Any]) -> None:
        # An encoding error would show the password. surrogatepass avoids it.
        conninfo = make_conninfo(parameters).encode(errors="surrogatepass")
        self.pgconn = pq.PGconn.connect_start(conninfo)
        self.event = selectors.EVENT_WRITE

    def advance(self) -> bool:
        """Do what can be done now that the socket is ready; True once logged in."""
        if self._resolver is not None:
            if not self._resolver.is_done():
                return False
            addresses = self._resolver.addresses()
            self._resolver = None
            self._start(_use_addresses(self._parameters, addresses, self._number))
        else:
            self.got_first_byte = self.got_first_byte or self.event == selectors.EVENT_READ
        status = self.pgconn.connect_poll()
        if status == pq.PollingStatus.FAILED:
            raise diagnose(self.pgconn.error_message.decode(errors="replace").strip())
        self.socket = self.pgconn.socket  # libpq has another socket for each address
        reading = status == pq.PollingStatus.READING
        self.event = selectors.EVENT_READ if reading else selectors.EVENT_WRITE
        return bool(status == pq.PollingStatus.OK)

    def describe_silence(self) -> AttemptFailed:
        """Return the failure that an attempt without an answer stands for."""
        if self._resolver is not None:
            text = "resolving the host name: no answer so far"
            return AttemptFailed(Fault.UNREACHABLE, text, silent=True)
        if self.pgconn.status == pq.ConnStatus.STARTED:
            return AttemptFailed(Fault.UNREACHABLE, "connecting: no answer so far", silent=True)
        text = "the connection was accepted, but the login was not answered so far"
        return AttemptFailed(Fault.RESUMING, text, silent=True)

    def close(self) -> None:
        """End the attempt, and its session if it has one."""
        if self._resolver is not None:
            self._resolver.close()
        else:
            self.pgconn.finish()


def make_conninfo(parameters: Mapping[str, Any]) -> str:
    """
    Make libpq's connection string (PostgreSQL, "Connection Strings"). libpq reports mistakes in it.

    psycopg's make_conninfo() would parse it again, which takes a tenth of a connect's processor time.
    """
    given = {name: str(value) for name, value in parameters.items() if value is not None}
    escaped = {name: re.sub(r"(['\\])", r"\\\1", value) for name, value in given.items()}
    return " ".join(f"{name}='{value}'" for name, value in escaped.items())


def _rotate_hosts(parameters: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Rotate the lists of hosts, addresses and ports so that they begin at number `number`."""
    lists = {name: str(parameters[name]).split(",") for name in _HOSTS if parameters.get(name)}
    hosts = max((len(values) for values in lists.values()), default=1)
    turn = number % hosts
    turned = {n: ",".join([*v[turn:], *v[:turn]]) for n, v in lists.items() if len(v) == hosts}
    return {**parameters, **turned}


def _use_addresses(parameters: Mapping[str, Any], addresses: list[str], number: int) -> dict[str, Any]:
    """Return parameters with all addresses of the host, beginning at number `number`."""
    count = len(addresses)
    port = str(parameters.get("port") or "")
    every = {"hostaddr": ",".join(addresses), "host": ",".join([str(parameters["host"])] * count)}
    if port:
        every["port"] = ",".join([port] * count)
    return _rotate_hosts({**parameters, **every}, number)
