"""Statements of the Data API as PostgreSQL takes them, and its rows as the Data API gives them."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from psycopg import pq
from psycopg.adapt import Transformer
from psycopg.pq.abc import PGconn, PGresult

from lambdadb.drivers.data_api.values import TOKENS
from lambdadb.lab.data_api.answers import ApiError

LONGEST_SQL = 65_536
LARGEST_ROW = 64 * 1024
LARGEST_RESULT = 1024 * 1024
TOO_LARGE = "Database returned more than the allowed response size limit"

_BOOL, _INT8, _FLOAT8, _BYTEA, _TEXT, _UNKNOWN = 16, 20, 701, 17, 25, 0
_HINTS = {"DATE": 1082, "DECIMAL": 1700, "JSON": 3802, "TIME": 1083, "TIMESTAMP": 1114, "UUID": 2950}
# The types of the Aurora User Guide's list, each with the member of Field that holds it. The last line
# is unverified: the catalogs have them, and SQLAlchemy reads the catalogs.
_MEMBERS = {
    **dict.fromkeys(("int2", "int4", "int8"), "longValue"),
    **dict.fromkeys(("float4", "float8"), "doubleValue"),
    "bool": "booleanValue",
    "bytea": "blobValue",
    **dict.fromkeys(("text", "varchar", "bpchar", "json", "jsonb", "uuid", "numeric"), "stringValue"),
    **dict.fromkeys(("date", "time", "timestamp", "timestamptz", "inet", "cidr"), "stringValue"),
    **{"oid": "longValue", "name": "stringValue", "char": "stringValue"},
}
_ARRAY_MEMBERS = {bool: "booleanValues", int: "longValues", float: "doubleValues"}


def number_parameters(sql: str) -> tuple[str, list[str]]:
    """Return a statement with $1, $2, … in place of its named parameters, and their names."""
    names: list[str] = []

    def number(found: re.Match[str]) -> str:
        name = found["name"]
        if found["second"]:
            raise ApiError("ValidationException", "Multistatements aren't supported")
        if name is None:
            return found[0]
        if name not in names:
            names.append(name)
        return f"${names.index(name) + 1}"

    return TOKENS.sub(number, sql), names


def bind(parameter: Mapping[str, Any]) -> tuple[bytes | None, int, int]:
    """Return a parameter as libpq takes it: value, type and format."""
    value, hint = parameter.get("value", {}), parameter.get("typeHint")
    oid = _HINTS.get(hint, _UNKNOWN) if hint else _UNKNOWN
    if hint and not oid:
        raise ApiError("ValidationException", f"typeHint {hint} is not one of {sorted(_HINTS)}")
    if value.get("isNull"):
        return None, oid, 0
    if "stringValue" in value:
        return value["stringValue"].encode(), oid or _TEXT, 0
    if "longValue" in value:
        return str(int(value["longValue"])).encode(), oid or _INT8, 0
    if "doubleValue" in value:
        return repr(float(value["doubleValue"])).encode(), oid or _FLOAT8, 0
    if "booleanValue" in value:
        return (b"t" if value["booleanValue"] else b"f"), oid or _BOOL, 0
    if "blobValue" in value:
        return base64.b64decode(value["blobValue"]), _BYTEA, 1
    if "arrayValue" in value:
        raise ApiError("ValidationException", "Array parameters are not supported.")
    raise ApiError("ValidationException", f"Parameter {parameter.get('name')} has no value.")


def run(pgconn: PGconn, sql: str, parameters: Sequence[Mapping[str, Any]]) -> PGresult:
    """
    Execute one statement.

    Raises:
        ApiError: The statement, a parameter or the database is at fault.
    """
    if len(sql) > LONGEST_SQL:
        raise ApiError("ValidationException", f"sql has more than {LONGEST_SQL} characters")
    numbered, names = number_parameters(sql)
    given = {str(parameter.get("name")): bind(parameter) for parameter in parameters}
    if missing := [name for name in names if name not in given]:
        raise ApiError("BadRequestException", f"Parameters without a value: {', '.join(missing)}")
    values = [given[name] for name in names]
    result = pgconn.exec_params(
        numbered.encode(), [v for v, _, _ in values], [t for _, t, _ in values], [f for *_, f in values]
    )
    check(result, pgconn)
    return result


def check(result: PGresult, pgconn: PGconn) -> None:
    """Raise the API's error for a failed statement."""
    if result.status in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK):
        return
    if result.status in (pq.ExecStatus.COPY_IN, pq.ExecStatus.COPY_OUT):
        pgconn.finish()
        raise ApiError("BadRequestException", "COPY is not supported.")
    field = {name: _field(result, name) for name in pq.DiagnosticField}
    state = field[pq.DiagnosticField.SQLSTATE]
    primary = field[pq.DiagnosticField.MESSAGE_PRIMARY] or pgconn.error_message.decode(errors="replace")
    if state == "57014" and "statement timeout" in primary:
        raise ApiError("StatementTimeoutException", "The statement timed out")
    text = f"{field[pq.DiagnosticField.SEVERITY] or 'FATAL'}: {primary.strip()}"
    for name, label in (
        (pq.DiagnosticField.MESSAGE_DETAIL, "Detail"),
        (pq.DiagnosticField.MESSAGE_HINT, "Hint"),
        (pq.DiagnosticField.STATEMENT_POSITION, "Position"),
    ):
        if field[name]:
            text += f"\n  {label}: {field[name]}"
    raise ApiError("DatabaseErrorException", f"{text}; SQLState: {state or '08006'}")


def _field(result: PGresult, name: pq.DiagnosticField) -> str:
    return (result.error_field(name) or b"").decode(errors="replace")


class Rows:
    """The rows of a result, in the API's form."""

    def __init__(self, pgconn: PGconn, result: PGresult, options: Mapping[str, str]) -> None:
        self._result = result
        self._options = options
        self._types = [_look_up_type(pgconn, result.ftype(column)) for column in range(result.nfields)]
        self._transformer = Transformer()

    def metadata(self) -> list[dict[str, Any]]:
        """Return the description of the columns."""
        found = []
        for number, (name, *_) in enumerate(self._types):
            column = (self._result.fname(number) or b"").decode()
            found.append({"name": column, "label": column, "typeName": name, "nullable": 1})
        return found

    def records(self) -> list[list[dict[str, Any]]]:
        """
        Return the rows.

        Raises:
            ApiError: A column's type is not supported, or the rows are too large.
        """
        for number, (name, kind, element) in enumerate(self._types):
            if kind != "e" and element not in _MEMBERS:
                column = (self._result.fname(number) or b"").decode()
                text = f"The result contains the unsupported data type {name} in column {column}."
                raise ApiError("UnsupportedResultException", text)
        rows, size = [], 0
        for row in range(self._result.ntuples):
            values = [self._result.get_value(row, n) for n in range(self._result.nfields)]
            length = sum(len(value) for value in values if value is not None)
            if length > LARGEST_ROW:
                raise ApiError("DatabaseErrorException", f"{TOO_LARGE} of 64 KB per row")
            fields = [self._field(number, value) for number, value in enumerate(values)]
            size += len(json.dumps(fields))
            if size > LARGEST_RESULT:
                raise ApiError("DatabaseErrorException", TOO_LARGE)
            rows.append(fields)
        return rows

    def _field(self, column: int, value: bytes | None) -> dict[str, Any]:
        if value is None:
            return {"isNull": True}
        name, kind, element = self._types[column]
        if name in ("int2vector", "oidvector"):
            return {"arrayValue": {"longValues": [int(number) for number in value.split()]}}
        if name != element:
            load = self._transformer.get_loader(self._result.ftype(column), pq.Format.TEXT).load
            return {"arrayValue": _array(load(value))}
        member = "stringValue" if kind == "e" else _MEMBERS[name]
        text = value.decode()
        if member == "longValue" and self._options.get("longReturnType") != "STRING":
            return {member: int(text)}
        if member == "doubleValue":
            number = float(text)
            return {member: number if abs(number) < float("inf") else text}
        if member == "booleanValue":
            return {member: text == "t"}
        if member == "blobValue":
            return {member: base64.b64encode(bytes.fromhex(text[2:])).decode()}
        # Moments come in UTC, without an offset.
        return {"stringValue": text.removesuffix("+00") if name == "timestamptz" else text}


def _array(values: list[Any]) -> dict[str, Any]:
    if any(isinstance(value, list) for value in values):
        return {"arrayValues": [_array(value) for value in values]}
    kinds = {type(value) for value in values if value is not None}
    member = _ARRAY_MEMBERS.get(kinds.pop(), "stringValues") if len(kinds) == 1 else "stringValues"
    if member == "stringValues":
        return {member: [None if value is None else str(value) for value in values]}
    return {member: values}


def _look_up_type(pgconn: PGconn, oid: int) -> tuple[str, str, str]:
    """Return a type's name, its kind and the name of its elements, which is its own for a scalar."""
    query = (
        b"SELECT t.typname, coalesce(e.typtype, t.typtype),"
        b" CASE WHEN t.typcategory = 'A' THEN e.typname ELSE t.typname END"
        b" FROM pg_catalog.pg_type t LEFT JOIN pg_catalog.pg_type e"
        b" ON e.oid = t.typelem AND t.typcategory = 'A' WHERE t.oid = $1"
    )
    if oid in _BUILT_IN:
        return _BUILT_IN[oid]
    result = pgconn.exec_params(query, [str(oid).encode()], [26])
    if result.ntuples != 1:
        return str(oid), "?", "?"
    name, kind, element = ((result.get_value(0, n) or b"").decode() for n in range(3))
    if oid < _FIRST_NORMAL:
        _BUILT_IN[oid] = name, kind, element
    return name, kind, element


_FIRST_NORMAL = 16_384  # the first OID that a server gives to an object of a user
_BUILT_IN: dict[int, tuple[str, str, str]] = {}
