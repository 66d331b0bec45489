"""
SQLAlchemy's MySQL dialect over the RDS Data API: `mysql+data_api`.

An engine's first connection makes one call. Later ones make none.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import URL
from sqlalchemy.dialects.mysql.base import MySQLCompiler, MySQLDialect, MySQLExecutionContext

from lambdadb.drivers.data_api.compiler import PlainNames
from lambdadb.drivers.data_api.dialect import AsyncOverDataApi, OverDataApi
from lambdadb.drivers.data_api.driver import MySQLDataApiDriver
from lambdadb.errors import InvalidSettings


class _Compiler(PlainNames, MySQLCompiler):
    """SQLAlchemy's compiler for MySQL."""


class MySQLDataApiDialect(OverDataApi, MySQLDialect):
    """`mysql+data_api` for a synchronous engine."""

    supports_statement_cache = True
    statement_compiler = _Compiler
    execution_ctx_cls = MySQLExecutionContext  # sequences, and rows that RETURNING did not find

    @classmethod
    def make_driver(cls) -> MySQLDataApiDriver:
        """Make the driver of an engine with this dialect."""
        return MySQLDataApiDriver()

    @classmethod
    def get_async_dialect_cls(cls, url: URL) -> type[Any]:
        """The dialect of an asynchronous engine."""
        del url
        return AsyncMySQLDataApiDialect

    def create_connect_args(self, url: URL) -> Any:
        """
        Return the arguments of `connect()`.

        Raises:
            InvalidSettings: The URL has no database, or a user, a host or a port.
        """
        if not url.database:
            raise InvalidSettings(
                "The url has no database: mysql+data_api:///DATABASE?cluster_arn=ARN&secret_arn=ARN."
            )
        return super().create_connect_args(url)

    # SQLAlchemy's initialize() asks these. None of them sends anything.

    def _get_server_version_info(self, connection: Any) -> tuple[int, ...]:
        del connection
        return tuple(self._parse_server_version(self._answer("version")))

    def _get_default_schema_name(self, connection: Any) -> Any:
        return connection.connection.driver_connection.database

    def _detect_charset(self, connection: Any) -> str:
        del connection
        return "utf8mb4"

    def _fetch_setting(self, connection: Any, setting_name: str) -> str | None:
        del connection
        return self._answer(setting_name)

    def _extract_error_code(self, exception: Any) -> int | None:
        number: int | None = exception.number
        return number

    # A transaction begins by a call of the API, and MySQL's isolation level has to be set before that.

    def get_default_isolation_level(self, dbapi_conn: Any) -> Any:
        """Return the isolation level that a transaction has."""
        del dbapi_conn
        level = self._answer("transaction_isolation") or self._answer("tx_isolation")
        return level.upper().replace("-", " ")

    def get_isolation_level_values(self, dbapi_conn: Any) -> Any:
        """Return the levels that can be chosen."""
        return ("AUTOCOMMIT", self.get_default_isolation_level(dbapi_conn))

    def get_isolation_level(self, dbapi_connection: Any) -> Any:
        """Return the isolation level of the transactions to come."""
        return self.get_default_isolation_level(dbapi_connection)

    def set_isolation_level(self, dbapi_connection: Any, level: Any) -> None:
        """Choose between transactions and autocommit."""
        dbapi_connection.autocommit = level == "AUTOCOMMIT"


class AsyncMySQLDataApiDialect(AsyncOverDataApi, MySQLDataApiDialect):
    """`mysql+data_api` for an asynchronous engine."""

    supports_statement_cache = True
