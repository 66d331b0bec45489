"""
`wake`: start the resume of a paused database, and return without waiting for its end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Engine

from lambdadb.errors import ConnectFailed, DatabaseResuming, InvalidSettings
from lambdadb.faults import Fault
from lambdadb.pool import GuardedPool


@dataclass(frozen=True, kw_only=True)
class DatabaseState:
    """What an attempt to connect has shown of a database."""

    state: Literal["awake", "resuming", "unanswered"]
    """
    `resuming`: it is waking up, from now on or already before. `unanswered`: nothing came from the
    network in time; it may be waking up.
    """
    retry_after: int | None
    """Whole seconds after which it should be awake; None if it is."""

    @property
    def awake(self) -> bool:
        """Whether it answers."""
        return self.state == "awake"


def wake(engine: Engine, *, within: float = 1.0) -> DatabaseState:
    """
    Start the resume of a paused database, and return at once with its state.

    Any attempt to connect wakes an auto-pausing cluster, and its resume goes on after the attempt. Call
    it from a front end's first request, from a schedule, or before a deployment; later connects find the
    database awake or wait for less time. It uses a session of its own, which it closes, and not the
    engine's pool.

    Args:
        engine: Made by lambdadb. `lambdadb.aio.wake` takes an asynchronous one.
        within: Seconds to wait for an answer. A database that is awake usually answers in less than 0.1.

    Raises:
        InvalidSettings: The engine was not made by lambdadb, or is asynchronous.
        ConnectFailed: The login was refused or could not be read, or the address is wrong.
        OutOfTime: The running invocation has no time left; nothing was sent.

    **Costs:** one connect, with the round trips of its login; at most `within` seconds. The seconds that
    a resume takes are published: 15, and 30 or more after a day of pause (Aurora User Guide).
    """
    pool = getattr(engine, "pool", None)
    if not isinstance(pool, GuardedPool) or not isinstance(engine, Engine):
        raise InvalidSettings(
            f"wake() got {type(engine).__name__}: use an engine of lambdadb.create_engine, and "
            "lambdadb.aio.wake for one of lambdadb.aio.create_async_engine."
        )
    connector = pool.connector
    assert connector.target is not None  # set while the engine was made
    try:
        connection = connector.connect(connector.target, within=within)
    except DatabaseResuming as error:
        return DatabaseState(state="resuming", retry_after=error.retry_after)
    except ConnectFailed as error:
        if error.fault is Fault.EXHAUSTED:  # it has answered, although it has no free connection
            return DatabaseState(state="awake", retry_after=None)
        if error.retry_after is None:
            raise
        return DatabaseState(state="unanswered", retry_after=error.retry_after)
    engine.dialect.do_close(connection)
    return DatabaseState(state="awake", retry_after=None)
