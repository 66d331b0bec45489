"""Migrate a database that may be asleep, one deployment at a time: for env.py, and as a function."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

from lambdadb import PerInvocation, ResumeRetry, create_engine, handler

WAIT = float(os.environ.get("MIGRATION_WAIT", "120"))  # seconds: for the cluster, and for the lock
engine = create_engine(
    os.environ["DATABASE_URL"], policy=PerInvocation(), retry=ResumeRetry(timeout=WAIT)
)
LOCK = text("SELECT pg_try_advisory_lock(hashtext('alembic'))")


@contextmanager
def open_connection() -> Iterator[Connection]:
    """Open the one connection, with the lock and a limit for other locks."""
    with engine.connect() as connection:
        take_lock(connection)
        connection.execute(text("SET lock_timeout = '5s'"))
        connection.commit()
        yield connection


def take_lock(connection: Connection) -> None:
    """
    Wait until no other deployment migrates.

    It asks again and again. Waiting in `pg_advisory_lock` would hold a snapshot, and the other one may
    be at CREATE INDEX CONCURRENTLY, which waits for all snapshots: a deadlock.
    """
    end = time.monotonic() + WAIT
    while not connection.scalar(LOCK):
        connection.rollback()
        if time.monotonic() >= end:
            raise TimeoutError(f"Another deployment migrates this database, for {WAIT:g} s by now.")
        time.sleep(0.5)


@handler(engine)
def lambda_handler(event: object, context: object) -> None:
    command.upgrade(Config(Path(__file__).with_name("alembic.ini")), "head")
