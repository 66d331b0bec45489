"""
SQLAlchemy's types where the Data API needs another form.

The API sends a string as text, and the server takes text for nothing else. So a cast is written around a
parameter whose type has no member in the API. Types that the API cannot return are selected as text.
"""

from __future__ import annotations

import datetime
import re
from typing import Any

from sqlalchemy import ARRAY as GENERIC_ARRAY
from sqlalchemy import Text, cast, type_coerce, types
from sqlalchemy.dialects import postgresql

from lambdadb.drivers.data_api.values import read_time, write_array


class _String(types.String):
    render_bind_cast = True


class _Integer(types.Integer):
    render_bind_cast = True


class _SmallInteger(types.SmallInteger):
    render_bind_cast = True


class _BigInteger(types.BigInteger):
    render_bind_cast = True


class _Float(types.Float[Any]):
    render_bind_cast = True


class _Boolean(types.Boolean):
    render_bind_cast = True


class _Date(types.Date):
    render_bind_cast = True


class _DateTime(types.DateTime):
    render_bind_cast = True


class _Time(types.Time):
    render_bind_cast = True

    def column_expression(self, column: Any) -> Any:
        return type_coerce(cast(column, Text), self) if self.timezone else column

    def result_processor(self, dialect: Any, coltype: object) -> Any:
        del dialect, coltype
        return (lambda text: None if text is None else read_time(text)) if self.timezone else None


class _Uuid(types.Uuid[Any]):
    render_bind_cast = True


class _JSON(types.JSON):
    render_bind_cast = True


class _PGJSON(postgresql.JSON):
    render_bind_cast = True


class _JSONB(postgresql.JSONB):
    render_bind_cast = True


class _JSONIntIndex(types.JSON.JSONIntIndexType):
    __visit_name__ = "json_int_index"
    render_bind_cast = True


class _JSONStrIndex(types.JSON.JSONStrIndexType):
    __visit_name__ = "json_str_index"
    render_bind_cast = True


class _JSONPath(types.JSON.JSONPathType):
    def bind_processor(self, dialect: Any) -> Any:
        del dialect
        return list

    def literal_processor(self, dialect: Any) -> Any:
        quote: Any = self.string_literal_processor(dialect)
        return lambda path: quote(write_array(path))

    def bind_expression(self, bindvalue: Any) -> Any:
        return cast(bindvalue, postgresql.ARRAY(Text()))


class _Inet(postgresql.INET):
    render_bind_cast = True


class _Cidr(postgresql.CIDR):
    render_bind_cast = True


class _Enum(postgresql.ENUM):
    render_bind_cast = True


class _Array(postgresql.ARRAY[Any]):
    render_bind_cast = True


_INTERVAL = re.compile(
    r"(?:(?P<years>-?\d+) years? ?)?(?:(?P<months>-?\d+) mons? ?)?(?:(?P<days>-?\d+) days? ?)?"
    r"(?:(?P<sign>[+-])?(?P<hours>\d+):(?P<minutes>\d+):(?P<seconds>\d+(?:\.\d+)?))?"
)


def read_interval(text: str) -> datetime.timedelta:
    """
    Return the time of PostgreSQL's text. A month has 30 days and a year 365, as in psycopg.

    Raises:
        ValueError: It is in another `intervalstyle` than `postgres`.
    """
    found = _INTERVAL.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not an interval in the style postgres: check intervalstyle.")
    part = {name: float(value) for name, value in found.groupdict("0").items() if name != "sign"}
    clock = datetime.timedelta(hours=part["hours"], minutes=part["minutes"], seconds=part["seconds"])
    days = part["years"] * 365 + part["months"] * 30 + part["days"]
    return datetime.timedelta(days=days) + (-clock if found["sign"] == "-" else clock)


class _Interval(postgresql.INTERVAL):
    render_bind_cast = True

    @classmethod
    def adapt_emulated_to_native(cls, interval: types.Interval, **keywords: Any) -> Any:  # type: ignore[override]
        del keywords
        return cls(precision=interval.second_precision)

    def column_expression(self, column: Any) -> Any:
        return type_coerce(cast(column, Text), self)

    def result_processor(self, dialect: Any, coltype: object) -> Any:
        del dialect, coltype
        return lambda text: None if text is None else read_interval(text)


COLSPECS: dict[type[Any], type[Any]] = {
    types.String: _String,
    types.Integer: _Integer,
    types.SmallInteger: _SmallInteger,
    types.BigInteger: _BigInteger,
    types.Float: _Float,
    types.Boolean: _Boolean,
    types.Date: _Date,
    types.DateTime: _DateTime,
    types.Time: _Time,
    types.Uuid: _Uuid,
    types.Interval: _Interval,
    postgresql.INTERVAL: _Interval,
    types.JSON: _JSON,
    postgresql.JSON: _PGJSON,
    postgresql.JSONB: _JSONB,
    types.JSON.JSONIntIndexType: _JSONIntIndex,
    types.JSON.JSONStrIndexType: _JSONStrIndex,
    types.JSON.JSONPathType: _JSONPath,
    postgresql.INET: _Inet,
    postgresql.CIDR: _Cidr,
    types.Enum: _Enum,
    postgresql.ENUM: _Enum,
    postgresql.ARRAY: _Array,
    GENERIC_ARRAY: _Array,
}
