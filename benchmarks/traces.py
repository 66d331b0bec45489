"""
What tracing adds to a warm invocation: one SELECT in a transaction, in microseconds and as ratios.

Each row is a function of its own under AWS's runtime client. The functions take turns, one at a time.
The time is taken inside the function, so the runtime's part of an invocation is left out; with it the
ratios would be smaller. The second row repeats the first one: their ratio is noise.

    nox -s traces
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import socket
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import sqlalchemy

import lambdadb

ROUNDS, TURNS, BATCHES, TIMES = 7, 5, 40, 10
# For each row: the tracing of the function, whether invocations are sampled, the row to compare with.
ROWS = {
    "no tracer": ("", 1, "no tracer"),
    "no tracer, again": ("", 1, "no tracer"),
    "XRay(), not sampled": ("none", 0, "no tracer"),
    "XRay('all'), not sampled": ("all", 0, "no tracer"),
    "the SDK's begin_subsegment, end_subsegment": ("sdk", 1, "no tracer"),
    "XRay('all')": ("all", 1, "the SDK's begin_subsegment, end_subsegment"),
    "XRay('all') beside the SDK": ("all sdk", 1, "the SDK's begin_subsegment, end_subsegment"),
}
SELECT = sqlalchemy.text("SELECT 1")


def run_unit(engine: sqlalchemy.Engine) -> None:
    """A warm invocation."""
    with lambdadb.invocation(engine), engine.begin() as connection:
        connection.execute(SELECT)


def run_with_sdk(engine: sqlalchemy.Engine) -> None:
    """A warm invocation that traces the query by hand, with the SDK."""
    from aws_xray_sdk.core import xray_recorder

    with lambdadb.invocation(engine), engine.begin() as connection:
        xray_recorder.begin_subsegment("query")
        connection.execute(SELECT)
        xray_recorder.end_subsegment()


def make_handler() -> Any:
    """The function of the row that the variable ROW names."""
    from lambdadb.tracing.xray import XRay

    statements, _, sdk = os.environ["ROW"].partition(" ")
    if "sdk" in (statements, sdk):
        importlib.import_module("aws_xray_sdk.core")
    tracers = {"all": XRay("all"), "none": XRay("none")}
    tracer = tracers.get(statements)
    engine = lambdadb.create_engine(os.environ["DATABASE_URL"], tracer=tracer)
    work = run_with_sdk if statements == "sdk" else run_unit

    def batch() -> float:
        began = time.perf_counter()
        for _ in range(TIMES):
            work(engine)
        return (time.perf_counter() - began) / TIMES * 1e6

    def handler(*_: object) -> dict[str, Any]:
        # Other work on the machine can only make a batch slower: the fastest one is taken.
        microseconds = min(batch() for _ in range(BATCHES))
        return {"microseconds": microseconds, "sdk": "aws_xray_sdk" in sys.modules}

    return handler


if "ROW" in os.environ:
    lambda_handler = make_handler()


def measure() -> tuple[dict[str, list[float]], dict[str, bool]]:
    """Microseconds by row and turn, and whether the SDK was imported."""
    from lambdadb.lab.environment import Environment, new_trace_id
    from lambdadb.lab.postgres import Postgres

    with ExitStack() as stack:
        server = stack.enter_context(Postgres())
        # It receives datagrams and drops them. The real daemon works in a process of its own.
        daemon = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        daemon.bind(("127.0.0.1", 0))
        functions = {
            row: stack.enter_context(
                Environment(
                    "traces.lambda_handler",
                    function_name="traces",
                    path=[Path(__file__).parent],
                    environment={
                        "ROW": has,
                        "DATABASE_URL": server.url(),
                        "AWS_XRAY_DAEMON_ADDRESS": "{}:{}".format(*daemon.getsockname()),
                    },
                )
            )
            for row, (has, _, _) in ROWS.items()
        }
        times: dict[str, list[float]] = {row: [] for row in ROWS}
        imported: dict[str, bool] = {}
        for turn in range(ROUNDS * TURNS + 1):
            for row, environment in functions.items():
                trace_id = new_trace_id().replace("Sampled=1", f"Sampled={ROWS[row][1]}")
                answer: Any = environment.invoke(None, trace_id=trace_id)
                imported[row] = answer["sdk"]
                if turn:  # the first one warms up
                    times[row].append(answer["microseconds"])
        return times, imported


def take_fastest(times: list[float]) -> list[float]:
    """The fastest turn of each round: other work on the machine can only add to it."""
    return [min(times[turn : turn + TURNS]) for turn in range(0, ROUNDS * TURNS, TURNS)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="every turn, as JSON")
    wants_json = parser.parse_args().json
    times, imported = measure()
    if wants_json:
        print(json.dumps({"microseconds": times, "sdk_imported": imported}))
        return
    for row, (_, _, other) in ROWS.items():
        pairs = list(zip(take_fastest(times[row]), take_fastest(times[other]), strict=True))
        ratios = sorted(one / than for one, than in pairs)
        print(
            f"{row:43} {statistics.median(one for one, _ in pairs):5.0f} us, "
            f"{statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f}) times {other}; "
            f"SDK imported: {'yes' if imported[row] else 'no'}"
        )


if __name__ == "__main__":
    main()
