"""Alembic by the environment in examples/migrations: a sleeping cluster, one deployment at a time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from lambdadb.lab.aurora import Cluster
from lambdadb.lab.environment import Environment, FunctionError

from .conftest import Database

PROJECT = Path(__file__).parents[2] / "examples" / "migrations"
VERSION = "SELECT version_num FROM alembic_version"
INDEX = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'document_embedding'::regclass"
LOCK = "SELECT pg_advisory_lock(hashtext('alembic'))"
Alembic = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy, in which nothing is left beside the sources."""
    ignored = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(PROJECT, tmp_path / "migrations", ignore=ignored))


@pytest.fixture
def alembic(project: Path) -> Alembic:
    """Start Alembic's command."""

    def start(*arguments: str, url: str, wait: float = 60.0) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "alembic", "-c", str(project / "alembic.ini"), *arguments]
        return subprocess.Popen(
            command,
            env={**os.environ, "DATABASE_URL": url, "MIGRATION_WAIT": str(wait)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def finish(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    """Wait for its end, and return what it wrote."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    return out, err


@contextmanager
def session(database: Database, *statements: str) -> Iterator[psycopg.Connection]:
    """Another client, in a transaction."""
    with psycopg.connect(database.url.replace("+psycopg", "")) as connection:
        for statement in statements:
            connection.execute(statement.encode())
        yield connection


def test_two_deployments_of_a_sleeping_cluster(alembic: Alembic, database: Database) -> None:
    """Both wait for the resume, and one for the other: each version runs once, without a deadlock."""
    with Cluster(database.server, auto_pause=60.0, resume=1.0, paused=True) as cluster:
        url = cluster.url(database.name)
        errors = [finish(process)[1] for process in [alembic("upgrade", "head", url=url) for _ in "ab"]]
    said = "".join(errors)
    assert "waiting for it" in said
    assert said.count("Running upgrade 1 -> 2") == 1
    assert database.query(VERSION) == [("2",)]
    assert database.query(INDEX) == [(True,)]


def test_a_script_without_a_connection(alembic: Alembic) -> None:
    """`--sql` prints the statements; the host need not exist."""
    script, _ = finish(
        alembic("upgrade", "head", "--sql", url="postgresql+psycopg://a@nowhere.invalid/d")
    )
    assert "CREATE TABLE document" in script
    assert "COMMIT;\n\nDROP INDEX CONCURRENTLY" in script


@pytest.mark.sweep
def test_a_deployment_that_takes_too_long(alembic: Alembic, database: Database) -> None:
    """The next one gives up after its time, and says why."""
    with session(database, LOCK):
        _, said = finish(alembic("upgrade", "head", url=database.url, wait=1.0), code=1)
    assert "TimeoutError: Another deployment migrates this database" in said
    assert database.query("SELECT to_regclass('document')") == [(None,)]


@pytest.mark.sweep
def test_a_deployment_whose_connection_is_lost(alembic: Alembic, database: Database) -> None:
    """Its lock ends with its session, and the next one goes on."""
    with session(database, LOCK) as other:
        waiting = alembic("upgrade", "head", url=database.url)
        known = f"{other.info.backend_pid}, pg_backend_pid()"
        sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        until(lambda: database.query(f"{sessions} AND pid NOT IN ({known})") == [(1,)])
        assert waiting.poll() is None
        database.query(f"SELECT pg_terminate_backend({other.info.backend_pid})")
        finish(waiting)
        other.close()
    assert database.query(VERSION) == [("2",)]


@pytest.mark.sweep
def test_a_table_that_is_in_use(alembic: Alembic, database: Database) -> None:
    """A lock on it is waited for, but not for long: other clients wait behind the migration."""
    finish(alembic("upgrade", "1", url=database.url))
    with session(database, "LOCK TABLE document"):
        _, said = finish(alembic("upgrade", "head", url=database.url), code=1)
    assert "lock timeout" in said
    assert database.query(VERSION) == [("1",)]
    finish(alembic("upgrade", "head", url=database.url))
    assert database.query(INDEX) == [(True,)]


def test_a_function(project: Path, database: Database) -> None:
    """It waits within its time, changes nothing when invoked again, and leaves no session."""
    with Cluster(database.server, auto_pause=60.0, resume=1.0, paused=True) as cluster:
        with function(project, cluster.url(database.name)) as environment:
            environment.invoke({})
            environment.invoke({})
            until(lambda: cluster.sessions() == [])
        assert any("waiting for it" in entry for entry in environment.log)
    assert database.query(VERSION) == [("2",)]


@pytest.mark.sweep
def test_a_function_whose_time_is_over(project: Path, database: Database) -> None:
    """The version that was running is rolled back, those before it stay, and the next one gets in."""
    slow = project / "versions" / "r3_slow.py"
    slow.write_text(
        "from alembic import op\n"
        "revision, down_revision = '3', '2'\n"
        "def upgrade():\n"
        "    op.execute('CREATE TABLE slow (id integer)')\n"
        "    op.execute('SELECT pg_sleep(60)')\n"
    )
    with function(project, database.url, timeout=6.0) as environment:
        with pytest.raises(FunctionError, match="OutOfTime"):
            environment.invoke({})
        assert database.query(VERSION) == [("2",)]
        assert database.query("SELECT to_regclass('slow')") == [(None,)]
        slow.write_text(slow.read_text().replace("60", "0"))
        environment.invoke({})
    assert database.query(VERSION) == [("3",)]


def function(project: Path, url: str, timeout: float = 60.0) -> Environment:
    return Environment(
        "migrate.lambda_handler",
        function_name="migrate",
        path=[project],
        timeout=timeout,
        environment={"DATABASE_URL": url},
    )


def until(condition: Callable[[], bool]) -> None:
    """Wait until it holds."""
    for _ in range(600):
        if condition():
            return
        threading.Event().wait(0.1)
    pytest.fail("it did not become true within a minute")
