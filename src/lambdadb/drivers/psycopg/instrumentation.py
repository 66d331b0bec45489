"""
Span attributes of psycopg sessions, and a check whether another library has patched psycopg.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg

_SYSTEM = {"db.system.name": "postgresql"}

# Libraries that patch psycopg for tracing, by the package of the patch, and what to use instead.
_PATCHES = {
    "aws_xray_sdk": ("the X-Ray SDK", "lambdadb.tracing.xray.XRay('all')"),
    "opentelemetry": ("OpenTelemetry", "lambdadb.tracing.opentelemetry.OpenTelemetry('all')"),
    "ddtrace": ("Datadog", "lambdadb.tracing.opentelemetry.OpenTelemetry('all')"),
}


def describe_session(connection: Any, error: BaseException | None = None) -> dict[str, Any]:
    """
    Return the span attributes of a statement: those of its session, and the error's SQLSTATE.

    The database is the one that the connection reports, never a part of the URL. The session's
    attributes are left out if the connection is closed, because psycopg then does not know them.
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
    Return the span attributes of a connect, from its parameters, because it may have no session.

    A database name with `@` or `:`, and a host with `@`, are left out. After a mistake in the URL they
    may contain a password.
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
    Return the package that has replaced one of psycopg's `connect` functions, such as "aws_xray_sdk".

    None if they are psycopg's own. lambdadb connects through libpq and calls none of them, so a patch
    records nothing of its engines. **Costs:** a few microseconds.
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
    """Return what a patch of psycopg means and what to do instead; None if there is no patch."""
    package = detect_patched_driver()
    if package is None:
        return None
    name, tracer = _PATCHES.get(package, (package, "a class derived from lambdadb.tracing.Tracer"))
    return (
        f"{name} has patched psycopg.connect, which lambdadb does not call: the patch records nothing "
        f"of this engine. Use create_engine(..., tracer=...) with {tracer}."
    )
