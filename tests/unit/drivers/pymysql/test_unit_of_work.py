"""What a unit of work on MySQL may send, and what is learned from the answers."""

from __future__ import annotations

import pymysql
import pytest
from pymysql.constants import SERVER_STATUS

from lambdadb.drivers.pymysql.unit_of_work import UnitEnded, UnitOfWork

OPEN = SERVER_STATUS.SERVER_STATUS_IN_TRANS
GONE = pymysql.OperationalError(1305, "SAVEPOINT lambdadb_unit does not exist")
DEADLOCK = pymysql.OperationalError(1213, "Deadlock found")
LOCK_WAIT = pymysql.OperationalError(1205, "Lock wait timeout exceeded")


class Sent(list):
    """Statements that were sent past the unit. The savepoint may be gone."""

    gone = False

    def __call__(self, query):
        self.append(query)
        if self.gone and query.startswith("RELEASE"):
            raise GONE


@pytest.fixture
def sent():
    return Sent()


@pytest.mark.parametrize(
    "statement",
    [
        "COMMIT",
        "rollback",
        " (COMMIT)",
        "BEGIN",
        "START TRANSACTION",
        "/* a comment */ CREATE TABLE t (n INT)",
        "/*!50000 CREATE */ TABLE t (n INT)",
        "-- a comment\nALTER TABLE t ADD m INT",
        "# a comment\nTRUNCATE t",
        "DROP TABLE t",
        "ANALYZE LOCAL TABLE t",
        "SET autocommit = 1",
        "SET @a = 1, autocommit = ON",
        "LOCK TABLES t READ",
        b"GRANT SELECT ON t TO u",
        "BEGIN NOT ATOMIC COMMIT; END",
    ],
)
def test_a_statement_that_ends_the_transaction_is_refused(statement, sent):
    """MySQL would commit without being asked."""
    with pytest.raises(UnitEnded, match="not sent"):
        UnitOfWork().check_statement(statement, sent)
    assert sent == []


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1",
        "INSERT INTO t VALUES ('COMMIT')",
        "CREATE TEMPORARY TABLE t (n INT)",
        "DROP TEMPORARY TABLE t",
        "ROLLBACK TO SAVEPOINT sa_savepoint_1",
        "SAVEPOINT sa_savepoint_1",
        "SET @a = 1",
        "WITH begin_ AS (SELECT 1) SELECT * FROM begin_",
    ],
)
def test_other_statements_are_sent_alone(statement, sent):
    """They cost nothing more."""
    unit = UnitOfWork()
    unit.check_statement(statement, sent)
    assert sent == []
    assert not unit.may_have_committed


@pytest.mark.parametrize("statement", ["CALL p()", "execute s", "IF 1 THEN COMMIT; END IF", "a: LOOP"])
def test_what_may_commit_inside_is_proven(statement, sent):
    """A savepoint before it, which is released before the next statement."""
    unit = UnitOfWork()
    unit.check_statement(statement, sent)
    assert unit.may_have_committed
    unit.check_statement("SELECT 1", sent)
    assert sent == ["SAVEPOINT lambdadb_unit", "RELEASE SAVEPOINT lambdadb_unit"]
    assert not unit.may_have_committed


def test_a_commit_inside_of_a_procedure_is_noticed(sent):
    """Its savepoint is gone, so nothing more is sent."""
    unit = UnitOfWork()
    unit.check_statement("CALL p()", sent)
    unit.note_answer(OPEN)
    sent.gone = True
    with pytest.raises(UnitEnded):
        unit.check_statement("SELECT 1", sent)
    assert unit.committed


def test_several_statements_in_one_text_are_proven(sent):
    """Only the first of them can be read with certainty."""
    unit = UnitOfWork(several_statements=True)
    unit.check_statement("SELECT 1; COMMIT", sent)
    assert unit.may_have_committed


def test_the_servers_status_shows_an_end(sent):
    """A transaction that was open and is not: something has committed it."""
    unit = UnitOfWork()
    unit.note_answer(0)
    assert not unit.ended
    unit.note_answer(OPEN)
    unit.note_answer(0)
    assert unit.committed
    with pytest.raises(UnitEnded):
        unit.check_statement("SELECT 1", sent)


def test_a_deadlock_cannot_be_swallowed(sent):
    """The transaction is gone, so every further statement raises the deadlock again."""
    unit = UnitOfWork()
    assert unit.note_error(DEADLOCK) is DEADLOCK
    for statement in ("SELECT 1", "ROLLBACK TO SAVEPOINT sa_savepoint_1"):
        with pytest.raises(pymysql.OperationalError) as raised:
            unit.check_statement(statement, sent)
        assert raised.value is DEADLOCK


def test_a_lock_wait_timeout_may_return_to_a_savepoint(sent):
    """It has rolled back one statement. Other statements raise it again until then."""
    unit = UnitOfWork()
    unit.note_error(LOCK_WAIT)
    with pytest.raises(pymysql.OperationalError) as raised:
        unit.check_statement("SELECT 1", sent)
    assert raised.value is LOCK_WAIT
    unit.check_statement("ROLLBACK TO SAVEPOINT sa_savepoint_1", sent)
    unit.note_answer(OPEN)
    unit.check_statement("SELECT 1", sent)


def test_a_lock_wait_timeout_may_have_rolled_everything_back(sent):
    """With innodb_rollback_on_timeout: the savepoint is gone, and the unit is a conflict."""
    unit = UnitOfWork()
    unit.note_error(LOCK_WAIT)
    unit.check_statement("ROLLBACK TO SAVEPOINT sa_savepoint_1", sent)
    assert unit.note_error(GONE) is LOCK_WAIT
    assert unit.ended


def test_after_a_deadlock_inside_of_a_procedure_nothing_is_proven(sent):
    """The savepoint is gone in either case: whether the procedure has committed is not known."""
    unit = UnitOfWork()
    unit.check_statement("CALL p()", sent)
    unit.note_error(DEADLOCK)
    unit.prove_open(sent)
    assert sent == ["SAVEPOINT lambdadb_unit"]
    assert unit.may_have_committed
