"""
SQLAlchemy's suite for dialects on MariaDB: what passes on its own `mysql+pymysql` passes on lambdadb's.

    nox -s mysql_dialect        needs MariaDB (Debian: mariadb-server)

lambdadb's asynchronous engine uses PyMySQL, where SQLAlchemy's own has another driver. So it is held to
what passes on the synchronous one. One class of tests is not compared: that of
`create_engine(server_side_cursors=True)`, which SQLAlchemy refuses for every asynchronous engine.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import sqlalchemy
from comparison import Outcomes, run_suite, show
from sqlalchemy import make_url

from lambdadb.lab.mariadb import NO_SYNC, MariaDB

DRIVER, MAKERS = "pymysql", ("sqlalchemy", "lambdadb", "lambdadb-async")
# What the suite writes is not to outlive it.
SETTINGS = {**NO_SYNC, "innodb-flush-log-at-trx-commit": "0", "character-set-server": "utf8mb4"}


def outcomes(maker: str) -> tuple[Outcomes, str]:
    """Run the suite on a server of its own, since the suite's schemas are databases; and its version."""
    with MariaDB(settings=SETTINGS) as server:
        engine = sqlalchemy.create_engine(server.url())
        with engine.begin() as connection:
            for schema in ("test_schema", "test_schema_2"):
                connection.exec_driver_sql(f"CREATE DATABASE {schema}")
            version: str = connection.exec_driver_sql("SELECT VERSION()").scalar_one()
        engine.dispose()
        return run_suite(make_url(server.url()), maker), version


def main() -> bool:
    print("The suite runs three times, which takes some minutes.", flush=True)
    with ThreadPoolExecutor(2) as pool:
        results = dict(zip(MAKERS, pool.map(outcomes, MAKERS), strict=True))
    _, version = results["sqlalchemy"]
    return show(
        version,
        {(DRIVER, maker): found for maker, (found, _) in results.items()},
        not_compared={"lambdadb-async": "ServerSideCursorsTest"},
    )


if __name__ == "__main__":
    sys.exit(not main())
