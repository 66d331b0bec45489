"""Values as the Data API takes and gives them."""

from __future__ import annotations

import base64
import datetime
from datetime import date, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from uuid import UUID

import pytest

from lambdadb.drivers.data_api import dbapi
from lambdadb.drivers.data_api.types import read_interval
from lambdadb.drivers.data_api.values import decode, encode, write_array, write_casts

UTC = timezone.utc
MOMENT = datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
ID = UUID("6f1c2a34-0000-4000-8000-000000000000")


class Colour(Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "field", "hint"),
    [
        (None, {"isNull": True}, None),
        (True, {"booleanValue": True}, None),
        (7, {"longValue": 7}, None),
        (-(2**63), {"longValue": -(2**63)}, None),
        (2**63, {"stringValue": str(2**63)}, "DECIMAL"),
        (1.5, {"doubleValue": 1.5}, None),
        (float("inf"), {"stringValue": "inf"}, None),
        ("x", {"stringValue": "x"}, None),
        (Colour.RED, {"stringValue": "red"}, None),
        (b"\x00\xff", {"blobValue": base64.b64encode(b"\x00\xff").decode()}, None),
        (Decimal("1.50"), {"stringValue": "1.50"}, "DECIMAL"),
        (Decimal("NaN"), {"stringValue": "NaN"}, None),
        (ID, {"stringValue": str(ID)}, "UUID"),
        (date(2026, 1, 2), {"stringValue": "2026-01-02"}, "DATE"),
        (MOMENT, {"stringValue": "2026-01-02 03:04:05.678901+00:00"}, None),
        (time(1, 2, 3), {"stringValue": "01:02:03"}, None),
        (
            timedelta(days=-1, seconds=3),
            {"stringValue": "-1 days 3 seconds 0 microseconds"},
            None,
        ),
        ([1, None, "a"], {"stringValue": '{"1",NULL,"a"}'}, None),
    ],
    ids=repr,
)
def test_a_value_has_its_member_of_field(value, field, hint):
    """And a hint where text alone would be taken for text."""
    expected = {"name": "a", "value": field}
    assert encode("a", value) == (expected if hint is None else {**expected, "typeHint": hint})


def test_what_has_no_form_is_refused_by_name():
    """Before anything is sent."""
    with pytest.raises(dbapi.NotSupportedError, match="price is a object"):
        encode("price", object())
    with pytest.raises(dbapi.DataError, match="note has a NUL character"):
        encode("note", "a\0b")


@pytest.mark.parametrize(
    ("field", "type_name", "value"),
    [
        ({"isNull": True}, "int4", None),
        ({"longValue": 1}, "int8", 1),
        ({"doubleValue": 1.5}, "float8", 1.5),
        ({"stringValue": "Infinity"}, "float8", float("inf")),
        ({"stringValue": "1.50"}, "numeric", Decimal("1.50")),
        ({"stringValue": str(ID)}, "uuid", ID),
        ({"blobValue": "AP8="}, "bytea", b"\x00\xff"),
        ({"stringValue": "2026-01-02"}, "date", date(2026, 1, 2)),
        ({"stringValue": "infinity"}, "date", "infinity"),
        ({"stringValue": "01:02:03.4"}, "time", time(1, 2, 3, 400_000)),
        ({"stringValue": "2026-01-02 03:04:05.678901"}, "timestamptz", MOMENT),
        ({"stringValue": "2026-01-02 03:04:05.678901"}, "timestamp", MOMENT.replace(tzinfo=None)),
        ({"stringValue": "2026-01-02 05:04:05.678901+02"}, "timestamptz", MOMENT),
        ({"stringValue": "infinity"}, "timestamp", "infinity"),
        ({"stringValue": "x"}, "a_type_of_the_user", "x"),
        ({"arrayValue": {"longValues": [1, None]}}, "_int4", [1, None]),
        ({"arrayValue": {"stringValues": ["1.5"]}}, "_numeric", [Decimal("1.5")]),
        ({"arrayValue": {"arrayValues": [{"longValues": [1]}, {}]}}, "_int4", [[1], []]),
    ],
    ids=repr,
)
def test_a_field_is_read_by_its_columns_type(field, type_name, value):
    """Text that Python cannot hold stays text."""
    found = decode(field, type_name)
    assert found == value
    assert type(found) is type(value)


def test_casts_are_written_around_parameters_alone():
    """Not in strings, comments, quoted names or casts; and only where the value needs one."""
    values = {"a": MOMENT, "b": time(1), "c": timedelta(1), "d": float("nan"), "e": 1}
    sql = "SELECT ':a', \":a\", /* :a */ :a, $x$ :b $x$, :b, :c, :d, :e, 1::int -- :a"
    assert write_casts(sql, values) == (
        "SELECT ':a', \":a\", /* :a */ CAST(:a AS timestamptz), $x$ :b $x$, CAST(:b AS time), "
        "CAST(:c AS interval), CAST(:d AS float8), :e, 1::int -- :a"
    )
    assert write_casts("SELECT :e", {"e": 1}) == "SELECT :e"


def test_an_array_is_written_as_postgresql_reads_it():
    """Quotes, backslashes, NULL and the word, nested lists, truth and bytes."""
    assert write_array(['a"b', "c\\d", "NULL", None, ""]) == r'{"a\"b","c\\d","NULL",NULL,""}'
    assert write_array([[1], [2]]) == '{{"1"},{"2"}}'
    assert write_array([True, b"\xff", Colour.RED]) == r'{t,"\\xff","RED"}'


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("00:00:00", timedelta()),
        ("1 day 02:03:04.5", timedelta(days=1, hours=2, minutes=3, seconds=4.5)),
        ("-1 days +00:00:03", timedelta(days=-1, seconds=3)),
        ("-00:00:01", timedelta(seconds=-1)),
        ("1 year 2 mons", timedelta(days=425)),
    ],
)
def test_an_interval_is_read(text, value):
    """A year has 365 days and a month 30, as psycopg has it."""
    assert read_interval(text) == value


def test_an_interval_in_another_style_is_refused():
    """It would be read as another time."""
    with pytest.raises(ValueError, match="intervalstyle"):
        read_interval("P1DT2H")
