"""
SQLAlchemy's psycopg dialects, which connect through lambdadb.

An engine's first connection sends one query, where SQLAlchemy's dialects need nine round trips. Vectors
are written in binary. Everything else is SQLAlchemy's, also `engine.dialect.name` and `.driver`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg.adapt import AdaptersMap
from psycopg.types import TypeInfo
from sqlalchemy import URL, Connection, Engine, event
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg, PGDialectAsync_psycopg
from sqlalchemy.pool import ConnectionPoolEntry

from lambdadb.drivers.psycopg.connection import (
    AnyConnection,
    AsyncDeadlineConnection,
    DeadlineConnection,
    allow_late,
    translate_error,
)
from lambdadb.drivers.psycopg.driver import PsycopgDriver
from lambdadb.drivers.psycopg.proxies import CANNOT_RESET
from lambdadb.drivers.psycopg.simple_query import ask
from lambdadb.drivers.recording import RecordsStatements
from lambdadb.errors import InvalidSettings

if TYPE_CHECKING:
    from lambdadb.connect.connector import Connector

# The rows are types of extensions. Their codecs need the OID that the type has in this database.
_QUESTIONS = """
    SELECT pg_catalog.current_schema(), pg_catalog.current_setting('transaction_isolation'),
           pg_catalog.pg_backend_pid(), name, oid, typarray, oid::pg_catalog.regtype, typdelim
    FROM (VALUES ('hstore'), ('vector')) AS wanted (name)
         LEFT JOIN pg_catalog.pg_type ON oid OPERATOR(pg_catalog.=) pg_catalog.to_regtype(name)
"""


@dataclass(frozen=True, repr=False, eq=False)
class _Answers:
    """What SQLAlchemy needs to know about the server, from one query and the handshake."""

    version: tuple[int, ...]
    schema: str | None
    isolation_level: str
    backslash_escapes: bool
    pid: int
    types: Mapping[str, TypeInfo | None]


class _LambdaDBDialect(RecordsStatements, PGDialect_psycopg):
    """
    What the synchronous and the asynchronous dialect have in common.

    SQLAlchemy's `initialize()` runs unchanged. It calls methods that query the server. This class
    overrides them, as dialects do, although their names begin with an underscore. While `initialize()`
    runs, they return the answers of one query. If SQLAlchemy stops calling one of them, it queries the
    server itself, which is slower and also correct.
    """

    supports_statement_cache = True
    calls_deadline_function = True
    connector: Connector
    _answers: _Answers | None = None
    _adapters: AdaptersMap | None = None
    """psycopg's adapters for later connections."""
    _exact_types: Mapping[type[Any], type[Any]] = {}
    """Types, not their subclasses, and the types that replace them."""

    def __init__(self, *, connector: Any, statements: Any = None, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.connector = connector
        self.statements = statements

    @classmethod
    def make_driver(cls) -> PsycopgDriver:
        """Make the driver of an engine with this dialect."""
        return PsycopgDriver(asyncio=cls.is_async)

    @classmethod
    def engine_created(cls, engine: Engine) -> None:
        """SQLAlchemy's hook for a new engine."""
        event.listen(engine, "handle_error", translate_error, retval=True)
        # Listeners are called in order. The dialect's own, which calls initialize(), comes first.
        event.listen(engine, "connect", _end_connecting)

    def create_connect_args(self, url: URL) -> Any:
        """Return SQLAlchemy's arguments for `connect()`. Keep the psycopg adapters in them."""
        arguments, parameters = super().create_connect_args(url)
        self._adapters = parameters.get("context")
        return arguments, parameters

    def connect(self, *arguments: Any, **keywords: Any) -> Any:
        """Open a session. `Connector.connect` documents errors and costs."""
        return self.connector.connect(self.connector.driver.make_target(arguments, keywords))

    def initialize(self, connection: Connection) -> None:
        """
        Learn what the dialect needs to know about the server.

        **Costs:** one round trip, once for an engine. SQLAlchemy's own dialect needs nine.
        """
        driver_connection: Any = connection.connection.driver_connection
        if not isinstance(driver_connection, (DeadlineConnection, AsyncDeadlineConnection)):
            super().initialize(connection)
            return  # a do_connect listener made it
        self._answers = _ask(driver_connection)
        self._look_for_proxy(driver_connection, self._answers.pid)
        try:
            super().initialize(connection)
            self._use_binary_vectors(driver_connection, self._answers.types["vector"])
        finally:
            self._answers = None

    def _look_for_proxy(self, connection: AnyConnection, pid: int) -> None:
        """Find a proxy by the process id of the session. Refuse a policy that cannot work there."""
        if connection.learn_pid is not None:
            connection.learn_pid(connection, pid)
        if connection.proxy != "none" and self.connector.settings.policy.resets:
            raise InvalidSettings(CANNOT_RESET)

    def _use_binary_vectors(self, connection: AnyConnection, vector: TypeInfo | None) -> None:
        if vector is None or self._adapters is None or not _is_pgvector_imported():
            return
        try:
            from lambdadb.drivers.psycopg import pgvector
        except ImportError:  # pgvector before 0.4: its types write text
            return
        pgvector.send_binary(vector, self._adapters, connection.adapters)
        self._exact_types = pgvector.EXACT_TYPES

    @staticmethod
    def make_reader_arguments(*, writer_may_answer: bool) -> dict[str, str]:
        """Return the arguments of a connect that leads to a standby, which libpq sees at the login."""
        return {"target_session_attrs": "prefer-standby" if writer_may_answer else "standby"}

    @staticmethod
    def find_pin(statement: str) -> tuple[str, str] | None:
        """Return what pins a client of RDS Proxy that sends a statement, and what to do instead."""
        from lambdadb.drivers.psycopg.pins import find_pin

        return find_pin(statement)

    def type_descriptor(self, typeobj: Any) -> Any:
        """Replace a type by the one that this dialect uses."""
        own = self._exact_types.get(type(typeobj))
        return super().type_descriptor(typeobj) if own is None else typeobj.adapt(own)

    def _get_server_version_info(self, connection: Any) -> Any:
        if self._answers is None:
            return super()._get_server_version_info(connection)
        return self._answers.version

    def _get_default_schema_name(self, connection: Any) -> Any:
        if self._answers is None:
            return super()._get_default_schema_name(connection)
        return self._answers.schema

    def get_default_isolation_level(self, dbapi_conn: Any) -> Any:
        """Return the isolation level that a session has at its start."""
        if self._answers is None:
            return super().get_default_isolation_level(dbapi_conn)
        return self._answers.isolation_level

    def _set_backslash_escapes(self, connection: Any) -> None:
        if self._answers is None or not hasattr(PGDialect_psycopg, "_backslash_escapes"):
            super()._set_backslash_escapes(connection)
            return
        self._backslash_escapes = self._answers.backslash_escapes

    def _type_info_fetch(self, connection: Any, name: str) -> Any:
        if self._answers is None or name not in self._answers.types:
            return super()._type_info_fetch(connection, name)
        return self._answers.types[name]

    # These change psycopg's connection and send nothing, so they work after the deadline too.

    def set_isolation_level(self, dbapi_connection: Any, level: Any) -> None:
        """The isolation level of the transactions to come; no round trip."""
        with allow_late(self.get_driver_connection(dbapi_connection)):
            super().set_isolation_level(dbapi_connection, level)

    def set_readonly(self, connection: Any, value: Any) -> None:
        """Whether the transactions to come are READ ONLY; no round trip."""
        with allow_late(self.get_driver_connection(connection)):
            super().set_readonly(connection, value)

    def set_deferrable(self, connection: Any, value: Any) -> None:
        """Whether the transactions to come are DEFERRABLE; no round trip."""
        with allow_late(self.get_driver_connection(connection)):
            super().set_deferrable(connection, value)


class PsycopgDialect(_LambdaDBDialect):
    """`postgresql+psycopg` for a synchronous engine."""

    supports_statement_cache = True

    @classmethod
    def get_async_dialect_cls(cls, url: URL) -> type[Any]:
        """The dialect of an asynchronous engine."""
        del url
        return AsyncPsycopgDialect


class AsyncPsycopgDialect(_LambdaDBDialect, PGDialectAsync_psycopg):
    """`postgresql+psycopg` for an asynchronous engine."""

    supports_statement_cache = True
    is_async = True


def _end_connecting(dbapi_connection: Any, record: ConnectionPoolEntry) -> None:
    """SQLAlchemy's `connect` listener that ends the time limit of a connect."""
    del dbapi_connection
    driver_connection: Any = record.driver_connection
    driver_connection.wait_limit = None


def _ask(connection: AnyConnection) -> _Answers:
    rows = ask(connection, _QUESTIONS)
    schema, isolation, pid, *_ = rows[0]
    if connection.isolation_level is not None:  # the engine's own, which its transactions will have
        isolation = connection.isolation_level.name.replace("_", " ")
    return _Answers(
        version=_parse_version(_get_parameter(connection, "server_version")),
        schema=schema,
        isolation_level=str(isolation).upper(),
        backslash_escapes=_get_parameter(connection, "standard_conforming_strings") == "off",
        pid=int(pid or 0),
        types={str(row[3]): _make_type_info(*row[3:8]) for row in rows},
    )


def _is_pgvector_imported() -> bool:
    """Whether the function has imported pgvector's types for SQLAlchemy."""
    return "pgvector.sqlalchemy" in sys.modules


def _get_parameter(connection: AnyConnection, parameter: str) -> str:
    """Return a parameter that the server reports at the start of each session."""
    return (connection.pgconn.parameter_status(parameter.encode()) or b"").decode()


def _parse_version(text: str) -> tuple[int, ...]:
    """Return the numbers of a version: (16, 4), or (18,) for a beta."""
    found = re.match(r"(\d+)(?:\.(\d+))?(?:\.(\d+))?", text)
    return tuple(int(number) for number in found.groups() if number) if found else ()


def _make_type_info(
    name: Any, oid: Any, array_oid: Any, regtype: Any, delimiter: Any
) -> TypeInfo | None:
    if oid is None:
        return None
    return TypeInfo(name, int(oid), int(array_oid), regtype=regtype, delimiter=delimiter)
