"""pgvector's columns hold and give the same values in binary as in text, wherever they stand."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy
import pytest
import sqlalchemy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pgvector import Vector
from pgvector.sqlalchemy import VECTOR
from sqlalchemy import Column, Integer, MetaData, Table, bindparam, func, insert, select, text, union
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import lambdadb

metadata = MetaData()
documents = Table("document", metadata, Column("id", Integer, primary_key=True), Column("e", VECTOR(3)))


class Base(DeclarativeBase):
    pass


class Document(Base):
    __tablename__ = "document"
    id: Mapped[int] = mapped_column(primary_key=True)
    e: Mapped[Any] = mapped_column(VECTOR(3))


def single(values: list[float]) -> list[float]:
    """The numbers as single precision holds them."""
    return list(struct.unpack(f"{len(values)}f", struct.pack(f"{len(values)}f", *values)))


@pytest.fixture
def table(database):
    """A database with a table of vectors, made by plain SQLAlchemy."""
    engine = sqlalchemy.create_engine(database)
    metadata.create_all(engine)
    engine.dispose()
    return database


def as_text(engine: Any) -> Any:
    """What the server itself shows of the newest vector."""
    with engine.connect() as connection:
        return connection.execute(text("SELECT e::text FROM document ORDER BY id DESC LIMIT 1")).scalar()


@pytest.mark.parametrize(
    "value", [[1.0, 2.5, -3.0], Vector([1.0, 2.5, -3.0]), numpy.array([1.0, 2.5, -3.0]), None]
)
def test_what_pgvector_takes_is_stored_and_read_back(road, table, value):
    """Lists, pgvector's Vector, arrays and NULL, as with pgvector's own type."""

    def steps():
        engine = road.create_engine(table)
        with engine.begin() as connection:
            connection.execute(insert(documents).values(e=value))
            read = connection.execute(select(documents.c.e)).scalar()
        assert read == (None if value is None else [1.0, 2.5, -3.0])
        assert as_text(engine) == (None if value is None else "[1,2.5,-3]")
        engine.dispose()

    road.run(steps)


@pytest.fixture(scope="module")
def engines(server, admin):
    """Ours and SQLAlchemy's own on one table, for many examples."""
    admin.execute("DROP DATABASE IF EXISTS vectors")
    admin.execute("CREATE DATABASE vectors")
    url = server.set(database="vectors")
    own, ours = sqlalchemy.create_engine(url), lambdadb.create_engine(url)
    with own.begin() as connection:
        connection.execute(text("CREATE EXTENSION vector"))
    metadata.create_all(own)
    yield own, ours
    own.dispose()
    ours.dispose()
    admin.execute("DROP DATABASE vectors WITH (FORCE)")


float4 = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(float4, min_size=3, max_size=3))
def test_both_forms_store_and_give_the_same_numbers(engines, values):
    """Written by either engine and read by either, a vector has the same single-precision numbers."""
    for writer in engines:
        with writer.begin() as connection:
            number = connection.execute(insert(documents).values(e=values)).inserted_primary_key[0]
        for reader in engines:
            with reader.connect() as connection:
                found = connection.execute(
                    select(documents.c.e).where(documents.c.id == number)
                ).scalar()
            assert single(found) == values


def test_reading_changes_no_statement(engines):
    """A query of a vector column is the same text on either engine."""
    own, ours = engines
    ours.connect().close()  # it learns of the type with its first connect
    query = select(documents.c.e)
    assert str(query.compile(ours)) == str(query.compile(own))


def test_a_nearest_neighbour_search_takes_the_vector(road, table):
    """In an operator, as a bound parameter, ordered by and labelled."""

    def steps():
        engine = road.create_engine(table)
        with engine.begin() as connection:
            rows = [{"e": [float(n), 0.0, 0.0]} for n in range(5)]
            connection.execute(insert(documents), rows)
            near = documents.c.e.l2_distance([2.2, 0.0, 0.0])
            query = select(documents.c.e.label("found"), near).order_by(near).limit(2)
            found = connection.execute(query).all()
        assert [row.found[0] for row in found] == [2.0, 3.0]
        assert math.isclose(found[0][1], 0.2, rel_tol=1e-5)
        engine.dispose()

    road.run(steps)


def test_the_orm_and_returning_read_it(table):
    """An object refreshed from the server, and RETURNING of many rows at once."""
    engine = lambdadb.create_engine(table)
    with Session(engine) as session, session.begin():
        document = Document(e=[1.0, 2.0, 3.0])
        session.add(document)
        session.flush()
        session.refresh(document)
        assert document.e == [1.0, 2.0, 3.0]
        returned = session.scalars(
            insert(Document).returning(Document.e), [{"e": [n, n, n]} for n in (4.0, 5.0)]
        ).all()
        assert sorted(returned) == [[4.0] * 3, [5.0] * 3]
        assert session.scalars(select(Document.e).distinct().order_by(Document.e)).first() == [1, 2, 3]
        assert len(session.scalars(union(select(Document.e), select(Document.e))).all()) == 3
    engine.dispose()


def test_textual_queries_stay_text(table):
    """What was written for pgvector's text form goes on working, both ways."""
    engine = lambdadb.create_engine(table)
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO document (e) VALUES (CAST(:e AS vector))"), {"e": "[1,2,3]"}
        )
        assert connection.execute(text("SELECT e FROM document")).scalar() == "[1,2,3]"
        typed = text("SELECT :e AS e").bindparams(bindparam("e", type_=VECTOR(3)))
        assert connection.execute(typed, {"e": [1.0, 2.0, 3.0]}).scalar() == "[1,2,3]"
        read = text("SELECT e FROM document").columns(e=VECTOR(3))
        assert connection.execute(read).scalar() == [1.0, 2.0, 3.0]
    engine.dispose()


def test_an_extension_created_while_warm_is_used_as_text(server, admin, database):
    """An engine that connected before `CREATE EXTENSION` stores and reads vectors all the same."""
    admin.execute(f"DROP DATABASE {database.database} WITH (FORCE)")
    admin.execute(f"CREATE DATABASE {database.database}")
    engine = lambdadb.create_engine(database)
    with engine.begin() as connection:
        connection.execute(text("CREATE EXTENSION vector"))
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(insert(documents).values(e=[1.0, 2.0, 3.0]))
        assert connection.execute(select(documents.c.e)).scalar() == [1.0, 2.0, 3.0]
        assert connection.execute(select(func.count()).select_from(documents)).scalar() == 1
    engine.dispose()


def test_an_extension_in_a_schema_of_its_own_is_found_by_the_search_path(table, admin):
    """Types and functions are looked up where the session finds them."""
    engine = sqlalchemy.create_engine(table)
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA extensions"))
        connection.execute(text("ALTER EXTENSION vector SET SCHEMA extensions"))
    engine.dispose()
    admin.execute(f"ALTER DATABASE {table.database} SET search_path = public, extensions")
    engine = lambdadb.create_engine(table)
    with engine.begin() as connection:
        connection.execute(insert(documents).values(e=[1.0, 2.0, 3.0]))
        assert connection.execute(select(documents.c.e)).scalar() == [1.0, 2.0, 3.0]
    engine.dispose()


@pytest.mark.parametrize("value", ["[1,2,3]", (1.0, 2.0, 3.0), ["a", "b", "c"]])
def test_what_is_no_vector_is_refused_before_it_is_sent(table, value):
    """The same refusal as from pgvector's own type: no half-understood value reaches the table."""
    engine = lambdadb.create_engine(table)
    with engine.begin() as connection, pytest.raises((sqlalchemy.exc.StatementError, ValueError)):
        connection.execute(insert(documents).values(e=value))
    engine.dispose()


class Doubled(sqlalchemy.TypeDecorator):
    """A decorator of the user's own."""

    impl = VECTOR(3)
    cache_ok = True

    def process_bind_param(self, value, dialect):
        return [2.0 * number for number in value]

    def process_result_value(self, value, dialect):
        return tuple(number / 2.0 for number in value)


def test_a_decorator_of_the_type_is_used_both_ways(table):
    """What it makes of a value is made of it in binary too."""
    doubled = Table(
        "document", MetaData(), Column("id", Integer, primary_key=True), Column("e", Doubled)
    )
    engine = lambdadb.create_engine(table)
    with engine.begin() as connection:
        connection.execute(insert(doubled).values(e=[1.0, 2.0, 3.0]))
        assert connection.execute(select(doubled.c.e)).scalar() == (1.0, 2.0, 3.0)
        assert connection.execute(select(doubled.c.e).distinct()).scalar() == (1.0, 2.0, 3.0)
        assert connection.execute(text("SELECT e FROM document")).scalar() == "[2,4,6]"
    engine.dispose()


@pytest.mark.parametrize(
    "change", ["SET LOCAL search_path TO tenant", "ALTER TABLE document ALTER e TYPE halfvec(3)"]
)
def test_a_read_does_not_depend_on_search_path_or_exact_type(table, change):
    """The function that sends it is named with its schema, and given what it takes."""
    engine = lambdadb.create_engine(table)
    qualified = Table("document", MetaData(), Column("e", VECTOR(3)), schema="public")
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA tenant"))
        connection.execute(insert(documents).values(e=[1.0, 2.0, 3.0]))
        connection.execute(text(change))
        assert connection.execute(select(qualified.c.e)).scalar() == [1.0, 2.0, 3.0]
    engine.dispose()


def test_an_older_pgvector_stays_as_it_is(table, monkeypatch):
    """Before version 0.5 it gives other values than lists, and has other names: it is left alone."""
    monkeypatch.delattr("pgvector.Vector")
    engine = lambdadb.create_engine(table)
    with engine.begin() as connection:
        connection.execute(insert(documents).values(e=[1.0, 2.0, 3.0]))
        assert connection.execute(select(documents.c.e)).scalar() == [1.0, 2.0, 3.0]
    assert "vector_send" not in str(select(documents.c.e).compile(engine))
    engine.dispose()
