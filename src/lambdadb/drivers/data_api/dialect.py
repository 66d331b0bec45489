"""
SQLAlchemy's dialects over the RDS Data API: what they have in common, and `postgresql+data_api`.

An engine's first connection makes one call. Later ones make none.
"""

from __future__ import annotations

import re
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Engine, event
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.pool import ConnectionPoolEntry

from lambdadb.drivers.data_api import dbapi
from lambdadb.drivers.data_api.backends import POSTGRESQL
from lambdadb.drivers.data_api.compiler import PostgresCompiler
from lambdadb.drivers.data_api.connection import DataApiConnection
from lambdadb.drivers.data_api.driver import DataApiDriver
from lambdadb.drivers.data_api.faults import translate
from lambdadb.drivers.data_api.types import COLSPECS
from lambdadb.drivers.recording import RecordsStatements
from lambdadb.errors import InvalidSettings, LambdaDBError

if TYPE_CHECKING:
    from lambdadb.connect.connector import Connector


class OverDataApi(RecordsStatements, DefaultDialect):
    """What the dialects of both databases have in common."""

    driver = "data_api"
    supports_statement_cache = True
    supports_server_side_cursors = False
    supports_sane_multi_rowcount = False  # BatchExecuteStatement tells no number of rows
    supports_native_decimal = True
    default_paramstyle = "named"
    # A statement has 65,536 characters at most, and a parameter takes about 30 with its cast.
    insertmanyvalues_max_parameters = 1000
    connector: Connector

    def __init__(self, *, connector: Any, statements: Any = None, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.connector = connector
        self.statements = statements

    @classmethod
    def import_dbapi(cls) -> ModuleType:
        """Return the module with the errors."""
        return dbapi

    @classmethod
    def engine_created(cls, engine: Engine) -> None:
        """SQLAlchemy's hook for a new engine."""
        event.listen(engine, "handle_error", _translate_error, retval=True)
        # Listeners are called in order. The dialect's own, which calls initialize(), comes first.
        event.listen(engine, "connect", _end_connecting)

    def create_connect_args(self, url: URL) -> Any:
        """
        Return the arguments of `connect()`.

        Raises:
            InvalidSettings: The URL has a user, a host or a port.
        """
        if url.username or url.password or url.host or url.port:
            raise InvalidSettings(
                "The url has a user, a host or a port, and the Data API takes none: the login is in the "
                f"secret. Use {self.name}+data_api:///DATABASE?cluster_arn=ARN&secret_arn=ARN."
            )
        return (), {"database": url.database or "", **url.query}

    def connect(self, *arguments: Any, **keywords: Any) -> Any:
        """Make a connection. The first one of an engine asks the database, and waits for it."""
        driver: Any = self.connector.driver
        connection = self.connector.connect(driver.make_target(arguments, keywords))

        def wait_until_ready() -> None:
            target = self.connector.target
            assert target is not None  # set while the engine was made; it asks
            self.connector.connect(target).close()

        connection.wait_until_ready = wait_until_ready
        return connection

    def _answer(self, name: str) -> str:
        driver: Any = self.connector.driver
        return (driver.answers or {}).get(name) or ""

    def detect_autocommit_setting(self, dbapi_conn: Any) -> bool:
        """Whether each statement is a transaction of its own."""
        return bool(dbapi_conn.autocommit)

    def do_ping(self, dbapi_connection: Any) -> bool:
        """Return whether the connection can be used. Nothing is open on the server, so none is asked."""
        return not dbapi_connection.closed

    def do_terminate(self, dbapi_connection: Any) -> None:
        """Close a connection where nothing can be awaited."""
        dbapi_connection.terminate()

    def is_disconnect(self, e: Any, connection: Any, cursor: Any) -> bool:
        """Whether the connection cannot be used any more after an error."""
        del e, cursor
        own = getattr(connection, "driver_connection", connection)
        return isinstance(own, DataApiConnection) and own.closed


class DataApiDialect(OverDataApi, PGDialect):
    """`postgresql+data_api` for a synchronous engine."""

    supports_statement_cache = True
    supports_native_uuid = True
    statement_compiler = PostgresCompiler
    colspecs = {**PGDialect.colspecs, **COLSPECS}  # noqa: RUF012 as SQLAlchemy has it

    @classmethod
    def make_driver(cls) -> DataApiDriver:
        """Make the driver of an engine with this dialect."""
        return DataApiDriver(POSTGRESQL)

    @classmethod
    def get_async_dialect_cls(cls, url: URL) -> type[Any]:
        """The dialect of an asynchronous engine."""
        del url
        return AsyncDataApiDialect

    def type_descriptor(self, typeobj: Any) -> Any:
        """Replace a type by the one that this dialect uses."""
        if "pgvector.sqlalchemy" in sys.modules:
            from lambdadb.drivers.data_api.pgvector import TYPES

            if (own := TYPES.get(type(typeobj))) is not None:
                return typeobj.adapt(own)
        return super().type_descriptor(typeobj)

    def _get_server_version_info(self, connection: Any) -> tuple[int, ...]:
        del connection
        found = re.match(r"(\d+)(?:\.(\d+))?(?:\.(\d+))?", self._answer("version"))
        return tuple(int(number) for number in found.groups() if number) if found else ()

    def _get_default_schema_name(self, connection: Any) -> Any:
        del connection
        return self._answer("schema") or None

    def _set_backslash_escapes(self, connection: Any) -> None:
        del connection
        self._backslash_escapes = self._answer("strings") == "off"

    # None of these sends anything.

    def get_default_isolation_level(self, dbapi_conn: Any) -> Any:
        """Return the isolation level that a transaction has by default."""
        return dbapi_conn.isolation_level or self._answer("isolation").upper()

    def get_isolation_level_values(self, dbapi_conn: Any) -> Any:
        """Return the levels that can be chosen."""
        del dbapi_conn
        levels = ("READ COMMITTED", "READ UNCOMMITTED", "REPEATABLE READ", "SERIALIZABLE")
        return ("AUTOCOMMIT", *levels)

    def get_isolation_level(self, dbapi_connection: Any) -> Any:
        """Return the isolation level of the transactions to come."""
        return self.get_default_isolation_level(dbapi_connection)

    def set_isolation_level(self, dbapi_connection: Any, level: Any) -> None:
        """Set the isolation level of the transactions to come. It costs each of them one more call."""
        dbapi_connection.autocommit = level == "AUTOCOMMIT"
        default = self._answer("isolation").upper()
        dbapi_connection.isolation_level = None if level in ("AUTOCOMMIT", default) else level

    def reset_isolation_level(self, dbapi_conn: Any) -> None:
        """Return to the isolation level of the engine."""
        level = self._on_connect_isolation_level or self.default_isolation_level
        self.set_isolation_level(dbapi_conn, level)

    def set_readonly(self, connection: Any, value: Any) -> None:
        """Whether the transactions to come are READ ONLY. It costs each of them one more call."""
        connection.read_only = value

    def get_readonly(self, connection: Any) -> Any:
        """Whether the transactions to come are READ ONLY."""
        return bool(connection.read_only)

    def set_deferrable(self, connection: Any, value: Any) -> None:
        """Whether the transactions to come are DEFERRABLE. It costs each of them one more call."""
        connection.deferrable = value

    def get_deferrable(self, connection: Any) -> Any:
        """Whether the transactions to come are DEFERRABLE."""
        return bool(connection.deferrable)


class AsyncOverDataApi:
    """
    An asynchronous engine's.

    SQLAlchemy runs its synchronous core in a greenlet, and the clock of the engine waits on the event
    loop. So the same connection serves both.
    """

    is_async = True
    has_terminate = True


class AsyncDataApiDialect(AsyncOverDataApi, DataApiDialect):
    """`postgresql+data_api` for an asynchronous engine."""

    supports_statement_cache = True


def _end_connecting(dbapi_connection: Any, record: ConnectionPoolEntry) -> None:
    """SQLAlchemy's `connect` listener that ends the time limit of a connect."""
    del dbapi_connection
    driver_connection: Any = record.driver_connection
    driver_connection.wait_limit = None


def _translate_error(context: ExceptionContext) -> LambdaDBError | None:
    """SQLAlchemy's `handle_error` listener (`retval=True`): translates an error to lambdadb's."""
    return translate(context.original_exception)
