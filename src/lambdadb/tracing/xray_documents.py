"""
Spans as the documents that X-Ray's daemon takes.

Source: AWS X-Ray Developer Guide, "X-Ray segment documents" and "Sending trace data to X-Ray".
"""

from __future__ import annotations

import json
import re
import secrets
from typing import Any, NamedTuple

from lambdadb.tracing import Span
from lambdadb.tracing.sanitize import reason, short

# Bytes: a document may have 64 kB, and a datagram 65,507 with the header.
_LONGEST = 63_900
_LONGEST_NAME = 200
_LONGEST_VALUE = 250

_NOT_IN_NAMES = re.compile(r"[^\w\s.:/%&#=+\\\-@]")

_SQL = {
    "query": "sanitized_query",
    "version": "database_version",
    "driver": "driver_version",
    "user": "user",
}
# Told elsewhere: in the sql block's url, by the name, or by the cause.
_ELSEWHERE = {*_SQL, "system", "host", "port", "database", "error"}


class Place(NamedTuple):
    """Where in a trace something belongs."""

    trace_id: str
    parent_id: str


def document(span: Span, place: Place, id: str | None = None) -> dict[str, Any]:
    """The span and its parts as a subsegment that is sent by itself."""
    independent = {"type": "subsegment", "trace_id": place.trace_id, "parent_id": place.parent_id}
    return {**_subsegment(span, span.began + span.seconds), **independent, **({"id": id} if id else {})}


def serialized(document: dict[str, Any]) -> str:
    """As JSON that X-Ray is willing to take, without its parts if it were too long with them."""
    # Half of a surrogate pair, which UTF-8 does not know, becomes a question mark.
    data = json.dumps(document, ensure_ascii=False).encode(errors="replace")
    if len(data) > _LONGEST and document.get("subsegments"):
        return serialized({**document, "subsegments": []})
    return data.decode()


def datagram(text: str) -> bytes:
    """A serialized document as it is sent to the daemon."""
    return b'{"format": "json", "version": 1}\n' + text.encode()


def allowed(name: str) -> str:
    """The name without characters that X-Ray refuses."""
    return _NOT_IN_NAMES.sub("_", name)[:_LONGEST_NAME]


def _subsegment(span: Span, latest: float) -> dict[str, Any]:
    told = {name: _cut(value) for name, value in short(span.attributes).items()}
    rest = {name: value for name, value in told.items() if name not in _ELSEWHERE}
    end = min(span.began + span.seconds, latest)  # not beyond its parent by a rounding error
    made: dict[str, Any] = {
        "name": allowed(span.name),
        "id": secrets.token_hex(8),
        "start_time": min(span.began, end),
        "end_time": end,
    }
    if "system" in told:
        made["name"] = allowed(f"{told.get('database')}@{told.get('host')}")
        made["namespace"] = "remote"
        made["sql"] = {_SQL[name]: told[name] for name in _SQL.keys() & told}
        made["sql"]["database_type"] = "PostgreSQL"
        made["sql"]["url"] = "postgresql://{host}:{port}/{database}".format_map(_Known(told))
        if "query" in told:
            made["sql"]["sanitized_query"] = span.attributes["db.query.text"]
    # X-Ray indexes 50 annotations of a trace: what comes many times in one is not made one.
    frequent = span.name in ("attempt", "statement")
    annotations = {name: rest[name] for name in rest if not frequent or name == "sqlstate"}
    if span.name == "connect":
        annotations["lambdadb"] = span.name
    if annotations:
        made["annotations"] = annotations
    if rest.keys() - annotations:
        made["metadata"] = {"lambdadb": {name: rest[name] for name in rest.keys() - annotations}}
    if span.error is not None:
        made |= {"fault": True, "cause": {"exceptions": [_exception(span.error)]}}
    if span.children:
        made["subsegments"] = [_subsegment(part, end) for part in span.children]
    return made


def _exception(error: BaseException) -> dict[str, Any]:
    known = {"id": secrets.token_hex(8), "type": type(error).__name__, "message": reason(error)}
    return {name: value for name, value in known.items() if value}


def _cut(value: Any) -> Any:
    return value[:_LONGEST_VALUE] if isinstance(value, str) else value


class _Known(dict[str, Any]):
    def __missing__(self, name: str) -> str:
        return ""
