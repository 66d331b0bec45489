"""
What units of work do on MySQL, and the settings of the sessions in which they do it.

MySQL commits a transaction without being asked: before CREATE TABLE and many other statements.
`run_transaction` refuses these. What a stored procedure did is known from the answer to its call.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from sqlalchemy import text

from lambdadb.lab.faultproxy.unit_shapes import (
    ENDED,
    HALF,
    PLAIN,
    Target,
    UnitShape,
    as_sql,
    between,
    commit_by_executemany,
    insert,
    inserting,
    raise_after,
    swallow_error,
)

SCHEMA = [
    "CREATE TABLE unit (name VARCHAR(50), KEY (name))",
    "CREATE TABLE marker (name VARCHAR(50) PRIMARY KEY)",
    "CREATE PROCEDURE insert_row(name VARCHAR(50)) INSERT INTO unit VALUES (name)",
    "CREATE PROCEDURE commit_row(name VARCHAR(50)) BEGIN INSERT INTO unit VALUES (name); COMMIT; END",
    "CREATE PROCEDURE chain_row(name VARCHAR(50))"
    " BEGIN INSERT INTO unit VALUES (name); COMMIT AND CHAIN; END",
]
"""Statements that create what the units use, in an empty database."""
_NUMBERS = text(
    "WITH RECURSIVE n (i) AS (SELECT 1 UNION SELECT i + 1 FROM n WHERE i < 99) SELECT i FROM n"
)


def _stream(target: Target, name: str) -> None:
    insert(target, f"{name}a")
    options = {"stream_results": True, "max_row_buffer": 10}
    target.execute(_NUMBERS, execution_options=options).all()
    insert(target, f"{name}b")


def _call(first: str) -> Callable[[Target, str], None]:
    """A row by a stored procedure, and one more."""

    def work(target: Target, name: str) -> None:
        as_sql(target, f"CALL {first}('{name}a')")
        insert(target, f"{name}b")

    return work


def _execute(statement: str) -> Callable[[Target, str], None]:
    """Two rows, and between them a prepared statement in SQL."""

    def work(target: Target, name: str) -> None:
        insert(target, f"{name}a")
        as_sql(target, f"PREPARE prepared FROM '{statement}'")
        as_sql(target, "EXECUTE prepared")
        insert(target, f"{name}b")

    return work


def _temporary(target: Target, name: str) -> None:
    insert(target, f"{name}a")
    as_sql(target, "CREATE TEMPORARY TABLE IF NOT EXISTS scratch (number INTEGER)")
    as_sql(target, "INSERT INTO scratch VALUES (1)")
    as_sql(target, "DROP TEMPORARY TABLE scratch")
    insert(target, f"{name}b")


def _compound(target: Target, name: str) -> None:
    as_sql(target, f"BEGIN NOT ATOMIC {inserting(name, 'a')}; {inserting(name, 'b')}; END")


def _conflict_once(number: int) -> Callable[[Target, str], None]:
    """Two rows, with a conflict between them the first time."""
    met: set[str] = set()

    def work(target: Target, name: str) -> None:
        insert(target, f"{name}a")
        if name not in met:
            met.add(name)
            as_sql(target, f"SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = {number}")
        insert(target, f"{name}b")

    return work


REFUSED = [
    "COMMIT",
    "-- before\nCOMMIT",
    "/*!50000 COMMIT */",
    "START TRANSACTION",
    "SET autocommit = 1",
    "SET SESSION sql_mode = '', autocommit = ON",
    "CREATE TABLE IF NOT EXISTS other (number INTEGER)",
    "ALTER TABLE marker COMMENT 'new'",
    "TRUNCATE TABLE marker",
    "LOCK TABLES unit WRITE",
    "ANALYZE TABLE unit",
    "FLUSH TABLES",
]
"""Statements that would commit the transaction of a unit."""

MYSQL_SHAPES = [
    *PLAIN,
    UnitShape("streamed rows", _stream),
    UnitShape("a procedure", _call("insert_row")),
    UnitShape("a prepared statement", _execute("SELECT 1")),
    UnitShape("a temporary table", _temporary),
    UnitShape("deadlock, then not", _conflict_once(1213)),
    UnitShape("lock wait, then not", _conflict_once(1205)),
    # MySQL rolls back the failed statement only.
    UnitShape("swallowed error", swallow_error, parts="a"),
    *ENDED,
    UnitShape("a compound statement", _compound, "ended"),
    UnitShape("COMMIT by executemany", commit_by_executemany, "ended"),
    *(UnitShape(statement, between(statement), "ended") for statement in REFUSED),
    UnitShape("CREATE TABLE, an error of its own", raise_after(REFUSED[6]), "failed", hides_loss=True),
    UnitShape("a procedure that commits", _call("commit_row"), HALF),
    UnitShape("a procedure that commits and goes on", _call("chain_row"), HALF),
    UnitShape("COMMIT in a prepared statement", _execute("COMMIT"), HALF),
    UnitShape("COMMIT AND CHAIN in a prepared statement", _execute("COMMIT AND CHAIN"), HALF),
]
"""What units do on MySQL."""

MYSQL_SETTINGS: dict[str, list[str]] = {
    "autocommit": ["1"],
    "big_tables": ["1"],
    "character_set_results": ["latin1", "NULL"],
    "completion_type": ["'CHAIN'", "'RELEASE'"],
    "default_week_format": ["3"],
    "foreign_key_checks": ["0"],
    "idle_transaction_timeout": ["20"],
    "innodb_lock_wait_timeout": ["20"],
    "lc_messages": ["de_DE"],
    "low_priority_updates": ["1"],
    "max_join_size": ["1000"],
    "max_statement_time": ["20"],
    "sql_auto_is_null": ["1"],
    "sql_mode": [
        "''",
        "'ANSI'",
        "'ORACLE'",
        "'TRADITIONAL'",
        "'NO_BACKSLASH_ESCAPES'",
        "'PAD_CHAR_TO_FULL_LENGTH'",
    ],
    "sql_quote_show_create": ["0"],
    "sql_safe_updates": ["1"],
    "sql_select_limit": ["0", "1"],
    "sql_warnings": ["1"],
    "time_zone": ["'+09:00'", "'-03:30'"],
    "timestamp": ["1"],
    "tx_isolation": ["'SERIALIZABLE'", "'READ-UNCOMMITTED'", "'READ-COMMITTED'"],
    "unique_checks": ["0"],
}
"""Settings of a session of MariaDB."""


def draw_mysql_settings(random: Random) -> dict[str, str]:
    """Up to six settings of a session, drawn at random."""
    names = random.sample(sorted(MYSQL_SETTINGS), random.randint(0, 6))
    return {name: random.choice(MYSQL_SETTINGS[name]) for name in names}
