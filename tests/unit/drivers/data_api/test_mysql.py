"""What is different for MySQL behind the Data API."""

from __future__ import annotations

import datetime
from datetime import date, time, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
import sqlalchemy as sa

from lambdadb.drivers.data_api import dbapi
from lambdadb.drivers.data_api.api import CallFailed
from lambdadb.drivers.data_api.backends import MYSQL
from lambdadb.drivers.data_api.connection import UnitOfWork
from lambdadb.drivers.data_api.faults import diagnose, make_error
from lambdadb.drivers.data_api.mysql_dialect import MySQLDataApiDialect
from lambdadb.drivers.data_api.mysql_values import TOKENS
from lambdadb.drivers.data_api.transaction import meaning_of
from lambdadb.faults import Fault

from .conftest import UNANSWERED, make_connection

MOMENT = datetime.datetime(2026, 1, 2, 3, 4, 5, 678901)  # noqa: DTZ001 MySQL's has none
ID = UUID("6f1c2a34-0000-4000-8000-000000000000")


def database_error(number, state):
    text = f"DatabaseErrorException (400): what it says; Error code: {number}; SQLState: {state}"
    return CallFailed(text, code="DatabaseErrorException", status=400)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (MOMENT, "2026-01-02 03:04:05.678901"),
        (MOMENT.replace(tzinfo=datetime.timezone.utc), "2026-01-02 03:04:05.678901"),
        (time(1, 2, 3), "01:02:03"),
        (timedelta(hours=30, microseconds=7), "30:00:00.000007"),
        (timedelta(seconds=-90), "-00:01:30.000000"),
        (ID, str(ID)),
        ("a\0b", "a\0b"),
    ],
    ids=repr,
)
def test_a_value_is_sent_as_text_without_a_hint(value, text):
    """MySQL takes text for it."""
    assert MYSQL.encode("a", value) == {"name": "a", "value": {"stringValue": text}}


def test_a_list_is_refused():
    """MySQL has no arrays."""
    with pytest.raises(dbapi.NotSupportedError, match="a list"):
        MYSQL.encode("a", [1])


@pytest.mark.parametrize(
    ("field", "type_name", "value"),
    [
        ({"isNull": True}, "INT", None),
        ({"longValue": 1}, "INT UNSIGNED", 1),
        ({"stringValue": str(2**64 - 1)}, "BIGINT UNSIGNED", 2**64 - 1),
        ({"booleanValue": True}, "BIT", True),
        ({"stringValue": "1.50"}, "DECIMAL", Decimal("1.50")),
        ({"stringValue": "2026-01-02"}, "DATE", date(2026, 1, 2)),
        ({"stringValue": "0000-00-00"}, "DATE", "0000-00-00"),
        ({"stringValue": "2026-01-02 03:04:05.678901"}, "DATETIME", MOMENT),
        ({"stringValue": "2026-01-02 03:04:05.6789"}, "TIMESTAMP", MOMENT.replace(microsecond=678900)),
        ({"stringValue": "-30:00:01.5"}, "TIME", -timedelta(hours=30, seconds=1.5)),
        ({"stringValue": "{}"}, "JSON", "{}"),
        ({"blobValue": "AP8="}, "VARBINARY", b"\x00\xff"),
    ],
    ids=repr,
)
def test_a_field_is_read_by_its_columns_type(field, type_name, value):
    """As PyMySQL reads it: TIME is a duration."""
    found = MYSQL.decode(field, type_name)
    assert found == value
    assert type(found) is type(value)


def test_parameters_are_found_outside_of_strings_names_and_comments():
    """With MySQL's own quotes and backslashes."""
    sql = "SELECT ':a\\':b', \":c\\\"\", `:d`, @x := :e -- :f\n, :g # :h\n, /* :i */ :j"
    assert [found["name"] for found in TOKENS.finditer(sql) if found["name"]] == ["e", "g", "j"]


def test_a_parameter_has_a_plain_name_and_no_cast():
    """As over PostgreSQL, but for the cast."""
    dialect = MySQLDataApiDialect(connector=None)
    compiled = sa.select(sa.bindparam("a b", 7)).compile(dialect=dialect)
    assert str(compiled) == "SELECT :a_20_b AS anon_1"


@pytest.mark.parametrize(
    ("number", "state", "kind"),
    [
        (1062, "23000", dbapi.IntegrityError),
        (1064, "42000", dbapi.ProgrammingError),
        (1406, "22001", dbapi.DataError),
        (1205, "HY000", dbapi.OperationalError),
    ],
)
def test_an_error_has_a_class_and_a_number(number, state, kind):
    """The class is that of its SQLSTATE."""
    error = make_error(database_error(number, state))
    assert type(error) is kind
    assert (error.number, error.sqlstate) == (number, state)


@pytest.mark.parametrize(
    ("number", "meaning"), [(1213, "conflict"), (1205, "conflict"), (63952, "other")]
)
def test_a_conflict_is_known_by_its_number(number, meaning):
    """Aurora's transaction timeout has the SQLSTATE of a conflict, and would be repeated for ever."""
    assert meaning_of(make_error(database_error(number, "40001"))) == meaning


def test_a_full_server_is_waited_for():
    """As with PostgreSQL."""
    assert diagnose(database_error(1040, "08004")).fault is Fault.EXHAUSTED


def test_an_error_leaves_the_transaction_open(api, clock):
    """A deadlock does not: only a rollback, or the return to a savepoint, is sent after it."""
    connection = make_connection(api, clock, backend=MYSQL)
    api.answers = [None, database_error(1062, "23000")]
    with pytest.raises(dbapi.IntegrityError):
        connection.execute("INSERT INTO t VALUES (1)", [])
    connection.execute("INSERT INTO t VALUES (2)", [])
    api.answers = [database_error(1213, "40001")]
    with pytest.raises(dbapi.OperationalError):
        connection.execute("INSERT INTO t VALUES (3)", [])
    before = len(api.calls)
    with pytest.raises(dbapi.InternalError, match="deadlock"):
        connection.execute("INSERT INTO t VALUES (4)", [])
    assert len(api.calls) == before
    connection.rollback()
    connection.execute("SELECT 1", [])
    assert api.names[-3:] == ["RollbackTransaction", "BeginTransaction", "Execute"]


@pytest.mark.parametrize("sql", ["CREATE TABLE t (a int)", "CALL p()", "/* a */ DROP TABLE t"])
def test_what_commits_by_itself_is_not_repeated(api, clock, sql):
    """Even as the first statement. Nobody knows what it did."""
    connection = make_connection(api, clock, backend=MYSQL)
    api.answers = [None, UNANSWERED]
    with pytest.raises(dbapi.InDoubt):
        connection.execute(sql, [])
    assert api.names == ["BeginTransaction", "Execute"]


def test_in_a_unit_of_work_it_is_refused(api, clock):
    """The unit could not be repeated."""
    connection = make_connection(api, clock, backend=MYSQL)
    connection.begin()
    connection.unit = UnitOfWork()
    with pytest.raises(dbapi.UnitEnded, match="CREATE may commit"):
        connection.execute("CREATE TABLE t (a int)", [])
    assert api.names == ["BeginTransaction"]


@pytest.mark.parametrize(
    ("failure", "raises"),
    [
        (None, False),
        (CallFailed("gone", code="TransactionNotFoundException", status=404), False),
        (UNANSWERED, True),
        (database_error(1, "HY000"), True),
    ],
)
def test_a_transaction_of_another_connection_is_ended(api, clock, failure, raises):
    """It is over also if the API does not know it. Otherwise it may be open, and this is asked again."""
    connection = make_connection(api, clock, backend=MYSQL)
    api.answers = [failure]
    if raises:
        with pytest.raises(dbapi.OperationalError):
            connection.end_transaction("t9")
    else:
        connection.end_transaction("t9")
    assert api.calls[0][1]["transactionId"] == "t9"
    assert connection.closed == raises
