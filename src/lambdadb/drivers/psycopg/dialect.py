"""
What SQLAlchemy asks of an engine's first connection, answered by one query instead of nine.
"""

from __future__ import annotations

import re
import sys
from functools import partial
from typing import Any

from psycopg.types import TypeInfo
from sqlalchemy import Connection

from lambdadb.drivers.psycopg.connection import (
    AnyConnection,
    AsyncDeadlineConnection,
    DeadlineConnection,
)
from lambdadb.drivers.psycopg.driver import ask

# The last rows are the types whose codecs need the OID that an extension was given here.
_QUESTIONS = """
    SELECT current_schema(), current_setting('transaction_isolation'),
           name, oid, typarray, oid::regtype, typdelim, typnamespace::regnamespace
    FROM (VALUES ('hstore'), ('vector')) AS wanted (name)
         LEFT JOIN pg_catalog.pg_type ON oid = to_regtype(name)
"""


def introduce(dialect: Any) -> None:
    """
    Let `dialect` learn what it needs of the server by one query on an engine's first connection.

    What it learns, and what it does with it, is SQLAlchemy's own: its `initialize()` runs, and the
    questions that it asks on the way are answered from the handshake and from that query.

    **Costs:** one round trip, once for an engine; SQLAlchemy's own questions are nine.
    """
    dialect.initialize = partial(_initialize, dialect, dialect.initialize)


def _initialize(dialect: Any, initialize: Any, connection: Connection) -> None:
    driver = connection.connection.driver_connection
    if not isinstance(driver, (DeadlineConnection, AsyncDeadlineConnection)):
        initialize(connection)  # a do_connect listener made it
        return
    rows = ask(driver, _QUESTIONS)
    types = {str(row[2]): _type_info(*row[2:7]) for row in rows}
    schema, isolation, *_ = rows[0]
    hooks = _answers(dialect, driver, schema, isolation, types)
    vars(dialect).update(hooks)
    try:
        initialize(connection)
    finally:
        for name in hooks:
            delattr(dialect, name)
    vector = types["vector"]
    if vector is not None and _pgvector_gives_lists():
        from lambdadb.drivers.psycopg.pgvector import speak_binary

        dialect.vector_schema = next(row[7] for row in rows if row[2] == "vector")
        speak_binary(dialect, vector, dialect._psycopg_adapters_map, driver.adapters)


def _pgvector_gives_lists() -> bool:
    """Whether the function has imported pgvector's types, and from version 0.5 on."""
    if "pgvector.sqlalchemy" not in sys.modules:
        return False
    vector = getattr(sys.modules["pgvector"], "Vector", None)
    return vector is not None and isinstance(vector._from_db("[0]"), list)


def _answers(
    dialect: Any,
    driver: AnyConnection,
    schema: str | None,
    isolation: str | None,
    types: dict[str, TypeInfo | None],
) -> dict[str, Any]:
    """The methods by which SQLAlchemy's dialect asks, with what they would find."""
    if driver.isolation_level is not None:  # the engine's own, which its transactions will have
        isolation = driver.isolation_level.name.replace("_", " ")

    escapes = _reported(driver, "standard_conforming_strings") == "off"
    return {
        "_get_server_version_info": lambda _: _version(_reported(driver, "server_version")),
        "_get_default_schema_name": lambda _: schema,
        "get_default_isolation_level": lambda _: str(isolation).upper(),
        "_set_backslash_escapes": lambda _: setattr(dialect, "_backslash_escapes", escapes),
        "_type_info_fetch": lambda _, name: types[name],
    }


def _reported(driver: AnyConnection, parameter: str) -> str:
    """A server parameter that every session is told of as it begins."""
    return (driver.pgconn.parameter_status(parameter.encode()) or b"").decode()


def _version(text: str) -> tuple[int, ...]:
    """Its numbers, of which a beta has one: (16, 4), (18,)."""
    found = re.match(r"(\d+)(?:\.(\d+))?(?:\.(\d+))?", text)
    return tuple(int(number) for number in found.groups() if number) if found else ()


def _type_info(name: Any, oid: Any, array_oid: Any, regtype: Any, delimiter: Any) -> TypeInfo | None:
    if oid is None:
        return None
    return TypeInfo(name, int(oid), int(array_oid), regtype=regtype, delimiter=delimiter)
