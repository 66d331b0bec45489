"""
What units of work do, and the settings of the sessions in which they do it.

Each shape inserts row `a` and, most of them, row `b`. Shapes that end their transaction themselves are
refused by `run_transaction`. What is left of them then is known too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

from sqlalchemy import Connection, text
from sqlalchemy.exc import ProgrammingError, SQLAlchemyError
from sqlalchemy.orm import Session

INSERT = text("INSERT INTO unit (name) VALUES (:name)")
Claim = Literal["committed", "ended", "ended, first half committed", "failed", "in doubt", "hung"]
Target = Connection | Session
"""What a unit of work gets."""


@dataclass(frozen=True)
class UnitShape:
    """What a unit of work does, and what its caller is told when nothing is damaged or all is mended."""

    name: str
    work: Callable[[Target, str], None]
    claim: Claim = "committed"
    parts: str = "ab"
    """The rows that it is to insert."""
    hides_loss: bool = False
    """Whether it raises an error of its own when its connection is lost, so that it is not repeated."""
    leaves_doubt: bool = False
    """Whether it commits something outside of its transaction, of which no server keeps a record."""

    @property
    def claims(self) -> tuple[Claim, ...]:
        """What its caller may be told when a damaged connection is all that happens."""
        claims: list[Claim] = [self.claim]
        if self.hides_loss:
            claims.append("failed")
        if self.leaves_doubt:
            claims.append("in doubt")
        return tuple(claims)


class UnitError(Exception):
    """An error of a unit of work's own."""


def insert(target: Target, name: str) -> None:
    """Insert one row."""
    target.execute(INSERT, {"name": name})


def inserting(name: str, part: str) -> str:
    """The same as SQL; the name is the sweep's own."""
    return f"INSERT INTO unit (name) VALUES ('{name}{part}')"  # noqa: S608


def as_sql(target: Target, statement: str) -> None:
    """Send a text of one or several statements, without parameters."""
    connection = target if isinstance(target, Connection) else target.connection()
    connection.exec_driver_sql(statement)


def driver_connection(target: Target) -> Any:
    """The driver's connection, or the synchronous face of an asynchronous one."""
    connection = target if isinstance(target, Connection) else target.connection()
    return connection.connection.dbapi_connection


def _one(target: Target, name: str) -> None:
    insert(target, f"{name}a")


def _two(target: Target, name: str) -> None:
    insert(target, f"{name}a")
    insert(target, f"{name}b")


def _many(target: Target, name: str) -> None:
    target.execute(INSERT, [{"name": f"{name}a"}, {"name": f"{name}b"}])


def _savepoints(target: Target, name: str) -> None:
    insert(target, f"{name}a")
    with contextlib.suppress(ProgrammingError), target.begin_nested():
        insert(target, f"{name}b")
        target.execute(text("SELECT 1 FROM no_such_table"))
    with target.begin_nested():
        insert(target, f"{name}b")


def _driver_cursor(target: Target, name: str) -> None:
    cursor = driver_connection(target).cursor()
    for part in "ab":
        cursor.execute("INSERT INTO unit (name) VALUES (%s)", [name + part])
    cursor.close()


def _stream(target: Target, name: str) -> None:
    insert(target, f"{name}a")
    options = {"stream_results": True, "max_row_buffer": 10}
    assert sum(
        target.execute(text("SELECT generate_series(1, 99)"), execution_options=options).scalars()
    )
    insert(target, f"{name}b")


def _block(target: Target, name: str) -> None:
    as_sql(target, f"DO $$ BEGIN {inserting(name, 'a')}; {inserting(name, 'b')}; END $$")


def _read_only(target: Target, name: str) -> None:
    _two(target, name)
    as_sql(target, "SET TRANSACTION READ ONLY")
    target.execute(text("SELECT 1")).all()


def _after_rollback(target: Target, name: str) -> None:
    """The server commits what follows ROLLBACK in the same text: that is the first half here."""
    writable = "SET TRANSACTION READ WRITE"
    as_sql(target, f"{inserting(name, 'b')}; ROLLBACK; {writable}; {inserting(name, 'a')}")


def _read_first(target: Target, name: str) -> None:
    assert target.execute(text("SELECT 1")).scalar() == 1
    _two(target, name)


def _savepoint_first(target: Target, name: str) -> None:
    with contextlib.suppress(ProgrammingError), target.begin_nested():
        insert(target, f"{name}a")
        target.execute(text("SELECT 1 FROM no_such_table"))
    _two(target, name)


def _end_first(statement: str) -> Callable[[Target, str], None]:
    """A unit whose first statement ends its transaction."""

    def work(target: Target, name: str) -> None:
        as_sql(target, statement)
        _two(target, name)

    return work


def _one_text(target: Target, name: str) -> None:
    as_sql(target, f"{inserting(name, 'a')}; {inserting(name, 'b')}")


def between(statement: str) -> Callable[[Target, str], None]:
    """Two rows, and a statement between them."""

    def work(target: Target, name: str) -> None:
        insert(target, f"{name}a")
        as_sql(target, statement)
        insert(target, f"{name}b")

    return work


def _in_one_text(statement: str) -> Callable[[Target, str], None]:
    """The same in one message to the server."""

    def work(target: Target, name: str) -> None:
        as_sql(target, f"{inserting(name, 'a')}; {statement}; {inserting(name, 'b')}")

    return work


def _after_conflict(statement: str) -> Callable[[Target, str], None]:
    """A conflict after the first half; `statement` stands between."""

    def work(target: Target, name: str) -> None:
        insert(target, f"{name}a")
        as_sql(target, f"{statement}; DO $$ BEGIN RAISE SQLSTATE '40001'; END $$")

    return work


def swallow_error(target: Target, name: str) -> None:
    """A row, and a failed statement whose error the unit catches."""
    insert(target, f"{name}a")
    with contextlib.suppress(ProgrammingError):
        as_sql(target, "SELECT 1 FROM no_such_table")


def _commit(target: Target, name: str) -> None:
    insert(target, f"{name}a")
    target.commit()
    insert(target, f"{name}b")


def _roll_back(target: Target, name: str) -> None:
    insert(target, f"{name}a")
    driver_connection(target).rollback()
    insert(target, f"{name}b")


def _commit_unseen(target: Target, name: str) -> None:
    insert(target, f"{name}a")
    driver_connection(target).commit()
    insert(target, f"{name}b")


def _raise(target: Target, name: str) -> None:
    insert(target, f"{name}a")
    raise UnitError


def raise_after(statement: str) -> Callable[[Target, str], None]:
    """An error of the unit's own after a statement, whether that one failed or not."""

    def work(target: Target, name: str) -> None:
        insert(target, f"{name}a")
        try:
            as_sql(target, statement)
        except SQLAlchemyError as error:
            raise UnitError from error
        raise UnitError

    return work


def commit_by_executemany(target: Target, name: str) -> None:
    """Two rows, and between them a COMMIT that only the driver's cursor sees."""
    insert(target, f"{name}a")
    cursor = driver_connection(target).cursor()
    cursor.executemany("COMMIT", [()])
    insert(target, f"{name}b")


HALF: Claim = "ended, first half committed"
PLAIN = [
    UnitShape("one row", _one, parts="a"),
    UnitShape("two rows", _two),
    UnitShape("executemany", _many),
    UnitShape("savepoints", _savepoints),
    UnitShape("the driver's cursor", _driver_cursor),
]
"""What every database does."""
ENDED = [
    UnitShape("commit()", _commit, "ended"),
    UnitShape("the driver's commit()", _commit_unseen, "ended"),
    UnitShape("the driver's rollback()", _roll_back, "ended"),
    UnitShape("ROLLBACK", between("ROLLBACK"), "ended"),
    UnitShape("ROLLBACK AND CHAIN", between("ROLLBACK AND CHAIN"), "ended"),
    UnitShape("an error of its own", _raise, "failed", hides_loss=True),
    UnitShape("ROLLBACK, an error of its own", raise_after("ROLLBACK"), "failed", hides_loss=True),
]
"""What every database refuses, or rolls back."""
SHAPES = [
    *PLAIN,
    UnitShape("streamed rows", _stream),
    UnitShape("DO block", _block),
    UnitShape("two statements in one text", _one_text),
    UnitShape("SET TRANSACTION READ ONLY", _read_only),
    UnitShape("a read first", _read_first),
    UnitShape("a savepoint first", _savepoint_first),
    UnitShape("ROLLBACK first", _end_first("ROLLBACK"), "ended"),
    UnitShape("ROLLBACK AND CHAIN first", _end_first("ROLLBACK AND CHAIN"), "ended"),
    UnitShape("INSERT after ROLLBACK in one text", _after_rollback, HALF, leaves_doubt=True),
    UnitShape("swallowed error", swallow_error, "ended"),
    *ENDED,
    UnitShape("ROLLBACK, BEGIN", _in_one_text("ROLLBACK; BEGIN READ WRITE"), "ended"),
    UnitShape("COMMIT", between("COMMIT"), HALF),
    UnitShape("COMMIT AND CHAIN", between("COMMIT AND CHAIN"), HALF),
    UnitShape("COMMIT, BEGIN", _in_one_text("COMMIT; BEGIN READ WRITE"), HALF),
    UnitShape("COMMIT AND CHAIN in one text", _in_one_text("COMMIT AND CHAIN"), HALF),
    UnitShape("COMMIT, conflict", _after_conflict("COMMIT AND CHAIN"), HALF),
    UnitShape("COMMIT by executemany", commit_by_executemany, HALF),
    UnitShape("COMMIT, an error of its own", raise_after("COMMIT"), HALF, hides_loss=True),
]
"""What units do on PostgreSQL."""

# A schema before pg_catalog, with functions and operators that answer wrongly.
HOSTILE = """
    CREATE SCHEMA IF NOT EXISTS hostile;
    CREATE OR REPLACE FUNCTION hostile.pg_xact_status(xid8) RETURNS text
        LANGUAGE sql AS $$ SELECT 'aborted' $$;
    CREATE OR REPLACE FUNCTION hostile.pg_current_xact_id() RETURNS xid8
        LANGUAGE sql AS $$ SELECT CAST('3' AS pg_catalog.xid8) $$;
    CREATE OR REPLACE FUNCTION hostile.pg_is_in_recovery() RETURNS boolean
        LANGUAGE sql AS $$ SELECT true $$;
    CREATE OR REPLACE FUNCTION hostile.pg_postmaster_start_time() RETURNS timestamptz
        LANGUAGE sql AS $$ SELECT pg_catalog.clock_timestamp() $$;
    CREATE OR REPLACE FUNCTION hostile.wrong(xid8, xid8) RETURNS boolean
        LANGUAGE sql AS $$ SELECT false $$;
    CREATE OR REPLACE FUNCTION hostile.wrong(numeric, integer) RETURNS numeric
        LANGUAGE sql AS $$ SELECT CAST(pg_catalog.random() AS numeric) $$;
    DROP OPERATOR IF EXISTS hostile.= (xid8, xid8);
    CREATE OPERATOR hostile.= (FUNCTION = hostile.wrong, LEFTARG = xid8, RIGHTARG = xid8);
    DROP OPERATOR IF EXISTS hostile.< (xid8, xid8);
    CREATE OPERATOR hostile.< (FUNCTION = hostile.wrong, LEFTARG = xid8, RIGHTARG = xid8);
    DROP OPERATOR IF EXISTS hostile.* (numeric, integer);
    CREATE OPERATOR hostile.* (FUNCTION = hostile.wrong, LEFTARG = numeric, RIGHTARG = integer);
    CREATE OR REPLACE VIEW hostile.pg_stat_bgwriter AS SELECT pg_catalog.now() AS stats_reset;
    CREATE OR REPLACE VIEW hostile.pg_stat_activity AS SELECT 1 AS pid, NULL::xid AS backend_xid;
    DO $$ BEGIN CREATE DOMAIN hostile.int8 AS integer; EXCEPTION WHEN duplicate_object THEN END $$;
    DO $$ BEGIN CREATE DOMAIN hostile.xid8 AS text; EXCEPTION WHEN duplicate_object THEN END $$;
    DO $$ BEGIN CREATE ROLE writer; EXCEPTION WHEN duplicate_object THEN END $$;
    GRANT USAGE ON SCHEMA hostile TO writer;
    GRANT ALL ON unit, marker TO writer;
"""
SETTINGS: dict[str, list[str]] = {
    "timezone": ["UTC", "Asia/Tokyo", "America/St_Johns"],
    "datestyle": ["ISO, DMY", "SQL, MDY", "German", "Postgres, YMD"],
    "intervalstyle": ["iso_8601", "sql_standard"],
    "extra_float_digits": ["-15", "3"],
    "search_path": ["hostile, pg_catalog, public", "public"],
    "standard_conforming_strings": ["off"],
    "statement_timeout": ["20s"],
    "lock_timeout": ["20s"],
    "default_transaction_isolation": ["serializable", "repeatable read", "read uncommitted"],
    "default_transaction_read_only": ["on"],
    "default_transaction_deferrable": ["on"],
    "bytea_output": ["escape"],
    "row_security": ["off"],
    "session_replication_role": ["replica"],
    "transform_null_equals": ["on"],
    "client_encoding": ["LATIN1", "UTF8"],
    "plan_cache_mode": ["force_generic_plan"],
    "role": ["writer"],
}


def draw_settings(random: Random) -> dict[str, str]:
    """Up to six settings of a session, drawn at random; the role comes last, as it may set less."""
    names = random.sample(sorted(SETTINGS), random.randint(0, 6))
    names.sort(key="role".__eq__)
    return {name: random.choice(SETTINGS[name]) for name in names}
