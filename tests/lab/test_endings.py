"""What is left on the server after each way in which an invocation can end, in real processes."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import psycopg
import pytest

from lambdadb.lab.environment import Environment, FunctionError, FunctionTimeout
from lambdadb.lab.postgres import Postgres

# Minutes in all: `nox -s sweep` runs them.
pytestmark = pytest.mark.sweep

FUNCTION = """
import os, time
import lambdadb
from sqlalchemy import text


policy = getattr(lambdadb, os.environ["POLICY"])(idle_session_timeout=float(os.environ["IDLE"]))
engine = lambdadb.create_engine(os.environ["DATABASE_URL"], policy=policy)
kept = []

@lambdadb.handler(engine)
def handler(event, context):
    if event == "leak":
        kept.append(engine.connect())
        kept[-1].execute(text("CREATE TEMP TABLE t ()"))
        return
    with engine.begin() as connection:
        connection.execute(text("SELECT 1"))
        if event == "raise":
            raise ValueError("mine")
        if event == "statement":
            connection.execute(text("SELECT pg_sleep(60)"))
        if event == "compute":
            time.sleep(60)
    return connection.closed
"""

ENDINGS = {
    # how it ends: the error, and the sessions left by PerEnvironment and by PerInvocation
    "return": (None, 1, 0),
    "raise": (FunctionError, 1, 0),
    "leak": (None, 0, 0),
    "statement": (FunctionError, 0, 0),  # OutOfTime
    "compute": (FunctionTimeout, 0, 0),  # Lambda's own timeout
    "sigkill": (FunctionError, 0, 0),
}


def sessions(postgres: Postgres, name: str) -> list[str]:
    with psycopg.connect(postgres.url().replace("+psycopg", "")) as connection:
        rows = connection.execute(
            "SELECT state FROM pg_stat_activity WHERE application_name = %s", [name]
        ).fetchall()
    return [state for (state,) in rows]


def become(postgres: Postgres, name: str, count: int, seconds: float = 10.0) -> list[str]:
    end = time.monotonic() + seconds
    while len(found := sessions(postgres, name)) != count:
        assert time.monotonic() < end, f"{found} instead of {count} sessions"
        time.sleep(0.02)
    return found


def environment(postgres: Postgres, folder: Path, policy: str, idle: float) -> Environment:
    (folder / "function.py").write_text(FUNCTION)
    return Environment(
        "function.handler",
        function_name=f"{policy}-{folder.name}",
        timeout=4.0,
        path=[folder],
        environment={"DATABASE_URL": postgres.url(), "POLICY": policy, "IDLE": str(idle)},
    )


@pytest.mark.parametrize("policy", ["PerEnvironment", "PerInvocation"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_what_an_invocation_leaves(policy: str, ending: str, postgres: Postgres, tmp_path: Path) -> None:
    """Whatever the ending: nothing but the one idle session that PerEnvironment promises to keep."""
    error, *left = ENDINGS[ending]
    name = f"{policy}-{tmp_path.name}"
    with environment(postgres, tmp_path, policy, 60.0) as function:
        function.invoke("return")
        if ending == "sigkill":
            killer = threading.Timer(0.5, lambda: os.kill(function.pid, signal.SIGKILL))
            killer.start()
        if error is None:
            function.invoke(ending)
        else:
            with pytest.raises(error):
                function.invoke("compute" if ending == "sigkill" else ending)
        assert set(become(postgres, name, left[policy == "PerInvocation"])) <= {"idle"}
        function.invoke("return")  # and the next invocation works


def test_a_frozen_environment_loses_its_session_and_the_handler_notices_nothing(
    postgres: Postgres, tmp_path: Path
) -> None:
    """The server ends the session of a frozen environment; thawed, it connects again."""
    with environment(postgres, tmp_path, "PerEnvironment", 1.0) as function:
        for _ in range(3):
            function.invoke("return")
            assert function.frozen
            become(postgres, f"PerEnvironment-{tmp_path.name}", 0)
