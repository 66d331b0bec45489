"""The fixtures on a real MariaDB; skipped where it is not installed, and `nox -s mysql` fails there."""

from __future__ import annotations

import pytest
from sqlalchemy import text

import lambdadb
from lambdadb.lab import LabError
from lambdadb.lab.mariadb import find_server
from lambdadb.testing.mysql import run

pytest.importorskip("pymysql", reason="needs the extra mysql")
pytestmark = pytest.mark.sweep  # nox -s mysql runs it, too


@pytest.fixture(scope="session")
def mariadb_server(request):
    try:
        find_server()
    except LabError as error:
        pytest.skip(str(error))
    from lambdadb.lab.mariadb import MariaDB
    from lambdadb.testing.mysql import SETTINGS

    with MariaDB(settings=SETTINGS) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_schema():
    return lambda url: run(url, "CREATE TABLE item (id INT AUTO_INCREMENT PRIMARY KEY, name TEXT)")


@pytest.mark.parametrize("again", [False, True])
def test_each_test_has_a_database_of_its_own(mariadb, again):
    """With its tables, and without the rows of another test."""
    assert mariadb.query("SELECT * FROM item") == []
    mariadb.query("INSERT INTO item (name) VALUES (%s)", "a")


def test_the_cluster_pauses_and_sessions_are_seen(
    aurora_mysql_cluster, mariadb, sessions, assert_no_sessions_left
):
    """As Aurora MySQL: a connect wakes it, an open connection keeps it awake, and is named."""
    assert aurora_mysql_cluster.is_paused
    assert sessions() == []
    policy = lambdadb.PerInvocation()
    engine = lambdadb.create_engine(aurora_mysql_cluster.url, policy=policy, tag="orders")
    with lambdadb.invocation(engine), engine.begin() as connection:
        connection.execute(text("INSERT INTO item (name) VALUES ('a')"))
        assert [session.application_name for session in sessions.become(1)] == ["orders"]
        assert aurora_mysql_cluster.awake_because()
    assert_no_sessions_left()
    assert mariadb.query("SELECT name FROM item") == [("a",)]
    aurora_mysql_cluster.pause()
    with pytest.raises(LabError, match="paused"):
        mariadb.query("SELECT 1")
