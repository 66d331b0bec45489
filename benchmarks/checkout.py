"""
What a checkout and its return cost beside SQLAlchemy's StaticPool: microseconds, and their ratio.

Both engines use the same embedded server, in turns; a checkout of lambdadb also looks at the socket.

    nox -s checkout
"""

from __future__ import annotations

import statistics
import time

import sqlalchemy
from sqlalchemy.pool import StaticPool

import lambdadb
from lambdadb.lab.postgres import Postgres

ROUNDS, TIMES = 15, 3000


def microseconds(engine: sqlalchemy.Engine) -> float:
    """The mean of many checkouts and returns of a warm engine."""
    engine.raw_connection().close()
    started = time.perf_counter()
    for _ in range(TIMES):
        engine.raw_connection().close()
    return (time.perf_counter() - started) / TIMES * 1e6


def main() -> None:
    with Postgres() as server:
        for reset in ("rollback", None):
            static = sqlalchemy.create_engine(
                server.url(), poolclass=StaticPool, pool_reset_on_return=reset
            )
            guarded = lambdadb.create_engine(server.url(), pool_reset_on_return=reset)
            pairs = [(microseconds(static), microseconds(guarded)) for _ in range(ROUNDS)]
            ratios = sorted(ours / theirs for theirs, ours in pairs)
            theirs, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
            print(
                f"reset_on_return={reset}: StaticPool {theirs:.2f}, lambdadb {ours:.2f}, "
                f"ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            )
            static.dispose()
            guarded.dispose()


if __name__ == "__main__":
    main()
