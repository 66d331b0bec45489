"""SQLAlchemy as its tutorial shows it: an engine at module level with the default pool."""

from __future__ import annotations

import os
import time

import experiment
from sqlalchemy import create_engine, event, text

INSERT = text(experiment.INSERT_SQLALCHEMY)
engine = create_engine(os.environ["DATABASE_URL"])
cost = experiment.Connects()


@event.listens_for(engine, "connect")
def count(dbapi_connection: object, record: object) -> None:  # noqa: ARG001 SQLAlchemy's own
    """Count what the pool opens."""
    cost.connects += 1


@event.listens_for(engine, "do_connect")
def read_login(
    _dialect: object, _record: object, _arguments: object, parameters: dict[str, object]
) -> None:
    """Read the login at each connect, as SQLAlchemy's documentation shows it."""
    parameters.update(experiment.login())


def handler(event: object, context: object) -> dict[str, object]:  # noqa: ARG001 Lambda's own
    """Insert one row."""
    cost.begin()
    row = experiment.random_row()
    started = time.perf_counter()
    with engine.begin() as connection:
        new_id = connection.execute(INSERT, row).scalar_one()
    elapsed = time.perf_counter() - started
    return experiment.log(elapsed, new_id, "defaults", cost)
