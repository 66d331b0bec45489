"""What SQLAlchemy learns of a server from our one question is what it learns from its own nine."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import text


def learnt(engine: Any) -> dict[str, Any]:
    """What a dialect knows after a first connect, less caches, modules and what is ours."""
    engine.connect().close()
    engine.dispose()
    plain = (bool, int, str, tuple, type(None))
    known = {name: value for name, value in vars(engine.dialect).items() if isinstance(value, plain)}
    for own in ("_answers", "_has_events", "statements"):
        known.pop(own, None)
    return known


@pytest.mark.parametrize(
    "setting", ["", "search_path = app, public", "standard_conforming_strings = off"]
)
@pytest.mark.parametrize("isolation_level", [None, "SERIALIZABLE", "AUTOCOMMIT"])
def test_it_learns_the_same(mode, database, admin, setting, isolation_level):
    """Version, schema, isolation level and escapes, also where the database or role has its own."""
    if setting:
        admin.execute(f"ALTER DATABASE {database.database} SET {setting}")
    keywords = {"isolation_level": isolation_level} if isolation_level else {}
    own = learnt(sqlalchemy.create_engine(database, **keywords))

    def steps():
        ours = learnt(mode.create_engine(database, **keywords))
        assert ours == own

    mode.run(steps)
    assert own.keys() >= {"server_version_info", "default_schema_name", "default_isolation_level"}


def test_its_own_methods_are_back_after_the_first_connect(mode, database):
    """A reflection or an isolation level asked for later goes to the server, not to our answers."""

    def steps():
        engine = mode.create_engine(database)
        with engine.connect() as connection:
            connection.execute(text("CREATE SCHEMA app"))
            connection.execute(text("SET search_path = app"))
            assert engine.dialect._get_default_schema_name(connection) == "app"
            connection = connection.execution_options(stream_results=True)
        engine.dispose()

    mode.run(steps)


def test_a_listener_s_own_connection_is_asked_by_sqlalchemy_itself(database):
    """A connection that a `do_connect` listener made is no psycopg connection of ours."""
    import psycopg

    import lambdadb

    engine = lambdadb.create_engine(database)

    @sqlalchemy.event.listens_for(engine, "do_connect")
    def connect(dialect, record, arguments, parameters):
        return psycopg.connect(*arguments, **parameters)

    assert learnt(engine) == learnt(sqlalchemy.create_engine(database))
