from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from lambdadb import lab
from lambdadb.lab import LabError
from lambdadb.lab.postgres import Postgres, binaries

# Minutes in all: `nox -s sweep` runs them.
pytestmark = pytest.mark.sweep

PROGRAM = """
import sys, time
from lambdadb.lab.postgres import Postgres

server = Postgres()
server.start()
print(server.url(), server._directory.path, server._process.pid, flush=True)
if sys.argv[1] == "wait":
    time.sleep(60)
server.close()
"""


def libpq(url: str) -> str:
    return url.replace("+psycopg", "")


def test_it_is_postgresql_18_with_pgvector(postgres: Postgres) -> None:
    """The server is a real PostgreSQL 18 whose pgvector extension can be created."""
    with psycopg.connect(libpq(postgres.url())) as connection:
        assert connection.info.server_version // 10000 == 18
        connection.execute("CREATE EXTENSION vector")
        nearest = connection.execute("SELECT '[1,2]'::vector <-> '[1,4]'").fetchone()
        assert nearest == (2.0,)
        connection.rollback()


def test_it_listens_on_loopback_only(postgres: Postgres) -> None:
    """Neither another address nor a socket file leads to the server."""
    with psycopg.connect(libpq(postgres.url())) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("127.0.0.1",)
        assert connection.execute("SHOW unix_socket_directories").fetchone() == ("",)


def test_data_settings_and_port_survive_a_restart() -> None:
    """After both kinds of stop the rows, the settings and the port are the same."""
    with Postgres(settings={"max_connections": "17", "cluster_name": "it's"}) as server:
        port = server.port
        with psycopg.connect(libpq(server.url())) as connection:
            connection.execute("CREATE TABLE t AS SELECT 5 AS x")
        for mode in ("fast", "immediate"):
            server.stop(mode)  # type: ignore[arg-type]
            assert not server.running
            server.start()
            with psycopg.connect(libpq(server.url())) as connection:
                assert connection.execute("SELECT x FROM t").fetchone() == (5,)
                assert connection.execute("SHOW max_connections").fetchone() == ("17",)
                assert connection.execute("SHOW cluster_name").fetchone() == ("it's",)
        assert server.port == port


def test_the_password_is_asked_for_and_never_shown() -> None:
    """A wrong password is refused, the right one works, and no file or repr holds it."""
    secret = "p@ss/w'r d%"
    server = Postgres(password=secret)
    with server:
        assert server._directory is not None
        with psycopg.connect(libpq(server.url())) as connection:
            assert connection.pgconn.used_password
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(libpq(server.url()), password="wrong")
        files = [path for path in server._directory.path.rglob("*") if path.is_file()]
        assert files
        assert not [path for path in files if secret.encode() in path.read_bytes()]
        assert secret not in repr(server)


def test_a_setting_that_is_wrong_shows_the_servers_own_words() -> None:
    """A start that fails raises LabError with the end of the log, and leaves nothing."""
    server = Postgres(settings={"shared_buffers": "lots"})
    with pytest.raises(LabError, match=r'(?s)did not start.*"shared_buffers".*lots'):
        server.__enter__()
    assert not server.running
    assert server._directory is None


def test_a_port_taken_meanwhile_is_given_up_for_another(postgres: Postgres) -> None:
    """When another program holds the port, the server starts on a different one."""
    server = Postgres()
    server.port = postgres.port
    with server:
        assert server.port != postgres.port
        psycopg.connect(libpq(server.url())).close()


def test_close_removes_server_and_data() -> None:
    """After close() neither the process nor the directory exists."""
    server = Postgres()
    server.start()
    assert server._directory is not None
    path = server._directory.path
    assert path.is_dir()
    server.close()
    assert not path.exists()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(libpq(server.url()))


def test_many_run_at_once() -> None:
    """Servers started at the same time get their own ports and directories."""
    servers = [Postgres() for _ in range(4)]
    try:
        with ThreadPoolExecutor() as pool:
            list(pool.map(Postgres.start, servers))
        assert len({server.port for server in servers}) == 4
        for server in servers:
            psycopg.connect(libpq(server.url())).close()
    finally:
        for server in servers:
            server.close()


def test_server_and_directory_are_gone_after_a_crash_of_the_parent() -> None:
    """SIGKILL of the program that started a server leaves neither server nor data."""
    parent = subprocess.Popen([sys.executable, "-c", PROGRAM, "wait"], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    url, path, pid = parent.stdout.readline().split()
    psycopg.connect(libpq(url)).close()
    parent.kill()
    parent.wait(10.0)
    parent.stdout.close()
    end = time.monotonic() + 15.0
    while Path(path).exists() or server_lives(int(pid)):
        assert time.monotonic() < end, "server or directory is still there"
        time.sleep(0.02)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(libpq(url))


def server_lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_ordinary_user_runs_it_too() -> None:
    """A program without privileges starts a server as itself."""
    done = run_as_nobody(reachable_python(), PROGRAM, "end")
    assert done.returncode == 0, done.stderr
    assert "postgresql+psycopg://postgres:" in done.stdout


def run_as_nobody(python: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    package = binaries.find_package()
    places = os.pathsep.join([str(Path(lab.__file__).parents[2]), str(package.parent)])
    return subprocess.run(
        [python, "-c", *arguments],
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
        env={"HOME": "/nonexistent", "TMPDIR": "/tmp", "PYTHONPATH": places},
        user="nobody",
        group=binaries.primary_group("nobody"),
        extra_groups=[],
    )


def reachable_python() -> str:
    """This interpreter, or the system's own where this one lies in root's private home."""
    for python in (sys.executable, shutil.which("python3", path="/usr/local/bin:/usr/bin")):
        try:
            if python and run_as_nobody(python, "import lambdadb.lab.postgres").returncode == 0:
                return python
        except PermissionError:
            continue
    pytest.skip("user nobody can reach neither an interpreter with this package nor the package")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a private home closed to nobody")
def test_programs_out_of_reach_are_copied_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a virtual environment closed to user nobody the server runs from a copy, reused."""
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:-2]:
        parent.chmod(0o755)
    monkeypatch.setattr(binaries.tempfile, "gettempdir", lambda: str(tmp_path))
    package = binaries.find_package()
    copy = binaries.copy_of(package)
    assert copy.parent == tmp_path
    assert binaries.trial(copy / binaries.PACKAGE / binaries.INSTALLATION / "bin") is None
    assert binaries.copy_of(package) == copy
    assert list(tmp_path.iterdir()) == [copy]
    copy.chmod(0o777)
    with pytest.raises(LabError, match="can be changed by others"):
        binaries.copy_of(package)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the embedded server's package the error says what to install."""
    monkeypatch.setattr(binaries, "PACKAGE", "no_such_package")
    with pytest.raises(LabError, match=r"pip install '.\[testing\]'"):
        Postgres().start()


def test_no_checkpoint_saves_a_sequence_before_a_crash(postgres: Postgres) -> None:
    """However long the server runs, a crash loses the values that a sequence has reserved."""
    with psycopg.connect(postgres.url().replace("+psycopg", "")) as connection:
        shown = connection.execute("SHOW checkpoint_timeout").fetchone()
    assert shown == ("1d",)


def test_a_server_has_a_password_of_its_own() -> None:
    """Without one being chosen it is random: nobody else on this machine can log in."""
    with Postgres() as one, Postgres() as other:
        assert one.url().partition("@")[0] != other.url().partition("@")[0]
        for password in ("", "postgres"):
            with pytest.raises(psycopg.OperationalError, match="password"):
                psycopg.connect(f"postgresql://postgres:{password}@127.0.0.1:{one.port}/postgres")
        with psycopg.connect(libpq(one.url())) as connection:
            rules = connection.execute("SELECT DISTINCT auth_method FROM pg_hba_file_rules").fetchall()
    assert rules == [("scram-sha-256",)]


def test_a_server_knows_no_variable_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """A superuser can run programs there: they get a path and a locale, and no keys."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", "canary-token")
    with Postgres() as server, psycopg.connect(libpq(server.url())) as connection:
        connection.execute("CREATE TEMP TABLE found (line text)")
        connection.execute("COPY found FROM PROGRAM 'env'")
        names = {line.partition("=")[0] for (line,) in connection.execute("SELECT line FROM found")}
    assert names
    assert not [name for name in names if name.startswith(("AWS_", "PYTHON", "LAMBDADB"))]


def test_kept_data_with_a_password_given() -> None:
    """The kept password would win, so that another one is refused."""
    with pytest.raises(LabError, match="leave out password="):
        Postgres(data=Path("any"), password="mine")


def test_data_without_their_password(tmp_path: Path) -> None:
    """A folder named data that is not a server's is left alone."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "precious").touch()
    with pytest.raises(LabError, match="has no file password beside it"):
        Postgres(data=tmp_path).start()
    assert (tmp_path / "data" / "precious").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's server is another user's")
def test_kept_data_out_of_reach(tmp_path: Path) -> None:
    """A place that the server's user cannot reach is named, with what to do."""
    tmp_path.chmod(0o700)
    with pytest.raises(LabError, match="open to all users"):
        Postgres(data=tmp_path / "shop").start()
