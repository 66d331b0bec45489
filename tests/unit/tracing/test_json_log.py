"""One line of JSON per connect."""

from __future__ import annotations

import json

from psycopg.errors import UniqueViolation

from lambdadb.errors import ConnectFailed
from lambdadb.faults import Fault
from lambdadb.tracing import Span
from lambdadb.tracing.json_log import JsonLog

PART = Span(name="attempt", began=1.0, seconds=1.0)


def test_a_connect_is_one_flat_line(capsys):
    """Names without dots, seconds as seconds, and nothing of the connect's parts."""
    attributes = {"faas.name": "orders", "db.namespace": "shop", "lambdadb.waited": 1 / 3}
    span = Span(name="connect", began=1.0, seconds=15.25, attributes=attributes, children=(PART,))
    JsonLog().record(span)
    assert json.loads(capsys.readouterr().out) == {
        "lambdadb": "connect",
        "seconds": 15.25,
        "function": "orders",
        "database": "shop",
        "waited": 0.333333,
    }


def test_an_error_is_named():
    """With lambdadb's own message; the server's may quote what is in a row."""
    lines = []
    tracer = JsonLog(write=lines.append)
    failed = ConnectFailed("gave up", fault=Fault.RESUMING, waited=1.0, attempts=2, orig=OSError())
    tracer.record(Span(name="connect", began=1.0, seconds=1.0, error=failed))
    violated = UniqueViolation("Key (email)=(ann@example.com) already exists")
    tracer.record(Span(name="statement", began=1.0, seconds=1.0, error=violated))
    assert [json.loads(line) for line in lines] == [
        {"lambdadb": "connect", "seconds": 1.0, "error": "ConnectFailed", "message": "gave up"},
        {"lambdadb": "statement", "seconds": 1.0, "error": "UniqueViolation"},
    ]
