"""The command `lambdadb bench`, end to end: real processes, real servers, really interrupted."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from lambdadb import ConnectFailed, Fault
from lambdadb.cli.bench import local
from lambdadb.lab import LabError, mariadb
from lambdadb.lab.bench import terminal
from lambdadb.lab.bench.config import DATA_API_PRICE, STEADY_ROUNDS, BenchConfig
from lambdadb.lab.bench.records import POLICIES, InvocationRecord, Record, RunRecord
from lambdadb.lab.postgres import Postgres

from ..lab.aws import KEYS, secret_server
from .processes import Finished, Started, descendants, gone, lambdadb

# Eight servers and eight environments start at once: seconds, or many on a busy machine.
pytestmark = [pytest.mark.timeout(180), pytest.mark.sweep]
PASSWORD = "pl4nted-s3cret"


def rehearsed() -> list[Record]:
    """The rows of a benchmark that nobody ran."""
    run = RunRecord(
        started="2026-01-01T00:00:00.000+00:00",
        speed=120.0,
        rounds=2,
        resume=15.0,
        shape="hold",
        auto_pause=420.0,
        interval={"cold": 720.0},
        clusters={"cold": "embedded"},
        versions={},
    )
    return [run] + [
        InvocationRecord(
            aurora_type="cold",
            policy="hand_written",
            number=number,
            at=0.0,
            timestamp="",
            experiment="",
            elapsed=15.5,
            new_id=new_id,
        )
        for number, new_id in ((1, 793), (2, 826))
    ]


@pytest.fixture(scope="module")
def benched(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One whole benchmark, with short resumes and idle times that fly."""
    return lambdadb(
        *("bench", "--rounds", "2", "--resume", "1", "--speed", "300", "--out", "results"),
        folder=tmp_path_factory.mktemp("bench"),
    )


@pytest.fixture(scope="module")
def cells(benched: Finished) -> dict[tuple[str, str], dict[str, object]]:
    """The summary of the whole benchmark, by cluster and handler."""
    facts = json.loads((benched.folder / "results" / "summary.json").read_text())
    return {(one["aurora_type"], one["policy"]): one for one in facts["cells"]}


def test_bench_reports(benched: Finished) -> None:
    """The benchmark ends well, prints its table with its time's label, and leaves its files."""
    assert (benched.code, benched.stderr.count("Error")) == (0, 0), benched.stderr
    assert "PerInvocation" in benched.stdout
    assert "300 times as fast" in benched.stdout
    assert "300 times as fast" in benched.stderr
    assert {file.name for file in (benched.folder / "results").iterdir()} == {
        *("results.jsonl", "summary.json", "report.html"),
        *("elapsed.png", "id-steps.png", "paused.png"),
    }


def test_bench_gives_the_published_ids(cells: dict[tuple[str, str], dict[str, object]]) -> None:
    """A cluster that pauses steps from 793 to 826; one that does not from 50 to 51."""
    for policy in ("hand_written", "per_environment", "per_invocation", "data_api"):
        assert cells["cold", policy]["ids"] == [793, 826]
    for policy in POLICIES:
        assert cells["hot", policy]["ids"] == [50, 51]


def test_bench_shows_who_lets_it_pause(cells: dict[tuple[str, str], dict[str, object]]) -> None:
    """SQLAlchemy's pool keeps the cluster awake for good; the other handlers let it pause."""
    assert cells["cold", "sqlalchemy_default"]["paused_share"] == 0
    assert cells["cold", "sqlalchemy_default"]["sessions_left"] == 1
    assert cells["cold", "per_invocation"]["sessions_left"] == 0
    for policy in ("hand_written", "per_environment", "per_invocation", "data_api"):
        share = cells["cold", policy]["paused_share"]
        assert isinstance(share, float)
        assert 0 < share < 0.5  # a slow machine leaves less of the interval


def test_bench_counts_the_resume(cells: dict[tuple[str, str], dict[str, object]]) -> None:
    """Each cold connect takes the resume's real time at any speed, and lambdadb tells it."""
    cold = cells["cold", "per_invocation"]
    assert isinstance(cold["elapsed_min"], float)
    assert isinstance(cold["resume_wait"], float)
    assert cold["elapsed_min"] >= 1.0
    assert cold["resume_wait"] >= 2.0
    assert cold["connects"] == 2


def test_bench_counts_the_calls_of_the_data_api(
    benched: Finished, cells: dict[tuple[str, str], dict[str, object]]
) -> None:
    """Three a transaction, and what a million of them cost; no other handler has any."""
    for kind in ("hot", "steady"):
        assert cells[kind, "data_api"]["calls"] == 3
        assert cells[kind, "data_api"]["request_cost"] == pytest.approx(3 * DATA_API_PRICE)
    assert cells["cold", "data_api"]["sessions_left"] == 0
    assert cells["hot", "per_invocation"]["calls"] is None
    page = (benched.folder / "results" / "report.html").read_text()
    assert f"{3 * DATA_API_PRICE:.2f} USD" in page
    assert "which is not verified" in page


def test_bench_rows_are_json_lines(benched: Finished) -> None:
    """results.jsonl has the published fields of every invocation, one per line."""
    text = (benched.folder / "results" / "results.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    invocations = [row for row in rows if row["record"] == "invocation"]
    assert len(invocations) == 5 * (2 + 2 + STEADY_ROUNDS)
    for row in invocations:
        assert {"elapsed", "aurora_type", "new_id", "experiment", "policy"} <= row.keys()
    assert any(row["record"] == "change" and row["kind"] == "blocked" for row in rows)


def test_bench_of_a_cluster_that_refuses(tmp_path: Path) -> None:
    """Handlers that do not wait fail with a row and exit code 1, and lambdadb's succeed; a resume
    that nobody waited for takes its real time all the same."""
    done = lambdadb(
        *("bench", "--rounds", "1", "--resume", "1", "--shape", "refuse", "--json"), folder=tmp_path
    )
    assert done.code == 1, done.stderr
    errors = {
        one["policy"]: one["errors"]
        for one in json.loads(done.stdout)["cells"]
        if one["aurora_type"] == "cold"
    }
    assert errors == {
        "hand_written": 1,
        "sqlalchemy_default": 1,
        "per_environment": 0,
        "per_invocation": 0,
        "data_api": 0,
    }
    rows = [
        json.loads(line)
        for line in (tmp_path / "lambdadb-bench" / "results.jsonl").read_text().splitlines()
    ]
    at = {
        row["kind"]: row["at"]
        for row in rows
        if row["record"] == "change" and row["policy"] == "hand_written"
    }
    assert 1 <= at["available"] - at["resuming"] < 10


def test_bench_mysql(tmp_path: Path) -> None:
    """On MariaDB all four handlers store their rows. The ids go up by 1 in spite of the pauses."""
    try:
        mariadb.find_server()
    except LabError as error:
        pytest.skip(str(error))
    # Five minutes beyond the 420 s to a pause, for a slow machine; no steady traffic.
    arguments = ["--rounds", "2", "--resume", "1", "--interval", "720", "--no-steady", "--json"]
    done = lambdadb("bench", "--engine", "mysql", *arguments, folder=tmp_path)
    assert done.code == 0, done.stderr
    facts = json.loads(done.stdout)
    assert {"mariadb"} == {name for one in facts["servers"] for name in one} - {"aurora_type"}
    assert any("AUTO_INCREMENT survives" in note for note in facts["notes"])
    assert "MariaDB 1" in (tmp_path / "lambdadb-bench" / "report.html").read_text()
    cells = {(one["aurora_type"], one["policy"]): one for one in facts["cells"]}
    assert len(cells) == 8
    for (kind, policy), one in cells.items():
        assert one["ids"] == ([50, 51] if kind == "hot" else [793, 794]), (kind, policy)
        pauses = kind == "cold" and policy != "sqlalchemy_default"
        assert (one["paused_share"] > 0) == pauses, (kind, policy)
    assert cells["cold", "per_environment"]["connects"] == 2


def test_bench_without_mariadb(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where MariaDB is missing, nothing is run, and the error has the command that installs it."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(mariadb, "DIRECTORIES", ())
    with pytest.raises(LabError, match="apt-get install"):
        local.check(BenchConfig(engine="mysql", speed=60.0))


def test_bench_of_a_real_cluster_hides_its_password(tmp_path: Path) -> None:
    """A given URL gets one table of its own, and its password shows up nowhere."""
    with Postgres(password=PASSWORD) as server:
        url = server.url()
        assert PASSWORD in url
        with psycopg.connect(url.replace("+psycopg", "")) as connection:
            connection.execute("CREATE EXTENSION vector")
        done = lambdadb(
            *("bench", "--rounds", "1", "--no-steady", "--yes", "--json"),
            folder=tmp_path,
            env={**os.environ, "LAMBDADB_BENCH_HOT": url},
        )
        with psycopg.connect(url.replace("+psycopg", "")) as connection:
            tables = connection.execute(
                "SELECT relname, (SELECT count(*) FROM lambdadb_bench_hot) FROM pg_stat_user_tables"
            ).fetchall()
    assert done.code == 0, done.stderr
    assert tables == [("lambdadb_bench_hot", 4)]
    assert "gets one table, lambdadb_bench_hot" in done.stderr
    facts = json.loads(done.stdout)
    assert [one["errors"] for one in facts["cells"]] == [0, 0, 0, 0]
    assert facts["time"] == "all in real time"
    everything = [done.stdout, done.stderr]
    everything += [file.read_text(errors="replace") for file in tmp_path.rglob("*") if file.is_file()]
    assert len(everything) > 4
    assert not any(PASSWORD in text for text in everything)


def test_what_cannot_work_is_said_before_the_first_round(tmp_path: Path) -> None:
    """A missing extension and a wrong login, each named, at once; an earlier report stays."""
    folder = tmp_path / "lambdadb-bench"
    folder.mkdir()
    for name in ("results.jsonl", "report.html", "summary.json"):
        (folder / name).write_text("of an earlier run")
    with Postgres() as server:  # without the extension
        wrong = server.url().replace(server.password, PASSWORD)
        done = lambdadb("bench", "--yes", "--hot", server.url(), "--cold", wrong, folder=tmp_path)
    assert done.code == 2
    text = " ".join(done.stderr.split())
    assert "hot: extension: the database postgres has no extension vector" in text
    assert "cold: login: No connection to" in text
    assert PASSWORD not in done.stdout + done.stderr
    for name in ("results.jsonl", "report.html", "summary.json"):
        assert (folder / name).read_text() == "of an earlier run"


def test_two_urls_of_one_database_with_a_secret(tmp_path: Path) -> None:
    """Both URLs, one login of Secrets Manager, a table for each, and nothing left afterwards."""
    with Postgres(password=PASSWORD) as server, secret_server() as aws:
        value = json.dumps({"username": "postgres", "password": PASSWORD})
        secret = aws.secret(SecretString=value)
        with psycopg.connect(server.url().replace("+psycopg", "")) as connection:
            connection.execute("CREATE EXTENSION vector")
        url = f"postgresql://127.0.0.1:{server.port}/postgres"
        done = lambdadb(
            *("bench", "--hot", url, "--cold", url, "--secret", secret.id, "--clean-up", "--yes"),
            *("--no-steady", "--rounds", "2", "--interval", "1", "--experiment", "trial 7"),
            folder=tmp_path,
            env={**os.environ, **KEYS, "AWS_ENDPOINT_URL": aws.endpoint},
        )
        with psycopg.connect(server.url().replace("+psycopg", "")) as connection:
            tables = connection.execute("SELECT relname FROM pg_stat_user_tables").fetchall()
    assert done.code == 0, done.stderr
    lines = (tmp_path / "lambdadb-bench" / "results.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row["record"] == "invocation"]
    assert len(rows) == 16
    assert {row["experiment"] for row in rows} == {"trial 7"}
    ids = {
        kind: [row["new_id"] for row in rows if row["aurora_type"] == kind] for kind in ("hot", "cold")
    }
    assert ids == {"hot": [*range(1, 9)], "cold": [*range(1, 9)]}
    assert tables == []
    assert "The table lambdadb_bench_cold was dropped." in done.stderr
    assert "paused is n/a: 127.0.0.1" in " ".join(done.stdout.split())
    assert PASSWORD not in done.stdout + done.stderr + "".join(lines)


def test_bench_asks_before_it_writes_to_a_cluster(tmp_path: Path) -> None:
    """Without a terminal and without --yes, a real cluster is not touched."""
    url = f"postgresql+psycopg://app:{PASSWORD}@127.0.0.1:9/orders"
    done = lambdadb("bench", "--hot", url, folder=tmp_path, stdin=subprocess.DEVNULL)
    assert done.code == 2
    assert "--yes" in done.stderr
    assert PASSWORD not in done.stdout + done.stderr


def test_bench_with_an_unreachable_cluster(tmp_path: Path) -> None:
    """A cluster that cannot be reached is named before anything runs."""
    url = f"postgresql+psycopg://app:{PASSWORD}@nowhere.invalid/orders"
    done = lambdadb("bench", "--hot", url, "--yes", folder=tmp_path)
    assert done.code == 2, done.stderr
    assert "hot: address: No connection to" in done.stderr
    assert "nowhere.invalid" in done.stderr
    assert PASSWORD not in done.stdout + done.stderr


def test_a_cluster_that_goes_away_after_the_check(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What fails between the check and the first round is an error that says so."""

    def gone(config: BenchConfig) -> None:
        numbers = {"waited": 1.0, "attempts": 1}
        raise ConnectFailed("gone", fault=Fault.UNREACHABLE, orig=OSError("gone"), **numbers)

    monkeypatch.setattr(local, "RealClusters", gone)
    config = BenchConfig(speed=1, urls={"hot": f"postgresql://app:{PASSWORD}@h/d"})
    with pytest.raises(LabError, match="could not be prepared: ConnectFailed: gone"):
        local.measure(config, tmp_path, as_json=False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_bench(start: type[Started], tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C in mid-invocation leaves no process, and keeps and reports what was measured."""
    run = start("bench", "--resume", "60", read="stderr")  # type: ignore[call-arg]
    run.until("hot, PerInvocation, invocation 1.*")
    children = descendants(run.process.pid)
    assert len(children) > 20  # ten servers, ten environments, and their supervisors
    run.process.send_signal(number)
    assert run.process.wait(30) == 130
    assert gone(children)
    folder = tmp_path / "lambdadb-bench"
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert any(row["record"] == "invocation" and row["new_id"] == 50 for row in rows)
    assert not any(row.get("error") for row in rows)
    assert json.loads((folder / "summary.json").read_text())["complete"] is False
    assert "interrupted" in (folder / "report.html").read_text()


def test_out_that_cannot_be_written(tmp_path: Path) -> None:
    """A folder that cannot be made is found before anything runs, and named."""
    (tmp_path / "file").touch()
    done = lambdadb("bench", "--out", "file/results", folder=tmp_path)
    assert done.code == 2
    assert "file/results cannot be written (Not a directory)" in done.stderr


def test_full_disk_is_found_before_the_run(tmp_path: Path) -> None:
    """A disk that has no room for the report is found before anything runs."""
    done = lambdadb(
        "bench",
        folder=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    assert done.code == 2
    assert "the results would be lost; nothing was run" in " ".join(done.stderr.split())
    assert not list((tmp_path / "lambdadb-bench").iterdir())


def test_disk_that_fills_during_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """When the results can no longer be written, the table is printed and what is missing named."""
    folder = tmp_path / "results"
    folder.mkdir()

    class Rehearsal:
        """A bench whose folder goes away while it runs."""

        interrupted = False

        def __init__(self, config: BenchConfig, versions: object) -> None:
            pass

        def __enter__(self) -> Rehearsal:
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def interrupt(self) -> None:
            pass

        def records(self) -> Iterator[Record]:
            yield from rehearsed()[:2]
            (folder / "unfinished.jsonl").unlink()
            folder.rmdir()
            yield from rehearsed()[2:]

    monkeypatch.setattr(local, "Bench", Rehearsal)
    assert local.measure(BenchConfig(), folder, as_json=False) == 1
    printed = capsys.readouterr()
    assert "793, 826" in printed.out
    assert "unfinished.jsonl, from line 3 on: No such file" in printed.err
    assert "report.html: No such file" in printed.err


def test_wrong_option(tmp_path: Path) -> None:
    """A wrong option is a usage error that says where to look."""
    done = lambdadb("bench", "--speed", "fast", folder=tmp_path)
    assert done.code == 2
    assert "lambdadb bench --help" in done.stderr


def test_progress_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Where standard error is no terminal, each invocation is one plain line."""
    with terminal.progress(3) as show:
        for row in rehearsed():
            show(row)
    lines = capsys.readouterr().err.splitlines()
    assert lines[1] == "cold, hand-written, invocation 1: id 793 in 15.5 s"
    assert "\x1b" not in "".join(lines)
