"""
`deadline_function=`: what a killed function leaves behind a proxy ends at its invocation's end.

A killed function sends no cancel, and RDS Proxy passes none on. So the server has to know the time
itself: a function sets it for the transaction, in the message that begins it.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from psycopg import generators, pq
from sqlalchemy import text

import lambdadb
from lambdadb import InvalidSettings
from lambdadb.lab.context import LambdaContext
from lambdadb.lab.rds_proxy import RdsProxy
from lambdadb.operate.deadline_function import make_deadline_function

from ..waiting import wait_until

FUNCTION = "lambdadb_deadline"
LIMITS = ("statement_timeout", "idle_in_transaction_session_timeout", "transaction_timeout")
ENDED = {b"57014", b"25P04"}  # by statement_timeout; by transaction_timeout, which PostgreSQL 17 has


@pytest.fixture
def function(admin):
    """The function is in the database."""
    admin.execute(make_deadline_function(FUNCTION))
    yield
    admin.execute(f"DROP FUNCTION IF EXISTS {FUNCTION}")


@pytest.fixture(params=["direct", "pgbouncer", "rds-proxy"])
def road(request, server, pgbouncer):
    """The server itself, or a proxy with one session of it; and its pins."""
    with ExitStack() as stack:
        if request.param == "direct":
            yield server.url(), []
        elif request.param == "pgbouncer":
            yield pgbouncer(pool_size=1).url(), []
        else:
            proxy = stack.enter_context(RdsProxy(server, sessions=1))
            yield proxy.url(), proxy.pins


def send_text(pgconn, statements):
    """All statements as one text of the simple protocol, as engines of ours send them."""
    pgconn.send_query(b";\n".join(statements))
    return (yield from generators.execute(pgconn))


def send_pipeline(pgconn, statements):
    """Each statement as messages of the extended protocol, without a wait between them."""
    pgconn.enter_pipeline_mode()
    for statement in statements:
        pgconn.send_query_params(statement, None)
    pgconn.pipeline_sync()
    yield from generators.send(pgconn)
    results = []
    while pgconn.status == pq.ConnStatus.OK:
        results += yield from generators.fetch_many(pgconn)
        if results[-1].status == pq.ExecStatus.PIPELINE_SYNC:
            return results[:-1]
    return results


@pytest.mark.parametrize("send", [send_text, send_pipeline])
def test_a_limit_that_a_function_sets_holds_for_the_next_statement(send, road, admin):
    """
    The experiment that the setting rests on, with statement_timeout alone.

    The statement has the limit although the text, or the pipeline, began before the limit was set. The
    session's next client finds nothing of it, and RDS Proxy's rules see no pin.
    """
    url, pins = road
    admin.execute(
        "CREATE OR REPLACE FUNCTION only_statements(milliseconds integer) RETURNS text LANGUAGE sql "
        "AS $$ SELECT set_config('statement_timeout', milliseconds::text, true) $$"
    )
    statements = [b"BEGIN", b"SELECT only_statements(100)", b"SELECT pg_sleep(600)"]
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as client:
        *_, last = client.wait(send(client.pgconn, statements))
        client.pgconn.finish()
        assert last.error_field(pq.DiagnosticField.SQLSTATE) == b"57014"
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as client:
        assert client.execute("SHOW statement_timeout").fetchone() == ("0",)
    assert pins == []


def test_a_transaction_has_the_limit_and_the_next_client_has_none(road, function, server):
    """All three limits, where the server has them; less than the invocation has left."""
    url, pins = road
    limited = lambdadb.create_engine(url, proxy=None, deadline_function=FUNCTION)
    other = lambdadb.create_engine(url)
    query = text("SELECT name, setting::int FROM pg_settings WHERE name = ANY(:names)")
    with lambdadb.invocation(limited, LambdaContext(30.0)):
        for _ in range(7):
            with limited.begin() as connection:
                found = connection.execute(query, {"names": list(LIMITS)}).all()
        assert all(0 < milliseconds < 30_000 for _, milliseconds in found)
        assert {name for name, _ in found} >= set(LIMITS[:2])
        with other.begin() as connection:
            assert connection.scalar(text("SHOW statement_timeout")) == "0"
    with limited.begin() as connection:  # outside of an invocation nothing limits it
        assert connection.scalar(text("SHOW statement_timeout")) == "0"
    limited.dispose()
    other.dispose()
    assert pins == []


def test_without_the_function_the_error_says_how_to_create_it(road, admin):
    """Nothing was executed, and the session serves the next client."""
    url, _ = road
    engine = lambdadb.create_engine(url, deadline_function="app.nothing")
    with lambdadb.invocation(engine, LambdaContext(30.0)):
        for way in (begin, lambdadb.run_transaction):
            with pytest.raises(InvalidSettings, match=r"lambdadb deadline --name app\.nothing"):
                way(engine, insert)
    with engine.begin() as connection:
        assert connection.scalar(text("SELECT count(*) FROM item")) == 0
    engine.dispose()


def begin(engine, work):
    with engine.begin() as connection:
        work(connection)


def insert(connection):
    connection.execute(text("INSERT INTO item (name) VALUES ('x')"))


RUNNING = (
    "SELECT pid, substring(query FROM '/\\* (.*) \\*/') FROM pg_stat_activity "
    "WHERE state = 'active' AND query LIKE '%pg_sleep(600) /*%' AND pid <> pg_backend_pid()"
)
NAMES = [f"{kind} {way}" for kind in ("sync", "async") for way in ("begin", "run_transaction")]


@pytest.mark.sweep
@pytest.mark.parametrize("kind", ["pgbouncer", "rds-proxy"])
def test_what_a_killed_or_frozen_function_left_ends_at_its_invocations_end(
    kind, function, server, admin, pgbouncer
):
    """By the server's own view. Without the function the same statement runs on."""
    seconds = 6.0
    with ExitStack() as stack:
        if kind == "pgbouncer":
            proxy = pgbouncer(pool_size=10)
        else:
            proxy = stack.enter_context(RdsProxy(server, sessions=10))
        script = Path(__file__).with_name("invocations.py")
        processes = {}
        for name in [*NAMES, "sync begin frozen", "sync begin without"]:
            used = "" if name.endswith("without") else FUNCTION
            command = [sys.executable, str(script), proxy.url(), name, kind, str(seconds), used]
            processes[name] = subprocess.Popen(command)
            stack.callback(processes[name].wait)
            stack.callback(processes[name].kill)
        signalled = set()

        def only_the_one_without_runs():
            running = find_running(admin)
            for name in running - signalled:
                frozen = name.endswith("frozen")
                processes[name].send_signal(signal.SIGSTOP if frozen else signal.SIGKILL)
                signalled.add(name)
            return signalled == set(processes) and running == {"sync begin without"}

        wait_until(only_the_one_without_runs, 120.0)
        admin.execute(f"SELECT pg_terminate_backend(pid) FROM ({RUNNING}) AS running")


def find_running(admin):
    """The names of the processes whose statement the server runs."""
    return {name for _, name in admin.execute(RUNNING)}
