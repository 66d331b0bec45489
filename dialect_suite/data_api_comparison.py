"""
SQLAlchemy's suite for dialects over the emulated Data API: on `postgresql+data_api`, on
sqlalchemy-aurora-data-api, and on psycopg.

    nox -s data_api_dialect                tables
    nox -s data_api_dialect -- --write     writes them into docs/data-api.md, too

Fails if a test passes on sqlalchemy-aurora-data-api and not on ours. Fails too if one passes on psycopg
and not on ours, and `REASONS` does not say why.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import sqlalchemy
from comparison import Outcomes, fresh_database, run_suite
from rich.console import Console
from rich.table import Table
from sqlalchemy import URL, make_url

from lambdadb.lab.data_api import DataApi
from lambdadb.lab.postgres import Postgres

PAGE = Path(__file__).parents[1] / "docs" / "data-api.md"
BEGIN, END = "<!-- begin: nox -s data_api_dialect -- --write -->", "<!-- end -->"
OURS, THEIRS, PSYCOPG = "postgresql+data_api", "sqlalchemy-aurora-data-api", "postgresql+psycopg"
SLOW = 3600.0  # seconds; sqlalchemy-aurora-data-api took eleven minutes
HEADINGS = ("dialect", "passed", "failed", "skipped")

# What is tested, the tests' names, and why they cannot pass here.
REASONS = (
    (
        "temporary tables and views, in another transaction than the one that made them",
        re.compile(
            r"_temp_|test_(get_multi|multi_get)_\w+\[False-ObjectKind\.[\w|]+"
            r"-ObjectScope\.(ANY|TEMPORARY)-None-"
        ),
        "The API has no session that outlives a transaction. Within one transaction they work.",
    ),
    (
        "`SET search_path` once for each connection",
        re.compile(r"WeCanSetDefaultSchemaWEventsTest"),
        "The same. Set it for the secret's user: `ALTER ROLE … SET search_path`.",
    ),
    (
        "server-side cursors",
        re.compile(r"ServerSideCursorsTest"),
        "All rows of a result come in one answer, which has 1 MiB at most.",
    ),
    (
        "a `json_deserializer` that gets bytes",
        re.compile(r"JSONTest\w*::test_round_trip_custom_json"),
        "JSON comes as text, and the function gets a `str`.",
    ),
)


def run(server: URL, api: DataApi, dialect: str) -> Outcomes:
    """Run the suite in a database of its own."""
    with fresh_database(server, re.sub(r"\W", "_", dialect)) as database:
        name = str(database.database)
        if dialect == OURS:
            return run_suite(make_url(api.url(name)), "lambdadb")
        if dialect == THEIRS:
            return run_suite(make_url(f"postgresql+auroradataapi://:@/{name}"), "sqlalchemy", SLOW)
        return run_suite(database.set(drivername=dialect), "lambdadb")


def run_all() -> dict[str, Outcomes]:
    """The outcomes of each dialect, two at a time."""
    with (
        Postgres(settings={"fsync": "off"}) as server,
        DataApi(server) as api,
        ThreadPoolExecutor(2) as pool,
    ):
        # sqlalchemy-aurora-data-api and boto3 read these variables.
        arns = {"AURORA_CLUSTER_ARN": api.cluster_arn, "AURORA_SECRET_ARN": api.secret_arn}
        os.environ.update({**api.environment(), **arns})
        dialects = (THEIRS, OURS, PSYCOPG)
        found = pool.map(lambda dialect: run(make_url(server.url()), api, dialect), dialects)
        return dict(zip(dialects, found, strict=True))


def passes(outcomes: Outcomes) -> set[str]:
    """The tests that pass, without the dialect in their names."""
    return {plain(test) for test, outcome in outcomes.items() if outcome == "passed"}


def plain(test: str) -> str:
    return re.sub(r"_postgresql\+\w+_[\d_]+(?=::)", "", test.rpartition("suite.py::")[2])


def count_reasons(gap: set[str]) -> tuple[dict[str, int], set[str]]:
    """How many tests of the gap each reason explains, and the tests that none does."""
    found, left = {}, set(gap)
    for what, pattern, _ in REASONS:
        explained = {test for test in left if pattern.search(test)}
        found[what] = len(explained)
        left -= explained
    return found, left


def rows_of(results: Mapping[str, Outcomes]) -> list[tuple[str, ...]]:
    """A row for each dialect."""
    counts = {dialect: Counter(results[dialect].values()) for dialect in (OURS, PSYCOPG, THEIRS)}
    return [(dialect, *(str(count[kind]) for kind in HEADINGS[1:])) for dialect, count in counts.items()]


def write(results: Mapping[str, Outcomes], reasons: Mapping[str, int]) -> None:
    """Renew the two tables of the page."""
    lines = [
        f"SQLAlchemy {sqlalchemy.__version__}:",
        "",
        *markdown(HEADINGS, [(f"`{name}`", *counts) for name, *counts in rows_of(results)]),
        "",
        "What passes on psycopg and not here:",
        "",
        *markdown(
            ("tested", "tests", "why not"),
            [(what, str(reasons[what]), why) for what, _, why in REASONS],
        ),
    ]
    before, _, rest = PAGE.read_text().partition(BEGIN)
    table = "\n".join(lines)
    PAGE.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}")


def markdown(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (headings, ("---",) * len(headings), *rows)]


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"renew the tables in {PAGE.name}")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120, markup=False)
    console.print("The suite runs three times, which takes some minutes.")
    results = run_all()
    ours = passes(results[OURS])
    lost = passes(results[THEIRS]) - ours
    reasons, unexplained = count_reasons(passes(results[PSYCOPG]) - ours)
    table = Table(
        *HEADINGS, title=f"SQLAlchemy {sqlalchemy.__version__}, PostgreSQL (emulated Data API)"
    )
    for row in rows_of(results):
        table.add_row(*row)
    console.print(table)
    for what, _, why in REASONS:
        console.print(f"Passes on psycopg and not here, {reasons[what]} tests: {what}. {why}")
    for test in sorted(lost):
        console.print(f"Passes on {THEIRS} and not here: {test}")
    for test in sorted(unexplained):
        console.print(f"Passes on psycopg and not here, and no reason is known: {test}")
    if options.write:
        write(results, reasons)
    return not lost and not unexplained


if __name__ == "__main__":
    sys.exit(not main())
