"""The experiment's functions, from the zip that is deployed: `nox -s package`."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import package
import psycopg
import pytest
from sqlalchemy import make_url

from lambdadb.lab.aurora import Cluster
from lambdadb.lab.environment import Environment, FunctionError

from ..lab.aws import KEYS, SecretServer
from .conftest import Database

INSERTS = ("hand_written", "sqlalchemy_default", "per_environment", "per_invocation")
Function = Callable[..., Environment]


@pytest.fixture(scope="session")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zip's files, as Lambda unzips them."""
    folder = tmp_path_factory.mktemp("task")
    package.pack_code(folder / "function.zip")
    with zipfile.ZipFile(folder / "function.zip") as archive:
        archive.extractall(folder / "root")
    return folder / "root"


@pytest.fixture
def variables(secrets: SecretServer) -> dict[str, str]:
    """The published variables, but for the cluster's place, and a secret with the user's login."""
    secret = json.dumps({"username": "app", "password": "canary-app"})
    return {
        **KEYS,
        "AWS_ENDPOINT_URL": secrets.endpoint,
        "SECRET_NAME": secrets.secret(SecretString=secret).id,
        "AURORA_TYPE": "cold",
        "EXPERIMENT": "experiment_02",
    }


@pytest.fixture
def function(code: Path, variables: Mapping[str, str]) -> Function:
    """Make a function's environment against a server's URL."""

    def make(handler: str, url: str, **more: str) -> Environment:
        place = make_url(url)
        where = {"AURORA_HOST": str(place.host), "AURORA_PORT": str(place.port)}
        where["AURORA_DBNAME"] = str(place.database)
        own = {**variables, **where, "PGSSLMODE": "disable", **more}
        return Environment(handler, function_name="experiment", path=[code], environment=own)

    return make


def test_same_files_same_zip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dates, permissions and the folder's name leave no trace, nor does what an editor left there."""
    copy = tmp_path / "copy"
    shutil.copytree(package.CODE, copy)
    for path in copy.iterdir():
        path.chmod(0o600 if path.is_file() else 0o700)
        os.utime(path, (1_000_000_000, 1_000_000_000))
    (copy / "insert.py~").touch()
    package.pack_code(tmp_path / "first.zip")
    monkeypatch.setattr(package, "CODE", copy)
    package.pack_code(tmp_path / "second.zip")
    assert (tmp_path / "first.zip").read_bytes() == (tmp_path / "second.zip").read_bytes()
    names = zipfile.ZipFile(tmp_path / "first.zip").namelist()
    assert names == sorted(path.name for path in package.CODE.glob("*.py"))
    assert {"database.py", "insert.py", "schema.py"} <= set(names)


def test_the_schema_of_a_sleeping_cluster(function: Function, database: Database) -> None:
    """Two invocations at once make it once, a third one keeps it, and each waits for the resume."""
    with (
        Cluster(database.server, auto_pause=60.0, resume=1.0, paused=True) as cluster,
        function("schema.lambda_handler", cluster.url(database.name)) as one,
        function("schema.lambda_handler", cluster.url(database.name)) as two,
        ThreadPoolExecutor(2) as pool,
    ):
        answers = list(pool.map(lambda environment: environment.invoke({}), [one, two]))
        assert one.invoke({}) == answers[0] == answers[1]
        assert {"resuming", "available"} <= {event.kind for event in cluster.events}
    columns = "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attnum > 0"
    found = database.query(f"{columns} AND attrelid = 'vector_table'::regclass")
    assert found == [("id", "integer"), ("content", "text"), ("embedding", "vector(1536)")]
    (index,) = database.query("SELECT indexdef FROM pg_indexes WHERE indexdef LIKE '%ivfflat%'")
    assert "lists='100'" in index[0]


@pytest.mark.sweep
def test_a_user_of_iam_may_insert_and_no_more(function: Function, database: Database) -> None:
    """IAM_USER is made with the rights of the inserting functions, and again changes nothing."""
    try:
        for _ in range(2):
            with function("schema.lambda_handler", database.url, IAM_USER="writer") as environment:
                environment.invoke({})
        assert database.query("SELECT pg_has_role('writer', 'rds_iam', 'MEMBER')") == [(True,)]
        insert = "INSERT INTO vector_table (content) VALUES ('x') RETURNING id"
        assert database.query("SET ROLE writer", insert) == [(1,)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            database.query("SET ROLE writer", "DELETE FROM vector_table")
    finally:
        database.query("DROP OWNED BY writer", "DROP ROLE writer")


@pytest.mark.parametrize(
    ("name", "connects"),
    [
        ("hand_written", [1, 1]),
        pytest.param("sqlalchemy_default", [1, 0], marks=pytest.mark.sweep),
        pytest.param("per_environment", [1, 0], marks=pytest.mark.sweep),
        ("per_invocation", [1, 1]),
    ],
)
def test_each_way_to_insert(
    name: str, connects: list[int], function: Function, database: Database
) -> None:
    """On a cold cluster each waits with its secret read; its one JSON line is as published, and more."""
    with function("schema.lambda_handler", database.url) as schema:
        schema.invoke({})
    with (
        Cluster(database.server, auto_pause=60.0, resume=0.5, paused=True) as cluster,
        function(f"insert.{name}", cluster.url(database.name)) as environment,
    ):
        answers = [environment.invoke({}) for _ in range(2)]
    lines: list[dict[str, Any]] = [json.loads(e) for e in environment.log if e.startswith("{")]
    assert lines == answers
    assert [line["new_id"] for line in lines] == [1, 2]
    assert lines[0]["elapsed"] >= 0.5
    common = ("aurora_type", "experiment", "policy")
    assert [lines[0][key] for key in common] == ["cold", "experiment_02", name]
    assert [line["connects"] for line in lines] == connects
    assert database.query("SELECT vector_dims(embedding) FROM vector_table") == [(1536,)] * 2


@pytest.mark.sweep
@pytest.mark.parametrize("name", INSERTS)
def test_no_login_for_a_server_that_is_not_verified(
    name: str, function: Function, database: Database
) -> None:
    """Each of them wants TLS and a certificate, the hand-written one too."""
    with (
        function(f"insert.{name}", database.url, PGSSLMODE="verify-full") as environment,
        pytest.raises(FunctionError, match="SSL"),
    ):
        environment.invoke({})


@pytest.mark.sweep
def test_a_login_of_libpq(function: Function, database: Database) -> None:
    """Without a secret and without IAM, as in the lab's benchmark."""
    login = {"AURORA_USER": "app", "PGPASSWORD": "canary-app", "SECRET_NAME": ""}
    with function("schema.lambda_handler", database.url, **login) as schema:
        assert schema.invoke({})
    with function("insert.hand_written", database.url, **login) as environment:
        assert environment.invoke({})


@pytest.mark.sweep
def test_a_token_of_iam(function: Function, database: Database) -> None:
    """AURORA_IAM signs one; to a server without TLS lambdadb does not send it."""
    login = {"AURORA_USER": "writer", "AURORA_IAM": "true", "SECRET_NAME": ""}
    with (
        function("insert.per_invocation", database.url, **login) as environment,
        pytest.raises(FunctionError, match="sslmode=disable"),
    ):
        environment.invoke({})
