"""An engine of PyMySQL that somebody else made, attached to one of lambdadb's."""

from __future__ import annotations

import pytest
import sqlalchemy
from sqlalchemy import make_url, text

import lambdadb
from lambdadb import ConnectFailed, InvalidSettings, OutOfTime
from lambdadb.attach import attach
from lambdadb.lab.context import LambdaContext


class Store:
    def __init__(self, **login):
        self._login = login

    def logins(self, parameters):
        yield self._login


@pytest.fixture
def bare(server):
    """The URL without its password."""
    url = make_url(server.url)
    return url._replace(password=None), str(url.password)


def test_it_gets_the_login_and_the_tag(server, bare):
    """Its session is set up as lambdadb's, and its statements end with the invocation."""
    url, password = bare
    ours = lambdadb.create_engine(url, credentials=Store(password=password), tag="orders")
    engine = sqlalchemy.create_engine(url)
    attach(engine, ours)
    with engine.begin() as connection:
        connection.execute(server.insert, {"name": "a"})
        assert server.sessions() == ["orders"]
        assert connection.execute(text("SELECT @@wait_timeout > 3600")).scalar_one() == 1
    assert server.rows() == ["a"]
    sleep = text("SELECT SLEEP(60)")
    late = lambdadb.invocation(ours, LambdaContext(1.5))
    with engine.connect() as connection, late, pytest.raises(OutOfTime):
        connection.execute(sleep)
    engine.dispose()


def test_a_login_for_another_user_is_not_sent_and_another_place_is_refused(bare):
    """Both say in what they differ."""
    url, password = bare
    store = Store(user="owner", password=password)
    engine = sqlalchemy.create_engine(url)
    attach(engine, lambdadb.create_engine(url, credentials=store))
    with pytest.raises(ConnectFailed, match="for the user 'owner'"):
        engine.connect()
    ours = lambdadb.create_engine(url, credentials=store)
    with pytest.raises(InvalidSettings, match="its port is '1'"):
        attach(sqlalchemy.create_engine(url.set(port=1)), ours)
    with pytest.raises(InvalidSettings, match=r"an engine for mysql\+pymysql cannot"):
        attach(engine, lambdadb.create_engine("postgresql+psycopg://app@127.0.0.1/orders"))
