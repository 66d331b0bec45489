"""What is said of a psycopg session in a trace, and of libraries that patch psycopg to trace it."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import psycopg
import pytest
from aws_xray_sdk.core import patch
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor
from psycopg.errors import UniqueViolation
from wrapt import wrap_function_wrapper

import lambdadb
from lambdadb.drivers.psycopg.instrumentation import (
    describe_session,
    describe_target,
    detect_patched_driver,
    explain_patched_driver,
)
from lambdadb.tracing.opentelemetry import OpenTelemetry
from lambdadb.tracing.xray import XRay

OWNERS = (psycopg, psycopg.Connection, psycopg.AsyncConnection)


@pytest.fixture(autouse=True)
def unpatched(monkeypatch):
    """psycopg's own functions are there again when the test has ended."""
    for owner in OWNERS:
        monkeypatch.setattr(owner, "connect", vars(owner)["connect"])


def patch_as_xray():
    # Without psycopg_pool the SDK's patch fails, after it has patched psycopg.connect.
    with contextlib.suppress(Exception):
        patch(["psycopg"])


def patch_as_opentelemetry():
    PsycopgInstrumentor().instrument(skip_dep_check=True)


def patch_as_datadog():
    """As ddtrace does it, which is not installed here."""

    def traced_connect(function, instance, arguments, keywords):
        return function(*arguments, **keywords)

    traced_connect.__module__ = "ddtrace.contrib.internal.psycopg.connection"
    for owner in OWNERS:
        wrap_function_wrapper(owner, "connect", traced_connect)


@pytest.fixture(
    params=[
        (patch_as_xray, "aws_xray_sdk", "the X-Ray SDK has patched", "xray.XRay('all')"),
        (patch_as_opentelemetry, "opentelemetry", "OpenTelemetry has patched", "OpenTelemetry('all')"),
        (patch_as_datadog, "ddtrace", "Datadog has patched", "OpenTelemetry('all')"),
    ],
    ids=["xray", "opentelemetry", "datadog"],
)
def patched(request):
    """One of the libraries that patch psycopg, and what is to be said of it."""
    request.param[0]()
    yield request.param[1:]
    if PsycopgInstrumentor().is_instrumented_by_opentelemetry:
        PsycopgInstrumentor().uninstrument()


def test_psycopg_as_it_is():
    """Nothing is said where nobody has patched psycopg."""
    assert detect_patched_driver() is None
    assert explain_patched_driver() is None


def test_a_patch_is_found_and_explained(patched):
    """Who has patched psycopg, that it records nothing, and what to use instead."""
    package, who, tracer = patched
    assert detect_patched_driver() == package
    line = explain_patched_driver()
    assert who in line
    assert "records nothing of this engine" in line
    assert tracer in line


@pytest.mark.parametrize("owner", OWNERS, ids=lambda owner: owner.__name__)
@pytest.mark.parametrize("kind", ["function", "wrapt"])
def test_a_patch_of_any_library_is_found(monkeypatch, owner, kind):
    """Also a plain function in place of any of the three, by the module that it is defined in."""

    def connect(*arguments, **keywords):
        pytest.fail("called")

    connect.__module__ = "somebody.tracing"
    if kind == "function":
        monkeypatch.setattr(owner, "connect", connect)
    else:
        wrap_function_wrapper(owner, "connect", connect)
    assert detect_patched_driver() == "somebody"
    assert "somebody has patched psycopg.connect" in explain_patched_driver()


@pytest.mark.parametrize(
    ("make_tracer", "lines"),
    [
        (lambda: None, 1),
        (XRay, 1),
        (lambda: XRay("traced"), 0),
        (lambda: OpenTelemetry("all"), 0),
    ],
)
def test_an_engine_says_once_that_a_patch_records_nothing(patched, caplog, make_tracer, lines):
    """One WARNING while it is made, unless a tracer of lambdadb records statements."""
    tracer = make_tracer()  # not kept longer: `trace` opens blocks on every tracer there is
    engine = lambdadb.create_engine("postgresql+psycopg://app@127.0.0.1:1/shop", tracer=tracer)
    engine.dispose()
    warnings = [record for record in caplog.records if record.name == "lambdadb"]
    assert [record.levelname for record in warnings] == ["WARNING"] * lines
    assert all(patched[1] in record.message for record in warnings)


def connection(**info):
    return SimpleNamespace(closed=False, info=SimpleNamespace(**info))


def test_a_session_is_described_by_what_the_driver_reports():
    """The database, host, port and user of the session itself, and the error's SQLSTATE."""
    session = connection(dbname="orders", host="db.example.com", port=5433, user="app")
    assert describe_session(session, UniqueViolation("Key (email)=(ann@example.com)")) == {
        "db.system.name": "postgresql",
        "db.namespace": "orders",
        "server.address": "db.example.com",
        "server.port": 5433,
        "lambdadb.user": "app",
        "db.response.status_code": "23505",
    }


@pytest.mark.parametrize("session", [None, SimpleNamespace(closed=True)])
def test_a_session_that_is_closed_is_not_asked(session):
    """Of a closed connection psycopg knows nothing more."""
    assert describe_session(session, None) == {"db.system.name": "postgresql"}


def test_a_target_is_described_by_the_parameters():
    """Of a connect that fails there is no session: what was tried is told."""
    parameters = {"host": "a,b", "port": "5433,5434", "dbname": "orders", "user": "app"}
    assert describe_target({**parameters, "password": "secret"}) == {
        "db.system.name": "postgresql",
        "db.namespace": "orders",
        "server.address": "a,b",
        "server.port": 5433,
        "lambdadb.user": "app",
    }
    assert describe_target({}) == {"db.system.name": "postgresql", "server.port": 5432}
    assert describe_target({"port": ",5433"}) == {"db.system.name": "postgresql"}


@given(st.text(), st.text(), st.sampled_from(["er:{}@db/orders", "{}@db/orders", "{}@db", "er:{}"]))
def test_a_password_that_a_slip_in_the_url_has_moved_is_not_shown(start, end, slip):
    """`//us/er:password@host/db`: a name that holds `@` or `:` is left out."""
    misplaced = slip.format(f"{start}canary{end}")
    told = describe_target({"host": "us", "dbname": misplaced, "user": "app"})
    assert "canary" not in repr(told)
    if "@" in misplaced:
        assert "canary" not in repr(describe_target({"host": misplaced}))
