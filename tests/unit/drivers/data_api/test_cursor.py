"""Rows, their description, and how many statements go into one call."""

from __future__ import annotations

import pytest

from lambdadb.drivers.data_api import dbapi
from lambdadb.drivers.data_api.cursor import Cursor

ROWS = {
    "columnMetadata": [{"name": "a", "label": "", "typeName": "int4"}, {"name": "b", "label": "c"}],
    "records": [[{"longValue": n}, {"isNull": True}] for n in range(3)],
}


@pytest.fixture
def cursor(connection, api):
    connection.autocommit = True
    return Cursor(connection)


def test_rows_are_fetched_one_by_one_or_together(cursor, api):
    """And a column has its label, or its name."""
    api.answers = [ROWS]
    cursor.execute("SELECT a, b AS c")
    assert [(name, kind) for name, kind, *_ in cursor.description] == [("a", "int4"), ("c", "")]
    assert cursor.rowcount == 3
    assert cursor.fetchone() == (0, None)
    assert cursor.fetchmany() == [(1, None)]
    assert cursor.fetchall() == [(2, None)]
    assert cursor.fetchone() is None


def test_a_statement_without_rows_has_a_count(cursor, api):
    """And nothing to fetch."""
    api.answers = [{"numberOfRecordsUpdated": 2}]
    cursor.execute("DELETE FROM t")
    assert (cursor.description, cursor.rowcount) == (None, 2)
    with pytest.raises(dbapi.ProgrammingError, match="no rows"):
        cursor.fetchall()


def test_many_sets_go_in_batches_of_a_thousand(cursor, api):
    """The API says nothing of the rows."""
    cursor.executemany("INSERT INTO t VALUES (:a)", [{"a": n} for n in range(2001)])
    assert api.names == ["BatchExecute"] * 3
    assert [len(request["parameterSets"]) for _, request in api.calls] == [1000, 1000, 1]
    assert cursor.rowcount == -1


def test_large_sets_go_in_batches_that_fit_into_a_request(cursor, api):
    """4 MiB, with room for what is around them."""
    cursor.executemany("INSERT INTO t VALUES (:a)", [{"a": "x" * (1 << 20)}] * 5)
    assert [len(request["parameterSets"]) for _, request in api.calls] == [3, 2]


def test_no_sets_send_nothing(cursor, api):
    """As with other drivers."""
    cursor.executemany("INSERT INTO t VALUES (:a)", [])
    assert api.names == []


def test_a_batch_has_one_statement_with_the_casts_of_all_its_sets(cursor, api):
    """Also where the first value is NULL."""
    cursor.executemany("INSERT INTO t VALUES (:a)", [{"a": None}, {"a": float("inf")}])
    assert api.calls[0][1]["sql"] == "INSERT INTO t VALUES (CAST(:a AS float8))"
