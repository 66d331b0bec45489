"""Connects of one engine that are refused at the same time, before anybody knows of the proxy."""

from __future__ import annotations

import threading

from sqlalchemy import text

import lambdadb
from lambdadb import PerEnvironment


def test_every_one_of_them_tries_again(pgbouncer):
    """The first refusal shows the proxy. The others come from attempts that had begun before."""
    engine = lambdadb.create_engine(pgbouncer().url(), policy=PerEnvironment(connections=4))
    together = threading.Barrier(4)
    found = []

    def connect():
        together.wait(30.0)
        with engine.connect() as connection:
            found.append(connection.execute(text("SELECT 1")).scalar_one())
            together.wait(30.0)

    threads = [threading.Thread(target=connect) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.dispose()
    assert found == [1, 1, 1, 1]
