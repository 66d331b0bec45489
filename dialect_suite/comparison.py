"""
SQLAlchemy's suite for dialects on its own engines and on lambdadb's: what passes there passes here.

    nox -s dialect
    nox -s dialect -- postgresql://postgres@127.0.0.1:5432/postgres
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import sqlalchemy
from rich.console import Console
from rich.table import Table
from sqlalchemy import URL, make_url

from lambdadb.lab.postgres import Postgres
from lambdadb.lab.process import Process

HERE = Path(__file__).parent
DRIVERS, MAKERS = ("psycopg", "psycopg_async"), ("sqlalchemy", "lambdadb")
TIMEOUT = 600.0

Outcomes = dict[str, str]
"""Of each test: passed, failed or skipped."""


@contextmanager
def fresh_database(server: URL, name: str) -> Iterator[URL]:
    """A database with the two schemas that the suite expects."""
    with connect(server) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        try:
            with connect(server.set(database=name)) as connection:
                connection.execute("CREATE SCHEMA test_schema; CREATE SCHEMA test_schema_2")
            yield server.set(database=name)
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def connect(url: URL) -> psycopg.Connection[tuple[object, ...]]:
    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(dsn, autocommit=True)


def outcomes(server: URL, driver: str, maker: str) -> Outcomes:
    """Run the suite in a database of its own."""
    with fresh_database(server, f"{driver}_{maker}") as url:
        return run_suite(url.set(drivername=f"postgresql+{driver}"), maker)


def run_suite(url: URL, maker: str, timeout: float = TIMEOUT) -> Outcomes:
    """Run the suite in a process of its own."""
    with TemporaryDirectory() as directory:
        log, report = Path(directory, "log"), Path(directory, "outcomes.json")
        uri = url.render_as_string(hide_password=False)
        command = [sys.executable, "-m", "pytest", "-q", "-c", str(HERE / "setup.cfg")]
        command += [f"--dburi={uri}", f"--made-by={maker}", f"--outcomes={report}"]
        Process([*command, str(HERE / "suite.py")], output=log).wait(timeout)
        if not report.exists():
            sys.exit(f"The suite did not run:\n{log.read_text()}")
        found: Outcomes = json.loads(report.read_text())
        return found


def compare(server: URL) -> bool:
    """Print both sides; whether nothing is lost."""
    console, lost = Console(), []
    with connect(server) as connection:
        version = connection.info.parameter_status("server_version")
    table = Table(title=f"SQLAlchemy {sqlalchemy.__version__}, PostgreSQL {version}")
    for heading in ("driver", "engines by", "passed", "failed", "skipped"):
        table.add_column(heading)
    with ThreadPoolExecutor(2) as pool:
        runs = list(product(DRIVERS, MAKERS))
        results = dict(zip(runs, pool.map(lambda run: outcomes(server, *run), runs), strict=True))
    for (driver, maker), result in results.items():
        count = Counter(result.values())
        table.add_row(driver, maker, *(str(count[kind]) for kind in ("passed", "failed", "skipped")))
        own = results[driver, "sqlalchemy"]
        lost += [(driver, test) for test in own if own[test] == "passed" != result.get(test)]
    console.print(table)
    for driver, test in lost:
        console.print(f"Passes on SQLAlchemy's own only: {driver} {test}")
    return not lost


def main() -> bool:
    if len(sys.argv) > 1:
        return compare(make_url(sys.argv[1]))
    # What the suite writes is not to outlive it.
    with Postgres(settings={"fsync": "off"}) as server:
        return compare(make_url(server.url()))


if __name__ == "__main__":
    sys.exit(not main())
