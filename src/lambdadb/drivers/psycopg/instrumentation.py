"""
What traces say of a psycopg session, and whether another library has patched psycopg to trace it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg

_SYSTEM = {"db.system.name": "postgresql"}

# Who patches psycopg for tracing, by the package in which the patch is defined, and what to use instead.
_PATCHES = {
    "aws_xray_sdk": ("the X-Ray SDK", "lambdadb.tracing.xray.XRay('all')"),
    "opentelemetry": ("OpenTelemetry", "lambdadb.tracing.opentelemetry.OpenTelemetry('all')"),
    "ddtrace": ("Datadog", "lambdadb.tracing.opentelemetry.OpenTelemetry('all')"),
}


def describe_session(connection: Any, error: BaseException | None = None) -> dict[str, Any]:
    """
    Span attributes of a statement: the session as the server knows it, and the error's SQLSTATE.

    The database is the one that the connection reports, never a part of the URL. Of a closed
    connection psycopg knows nothing more; then they are left out.
    """
    attributes: dict[str, Any] = {**_SYSTEM}
    if (sqlstate := getattr(error, "sqlstate", None)) is not None:
        attributes["db.response.status_code"] = sqlstate
    if connection is not None and not connection.closed:
        info = connection.info
        attributes["db.namespace"] = info.dbname
        attributes["server.address"] = info.host
        attributes["server.port"] = info.port
        attributes["lambdadb.user"] = info.user
    return attributes


def describe_target(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """
    Span attributes of a connect, by the connection parameters: there may be no session to ask.

    A name with `@` or `:` is left out: it may be a password that a slip in the URL has put there.
    """
    host = parameters.get("host") or parameters.get("hostaddr")
    port = str(parameters.get("port") or 5432).split(",")[0]  # of several hosts, the first one's
    attributes = {
        **_SYSTEM,
        "db.namespace": _drop_suspicious(parameters.get("dbname"), "@:"),
        "server.address": _drop_suspicious(host, "@"),
        "server.port": int(port) if port.isdecimal() else None,
        "lambdadb.user": parameters.get("user"),
    }
    return {name: value for name, value in attributes.items() if value is not None}


def _drop_suspicious(name: Any, characters: str) -> str | None:
    return None if name is None or any(one in str(name) for one in characters) else str(name)


def detect_patched_driver() -> str | None:
    """
    The package that has replaced one of psycopg's `connect` functions, such as "aws_xray_sdk".

    None if they are psycopg's own. lambdadb logs in through libpq and calls none of them, so a patch
    records nothing on its engines. **Costs:** a few microseconds.
    """
    for owner in (psycopg, psycopg.Connection, psycopg.AsyncConnection):
        function = vars(owner)["connect"]
        wrapper = getattr(function, "_self_wrapper", None)  # of wrapt, which all three of them use
        if wrapper is not None:
            return str(getattr(wrapper, "__module__", None) or "wrapt").partition(".")[0]
        module = str(getattr(getattr(function, "__func__", function), "__module__", ""))
        if module.partition(".")[0] != "psycopg":
            return module.partition(".")[0] or "another library"
    return None


def explain_patched_driver() -> str | None:
    """One line for the operator if psycopg is patched: what it means, and what to do instead."""
    package = detect_patched_driver()
    if package is None:
        return None
    name, tracer = _PATCHES.get(package, (package, "a class derived from lambdadb.tracing.Tracer"))
    return (
        f"{name} has patched psycopg.connect, which lambdadb does not call: the patch records nothing "
        f"of this engine. Use create_engine(..., tracer=...) with {tracer}."
    )
