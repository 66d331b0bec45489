"""The emulated part of Logs Insights: it filters by fields, and refuses what it does not know."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from lambdadb.lab.emulated_aws.insights import LogLine, MalformedQuery, parse, run

AT = datetime(2026, 1, 1, tzinfo=timezone.utc)
LINES = [
    LogLine("/g", AT + timedelta(seconds=number), message)
    for number, message in enumerate(
        [
            '{"experiment": "one", "aurora_type": "cold", "elapsed": 16.5}',
            '{"experiment": "two", "aurora_type": "cold", "elapsed": 1}',
            "INIT_START, and no JSON",
            '{"type": "platform.report", "record": {"status": "timeout", "note": null}}',
            '{"errorType": "OperationalError", "errorMessage": "gone"}',
        ]
    )
]


def found(text: str, begin: float = 0, end: float = 99) -> list[dict[str, str]]:
    rows = run(parse(text), LINES, AT.timestamp() + begin, AT.timestamp() + end)
    return [{one["field"]: one["value"] for one in row} for row in rows]


def test_a_filter_reads_the_fields_of_a_line() -> None:
    """What moto ignores: a line counts only if its fields have these values."""
    (row,) = found('fields @timestamp, elapsed | filter experiment = "one" and aurora_type = "cold"')
    assert row == {"@timestamp": "2026-01-01 00:00:00.000", "elapsed": "16.5", "@ptr": "0"}
    assert found('fields elapsed | filter experiment = "one" and aurora_type = "hot"') == []


def test_alternatives_lists_and_presence() -> None:
    """`or` is weaker than `and`; a nested field has a path; a line without JSON has no fields."""
    rows = found(
        'fields record.status, errorType | filter ispresent(errorType) or record.status in ["timeout"]'
    )
    assert [row.get("errorType") or row.get("record.status") for row in rows] == [
        "timeout",
        "OperationalError",
    ]


def test_time_and_limit() -> None:
    """Lines between the two moments, both included, no more than the limit, and the earliest first."""
    assert [row["@ptr"] for row in found("fields @message | sort @timestamp asc", 1, 3)] == [
        "1",
        "2",
        "3",
    ]
    assert [row["@ptr"] for row in found("fields @message | limit 2")] == ["0", "1"]


@pytest.mark.parametrize(
    "text", ["stats count(*)", "filter elapsed > 1", "sort elapsed desc", "limit 10001", "limit none"]
)
def test_what_is_not_understood_is_refused(text: str) -> None:
    """A query that would be answered wrongly is an error."""
    with pytest.raises(MalformedQuery, match="not understood"):
        parse(f"fields @timestamp | {text}")
