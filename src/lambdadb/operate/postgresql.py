"""
What PostgreSQL says about its sessions and about itself, as data.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, text

from lambdadb.operate.postgresql_server import RoleFacts, ServerFacts, VectorFacts
from lambdadb.operate.sessions import Session, SessionView, Slots
from lambdadb.tracing.sanitize import sanitize

# Without the right to see it, backend_type is NULL too. What has a user and a database is a client's.
SESSIONS = text("""
    SELECT a.pid AS id, coalesce(a.application_name, '') AS name, coalesce(a.usename, '') AS "user",
           coalesce(a.datname, '') AS database, coalesce(host(a.client_addr), '') AS client,
           coalesce(a.state, 'unknown') AS state, a.query AS statement, s.ssl AS encrypted,
           extract(epoch FROM clock_timestamp() - a.backend_start)::float AS age,
           CASE WHEN a.state <> 'active'
                THEN extract(epoch FROM clock_timestamp() - a.state_change)::float END AS idle,
           extract(epoch FROM clock_timestamp() - a.xact_start)::float AS transaction,
           CASE WHEN a.wait_event_type = 'Lock' THEN pg_blocking_pids(a.pid)
                ELSE '{}' END AS waits_for
    FROM pg_stat_activity AS a LEFT JOIN pg_stat_ssl AS s USING (pid)
    WHERE a.pid <> pg_backend_pid() AND a.usename IS NOT NULL AND a.datid IS NOT NULL
          AND coalesce(a.backend_type, 'client backend') = 'client backend'
    ORDER BY a.backend_start, a.pid
""")
SERVER = text("""
    SELECT current_user AS role, current_setting('server_version') AS version,
           pg_is_in_recovery() AS reader, current_setting('max_connections')::int AS limit,
           current_setting('superuser_reserved_connections')::int
           + coalesce(current_setting('reserved_connections', true)::int, 0)
           + coalesce(current_setting('rds.rds_superuser_reserved_connections', true)::int, 0)
           AS reserved,
           pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS sees_all
""")
# The server's own value, if this session does not have another one of its role or its database.
DEFAULT = text("""
    SELECT CASE WHEN source IN ('database', 'user', 'database user', 'client', 'session')
                THEN NULL ELSE reset_val END
    FROM pg_settings WHERE name = :name
""")
# What ALTER ROLE … SET and ALTER DATABASE … SET have chosen.
CHOSEN = text("""
    SELECT coalesce(d.datname, '') AS database, coalesce(r.rolname, '') AS role, c.setconfig AS config
    FROM pg_db_role_setting AS c LEFT JOIN pg_database AS d ON d.oid = c.setdatabase
         LEFT JOIN pg_roles AS r ON r.oid = c.setrole
""")
FACTS = text("""
    SELECT current_setting('server_version') AS version,
           current_setting('server_version_num')::int AS version_number,
           to_regprocedure('pg_catalog.aurora_version()') IS NOT NULL AS aurora,
           current_setting('rds.force_ssl', true) IN ('1', 'on') AS force_ssl,
           current_setting('password_encryption') AS password_encryption,
           current_setting('wal_level') AS wal_level,
           ARRAY(SELECT slot_name::text FROM pg_replication_slots WHERE slot_type = 'logical'
                 ORDER BY 1) AS logical_slots,
           EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_cron') AS jobs
""")
ROLES = text("""
    SELECT r.rolname AS name, r.rolsuper AS superuser,
           EXISTS (SELECT FROM pg_auth_members AS m JOIN pg_roles AS g ON g.oid = m.roleid
                   WHERE m.member = r.oid AND g.rolname = 'rds_iam') AS iam
    FROM pg_roles AS r WHERE r.rolcanlogin AND r.rolname !~ '^(rds|pg_)' ORDER BY r.rolname
""")
PASSWORDS = text("""
    SELECT rolname AS name, CASE WHEN rolpassword IS NULL THEN 'none'
                                 WHEN rolpassword LIKE 'md5%' THEN 'md5' ELSE 'scram' END AS password
    FROM pg_authid WHERE rolcanlogin
""")
MAY_SEE_PASSWORDS = text("SELECT has_table_privilege('pg_authid', 'SELECT')")
VECTORS = text("""
    SELECT c.oid::regclass::text AS table, a.attname AS column, 
           CASE WHEN c.reltuples >= 0 THEN c.reltuples
                WHEN pg_relation_size(c.oid) = 0 THEN 0 END AS rows,
          
           coalesce(i.indexrelid::regclass::text, '') AS index, coalesce(m.amname, '') AS method,
           (SELECT substring(option FROM '^lists=(.*)')::int FROM unnest(x.reloptions) AS option
            WHERE option LIKE 'lists=%') AS lists
    FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
         JOIN pg_type AS t ON t.oid = a.atttypid
         LEFT JOIN pg_index AS i ON i.indrelid = c.oid AND a.attnum = ANY (i.indkey)
         LEFT JOIN pg_class AS x ON x.oid = i.indexrelid LEFT JOIN pg_am AS m ON m.oid = x.relam
    WHERE c.relkind IN ('r', 'm') AND NOT a.attisdropped AND t.typname IN ('vector', 'halfvec')
    ORDER BY 1, 2, 4
""")
IVFFLAT_LISTS = 100  # pgvector's default
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "": 1e-3}


def read_session_view(connection: Connection, server: str) -> SessionView:
    """
    Ask the server for its sessions.

    Args:
        connection: In autocommit, so that looking leaves no transaction open.
        server: What the server is to be called.

    **Costs:** four round trips.
    """
    facts: dict[str, Any] = dict(connection.execute(SERVER).mappings().one())
    timeouts = Timeouts(connection, "idle_session_timeout")
    rows = connection.execute(SESSIONS).mappings().all()
    sessions = tuple(make_session(dict(row), timeouts) for row in rows)
    slots = Slots(limit=facts.pop("limit"), reserved=facts.pop("reserved"), used=len(sessions) + 1)
    return SessionView(server=server, kind="PostgreSQL", slots=slots, sessions=sessions, **facts)


def make_session(row: dict[str, Any], timeouts: Timeouts) -> Session:
    """A session from a row of the server's view."""
    statement = row.pop("statement") or ""
    row["waits_for"] = tuple(row["waits_for"])
    hidden = statement == "<insufficient privilege>"
    return Session(
        **row,
        statement="" if hidden else sanitize(statement),
        idle_timeout=timeouts.value(row["user"], row["database"]),
    )


def read_server_facts(connection: Connection) -> ServerFacts:
    """
    Ask the server about itself.

    **Costs:** nine round trips.
    """
    facts: dict[str, Any] = dict(connection.execute(FACTS).mappings().one())
    facts["logical_slots"] = tuple(facts["logical_slots"])
    passwords: dict[str, str] = {}
    if connection.execute(MAY_SEE_PASSWORDS).scalar_one():
        passwords = {row.name: row.password for row in connection.execute(PASSWORDS)}
    idle = Timeouts(connection, "idle_session_timeout")
    in_transaction = Timeouts(connection, "idle_in_transaction_session_timeout")
    database = connection.engine.url.database or ""
    roles = tuple(
        RoleFacts(
            **row,
            password=passwords.get(row["name"]),
            idle_session_timeout=idle.value(row["name"], database),
            idle_in_transaction_session_timeout=in_transaction.value(row["name"], database),
        )
        for row in connection.execute(ROLES).mappings()
    )
    return ServerFacts(**facts, roles=roles, vectors=tuple(read_vectors(connection)))


def read_vectors(connection: Connection) -> list[VectorFacts]:
    """Columns of vectors, each with its index of vectors, if it has one."""
    columns: dict[tuple[str, str], VectorFacts] = {}
    for row in connection.execute(VECTORS).mappings():
        key = row["table"], row["column"]
        if key not in columns or row["method"] in ("ivfflat", "hnsw"):
            of_vectors = row["method"] in ("ivfflat", "hnsw")
            lists = (row["lists"] or IVFFLAT_LISTS) if row["method"] == "ivfflat" else None
            index = row["index"] if of_vectors else ""
            columns[key] = VectorFacts(**{**row, "index": index, "lists": lists})
    return list(columns.values())


class Timeouts:
    """
    A duration that roles and databases may have chosen, and the server's own.

    **Costs:** two round trips.
    """

    def __init__(self, connection: Connection, name: str) -> None:
        self._default = seconds(connection.execute(DEFAULT, {"name": name}).scalar_one_or_none())
        self._chosen = {
            (row["role"], row["database"]): value
            for row in connection.execute(CHOSEN).mappings()
            if (value := find_setting(row["config"], name)) is not None
        }

    def value(self, role: str, database: str) -> float | None:
        """In seconds, for a role in a database; 0: none; None: unknown."""
        # The server's own order: a role in a database, a role, a database, everybody (ALTER ROLE ALL).
        scopes = ((role, database), (role, ""), ("", database), ("", ""))
        return next((self._chosen[scope] for scope in scopes if scope in self._chosen), self._default)


def find_setting(config: Iterable[str], name: str) -> float | None:
    """The duration of that name in a list of `name=value`; None if it is not there."""
    for line in config:
        found, _, value = line.partition("=")
        if found.lower() == name:
            return seconds(value)
    return None


def seconds(value: str | None) -> float | None:
    """PostgreSQL's text of a duration, in seconds. Without a unit it is in milliseconds."""
    found = re.fullmatch(r"\s*([\d.]+)\s*([a-z]*)\s*", value or "")
    return float(found[1]) * _UNITS[found[2]] if found and found[2] in _UNITS else None
