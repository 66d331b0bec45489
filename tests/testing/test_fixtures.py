"""The fixtures of the plugin, used as anybody's tests use them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

import lambdadb
from lambdadb.lab import LabError
from lambdadb.lab.environment import FunctionTimeout
from lambdadb.testing import LambdaContext

COUNT = text("SELECT count(*) FROM item")
INSERT = text("INSERT INTO item (name) VALUES ('a') RETURNING id")


@pytest.fixture(scope="session")
def postgres_schema():
    """Override the schema, as a user does."""

    def create(url: str) -> None:
        with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute("CREATE TABLE item (id serial PRIMARY KEY, name text)")

    return create


@pytest.fixture
def engine(aurora_cluster):
    engine = lambdadb.create_engine(aurora_cluster.url, policy=lambdadb.PerInvocation(), tag="orders")
    yield engine
    engine.dispose()


def test_a_cold_cluster_begins_paused_and_a_connect_wakes_it(aurora_cluster, engine):
    """As after a night without a request."""
    assert aurora_cluster.is_paused
    with lambdadb.invocation(engine), engine.connect() as connection:
        assert connection.execute(COUNT).scalar_one() == 0
    assert not aurora_cluster.is_paused
    assert aurora_cluster.resumes == 1


def test_a_pause_loses_the_values_that_a_sequence_had_reserved(aurora_cluster, engine):
    """Ids step by 33 across a pause, as published ones do; and 300 s pass in a moment."""
    ids = []
    for _ in range(2):
        with lambdadb.invocation(engine), engine.begin() as connection:
            ids.append(connection.execute(INSERT).scalar_one())
        assert aurora_cluster.awake_because() == []
        aurora_cluster.pause()
    assert ids == [1, 34]


def test_an_open_connection_keeps_it_awake_and_is_named(aurora_cluster, engine):
    """A test sees that its function does not let the cluster pause."""
    with engine.connect() as connection:
        connection.execute(COUNT)
        with pytest.raises(
            AssertionError, match=r"a connection of orders, idle for \d+ s.*PerInvocation"
        ):
            aurora_cluster.pause()
    assert not aurora_cluster.is_paused


def test_the_next_resume_is_as_the_test_says(aurora_cluster, engine):
    """A function sees the errors of a resume, and the time that it takes."""
    aurora_cluster.resume(shape="starting", seconds=0.4)
    with engine.connect() as connection:
        connection.execute(COUNT)
    assert aurora_cluster.connects > 1
    with pytest.raises(LabError, match="hold, refuse"):
        aurora_cluster.resume(shape="sleepy")


@pytest.mark.parametrize("aurora_cluster", ["hot"], indirect=True)
def test_a_hot_cluster_never_pauses(aurora_cluster, engine):
    """The same test can run on both kinds."""
    with lambdadb.invocation(engine), engine.connect() as connection:
        connection.execute(COUNT)
    assert aurora_cluster.resumes == 0
    with pytest.raises(LabError, match="hot cluster never pauses"):
        aurora_cluster.pause()


def test_a_paused_server_has_no_sessions_and_answers_no_query(aurora_cluster, postgres, sessions):
    """The server's view works while there is no server; a query past the cluster says why it fails."""
    assert sessions() == []
    with pytest.raises(LabError, match="paused"):
        postgres.query("SELECT 1")


def test_the_url_is_in_a_variable(postgres, request):
    """A handler's module finds the test's database, and its cluster once there is one."""
    assert os.environ["DATABASE_URL"] == postgres.url
    cluster = request.getfixturevalue("aurora_cluster")
    assert os.environ["DATABASE_URL"] == cluster.url != postgres.url


def test_a_session_that_is_left_fails_the_test_and_is_named(postgres, sessions, assert_no_sessions_left):
    """It says what to do."""
    assert_no_sessions_left()
    engine = lambdadb.create_engine(postgres.url, tag="orders")
    engine.connect().close()  # PerEnvironment keeps the connection
    assert [session.application_name for session in sessions.become(1)] == ["orders"]
    with pytest.raises(pytest.fail.Exception, match=r"orders.*PerInvocation"):
        assert_no_sessions_left(seconds=0.1)
    engine.dispose()
    assert_no_sessions_left()


def test_the_context_is_lambdas_and_its_time_stands_still(lambda_context):
    """Thirty seconds are left until the test says otherwise."""
    assert isinstance(lambda_context, LambdaContext)
    assert lambda_context.get_remaining_time_in_millis() == 30_000
    lambda_context.seconds_left -= 27.5
    assert lambda_context.get_remaining_time_in_millis() == 2_500
    lambda_context.seconds_left = -1
    assert lambda_context.get_remaining_time_in_millis() == 0


def test_a_function_runs_in_this_process_with_the_context(invoke, lambda_context):
    """A breakpoint in it stops."""
    assert invoke(lambda event, context: (event, context), 7) == (7, lambda_context)


def test_a_named_handler_runs_in_an_environment(
    postgres, invoke, lambda_context, assert_no_sessions_left, monkeypatch
):
    """Cold, then warm; with the variables of the test, the function's name, and frozen in between."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setenv("COLOUR", "green")
    lambda_context.function_name = "shop"
    expected = {"tag": "shop", "colour": "green"}
    assert invoke("function.lambda_handler", {}) == {"count": 1, **expected}
    assert invoke("function.lambda_handler", {}) == {"count": 2, **expected}
    assert invoke.environments["function.lambda_handler"].frozen
    assert_no_sessions_left()
    lambda_context.seconds_left = 0.2
    with pytest.raises(FunctionTimeout, match=r"timed out after 0\.20 seconds"):
        invoke("function.lambda_handler", {"sleep": 30})


def test_a_named_handler_can_run_in_this_process(
    postgres, invoke, lambda_context, sessions, monkeypatch
):
    """Its modules are imported anew in each test, with its database; its engines are closed."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    assert invoke("function.lambda_handler", {}, in_process=True)["count"] == 1
    assert invoke("function.lambda_handler", {}, in_process=True)["count"] == 2
    module = sys.modules["function"]
    module.engine.connect().close()
    invoke.close()
    assert "function" not in sys.modules
    sessions.become(0)
    assert invoke("function.lambda_handler", {}, in_process=True)["count"] == 1
