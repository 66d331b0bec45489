"""The server's view of the sessions of one database."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

BESIDE = "lambdadb.testing"  # the application_name of sessions beside the tested ones
Ask = Callable[..., "list[tuple[Any, ...]]"]


class Session(NamedTuple):
    """One session, as the server sees it. `application_name` is the tag, also with MySQL."""

    pid: int
    application_name: str
    state: str


class Sessions(ABC):
    """
    The sessions of one database, as its server sees them; not those of the fixtures.

    A session leaves the server's view a moment after its connection was closed. `become` waits for it.
    """

    @abstractmethod
    def __call__(self) -> list[Session]:
        """Those that are open now."""

    @abstractmethod
    def terminate(self, *, besides: int | None = None) -> None:
        """End all of them, as an operator or a failover would, or all but the one with this pid."""

    def become(self, count: int, seconds: float = 10.0) -> list[Session]:
        """
        Wait until there are `count`, and return them.

        Raises:
            AssertionError: There is another number of them, `seconds` later.
        """
        end = time.monotonic() + seconds
        while len(now := self()) != count:
            if time.monotonic() >= end:
                raise AssertionError(f"{len(now)} sessions instead of {count}: {now}")
            time.sleep(0.01)
        return now


class PostgresSessions(Sessions):
    """
    The sessions of one PostgreSQL database.

    Args:
        ask: Runs a statement with parameters in a session on another database, and returns its rows.
        database: The database.
        network: Seconds that the end of a connection needs to arrive at this process.
    """

    def __init__(self, ask: Ask, database: str, *, network: float = 0.0) -> None:
        self._ask = ask
        self._database = database
        self._network = network

    def __call__(self) -> list[Session]:
        """Those that are open now."""
        query = "SELECT pid, application_name, state FROM pg_stat_activity"
        query = f"{query} WHERE datname = %s AND application_name <> %s"
        return [Session(*row) for row in self._ask(query, [self._database, BESIDE])]

    def terminate(self, *, besides: int | None = None) -> None:
        """End all of them, as an operator or a failover would, or all but the one with this pid."""
        query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
        self._ask(f"{query} AND pid IS DISTINCT FROM %s", [self._database, besides])
        self.become(0 if besides is None else 1)
        time.sleep(self._network)

    def wait_for_statement(self, statement: str, seconds: float = 30.0) -> None:
        """
        Wait until one of them runs it.

        Raises:
            AssertionError: None does, `seconds` later.
        """
        query = "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND state = 'active' AND query = %s"
        end = time.monotonic() + seconds
        while not self._ask(query, [self._database, statement]):
            if time.monotonic() >= end:
                raise AssertionError(f"no session runs {statement}")
            time.sleep(0.01)
