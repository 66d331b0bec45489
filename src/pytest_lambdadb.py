"""
pytest's plugin of lambdadb: a real PostgreSQL, a cluster that pauses, and Lambda around a handler.

pytest imports this module in every run. So it imports pytest alone, and lambdadb when a fixture is used.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from lambdadb.lab.aurora import Server
    from lambdadb.lab.data_api import DataApi
    from lambdadb.lab.mariadb import MariaDB
    from lambdadb.lab.xray.daemon import XRayDaemon
    from lambdadb.testing import (
        AuroraCluster,
        Database,
        Databases,
        Invoke,
        LambdaContext,
        MariaDBDatabase,
        Sessions,
        SpanRecorder,
        VirtualTime,
    )

# Each is an option (--lambdadb-postgres), a variable (LAMBDADB_POSTGRES) and an ini setting
# (lambdadb_postgres). The first that is set counts.
SETTINGS = {
    "lambdadb_postgres": "the PostgreSQL of the tests: embedded (default), container, or a URL",
    "lambdadb_postgres_image": "the image of --lambdadb-postgres=container",
    "lambdadb_schema": "files with SQL that make the tables of each test's database, as a path list",
    "lambdadb_mysql_schema": "the same for MariaDB",
    "lambdadb_url_variable": "the variable that holds the database's URL during a test: DATABASE_URL",
    "lambdadb_resume": "seconds in which aurora_cluster wakes up: 1",
}
_CLUSTERS = ("aurora_cluster", "aurora_mysql_cluster")
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


def paths(config: pytest.Config, name: str) -> list[Path]:
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
    files = paths(pytestconfig, "lambdadb_schema")

    def run_files(url: str) -> None:
        from lambdadb.testing.databases import connect

        with connect(url) as connection:
            for file in files:
                connection.execute(file.read_bytes())

    return run_files


@pytest.fixture(scope="session")
def _postgres_databases() -> Iterator[dict[Any, Databases]]:
    # By server and schema: folders of tests may override both.
    made: dict[Any, Databases] = {}
    yield made
    for databases in made.values():
        databases.close()


@pytest.fixture
def postgres(
    pytestconfig: pytest.Config,
    postgres_server: Server,
    postgres_schema: Callable[[str], object],
    _postgres_databases: dict[Any, Databases],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Database]:
    """
    A PostgreSQL database of this test's own, with your tables: `.url`, `.query(sql)`, `.sessions`.

    During the test its URL is in the variable DATABASE_URL (setting `lambdadb_url_variable`).
    """
    from lambdadb.testing import Databases

    key = (postgres_server, postgres_schema)
    if key not in _postgres_databases:
        _postgres_databases[key] = Databases(*key)
    database = _postgres_databases[key].take()
    monkeypatch.setenv(_url_variable(pytestconfig), database.url)
    yield database
    _postgres_databases[key].give_back(database)


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
    yield from _open_cluster(request, postgres, monkeypatch)


def _open_cluster(
    request: pytest.FixtureRequest,
    database: Database | MariaDBDatabase,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[AuroraCluster]:
    from lambdadb.testing import AuroraCluster

    seconds = float(setting(request.config, "lambdadb_resume", "1"))
    cluster = AuroraCluster(database, getattr(request, "param", "cold"), seconds=seconds)
    monkeypatch.setenv(_url_variable(request.config), cluster.url)
    yield cluster
    cluster.close()


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDB]:
    """The MariaDB of this test run. It has to be installed: `apt-get install mariadb-server`."""
    import lambdadb.drivers.pymysql  # noqa: F401  # says what to install where PyMySQL is missing
    from lambdadb.lab.mariadb import MariaDB
    from lambdadb.testing.mysql import SETTINGS

    with MariaDB(settings=SETTINGS) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_schema(pytestconfig: pytest.Config) -> Callable[[str], object]:
    """
    Make the tables of the tests' MariaDB databases: a function of the URL of an empty one. Override it.

    By default it runs the files of the setting `lambdadb_mysql_schema`.
    """
    files = paths(pytestconfig, "lambdadb_mysql_schema")

    def run_files(url: str) -> None:
        from lambdadb.testing.mysql import run

        for file in files:
            run(url, file.read_text())

    return run_files


@pytest.fixture
def mariadb(
    pytestconfig: pytest.Config,
    mariadb_server: MariaDB,
    mariadb_schema: Callable[[str], object],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[MariaDBDatabase]:
    """
    A MariaDB database of this test's own, with your tables: `.url`, `.query(sql)`, `.sessions`.

    During the test its URL is in the variable DATABASE_URL (setting `lambdadb_url_variable`).
    """
    from lambdadb.testing.mysql import take_database

    with take_database(mariadb_server, mariadb_schema) as database:
        monkeypatch.setenv(_url_variable(pytestconfig), database.url)
        yield database


@pytest.fixture
def aurora_mysql_cluster(
    request: pytest.FixtureRequest, mariadb: MariaDBDatabase, monkeypatch: pytest.MonkeyPatch
) -> Iterator[AuroraCluster]:
    """An emulated Aurora MySQL cluster that pauses, in front of `mariadb`: as `aurora_cluster`."""
    yield from _open_cluster(request, mariadb, monkeypatch)


@pytest.fixture
def data_api(
    pytestconfig: pytest.Config, aurora_cluster: AuroraCluster, monkeypatch: pytest.MonkeyPatch
) -> Iterator[DataApi]:
    """
    The RDS Data API of `aurora_cluster`, for boto3 and for `postgresql+data_api` engines.

    During the test DATABASE_URL leads to it, and the variables of AWS name it and a key for it.
    """
    from lambdadb.lab.data_api import DataApi

    with DataApi(aurora_cluster.database.server, cluster=aurora_cluster.emulated) as api:
        for name, value in api.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv(_url_variable(pytestconfig), api.url(aurora_cluster.database.name))
        yield api


@pytest.fixture
def sessions(request: pytest.FixtureRequest) -> Sessions:
    """
    The sessions on the test's database, as the server sees them: `sessions()`, `.become(1)`.

    The database is that of `mariadb` if the test uses it, or else that of `postgres`.
    """
    name = "mariadb" if "mariadb" in request.fixturenames else "postgres"
    database: Database | MariaDBDatabase = request.getfixturevalue(name)
    return database.sessions


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

    A named handler runs in an execution environment of Lambda, a process that is frozen between
    invocations, and sees the variables that the test has set. With `in_process=True` it runs here.
    """
    from lambdadb.testing.invocations import Invoke, variables_set_since

    variables = partial(variables_set_since, _AT_START)
    with closing(Invoke(lambda_context, pytestconfig.rootpath, variables)) as invoke:
        yield invoke


@pytest.fixture
def no_waiting(request: pytest.FixtureRequest) -> Callable[[], AbstractContextManager[VirtualTime]]:
    """
    Virtual time for retries: `with no_waiting() as time:` lets a resume pass at once.

    Engines of this process do not pause between attempts, and the test's cluster does not take its time
    to wake up. `time.waited` is how long it would have taken.
    """
    from lambdadb.testing import no_waiting

    names = [name for name in _CLUSTERS if name in request.fixturenames]
    return partial(no_waiting, *map(request.getfixturevalue, names))


@pytest.fixture
def spans() -> Iterator[SpanRecorder]:
    """
    A tracer that keeps spans: `create_engine(url, tracer=spans)`, or `spans.watch(engine)`.

    `spans.named("connect")` are the connects of engines in this process, `"statement"` the statements.
    """
    from lambdadb.testing import SpanRecorder

    with closing(SpanRecorder()) as recorder:
        yield recorder


@pytest.fixture
def xray(monkeypatch: pytest.MonkeyPatch) -> Iterator[XRayDaemon]:
    """
    X-Ray's daemon, which keeps the segments that it gets, also from environments: `.wait(1)`.

    During the test AWS_XRAY_DAEMON_ADDRESS leads to it. `.problems` is what X-Ray would refuse.
    """
    from lambdadb.lab.xray.daemon import XRayDaemon

    with XRayDaemon() as daemon:
        sdk = sys.modules.get("aws_xray_sdk.core")
        emitter: Any = None if sdk is None else sdk.xray_recorder.emitter
        before = emitter and f"{emitter.ip}:{emitter.port}"
        monkeypatch.setenv("AWS_XRAY_DAEMON_ADDRESS", daemon.address)
        if emitter:  # the SDK reads the variable when it is imported
            emitter.set_daemon_address(daemon.address)
        yield daemon
        monkeypatch.delenv("AWS_XRAY_DAEMON_ADDRESS", raising=False)
        if emitter:
            emitter.set_daemon_address(before)


def _url_variable(config: pytest.Config) -> str:
    return setting(config, "lambdadb_url_variable", "DATABASE_URL")
