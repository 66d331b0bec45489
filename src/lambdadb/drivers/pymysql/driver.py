"""
PyMySQL as `lambdadb.drivers.base.Driver`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pymysql
import sqlalchemy

from lambdadb.drivers.base import Liveness, Meaning, Outcome, Proxy
from lambdadb.drivers.pymysql import tls, transaction
from lambdadb.drivers.pymysql.connection import DeadlineConnection, translate
from lambdadb.drivers.pymysql.target import PyMySQLTarget
from lambdadb.drivers.pymysql.unit_of_work import error_number
from lambdadb.drivers.rds_endpoint import is_proxy
from lambdadb.errors import InvalidSettings, LambdaDBError

if TYPE_CHECKING:
    from lambdadb.tracing.span import Attributes

_REFUSED = {
    **dict.fromkeys(
        ("connect_timeout", "read_timeout", "write_timeout"),
        "use retry=ResumeRetry(timeout=seconds), which also respects the time that Lambda has left",
    ),
    "read_default_file": "write the parameters in the URL or in connect_args",
    "read_default_group": "write the parameters in the URL or in connect_args",
    "compress": "PyMySQL does not support it",
    "passwd": "use password",
    "db": "use database",
}


class PyMySQLDriver:
    """PyMySQL, for a synchronous and for an asynchronous engine."""

    # session_connect_attrs keeps 512 bytes of all attributes of a session by default
    # (performance_schema_session_connect_attrs_size), and PyMySQL's own take about 100.
    session_tag_bytes = 128

    def choose_proxy(self, proxy: Proxy | None) -> None:
        """
        Refuse any choice: an RDS Proxy is known by its host name, and other proxies are not supported.

        Raises:
            InvalidSettings: A proxy is chosen.
        """
        if proxy not in (None, "none"):
            raise InvalidSettings(
                f"proxy={proxy!r}: this setting is for PostgreSQL. An RDS Proxy for MySQL is known by "
                "its host name."
            )

    def check_installation(self, *, traced: bool) -> None:
        """Do nothing: every version that can be installed is complete."""

    def check_parameters(self, parameters: Mapping[str, Any]) -> None:
        """
        Refuse parameters that cannot work.

        Raises:
            InvalidSettings: A parameter has an unknown value, or is decided by lambdadb.
        """
        for name, remedy in _REFUSED.items():
            if parameters.get(name) is not None:
                raise InvalidSettings(f"{name}: {remedy}. Remove it from the URL and from connect_args.")
        tls.read_choice(parameters)

    def make_target(self, arguments: Sequence[Any], parameters: Mapping[str, Any]) -> PyMySQLTarget:
        """Return the target of `pymysql.connect(*arguments, **parameters)`."""
        del arguments
        return PyMySQLTarget(parameters=dict(parameters), environment=os.environ)

    def error(self, text: str) -> Exception:
        """Return PyMySQL's error for a failed connect."""
        error: Exception = pymysql.OperationalError(text)
        return error

    def describe_session(self, connection: Any, error: BaseException | None) -> Attributes:
        """Return the span attributes of a statement: those of its session, and the error's number."""
        attributes: dict[str, Any] = {"db.system.name": "mysql"}
        if error is not None and isinstance(error, pymysql.Error) and error_number(error):
            attributes["db.response.status_code"] = str(error_number(error))
        if connection is not None and connection.open:
            attributes["db.namespace"] = _text(connection.db)
            attributes["server.address"] = connection.host
            attributes["server.port"] = connection.port
            attributes["lambdadb.user"] = _text(connection.user)
        return {name: value for name, value in attributes.items() if value is not None}

    # Idle connections

    def liveness(self, connection: Any) -> Liveness:
        """
        Return the state of an idle connection, without a round trip.

        A server that ends a session sends error 4031 first (MySQL 8.0.24 or later), or only an end.
        Both mean that the session is gone, since MySQL sends nothing else unasked.
        """
        if not connection.open:
            return "closed"
        if not isinstance(connection, DeadlineConnection):
            return "readable"  # a do_connect listener made it
        return "closed" if connection.stream.has_ended() else "quiet"

    def has_proxy(self, connection: Any) -> bool:
        """Whether a proxy answers a ping of this connection, and shares sessions of the server."""
        return is_proxy(str(getattr(connection, "host", "")))

    def is_reusable(self, connection: Any) -> bool:
        """Whether a returned connection is outside of a transaction and expects no answer."""
        if not isinstance(connection, DeadlineConnection):
            return bool(connection.open)
        if connection.timed_out or not connection.open or connection.stream.expects_answer:
            return False
        return connection.is_clean or connection.get_autocommit()

    def idle_session_timeout(self, connection: Any) -> float | None:
        """Return the seconds unused after which the server ends the session."""
        seconds: float | None = getattr(connection, "idle_session_timeout", None)
        return seconds

    def reset_session(self, connection: Any) -> bool:
        """Return False: the connection is replaced. PyMySQL has no call for COM_RESET_CONNECTION."""
        del connection
        return False

    def set_wait_limit(self, connection: Any, moment: float | None) -> None:
        """Set the moment at which every wait ends. None: only the deadline of statements ends it."""
        connection.wait_limit = moment

    def abort(self, connection: Any) -> None:
        """End a session that another thread may be using. A running statement is cancelled."""
        getattr(connection, "abort", connection.close)()

    # Transactions

    def begin(self, connection: sqlalchemy.Connection) -> transaction.TransactionHandle:
        """Begin a transaction whose session can be found later, in one round trip."""
        return transaction.begin(connection)

    def ask_outcome(self, connection: sqlalchemy.Connection, handle: Any) -> Outcome | None:
        """End the session of a transaction on another connection, in one or two round trips."""
        return transaction.ask_outcome(connection, handle)

    def names_same_tables(self, connection: sqlalchemy.Connection, handle: Any) -> bool:
        """Whether a table's name means the same table here as where the transaction began."""
        return transaction.names_same_tables(connection, handle)

    def meaning(self, error: BaseException, handle: Any = None) -> Meaning:
        """Return what an error of a statement means for its transaction."""
        return transaction.meaning_of(error, handle)

    def translate(self, error: BaseException) -> LambdaDBError | None:
        """Return lambdadb's error for it; None if it has none."""
        return translate(error)


def _text(name: Any) -> Any:
    return name.decode(errors="replace") if isinstance(name, bytes) else name
