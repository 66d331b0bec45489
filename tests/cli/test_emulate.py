"""The command `lambdadb emulate`, in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pymysql
import pytest
from sqlalchemy import make_url

from lambdadb.lab.mariadb import DIRECTORIES

from .processes import Started, descendants, gone, lambdadb

MARIADB = os.pathsep.join([os.environ.get("PATH", ""), *DIRECTORIES])
pytestmark = [pytest.mark.timeout(180), pytest.mark.sweep]


def libpq(url: str) -> str:
    return url.replace("+psycopg", "")


def test_emulate_prints_url_and_events(start: type[Started]) -> None:
    """The emulator prints a URL that works, then each pause, resume and what blocks a pause."""
    run = start("emulate", "--auto-pause", "60", "--resume", "30", "--speed", "100", "--paused")
    url = run.until(r"(postgresql\S+)  \(paused").group(1).replace("+psycopg", "")
    with psycopg.connect(url, application_name="shop") as connection:
        connection.execute("SELECT 1")
        connection.rollback()
        run.until("resuming .*\n.* available .*\n")
        run.until("blocked .*1 of shop")
    run.until(" paused ")
    children = descendants(run.process.pid)
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(20) == 0
    assert gone(children)


def test_emulate_is_controlled_over_http(
    start: type[Started], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With --control a test in any language pauses it; LAMBDADB_PASSWORD is its password."""
    monkeypatch.setenv("LAMBDADB_PASSWORD", "canary-emulate")
    run = start("emulate", "--resume", "0.5", "--control", "0")
    found = run.until(r"postgres:canary-emulate(@\S+)  \(available, control it at (http\S+)\)")
    with urllib.request.urlopen(f"{found.group(2)}/pause", b"", timeout=60) as answer:
        assert json.load(answer)["state"] == "paused"
    run.until(" paused ")
    with psycopg.connect(f"postgresql://postgres:canary-emulate{found.group(1)}") as connection:
        connection.execute("SELECT 1")
    done = lambdadb("emulate", "--data", "kept", folder=tmp_path)
    assert done.code == 2
    assert "LAMBDADB_PASSWORD: kept data" in done.stderr


@pytest.mark.skipif(shutil.which("mariadbd", path=MARIADB) is None, reason="MariaDB is not installed")
def test_emulate_mysql(start: type[Started], tmp_path: Path) -> None:
    """With --engine mysql the URL is PyMySQL's, the scripts have run, and a session's tag is shown."""
    script = tmp_path / "schema.sql"
    script.write_text("CREATE TABLE one (n INTEGER); INSERT INTO one VALUES (1);")
    arguments = ["--engine", "mysql", "--auto-pause", "60", "--resume", "30", "--speed", "100"]
    run = start("emulate", *arguments, "--shape", "login-close", "--init", str(script))
    url = make_url(run.until(r"(mysql\+pymysql\S+)  \(").group(1))
    place = {"host": url.host, "port": url.port, "user": url.username, "password": url.password}
    with pymysql.connect(**place, database=url.database, program_name="shop") as connection:  # type: ignore[arg-type]
        with connection.cursor() as cursor:
            cursor.execute("SELECT n FROM one")
            assert cursor.fetchall() == ((1,),)
        run.until("blocked .*1 of shop")
    run.until(" paused ")
    children = descendants(run.process.pid)
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(20) == 0
    assert gone(children)


def test_emulate_refuses_a_shape_of_the_other_database(tmp_path: Path) -> None:
    """A shape that the engine does not have is a usage error that names those that it has."""
    done = lambdadb("emulate", "--shape", "login-close", folder=tmp_path)
    assert done.code == 2
    assert "no-hba" in done.stderr


def test_emulate_json(start: type[Started]) -> None:
    """With --json each line is an object, the first one with the URL."""
    run = start("emulate", "--hot", "--json")
    facts = json.loads(run.until(r"\{.*\}\n").group(0))
    assert facts["state"] == "available"
    with psycopg.connect(facts["url"].replace("+psycopg", "")) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    run.process.send_signal(signal.SIGTERM)
    assert run.process.wait(20) == 0


def test_emulate_with_a_port_in_use(tmp_path: Path) -> None:
    """A port in use is named, and nothing stays behind."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = lambdadb("emulate", "--port", port, folder=tmp_path)
    assert done.code == 2
    assert port in done.stderr
    assert "Traceback" not in done.stderr


def url_of(run: Started) -> str:
    return libpq(run.until(r"(postgresql\S+)  \(").group(1))


def end(run: Started) -> None:
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(60) == 0


def test_emulate_asks_for_its_password(start: type[Started]) -> None:
    """The URL has a password that is another one each time; without it nobody can log in."""
    urls = []
    for _ in range(2):
        run = start("emulate", "--hot")  # type: ignore[call-arg]
        urls.append(url_of(run))
        port = psycopg.conninfo.conninfo_to_dict(urls[-1])["port"]
        psycopg.connect(urls[-1]).close()
        for password in ("", "postgres"):
            with pytest.raises(psycopg.OperationalError, match="password"):
                psycopg.connect(f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres")
        end(run)
    passwords = [psycopg.conninfo.conninfo_to_dict(url)["password"] for url in urls]
    assert len(set(passwords)) == 2
    assert min(map(len, map(str, passwords))) >= 20


def test_emulate_gives_its_server_no_variables(
    start: type[Started], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A superuser can read the server's environment, which has nothing of the developer's."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-of-a-developer")
    run = start("emulate", "--hot")  # type: ignore[call-arg]
    with psycopg.connect(url_of(run), autocommit=True) as connection:
        connection.execute("CREATE TABLE found (line text)")
        connection.execute("COPY found FROM PROGRAM 'env'")
        lines = [line for (line,) in connection.execute("SELECT line FROM found")]
    assert lines
    assert not [line for line in lines if "canary" in line or line.startswith("AWS_")]
    end(run)


def test_emulate_has_the_extension_vector(start: type[Started]) -> None:
    """Vectors work without a CREATE EXTENSION, as most who try this need them."""
    run = start("emulate", "--hot")  # type: ignore[call-arg]
    with psycopg.connect(url_of(run)) as connection:
        assert connection.execute("SELECT '[1,2]'::vector <-> '[1,4]'").fetchone() == (2.0,)
    end(run)


@pytest.fixture
def shop() -> Iterator[Path]:
    """A folder to come that the user of PostgreSQL can reach; those of pytest are private to root."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "shop"


def test_emulate_keeps_data(start: type[Started], tmp_path: Path, shop: Path) -> None:
    """--data keeps rows and password; --init runs once, when the data are new."""
    script = tmp_path / "schema.sql"
    script.write_text("CREATE TABLE item (name text);\nINSERT INTO item VALUES ('tea');\n")
    options = ("emulate", "--hot", "--data", str(shop), "--init", str(script))
    run = start(*options)  # type: ignore[call-arg]
    first = url_of(run)
    with psycopg.connect(first) as connection:
        connection.execute("INSERT INTO item VALUES ('cake')")
    end(run)
    run = start(*options)  # type: ignore[call-arg]
    second = url_of(run)
    with psycopg.connect(second) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM item ORDER BY name")]
    assert names == ["cake", "tea"]
    passwords = {psycopg.conninfo.conninfo_to_dict(url)["password"] for url in (first, second)}
    assert len(passwords) == 1
    end(run)


def test_emulate_with_sql_that_fails(tmp_path: Path, shop: Path) -> None:
    """The file and the server's words are shown, and half-made data are not kept."""
    script = tmp_path / "schema.sql"
    script.write_text("CREATE TABLE item (name text); SELECT nothing_there;")
    done = lambdadb("emulate", "--data", str(shop), "--init", str(script), folder=tmp_path)
    assert done.code == 2
    assert "schema.sql failed" in done.stderr
    assert 'column "nothing_there" does not exist' in done.stderr
    assert not (shop / "data").exists()
    assert not (shop / "password").exists()


def test_emulate_refuses_a_folder_of_somebody_else(tmp_path: Path) -> None:
    """A folder with other files is neither used nor changed."""
    (tmp_path / "thesis.txt").write_text("years")
    before = tmp_path.stat()
    done = lambdadb("emulate", "--data", str(tmp_path), folder=tmp_path)
    assert done.code == 2
    assert "thesis.txt" in done.stderr
    assert (tmp_path.stat().st_uid, tmp_path.stat().st_mode) == (before.st_uid, before.st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_emulate_for_a_container(start: type[Started]) -> None:
    """With --host it listens on every address, and warns of it."""
    run = start("emulate", "--hot", "--host", "0.0.0.0", read="stderr")  # type: ignore[call-arg]
    run.until("Warning: listening on 0.0.0.0")
    assert run.process.stdout is not None
    url = libpq(run.process.stdout.readline().decode().split()[0])
    parts = psycopg.conninfo.conninfo_to_dict(url)
    with psycopg.connect(url, host="127.0.0.2") as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(f"postgresql://postgres@127.0.0.2:{parts['port']}/postgres")
    end(run)


HOLD = """
import sys, time, psycopg
connection = psycopg.connect(sys.argv[1])
print("connected", flush=True)
time.sleep(300)
"""


def test_emulate_restarts_on_its_port_below_a_frozen_function(start: type[Started]) -> None:
    """A frozen process still holds its end of a connection: the port can be taken again all the same."""
    run = start("emulate", "--hot")  # type: ignore[call-arg]
    url = url_of(run)
    port = str(psycopg.conninfo.conninfo_to_dict(url)["port"])
    function = subprocess.Popen([sys.executable, "-c", HOLD, url], stdout=subprocess.PIPE, text=True)
    assert function.stdout is not None
    try:
        assert function.stdout.readline() == "connected\n"
        function.send_signal(signal.SIGSTOP)
        end(run)
        again = start("emulate", "--hot", "--port", port)  # type: ignore[call-arg]
        with psycopg.connect(url_of(again)) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        end(again)
    finally:
        function.kill()
        function.communicate(timeout=30)


@pytest.mark.parametrize("pause", [0.0, 0.01, 0.1])
@pytest.mark.parametrize("early", [True, False], ids=["while it starts", "while it runs"])
def test_emulate_ended_twice(start: type[Started], early: bool, pause: float) -> None:
    """Two signals, as a terminal and a supervisor send them at once, end it once and cleanly."""
    run = start("emulate", "--cold", "--paused")  # type: ignore[call-arg]
    if early:
        wait_for_children(run.process.pid)
    else:
        url_of(run)
    children = descendants(run.process.pid)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        run.process.send_signal(number)
        time.sleep(pause)
    assert run.process.wait(60) == 0
    assert run.process.stderr is not None
    assert run.process.stderr.read() == b""
    assert gone(children)


def wait_for_children(pid: int, seconds: float = 60.0) -> None:
    limit = time.monotonic() + seconds
    while not descendants(pid):
        assert time.monotonic() < limit, "nothing was started"
        time.sleep(0.01)
