"""
What PostgreSQL says about its sessions, as data.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, text

from lambdadb.operate.sessions import Session, Slots, Snapshot
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
           pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS sees_all,
           (SELECT CASE WHEN source IN ('database', 'user', 'database user', 'client', 'session')
                        THEN NULL ELSE reset_val END
            FROM pg_settings WHERE name = 'idle_session_timeout') AS idle_session_timeout
""")
# What ALTER ROLE … SET and ALTER DATABASE … SET have chosen.
CHOSEN = text("""
    SELECT coalesce(d.datname, '') AS database, coalesce(r.rolname, '') AS role, c.setconfig AS config
    FROM pg_db_role_setting AS c LEFT JOIN pg_database AS d ON d.oid = c.setdatabase
         LEFT JOIN pg_roles AS r ON r.oid = c.setrole
""")
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "": 1e-3}


def read_snapshot(connection: Connection, server: str) -> Snapshot:
    """
    Ask the server for its sessions.

    Args:
        connection: In autocommit, so that looking leaves no transaction open.
        server: What the server is to be called.

    **Costs:** three round trips.
    """
    facts: dict[str, Any] = dict(connection.execute(SERVER).mappings().one())
    chosen = read_chosen(connection, "idle_session_timeout")
    default = seconds(facts.pop("idle_session_timeout"))
    rows = connection.execute(SESSIONS).mappings().all()
    sessions = tuple(make_session(dict(row), chosen, default) for row in rows)
    slots = Slots(limit=facts.pop("limit"), reserved=facts.pop("reserved"), used=len(sessions) + 1)
    return Snapshot(server=server, kind="PostgreSQL", slots=slots, sessions=sessions, **facts)


def make_session(
    row: dict[str, Any], chosen: Mapping[tuple[str, str], float], default: float | None
) -> Session:
    """A session from a row of the server's view."""
    statement = row.pop("statement") or ""
    row["waits_for"] = tuple(row["waits_for"])
    # The server's own way round: a role in a database, a role, a database, everybody (ALTER ROLE ALL).
    scopes = [(row["user"], row["database"]), (row["user"], ""), ("", row["database"]), ("", "")]
    timeout = next((chosen[scope] for scope in scopes if scope in chosen), default)
    hidden = statement == "<insufficient privilege>"
    return Session(**row, statement="" if hidden else sanitize(statement), idle_timeout=timeout)


def read_chosen(connection: Connection, name: str) -> dict[tuple[str, str], float]:
    """A duration that was set for roles and databases, in seconds, by role and database; "" is any."""
    return {
        (row["role"], row["database"]): value
        for row in connection.execute(CHOSEN).mappings()
        if (value := find_setting(row["config"], name)) is not None
    }


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
