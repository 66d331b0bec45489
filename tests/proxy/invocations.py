"""A function's process, which is killed or frozen inside a transaction: test_deadline_function.py."""

from __future__ import annotations

import asyncio
import sys

from sqlalchemy import text
from sqlalchemy.util import await_only, greenlet_spawn

import lambdadb
import lambdadb.aio
from lambdadb import ResumeRetry
from lambdadb.lab.context import LambdaContext


def work(connection) -> None:
    """Run a statement that takes longer than any test."""
    connection.execute(text(f"SELECT pg_sleep(600) /* {sys.argv[2]} */"))


def begin(engine) -> None:
    """The plain way."""
    with engine.begin() as connection:
        work(connection)


def main(url: str, name: str, proxy: str, seconds: float, function: str) -> None:
    """Run the statement in an invocation; `name` says in which way."""
    kind, way = name.split()[:2]
    settings = {
        "proxy": proxy,
        "deadline_function": function or None,
        "retry": ResumeRetry(reserve=1.0),
    }
    run = lambdadb.run_transaction if way == "run_transaction" else lambda engine, _: begin(engine)
    if kind == "sync":
        engine = lambdadb.create_engine(url, **settings)
        engine.connect().close()
        with lambdadb.invocation(engine, LambdaContext(seconds)):
            run(engine, work)
        return
    aengine = lambdadb.aio.create_async_engine(url, **settings)

    def steps() -> None:
        engine = aengine.sync_engine
        engine.connect().close()
        around = lambdadb.invocation(aengine, LambdaContext(seconds))
        await_only(around.__aenter__())
        run(engine, work)

    asyncio.run(greenlet_spawn(steps))


if __name__ == "__main__":
    main(*sys.argv[1:4], float(sys.argv[4]), sys.argv[5])
