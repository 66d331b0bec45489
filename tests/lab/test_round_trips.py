"""What a checkout costs on the wire: counted there, not believed."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from lambdadb import PerEnvironment, PerInvocation, create_engine, invocation
from lambdadb.lab.aurora import Cluster
from lambdadb.lab.postgres import Postgres

ONE = text("SELECT 1")


@pytest.fixture(scope="module")
def cluster():
    """A hot cluster with trust login, whose wire is counted."""
    with Postgres() as server, Cluster(server) as cluster:
        yield cluster


def transaction(engine):
    with invocation(engine), engine.begin() as connection:
        connection.execute(ONE)


def counted(cluster, work, *arguments):
    before = cluster.round_trips
    work(*arguments)
    return cluster.round_trips - before


def test_a_warm_invocation_costs_three_round_trips(cluster):
    """BEGIN, the statement, COMMIT: finding out that the connection is alive costs none."""
    engine = create_engine(cluster.url(), policy=PerEnvironment())
    transaction(engine)
    assert [counted(cluster, transaction, engine) for _ in range(3)] == [3, 3, 3]
    engine.dispose()


def test_a_warm_statement_in_autocommit_costs_one_round_trip(cluster):
    """Outside a transaction there is only the statement."""
    engine = create_engine(cluster.url(), isolation_level="AUTOCOMMIT")
    transaction(engine)
    assert counted(cluster, transaction, engine) == 1
    engine.dispose()


def test_a_later_invocation_connects_for_one_round_trip(cluster):
    """PerInvocation with trust login: connect 1, transaction 3; the server is asked nothing twice."""
    url = cluster.url() + "?sslmode=disable"  # asking for TLS where there is none costs one more
    engine = create_engine(url, policy=PerInvocation())
    transaction(engine)
    assert [counted(cluster, transaction, engine) for _ in range(3)] == [4, 4, 4]


def first_transaction(cluster, **keywords):
    engine = create_engine(cluster.url() + "?sslmode=disable", **keywords)
    cost = counted(cluster, transaction, engine)
    engine.dispose()
    return cost


def test_a_first_connect_and_transaction_cost_five_round_trips(cluster):
    """Trust login 1, one question instead of SQLAlchemy's nine, transaction 3."""
    assert first_transaction(cluster) == 5


def test_the_first_question_costs_one_round_trip_at_any_isolation_level(cluster):
    """It is asked outside of a transaction, so that none is begun and rolled back for it."""
    assert first_transaction(cluster, isolation_level="SERIALIZABLE") == 5
    assert first_transaction(cluster, isolation_level="AUTOCOMMIT") == 3


def test_a_ping_after_long_disuse_costs_one_round_trip(cluster):
    """`ping_after`: the only round trip that a check ever costs."""
    engine = create_engine(cluster.url(), policy=PerEnvironment(ping_after=0.0))
    transaction(engine)
    assert counted(cluster, transaction, engine) == 4
    engine.dispose()


def test_building_an_engine_costs_nothing(cluster):
    """No connection is attempted before the first checkout."""
    before = cluster.connects
    create_engine(cluster.url())
    assert cluster.connects == before
