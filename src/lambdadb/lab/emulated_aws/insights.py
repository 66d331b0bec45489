"""The part of Logs Insights' query language that the benchmark uses, over JSON log lines."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

# StartQuery returns no more rows than this (CloudWatch Logs API reference).
MOST_ROWS = 10_000
TERM = re.compile(
    r'ispresent\((?P<present>[\w@.]+)\)|(?P<field>[\w@.]+)\s*(?:=\s*(?P<value>"[^"]*")|in\s*(?P<list>\[[^\]]*\]))'
)

Fields = Mapping[str, str]


class MalformedQuery(Exception):
    """The query is none that is understood here."""


@dataclass(frozen=True)
class LogLine:
    """One line of a log group."""

    group: str
    at: datetime
    message: str

    @property
    def fields(self) -> dict[str, str]:
        """What Insights discovers in a line: its time, its group, and the fields of its JSON."""
        moment = self.at.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        common = {"@timestamp": moment, "@message": self.message, "@log": f"123456789012:{self.group}"}
        try:
            found = json.loads(self.message)
        except ValueError:
            return common
        return {**common, **(dict(flattened(found, "")) if isinstance(found, dict) else {})}


@dataclass(frozen=True)
class Query:
    """A query that was understood: which fields of which lines, how many."""

    fields: tuple[str, ...]
    matches: Callable[[Fields], bool]
    limit: int


def flattened(found: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    """A nested field by its path with dots, and its value as text; no null."""
    for name, value in found.items():
        if isinstance(value, dict):
            yield from flattened(value, f"{prefix}{name}.")
        elif isinstance(value, str):
            yield prefix + name, value
        elif value is not None:
            yield prefix + name, json.dumps(value)


def parse(text: str) -> Query:
    """
    Understand `fields`, `filter` with `=`, `in`, `ispresent`, `and` and `or`, `sort @timestamp asc`, and
    `limit`.

    Raises:
        MalformedQuery: It has something else, which would be answered wrongly.
    """
    names: tuple[str, ...] = ("@timestamp", "@message")
    matches: Callable[[Fields], bool] = lambda _: True  # noqa: E731 replaced by a filter
    limit = 1000
    for command in text.split("|"):
        word, _, rest = command.strip().partition(" ")
        if word == "fields":
            names = tuple(name.strip() for name in rest.split(","))
        elif word == "filter":
            matches = filter_of(rest)
        elif word == "limit" and rest.isdigit() and 1 <= int(rest) <= MOST_ROWS:
            limit = int(rest)
        elif command.split() != ["sort", "@timestamp", "asc"]:
            raise MalformedQuery(f"not understood here: {command.strip()}")
    return Query(names, matches, limit)


def filter_of(text: str) -> Callable[[Fields], bool]:
    """A condition: alternatives of terms that all hold, as `and` binds tighter."""
    alternatives = [
        [term_of(term) for term in re.split(r"\s+and\s+", part)]
        for part in re.split(r"\s+or\s+", text.strip())
    ]
    return lambda fields: any(all(term(fields) for term in terms) for terms in alternatives)


def term_of(text: str) -> Callable[[Fields], bool]:
    found = TERM.fullmatch(text.strip())
    if found is None:
        raise MalformedQuery(f"not understood here: {text.strip()}")
    if present := found["present"]:
        return lambda fields: present in fields
    name = found["field"]
    values = json.loads(found["list"]) if found["list"] else [json.loads(found["value"])]
    return lambda fields: fields.get(name) in values


def run(query: Query, lines: Sequence[LogLine], begin: float, end: float) -> list[list[dict[str, str]]]:
    """The rows of a query as GetQueryResults gives them: the earliest first, each with its `@ptr`."""
    rows = []
    for number, line in enumerate(lines):
        fields = line.fields
        if begin <= line.at.timestamp() <= end and query.matches(fields):
            rows.append((line.at, {**fields, "@ptr": str(number)}))
    rows.sort(key=lambda row: row[0])
    return [
        [{"field": name, "value": row[name]} for name in (*query.fields, "@ptr") if name in row]
        for _, row in rows[: query.limit]
    ]
