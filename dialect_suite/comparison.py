"""
SQLAlchemy's suite for dialects on its own engines and on lambdadb's: what passes there passes here.

    nox -s dialect
    nox -s dialect -- postgresql://postgres@127.0.0.1:5432/postgres
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
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
    with connect(server) as connection:
        version = connection.info.parameter_status("server_version")
    with ThreadPoolExecutor(2) as pool:
        runs = list(product(DRIVERS, MAKERS))
        results = dict(zip(runs, pool.map(lambda run: outcomes(server, *run), runs), strict=True))
    return show(f"PostgreSQL {version}", results)


def show(
    server: str,
    results: Mapping[tuple[str, str], Outcomes],
    *,
    not_compared: Mapping[str, str] | None = None,
) -> bool:
    """
    Print the results by driver and maker.

    Args:
        not_compared: A class of tests, by the maker for whom it is not compared.

    Returns:
        Whether all that passes on SQLAlchemy's engines of a driver passes on the others of that driver.
    """
    left_out = not_compared or {}
    # Wide enough for a test's name where the output is a file.
    console, lost = Console(width=None if sys.stdout.isatty() else 200, markup=False), []
    table = Table(title=f"SQLAlchemy {sqlalchemy.__version__}, {server}")
    for heading in ("driver", "engines by", "passed", "failed", "skipped"):
        table.add_column(heading)
    for (driver, maker), result in results.items():
        count = Counter(result.values())
        table.add_row(driver, maker, *(str(count[kind]) for kind in ("passed", "failed", "skipped")))
        own, here = plain(results[driver, "sqlalchemy"]), plain(result)
        compared = [test for test in own if not test.startswith(left_out.get(maker, " "))]
        lost += [(driver, maker, test) for test in compared if own[test] == "passed" != here.get(test)]
    console.print(table)
    for driver, maker, test in lost:
        console.print(f"Passes on SQLAlchemy's engines of {driver}, and not on those of {maker}: {test}")
    return not lost


def plain(outcomes: Outcomes) -> Outcomes:
    """The outcomes by the tests' names without the file and the dialect."""
    return {
        re.sub(r"^.*suite\.py::|_\w+\+\w+(?=::)", "", test): found for test, found in outcomes.items()
    }


def main() -> bool:
    if len(sys.argv) > 1:
        return compare(make_url(sys.argv[1]))
    # What the suite writes is not to outlive it.
    with Postgres(settings={"fsync": "off"}) as server:
        return compare(make_url(server.url()))


if __name__ == "__main__":
    sys.exit(not main())
