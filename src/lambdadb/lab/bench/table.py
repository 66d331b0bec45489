"""The experiment's tables, on a server of the lab or on somebody's cluster."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Engine, text

from lambdadb.errors import ConnectFailed
from lambdadb.operate.checks import (
    Finding,
    check_connect,
    check_rights,
    check_table,
    check_vector,
    read_facts,
    read_table_facts,
)

RIGHTS = ("SELECT", "INSERT")
"""What an invocation needs: RETURNING reads the new id."""
LOCK = text("SELECT pg_advisory_xact_lock(hashtext('lambdadb bench'))")


def prepare(engine: Engine, table: str, *, first_id: int) -> dict[str, str]:
    """Make extension and table on a server of the lab, and give the server's versions."""
    with engine.begin() as connection:
        connection.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))
        make(connection, table)
        connection.execute(
            text("SELECT setval(pg_get_serial_sequence(:table, 'id'), :first, false)"),
            {"table": table, "first": first_id},
        )
        facts = read_facts(connection)
    return {"postgresql": facts.server_version, "vector": str(facts.vector)}


def prepare_mariadb(engine: Engine, table: str, *, first_id: int) -> dict[str, str]:
    """Make the table on a MariaDB of the lab, and give the server's version."""
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"CREATE TABLE {table} (id INTEGER AUTO_INCREMENT PRIMARY KEY, content TEXT, "
            f"embedding JSON) AUTO_INCREMENT = {first_id}"
        )
        version = connection.exec_driver_sql("SELECT VERSION()").scalar_one()
    return {"mariadb": str(version)}


def problems(
    engine: Engine, table: str, *, create: bool = True, clean_up: bool = False
) -> list[Finding]:
    """
    What keeps the benchmark from running in somebody's database. Nothing is changed there.

    Args:
        create: Whether a missing table is to be made.
        clean_up: Whether the rows of an existing table are to be deleted afterwards.
    """
    rights = [*RIGHTS, *(["DELETE"] if clean_up else [])]
    try:
        with engine.connect() as connection:
            facts = read_facts(connection)
            found = read_table_facts(connection, table, rights)
    except ConnectFailed as error:
        return [check_connect(error)]
    findings = [
        check_vector(facts),
        check_table(facts, found, definition(table), rights, create=create),
        check_rights(facts, found),
    ]
    return [finding for finding in findings if finding is not None]


def make_missing(engine: Engine, table: str) -> tuple[dict[str, str], bool]:
    """
    Make the table in somebody's database unless it is there.

    A lock keeps two benchmarks from making it at once.

    Returns:
        The server's versions, and whether the table was made now.
    """
    with engine.begin() as connection:
        connection.execute(LOCK)
        facts = read_facts(connection)
        missing = not read_table_facts(connection, table, RIGHTS).exists
        if missing:
            make(connection, table)
    return {"postgresql": facts.server_version, "vector": str(facts.vector)}, missing


def clean_up(engine: Engine, table: str, experiment: str, *, made: bool) -> str:
    """
    Drop a table that this run made; of one that was there before, delete this experiment's rows.

    Returns:
        What was done, as a sentence.
    """
    with engine.begin() as connection:
        if made:
            connection.execute(text(f"DROP TABLE {table}"))
            return f"The table {table} was dropped."
        statement = text(f"DELETE FROM {table} WHERE content = :experiment")  # noqa: S608 its own name
        gone = connection.execute(statement, {"experiment": experiment}).rowcount
    return f"{gone} rows of {experiment} were deleted from the table {table}, which was there before."


def make(connection: Connection, table: str) -> None:
    for statement in definition(table):
        connection.exec_driver_sql(statement)


def definition(table: str) -> Sequence[str]:
    """The statements that make the table as published."""
    return (
        f"CREATE TABLE IF NOT EXISTS {table} "
        "(id serial PRIMARY KEY, content text, embedding vector(1536))",
        f"CREATE INDEX IF NOT EXISTS {table}_embedding ON {table} "
        "USING ivfflat (embedding vector_l2_ops) WITH (lists = 100)",
    )
