"""
Write values of pgvector's `VECTOR` in binary. pgvector's own SQLAlchemy type writes text.

An engine imports this module only if the function has imported `pgvector.sqlalchemy`. Reading is not
changed: psycopg requests all columns of a result in binary or none, and does not know the binary format
of every type. Converting vectors in SQL instead would change the compiled statements, such as a view's.
"""

from __future__ import annotations

from typing import Any

from pgvector import Vector
from pgvector.sqlalchemy import VECTOR
from psycopg.adapt import AdaptersMap, Dumper
from psycopg.pq import Format
from psycopg.types import TypeInfo


def send_binary(info: TypeInfo, *adapters: AdaptersMap) -> None:
    """
    Let connections send values of `BinaryVector` in binary. psycopg sends lists as text, and so the
    vectors in an array too.

    After DROP EXTENSION and CREATE EXTENSION the type has another OID, and a new engine is needed.

    Args:
        info: The type in this database.
        adapters: Those of the open connection, and those of later connections.

    **Costs:** no round trip.
    """
    in_text = type("VectorDumper", (_TextDumper,), {"oid": info.oid})
    in_binary = type("BinaryVectorDumper", (_BinaryDumper,), {"oid": info.oid})
    for one in adapters:
        one.register_dumper(_Packed, in_text)
        one.register_dumper(_Packed, in_binary)  # psycopg prefers the last one
        one.types.add(info)  # psycopg needs it for arrays of the type


class _Packed(bytes):
    """A vector in the binary format of the server's `vector_recv`."""

    def __repr__(self) -> str:  # in errors and in the log of statements
        return f"vector({(len(self) - 4) // 4})"


class _TextDumper(Dumper):
    format = Format.TEXT

    def dump(self, obj: Any) -> Any:
        return Vector.from_binary(obj).to_text().encode()


class _BinaryDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Any) -> Any:
        return obj


class BinaryVector(VECTOR):
    """Replaces `VECTOR` in statements of an engine that knows the type's OID."""

    cache_ok = True

    def bind_processor(self, dialect: Any) -> Any:  # noqa: ARG002 SQLAlchemy's
        """Return the function that converts a value to binary."""

        def process(value: Any) -> _Packed | None:
            return None if value is None else _Packed(_to_vector(value).to_binary())

        return process


def _to_vector(value: Any) -> Vector:
    if isinstance(value, Vector):
        return value
    try:
        return Vector(value)
    except ValueError:
        if not isinstance(value, list):
            raise
        return Vector([float(number) for number in value])  # as pgvector's type does


EXACT_TYPES: dict[type[Any], type[Any]] = {VECTOR: BinaryVector}
"""Types of pgvector, not their subclasses, and the types that replace them."""
