"""
Statements of MySQL that commit a transaction without being asked.
"""

from __future__ import annotations

import re

# MySQL Reference Manual, "Statements That Cause an Implicit Commit", and those that end a transaction.
_COMMITS = re.compile(
    r"""\s*\(*\s*(?:
        COMMIT | BEGIN | START | XA | ROLLBACK(?!\s+(?:WORK\s+)?TO\b)
      | (?:CREATE(?!\s+(?:OR\s+REPLACE\s+)?TEMPORARY\s+TABLE) | DROP(?!\s+TEMPORARY\s+TABLE))
      | ALTER | TRUNCATE | RENAME | GRANT | REVOKE | LOCK | UNLOCK | ANALYZE\s+(?:\w+\s+)?TABLE
      | OPTIMIZE | REPAIR | CHECK | CACHE | FLUSH | RESET | INSTALL | UNINSTALL | IMPORT | LOAD\s+INDEX
      | STOP | CHANGE | CLONE | SHUTDOWN | SET\s.*\b(?:AUTOCOMMIT|PASSWORD)\b
    )\b""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
# What may commit inside, without this host's notice: procedures, prepared statements, and the compound
# statements that MariaDB takes outside of procedures.
_MAY_COMMIT = re.compile(
    r"\s*(?:(?:CALL|EXECUTE|IF|CASE|LOOP|WHILE|REPEAT|FOR)\b|\w+\s*:)", re.IGNORECASE
)
# /*! ... */ and MariaDB's /*M! ... */ are executed; the other comments are not.
_EXECUTED = re.compile(r"/\*M?!\d*")
_COMMENTS = re.compile(r"/\*.*?\*/|\*/|(?:--\s|\#)[^\n]*(?:\n|$)", re.DOTALL)

# ER_LOCK_WAIT_TIMEOUT rolls back one statement only, unless innodb_rollback_on_timeout is on (MySQL
# Reference Manual, "InnoDB Error Handling").
LOCK_WAIT_TIMEOUT = 1205
# Errors after which another run may succeed. After all but the last InnoDB has rolled the whole
# transaction back: ER_LOCK_DEADLOCK, ER_LOCK_TABLE_FULL, MariaDB's ER_CHECKREAD
# (innodb_snapshot_isolation), ER_TRANSACTION_ROLLBACK_DURING_COMMIT.
CONFLICTS = frozenset({1213, 1206, 1020, 3101, LOCK_WAIT_TIMEOUT})


def strip_comments(sql: str) -> str:
    """Return a statement without the comments that are not executed."""
    return _COMMENTS.sub(" ", _EXECUTED.sub(" ", sql))


def find_commit(sql: str) -> str | None:
    """Return the words by which a statement without comments commits or ends its transaction."""
    found = _COMMITS.match(sql)
    return None if found is None else " ".join(found[0].split())


def may_commit(sql: str) -> bool:
    """Whether a statement without comments may commit inside, such as CALL."""
    return _MAY_COMMIT.match(sql) is not None
