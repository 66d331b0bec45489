"""Random schedules of threads or tasks on PostgreSQL, against a model of the rows."""

from __future__ import annotations

import psycopg
import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import text

from lambdadb import PerEnvironment, PerInvocation

from ..schedules import Tasks, Threads, schedule


class Server:
    """The database of the test."""

    insert = text("INSERT INTO item (name) VALUES (:name)")

    def __init__(self, database, sessions):
        self.url = database
        self.become = sessions.become
        self.terminate = sessions.terminate
        self.count = lambda: len(sessions())
        self._dsn = database.set(drivername="postgresql").render_as_string(hide_password=False)

    def rows(self):
        with psycopg.connect(self._dsn) as reader:
            return [name for (name,) in reader.execute("SELECT name FROM item")]

    def empty(self):
        with psycopg.connect(self._dsn, autocommit=True) as cleaner:
            cleaner.execute("TRUNCATE item")


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "policy", [PerEnvironment(), PerInvocation()], ids=["environment", "invocation"]
)
@pytest.mark.parametrize("kind", [Threads, Tasks])
def test_any_schedule_keeps_the_rows(kind, policy, database, sessions):
    """No schedule loses a committed row, keeps another, mixes two holders or leaves a session behind."""
    run_state_machine_as_test(
        schedule(kind, policy, Server(database, sessions)),
        settings=settings(max_examples=6, stateful_step_count=20, deadline=None),
    )
