"""
What a connection does differently while a unit of work of `run_transaction` uses it.

A unit is one transaction. MySQL ends a transaction without being asked: many statements, such as CREATE
TABLE, commit it implicitly, and a deadlock rolls it back. The session would then go on in another
transaction, and half of the work could be lost or done twice. So such statements are refused, and
nothing is sent after the end of the unit's transaction.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pymysql
from pymysql.constants import SERVER_STATUS

# Errors after which InnoDB has rolled the whole transaction back: ER_LOCK_DEADLOCK, ER_LOCK_TABLE_FULL,
# MariaDB's ER_CHECKREAD (innodb_snapshot_isolation), ER_TRANSACTION_ROLLBACK_DURING_COMMIT. And
# ER_LOCK_WAIT_TIMEOUT, which rolls back one statement only, unless innodb_rollback_on_timeout is on.
CONFLICTS = frozenset({1213, 1206, 1020, 3101, 1205})
# Errors that prove that a COMMIT was not carried out. Any other error of COMMIT proves nothing:
# ER_ERROR_DURING_COMMIT (1180) and an interruption (1317) may come after it.
REFUSED_COMMITS = CONFLICTS | {1290, 1836}

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
# What may commit inside, without this host's notice.
_MAY_COMMIT = re.compile(r"\s*(?:CALL|EXECUTE|PREPARE|DO|BEGIN\s+NOT\s+ATOMIC)\b", re.IGNORECASE)
# /*! ... */ and MariaDB's /*M! ... */ are executed; the other comments are not.
_EXECUTED = re.compile(r"/\*M?!\d*")
_COMMENTS = re.compile(r"/\*.*?\*/|\*/|(?:--\s|\#)[^\n]*(?:\n|$)", re.DOTALL)


class UnitEnded(pymysql.OperationalError):
    """A unit of work continued after the end of its transaction, or tried to end it."""


@dataclass(repr=False, eq=False)
class UnitOfWork:
    """The unit of work that uses a connection now."""

    is_done: bool = False
    """Whether the unit has returned, so that COMMIT may be sent."""
    committed: bool = False
    """Whether its transaction was committed by something else than `run_transaction`."""
    ended: bool = False
    """Whether its transaction has ended."""
    may_have_committed: bool = False
    """Whether the statement that was sent last, and not answered, may commit."""
    _began: bool = False

    def check_statement(self, query: Any) -> None:
        """Refuse a statement that would end the transaction, or begin another one."""
        if self.ended:
            raise UnitEnded("The unit of work has ended its transaction. The statement was not sent.")
        text = query.decode(errors="replace") if isinstance(query, (bytes, bytearray)) else str(query)
        text = _COMMENTS.sub(" ", _EXECUTED.sub(" ", text))
        if found := _COMMITS.match(text):
            raise UnitEnded(
                f"{' '.join(found[0].split())} would commit or end the transaction of the unit of work. "
                "The statement was not sent. Run it outside of run_transaction."
            )
        self.may_have_committed = _MAY_COMMIT.match(text) is not None

    def check_commit(self) -> None:
        """Refuse a COMMIT that is not `run_transaction`'s own."""
        if not self.is_done or self.ended:
            raise UnitEnded("The unit of work called commit(). COMMIT was not sent.")

    def note_answer(self, status: int) -> None:
        """Notice, by the server's status, whether the transaction is still open."""
        self.may_have_committed = False
        if status & SERVER_STATUS.SERVER_STATUS_IN_TRANS:
            self._began = True
        elif self._began:
            self.ended = self.committed = True

    def note_error(self, error: pymysql.Error) -> None:
        """Notice an error that has rolled the transaction back."""
        if error_number(error) in CONFLICTS:
            self.ended = True


def error_number(error: BaseException) -> int:
    """Return the number of a server's or the client's error; 0 if it has none."""
    number = error.args[0] if error.args else 0
    return number if isinstance(number, int) else 0
