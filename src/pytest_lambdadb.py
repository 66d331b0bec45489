"""
pytest's plugin of lambdadb: a real PostgreSQL, a cluster that pauses, and Lambda around a handler.

pytest imports this module in every run. So it imports pytest alone, and lambdadb when a fixture is used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from lambdadb.testing import (
        AuroraCluster,
        Database,
        Databases,
        Invoke,
        LambdaContext,
        Sessions,
    )
    from lambdadb.testing.databases import Server

# Each is an option (--lambdadb-postgres), a variable (LAMBDADB_POSTGRES) and an ini setting
# (lambdadb_postgres). The first that is set counts.
SETTINGS = {
    "lambdadb_postgres": "the PostgreSQL of the tests: embedded (default), container, or a URL",
    "lambdadb_postgres_image": "the image of --lambdadb-postgres=container",
    "lambdadb_schema": "files with SQL that make the tables of each test's database, as a path list",
    "lambdadb_url_variable": "the variable that holds the database's URL during a test: DATABASE_URL",
    "lambdadb_resume": "seconds in which aurora_cluster wakes up: 1",
}
_AT_START = dict(os.environ)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add each setting as an option and to the ini file."""
    group = parser.getgroup("lambdadb", "functions with a database (lambdadb)")
    for name, text in SETTINGS.items():
        option = "--" + name.replace("_", "-")
        group.addoption(option, metavar="VALUE", help=f"{text} [also: ini {name}, {name.upper()}]")
        parser.addini(name, text)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell pytest-xdist's worker which variables were set before it was started."""
    node.workerinput["lambdadb_variables"] = [
        name for name, value in os.environ.items() if _AT_START.get(name) != value
    ]


def pytest_configure(config: pytest.Config) -> None:
    """Leave out of the variables at the start what the tests have set since, in another process."""
    for name in getattr(config, "workerinput", {}).get("lambdadb_variables", ()):
        _AT_START.pop(name, None)


def setting(config: pytest.Config, name: str, default: str) -> str:
    """The value of a setting: from the command line, a variable or the ini file."""
    return config.getoption(name) or os.environ.get(name.upper()) or config.getini(name) or default


def _paths(config: pytest.Config, name: str) -> list[Path]:
    """The files of a setting; those of the ini file are relative to it."""
    given = setting(config, name, "")
    from_ini = given == config.getini(name)
    folder = config.inipath.parent if from_ini and config.inipath else config.invocation_params.dir
    return [folder / one for one in given.split(os.pathsep) if one]


@pytest.fixture(scope="session")
def postgres_server(pytestconfig: pytest.Config) -> Iterator[Server]:
    """The PostgreSQL of this test run, with a password: the superuser's URL is `.url()`."""
    from lambdadb.testing.databases import IMAGE, open_postgres

    kind = setting(pytestconfig, "lambdadb_postgres", "embedded")
    image = setting(pytestconfig, "lambdadb_postgres_image", IMAGE)
    with open_postgres(kind, image=image) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_schema(pytestconfig: pytest.Config) -> Callable[[str], object]:
    """
    Make the tables of the tests' databases: a function of the URL of an empty one. Override it.

    By default it runs the files of the setting `lambdadb_schema`.
    """
    files = _paths(pytestconfig, "lambdadb_schema")

    def run_files(url: str) -> None:
        from lambdadb.testing.databases import connect

        with connect(url) as connection:
            for file in files:
                connection.execute(file.read_bytes())

    return run_files


@pytest.fixture(scope="session")
def _postgres_databases(
    postgres_server: Server, postgres_schema: Callable[[str], object]
) -> Iterator[Databases]:
    from lambdadb.testing import Databases

    databases = Databases(postgres_server, postgres_schema)
    yield databases
    databases.close()


@pytest.fixture
def postgres(
    pytestconfig: pytest.Config, _postgres_databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Database]:
    """
    A PostgreSQL database of this test's own, with your tables: `.url`, `.query(sql)`, `.sessions`.

    During the test its URL is in the variable DATABASE_URL (setting `lambdadb_url_variable`).
    """
    database = _postgres_databases.take()
    monkeypatch.setenv(_url_variable(pytestconfig), database.url)
    yield database
    _postgres_databases.give_back(database)


@pytest.fixture
def aurora_cluster(
    request: pytest.FixtureRequest, postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> Iterator[AuroraCluster]:
    """
    An emulated Aurora cluster that pauses, in front of the test's database. It begins paused.

    `.pause()`, `.resume(shape=..., seconds=...)`, `.awake_because()`, `.url`. During the test
    DATABASE_URL leads through it. One that never pauses:
    `@pytest.mark.parametrize("aurora_cluster", ["hot"], indirect=True)`.
    """
    from lambdadb.testing import AuroraCluster

    seconds = float(setting(request.config, "lambdadb_resume", "1"))
    with AuroraCluster(postgres, getattr(request, "param", "cold"), seconds=seconds) as cluster:
        monkeypatch.setenv(_url_variable(request.config), cluster.url)
        yield cluster


@pytest.fixture
def sessions(postgres: Database) -> Sessions:
    """The sessions on the test's database, as the server sees them: `sessions()`, `.become(1)`."""
    return postgres.sessions


@pytest.fixture
def assert_no_sessions_left(sessions: Sessions) -> Callable[..., None]:
    """
    Call it: fails the test if a session is left on its database, and names the session.

    A connection that has been closed has ten seconds to leave the server's view: `(seconds=10.0)`.
    """

    def check(*, seconds: float = 10.0) -> None:
        __tracebackhide__ = True
        try:
            sessions.become(0, seconds)
        except AssertionError:
            pytest.fail(
                f"Sessions are left on the server: {sessions()}. Close them at the end of the "
                "invocation: decorate the handler with @lambdadb.handler(engine), and use PerInvocation."
            )

    return check


@pytest.fixture
def lambda_context() -> LambdaContext:
    """
    The second argument of a handler. 30 s are left, and its time stands still.

    `lambda_context.seconds_left = 2.5` moves its clock.
    """
    from lambdadb.testing import LambdaContext

    return LambdaContext(now=lambda: 0.0)


@pytest.fixture
def invoke(pytestconfig: pytest.Config, lambda_context: LambdaContext) -> Iterator[Invoke]:
    """
    Invoke a handler with an event: `invoke("orders.lambda_handler", {"item": "book"})`.

    A name runs in an execution environment of Lambda, a process that is frozen between invocations; it
    sees the variables that the test has set. A function is called in this process.
    """
    from lambdadb.testing.invocations import Invoke, variables_set_since

    with Invoke(
        lambda_context,
        root=pytestconfig.rootpath,
        variables=lambda: variables_set_since(_AT_START),
    ) as invoke:
        yield invoke


def _url_variable(config: pytest.Config) -> str:
    return setting(config, "lambdadb_url_variable", "DATABASE_URL")
