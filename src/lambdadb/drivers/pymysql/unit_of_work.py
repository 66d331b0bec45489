"""
What a connection does differently while a unit of work of `run_transaction` uses it.

A unit is one transaction. MySQL ends a transaction without being asked: many statements, such as CREATE
TABLE, commit it implicitly, and a deadlock rolls it back. The session would then go on in another
transaction, and half of the work could be lost or done twice. So such statements are refused, and
nothing is sent after the end of the unit's transaction.

A procedure may commit without this host's notice, and go on in another transaction. So a savepoint is
set before each CALL. A savepoint ends with its transaction: if it is still there when the next statement
or COMMIT is to be sent, then the transaction is too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pymysql
from pymysql.constants import SERVER_STATUS

from lambdadb.drivers.mysql_commits import (
    CONFLICTS,
    LOCK_WAIT_TIMEOUT,
    find_commit,
    may_commit,
    strip_comments,
)

# Errors that prove that a COMMIT was not carried out. Any other error of COMMIT proves nothing:
# ER_ERROR_DURING_COMMIT (1180) and an interruption (1317) may come after it.
REFUSED_COMMITS = CONFLICTS | {1290, 1836}

_TO_SAVEPOINT = re.compile(r"\s*ROLLBACK\s+(?:WORK\s+)?TO\b", re.IGNORECASE)
SAVEPOINT = "lambdadb_unit"
_NO_SUCH_SAVEPOINT = 1305  # ER_SP_DOES_NOT_EXIST


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
    """Whether a statement was sent that may commit, and no proof of the contrary has come yet."""
    several_statements: bool = False
    """Whether one text may have several statements (the client flag MULTI_STATEMENTS)."""
    conflict: pymysql.Error | None = None
    """The error after which nothing but a new run, or a return to a savepoint, makes sense."""
    _began: bool = False

    def check_statement(self, query: Any, send: Callable[[str], object]) -> None:
        """
        Refuse a statement that would end the transaction, or begin another one.

        **Costs:** none; two round trips for a statement that may commit, such as CALL.
        """
        text = query.decode(errors="replace") if isinstance(query, (bytes, bytearray)) else str(query)
        several = self.several_statements and ";" in text
        text = strip_comments(text)
        self.prove_open(send)
        if self.ended:
            raise UnitEnded("The unit of work has ended its transaction. The statement was not sent.")
        returns = _TO_SAVEPOINT.match(text) is not None
        if self.conflict is not None and not (returns and not self._is_rolled_back):
            raise self.conflict  # also where the unit has caught it
        if found := find_commit(text):
            raise UnitEnded(
                f"{found} would commit or end the transaction of the unit of work. "
                "The statement was not sent. Run it outside of run_transaction."
            )
        if several or may_commit(text):
            send(f"SAVEPOINT {SAVEPOINT}")
            self.may_have_committed = True

    def prove_open(self, send: Callable[[str], object]) -> None:
        """
        Find out whether a statement that may commit has done so. `send` sends one past the unit.

        After a deadlock it cannot be known: the savepoint is gone in either case.
        """
        if not self.may_have_committed or self._is_rolled_back:
            return
        try:
            send(f"RELEASE SAVEPOINT {SAVEPOINT}")
        except pymysql.Error as error:
            if error_number(error) != _NO_SUCH_SAVEPOINT:
                raise
            self.ended = self.committed = True
        self.may_have_committed = False

    @property
    def _is_rolled_back(self) -> bool:
        """Whether a conflict has rolled the whole transaction back."""
        return self.conflict is not None and error_number(self.conflict) != LOCK_WAIT_TIMEOUT

    def check_commit(self) -> None:
        """Refuse a COMMIT that is not `run_transaction`'s own."""
        if not self.is_done or self.ended:
            raise UnitEnded("The unit of work called commit(). COMMIT was not sent.")

    def note_answer(self, status: int) -> None:
        """Notice, by the server's status, whether the transaction is still open."""
        self.conflict = None
        if status & SERVER_STATUS.SERVER_STATUS_IN_TRANS:
            self._began = True
        elif self._began:
            self.ended = self.committed = True

    def note_error(self, error: pymysql.Error) -> pymysql.Error:
        """Notice an error that has rolled back the transaction or a statement; return what to raise."""
        if error_number(error) in CONFLICTS:
            self.conflict = error
        elif error_number(error) == _NO_SUCH_SAVEPOINT and self.conflict is not None:
            self.ended = True  # innodb_rollback_on_timeout
            return self.conflict
        return error


def error_number(error: BaseException) -> int:
    """Return the number of a server's or the client's error; 0 if it has none."""
    number = error.args[0] if error.args else 0
    return number if isinstance(number, int) else 0
