"""
Proxies that share the server's sessions among their clients: RDS Proxy, pgbouncer and others like it.

A client keeps its connection to the proxy. It has a session of the server for one transaction at a time,
and the next transaction may have another session. So nothing that outlives a transaction may be set in a
session, and nothing that the client knows of one session holds for the next.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg

from lambdadb.drivers.base import Proxy
from lambdadb.drivers.psycopg.faults import diagnose
from lambdadb.drivers.rds_endpoint import is_proxy
from lambdadb.errors import ConnectFailed

# How a proxy refuses `options`, before it asks for the login. RDS Proxy: its troubleshooting page, and
# github.com/psycopg/psycopg2 issue 1577 (with either apostrophe). pgbouncer: src/client.c.
_REFUSALS: dict[Proxy, str] = {
    "rds-proxy": r"RDS Proxy .*doesn.{1,3}t .*support (command-line options|the option)",
    "pgbouncer": r"unsupported startup parameter( in options)?:",
}
# Process ids of Linux end at 4,194,304 (PID_MAX_LIMIT). pgbouncer and Odyssey send random numbers of 32
# bits as the process id of a session, by which they know the client that cancels.
_LARGEST_PID = 2**22

# A proxy ends a client's connection so if it got no session of the server for it. Nothing of the
# transaction was sent. RDS Proxy: 08000, its troubleshooting page; pgbouncer: 08P01, src/objects.c.
_NO_SESSION = re.compile(
    r"Timed-out waiting to acquire database connection|query_wait_timeout|server_login_retry"
    r"|pgbouncer cannot connect to server"
)
CANNOT_RESET = (
    "PerEnvironment(reset='session') cannot work through a proxy, which gives the session to other "
    "clients too. Set what a tenant needs with SET LOCAL in each transaction, or connect without a "
    "proxy."
)

# Seconds after which another try is worthwhile. The proxy itself has already waited.
_RETRY_AFTER = 5


@dataclass(repr=False, eq=False)
class KnownProxies:
    """Which proxy stands before the servers of one engine: chosen, named by the host, or found."""

    chosen: Proxy | None = None
    """What the engine's settings say; None: it is to be found."""
    _found: dict[str, Proxy] = field(default_factory=dict)

    def proxy_of(self, parameters: Mapping[str, Any]) -> Proxy:
        """Return the proxy before the server of these parameters."""
        if self.chosen is not None:
            return self.chosen
        if is_proxy(str(parameters.get("host", ""))):
            return "rds-proxy"
        return self._found.get(_address(parameters), "none")

    def learn_from_refusal(self, parameters: Mapping[str, Any], text: str) -> bool:
        """Whether a refused connect shows a proxy, unless the settings say what is there."""
        found = next((name for name, refusal in _REFUSALS.items() if re.search(refusal, text)), None)
        if found is None or self.chosen is not None:
            return False
        self._found[_address(parameters)] = found
        return True

    def learn_from_handshake(self, parameters: Mapping[str, Any], pid: int) -> None:
        """Look at the process id that came with a login: a server's own is small."""
        if not 0 <= pid <= _LARGEST_PID:
            self._found.setdefault(_address(parameters), "pgbouncer")

    def learn_from_session(self, parameters: Mapping[str, Any], handshake: int, session: int) -> None:
        """Compare the process id that came with a login with that of the session that answers."""
        if handshake != session:
            self._found.setdefault(_address(parameters), "pgbouncer")


def _address(parameters: Mapping[str, Any]) -> str:
    return f"{parameters.get('host') or parameters.get('hostaddr')}:{parameters.get('port')}"


def has_no_session(error: BaseException | None) -> bool:
    """Whether a proxy says by this error that it got no session of the server for a transaction."""
    if not isinstance(error, psycopg.Error) or not str(error.sqlstate).startswith("08"):
        return False
    return _NO_SESSION.search(error.diag.message_primary or "") is not None


def make_connect_failed(error: BaseException) -> ConnectFailed | None:
    """Return the error for a transaction that got no session; None for any other error."""
    if not has_no_session(error):
        return None
    failure = diagnose(f"FATAL:  {str(error).strip()}")
    return ConnectFailed(
        f"The proxy had no session of the server for this transaction, {failure.fault.value}: "
        f"{str(error).strip()}. Nothing of the transaction was sent. {failure.remedy}",
        fault=failure.fault,
        waited=0.0,
        attempts=1,
        orig=error,
        retry_after=_RETRY_AFTER,
    )
