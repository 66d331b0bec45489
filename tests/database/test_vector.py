"""pgvector's columns hold and give the values that they do on an engine of SQLAlchemy."""

from __future__ import annotations

import math
import os
import struct
import sys
from typing import Any

import numpy
import pytest
import sqlalchemy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pgvector import Vector
from pgvector.sqlalchemy import VECTOR
from sqlalchemy import (
    ARRAY,
    Column,
    Integer,
    MetaData,
    Table,
    bindparam,
    case,
    cast,
    delete,
    func,
    insert,
    literal,
    literal_column,
    select,
    text,
    type_coerce,
    union,
    union_all,
    update,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import lambdadb
import lambdadb.drivers.psycopg

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
def test_what_pgvector_takes_is_stored_and_read_back(mode, table, value):
    """Lists, pgvector's Vector, arrays and NULL, as with pgvector's own type."""

    def steps():
        engine = mode.create_engine(table)
        with engine.begin() as connection:
            connection.execute(insert(documents).values(e=value))
            read = connection.execute(select(documents.c.e)).scalar()
        assert read == (None if value is None else [1.0, 2.5, -3.0])
        assert as_text(engine) == (None if value is None else "[1,2.5,-3]")
        engine.dispose()

    mode.run(steps)


@pytest.fixture(scope="module")
def engines(server, admin):
    """SQLAlchemy's own and ours on one table, for many examples."""
    name = f"vectors_{os.getpid()}"
    admin.execute(f"CREATE DATABASE {name}")
    url = server.set(database=name)
    own, ours = sqlalchemy.create_engine(url), lambdadb.create_engine(url)
    with own.begin() as connection:
        connection.execute(text("CREATE EXTENSION vector"))
    metadata.create_all(own)
    with own.begin() as connection:
        connection.execute(text("CREATE TABLE arrays (id serial PRIMARY KEY, v vector(3)[])"))
        connection.execute(text("CREATE TABLE copied (id serial PRIMARY KEY, e vector(3))"))
        connection.execute(insert(documents), [{"e": [n, 2.0, 3.0]} for n in (1.0, 1.0, 5.0)])
        connection.execute(insert(documents).values(e=None))
    ours.connect().close()  # it learns of the type with its first connect
    yield own, ours
    own.dispose()
    ours.dispose()
    admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


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
        with writer.begin() as connection:  # other tests add the vectors of this table
            connection.execute(delete(documents).where(documents.c.id == number))


# Expressions of the type, of which statements are made

TYPE = VECTOR(3)
copied = Table("copied", MetaData(), Column("id", Integer, primary_key=True), Column("e", VECTOR(3)))
arrays = Table(
    "arrays",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("v", ARRAY(VECTOR(3), dimensions=1)),
)

values = st.lists(st.integers(-9, 9).map(float), min_size=3, max_size=3)


def combined(inner):
    """What can be made of expressions of the type."""
    return st.one_of(
        inner.map(lambda e: cast(e, VECTOR(3))),
        inner.map(lambda e: type_coerce(e, VECTOR(3))),
        inner.map(lambda e: func.coalesce(e, literal([0.0, 0.0, 0.0], TYPE), type_=TYPE)),
        inner.map(lambda e: func.l2_normalize(e, type_=TYPE)),
        inner.map(lambda e: select(e.label("inner")).limit(1).scalar_subquery()),
        inner.map(lambda e: case((documents.c.id > 2, e), else_=documents.c.e)),
        st.tuples(inner, inner).map(lambda pair: cast(pair[0], TYPE).op("+", return_type=TYPE)(pair[1])),
    )


expressions = st.recursive(
    st.one_of(
        st.just(documents.c.e),
        values.map(lambda value: cast(bindparam(None, value, type_=TYPE), TYPE)),
        values.map(lambda value: cast(literal(value, TYPE), TYPE)),
        values.map(lambda value: cast(literal_column(f"'{value}'"), TYPE)),
    ),
    combined,
    max_leaves=4,
)


def by_distance(expression):
    near = documents.c.e.l2_distance([1.0, 1.0, 1.0])
    return select(expression.label("e"), near).order_by(near, documents.c.id).limit(2)


def as_cte(expression):
    found = select(documents.c.id, expression.label("e")).cte("found")
    return select(found.c.e, func.cosine_distance(found.c.e, found.c.e)).order_by(found.c.id)


def inserted_from(expression):
    rows = select(expression.label("e")).select_from(documents)
    return insert(copied).from_select(["e"], rows).returning(copied.c.e)


STATEMENTS = {
    "select": lambda e: select(documents.c.id, e.label("e")).order_by(documents.c.id),
    "alias": lambda e: select(select(documents.c.id, e.label("e")).subquery().alias("a").c.e),
    "cte": as_cte,
    "distinct": lambda e: select(e.label("e")).select_from(documents).distinct().order_by("e"),
    "grouped": lambda e: select(documents.c.e, func.count()).group_by(documents.c.e).order_by("e"),
    "union": lambda e: union(select(documents.c.e), select(e.label("e")).select_from(documents)),
    "union all": lambda e: union_all(select(documents.c.e), select(cast(e, TYPE))),
    "distance": by_distance,
    "where": lambda e: select(documents.c.e).where(documents.c.e == e).order_by(documents.c.id),
    "function": lambda e: select(
        func.l2_distance(e, literal([1.0, 2.0, 3.0], TYPE)), func.vector_dims(e)
    ).select_from(documents),
    "aggregate": lambda e: select(func.avg(e, type_=TYPE)).select_from(documents),
    "returning": lambda e: update(documents).values(e=documents.c.e).returning(documents.c.e),
    "insert from select": inserted_from,
    "array": lambda e: select(func.array_length(func.array_agg(e), 1)).select_from(documents),
}


@pytest.mark.parametrize("kind", STATEMENTS)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(expression=expressions)
def test_statements_and_results_are_those_of_a_plain_engine(kind, engines, expression):
    """Whatever the expression and where it stands: the same SQL, and the same values."""
    statement = STATEMENTS[kind](expression)
    compiled, results = [], []
    for engine in engines:
        compiled.append(str(statement.compile(engine)))
        with engine.connect() as connection:
            rows = [tuple(row) for row in connection.execute(statement)]
            results.append(sorted(map(repr, rows)) if kind == "union" else repr(rows))
    assert compiled[0] == compiled[1]
    assert results[0] == results[1]


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(vectors=st.lists(st.one_of(values, values.map(Vector), values.map(numpy.array)), max_size=3))
def test_an_array_of_vectors_is_written_as_by_a_plain_engine(engines, vectors):
    """Lists of lists, of pgvector's Vector and of arrays, and the empty list."""
    shown = []
    for engine in engines:
        with engine.connect() as connection:
            connection.execute(insert(arrays).values(v=vectors))
            newest = "SELECT v::text FROM arrays ORDER BY id DESC LIMIT 1"
            shown.append(connection.scalar(text(newest)))
    assert shown[0] == shown[1]


def test_what_is_made_of_a_query_has_vector_columns(engines):
    """Tables and views, by a query's text or by SQLAlchemy's own constructs."""
    _, ours = engines
    query = select(documents.c.id, documents.c.e)
    made = {"TABLE": "made", "VIEW": "seen", "MATERIALIZED VIEW": "kept"}
    with ours.connect() as connection:
        as_text = query.compile(ours, compile_kwargs={"literal_binds": True})
        for kind, name in made.items():  # as sqlalchemy-utils does
            connection.execute(text(f"CREATE {kind} {name} AS {as_text}"))
        if hasattr(sqlalchemy, "CreateTableAs"):  # SQLAlchemy 2.1
            connection.execute(sqlalchemy.CreateTableAs(query, "made_too"))
            connection.execute(sqlalchemy.CreateView(query, "seen_too"))
            made.update(table="made_too", view="seen_too")
        for name in made.values():
            kind = text(
                "SELECT format_type(atttypid, atttypmod) FROM pg_attribute "
                "WHERE attrelid = CAST(:name AS regclass) AND attname = 'e'"
            )
            assert connection.scalar(kind, {"name": name}) == "vector(3)"


class OwnVector(VECTOR):
    """A subclass with a processor of its own."""

    cache_ok = True

    def bind_processor(self, dialect):
        return lambda value: "[7,7,7]"


def test_a_subclass_of_the_type_stays_what_it_is(table):
    """Only where the type is exactly `VECTOR` is another one used in its place."""
    own = Table(
        "document", MetaData(), Column("id", Integer, primary_key=True), Column("e", OwnVector(3))
    )
    engine = lambdadb.create_engine(table)
    with engine.begin() as connection:
        connection.execute(insert(own).values(e=[1.0, 2.0, 3.0]))
        assert connection.execute(select(own.c.e)).scalar() == [7.0, 7.0, 7.0]
    engine.dispose()


@pytest.mark.parametrize("value", [["1", "2.5", "3"], [1, True, 3], [numpy.float32(1.5)] * 3])
def test_a_list_of_what_is_nearly_a_float_is_written(table, value):
    """As pgvector's type does, which calls `float()`."""
    shown = []
    for create_engine in (sqlalchemy.create_engine, lambdadb.create_engine):
        engine = create_engine(table)
        with engine.begin() as connection:
            connection.execute(insert(documents).values(e=value))
        shown.append(as_text(engine))
        engine.dispose()
    assert shown[0] == shown[1]


def test_vectors_are_sent_in_binary(table):
    """As a parameter of the type itself."""
    engine = lambdadb.create_engine(table)
    with engine.connect() as connection:
        typed = select(
            func.pg_typeof(bindparam("e", [1.0, 2.0, 3.0], type_=VECTOR(3))).cast(sqlalchemy.Text)
        )
        assert connection.scalar(typed) == "vector"
    engine.dispose()


def test_a_nearest_neighbour_search_takes_the_vector(mode, table):
    """In an operator, as a bound parameter, ordered by and labelled."""

    def steps():
        engine = mode.create_engine(table)
        with engine.begin() as connection:
            rows = [{"e": [float(n), 0.0, 0.0]} for n in range(5)]
            connection.execute(insert(documents), rows)
            near = documents.c.e.l2_distance([2.2, 0.0, 0.0])
            query = select(documents.c.e.label("found"), near).order_by(near).limit(2)
            found = connection.execute(query).all()
        assert [row.found[0] for row in found] == [2.0, 3.0]
        assert math.isclose(found[0][1], 0.2, rel_tol=1e-5)
        engine.dispose()

    mode.run(steps)


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
    """What is read is text, whatever the column has become."""
    engine = lambdadb.create_engine(table)
    qualified = Table("document", MetaData(), Column("e", VECTOR(3)), schema="public")
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA tenant"))
        connection.execute(insert(documents).values(e=[1.0, 2.0, 3.0]))
        connection.execute(text(change))
        assert connection.execute(select(qualified.c.e)).scalar() == [1.0, 2.0, 3.0]
    engine.dispose()


def test_an_older_pgvector_stays_as_it_is(table, monkeypatch):
    """Before version 0.4 it has other names: its type goes on writing text."""
    monkeypatch.delitem(sys.modules, "lambdadb.drivers.psycopg.pgvector", raising=False)
    monkeypatch.delattr(lambdadb.drivers.psycopg, "pgvector", raising=False)
    monkeypatch.delattr("pgvector.Vector")
    engine = lambdadb.create_engine(table)
    with engine.begin() as connection:
        connection.execute(insert(documents).values(e=[1.0, 2.0, 3.0]))
        assert connection.execute(select(documents.c.e)).scalar() == [1.0, 2.0, 3.0]
    assert type(engine.dialect.type_descriptor(VECTOR(3))) is VECTOR
    engine.dispose()
