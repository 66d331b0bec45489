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


def send_binary(dialect: Any, info: TypeInfo, *adapters: AdaptersMap) -> None:
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
