"""The suite's engines, made by SQLAlchemy or by lambdadb."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import sqlalchemy
import sqlalchemy.dialects.mysql.provision
import sqlalchemy.dialects.postgresql.provision
from sqlalchemy import Engine
from sqlalchemy.dialects import registry
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.testing import config as suite
from sqlalchemy.testing import provision

import lambdadb
import lambdadb.aio
from lambdadb.pool import GuardedPool

# As many connections as SQLAlchemy's own pool keeps, for which the suite is written.
POLICY = lambdadb.PerEnvironment(connections=5)
# The one keyword of the suite that lambdadb refuses. It asks for a StaticPool, to find a temporary
# table again, and gets its counterpart.
REFUSED, INSTEAD = "poolclass", lambdadb.PerEnvironment()

# The suite asks for the dialect of a URL before it makes an engine.
registry.register("postgresql.data_api", "lambdadb.drivers.data_api.dialect", "DataApiDialect")
registry.register("mysql.data_api", "lambdadb.drivers.data_api.mysql_dialect", "MySQLDataApiDialect")

_create_engine = sqlalchemy.create_engine


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--made-by", choices=["sqlalchemy", "lambdadb", "lambdadb-async"], required=True)
    parser.addoption("--outcomes", required=True, help="the file for a JSON object: test -> outcome")


def pytest_configure(config: pytest.Config) -> None:
    # It would create extensions that the suite does not use, and that not every server has.
    provision.post_configure_engine.for_db("postgresql")(lambda *_: None)
    [url] = config.getoption("dburi")
    made_by = config.getoption("--made-by")
    ours = made_by != "sqlalchemy"
    # lambdadb's asynchronous engines of MySQL have the driver of the synchronous ones.
    asynchronous = made_by == "lambdadb-async" or "+psycopg_async:" in url

    def create_engine(url: Any, **keywords: Any) -> Engine:
        if ours:
            keywords["policy"] = INSTEAD if keywords.pop(REFUSED, None) else POLICY
        with patch.object(sqlalchemy, "create_engine", _create_engine):
            if asynchronous:
                create = lambdadb.aio.create_async_engine if ours else create_async_engine
                return create(url, **keywords).sync_engine
            return (lambdadb.create_engine if ours else _create_engine)(url, **keywords)

    sqlalchemy.create_engine = create_engine


_outcomes: dict[str, str] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    # Of its three phases the call decides, unless another one did not pass.
    if report.when == "call" or report.outcome != "passed":
        _outcomes[report.nodeid] = report.outcome


def pytest_sessionfinish(session: pytest.Session) -> None:
    Path(session.config.getoption("--outcomes")).write_text(json.dumps(_outcomes))


def pytest_collection_finish(session: pytest.Session) -> None:
    db: Any = suite.db
    made_by = "lambdadb" if isinstance(db.pool, GuardedPool) else "sqlalchemy"
    assert session.config.getoption("--made-by").startswith(made_by)
