"""What a failed call means, and the error that is raised for it."""

from __future__ import annotations

import pytest

from lambdadb import CommitInDoubt, InvocationEnded, OutOfTime, TransactionEnded
from lambdadb.drivers.data_api import dbapi
from lambdadb.drivers.data_api.api import CallFailed
from lambdadb.drivers.data_api.faults import diagnose, find_state, make_error, translate
from lambdadb.faults import Fault


def database_error(state):
    text = f"DatabaseErrorException (400): ERROR: what the server says; SQLState: {state}"
    return CallFailed(text, code="DatabaseErrorException", status=400)


@pytest.mark.parametrize(
    ("code", "status", "fault"),
    [
        ("DatabaseResumingException", 400, Fault.RESUMING),
        ("DatabaseUnavailableException", 504, Fault.RESUMING),
        ("StatementTimeoutException", 400, Fault.RESUMING),
        ("InternalServerErrorException", 500, Fault.UNREACHABLE),
        ("ServiceUnavailableError", 503, Fault.UNREACHABLE),
        ("SomethingNew", 502, Fault.UNREACHABLE),
        ("ThrottlingException", 429, Fault.EXHAUSTED),
        ("HttpEndpointNotEnabledException", 400, Fault.MISCONFIGURED),
        ("DatabaseNotFoundException", 404, Fault.MISCONFIGURED),
        ("SomethingNew", 400, Fault.MISCONFIGURED),
        ("InvalidSecretException", 400, Fault.CREDENTIALS),
        ("AccessDeniedException", 403, Fault.CREDENTIALS),
        ("InvalidSignatureException", 403, Fault.CREDENTIALS),
        ("ExpiredTokenException", 403, Fault.CREDENTIALS),
        ("NoKeys", 0, Fault.LOGIN),
        ("", 0, Fault.UNREACHABLE),
    ],
)
def test_an_answer_has_one_meaning(code, status, fault):
    """For a call that has to reach the database first."""
    assert diagnose(CallFailed("what AWS says", code=code, status=status)).fault is fault


@pytest.mark.parametrize(
    ("state", "fault"),
    [
        ("57P03", Fault.RESUMING),
        ("53300", Fault.EXHAUSTED),
        ("28P01", Fault.CREDENTIALS),
        ("3D000", Fault.MISCONFIGURED),
    ],
)
def test_the_databases_own_error_at_a_login_has_a_meaning(state, fault):
    """By its SQLSTATE."""
    assert diagnose(database_error(state)).fault is fault


def test_a_refused_permission_names_the_policy():
    """The remedy is where the permissions are written down."""
    found = diagnose(CallFailed("no", code="AccessDeniedException", status=403))
    assert "secretsmanager:GetSecretValue" in found.remedy
    assert "docs/data-api.md" in found.remedy


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("23505", dbapi.IntegrityError),
        ("22012", dbapi.DataError),
        ("42601", dbapi.ProgrammingError),
        ("40001", dbapi.OperationalError),
        ("0A000", dbapi.NotSupportedError),
        ("25P02", dbapi.InternalError),
    ],
)
def test_a_servers_error_has_the_class_of_its_sqlstate(state, kind):
    """As with psycopg."""
    error = make_error(database_error(state))
    assert type(error) is kind
    assert error.sqlstate == state


@pytest.mark.parametrize(
    ("failure", "kind", "says"),
    [
        (("UnsupportedResultException", 400), dbapi.NotSupportedError, "Cast the column to text"),
        (("ValidationException", 400), dbapi.ProgrammingError, "what AWS says"),
        (("RequestTooLarge", 413), dbapi.ProgrammingError, "what AWS says"),
        (("TransactionNotFoundException", 404), dbapi.OperationalError, "what AWS says"),
    ],
)
def test_the_apis_own_refusals_have_a_class(failure, kind, says):
    """And a remedy where there is one."""
    code, status = failure
    error = make_error(CallFailed("what AWS says", code=code, status=status))
    assert type(error) is kind
    assert says in str(error)
    assert error.sqlstate is None


def test_a_result_that_is_too_large_names_the_limits():
    """1 MiB a result, 64 KB a row."""
    text = "Database returned more than the allowed response size limit"
    error = make_error(CallFailed(text, code="DatabaseErrorException", status=400))
    assert "1 MiB a result and 64 KB a row" in str(error)


def test_an_error_says_whether_the_effect_is_unknown():
    """A call without an answer may have been carried out."""
    assert "not known" in str(make_error(CallFailed("no answer came", certain=False)))
    assert "not known" not in str(make_error(CallFailed("no request was sent")))


def test_the_last_sqlstate_of_a_text_counts():
    """A statement's own text may contain one."""
    assert find_state("ERROR: 'SQLState: 00000'; SQLState: 23505") == "23505"
    assert find_state("no state") is None


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (dbapi.UnitEnded("x"), TransactionEnded),
        (dbapi.StatementTimeout("x", sent=True), OutOfTime),
        (dbapi.InvocationClosed("x"), InvocationEnded),
        (dbapi.InDoubt("x"), CommitInDoubt),
    ],
)
def test_some_errors_are_lambdadbs_own(error, kind):
    """Those to which a handler reacts in another way."""
    assert type(translate(error)) is kind
    assert translate(dbapi.OperationalError("x")) is None
    doubt = CommitInDoubt("", "x")
    assert translate(doubt) is doubt
    assert "whether the transaction is committed: x" in str(doubt)
