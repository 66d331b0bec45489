"""Secrets rotated under a fleet of real execution environments, each step against a real server."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle

import psycopg
import pymysql
import pytest

from lambdadb.lab import LabError
from lambdadb.lab.environment import Environment
from lambdadb.lab.mariadb import MariaDB, find_server
from lambdadb.lab.postgres import Postgres

from ..leaks import SECRET
from .aws import KEYS, Secret, SecretServer, secret_server

# Minutes in all: `nox -s sweep` runs them.
pytestmark = pytest.mark.sweep

ENVIRONMENTS = 20
INVOCATIONS = 500  # in each of the two tests
ROTATIONS = 6
AT_ONCE = 4
EVERY = INVOCATIONS // (4 * ROTATIONS)  # invocations between one step of a rotation and the next

FUNCTION = """
import logging, os
from functools import cache

from sqlalchemy import text

import lambdadb
from lambdadb.credentials.secrets_manager import SecretsManager


logging.getLogger("lambdadb").setLevel("INFO")
policy = getattr(lambdadb, os.environ["POLICY"])()


@cache
def engine(secret):
    return lambdadb.create_engine(os.environ["URL"], policy=policy, credentials=SecretsManager(secret))


def handler(event, context):
    with lambdadb.invocation(engine(event), context), engine(event).connect() as connection:
        return connection.scalar(text("SELECT current_user")).partition("@")[0]
"""


class PostgreSQLUsers:
    """Users of a PostgreSQL."""

    refusal = "password authentication failed"

    def __init__(self, server: Postgres) -> None:
        self._url = server.url().replace("+psycopg", "")
        self.url = f"postgresql+psycopg://127.0.0.1:{server.port}/postgres"

    def create(self, user: str) -> None:
        self._ask(f"CREATE ROLE {user} LOGIN")

    def set_password(self, user: str, password: str) -> None:
        self._ask(f"ALTER ROLE {user} PASSWORD '{password}'")

    def log_in(self, user: str, password: str) -> None:
        psycopg.connect(self._url, user=user, password=password).close()

    def _ask(self, statement: str) -> None:
        with psycopg.connect(self._url, autocommit=True) as admin:
            admin.execute(statement.encode())


class MySQLUsers:
    """Users of a MariaDB."""

    refusal = "1045: Access denied"

    def __init__(self, server: MariaDB) -> None:
        self._server = server
        self.url = f"mysql+pymysql://127.0.0.1:{server.port}/orders"

    def create(self, user: str) -> None:
        self._ask(f"CREATE USER {user} IDENTIFIED BY 'canary-none'")
        self._ask(f"GRANT ALL ON orders.* TO {user}")

    def set_password(self, user: str, password: str) -> None:
        self._ask(f"ALTER USER {user} IDENTIFIED BY '{password}'")

    def log_in(self, user: str, password: str) -> None:
        pymysql.connect(host="127.0.0.1", port=self._server.port, user=user, password=password).close()

    def _ask(self, statement: str) -> None:
        place = {"host": "127.0.0.1", "port": self._server.port}
        with (
            pymysql.connect(**place, user="app", password=self._server.password) as admin,
            admin.cursor() as cursor,
        ):
            cursor.execute(statement)


Users = PostgreSQLUsers | MySQLUsers


@pytest.fixture(scope="module", params=["postgresql", "mysql"])
def database(request: pytest.FixtureRequest) -> Iterator[Users]:
    """The users of each database; without MariaDB only of PostgreSQL, and `nox -s mysql` fails."""
    if request.param == "postgresql":
        with Postgres(password="admin") as server:
            yield PostgreSQLUsers(server)
        return
    try:
        find_server()
    except LabError as error:
        pytest.skip(str(error))
    with MariaDB() as server:
        yield MySQLUsers(server)


@pytest.fixture(scope="module")
def aws() -> Iterator[SecretServer]:
    with secret_server() as server:
        yield server


@pytest.fixture(scope="module")
def fleet(
    database: Users, aws: SecretServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Environment]]:
    """Most of them connect in each invocation, one in four keeps its connection."""
    folder = tmp_path_factory.mktemp("function")
    (folder / "function.py").write_text(FUNCTION)
    made = [
        Environment(
            "function.handler",
            function_name="orders",
            timeout=20.0,
            environment={
                **KEYS,
                "AWS_ENDPOINT_URL": aws.endpoint,
                "URL": database.url,
                "POLICY": "PerInvocation" if number % 4 else "PerEnvironment",
                "PYTHONWARNINGS": "error",
            },
            path=[folder],
        )
        for number in range(ENVIRONMENTS)
    ]
    yield made
    for environment in made:
        environment.close()
        assert not SECRET.search("\n".join(environment.log)), "a password was logged"


class Rotation:
    """A secret and its database users, and the four steps of AWS's rotation functions."""

    def __init__(self, database: Users, aws: SecretServer, users: list[str]) -> None:
        self._database = database
        self._users = cycle(users)
        self._numbers = iter(range(1000))
        for user in users:
            database.create(user)
        self._renew()
        self._set()
        self.secret: Secret = aws.secret(SecretString=self._value)

    def steps(self) -> list[Callable[[], None]]:
        return [self._create, self._set, self._test, self.secret.finish]

    def _create(self) -> None:
        self._renew()
        self.secret.create(self._value)

    def _set(self) -> None:
        self._database.set_password(self._user, self._password)

    def _test(self) -> None:
        self._database.log_in(self._user, self._password)

    def _renew(self) -> None:
        self._user, self._password = next(self._users), f"canary-{next(self._numbers)}"

    @property
    def _value(self) -> str:
        return json.dumps({"username": self._user, "password": self._password})


class Counter:
    """How many invocations have ended."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0

    def add(self) -> None:
        with self._changed:
            self._count += 1
            self._changed.notify_all()

    def wait(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._count >= count, 30), self._count


def invoked(fleet: list[Environment], secret: str, counter: Counter) -> list[object]:
    """The users that all invocations were logged in as; an error of one is raised."""
    free: queue.Queue[Environment] = queue.Queue()
    for environment in fleet:
        free.put(environment)

    def invoke(_: int) -> object:
        environment = free.get()
        try:
            return environment.invoke(secret)
        finally:
            free.put(environment)
            counter.add()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(invoke, range(INVOCATIONS)))


@pytest.mark.parametrize(
    "users",
    [["carl"], ["anna", "bert"]],
    ids=["single user", "alternating users"],
)
def test_no_invocation_sees_a_rotation(
    users: list[str], fleet: list[Environment], database: Users, aws: SecretServer
) -> None:
    """Six rotations, a step every 20 invocations: no error, although each cost logins their password."""
    rotation = Rotation(database, aws, users)
    counter = Counter()
    refused_before = refused(fleet, database)

    def rotate() -> None:
        for number, step in enumerate(rotation.steps() * ROTATIONS, 1):
            counter.wait(number * EVERY)
            step()

    with ThreadPoolExecutor(1) as background:
        rotated = background.submit(rotate)
        seen = invoked(fleet, rotation.secret.id, counter)
        rotated.result(30)
    assert len(seen) == INVOCATIONS
    assert set(seen) == set(users)
    # A kept password is refused once in a rotation of its user: in each for a single one, in every
    # other one where they alternate. Environments with a connection of their own need none.
    assert refused(fleet, database) - refused_before >= ENVIRONMENTS // 2 * ROTATIONS // len(users) / 2


def refused(fleet: list[Environment], database: Users) -> int:
    """How many logins the server has refused, by the functions' own logs."""
    return sum(database.refusal in line for e in fleet for line in e.log)
