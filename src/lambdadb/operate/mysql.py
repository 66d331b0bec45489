"""
What MySQL and MariaDB say about their sessions and about themselves, as data.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from lambdadb.operate.mysql_server import MySQLFacts
from lambdadb.operate.sessions import Session, SessionView, Slots
from lambdadb.tracing.sanitize import sanitize_mysql

SERVER = text("""
    SELECT VERSION() AS version, CURRENT_USER() AS role, @@innodb_read_only OR @@read_only AS reader,
           @@max_connections AS max_connections, @@global.wait_timeout AS wait_timeout,
           EXISTS (SELECT 1 FROM information_schema.USER_PRIVILEGES
                   WHERE PRIVILEGE_TYPE = 'PROCESS' AND GRANTEE =
                         CONCAT('''', SUBSTRING_INDEX(CURRENT_USER(), '@', 1), '''@''',
                                SUBSTRING_INDEX(CURRENT_USER(), '@', -1), '''')) AS sees_all
""")
SESSIONS = text("""
    SELECT p.ID AS id, p.USER AS user, COALESCE(p.DB, '') AS db, p.HOST AS client, p.COMMAND AS command,
           p.TIME AS seconds, p.INFO AS statement
    FROM information_schema.PROCESSLIST AS p
    WHERE p.ID <> CONNECTION_ID() AND p.USER NOT IN ('system user', 'event_scheduler')
          AND p.COMMAND <> 'Daemon'
    ORDER BY p.ID
""")
TRANSACTIONS = text("""
    SELECT trx_mysql_thread_id AS id, TIMESTAMPDIFF(SECOND, trx_started, NOW()) AS seconds
    FROM information_schema.INNODB_TRX
""")
# Empty if performance_schema is off, as it is by default in MariaDB.
TAGS = text("""
    SELECT PROCESSLIST_ID AS id, ATTR_VALUE AS name FROM performance_schema.session_connect_attrs
    WHERE ATTR_NAME = 'program_name'
""")
WAITS = text("SELECT waiting_pid, blocking_pid FROM sys.innodb_lock_waits")
FACTS = text("""
    SELECT VERSION() AS version, @@log_bin AS log_bin, @@performance_schema AS performance_schema,
           @@event_scheduler IN ('ON', '1') AS event_scheduler, @@global.wait_timeout AS wait_timeout
""")
FORCES_TLS = text("SELECT @@require_secure_transport")
AURORA = text("SELECT AURORA_VERSION()")


def read_session_view(connection: Connection, server: str) -> SessionView:
    """
    Ask the server for its sessions.

    Args:
        connection: In autocommit, so that looking leaves no transaction open.
        server: What the server is to be called.

    **Costs:** five round trips.
    """
    facts: dict[str, Any] = dict(connection.execute(SERVER).mappings().one())
    timeout = float(facts.pop("wait_timeout"))
    tags = {row.id: row.name for row in ask(connection, TAGS)}
    waits: dict[int, set[int]] = {}
    for row in ask(connection, WAITS):
        waits.setdefault(row.waiting_pid, set()).add(row.blocking_pid)
    begun = {row.id: float(row.seconds) for row in ask(connection, TRANSACTIONS)}
    sessions = tuple(
        make_session(
            dict(row),
            name=tags.get(row["id"], ""),
            waits_for=tuple(sorted(waits.get(row["id"], ()))),
            transaction=begun.get(row["id"]),
            idle_timeout=timeout,
        )
        for row in connection.execute(SESSIONS).mappings()
    )
    return SessionView(
        server=server,
        kind="MariaDB" if "MariaDB" in facts["version"] else "MySQL",
        version=facts["version"].partition("-")[0],
        reader=bool(facts["reader"]),
        # The server has one more, for a user with the right to it.
        slots=Slots(limit=facts["max_connections"], reserved=0, used=len(sessions) + 1),
        sessions=sessions,
        sees_all=bool(facts["sees_all"]),
        role=facts["role"].rpartition("@")[0],
    )


def make_session(row: dict[str, Any], **known: Any) -> Session:
    """A session from a row of the process list, and what other views know of it."""
    idle = row["command"] == "Sleep"
    sleeping = "idle" if known["transaction"] is None else "idle in transaction"
    return Session(
        id=row["id"],
        user=row["user"],
        database=row["db"],
        client=row["client"].rpartition(":")[0] or row["client"],
        state=sleeping if idle else "active",
        age=None,  # the process list does not say
        idle=float(row["seconds"]) if idle else None,
        statement=sanitize_mysql(row["statement"] or ""),
        **known,
    )


def read_server_facts(connection: Connection) -> MySQLFacts:
    """
    Ask the server about itself.

    **Costs:** three round trips.
    """
    facts: dict[str, Any] = dict(connection.execute(FACTS).mappings().one())
    forces_tls = ask(connection, FORCES_TLS)
    return MySQLFacts(
        version=facts["version"],
        aurora=bool(ask(connection, AURORA)),
        log_bin=bool(facts["log_bin"]),
        performance_schema=bool(facts["performance_schema"]),
        event_scheduler=bool(facts["event_scheduler"]),
        wait_timeout=float(facts["wait_timeout"]),
        forces_tls=bool(forces_tls[0][0]) if forces_tls else None,
    )


def ask(connection: Connection, query: Any) -> list[Any]:
    """
    The rows; none where the server has not got what is asked for, or the role may not see it.

    An error is an answer here: each of these is missing on some server.
    """
    try:
        return list(connection.execute(query))
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        return []
