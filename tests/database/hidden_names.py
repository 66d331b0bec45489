"""
Use an engine where one private name of psycopg or SQLAlchemy is called otherwise, as after a release
that renamed it. Run as a process of its own: `python hidden_names.py URL NAME...`; prints a JSON object
for each name.

Each name has a process, forked from one in which all that knows no such name is imported already.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import sys
import time
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder, SourceFileLoader

import sqlalchemy
import sqlalchemy.ext.asyncio

RENAMED = ("psycopg", "sqlalchemy.dialects.postgresql")


class Renaming(SourceFileLoader):
    """Loads a module in which a name is another one, wherever it stands."""

    name_to_hide = ""

    def get_code(self, fullname):
        source = self.get_data(self.path).decode()
        changed = re.sub(rf"\b{self.name_to_hide}\b", f"{self.name_to_hide}_renamed", source)
        return compile(changed, self.path, "exec", dont_inherit=True)


class Finder(MetaPathFinder):
    """Finds the modules that are renamed in."""

    def find_spec(self, fullname, path=None, target=None):
        if not any(fullname == name or fullname.startswith(f"{name}.") for name in RENAMED):
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = Renaming(spec.loader.name, spec.loader.path)
        return spec


class Context:
    """A Lambda context with so many seconds left."""

    def __init__(self, seconds):
        self._ends = time.monotonic() + seconds

    def get_remaining_time_in_millis(self):
        return max(0, round((self._ends - time.monotonic()) * 1000))


def use(engine, around):
    """A transaction, a session that is reset, what SQLAlchemy has learnt, a deadline that is kept."""
    import lambdadb

    with engine.begin() as connection:
        one = connection.execute(sqlalchemy.text("SELECT :n AS n"), {"n": 1}).scalar()
    with around(None), engine.connect() as connection:
        connection.execute(sqlalchemy.text("SET work_mem = '5MB'"))
        connection.commit()
    with around(None), engine.connect() as connection:
        if connection.scalar(sqlalchemy.text("SHOW work_mem")) != "4MB":
            return "a setting went from one invocation to the next"
    learnt = [engine.dialect.server_version_info[0] > 9, engine.dialect.default_schema_name]
    began = time.monotonic()
    try:
        with around(Context(1.3)), engine.connect() as connection:
            connection.execute(sqlalchemy.text("SELECT pg_sleep(50)"))
    except lambdadb.OutOfTime:
        return [one, *learnt, time.monotonic() - began < 40]
    return "the deadline was not kept"


def main(url, name):
    Renaming.name_to_hide = name
    sys.meta_path.insert(0, Finder())
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logging.getLogger("lambdadb").addHandler(handler)
    logging.getLogger("lambdadb").setLevel(logging.INFO)
    from sqlalchemy.util import await_only, greenlet_spawn

    import lambdadb
    import lambdadb.aio

    retry = lambdadb.ResumeRetry(reserve=1.0)
    policy = lambdadb.PerEnvironment(reset="session")
    engine = lambdadb.create_engine(url, policy=policy, retry=retry)
    found = {"sync": use(engine, lambda context: lambdadb.invocation(engine, context))}
    engine.dispose()
    asynchronous = lambdadb.aio.create_async_engine(url, policy=policy, retry=retry)

    class Around:
        def __init__(self, context):
            self.around = lambdadb.invocation(asynchronous, context)

        def __enter__(self):
            await_only(self.around.__aenter__())

        def __exit__(self, *error):
            await_only(self.around.__aexit__(None, None, None))

    def steps():
        found["async"] = use(asynchronous.sync_engine, Around)
        asynchronous.sync_engine.dispose()

    asyncio.run(greenlet_spawn(steps))
    found["log"] = lines
    return found


if __name__ == "__main__":
    for name in sys.argv[2:]:
        sys.stdout.flush()
        if os.fork() == 0:
            try:
                result = main(sys.argv[1], name)
            except BaseException as error:
                result = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps({"name": name, **result}), flush=True)
            os._exit(0)
        os.wait()
