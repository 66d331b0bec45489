"""
Requests to cancel a statement.
"""

from __future__ import annotations

import contextlib
import selectors
from collections.abc import Callable

import psycopg
from psycopg import pq
from psycopg.pq.abc import PGconn

from lambdadb.background import run_detached
from lambdadb.deadline import Clock

WAITING: dict[int, int] = {
    pq.PollingStatus.READING: selectors.EVENT_READ,
    pq.PollingStatus.WRITING: selectors.EVENT_WRITE,
}
CANCEL = 5.0  # seconds after which the thread that cancels gives up


def prepare_cancel(pgconn: PGconn, clock: Clock) -> Callable[[], None]:
    """
    Return a function that asks the server to cancel the running statement.

    It does so in a thread and on a connection of its own, also after this connection was closed. libpq's
    older PQcancel is used only if there is nothing else, because psycopg calls it without letting other
    threads run. This connection is not used again, whether or not the cancel arrives.
    """
    try:
        cancel = pgconn.cancel_conn()
    except psycopg.NotSupportedError:  # libpq before 17 has nothing else
        return _in_thread(pgconn.get_cancel().cancel)

    def run() -> None:
        end = clock.now() + CANCEL
        try:
            cancel.start()
            while event := WAITING.get(cancel.poll()):
                if not Clock().wait({cancel.socket: event}, end - clock.now()):
                    break
        finally:
            cancel.finish()

    return _in_thread(run)


def _in_thread(cancel: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        with contextlib.suppress(psycopg.OperationalError):
            cancel()

    return lambda: run_detached(run)
