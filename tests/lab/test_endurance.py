"""What an environment keeps and burns over time: memory, descriptors, threads, and waits."""

from __future__ import annotations

import math
import time
from pathlib import Path
from statistics import median

import psycopg
import pytest
from sqlalchemy import text

import lambdadb
from lambdadb.lab.aurora import Cluster, Shape
from lambdadb.lab.context import LambdaContext
from lambdadb.lab.environment import Environment
from lambdadb.lab.postgres import Postgres

pytestmark = pytest.mark.sweep

FUNCTION = """
import gc
import os
import threading

import lambdadb
from sqlalchemy import text

engine = lambdadb.create_engine(os.environ["DATABASE_URL"], policy=lambdadb.{policy}())


def insert(connection, number):
    return connection.scalar(text("SELECT pg_backend_pid() WHERE :number >= 0"), {{"number": number}})


@lambdadb.handler(engine)
def handler(event, context):
    pid = lambdadb.run_transaction(engine, lambda connection: insert(connection, event))
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    if event % 1_000 == 999:
        gc.collect()
    return {{
        "pid": pid,
        "objects": len(gc.get_objects()) if event % 1_000 == 999 else 0,
        "kilobytes": pages * os.sysconf("SC_PAGE_SIZE") // 1024,
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
    }}
"""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("policy", ["PerEnvironment", "PerInvocation"])
def test_ten_thousand_invocations_leave_an_environment_as_it_was(
    policy: str, postgres: Postgres, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Memory, descriptors and threads stay what they were, also when sessions are ended now and then."""
    (tmp_path / "function.py").write_text(FUNCTION.format(policy=policy))
    environment = Environment(
        "function.handler",
        function_name="endurance",
        path=[tmp_path],
        environment={"DATABASE_URL": postgres.url()},
    )
    seen: list[dict[str, int]] = []
    with environment, psycopg.connect(postgres.url().replace("+psycopg", ""), autocommit=True) as admin:
        for number in range(10_000):
            seen.append(environment.invoke(number))
            if number % 500 == 250:
                admin.execute("SELECT pg_terminate_backend(%s)", [seen[-1]["pid"]])
    early, last = seen[1_000:2_000], seen[-1_000:]
    for name in ("descriptors", "threads"):
        assert max(one[name] for one in last) <= max(one[name] for one in early)
    figures = {name: (seen[1_999][name], seen[-1][name]) for name in seen[0] if name != "pid"}
    with capsys.disabled():
        print(f"\n{policy}, after 2,000 and 10,000 invocations: {figures}")
    assert seen[-1]["objects"] - seen[1_999]["objects"] < 500
    assert seen[-1]["kilobytes"] - seen[1_999]["kilobytes"] < 4096  # Python's allocator takes some


@pytest.mark.parametrize("shape", [Shape.HOLD, Shape.STARTING, Shape.SILENT])
def test_waiting_for_a_resume_costs_less_than_a_hundredth_of_a_processor(
    shape: Shape, postgres: Postgres, capsys: pytest.CaptureFixture[str]
) -> None:
    """A connect that waits for a database to wake up sleeps; its attempts cost next to nothing."""
    lambdadb.create_engine(postgres.url()).connect().close()  # imports are no part of a wait
    with Postgres() as own, Cluster(own, resume=12.0, shape=shape, paused=True) as cluster:
        engine = lambdadb.create_engine(cluster.url())
        # The cluster runs in a thread of this process: only this thread's time counts.
        began, used = time.monotonic(), time.thread_time()
        engine.connect().close()
        waited, used = time.monotonic() - began, time.thread_time() - used
        engine.dispose()
    with capsys.disabled():
        print(f"\nresume, {shape.value}: {1000 * used / waited:.2f} ms of a processor in each second")
    assert waited > 10.0
    assert used / waited < 0.01


def test_waiting_for_a_statement_costs_less_than_a_hundredth_of_a_processor(
    postgres: Postgres, capsys: pytest.CaptureFixture[str]
) -> None:
    """A statement with a deadline is waited for without a thread, and nearly without a processor."""
    engine = lambdadb.create_engine(postgres.url())
    with lambdadb.invocation(engine, LambdaContext(30.0)), engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        used = time.process_time()
        connection.execute(text("SELECT pg_sleep(5)"))
        used = time.process_time() - used
    engine.dispose()
    with capsys.disabled():
        print(f"\nstatement: {1000 * used / 5:.2f} ms of a processor in each second")
    assert used / 5 < 0.01


@pytest.mark.parametrize("policy", ["PerEnvironment", "PerInvocation"])
def test_sigterm_is_done_within_100_milliseconds(
    policy: str, postgres: Postgres, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From SIGTERM to the end of the process, which closes its session; Lambda gives it 300 ms."""
    (tmp_path / "function.py").write_text(FUNCTION.format(policy=policy))
    took = []
    for _ in range(20):
        # AWS's runtime client waits in a thread, so that handlers of signals run, since Python 3.12.
        variables = {"DATABASE_URL": postgres.url(), "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13"}
        with Environment(
            "function.handler", function_name="endurance", path=[tmp_path], environment=variables
        ) as environment:
            environment.invoke(0)
            ended = environment.shut_down()  # None: it was killed after 0.3 s, as Lambda does
            took.append(math.inf if ended is None else ended)
    with capsys.disabled():
        print(
            f"\nSIGTERM, {policy}: median {1000 * median(took):.0f} ms, least {1000 * min(took):.0f} ms"
        )
    assert min(took) < 0.1  # a busy machine makes the others slower
