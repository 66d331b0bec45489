"""
Spans as the documents that X-Ray's daemon takes.

Source: AWS X-Ray Developer Guide, "X-Ray segment documents" and "Sending trace data to X-Ray".
"""

from __future__ import annotations

import json
import re
import secrets
from typing import Any, NamedTuple

from lambdadb.tracing.sanitize import get_message, shorten_names
from lambdadb.tracing.span import Span

# Bytes: a document may have 64 kB, and a datagram 65,507 with the header.
_LONGEST = 63_900
_LONGEST_NAME = 200
_LONGEST_VALUE = 250

_NOT_IN_NAMES = re.compile(r"[^\w\s.:/%&#=+\\\-@]")

_SQL = {
    "system": "database_type",
    "query": "sanitized_query",
    "version": "database_version",
    "driver": "driver_version",
    "user": "user",
}
# Neither annotations nor metadata: the sql block, the name or the cause holds them.
_ELSEWHERE = {*_SQL, "host", "port", "database", "error"}


class TraceContext(NamedTuple):
    """The trace, and the parent in it, that something recorded belongs to."""

    trace_id: str
    parent_id: str


class TraceHandle(NamedTuple):
    """A subsegment that was begun before it is sent."""

    parent: TraceContext
    id: str


def make_document(span: Span, parent: TraceContext) -> dict[str, Any]:
    """The span and its parts as a subsegment that is sent by itself."""
    independent = {"type": "subsegment", "trace_id": parent.trace_id, "parent_id": parent.parent_id}
    return {**_make_subsegment(span, span.began + span.seconds), **independent}


def serialize(document: dict[str, Any]) -> str:
    """The document as JSON that X-Ray accepts; without its parts if they make it too long."""
    # Half of a surrogate pair cannot be encoded in UTF-8; it becomes a question mark.
    data = json.dumps(document, ensure_ascii=False).encode(errors="replace")
    if len(data) > _LONGEST and document.get("subsegments"):
        return serialize({**document, "subsegments": []})
    return data.decode()


def make_datagram(text: str) -> bytes:
    """A serialized document as it is sent to the daemon."""
    return b'{"format": "json", "version": 1}\n' + text.encode()


def sanitize_name(name: str) -> str:
    """The name without the characters that X-Ray refuses."""
    return _NOT_IN_NAMES.sub("_", name)[:_LONGEST_NAME]


def _make_subsegment(span: Span, latest: float) -> dict[str, Any]:
    known = {name: _cut(value) for name, value in shorten_names(span.attributes).items()}
    rest = {name: value for name, value in known.items() if name not in _ELSEWHERE}
    end = min(span.began + span.seconds, latest)  # rounding must not put it after its parent's end
    made: dict[str, Any] = {
        "name": sanitize_name(span.name),
        "id": span.handle.id if isinstance(span.handle, TraceHandle) else secrets.token_hex(8),
        "start_time": min(span.began, end),
        "end_time": end,
    }
    if "system" in known:
        names = [str(known[name]) for name in ("database", "host") if name in known]
        made["name"] = sanitize_name("@".join(names) or span.name)
        made["namespace"] = "remote"
        made["sql"] = {_SQL[name]: known[name] for name in _SQL.keys() & known}
        made["sql"]["url"] = "{system}://{host}:{port}/{database}".format_map(_Known(known))
        if "query" in known:
            made["sql"]["sanitized_query"] = span.attributes["db.query.text"]
    # X-Ray indexes 50 annotations of a trace. Spans that are frequent in a trace get metadata instead.
    is_frequent = span.name in ("attempt", "statement")
    annotations = {name: rest[name] for name in rest if not is_frequent or name == "status_code"}
    if span.name == "connect":
        annotations["lambdadb"] = span.name
    if annotations:
        made["annotations"] = annotations
    if rest.keys() - annotations:
        made["metadata"] = {"lambdadb": {name: rest[name] for name in rest.keys() - annotations}}
    if span.error is not None:
        made |= {"fault": True, "cause": {"exceptions": [_make_exception(span.error)]}}
    if span.children:
        made["subsegments"] = [_make_subsegment(part, end) for part in span.children]
    return made


def _make_exception(error: BaseException) -> dict[str, Any]:
    known = {"id": secrets.token_hex(8), "type": type(error).__name__, "message": get_message(error)}
    return {name: value for name, value in known.items() if value}


def _cut(value: Any) -> Any:
    return value[:_LONGEST_VALUE] if isinstance(value, str) else value


class _Known(dict[str, Any]):
    def __missing__(self, name: str) -> str:
        return ""
