"""
The RDS Data API as `lambdadb.drivers.base.Driver`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy

from lambdadb.drivers.base import Liveness, Meaning, Outcome, Proxy
from lambdadb.drivers.data_api import dbapi, mysql_transaction, transaction
from lambdadb.drivers.data_api.api import LONGEST_TAG
from lambdadb.drivers.data_api.backends import MYSQL, Answers, Backend
from lambdadb.drivers.data_api.connection import DataApiConnection
from lambdadb.drivers.data_api.faults import translate
from lambdadb.drivers.data_api.target import DataApiTarget, check_parameters, make_target
from lambdadb.errors import InvalidSettings, LambdaDBError

if TYPE_CHECKING:
    from lambdadb.tracing.span import Attributes


class DataApiDriver:
    """The Data API, for a synchronous and for an asynchronous engine."""

    session_tag_bytes = LONGEST_TAG  # botocore's limit for `app/` in a User-Agent

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.answers: Answers | None = None
        """What the database has said of itself; None before the first connect."""

    def choose_proxy(self, proxy: Proxy | None) -> None:
        """
        Refuse any choice: no connection leads to a proxy.

        Raises:
            InvalidSettings: A proxy is chosen.
        """
        if proxy not in (None, "none"):
            raise InvalidSettings(f"proxy={proxy!r}: the Data API has no proxy. Remove it.")

    def check_installation(self, *, traced: bool) -> None:
        """Do nothing: there is nothing to install."""

    def check_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Raise `InvalidSettings` for parameters that cannot work."""
        check_parameters(parameters, self.backend)

    def make_target(self, arguments: Sequence[Any], parameters: Mapping[str, Any]) -> DataApiTarget:
        """Return the target of the URL's parameters. The first one of an engine asks the database."""
        del arguments
        asks = self.answers is None
        return make_target(dict(parameters), self.backend, asks=asks, on_answers=self._keep)

    def _keep(self, answers: Answers) -> None:
        self.answers = answers

    def error(self, text: str) -> Exception:
        """Return the DBAPI error for a failed connect."""
        return dbapi.OperationalError(text)

    def describe_session(self, connection: Any, error: BaseException | None) -> Attributes:
        """Return the span attributes of a statement: those of its last call, and the SQLSTATE."""
        known: dict[str, Any] = {"db.system.name": self.backend.system}
        if isinstance(error, dbapi.Error):
            known["db.response.status_code"] = error.sqlstate
        if isinstance(connection, DataApiConnection):
            api = connection.api
            known["db.namespace"] = connection.database
            _, known["server.address"], known["server.port"] = api.endpoint.url
            known["aws.request_id"] = api.request_id
            known["lambdadb.call_seconds"] = round(api.seconds, 6)
        return {name: value for name, value in known.items() if value is not None}

    # Idle connections. On the server there is nothing between two transactions.

    def liveness(self, connection: Any) -> Liveness:
        """Return whether the connection can be used. No socket leads to the database."""
        return "closed" if connection.closed else "quiet"

    def has_proxy(self, connection: Any) -> bool:
        """Return False: the Data API keeps nothing open."""
        del connection
        return False

    def is_reusable(self, connection: Any) -> bool:
        """Whether a returned connection is outside of a transaction."""
        return not connection.closed and connection.transaction_id is None

    def idle_session_timeout(self, connection: Any) -> float | None:
        """Return None: nothing is open that could end."""
        del connection
        return None

    def reset_session(self, connection: Any) -> bool:
        """Return True: nothing is left of a transaction's session."""
        del connection
        return True

    def set_wait_limit(self, connection: Any, moment: float | None) -> None:
        """Set the moment at which every call ends. None: only the deadline of statements ends it."""
        connection.wait_limit = moment

    def abort(self, connection: Any) -> None:
        """Roll back a transaction that another thread may be using, in a second at most."""
        connection.abort()

    # Transactions

    def begin(self, connection: sqlalchemy.Connection) -> Any:
        """Begin a transaction whose outcome can be asked for, in two calls."""
        return transaction.begin(connection)

    def ask_outcome(self, connection: sqlalchemy.Connection, handle: Any) -> Outcome | None:
        """Ask what became of a transaction, in one or two calls."""
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


class MySQLDataApiDriver(DataApiDriver):
    """The Data API of a MySQL, which keeps no record of transactions."""

    def __init__(self) -> None:
        super().__init__(MYSQL)

    def begin(self, connection: sqlalchemy.Connection) -> Any:
        """Begin a transaction whose outcome can be asked for, in one call."""
        return mysql_transaction.begin(connection)

    def ask_outcome(self, connection: sqlalchemy.Connection, handle: Any) -> Outcome | None:
        """End a transaction, and say what became of it, in one call."""
        return mysql_transaction.ask_outcome(connection, handle)

    def names_same_tables(self, connection: sqlalchemy.Connection, handle: Any) -> bool:
        """Return True: the engine's URL names the database of both."""
        del connection, handle
        return True
