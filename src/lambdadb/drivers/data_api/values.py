"""
Values as the Data API takes and gives them: its `Field`, in both directions.
"""

from __future__ import annotations

import base64
import datetime
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from lambdadb.drivers.data_api import dbapi

_SMALLEST, _LARGEST = -(1 << 63), (1 << 63) - 1
_FRACTION = re.compile(r"\.(\d{1,6})\d*")
_SHORT_OFFSET = re.compile(r"([+-]\d\d)$")


def encode(name: str, value: Any) -> dict[str, Any]:
    """
    Return a parameter.

    No hint is given for moments: the hint TIMESTAMP takes milliseconds at most, and no offset. They are
    sent as text, which needs a cast in the statement: `write_casts`.

    Raises:
        DataError: The value has a NUL character.
        NotSupportedError: The Data API has no form for the value.
    """
    hint = None
    if isinstance(value, Enum):
        value = value.value
    if value is None:
        field: dict[str, Any] = {"isNull": True}
    elif isinstance(value, bool):
        field = {"booleanValue": value}
    elif isinstance(value, int):
        field = {"longValue": value}
        if not _SMALLEST <= value <= _LARGEST:
            field, hint = {"stringValue": str(value)}, "DECIMAL"
    elif isinstance(value, float):
        finite = value - value == 0
        field = {"doubleValue": value} if finite else {"stringValue": str(value)}
    elif isinstance(value, str):
        if "\0" in value:
            raise dbapi.DataError(f"The parameter {name} has a NUL character, which no text can have.")
        field = {"stringValue": value}
    elif isinstance(value, (bytes, bytearray, memoryview)):
        field = {"blobValue": base64.b64encode(value).decode()}
    elif isinstance(value, Decimal):
        field, hint = {"stringValue": str(value)}, "DECIMAL" if value.is_finite() else None
    elif isinstance(value, UUID):
        field, hint = {"stringValue": str(value)}, "UUID"
    elif isinstance(value, datetime.datetime):
        field = {"stringValue": value.isoformat(" ")}
    elif isinstance(value, datetime.date):
        field, hint = {"stringValue": value.isoformat()}, "DATE"
    elif isinstance(value, datetime.time):
        field = {"stringValue": value.isoformat()}
    elif isinstance(value, datetime.timedelta):
        text = f"{value.days} days {value.seconds} seconds {value.microseconds} microseconds"
        field = {"stringValue": text}
    elif isinstance(value, (list, tuple)):
        field = {"stringValue": write_array(value)}
    else:
        raise dbapi.NotSupportedError(
            f"The parameter {name} is a {type(value).__name__}, for which the Data API has no form. "
            "Give its text, and cast it in the statement."
        )
    parameter = {"name": name, "value": field}
    return parameter if hint is None else {**parameter, "typeHint": hint}


# Parameters are looked for outside of strings, quoted names, comments and casts.
TOKENS = re.compile(
    r"[eE]'(?:[^'\\]|''|\\.)*'|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/"
    r"|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$|::|:(?P<name>[A-Za-z_]\w*)|(?P<second>;\s*(?=[^\s;]))",
    re.DOTALL,
)
"""The parts of a statement. `name`: a parameter. `second`: a second statement begins."""


def write_casts(statement: str, parameters: Mapping[str, Any]) -> str:
    """Return the statement with a cast around each parameter whose value is sent as text only."""
    kinds = {name: kind for name, value in parameters.items() if (kind := _find_cast(value))}
    if not kinds:
        return statement

    def write(found: re.Match[str]) -> str:
        kind = kinds.get(found["name"] or "")
        return found[0] if kind is None else f"CAST({found[0]} AS {kind})"

    return TOKENS.sub(write, statement)


def _find_cast(value: Any) -> str | None:
    if isinstance(value, datetime.datetime):
        return "timestamp" if value.tzinfo is None else "timestamptz"
    if isinstance(value, datetime.time):
        return "time" if value.tzinfo is None else "timetz"
    if isinstance(value, datetime.timedelta):
        return "interval"
    not_finite = isinstance(value, float) and value - value != 0
    return "float8" if not_finite else None


def write_array(values: Any) -> str:
    """Return an array as PostgreSQL writes it. It is sent as text, since arrays cannot be bound."""
    return "{" + ",".join(map(_write_element, values)) + "}"


def _write_element(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, (list, tuple)):
        return write_array(value)
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, (bytes, bytearray)):
        value = f"\\x{value.hex()}"
    if isinstance(value, Enum):
        value = value.name
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def decode(field: Mapping[str, Any], type_name: str) -> Any:
    """Return the Python value of a field of a result. `type_name` is the column's type."""
    if "arrayValue" in field:
        return _decode_array(field["arrayValue"], _READERS.get(type_name.lstrip("_")))
    return decode_by(_READERS, field, type_name)


def decode_by(
    readers: Mapping[str, Callable[[Any], Any]], field: Mapping[str, Any], type_name: str
) -> Any:
    """Return the Python value of a field that is no array, read as its column's type is."""
    if field.get("isNull"):
        return None
    if "blobValue" in field:
        return base64.b64decode(field["blobValue"])
    (value,) = field.values()
    reader = readers.get(type_name)
    return value if reader is None or value is None else reader(value)


def _decode_array(array: Mapping[str, Any], reader: Callable[[Any], Any] | None) -> list[Any]:
    ((member, values),) = array.items() or [("stringValues", [])]
    if member == "arrayValues":
        return [_decode_array(one, reader) for one in values]
    return [v if v is None or reader is None else reader(v) for v in values]


def _read_datetime(text: str, *, zone: datetime.tzinfo | None = None) -> Any:
    """A moment; text that Python cannot hold, such as `infinity`, stays as it is."""
    try:
        found = datetime.datetime.fromisoformat(_complete(text))
    except ValueError:
        return text
    return found.replace(tzinfo=zone) if zone is not None and found.tzinfo is None else found


def _read_moment(text: str) -> Any:
    return _read_datetime(text, zone=datetime.timezone.utc)  # an offset is not always given


def _read_date(text: str) -> Any:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        return text


def read_time(text: str) -> datetime.time:
    """Return the time of PostgreSQL's text."""
    return datetime.time.fromisoformat(_complete(text))


def _complete(text: str) -> str:
    """Python 3.10 reads 3 or 6 digits of a second, and an offset with minutes."""
    text = _FRACTION.sub(lambda found: f".{found[1]:0<6}", text)
    date_only = len(text) <= len("2026-01-01")
    return text if date_only else _SHORT_OFFSET.sub(r"\1:00", text)


_READERS: dict[str, Callable[[Any], Any]] = {
    "numeric": lambda value: Decimal(str(value)),
    "uuid": UUID,
    "date": _read_date,
    "time": read_time,
    "timestamp": _read_datetime,
    "timestamptz": _read_moment,
    **dict.fromkeys(("float4", "float8"), float),  # infinity and NaN come as text
}
