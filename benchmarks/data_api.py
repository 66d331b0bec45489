"""
Rows lost and doubled over the Data API when a call fails, beside a peer.

    nox -s data_api
    nox -s data_api -- --json

Both clients talk to the lab's emulation over HTTP without TLS. The peer is sqlalchemy-aurora-data-api
with its default client, boto3's. The unit of work stores two rows in one transaction. Each of its calls
fails once in each way.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import psycopg
import sqlalchemy
from rich.console import Console
from rich.table import Table

import lambdadb
from lambdadb.lab.data_api import DataApi
from lambdadb.lab.data_api.unit_sweep import FAULTS
from lambdadb.lab.postgres import Postgres

INSERT = sqlalchemy.text("INSERT INTO unit (name) VALUES (:name)")
OUTCOMES = ("stored once", "denied", "in doubt", "stored, with an error", "lost", "doubled")

Unit = Callable[[], object]


def insert_two(connection: Any) -> None:
    for name in ("a", "b"):
        connection.execute(INSERT, {"name": name})


def make_peer(api: DataApi) -> sqlalchemy.Engine:
    return sqlalchemy.create_engine(
        "postgresql+auroradataapi://:@/postgres",
        connect_args={"aurora_cluster_arn": api.cluster_arn, "secret_arn": api.secret_arn},
    )


def make_units(api: DataApi) -> dict[str, Unit]:
    """The clients, each with a function that runs the unit once."""
    ours, peer = lambdadb.create_engine(api.url()), make_peer(api)

    def plain(engine: sqlalchemy.Engine) -> None:
        with engine.begin() as connection:
            insert_two(connection)

    def repeated() -> None:
        try:
            plain(peer)
        except Exception:
            plain(peer)

    return {
        "lambdadb, run_transaction": lambda: lambdadb.run_transaction(ours, insert_two),
        "lambdadb, engine.begin()": lambda: plain(ours),
        "sqlalchemy-aurora-data-api": lambda: plain(peer),
        "the same, repeated after an error": repeated,
    }


def count_outcomes(api: DataApi, admin: Any, unit: Unit) -> Counter[str]:
    """Let each call of the unit fail in each way, and count what became of its rows."""
    outcomes: Counter[str] = Counter()
    unit()  # the first connect makes calls of its own
    before = len(api.calls)
    unit()
    for number in range(len(api.calls) - before):
        for fault in FAULTS:
            admin.execute("TRUNCATE unit")
            api.fail(fault, after=number)
            failure: Exception | None = None
            try:
                unit()
            except Exception as error:
                failure = error
            api.repair()
            end_transactions(admin)
            rows = Counter(name for (name,) in admin.execute("SELECT name FROM unit").fetchall())
            outcomes[name_outcome(rows, failure)] += 1
    return outcomes


def end_transactions(admin: Any) -> None:
    """AWS would do this after three minutes."""
    admin.execute(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
        " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )


def name_outcome(rows: Counter[str], failure: Exception | None) -> str:
    if any(number > 1 for number in rows.values()):
        return "doubled"
    if isinstance(failure, lambdadb.CommitInDoubt) and len(rows) != 1:
        return "in doubt"
    if len(rows) == 2:
        return "stored once" if failure is None else "stored, with an error"
    return "denied" if failure is not None and not rows else "lost"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    as_json = parser.parse_args().json
    console = Console(stderr=as_json)
    logging.disable(logging.CRITICAL)  # of the pools, about the faults
    with Postgres(settings={"fsync": "off"}) as server, DataApi(server) as api:
        os.environ.update(api.environment())
        dsn = server.url().replace("+psycopg", "")
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute("CREATE TABLE unit (name text)")
            outcomes = {}
            for name, unit in make_units(api).items():
                console.print(f"[dim]{name}: each call fails in {len(FAULTS)} ways[/]")
                outcomes[name] = count_outcomes(api, admin, unit)
    if as_json:
        print(json.dumps({"outcomes": outcomes}))
    else:
        show(console, outcomes)
    ours = outcomes["lambdadb, run_transaction"]
    return int(ours["lost"] + ours["doubled"] > 0)


def show(console: Console, outcomes: dict[str, Counter[str]]) -> None:
    table = Table(title="A unit of two INSERTs, one call of which fails (emulated)")
    for heading in ("client", "cases", *OUTCOMES):
        left = heading == "client"
        table.add_column(heading, justify="left" if left else "right", no_wrap=left)
    for name, count in outcomes.items():
        table.add_row(name, str(sum(count.values())), *(str(count[kind]) for kind in OUTCOMES))
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
