"""
pgvector's `VECTOR`, written in binary: its own SQLAlchemy type writes each vector as text.

Imported only by an engine whose function has imported `pgvector.sqlalchemy`. Nothing is done to what is
read: psycopg asks for all columns of a result in binary or for none, and does not know every type's
binary form. Converting vectors in SQL instead would change statements that others compile, such as a
view's.
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
    Let connections send values of `BinaryVector` in binary. In an array they are text: psycopg sends
    lists so.

    After DROP EXTENSION and CREATE EXTENSION the engine has to be made anew, since the type has another
    OID then.

    Args:
        info: The type, as this database knows it.
        adapters: Of the connection that exists, and of those to come.

    **Costs:** no round trip.
    """
    in_text = type("VectorDumper", (_TextDumper,), {"oid": info.oid})
    in_binary = type("BinaryVectorDumper", (_BinaryDumper,), {"oid": info.oid})
    for one in adapters:
        one.register_dumper(_Packed, in_text)
        one.register_dumper(_Packed, in_binary)  # the last one is psycopg's first choice
        one.types.add(info)  # so that psycopg knows the type of an array of them


class _Packed(bytes):
    """A vector as the server's `vector_recv` takes it."""

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
    """`VECTOR`, in statements of an engine that knows the type's OID."""

    cache_ok = True

    def bind_processor(self, dialect: Any) -> Any:  # noqa: ARG002 SQLAlchemy's
        """A value's binary form."""

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
        return Vector([float(number) for number in value])  # what pgvector's type does with each


EXACT_TYPES: dict[type[Any], type[Any]] = {VECTOR: BinaryVector}
"""A type, not its subclasses, to the one that is used in its place."""
