"""`lambdadb sessions` and `lambdadb doctor` on a real MariaDB, in the states that they are about."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pymysql
import pytest
from click.testing import Result

from lambdadb.lab import LabError
from lambdadb.lab.mariadb import MariaDB, find_server
from lambdadb.operate.checks import Weight
from lambdadb.operate.doctor import Examination, diagnose
from lambdadb.operate.login import connected, make_engine
from lambdadb.operate.mysql_server import MySQLFacts, check_settings
from lambdadb.operate.session_view import read_server, read_session_view
from lambdadb.operate.sessions import SessionView, blockers, examine, holders, keeps_awake

from ..waiting import wait_until
from .conftest import PASSWORD
from .test_doctor import NOW

Connect = Callable[..., "pymysql.Connection[Any]"]
Run = Callable[..., Result]
OTHERS = """
    SELECT ID FROM information_schema.PROCESSLIST
    WHERE ID <> CONNECTION_ID() AND USER NOT IN ('system user', 'event_scheduler')
"""
HEALTHY = {
    "performance-schema": "ON",
    "max-connections": "40",
    "wait-timeout": "600",
}


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    """Skip where MariaDB is missing; `nox -s mysql` fails there. One that does not start is an error."""
    try:
        find_server()
    except LabError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def maria() -> Iterator[MariaDB]:
    """A server with names of sessions and a short wait_timeout."""
    with MariaDB(settings=HEALTHY, password=PASSWORD) as server:
        yield server


@pytest.fixture(scope="module")
def operator(maria: MariaDB) -> Iterator[pymysql.Connection[Any]]:
    """The session of `admin`."""
    with connect(maria, "admin") as session:
        yield session


@pytest.fixture
def admin(operator: pymysql.Connection[Any]) -> pymysql.Connection[Any]:
    """The operator's own session, in autocommit. Those of earlier tests have left the server's view."""
    wait_until(lambda: not run(operator, OTHERS))
    return operator


@pytest.fixture
def open_session(maria: MariaDB, admin: pymysql.Connection[Any]) -> Iterator[Connect]:
    """Open sessions, which end with the test."""
    with ExitStack() as stack:

        def open_session(name: str) -> pymysql.Connection[Any]:
            session = connect(maria, name)
            stack.callback(close, session)
            return session

        yield open_session


def connect(maria: MariaDB, name: str) -> pymysql.Connection[Any]:
    place = {"host": "127.0.0.1", "port": maria.port, "database": "orders"}
    return pymysql.connect(**place, user="app", password=PASSWORD, autocommit=True, program_name=name)


def close(connection: pymysql.Connection[Any]) -> None:
    if connection.open:
        connection.close()


def run(connection: pymysql.Connection[Any], statement: str) -> Sequence[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall()


def read(maria: MariaDB, user: str = "app") -> SessionView:
    url = maria.url().replace("app:", f"{user}:", 1)
    with connected(make_engine(url, tag="look", timeout=10)) as connection:
        return read_session_view(connection, "server")


def findings(maria: MariaDB) -> dict[str, str]:
    with connected(make_engine(maria.url(), tag="look", timeout=10)) as connection:
        facts = Examination(view=read_session_view(connection, "server"), server=read_server(connection))
    return {finding.name: finding.remedy for finding in diagnose(facts, NOW)}


def test_holders(maria: MariaDB, open_session: Connect) -> None:
    """By the name in the connection's attributes, with their state; one of many stands out."""
    for _ in range(20):
        open_session("orders")
    open_session("report")
    found = read(maria)
    first = holders(found)[0]
    assert (first.name, first.count, first.stands_out) == ("orders", 20, True)
    assert first.states == {"idle": 20}
    assert found.kind == "MariaDB"
    assert (found.slots.limit, found.slots.used) == (40, 23)
    assert {finding.name for finding in examine(found)} == {"main holder"}


def test_a_session_that_others_wait_for(
    maria: MariaDB, admin: pymysql.Connection[Any], open_session: Connect
) -> None:
    """It is named with its statement, without literals; KILL lets the other go on."""
    first, second = open_session("report"), open_session("billing")
    run(admin, "CREATE TABLE waited (id int PRIMARY KEY, n varchar(50)) ENGINE=InnoDB")
    run(admin, "INSERT INTO waited VALUES (1, 'x')")
    first.begin()
    run(first, 'UPDATE waited SET n = "literal-in-a-statement" WHERE id = 1')
    thread = threading.Thread(target=run, args=[second, "UPDATE waited SET n = 'y' WHERE id = 1"])
    thread.start()
    try:
        # InnoDB renews its views only if they were not read for 0.1 s.
        wait_until(lambda: bool(blockers(read(maria))), pause=0.2)
        view = read(maria)
        ((session, count),) = blockers(view)
        assert (session.name, session.state, count) == ("report", "idle in transaction", 1)
        waiting = next(one for one in view.sessions if one.waits_for)
        assert "literal" not in str(view)
        assert waiting.statement.replace(" ", "") == "UPDATEwaitedSETn=?WHEREid=?"
        blocker = next(one for one in examine(view) if one.name == "blocker")
        run(admin, blocker.remedy.partition("on RDS: ")[2])
        thread.join(30)
        assert not thread.is_alive()
    finally:
        first.close()
        thread.join(30)
        run(admin, "DROP TABLE waited")


def test_what_keeps_it_awake(maria: MariaDB, open_session: Connect) -> None:
    """Idle sessions, until wait_timeout ends them."""
    open_session("orders")
    seconds = {awake.holder: awake.seconds for awake in keeps_awake(read(maria))}
    assert seconds.keys() == {"admin", "orders"}
    assert seconds["orders"] is not None
    assert 590 <= seconds["orders"] <= 600


def test_a_role_without_rights(maria: MariaDB, admin: pymysql.Connection[Any]) -> None:
    """It sees its own sessions alone, and the GRANT that helps is said."""
    run(admin, f"CREATE USER limited IDENTIFIED BY '{PASSWORD}'")
    run(admin, "GRANT SELECT ON orders.* TO limited")
    try:
        (finding,) = examine(read(maria, "limited"))
        assert finding.remedy == "GRANT PROCESS ON *.* TO 'limited'"
        run(admin, finding.remedy)
        assert "visibility" not in {one.name for one in examine(read(maria, "limited"))}
    finally:
        run(admin, "DROP USER limited")


def test_settings(maria: MariaDB, admin: pymysql.Connection[Any], open_session: Connect) -> None:
    """A long wait_timeout and connections without TLS are said, and are not once they are set right."""
    run(admin, "SET GLOBAL wait_timeout = 28800")
    run(admin, "SET GLOBAL event_scheduler = ON")
    open_session("orders")
    assert {"wait_timeout", "open sessions", "TLS", "jobs"} <= findings(maria).keys()
    run(admin, "SET GLOBAL wait_timeout = 600")
    run(admin, "SET GLOBAL event_scheduler = OFF")
    assert findings(maria).keys() <= {"TLS", "main holder"}
    with connected(make_engine(maria.url(), tag="look", timeout=10)) as connection:
        facts = read_server(connection)
    assert isinstance(facts, MySQLFacts)
    # The lab's server has no certificate, so it cannot ask for TLS.
    assert check_settings(replace(facts, forces_tls=True), Weight.WARNING) == []


def test_a_server_without_names_and_with_a_binary_log() -> None:
    """MariaDB's defaults: no performance_schema; a binary log blocks Aurora's pause."""
    with MariaDB(settings={"log-bin": "log", "wait-timeout": "600"}, password=PASSWORD) as server:
        found = findings(server)
    assert {"names", "replication"} <= found.keys()
    assert "wait_timeout" not in found


def test_the_commands(maria: MariaDB, open_session: Connect, lambdadb: Run) -> None:
    """The same commands take a URL of MySQL, also as mariadb://, and show no password."""
    open_session("orders")
    url = maria.url().replace("mysql+pymysql", "mariadb")
    shown = lambdadb("sessions", url, "--json")
    assert shown.exit_code == 0, shown.output
    assert [holder["name"] for holder in json.loads(shown.stdout)["holders"]] == ["admin", "orders"]
    diagnosed = lambdadb("doctor", maria.url())
    assert diagnosed.exit_code == 1, diagnosed.output
    assert "require_secure_transport is off" in diagnosed.stdout
    woken = lambdadb("wake", maria.url())
    assert woken.exit_code == 0, woken.output
    assert PASSWORD not in shown.output + diagnosed.output + woken.output
