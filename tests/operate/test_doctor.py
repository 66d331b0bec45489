"""`lambdadb doctor`: each rule on a real server in the state that it is about; none on a healthy one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

import psycopg
import pytest
from click.testing import Result
from sqlalchemy import make_url

from lambdadb.lab.postgres import Postgres
from lambdadb.operate.checks import Finding
from lambdadb.operate.cluster import FunctionFacts
from lambdadb.operate.doctor import Examination, diagnose
from lambdadb.operate.login import connected, make_engine
from lambdadb.operate.session_view import read_server, read_session_view

from .conftest import PASSWORD, Connect

Diagnose = Callable[..., dict[str, Finding]]
NOW = datetime(2026, 11, 28, tzinfo=timezone.utc)
TIMEOUTS = {"idle_session_timeout": "900s", "idle_in_transaction_session_timeout": "60s"}


@pytest.fixture(autouse=True)
def database(admin: psycopg.Connection[Any]) -> Iterator[str]:
    """A database whose sessions end when they are idle: a healthy one."""
    admin.execute("CREATE DATABASE shop")
    for name, value in TIMEOUTS.items():
        admin.execute(f"ALTER DATABASE shop SET {name} = '{value}'")
    yield "shop"
    admin.execute("DROP DATABASE shop WITH (FORCE)")


@pytest.fixture
def diagnosed(server: Postgres, admin: psycopg.Connection[Any]) -> Diagnose:
    """The findings about the database by their names, without those about this test's own session."""

    def read(user: str = "postgres", functions: tuple[FunctionFacts, ...] = ()) -> dict[str, Finding]:
        url = make_url(server.url("shop")).set(username=user).render_as_string(hide_password=False)
        with connected(make_engine(url, tag="look", timeout=10)) as connection:
            view = read_session_view(connection, "server")
            rest = tuple(one for one in view.sessions if one.name != "admin")
            facts = Examination(
                view=type(view)(**{**vars(view), "sessions": rest}),
                server=read_server(connection),
                functions=functions,
            )
        return {finding.name: finding for finding in diagnose(facts, NOW)}

    return read


def in_shop(connect: Connect) -> psycopg.Connection[Any]:
    return connect("admin", database="shop")


def test_a_healthy_database(connect: Connect, role: str, diagnosed: Diagnose) -> None:
    """Sessions that end, SCRAM, few vectors, a function within its budget: nothing is found."""
    session = in_shop(connect)
    session.execute("CREATE EXTENSION vector")
    session.execute("CREATE TABLE document (id int, embedding vector(3))")
    session.execute("CREATE INDEX ON document USING hnsw (embedding vector_l2_ops)")
    connect("orders", user=role, database="shop")
    assert diagnosed(functions=(FunctionFacts(name="orders", concurrency=20, peak=1),)) == {}


def test_sessions_that_never_end(
    connect: Connect, admin: psycopg.Connection[Any], role: str, diagnosed: Diagnose
) -> None:
    """They are named, with the ALTER ROLE that ends them; it works as it is printed."""
    admin.execute("ALTER DATABASE shop RESET ALL")
    connect("orders", user=role, database="shop")
    found = diagnosed()
    assert "orders (1): with no end" in found["open sessions"].problem
    assert role in found["idle_session_timeout"].problem
    assert role in found["idle_in_transaction_session_timeout"].problem
    for name in TIMEOUTS:
        admin.execute(found[name].remedy.partition(". ")[0])
    assert not TIMEOUTS.keys() & diagnosed().keys()


def test_logical_replication() -> None:
    """The setting and the slots are named, also on a cluster that is not known to pause."""
    settings = {"wal_level": "logical", **TIMEOUTS}
    with (
        Postgres(password=PASSWORD, settings=settings) as server,
        connected(make_engine(server.url(), tag="look", timeout=10)) as connection,
    ):
        connection.exec_driver_sql("SELECT pg_create_logical_replication_slot('feed', 'pgoutput')")
        view, facts = read_session_view(connection, "server"), read_server(connection)
    (finding,) = diagnose(Examination(view=view, server=facts), NOW)
    assert finding.name == "replication"
    assert "feed" in finding.problem


def test_tls_that_is_not_forced(admin: psycopg.Connection[Any], diagnosed: Diagnose) -> None:
    """By Aurora's own setting, which any PostgreSQL can carry."""
    admin.execute('ALTER DATABASE shop SET "rds.force_ssl" = 0')
    assert "rds.force_ssl" in diagnosed()["TLS"].remedy
    admin.execute('ALTER DATABASE shop SET "rds.force_ssl" = 1')
    assert "TLS" not in diagnosed()


@pytest.mark.filterwarnings("ignore:.*MD5")
def test_passwords_as_md5(admin: psycopg.Connection[Any], role: str, diagnosed: Diagnose) -> None:
    """The role is named; SCRAM is fine."""
    admin.execute("SET password_encryption = 'md5'")
    admin.execute(f"ALTER ROLE {role} PASSWORD '{PASSWORD}'")
    finding = diagnosed()["md5"]
    assert role in finding.problem
    admin.execute("SET password_encryption = 'scram-sha-256'")
    admin.execute(f"ALTER ROLE {role} PASSWORD '{PASSWORD}'")
    assert "md5" not in diagnosed()


def test_a_role_with_a_password_and_rds_iam(
    admin: psycopg.Connection[Any], role: str, diagnosed: Diagnose
) -> None:
    """The printed REVOKE makes the secret work again."""
    admin.execute("CREATE ROLE rds_iam")
    try:
        admin.execute(f"GRANT rds_iam TO {role}")
        finding = diagnosed()["rds_iam"]
        admin.execute(finding.remedy.partition(",")[0])
        assert "rds_iam" not in diagnosed()
    finally:
        admin.execute("DROP ROLE rds_iam")


def test_an_ivfflat_index_on_an_empty_table(connect: Connect, diagnosed: Diagnose) -> None:
    """Fewer rows than lists is said; enough rows are fine."""
    session = in_shop(connect)
    session.execute("CREATE EXTENSION vector")
    session.execute("CREATE TABLE document (id int, embedding vector(3))")
    session.execute(
        "CREATE INDEX nearest ON document USING ivfflat (embedding vector_l2_ops) WITH (lists = 10)"
    )
    assert "nearest has 10 lists" in diagnosed()["ivfflat"].problem
    fill(session, 50)
    assert "ivfflat" not in diagnosed()


def test_vectors_without_an_index(connect: Connect, diagnosed: Diagnose) -> None:
    """From ten thousand rows on, with the statement that makes one."""
    session = in_shop(connect)
    session.execute("CREATE EXTENSION vector")
    session.execute("CREATE TABLE document (id int, embedding vector(3))")
    fill(session, 9_000)
    assert "no vector index" not in diagnosed()
    fill(session, 1_000)
    finding = diagnosed()["no vector index"]
    session.execute(finding.remedy)
    assert "no vector index" not in diagnosed()


def fill(session: psycopg.Connection[Any], rows: int) -> None:
    session.execute(
        "INSERT INTO document SELECT i, ARRAY[i, i, i]::real[]::vector "
        f"FROM generate_series(1, {rows}) AS i"
    )
    session.execute("ANALYZE document")


def test_functions_beyond_their_budget(connect: Connect, diagnosed: Diagnose) -> None:
    """More environments than slots, and more sessions than environments, each by name."""
    for _ in range(4):
        connect("orders", database="shop")
    within = FunctionFacts(name="orders", concurrency=30, peak=4)
    assert (
        not {"connection budget", "sessions of an environment"} & diagnosed(functions=(within,)).keys()
    )
    found = diagnosed(functions=(FunctionFacts(name="orders", concurrency=None, peak=2),))
    assert "may run 1000 environments" in found["connection budget"].problem
    assert "orders has 4 sessions, and at most 2 environments" in (
        found["sessions of an environment"].problem
    )


def test_the_command(server: Postgres, lambdadb: Callable[..., Result]) -> None:
    """Findings in order of weight, what was not seen, and an exit code for monitors."""
    done = lambdadb("doctor", server.url("shop"), "--json")
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert {finding["weight"] for finding in facts["findings"]} <= {"note"}
    assert any("--cluster" in line for line in facts["not_seen"])
    warned = lambdadb("doctor", server.url("shop"), "--function", "orders=500", "--function", "b=1")
    assert warned.exit_code == 1
    assert "WARNING  connection budget" in warned.stdout
    assert PASSWORD not in warned.output


def test_a_login_that_fails(server: Postgres, lambdadb: Callable[..., Result]) -> None:
    """It is the worst finding; no password is shown."""
    done = lambdadb("doctor", server.url("shop").replace(PASSWORD, "canary-wrong"))
    assert done.exit_code == 3
    assert "CRITICAL login" in done.stdout
    assert "canary" not in done.output


def test_options_that_cannot_work(lambdadb: Callable[..., Result]) -> None:
    """A usage error before anything is asked."""
    for arguments in ([], ["postgresql://u@h/d", "--function", "orders"], ["oracle://u@h/d"]):
        assert lambdadb("doctor", *arguments).exit_code == 2
