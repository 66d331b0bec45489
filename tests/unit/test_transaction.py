"""What is told of a transaction, and what a COMMIT's error proves, without a server."""

from __future__ import annotations

import pickle

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError, PendingRollbackError

from lambdadb import CommitInDoubt, OutOfTime, TransactionEnded
from lambdadb.drivers.psycopg.connection import InvocationClosed, StatementTimeout, translate
from lambdadb.drivers.psycopg.transaction import meaning_of
from lambdadb.drivers.psycopg.unit_of_work import Server, UnitEnded, UnitOfWork, is_refusal


class _Diagnostics:
    def __init__(self, severity):
        self.severity = self.severity_nonlocalized = severity


def server_error(sqlstate, severity):
    """An error as the server or a pooler sends it."""
    kind = type("Answer", (psycopg.OperationalError,), {"diag": _Diagnostics(severity)})
    error = kind("text")
    error.sqlstate = sqlstate
    return error


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (server_error("40001", "ERROR"), True),
        (server_error("23505", "ERROR"), True),
        (server_error("57014", "ERROR"), True),
        (server_error("57P01", "FATAL"), False),
        (server_error("57P02", "PANIC"), False),
        (server_error("08P01", "ERROR"), False),
        (server_error("08006", "FATAL"), False),
        (server_error("40001", None), False),
        (psycopg.OperationalError("the connection is lost"), False),
        (psycopg.InterfaceError("the connection is closed"), False),
        (psycopg.DatabaseError("lost synchronization with server: got message type 'x'"), False),
        (psycopg.ProgrammingError("commit() is forbidden in a transaction block"), True),
    ],
    ids=lambda value: str(getattr(value, "sqlstate", value)),
)
def test_only_the_servers_error_proves_that_commit_was_refused(error, refused):
    """FATAL, a pooler's words and a lost connection leave it open: the server is asked."""
    assert is_refusal(error) is refused


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (psycopg.errors.SerializationFailure(), "conflict"),
        (psycopg.errors.DeadlockDetected(), "conflict"),
        (psycopg.errors.ReadOnlySqlTransaction(), "not the writer"),
        (psycopg.errors.UniqueViolation(), "other"),
        (StatementTimeout("", sent=True), "out of time"),
        (OutOfTime("", sent=False), "out of time"),
        (UnitEnded(), "ended"),
        (TransactionEnded(""), "ended"),
        (InvocationClosed(), "other"),
        (KeyError(), "other"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "SQLAlchemy's"])
def test_an_error_means_the_same_bare_and_wrapped(error, meaning, wrapped):
    """A driver's cursor and COPY raise psycopg's own errors, SQLAlchemy's statements wrapped ones."""
    if wrapped and isinstance(error, psycopg.Error):
        error = DBAPIError.instance("SELECT 1", None, error, psycopg.Error)
    assert meaning_of(error) == meaning


def test_a_lost_connection_is_known_by_the_error_or_by_the_connection():
    """SQLAlchemy marks its errors; a bare one means a loss where the connection is closed."""
    original = psycopg.OperationalError("the connection is closed")
    wrapped = DBAPIError.instance("S", None, original, psycopg.Error, connection_invalidated=True)

    class Lost:
        is_lost = True

    assert meaning_of(wrapped) == "lost"
    assert meaning_of(original) == "other"
    assert meaning_of(original, Lost()) == "lost"
    assert meaning_of(PendingRollbackError(), Lost()) == "lost"  # what hides it, in a savepoint
    assert meaning_of(PendingRollbackError()) == "other"
    assert meaning_of(KeyError(), Lost()) == "other"


def test_a_unit_commits_only_after_its_return_and_only_once():
    """Before it has returned, and after a COMMIT of its own, nothing is sent."""
    unit = UnitOfWork("1")
    with pytest.raises(UnitEnded, match="not sent"):
        unit.check_commit()
    unit.is_done = True
    unit.check_commit()
    unit.committed = True
    with pytest.raises(UnitEnded):
        unit.check_commit()


def test_ids_are_shared_only_where_the_server_says_so():
    """An unknown id space is nobody's, not even that of another unknown one."""
    one = Server(("1", "2"), ("system", "00000001", "10.0.0.1", "5432"))
    later = Server(("3", "4"), one.id_space)
    assert later.gives_same_ids(one)
    for other in [
        ("system", "00000002", "10.0.0.1", "5432"),
        ("system", "00000001", "10.0.0.2", "5432"),
        ("another", "00000001", "10.0.0.1", "5432"),
        None,
    ]:
        assert not Server(("3", "4"), other).gives_same_ids(one)
    assert not Server(("3", "4"), None).gives_same_ids(Server(("1", "2"), None))


def test_the_errors_survive_a_process():
    """Pickled and back, with what they say and know."""
    for error in (TransactionEnded("text", committed=True), CommitInDoubt("7", "reason")):
        copy = pickle.loads(pickle.dumps(error))
        assert (str(copy), vars(copy)) == (str(error), vars(error))


def test_the_drivers_errors_have_names_of_ours():
    """What reaches a caller is lambdadb's error, or somebody else's as it is."""
    assert isinstance(translate(StatementTimeout("", sent=True)), OutOfTime)
    assert isinstance(translate(UnitEnded("text")), TransactionEnded)
    assert translate(psycopg.OperationalError()) is None
    assert translate(KeyError()) is None
