"""As published: a new psycopg connection in each invocation, closed at its end; no retry."""

from __future__ import annotations

import os
import time

import experiment
import psycopg

URL = os.environ["DATABASE_URL"].replace("postgresql+psycopg://", "postgresql://", 1)


def handler(event: object, context: object) -> dict[str, object]:  # noqa: ARG001 Lambda's own
    """Insert one row."""
    row = experiment.random_row()
    started = time.perf_counter()
    connection = psycopg.connect(URL, **experiment.login())
    try:
        with connection.cursor() as cursor:
            cursor.execute(experiment.INSERT_PSYCOPG, row)
            inserted = cursor.fetchone()
        connection.commit()
        elapsed = time.perf_counter() - started
    finally:
        connection.close()
    assert inserted is not None
    return experiment.log(elapsed, inserted[0], "handwritten", experiment.Connects(connects=1))
