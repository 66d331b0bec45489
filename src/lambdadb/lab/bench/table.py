"""The experiment's table, on a server of the lab or on somebody's cluster."""

from __future__ import annotations

from sqlalchemy import Connection, text
from sqlalchemy.exc import ProgrammingError

import lambdadb
from lambdadb.lab import LabError

VERSIONS = text(
    "SELECT current_setting('server_version') AS postgresql, current_database() AS database, "
    "(SELECT extversion FROM pg_extension WHERE extname = 'vector') AS vector"
)


def prepare(url: str, table: str, *, first_id: int | None) -> dict[str, str]:
    """
    Make the table where there is none, and give the server's versions.

    Args:
        first_id: The id that the next row gets; the extension is made, too. None leaves both, and an
            existing table, to the cluster's owner.

    Raises:
        LabError: The extension is missing, or the role may not make the table.
    """
    engine = lambdadb.create_engine(
        url, policy=lambdadb.PerInvocation(), retry=lambdadb.ResumeRetry(timeout=150.0)
    )
    with engine.begin() as connection:
        if first_id is not None:
            connection.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))
        found = connection.execute(VERSIONS).mappings().one()
        if found["vector"] is None:
            raise LabError(
                f"the database {found['database']} has no extension vector. As its owner, run there: "
                "CREATE EXTENSION vector"
            )
        make_table(connection, table)
        if first_id is not None:
            connection.execute(
                text("SELECT setval(pg_get_serial_sequence(:table, 'id'), :first, false)"),
                {"table": table, "first": first_id},
            )
    return {name: str(found[name]) for name in ("postgresql", "vector")}


def make_table(connection: Connection, table: str) -> None:
    """
    Make the table with its index, unless it is there: that needs no right to CREATE.

    Raises:
        LabError: It is not there, and the role may not make it.
    """
    if connection.scalar(text("SELECT to_regclass(:table)"), {"table": table}) is not None:
        return
    try:
        for statement in definition(table):
            connection.execute(text(statement))
    except ProgrammingError as error:
        role = connection.engine.url.username
        raise LabError(
            f"the role {role} could not make the table {table} ({error.orig}). As the database's owner, "
            f"run there: {'; '.join(definition(table))}; GRANT SELECT, INSERT ON {table} TO {role}; "
            f"GRANT USAGE ON SEQUENCE {table}_id_seq TO {role}"
        ) from error


def definition(table: str) -> tuple[str, str]:
    """The statements that make the table as published."""
    return (
        f"CREATE TABLE {table} (id serial PRIMARY KEY, content text, embedding vector(1536))",
        f"CREATE INDEX {table}_embedding ON {table} "
        "USING ivfflat (embedding vector_l2_ops) WITH (lists = 100)",
    )
