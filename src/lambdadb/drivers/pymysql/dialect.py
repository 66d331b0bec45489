"""
SQLAlchemy's PyMySQL dialect, which connects through lambdadb.

An engine's first connection sends one query, where SQLAlchemy's dialect needs five. SET NAMES is not
sent a second time. Everything else is SQLAlchemy's, also `engine.dialect.name` and `.driver`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Connection, Engine, event
from sqlalchemy.dialects.mysql import mariadb
from sqlalchemy.dialects.mysql.base import MySQLDialect
from sqlalchemy.dialects.mysql.pymysql import MySQLDialect_pymysql
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.pool import ConnectionPoolEntry

from lambdadb.drivers.pymysql.connection import DeadlineConnection, translate
from lambdadb.drivers.pymysql.cursor import AsyncCursor
from lambdadb.drivers.pymysql.driver import PyMySQLDriver
from lambdadb.drivers.recording import RecordsStatements
from lambdadb.errors import LambdaDBError

if TYPE_CHECKING:
    from lambdadb.connect.connector import Connector

_SETTINGS = ("sql_mode", "lower_case_table_names")


class PyMySQLDialect(RecordsStatements, MySQLDialect_pymysql):
    """
    `mysql+pymysql` for a synchronous engine.

    SQLAlchemy's `initialize()` runs unchanged. It calls methods that query the server. This class
    overrides them, as dialects do, although their names begin with an underscore. While `initialize()`
    runs, they return the answers of one query. If SQLAlchemy stops calling one of them, it queries the
    server itself, which is slower and also correct.
    """

    supports_statement_cache = True
    connector: Connector
    _answers: dict[str, Any] | None = None

    def __init__(self, *, connector: Any, statements: Any = None, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.connector = connector
        self.statements = statements

    @classmethod
    def make_driver(cls) -> PyMySQLDriver:
        """Make the driver of an engine with this dialect."""
        return PyMySQLDriver()

    @classmethod
    def get_async_dialect_cls(cls, url: URL) -> type[Any]:
        """The dialect of an asynchronous engine."""
        del url
        return AsyncPyMySQLDialect

    @classmethod
    def engine_created(cls, engine: Engine) -> None:
        """SQLAlchemy's hook for a new engine."""
        event.listen(engine, "handle_error", _translate_error, retval=True)
        # Listeners are called in order. The dialect's own, which calls initialize(), comes first.
        event.listen(engine, "connect", _end_connecting)

    def connect(self, *arguments: Any, **keywords: Any) -> Any:
        """Open a session. `Connector.connect` documents errors and costs."""
        return self.connector.connect(self.connector.driver.make_target(arguments, keywords))

    def on_connect(self) -> Any:
        """Return the listener of MySQLDialect, whose subclass would send SET NAMES again."""
        return MySQLDialect.on_connect(self)  # type: ignore[no-untyped-call, unused-ignore]

    def initialize(self, connection: Connection) -> None:
        """
        Learn what the dialect needs to know about the server.

        **Costs:** one round trip, once for an engine.
        """
        driver_connection: Any = connection.connection.driver_connection
        if not isinstance(driver_connection, DeadlineConnection):
            super().initialize(connection)
            return  # a do_connect listener made it
        # MySQL 8 has no tx_isolation, and MariaDB before 11.1 no transaction_isolation.
        is_mariadb = "MariaDB" in str(driver_connection.get_server_info())
        level = "@@tx_isolation" if is_mariadb else "@@transaction_isolation"
        settings = ", ".join(f"@@{name}" for name in _SETTINGS)
        (row,) = driver_connection.ask(f"SELECT VERSION(), DATABASE(), {level}, {settings} LIMIT 1")
        self._answers = dict(zip(("version", "schema", "level", *_SETTINGS), row, strict=True))
        try:
            super().initialize(connection)
        finally:
            self._answers = None

    def _get_server_version_info(self, connection: Any) -> Any:
        if self._answers is None or not hasattr(self, "_parse_server_version"):
            return super()._get_server_version_info(connection)
        return self._parse_server_version(self._answers["version"])

    def _get_default_schema_name(self, connection: Any) -> Any:
        if self._answers is None:
            return super()._get_default_schema_name(connection)
        return self._answers["schema"]

    def get_default_isolation_level(self, dbapi_conn: Any) -> Any:
        """Return the isolation level that a session has at its start."""
        if self._answers is None:
            return super().get_default_isolation_level(dbapi_conn)
        return str(self._answers["level"]).upper().replace("-", " ")

    def _fetch_setting(self, connection: Any, setting_name: str) -> Any:
        if self._answers is None or setting_name not in self._answers:
            return super()._fetch_setting(connection, setting_name)
        value = self._answers[setting_name]
        return None if value is None else str(value)

    def set_isolation_level(self, dbapi_connection: Any, level: Any) -> None:
        """
        Set the isolation level of a session; also after the deadline.

        **Costs:** one round trip, two when the session leaves AUTOCOMMIT for a level that it did not
        have; none for what it has.
        """
        if not isinstance(dbapi_connection, DeadlineConnection):
            super().set_isolation_level(dbapi_connection, level)
            return
        with dbapi_connection.allow_late():
            dbapi_connection.autocommit(level == "AUTOCOMMIT")
            has = dbapi_connection.isolation_level or getattr(self, "default_isolation_level", None)
            if level not in ("AUTOCOMMIT", has):
                dbapi_connection.ask(f"SET SESSION TRANSACTION ISOLATION LEVEL {level}")
                dbapi_connection.isolation_level = level

    def is_disconnect(self, e: Any, connection: Any, cursor: Any) -> bool:
        """Whether the session is gone after an error."""
        driver_connection = getattr(connection, "driver_connection", connection)
        if isinstance(driver_connection, DeadlineConnection) and not driver_connection.open:
            return True
        return bool(super().is_disconnect(e, connection, cursor))


class AsyncPyMySQLDialect(PyMySQLDialect):
    """
    `mysql+pymysql` for an asynchronous engine.

    SQLAlchemy runs its synchronous core in a greenlet. PyMySQL waits in a socket of lambdadb's, and that
    socket waits on the event loop. So PyMySQL itself is the asynchronous driver.
    """

    supports_statement_cache = True
    is_async = True
    has_terminate = True

    def connect(self, *arguments: Any, **keywords: Any) -> Any:
        """Open a session, as for a synchronous engine."""
        connection = super().connect(*arguments, **keywords)
        connection.cursorclass = AsyncCursor
        connection.stream.shares = True
        return connection

    def do_terminate(self, dbapi_connection: Any) -> None:
        """Close a connection where nothing can be awaited."""
        if isinstance(dbapi_connection, DeadlineConnection):
            dbapi_connection.terminate()
        else:
            dbapi_connection.close()


class MariaDBDialect(mariadb.MariaDBDialect, PyMySQLDialect):
    """`mariadb+pymysql` for a synchronous engine: SQLAlchemy refuses a server that is not MariaDB."""

    supports_statement_cache = True

    @classmethod
    def get_async_dialect_cls(cls, url: URL) -> type[Any]:
        """The dialect of an asynchronous engine."""
        del url
        return AsyncMariaDBDialect


class AsyncMariaDBDialect(mariadb.MariaDBDialect, AsyncPyMySQLDialect):
    """`mariadb+pymysql` for an asynchronous engine."""

    supports_statement_cache = True


def _end_connecting(dbapi_connection: Any, record: ConnectionPoolEntry) -> None:
    """SQLAlchemy's `connect` listener that ends the time limit of a connect."""
    del dbapi_connection
    driver_connection: Any = record.driver_connection
    driver_connection.wait_limit = None


def _translate_error(context: ExceptionContext) -> LambdaDBError | None:
    """SQLAlchemy's `handle_error` listener (`retval=True`): translates an error to lambdadb's."""
    return translate(context.original_exception)
