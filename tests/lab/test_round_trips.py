"""What each callable costs on the wire is what the page of round trips says: counted, not believed."""

from __future__ import annotations

import pytest
import round_trips
from sqlalchemy import text

import lambdadb
from lambdadb.lab.context import LambdaContext
from lambdadb.operate.deadline_function import make_deadline_function


@pytest.fixture(scope="module")
def cluster():
    """A hot cluster whose wire is counted."""
    with round_trips.counting() as cluster:
        yield cluster


@pytest.mark.parametrize(
    "case", round_trips.CASES, ids=lambda case: f"{case.callable}: {case.situation}"
)
def test_a_callable_costs_what_the_page_says(case, cluster):
    """Each row of the page, counted anew."""
    cost = round_trips.counted(case, cluster)
    assert f"| `{case.callable}` | {case.situation} | {cost} |" in round_trips.PAGE.read_text()


def test_the_page_has_no_other_rows():
    """What is no longer counted is no longer claimed."""
    first = round_trips.PAGE.read_text().partition("\n\n## ")[0]
    rows = [line for line in first.splitlines() if line.startswith("| `")]
    assert len(rows) == len(round_trips.CASES)


def test_a_statement_is_prepared_once(cluster):
    """The sixth execution on a connection costs one more, unless it is first in its transaction."""
    costs = {}
    for first in (True, False):
        engine = lambdadb.create_engine(cluster.url())
        costs[first] = []
        for _ in range(9):
            with engine.begin() as connection:
                if not first:
                    connection.execute(text("SELECT 0"))
                before = cluster.round_trips
                connection.execute(text("SELECT 1"))
                costs[first].append(cluster.round_trips - before)
        engine.dispose()
    assert costs == {True: [1] * 9, False: [1, 1, 1, 1, 1, 2, 1, 1, 1]}


def test_a_deadline_function_costs_no_round_trip(cluster):
    """It is sent with BEGIN, however the transaction begins."""
    admin = lambdadb.create_engine(cluster.url())
    with admin.begin() as connection:
        connection.exec_driver_sql(make_deadline_function("lambdadb_deadline"))
        connection.exec_driver_sql("CREATE TABLE deadline_item (name text)")
    admin.dispose()
    insert = text("INSERT INTO deadline_item (name) VALUES (:name)")
    ways = {
        "text": lambda c: c.exec_driver_sql("SELECT 1"),
        "parameters": lambda c: c.execute(insert, {"name": "a"}),
        "many": lambda c: c.execute(insert, [{"name": "a"}, {"name": "b"}]),
        "stream": lambda c: c.execute(
            text("SELECT 1"), execution_options={"stream_results": True}
        ).all(),
    }
    costs = {}
    for function in (None, "lambdadb_deadline"):
        engine = lambdadb.create_engine(cluster.url(), deadline_function=function)
        with lambdadb.invocation(engine, LambdaContext(60.0)):
            engine.connect().close()
            for name, way in ways.items():
                before = cluster.round_trips
                with engine.begin() as connection:
                    way(connection)
                costs[function, name] = cluster.round_trips - before
            before = cluster.round_trips
            lambdadb.run_transaction(engine, ways["text"])
            costs[function, "run_transaction"] = cluster.round_trips - before
        engine.dispose()
    names = [*ways, "run_transaction"]
    assert [costs[None, n] for n in names] == [costs["lambdadb_deadline", n] for n in names]


def test_building_an_engine_connects_nowhere(cluster):
    """Not even a connection that says nothing."""
    before = cluster.connects
    lambdadb.create_engine(cluster.url())
    assert cluster.connects == before
