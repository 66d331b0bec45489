"""
What identifies a transaction to PostgreSQL after its connection is lost, as SQL.

A session's settings must not change what these expressions mean: each name in them is qualified, no
literal has a backslash, and moments are compared as numbers. They are sent as text with nothing but
digits filled in.
"""

from __future__ import annotations

IS_STANDBY = "pg_catalog.pg_is_in_recovery()"
# Its id is asked for in READ ONLY transactions too: NOTIFY and temporary tables are possible in them.
BEGUN = (
    IS_STANDBY,
    f"CASE WHEN {IS_STANDBY} THEN NULL ELSE pg_catalog.pg_current_xact_id() END",
    "pg_catalog.pg_backend_pid()",
)
# Its process id, and when it began: another session may have the same process id later.
SESSION = (
    "pg_catalog.pg_backend_pid()",
    "(SELECT CAST(EXTRACT(epoch FROM backend_start) OPERATOR(pg_catalog.*) 1000000 AS pg_catalog.int8)"
    " FROM pg_catalog.pg_stat_activity WHERE pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid())",
)
# The schemas in which tables without a schema are looked up.
SCHEMAS = "pg_catalog.current_schemas(false)"
# When the server, or its shared memory, last started. pg_stat_bgwriter is reset by each crash recovery,
# also by one that the postmaster survived, whose start time then stays the same (PostgreSQL,
# src/backend/utils/activity/pgstat.c).
EPOCH = tuple(
    f"CAST(EXTRACT(epoch FROM {moment}) OPERATOR(pg_catalog.*) 1000000 AS pg_catalog.int8)"
    for moment in (
        "pg_catalog.pg_postmaster_start_time()",
        "(SELECT stats_reset FROM pg_catalog.pg_stat_bgwriter)",
    )
)
# What transaction ids belong to: the system, its timeline (the first digits of a WAL file's name), and
# the server's address, since a clone of the storage may have the same system and timeline.
ID_SPACE = (
    "(SELECT system_identifier FROM pg_catalog.pg_control_system())",
    f"CASE WHEN {IS_STANDBY} THEN NULL"
    " ELSE pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()) END",
    "pg_catalog.inet_server_addr()",
    "pg_catalog.inet_server_port()",
)
# A transaction at or above the snapshot's end is not decided, or its id was never given out here, for
# which pg_xact_status would raise an error.
STATUS = (
    "CASE WHEN CAST('{id}' AS pg_catalog.xid8)"
    " OPERATOR(pg_catalog.<) pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())"
    " THEN pg_catalog.pg_xact_status(CAST('{id}' AS pg_catalog.xid8)) ELSE 'in progress' END"
)
# backend_xid has 32 bits, the id 64: the process id and the epoch, compared before, leave no other.
END_SESSION = (
    "SELECT {ended} FROM pg_catalog.pg_stat_activity"
    " WHERE pid OPERATOR(pg_catalog.=) {backend}"
    " AND backend_xid OPERATOR(pg_catalog.=) CAST(CAST('{id}' AS pg_catalog.xid8) AS pg_catalog.xid)"
)
# The session of a transaction whose id is not known.
SESSION_BEGUN = (
    "FROM pg_catalog.pg_stat_activity WHERE pid OPERATOR(pg_catalog.=) {backend}"
    " AND CAST(EXTRACT(epoch FROM backend_start) OPERATOR(pg_catalog.*) 1000000 AS pg_catalog.int8)"
    " OPERATOR(pg_catalog.=) {began}"
)
TERMINATE = "pg_catalog.pg_terminate_backend(pid)"

CONFLICTS = frozenset({"40001", "40P01"})  # serialization_failure, deadlock_detected
READ_ONLY = "25006"  # read_only_sql_transaction: among other things, the old writer after a failover

DOUBT = "the server has restarted, or another one has answered: its answer proves nothing"
"""Why an unknown outcome is not known."""
