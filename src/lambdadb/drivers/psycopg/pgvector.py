"""
pgvector's `VECTOR` columns in binary, both ways: its own SQLAlchemy type writes and reads them as text.

Imported only by an engine whose function has imported `pgvector.sqlalchemy`.
"""

from __future__ import annotations

from typing import Any

from pgvector import Vector
from pgvector.sqlalchemy import VECTOR
from psycopg.adapt import AdaptersMap, Dumper
from psycopg.pq import Format
from psycopg.types import TypeInfo
from sqlalchemy import CompoundSelect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import NullType


def speak_binary(dialect: Any, info: TypeInfo, *adapters: AdaptersMap) -> None:
    """
    Let `dialect` send vectors, and have them sent, in binary.

    A column of `pgvector.sqlalchemy.VECTOR` stays what it is, and takes and gives the values that it
    did: lists of floats, each of them the float4's exact value, as with pgvector's `register_vector`.
    Vectors in textual queries stay text, and so do `halfvec` and `sparsevec`. After DROP EXTENSION and
    CREATE EXTENSION the engine has to be made anew, since the type has another OID then.

    Args:
        info: The type, as this database knows it.
        adapters: Of the connection that exists, and of those to come.

    **Costs:** no round trip.
    """
    dumper = type("VectorDumper", (_PackedDumper,), {"oid": info.oid})
    for one in adapters:
        one.register_dumper(_Packed, dumper)
    dialect.colspecs = {**dialect.colspecs, VECTOR: BinaryVector}


class _Packed(bytes):
    """A vector as the server's `vector_recv` takes it."""

    def __repr__(self) -> str:  # in errors and in the log of statements
        return f"vector({(len(self) - 4) // 4})"


class _PackedDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Any) -> Any:
        return obj


class BinaryVector(VECTOR):
    """`VECTOR`, as an engine sends and reads it that knows the type's OID."""

    cache_ok = True

    def bind_processor(self, dialect: Any) -> Any:  # noqa: ARG002 SQLAlchemy's
        """A value's binary form."""

        def process(value: Any) -> _Packed | None:
            if value is None:
                return None
            vector = value if isinstance(value, Vector) else Vector(value)
            return _Packed(vector.to_binary())

        return process

    def column_expression(self, column: Any) -> Any:
        """The column as a result."""
        # By a function of the server, because psycopg asks for all columns of a result in binary or
        # for none, and does not know the binary form of some.
        sent = _Sent(column)
        sent.type = column.type  # which may be a decorator of this one
        return sent

    def result_processor(self, dialect: Any, coltype: Any) -> Any:
        """A list of floats, from either form."""
        from_text = super().result_processor(dialect, coltype)

        def process(value: Any) -> Any:
            return Vector.from_binary(value).to_list() if isinstance(value, bytes) else from_text(value)

        return process


class _Sent(FunctionElement[Any]):
    """A column in binary, where nobody but the client looks at the result."""

    inherit_cache = True
    type = BinaryVector()


@compiles(_Sent)
def _compile_sent(element: _Sent, compiler: Any, **keywords: Any) -> str:
    column: str = compiler.process(element.clauses, **keywords)
    selects = [entry.get("selectable") for entry in compiler.stack]
    if column.startswith("DISTINCT ") or any(_compares(s, compiler.dialect) for s in selects):
        return column
    # The schema may be in the search path no longer; a column may have become a halfvec.
    schema = compiler.dialect.vector_schema
    return f"{schema}.vector_send(({column})::{schema}.vector)"


def _compares(query: Any, dialect: Any) -> bool:
    """Whether the server compares results of a query with each other: as vectors, not as bytes."""
    if getattr(query, "_distinct", False) or isinstance(query, CompoundSelect):
        return True
    # By a label it is the result that is ordered by; of a label in a string, the type is not known.
    by = (*getattr(query, "_order_by_clauses", ()), *getattr(query, "_group_by_clauses", ()))
    return any(isinstance(c.type.dialect_impl(dialect), (BinaryVector, NullType)) for c in by)
