"""
The processes of a real fleet: one that imports everything, and a forked one for each environment.

They share the memory of what was imported, so that hundreds fit into one machine.
"""

from __future__ import annotations

import gc
import importlib
import json
import logging
import os
import signal
import sys
import time
from random import SystemRandom
from typing import Any

import psycopg
from sqlalchemy import text

import lambdadb
from lambdadb.lab.fleet.clients import CONNECT_TIMEOUT, LOOPS
from lambdadb.policy import Policy
from lambdadb.tracing import Span, Tracer


class CountAttempts(Tracer):
    """Remembers the attempts of the last connect."""

    attempts = 0

    def record(self, span: Span) -> None:
        """Take a span."""
        self.attempts = int(span.attributes.get("lambdadb.attempts", self.attempts))


class Context:
    """Lambda's context: the time that is left."""

    def __init__(self, timeout: float) -> None:
        self._end = time.monotonic() + timeout

    def get_remaining_time_in_millis(self) -> float:
        """Return the milliseconds left."""
        return max(self._end - time.monotonic(), 0.0) * 1000.0


def main() -> None:
    """Start the environments that the variable FLEET describes, and wait to be ended."""
    plan = json.loads(os.environ["FLEET"])
    for name in ("AWS_LAMBDA_FUNCTION_NAME", "FLEET"):
        os.environ.pop(name, None)
    logging.getLogger("lambdadb").setLevel(logging.CRITICAL)  # only lines of JSON are expected
    # An environment of Lambda has a processor of its own. Here they share one, so what each would import
    # again is imported first: the dialect, the connector, the loop of its retries.
    importlib.import_module("tenacity")
    lambdadb.create_engine(plan["url"]).dispose()
    gc.collect()
    gc.freeze()
    began = time.monotonic() + 0.2 + 0.003 * plan["environments"]  # when all have been forked
    for number in range(plan["environments"]):
        if os.fork() == 0:
            live(plan, began + number / plan["starts_per_second"])
    while True:
        signal.pause()


def live(plan: dict[str, Any], start: float) -> None:
    """One environment with one invocation. It keeps its session, if the policy does, until its end."""
    time.sleep(max(start - time.monotonic(), 0.0))
    began = time.monotonic()
    connect = with_lambdadb if plan["client"] == "lambdadb" else with_loop
    error = ""
    connected = None
    try:
        connected, attempts, kept = connect(plan, began)
    except (lambdadb.LambdaDBError, psycopg.OperationalError) as failure:
        attempts, kept, error = getattr(failure, "attempts", 0), None, type(failure).__name__
    ended = time.monotonic()
    line = {"began": began, "connected": connected, "ended": ended, "attempts": attempts, "error": error}
    os.write(1, json.dumps(line).encode() + b"\n")
    while kept is not None:
        signal.pause()
    os._exit(0)


def with_lambdadb(plan: dict[str, Any], began: float) -> tuple[float, int, object]:
    """Connect with lambdadb."""
    del began
    policies: dict[str, type[Policy]] = {
        "per-environment": lambdadb.PerEnvironment,
        "per-invocation": lambdadb.PerInvocation,
    }
    tracer = CountAttempts()
    engine = lambdadb.create_engine(plan["url"], policy=policies[plan["policy"]](), tracer=tracer)
    with lambdadb.invocation(engine, Context(plan["timeout"])), engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        connected = time.monotonic()
        time.sleep(plan["work"] * SystemRandom().uniform(0.5, 1.5))
    return connected, tracer.attempts, engine if plan["policy"] == "per-environment" else None


def with_loop(plan: dict[str, Any], began: float) -> tuple[float, int, object]:
    """Connect with psycopg in a loop."""
    pauses, longest = LOOPS[plan["client"]]
    end = began + min(plan["timeout"] - 1.0, longest)
    url = plan["url"].replace("+psycopg", "")
    attempts = 0
    for pause in pauses(SystemRandom()):
        attempts += 1
        try:
            connection = psycopg.connect(url, connect_timeout=int(CONNECT_TIMEOUT), autocommit=True)
            break
        except psycopg.OperationalError:
            if time.monotonic() + pause >= end:
                raise
        time.sleep(pause)
    connection.execute("SELECT 1")
    connected = time.monotonic()
    time.sleep(plan["work"] * SystemRandom().uniform(0.5, 1.5))
    if plan["policy"] == "per-environment":
        return connected, attempts, connection
    connection.close()
    return connected, attempts, None


if __name__ == "__main__":
    main()
    sys.exit(1)
