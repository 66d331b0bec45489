"""
pgvector's types over the Data API: text in both directions, with a cast.
"""

from __future__ import annotations

from typing import Any

from pgvector.sqlalchemy import HALFVEC, SPARSEVEC, VECTOR
from sqlalchemy import Text, cast, type_coerce


class _AsText:
    render_bind_cast = True

    def column_expression(self, column: Any) -> Any:
        itself: Any = self
        return type_coerce(cast(column, Text), itself)


class _Vector(_AsText, VECTOR):
    cache_ok = True


class _HalfVector(_AsText, HALFVEC):
    cache_ok = True


class _SparseVector(_AsText, SPARSEVEC):
    cache_ok = True


TYPES: dict[type[Any], type[Any]] = {VECTOR: _Vector, HALFVEC: _HalfVector, SPARSEVEC: _SparseVector}
"""Types, not their subclasses, and the types that replace them."""
