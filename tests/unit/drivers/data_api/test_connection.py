"""What is sent, what is sent again, and what an error leaves behind."""

from __future__ import annotations

import pytest

from lambdadb.drivers.data_api import dbapi
from lambdadb.drivers.data_api.api import CallFailed
from lambdadb.drivers.data_api.backends import POSTGRESQL
from lambdadb.drivers.data_api.connection import UnitOfWork

from ...conftest import invocations_until
from .conftest import REFUSED, RESUMING, UNANSWERED, ScriptedApi, make_connection

NOTHING_WRITTEN = {"records": [[{"booleanValue": False}]]}
WRITTEN = {"records": [[{"booleanValue": True}]]}
FAILED = CallFailed("ERROR: x; SQLState: 23505", code="DatabaseErrorException", status=400)


def execute(connection, sql="SELECT 1"):
    return connection.execute(sql, [])


def test_a_transaction_begins_with_its_first_statement(connection, api):
    """And ends with one call; a commit without statements sends nothing."""
    connection.commit()
    connection.rollback()
    assert api.names == []
    execute(connection)
    execute(connection)
    connection.commit()
    assert api.names == ["BeginTransaction", "Execute", "Execute", "CommitTransaction"]
    assert [request.get("transactionId") for _, request in api.calls] == [None, "t1", "t1", "t1"]
    assert connection.commit_state == "done"


def test_autocommit_has_no_transaction(connection, api):
    """One call for each statement."""
    connection.autocommit = True
    execute(connection)
    connection.commit()
    assert api.names == ["Execute"]
    assert "transactionId" not in api.calls[0][1]


def test_the_database_is_named_where_a_session_begins(connection, api):
    """CommitTransaction and RollbackTransaction take no database."""
    execute(connection)
    connection.rollback()
    named = ["database" in request for _, request in api.calls]
    assert named == [True, True, False]


def test_modes_of_a_transaction_cost_one_call(connection, api):
    """Once for each transaction, however many there are."""
    connection.isolation_level, connection.read_only, connection.deferrable = "SERIALIZABLE", True, True
    execute(connection)
    assert api.names == ["BeginTransaction", "Execute", "Execute"]
    assert (
        api.calls[1][1]["sql"] == "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE"
    )


def test_the_tag_leads_every_statement(clock):
    """What could end the comment is replaced."""
    api = ScriptedApi(clock, tag="or*/ders")
    execute(make_connection(api, clock))
    assert api.calls[1][1]["sql"] == "/* or__ders */ SELECT 1"


# Repeated


@pytest.mark.parametrize("failure", [UNANSWERED, RESUMING, REFUSED])
def test_begin_is_repeated_once_the_database_answers(connection, api, failure):
    """A transaction without statements has no effect."""
    api.answers = [failure]
    execute(connection)
    assert api.names == ["BeginTransaction", "BeginTransaction", "Execute"]
    assert len(connection.waits) == 1


def test_begin_is_given_up_after_three_tries(connection, api):
    """The error is the database's."""
    api.answers = [RESUMING] * 3
    with pytest.raises(dbapi.OperationalError, match="resuming"):
        execute(connection)
    assert api.names == ["BeginTransaction"] * 3
    assert len(connection.waits) == 2


def test_what_waiting_cannot_help_is_not_repeated(connection, api):
    """Such as a permission that is missing."""
    api.answers = [CallFailed("no", code="AccessDeniedException", status=403)]
    with pytest.raises(dbapi.OperationalError):
        execute(connection)
    assert api.names == ["BeginTransaction"]


@pytest.mark.parametrize("sql", ["SELECT 1", "INSERT INTO t VALUES (1)"])
def test_the_first_statement_is_repeated_in_a_new_transaction(connection, api, sql):
    """The old one is rolled back first, whose locks could be in the way."""
    api.answers = [None, UNANSWERED]
    execute(connection, sql)
    connection.commit()
    again = ["BeginTransaction", "Execute", "RollbackTransaction"]
    assert api.names == [*again, "BeginTransaction", "Execute", "CommitTransaction"]
    ids = [request.get("transactionId") for _, request in api.calls]
    assert ids == [None, "t1", "t1", None, "t2", "t2"]


def test_an_old_transaction_that_is_not_rolled_back_is_not_replaced(connection, api):
    """Its locks could stop the new one for three minutes."""
    api.answers = [None, UNANSWERED, UNANSWERED]
    with pytest.raises(dbapi.OperationalError, match="not known"):
        execute(connection)
    assert api.names == ["BeginTransaction", "Execute", "RollbackTransaction"]
    assert connection.closed


def test_a_later_read_is_repeated_where_nothing_was_written(connection, api):
    """The server says so, in the same transaction."""
    api.answers = [None, None, UNANSWERED, NOTHING_WRITTEN]
    execute(connection)
    execute(connection)
    assert api.names == ["BeginTransaction", *["Execute"] * 4]
    assert [request["sql"] for _, request in api.calls[3:]] == [POSTGRESQL.has_written, "SELECT 1"]
    assert {request["transactionId"] for _, request in api.calls[1:]} == {"t1"}


@pytest.mark.parametrize("answer", [WRITTEN, UNANSWERED, FAILED])
def test_a_later_read_is_not_repeated_otherwise(connection, api, answer):
    """Something was written, or the server does not say."""
    api.answers = [None, None, UNANSWERED, answer]
    execute(connection)
    with pytest.raises(dbapi.OperationalError, match="not known"):
        execute(connection)
    assert len(api.calls) == 4
    assert connection.closed


def test_a_later_write_is_not_repeated(connection, api):
    """Nobody is asked: the statement itself may have written."""
    api.answers = [None, None, UNANSWERED]
    execute(connection)
    with pytest.raises(dbapi.OperationalError):
        execute(connection, "INSERT INTO t VALUES (1)")
    assert len(api.calls) == 3


def test_a_unit_of_work_repeats_nothing_by_itself(connection, api):
    """run_transaction repeats it as a whole."""
    execute(connection)
    connection.unit = UnitOfWork()
    connection._is_new = True
    api.answers = [UNANSWERED]
    with pytest.raises(dbapi.OperationalError):
        execute(connection)
    assert len(api.calls) == 3


def test_a_statement_that_took_too_long_is_not_repeated(connection, api):
    """It would take as long again."""
    slow = CallFailed("too slow", code="StatementTimeoutException", status=400, certain=False)
    api.answers = [None, slow]
    with pytest.raises(dbapi.OperationalError, match="too slow"):
        execute(connection)
    assert api.names == ["BeginTransaction", "Execute"]


def test_a_statement_in_autocommit_is_repeated_only_without_an_effect(connection, api):
    """As while the cluster resumes."""
    connection.autocommit = True
    api.answers = [RESUMING]
    execute(connection, "INSERT INTO t VALUES (1)")
    assert api.names == ["Execute", "Execute"]


# In doubt


@pytest.mark.parametrize(
    ("sql", "kind"),
    [("INSERT INTO t VALUES (1)", dbapi.InDoubt), ("SELECT f()", dbapi.OperationalError)],
)
def test_autocommit_without_an_answer(connection, api, sql, kind):
    """A write is in doubt; a read is an error that says what is not known."""
    connection.autocommit = True
    api.answers = [UNANSWERED]
    with pytest.raises(dbapi.OperationalError) as raised:
        execute(connection, sql)
    assert type(raised.value) is kind
    assert len(api.calls) == 1


def test_commit_without_an_answer_is_in_doubt(connection, api):
    """It is sent once, and the connection is not used any more."""
    api.answers = [None, None, UNANSWERED]
    execute(connection)
    with pytest.raises(dbapi.InDoubt):
        connection.commit()
    assert api.names[-1] == "CommitTransaction"
    assert connection.commit_state == "sent"
    assert connection.closed


def test_in_a_unit_of_work_the_server_is_asked_instead(connection, api):
    """So the error is an ordinary one there."""
    execute(connection)
    connection.unit = UnitOfWork()
    connection.unit.is_done = True
    api.answers = [UNANSWERED]
    with pytest.raises(dbapi.OperationalError) as raised:
        connection.commit()
    assert not isinstance(raised.value, dbapi.InDoubt)
    assert connection.commit_state == "sent"


@pytest.mark.parametrize("failure", [REFUSED, FAILED], ids=["not sent", "refused"])
def test_commit_that_did_not_happen_is_not_in_doubt(connection, api, failure):
    """Nothing of the transaction is stored."""
    api.answers = [None, None, failure]
    execute(connection)
    with pytest.raises(dbapi.Error) as raised:
        connection.commit()
    assert not isinstance(raised.value, dbapi.InDoubt)
    assert connection.commit_state == "none"


def test_commit_that_the_server_answers_by_a_rollback_is_an_error(connection, api):
    """PostgreSQL rolls a failed transaction back without one."""
    execute(connection)
    api.answers = [{"transactionStatus": "Rollback Complete"}]
    with pytest.raises(dbapi.OperationalError, match="rolled the transaction back"):
        connection.commit()
    assert connection.commit_state == "none"


# Errors of statements


def test_a_failed_transaction_is_not_committed(connection, api):
    """Its COMMIT is not sent, but a rollback, and the caller hears of it."""
    api.answers = [None, FAILED]
    with pytest.raises(dbapi.IntegrityError):
        execute(connection)
    with pytest.raises(dbapi.InternalError, match="rolled back and not committed"):
        connection.commit()
    assert api.names[-1] == "RollbackTransaction"
    assert not connection.closed


def test_a_savepoint_makes_a_failed_transaction_usable(connection, api):
    """As the server has it."""
    api.answers = [None, None, FAILED]
    execute(connection, "SAVEPOINT a")
    with pytest.raises(dbapi.IntegrityError):
        execute(connection)
    execute(connection, "ROLLBACK TO SAVEPOINT a")
    connection.commit()
    assert connection.commit_state == "done"


@pytest.mark.parametrize(
    ("code", "status", "closed"),
    [
        ("ValidationException", 400, False),
        ("UnsupportedResultException", 400, False),
        ("TransactionNotFoundException", 404, True),
        ("ThrottlingException", 429, True),
    ],
)
def test_some_errors_end_the_transaction(connection, api, code, status, closed):
    """Those after which nobody knows how far it has come."""
    api.answers = [None, CallFailed("x", code=code, status=status)]
    with pytest.raises(dbapi.Error):
        execute(connection)
    assert connection.closed == closed


def test_statements_that_end_transactions_are_refused(connection, api):
    """The API would not notice them."""
    with pytest.raises(dbapi.ProgrammingError, match="calls of its own"):
        execute(connection, "COMMIT")
    assert api.names == []


# Time


def test_a_call_ends_with_the_invocations_time(api, clock):
    """Less the reserve; a rollback may take half of that, too."""
    connection = make_connection(api, clock, invocations=invocations_until(clock.now() + 10.0))
    execute(connection)
    connection.rollback()
    assert api.untils == [1009.0, 1009.0, 1009.5]


def test_without_an_invocation_a_call_ends_after_the_services_limit(connection, api):
    """45 s, and five for its answer."""
    execute(connection)
    assert api.untils == [1050.0, 1051.0]


def test_nothing_is_sent_when_time_is_over(api, clock):
    """And the error says that nothing was."""
    connection = make_connection(api, clock, invocations=invocations_until(clock.now() + 0.5))
    with pytest.raises(dbapi.StatementTimeout) as raised:
        execute(connection)
    assert not raised.value.sent
    assert api.names == []


@pytest.mark.parametrize(("autocommit", "seconds"), [(False, 4.0), (True, 3.0)])
def test_time_that_is_over_before_the_answer_to_a_write_leaves_doubt(api, clock, autocommit, seconds):
    """If the write was the COMMIT, or in autocommit."""
    connection = make_connection(api, clock, invocations=invocations_until(clock.now() + seconds))
    connection.autocommit = autocommit
    execute(connection, "SELECT 1")
    api.answers = [UNANSWERED]
    with pytest.raises(dbapi.InDoubt):
        execute(connection, "INSERT INTO t VALUES (1)") if autocommit else connection.commit()


def test_an_interrupted_call_closes_the_connection(connection, api):
    """Nobody knows how far it came."""
    api.answers = [None, KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        execute(connection)
    assert connection.closed


def test_a_rollback_without_an_answer_is_no_error(connection, api, log):
    """The service rolls back by itself, after three minutes."""
    execute(connection)
    api.answers = [UNANSWERED]
    connection.rollback()
    assert connection.closed
    assert "was not answered" in log.text


def test_close_rolls_back_what_is_open(connection, api, clock):
    """In a second at most; afterwards nothing is sent any more."""
    execute(connection)
    began = clock.now()
    connection.close()
    assert api.names[-1] == "RollbackTransaction"
    assert api.untils[-1] == began + 1.0
    with pytest.raises(dbapi.InterfaceError, match="closed"):
        execute(connection)
    connection.close()
    assert api.names.count("RollbackTransaction") == 1
