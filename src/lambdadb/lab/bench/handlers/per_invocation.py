"""lambdadb's `PerInvocation`: one connection per invocation, closed at its end."""

from __future__ import annotations

import os
import time

import experiment
from sqlalchemy import text

import lambdadb

INSERT = text(experiment.INSERT_SQLALCHEMY)
cost = experiment.Connects()
engine = lambdadb.create_engine(
    os.environ["DATABASE_URL"],
    policy=lambdadb.PerInvocation(),
    credentials=experiment.credentials(),
    tracer=cost,
)


@lambdadb.handler(engine)
def handler(event: object, context: object) -> dict[str, object]:  # noqa: ARG001 Lambda's own
    """Insert one row."""
    cost.begin()
    row = experiment.random_row()
    started = time.perf_counter()
    with engine.begin() as connection:
        new_id = connection.execute(INSERT, row).scalar_one()
    elapsed = time.perf_counter() - started
    return experiment.log(elapsed, new_id, "per_invocation", cost)
