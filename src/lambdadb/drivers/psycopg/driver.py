"""
psycopg 3 as `lambdadb.drivers.base.Driver`.
"""

from __future__ import annotations

import logging
import os
import select
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import psycopg
import sqlalchemy
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

from lambdadb.drivers.base import Liveness, Meaning, Outcome, Proxy
from lambdadb.drivers.psycopg import instrumentation
from lambdadb.drivers.psycopg.connection import (
    CLOSING,
    AsyncDeadlineConnection,
    DeadlineConnection,
    translate,
)
from lambdadb.drivers.psycopg.libpq import warn_of_old_libpq
from lambdadb.drivers.psycopg.pipeline import find_missing
from lambdadb.drivers.psycopg.proxies import KnownProxies
from lambdadb.drivers.psycopg.simple_query import ask
from lambdadb.drivers.psycopg.target import PsycopgTarget
from lambdadb.drivers.psycopg.transaction import TransactionHandle, Transactions, meaning_of
from lambdadb.errors import InvalidSettings, LambdaDBError

if TYPE_CHECKING:
    from lambdadb.tracing.span import Attributes

logger = logging.getLogger("lambdadb")

_SSLMODES = ("verify-full", "verify-ca", "require", "prefer", "allow", "disable")
_CLOSED = CLOSING | select.POLLHUP | select.POLLERR | select.POLLNVAL
_OK = pq.ConnStatus.OK


class PsycopgDriver:
    """psycopg 3, for a synchronous engine or (`asyncio`) an asynchronous one."""

    session_tag_bytes = 63  # NAMEDATALEN - 1: the server cuts a longer application_name silently

    def __init__(self, *, asyncio: bool) -> None:
        self._asyncio = asyncio
        self._pipelines_begin = False
        self._transactions = Transactions()
        self._proxies = KnownProxies()

    # Before the first connect

    def choose_proxy(self, proxy: Proxy | None) -> None:
        """Set the proxy that the engine's settings name; None: it is to be found."""
        self._proxies.chosen = proxy

    def check_installation(self, *, traced: bool) -> None:
        """Log what the installed psycopg and libpq lack, and a patch of psycopg for tracing."""
        warn_of_old_libpq()
        missing = find_missing()
        if not psycopg.capabilities.has_pipeline():
            missing.append("pipeline mode (libpq 14)")
        self._pipelines_begin = not missing
        if missing:
            logger.info(
                "psycopg %s has no %s. BEGIN is sent alone, which costs each transaction one more round "
                "trip.",
                psycopg.__version__,
                ", ".join(missing),
            )
        if not traced and (explanation := instrumentation.explain_patched_driver()) is not None:
            logger.warning("%s", explanation)

    def check_parameters(self, parameters: Mapping[str, Any]) -> None:
        """
        Refuse parameters that cannot work.

        Raises:
            InvalidSettings: `sslmode` has an unknown value, or `connect_timeout` is set.
        """
        if "connect_timeout" in parameters:
            raise InvalidSettings(
                "connect_timeout: use retry=ResumeRetry(timeout=seconds), which also respects the time "
                "that Lambda has left. Remove it from the URL and from connect_args."
            )
        if (mode := parameters.get("sslmode", "verify-full")) not in _SSLMODES:
            raise InvalidSettings(f"sslmode={mode!r}: use one of {', '.join(_SSLMODES)}.")

    def make_target(self, arguments: Sequence[Any], parameters: Mapping[str, Any]) -> PsycopgTarget:
        """Return the target of `psycopg.connect(*arguments, **parameters)`."""
        conninfo = arguments[0] if arguments else ""
        return PsycopgTarget(
            parameters={**(conninfo_to_dict(conninfo) if conninfo else {}), **parameters},
            environment=os.environ,
            asyncio=self._asyncio,
            pipelines_begin=self._pipelines_begin,
            proxies=self._proxies,
        )

    def error(self, text: str) -> Exception:
        """Return psycopg's error for a failed connect, without a connection that has the password."""
        return psycopg.OperationalError(text)

    def describe_session(self, connection: Any, error: BaseException | None) -> Attributes:
        """Return the span attributes of a statement."""
        return instrumentation.describe_session(connection, error)

    # Idle connections

    def liveness(self, connection: Any) -> Liveness:
        """
        Return the state of an idle connection, without a round trip.

        It sees a FIN or RST that reached this host, and so every ordinary end of a session. It cannot
        see that a gateway has dropped the connection without a message.

        **Costs:** no round trip; about a microsecond.
        """
        if connection.pgconn.status != _OK:
            return "closed"
        if not isinstance(connection, (DeadlineConnection, AsyncDeadlineConnection)):
            return "readable"  # a do_connect listener made it
        for _, event in connection.poller.poll(0):
            return "closed" if event & _CLOSED else "readable"
        return "quiet"

    def has_proxy(self, connection: Any) -> bool:
        """Whether a proxy answers a ping of this connection, and shares sessions of the server."""
        return getattr(connection, "proxy", "none") != "none"  # a do_connect listener may have made it

    def is_reusable(self, connection: Any) -> bool:
        """Whether a returned connection is outside of a transaction and expects no answer."""
        # A cancel may arrive late, and would then cancel another statement. A transaction that is still
        # open should have been rolled back.
        timed_out = getattr(connection, "timed_out", False)  # a do_connect listener may have made it
        pgconn = connection.pgconn
        # A standby that was promoted reports it with its next answer. The engine's URL leads to another
        # server by now.
        standby = getattr(connection, "standby", None)
        promoted = standby is not None and pgconn.parameter_status(b"in_hot_standby") != standby
        return not (timed_out or promoted) and pgconn.transaction_status == pgconn.pipeline_status == 0

    def idle_session_timeout(self, connection: Any) -> float | None:
        """Return the seconds unused after which the server ends the session, by its parameters."""
        seconds: float | None = getattr(connection, "idle_session_timeout", None)
        return seconds

    def reset_session(self, connection: Any) -> bool:
        """Reset the session by DISCARD ALL, and psycopg's list of its prepared statements."""
        prepared: Any = getattr(connection, "_prepared", None)  # psycopg's list of prepared statements
        to_flush = getattr(prepared, "_to_flush", None)
        if to_flush is None or not isinstance(connection, (DeadlineConnection, AsyncDeadlineConnection)):
            return False
        if self.has_proxy(connection):
            return False  # it would reset a session that other clients use
        ask(connection, "DISCARD ALL")
        prepared.clear()
        to_flush.clear()  # no DEALLOCATE ALL is needed: they are removed
        return True

    def set_wait_limit(self, connection: Any, moment: float | None) -> None:
        """Set the moment at which every wait ends. None: only the deadline of statements ends it."""
        connection.wait_limit = moment

    def abort(self, connection: Any) -> None:
        """End a session that another thread may be using. A running statement is cancelled."""
        getattr(connection, "abort", connection.pgconn.finish)()

    # Transactions

    def begin(self, connection: sqlalchemy.Connection) -> TransactionHandle:
        """Begin a transaction whose outcome can be asked for, in the one round trip of BEGIN."""
        return self._transactions.begin(connection)

    def ask_outcome(self, connection: sqlalchemy.Connection, transaction: Any) -> Outcome | None:
        """Ask on another connection what became of a transaction, in one or two round trips."""
        return self._transactions.ask_outcome(connection, transaction)

    def names_same_tables(self, connection: sqlalchemy.Connection, transaction: Any) -> bool:
        """Whether a table's name means the same table here as where the transaction began."""
        return self._transactions.names_same_tables(connection, transaction)

    def meaning(self, error: BaseException, transaction: Any = None) -> Meaning:
        """Return what an error of a statement means for its transaction."""
        return meaning_of(error, transaction)

    def translate(self, error: BaseException) -> LambdaDBError | None:
        """Return lambdadb's error for it; None if it has none."""
        return translate(error)
