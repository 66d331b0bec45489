"""
Values as the Data API takes and gives them for MySQL.

MySQL takes text for moments, numbers and UUIDs. So nothing needs a cast.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any
from uuid import UUID

from lambdadb.drivers.data_api import dbapi
from lambdadb.drivers.data_api.values import decode_by, encode

TOKENS = re.compile(
    r"'(?:[^'\\]|''|\\.)*'|\"(?:[^\"\\]|\"\"|\\.)*\"|`(?:[^`]|``)*`|--\s[^\n]*|\#[^\n]*|/\*.*?\*/"
    r"|:=|:(?P<name>[A-Za-z_]\w*)|(?P<second>;\s*(?=[^\s;]))",
    re.DOTALL,
)
"""The parts of a statement. `name`: a parameter. `second`: a second statement begins."""
_TIME = re.compile(r"(-?)(\d+):(\d\d):(\d\d)(?:\.(\d{1,6}))?")


def encode_for_mysql(name: str, value: Any) -> dict[str, Any]:
    """
    Return a parameter. A moment loses its offset, as with PyMySQL.

    Raises:
        NotSupportedError: The Data API has no form for the value.
    """
    if isinstance(value, datetime.datetime):
        value = value.replace(tzinfo=None).isoformat(" ")
    elif isinstance(value, datetime.time):
        value = value.replace(tzinfo=None).isoformat()
    elif isinstance(value, datetime.timedelta):
        value = _write_time(value)
    elif isinstance(value, UUID):
        value = str(value)
    elif isinstance(value, (list, tuple)):
        raise dbapi.NotSupportedError(f"The parameter {name} is a list, for which MySQL has no type.")
    elif isinstance(value, str):
        return {"name": name, "value": {"stringValue": value}}  # a NUL character is allowed
    return encode(name, value)


def _write_time(value: datetime.timedelta) -> str:
    seconds = abs(value) // datetime.timedelta(seconds=1)
    fraction = abs(value).microseconds
    sign = "-" if value < datetime.timedelta() else ""
    return f"{sign}{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{fraction:06}"


def decode_from_mysql(field: Mapping[str, Any], type_name: str) -> Any:
    """Return the Python value of a field of a result. `type_name` is the column's type."""
    return decode_by(_READERS, field, type_name.upper().removesuffix(" UNSIGNED"))


def _read_time(text: str) -> Any:
    """MySQL's TIME is a duration, for PyMySQL and SQLAlchemy too."""
    found = _TIME.fullmatch(text)
    if found is None:
        return text
    sign, hours, minutes, seconds, fraction = found.groups()
    whole = datetime.timedelta(hours=int(hours), minutes=int(minutes), seconds=int(seconds))
    whole += datetime.timedelta(microseconds=int(f"{fraction or '0':0<6}"))
    return -whole if sign else whole


def _read_datetime(text: str) -> Any:
    """A moment; text that Python cannot hold, such as MySQL's zero date, stays as it is."""
    try:
        return datetime.datetime.fromisoformat(_complete(text))
    except ValueError:
        return text


def _complete(text: str) -> str:
    """Python 3.10 reads 3 or 6 digits of a second."""
    whole, point, fraction = text.partition(".")
    return f"{whole}.{fraction:0<6}" if point else whole


def _read_date(text: str) -> Any:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        return text


_READERS: dict[str, Callable[[Any], Any]] = {
    "DECIMAL": lambda value: Decimal(str(value)),
    "BIGINT": int,  # one that is too large for a longValue comes as text
    "DATE": _read_date,
    "TIME": _read_time,
    **dict.fromkeys(("DATETIME", "TIMESTAMP"), _read_datetime),
}
