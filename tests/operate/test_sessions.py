"""`lambdadb sessions` on a real server, in each of the states that it is about."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import psycopg
from click.testing import Result

from lambdadb.lab.postgres import Postgres
from lambdadb.lab.postgres.standby import Standby
from lambdadb.operate.sessions import SessionView, blockers, examine, holders, keeps_awake

from ..waiting import wait_until
from .conftest import LIMIT, PASSWORD, Connect

Read = Callable[..., SessionView]
Run = Callable[..., Result]


def rules(view: SessionView) -> set[str]:
    return {finding.name for finding in examine(view)}


def test_a_healthy_server(connect: Connect, view: Read) -> None:
    """A few named sessions that do nothing wrong: nothing is found."""
    connect("orders")
    connect("report")
    found = view()
    assert examine(found) == []
    assert {holder.name for holder in holders(found)} == {"admin", "orders", "report"}
    assert not any(holder.stands_out for holder in holders(found))
    assert found.slots.used == 4


def test_one_holder_of_50(connect: Connect, view: Read) -> None:
    """A function with 50 of 55 sessions stands out, and the server is nearly full."""
    for _ in range(50):
        connect("orders")
    for name in ("a", "b", "c", "d"):
        connect(name)
    found = view()
    first = holders(found)[0]
    assert (first.name, first.count, first.stands_out) == ("orders", 50, True)
    assert rules(found) == {"main holder", "slots"}
    assert (found.slots.limit, found.slots.used, found.slots.free) == (LIMIT, 56, LIMIT - 3 - 56)


def test_a_session_that_others_wait_for(
    connect: Connect, admin: psycopg.Connection[Any], view: Read
) -> None:
    """It is named, with what to do; those behind the one who waits for it count too."""
    admin.execute("CREATE TABLE waited (id int PRIMARY KEY, n text)")
    admin.execute("INSERT INTO waited VALUES (1, 'x')")
    first = connect("report")
    first.autocommit = False
    first.execute("UPDATE waited SET n = 'literal-in-a-statement' WHERE id = 1")
    waiting = [connect(name) for name in ("billing", "orders")]
    threads = [
        threading.Thread(target=one.execute, args=["UPDATE waited SET n = 'y' WHERE id = 1"])
        for one in waiting
    ]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: sum(bool(one.waits_for) for one in view().sessions) == 2)
        found = view()
        ((session, count),) = blockers(found)
        assert (session.name, count) == ("report", 2)
        finding = next(one for one in examine(found) if one.name == "blocker")
        assert finding.remedy == f"SELECT pg_terminate_backend({first.info.backend_pid})"
        assert "UPDATE waited SET n = ? WHERE id = ?".replace(" ", "") in finding.problem.replace(
            " ", ""
        )
        assert "literal-in-a-statement" not in str(found)
        admin.execute(finding.remedy)
        wait_until(lambda: not blockers(view()))
    finally:
        first.close()
        for thread in threads:
            thread.join(30)
        admin.execute("DROP TABLE waited")


def test_idle_timeouts_of_roles_and_databases(
    connect: Connect, admin: psycopg.Connection[Any], role: str, view: Read
) -> None:
    """What ALTER ROLE … SET chose says when the server ends a session; without it, never."""
    connect("endless", user=role)
    admin.execute(f"ALTER ROLE {role} SET idle_session_timeout = '15min'")
    (endless,) = [one for one in keeps_awake(view()) if one.holder == "endless"]
    assert endless.seconds is not None
    assert 800 < endless.seconds <= 900
    admin.execute(f"ALTER ROLE {role} IN DATABASE postgres SET idle_session_timeout = 20000")
    (sooner,) = [one for one in keeps_awake(view()) if one.holder == "endless"]
    assert sooner.seconds is not None
    assert sooner.seconds <= 20
    admin.execute(f"ALTER ROLE {role} IN DATABASE postgres SET idle_session_timeout = 0")
    (forever,) = [one for one in keeps_awake(view()) if one.holder == "endless"]
    assert forever.seconds is None
    assert "no idle timeout" in forever.reason


def test_sessions_without_a_name(connect: Connect, role: str, view: Read) -> None:
    """They are counted by user and address."""
    connect(user=role)
    found = view()
    assert rules(found) == {"no name"}
    assert f"(no name) {role}@127.0.0.1" in [holder.name for holder in holders(found)]


def test_a_role_without_rights(connect: Connect, role: str, view: Read) -> None:
    """It sees names and counts; what it does not see is said, with the GRANT that helps."""
    connect("orders")
    found = view(role)
    assert [holder.name for holder in holders(found)] == ["admin", "orders"]
    assert found.sessions[0].state == "unknown"
    (finding,) = examine(found)
    assert finding.remedy == f'GRANT pg_read_all_stats TO "{role}"'


def test_looking_leaves_nothing_behind(
    server: Postgres, admin: psycopg.Connection[Any], lambdadb: Run
) -> None:
    """It says first what it does, and its session is closed when the command ends."""
    done = lambdadb("sessions", server.url().replace("+psycopg", ""), "--all")
    assert done.exit_code == 0
    assert "for a moment. If it is paused, this wakes it up" in done.stderr
    assert "admin" in done.stdout
    assert PASSWORD not in done.output
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'lambdadb%'"
    wait_until(lambda: admin.execute(query).fetchone() == (0,))


def test_two_servers_as_json(server: Postgres, connect: Connect, lambdadb: Run) -> None:
    """An object a line for each server, such as a writer and its reader."""
    connect("orders")
    done = lambdadb("sessions", server.url(), server.url("template1"), "--json")
    first, second = map(json.loads, done.stdout.splitlines())
    assert [holder["name"] for holder in first["holders"]] == ["admin", "orders"]
    assert first["slots"]["free"] > 0
    assert second["server"].endswith("/template1")


def test_a_full_server(server: Postgres, connect: Connect, role: str, lambdadb: Run) -> None:
    """An ordinary user hears who can still log in; that one sees who has the connections."""
    for _ in range(LIMIT - 4):
        connect("orders", user=role)
    url = server.url().replace("postgres:", f"{role}:", 1)
    refused = lambdadb("sessions", url, "--timeout", "1")
    assert refused.exit_code == 1
    assert "A user with reserved connections can still log in" in refused.stderr
    done = lambdadb("sessions", server.url())
    assert done.exit_code == 0
    assert "CRITICAL slots" in done.stdout
    assert "▶" in done.stdout


def test_urls_that_cannot_work(lambdadb: Run) -> None:
    """A usage error before anything is asked, without the password."""
    for arguments in (
        ["postgresql://u:canary-p@h/d", "--secret", "s"],
        ["oracle://u@h/d"],
        ["postgresql://u@h/d", "--secret", "s", "--iam"],
    ):
        done = lambdadb("sessions", *arguments)
        assert done.exit_code == 2, done.output
        assert "canary" not in done.output


def test_watching(server: Postgres, admin: psycopg.Connection[Any]) -> None:
    """It looks again on the same connection, and closes it at Ctrl-C."""
    command = [sys.executable, "-m", "lambdadb", "sessions", server.url(), "--watch", "0.2", "--json"]
    query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'lambdadb sessions'"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        looks = [json.loads(process.stdout.readline()) for _ in range(3)]
        assert len(admin.execute(query).fetchall()) == 1
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    assert {look["holders"][0]["name"] for look in looks} == {"admin"}
    wait_until(lambda: not admin.execute(query).fetchall())


def test_a_reader_beside_the_writer(server: Postgres, connect: Connect, lambdadb: Run) -> None:
    """Both are shown, each with its own sessions, and doctor asks a reader too."""
    connect("orders")
    with Standby(server) as reader:
        done = lambdadb("sessions", server.url(), reader.url(), "--json")
        assert done.exit_code == 0, done.output
        first, second = map(json.loads, done.stdout.splitlines())
        examined = lambdadb("doctor", reader.url())
    assert (first["reader"], second["reader"]) == (False, True)
    assert [holder["name"] for holder in first["holders"]] == ["admin", "orders"]
    assert second["holders"] == []
    assert examined.exit_code in (0, 1), examined.output
