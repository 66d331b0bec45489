"""proxy_check=True names the statements that would pin a client of RDS Proxy."""

from __future__ import annotations

import pytest
from sqlalchemy import Column, Integer, MetaData, Sequence, Table, insert, text

import lambdadb
from lambdadb import InvalidSettings


def pins(caplog):
    return [record.getMessage() for record in caplog.records if "pins a client" in record.getMessage()]


def test_a_pinning_statement_is_logged_with_its_line_once(mode, database, caplog):
    """The warning names function, file and line, the reason and the remedy, and no literal."""
    engine = mode.create_engine(database, proxy_check=True)

    def steps():
        with engine.connect() as connection:
            for _ in range(3):
                connection.execute(text("SET statement_timeout = '77s'"))
            connection.execute(text("SELECT 1"))
        engine.dispose()

    mode.run(steps)
    (warning,) = pins(caplog)
    assert warning.startswith("steps (test_proxy_check.py:")
    assert "SET LOCAL" in warning
    assert "77s" not in warning


def test_a_sequence_and_a_server_side_cursor_of_sqlalchemy_are_found(database, caplog):
    """They pin although no statement of the user's says so."""
    engine = lambdadb.create_engine(database, proxy_check=True)
    order = Table("o", MetaData(), Column("id", Integer, Sequence("o_id"), primary_key=True))
    with engine.connect() as connection:
        order.metadata.create_all(connection)
        connection.execute(insert(order))
        streamed = connection.execution_options(yield_per=10)
        streamed.execute(text("SELECT 1")).all()
        connection.rollback()
    engine.dispose()
    found = " ".join(pins(caplog))
    assert "nextval()" in found
    assert "DECLARE CURSOR" in found


def test_without_it_nothing_is_logged(engine, caplog):
    """Other engines are not slower, and say nothing."""
    with engine.connect() as connection:
        connection.execute(text("SET statement_timeout = 1000"))
    assert pins(caplog) == []


def test_another_value_is_refused():
    """True or False."""
    with pytest.raises(InvalidSettings, match="proxy_check='yes'"):
        lambdadb.create_engine("postgresql+psycopg://h/d", proxy_check="yes")
