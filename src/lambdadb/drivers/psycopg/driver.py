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

from lambdadb.drivers.base import Liveness, Meaning, Outcome
from lambdadb.drivers.psycopg import instrumentation
from lambdadb.drivers.psycopg.connection import (
    CLOSING,
    AsyncDeadlineConnection,
    DeadlineConnection,
    translate,
)
from lambdadb.drivers.psycopg.libpq import warn_of_old_libpq
from lambdadb.drivers.psycopg.pipeline import find_missing
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

    # Before the first connect

    def check_installation(self, *, traced: bool) -> None:
        """Log what the installed psycopg and libpq lack, and a patch of psycopg that traces nothing."""
        warn_of_old_libpq()
        missing = find_missing()
        if not psycopg.capabilities.has_pipeline():
            missing.append("pipeline mode (libpq 14)")
        self._pipelines_begin = not missing
        if missing:
            logger.info(
                "psycopg %s has no %s: BEGIN is sent by itself, which costs each transaction one round "
                "trip more.",
                psycopg.__version__,
                ", ".join(missing),
            )
        if not traced and (explanation := instrumentation.explain_patched_driver()) is not None:
            logger.warning("%s", explanation)

    def check_parameters(self, parameters: Mapping[str, Any]) -> None:
        """
        Refuse parameters that cannot work.

        Raises:
            InvalidSettings: One of them is not libpq's, or is decided elsewhere.
        """
        if "connect_timeout" in parameters:
            raise InvalidSettings(
                "connect_timeout: say it as retry=ResumeRetry(timeout=seconds), which also respects the "
                "time that Lambda has left; remove it from the URL and from connect_args."
            )
        if (mode := parameters.get("sslmode", "verify-full")) not in _SSLMODES:
            raise InvalidSettings(f"sslmode={mode!r}: use one of {', '.join(_SSLMODES)}.")

    def make_target(self, arguments: Sequence[Any], parameters: Mapping[str, Any]) -> PsycopgTarget:
        """Where `psycopg.connect(*arguments, **parameters)` would connect to."""
        conninfo = arguments[0] if arguments else ""
        return PsycopgTarget(
            parameters={**(conninfo_to_dict(conninfo) if conninfo else {}), **parameters},
            environment=os.environ,
            asyncio=self._asyncio,
            pipelines_begin=self._pipelines_begin,
        )

    def error(self, text: str) -> Exception:
        """The driver's error for a failed connect, without the connection that knows the password."""
        return psycopg.OperationalError(text)

    def describe_session(self, connection: Any, error: BaseException | None) -> Attributes:
        """Span attributes of a statement."""
        return instrumentation.describe_session(connection, error)

    # Keeping

    def liveness(self, connection: Any) -> Liveness:
        """
        Whether an idle connection is still there, found out without a round trip.

        Sees whatever reached this host: FIN and RST, and so every ordinary end of a session. It cannot
        see a flow that was dropped in silence. **Costs:** no round trip; about a microsecond.
        """
        if connection.pgconn.status != _OK:
            return "closed"
        if not isinstance(connection, (DeadlineConnection, AsyncDeadlineConnection)):
            return "readable"  # a do_connect listener made it
        for _, event in connection.poller.poll(0):
            return "closed" if event & _CLOSED else "readable"
        return "quiet"

    def is_reusable(self, connection: Any) -> bool:
        """Whether a returned connection is between transactions and nothing sent to it is on its way."""
        # A cancel that was sent may arrive late, and would then hit another statement. A transaction
        # that is still open was meant to be rolled back, whoever was to do it.
        timed_out = getattr(connection, "timed_out", False)  # a do_connect listener may have made it
        pgconn = connection.pgconn
        return not timed_out and pgconn.transaction_status == pgconn.pipeline_status == 0

    def idle_session_timeout(self, connection: Any) -> float | None:
        """Seconds unused after which the server ends its session, as far as its parameters tell."""
        seconds: float | None = getattr(connection, "idle_session_timeout", None)
        return seconds

    def reset_session(self, connection: Any) -> bool:
        """DISCARD ALL: settings as at its start, no temporary tables, locks, LISTEN or statements."""
        prepared: Any = getattr(connection, "_prepared", None)  # psycopg's, of prepared statements
        to_flush = getattr(prepared, "_to_flush", None)
        if to_flush is None or not isinstance(connection, (DeadlineConnection, AsyncDeadlineConnection)):
            return False
        ask(connection, "DISCARD ALL")
        prepared.clear()
        to_flush.clear()  # and no DEALLOCATE ALL: they are gone
        return True

    def set_wait_limit(self, connection: Any, moment: float | None) -> None:
        """The moment at which every wait is given up; None: when the deadline of statements says so."""
        connection.wait_limit = moment

    def abort(self, connection: Any) -> None:
        """End a session that another thread may be using; a running statement is cancelled."""
        getattr(connection, "abort", connection.pgconn.finish)()

    # Transactions

    def begin(self, connection: sqlalchemy.Connection) -> TransactionHandle:
        """Begin a transaction whose outcome can be asked for; one round trip, BEGIN's own."""
        return self._transactions.begin(connection)

    def ask_outcome(self, connection: sqlalchemy.Connection, transaction: Any) -> Outcome | None:
        """Ask another connection what became of a transaction; one round trip, or two."""
        return self._transactions.ask_outcome(connection, transaction)

    def names_same_tables(self, connection: sqlalchemy.Connection, transaction: Any) -> bool:
        """Whether a table's name leads to the same table as when the transaction began."""
        return self._transactions.names_same_tables(connection, transaction)

    def meaning(self, error: BaseException, transaction: Any = None) -> Meaning:
        """What an error of a statement means for its transaction."""
        return meaning_of(error, transaction)

    def translate(self, error: BaseException) -> LambdaDBError | None:
        """What an error is for lambdadb's callers; None if it is the server's or somebody else's."""
        return translate(error)
