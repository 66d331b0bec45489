"""
Checks of a database before it is used: is the extension there, and may the role do its work?

`read_facts` and `read_table_facts` ask the server, one round trip each. The checks decide on the facts
alone and return a `Finding`, or None if nothing is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from sqlalchemy import Connection, text

from lambdadb.errors import ConnectFailed
from lambdadb.faults import Fault


class Weight(str, Enum):
    """How much a finding matters. The members are in order, the worst first."""

    CRITICAL = "critical"
    """Something fails now."""
    WARNING = "warning"
    """Something will fail, or costs money for nothing."""
    NOTE = "note"
    """Something that is good to know."""

    @property
    def rank(self) -> int:
        """0 for the worst."""
        return list(Weight).index(self)


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, and what to do about it."""

    name: str
    """The rule, such as `login`, `table` or `slots`."""
    problem: str
    """What was seen."""
    remedy: str
    """What to do: a statement, a command or a line of Terraform. Empty if nothing has to be done."""
    meaning: str = ""
    """What follows from it."""
    source: str = ""
    """Where this can be read, or that it was measured."""
    weight: Weight = Weight.CRITICAL

    def __str__(self) -> str:
        return f"{self.problem} {self.remedy}".strip()


@dataclass(frozen=True, kw_only=True)
class DatabaseFacts:
    """A database as a role sees it."""

    database: str
    role: str
    server_version: str
    vector: str | None
    """Version of the extension vector; None: it is not there."""
    may_create_tables: bool
    """In the first schema of the role's search path."""


@dataclass(frozen=True, kw_only=True)
class TableFacts:
    """A table as a role sees it."""

    table: str
    exists: bool
    missing: tuple[str, ...]
    """Of the rights that were asked for, those that the role does not have."""
    may_draw_ids: bool
    """Whether the role may use the sequence of the column `id`."""


DATABASE = text(
    "SELECT current_database() AS database, current_user AS role, "
    "current_setting('server_version') AS server_version, "
    "(SELECT extversion FROM pg_extension WHERE extname = 'vector') AS vector, "
    "coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create_tables"
)
TABLE = text(
    "SELECT to_regclass(:table) IS NOT NULL AS exists, "
    "ARRAY(SELECT one FROM unnest(CAST(:rights AS text[])) AS one "
    "WHERE NOT has_table_privilege(to_regclass(:table), one)) AS missing, "
    "CASE WHEN to_regclass(:table) IS NULL THEN true ELSE coalesce(has_sequence_privilege("
    "pg_get_serial_sequence(:table, 'id'), 'USAGE'), true) END AS may_draw_ids"
)
# What a failed connect is called, by its fault.
NAMES = {
    Fault.CREDENTIALS: "login",
    Fault.LOGIN: "login",
    Fault.UNTRUSTED: "certificate",
    Fault.MISCONFIGURED: "address",
}


def read_facts(connection: Connection) -> DatabaseFacts:
    """Ask the server about the database of the connection."""
    return DatabaseFacts(**connection.execute(DATABASE).mappings().one())


def read_table_facts(connection: Connection, table: str, rights: Sequence[str]) -> TableFacts:
    """
    Ask the server about a table with a serial column `id`, which need not exist.

    Args:
        rights: What the role has to be allowed, such as `INSERT`.
    """
    found = connection.execute(TABLE, {"table": table, "rights": list(rights)}).mappings().one()
    return TableFacts(table=table, **{**found, "missing": tuple(found["missing"])})


def check_connect(error: ConnectFailed) -> Finding:
    """What a connect failed on: the login, the certificate, the address, or the way to the server."""
    return Finding(NAMES.get(error.fault, "network"), str(error), "")


def check_vector(facts: DatabaseFacts) -> Finding | None:
    """The database needs the extension vector."""
    if facts.vector is not None:
        return None
    return Finding(
        "extension",
        f"the database {facts.database} has no extension vector.",
        "As its owner, run there: CREATE EXTENSION vector",
    )


def check_table(
    facts: DatabaseFacts,
    table: TableFacts,
    definition: Sequence[str],
    rights: Sequence[str],
    *,
    create: bool = True,
) -> Finding | None:
    """
    A table that is missing needs a role that may make it.

    Args:
        definition: The statements that make it.
        rights: What the role needs afterwards.
        create: Whether it is to be made where it is missing.
    """
    if table.exists or (create and facts.may_create_tables):
        return None
    why = f"the role {facts.role} may not make one" if create else "none is to be made"
    statements = [*definition, *grants(table.table, facts.role, rights)]
    return Finding(
        "table",
        f"the database {facts.database} has no table {table.table}, and {why}.",
        f"As the database's owner, run there: {'; '.join(statements)}",
    )


def check_rights(facts: DatabaseFacts, table: TableFacts) -> Finding | None:
    """A table that exists needs a role that may use it."""
    if not table.exists or (not table.missing and table.may_draw_ids):
        return None
    lacking = [*table.missing, *([] if table.may_draw_ids else ["USAGE of its sequence"])]
    return Finding(
        "rights",
        f"the role {facts.role} lacks rights on the table {table.table} in the database "
        f"{facts.database}: {', '.join(lacking)}.",
        "As the table's owner, run there: "
        f"{'; '.join(grants(table.table, facts.role, table.missing, sequence=not table.may_draw_ids))}",
    )


def grants(table: str, role: str, rights: Sequence[str], *, sequence: bool = True) -> list[str]:
    """The statements that give a role these rights on a table, and on the sequence of its ids."""
    on_table = [f'GRANT {", ".join(rights)} ON {table} TO "{role}"'] if rights else []
    return on_table + ([f'GRANT USAGE ON SEQUENCE {table}_id_seq TO "{role}"'] if sequence else [])
