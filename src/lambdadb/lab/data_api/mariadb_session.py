"""
A session of MariaDB for the emulated Data API.

How the service names MySQL's types is not documented. These are the names of MySQL's JDBC driver, which
takes TINYINT(1) for a truth value.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pymysql
from pymysql.constants import CLIENT, FIELD_TYPE
from pymysql.converters import encoders
from sqlalchemy import make_url

from lambdadb.drivers.data_api.mysql_values import TOKENS
from lambdadb.lab.data_api.answers import ApiError
from lambdadb.lab.data_api.statements import LARGEST_RESULT, LARGEST_ROW, LONGEST_SQL, TOO_LARGE

_BINARY = 63  # the number of the character set of bytes
_TOO_LATE = (1969, 3024)  # ER_STATEMENT_TIMEOUT of MariaDB, ER_QUERY_TIMEOUT of MySQL
_NAMES = {
    **{FIELD_TYPE.TINY: "TINYINT", FIELD_TYPE.SHORT: "SMALLINT", FIELD_TYPE.LONG: "INT"},
    **{FIELD_TYPE.LONGLONG: "BIGINT", FIELD_TYPE.INT24: "MEDIUMINT", FIELD_TYPE.YEAR: "YEAR"},
    **{FIELD_TYPE.FLOAT: "FLOAT", FIELD_TYPE.DOUBLE: "DOUBLE"},
    **{FIELD_TYPE.DECIMAL: "DECIMAL", FIELD_TYPE.NEWDECIMAL: "DECIMAL"},
    **{FIELD_TYPE.DATE: "DATE", FIELD_TYPE.NEWDATE: "DATE", FIELD_TYPE.TIME: "TIME"},
    **{FIELD_TYPE.DATETIME: "DATETIME", FIELD_TYPE.TIMESTAMP: "TIMESTAMP", FIELD_TYPE.JSON: "JSON"},
    FIELD_TYPE.BIT: "BIT",
}
_INTEGERS = ("TINYINT", "SMALLINT", "INT", "BIGINT", "MEDIUMINT", "YEAR")
_LARGEST_LONG = (1 << 63) - 1


class MariaDBSession:
    """
    A session.

    Args:
        url: SQLAlchemy URL of the database, by the server's own port or a cluster's in front of it.
        timeout: Seconds after which a statement is ended.
    """

    def __init__(self, url: str, timeout: float) -> None:
        try:
            self._connection = pymysql.connect(
                **make_url(url).translate_connect_args(username="user"),
                **{"charset": "utf8mb4", "autocommit": True, "conv": encoders},
                client_flag=CLIENT.FOUND_ROWS,
                init_command=f"SET max_statement_time = {timeout}",
            )
        except pymysql.Error as error:
            raise _translate(error) from None
        self.in_transaction = False

    @property
    def is_open(self) -> bool:
        """Whether it has not ended."""
        return bool(self._connection.open)

    def execute(self, request: Mapping[str, Any], parameters: Any) -> dict[str, Any]:
        """Execute a statement and give the API's answer."""
        sql = str(request["sql"])
        if len(sql) > LONGEST_SQL:
            raise ApiError("ValidationException", f"sql has more than {LONGEST_SQL} characters")
        given = {str(parameter.get("name")): _read(parameter) for parameter in parameters}
        with self._connection.cursor() as cursor:
            try:
                cursor.execute(self._fill_in(sql, given))
            except pymysql.Error as error:
                raise _translate(error) from None
            if cursor.description is None:
                made = [{"longValue": cursor.lastrowid}] if cursor.lastrowid else []
                return {"numberOfRecordsUpdated": cursor.rowcount, "generatedFields": made}
            columns = [_describe(field) for field in cursor._result.fields]
            records = _encode([name for name, _ in columns], cursor.fetchall())
        answer: dict[str, Any] = {"numberOfRecordsUpdated": 0, "records": records}
        if request.get("includeResultMetadata"):
            answer["columnMetadata"] = [
                {"name": label, "label": label, "typeName": name, "nullable": 1}
                for name, label in columns
            ]
        return answer

    def _fill_in(self, sql: str, given: Mapping[str, Any]) -> str:
        """The statement with literals in place of its parameters."""

        def fill(found: re.Match[str]) -> str:
            if found["second"]:
                raise ApiError("ValidationException", "Multistatements aren't supported")
            if found["name"] is None:
                return found[0]
            if found["name"] not in given:
                raise ApiError("BadRequestException", f"Parameters without a value: {found['name']}")
            literal: str = self._connection.escape(given[found["name"]])
            return literal

        return TOKENS.sub(fill, sql)

    def begin(self) -> None:
        """Begin a transaction."""
        self._connection.begin()
        self.in_transaction = True

    def commit(self) -> bool:
        """Commit. True: MySQL answers no COMMIT by a rollback."""
        try:
            self._connection.commit()
        except pymysql.Error as error:
            raise _translate(error) from None
        return True

    def close(self) -> None:
        """End the session, and roll back what is open."""
        if self._connection.open:
            self._connection.close()


def _translate(error: pymysql.Error) -> ApiError:
    number, text = (*error.args, "", "")[:2]
    if number in _TOO_LATE:
        return ApiError("StatementTimeoutException", "The statement timed out")
    state = getattr(error, "sqlstate", None) or "HY000"
    return ApiError("DatabaseErrorException", f"{text}; Error code: {number}; SQLState: {state}")


def _read(parameter: Mapping[str, Any]) -> Any:
    """The value of a parameter for PyMySQL."""
    value = parameter.get("value", {})
    if "blobValue" in value:
        return base64.b64decode(value["blobValue"])
    if "arrayValue" in value:
        raise ApiError("ValidationException", "Array parameters are not supported.")
    if parameter.get("typeHint") == "DECIMAL" and "stringValue" in value:
        return Decimal(value["stringValue"])
    for member in ("stringValue", "longValue", "doubleValue", "booleanValue"):
        if member in value:
            return value[member]
    if value.get("isNull"):
        return None
    raise ApiError("ValidationException", f"Parameter {parameter.get('name')} has no value.")


def _describe(field: Any) -> tuple[str, str]:
    """The type's name, as JDBC has it, and the label of a column."""
    if field.type_code == FIELD_TYPE.TINY and field.length == 1:
        return "BIT", field.name
    text = "VARBINARY" if field.charsetnr == _BINARY else "VARCHAR"
    return _NAMES.get(field.type_code, text), field.name


def _encode(names: list[str], rows: Any) -> list[list[dict[str, Any]]]:
    records, size = [], 0
    for row in rows:
        if sum(len(value) for value in row if value is not None) > LARGEST_ROW:
            raise ApiError("DatabaseErrorException", f"{TOO_LARGE} of 64 KB per row")
        fields = [_field(name, value) for name, value in zip(names, row, strict=True)]
        size += len(json.dumps(fields))
        if size > LARGEST_RESULT:
            raise ApiError("DatabaseErrorException", TOO_LARGE)
        records.append(fields)
    return records


def _field(name: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {"isNull": True}
    if name == "BIT":
        number = int.from_bytes(value, "big") if isinstance(value, bytes) else int(value)
        return {"booleanValue": number != 0}
    if isinstance(value, bytes):
        return {"blobValue": base64.b64encode(value).decode()}
    if name in _INTEGERS and int(value) <= _LARGEST_LONG:
        return {"longValue": int(value)}
    if name in ("FLOAT", "DOUBLE"):
        return {"doubleValue": float(value)}
    return {"stringValue": value}
