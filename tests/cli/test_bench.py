"""The command line, end to end: real processes, real servers, really interrupted."""

from __future__ import annotations

import json
import os
import re
import resource
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from lambdadb.lab import commands
from lambdadb.lab.bench import terminal
from lambdadb.lab.bench.config import BenchConfig
from lambdadb.lab.bench.records import InvocationRecord, Record, RunRecord
from lambdadb.lab.postgres import Postgres

# Eight servers and eight environments start at once: seconds, or many on a busy machine.
pytestmark = pytest.mark.timeout(180)
LAMBDADB = [sys.executable, "-c", "from lambdadb.lab.cli import main; main()"]
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
            policy="handwritten",
            number=number,
            at=0.0,
            timestamp="",
            experiment="",
            elapsed=15.5,
            new_id=new_id,
        )
        for number, new_id in ((1, 793), (2, 826))
    ]


@dataclass
class Finished:
    """What a run of the command line left."""

    code: int
    stdout: str
    stderr: str
    folder: Path


def lambdadb(
    *arguments: str, folder: Path, code: list[str] | None = None, **options: object
) -> Finished:
    done = subprocess.run(  # type: ignore[call-overload]
        [*(code or LAMBDADB), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=150,
        **options,
    )
    return Finished(done.returncode, done.stdout, done.stderr, folder)


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
    for policy in ("handwritten", "per_environment", "per_invocation"):
        assert cells["cold", policy]["ids"] == [793, 826]
    for policy in ("handwritten", "defaults", "per_environment", "per_invocation"):
        assert cells["hot", policy]["ids"] == [50, 51]


def test_bench_shows_who_lets_it_pause(cells: dict[tuple[str, str], dict[str, object]]) -> None:
    """SQLAlchemy's pool keeps the cluster awake for good; the other handlers let it pause."""
    assert cells["cold", "defaults"]["paused_share"] == 0
    assert cells["cold", "defaults"]["sessions_left"] == 1
    assert cells["cold", "per_invocation"]["sessions_left"] == 0
    for policy in ("handwritten", "per_environment", "per_invocation"):
        share = cells["cold", policy]["paused_share"]
        assert isinstance(share, float)
        assert 0.2 < share < 0.5


def test_bench_counts_the_resume(cells: dict[tuple[str, str], dict[str, object]]) -> None:
    """Each cold connect takes the resume's real time at any speed, and lambdadb tells it."""
    cold = cells["cold", "per_invocation"]
    assert isinstance(cold["elapsed_min"], float)
    assert isinstance(cold["resume_wait"], float)
    assert cold["elapsed_min"] >= 1.0
    assert cold["resume_wait"] >= 2.0
    assert cold["connects"] == 2


def test_bench_rows_are_json_lines(benched: Finished) -> None:
    """results.jsonl has the published fields of every invocation, one per line."""
    text = (benched.folder / "results" / "results.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    invocations = [row for row in rows if row["record"] == "invocation"]
    assert len(invocations) == 16
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
    assert errors == {"handwritten": 1, "defaults": 1, "per_environment": 0, "per_invocation": 0}
    rows = [
        json.loads(line)
        for line in (tmp_path / "lambdadb-bench" / "results.jsonl").read_text().splitlines()
    ]
    at = {
        row["kind"]: row["at"]
        for row in rows
        if row["record"] == "change" and row["policy"] == "handwritten"
    }
    assert 1 <= at["available"] - at["resuming"] < 10


def test_bench_of_a_real_cluster_hides_its_password(tmp_path: Path) -> None:
    """A given URL gets one table of its own, and its password shows up nowhere."""
    with Postgres(password=PASSWORD) as server:
        url = server.url()
        assert PASSWORD in url
        with psycopg.connect(url.replace("+psycopg", "")) as connection:
            connection.execute("CREATE EXTENSION vector")
        done = lambdadb(
            *("bench", "--rounds", "1", "--yes", "--json"),
            folder=tmp_path,
            env={**os.environ, "LAMBDADB_BENCH_HOT": url},
        )
        with psycopg.connect(url.replace("+psycopg", "")) as connection:
            tables = connection.execute(
                "SELECT relname, (SELECT count(*) FROM lambdadb_bench_vector_table)"
                " FROM pg_stat_user_tables"
            ).fetchall()
    assert done.code == 0, done.stderr
    assert tables == [("lambdadb_bench_vector_table", 4)]
    assert "gets one table, lambdadb_bench_vector_table" in done.stderr
    facts = json.loads(done.stdout)
    assert [one["errors"] for one in facts["cells"]] == [0, 0, 0, 0]
    assert facts["time"] == "all in real time"
    everything = [done.stdout, done.stderr]
    everything += [file.read_text(errors="replace") for file in tmp_path.rglob("*") if file.is_file()]
    assert len(everything) > 4
    assert not any(PASSWORD in text for text in everything)


def test_bench_asks_before_it_writes_to_a_cluster(tmp_path: Path) -> None:
    """Without a terminal and without --yes, a real cluster is not touched."""
    url = f"postgresql+psycopg://app:{PASSWORD}@127.0.0.1:9/orders"
    done = lambdadb("bench", "--hot", url, folder=tmp_path, stdin=subprocess.DEVNULL)
    assert done.code == 2
    assert "--yes" in done.stderr
    assert PASSWORD not in done.stdout + done.stderr


def test_bench_with_an_unreachable_cluster(tmp_path: Path) -> None:
    """A cluster that cannot be reached gives rows with errors, a report, and exit code 1."""
    url = f"postgresql+psycopg://app:{PASSWORD}@nowhere.invalid/orders"
    done = lambdadb("bench", "--hot", url, "--yes", folder=tmp_path)
    assert done.code == 1, done.stderr
    assert "nowhere.invalid" in done.stderr
    assert (tmp_path / "lambdadb-bench" / "report.html").exists()
    assert PASSWORD not in done.stdout + done.stderr


def descendants(root: int) -> set[int]:
    """All processes below one, by the system's own list."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True)
    pairs = [tuple(map(int, line.split())) for line in listed.stdout.splitlines()]
    found = {root}
    for _ in range(10):  # deeper than any of ours
        found |= {pid for pid, parent in pairs if parent in found}
    return found - {root}


def running(pids: set[int]) -> set[int]:
    listed = subprocess.run(["ps", "-A", "-o", "pid=,stat="], capture_output=True, text=True)
    lines = [line.split() for line in listed.stdout.splitlines()]
    return {int(pid) for pid, state in lines if int(pid) in pids and not state.startswith("Z")}


def gone(pids: set[int], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while running(pids) and time.monotonic() < end:
        time.sleep(0.05)
    return not running(pids)


class Started:
    """A command line that runs, read line by line with a bounded wait."""

    def __init__(self, *arguments: str, folder: Path, read: str) -> None:
        self.process = subprocess.Popen(
            [*LAMBDADB, *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        stream = getattr(self.process, read)
        self.descriptor = stream.fileno()
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.descriptor, selectors.EVENT_READ)
        self.text = ""

    def until(self, pattern: str, seconds: float = 40.0) -> re.Match[str]:
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.text)):
            assert self.selector.select(max(0.0, end - time.monotonic())), self.text
            chunk = os.read(self.descriptor, 65536)
            assert chunk, self.text
            self.text += chunk.decode()
        return found

    def close(self) -> None:
        self.selector.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=10)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[type[Started]]:
    """Start command lines that end with the test."""
    started: list[Started] = []

    class Kept(Started):
        def __init__(self, *arguments: str, read: str = "stdout") -> None:
            super().__init__(*arguments, folder=tmp_path, read=read)
            started.append(self)

    yield Kept  # type: ignore[misc]
    for one in started:
        one.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_bench(start: type[Started], tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C in mid-invocation leaves no process, and keeps and reports what was measured."""
    run = start("bench", "--resume", "60", read="stderr")  # type: ignore[call-arg]
    run.until("hot, PerInvocation, invocation 1.*")
    children = descendants(run.process.pid)
    assert len(children) > 16  # eight servers, eight environments, and their supervisors
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

        def __init__(self, config: BenchConfig) -> None:
            pass

        def __enter__(self) -> Rehearsal:
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def interrupt(self) -> None:
            pass

        def records(self) -> Iterator[Record]:
            yield from rehearsed()[:2]
            (folder / "results.jsonl").unlink()
            folder.rmdir()
            yield from rehearsed()[2:]

    monkeypatch.setattr(commands, "Bench", Rehearsal)
    assert commands.measure(BenchConfig(), folder, as_json=False) == 1
    printed = capsys.readouterr()
    assert "793, 826" in printed.out
    assert "results.jsonl, from line 3 on: No such file" in printed.err
    assert "report.html: No such file" in printed.err


def test_missing_extra(tmp_path: Path) -> None:
    """Without the extra's packages the command line names them and the pip install."""
    code = "import sys; sys.modules['rich'] = None; from lambdadb.lab.cli import main; main()"
    done = lambdadb("bench", folder=tmp_path, code=[sys.executable, "-c", code])
    assert done.code == 2
    assert done.stderr.strip() == (
        "lambdadb: rich not installed, and the command line needs it: "
        "pip install '.[lab]' in a clone of lambdadb"
    )


def test_wrong_option(tmp_path: Path) -> None:
    """A wrong option is a usage error that says where to look."""
    done = lambdadb("bench", "--speed", "fast", folder=tmp_path)
    assert done.code == 2
    assert "lambdadb bench --help" in done.stderr


def test_help_has_examples_and_exit_codes(tmp_path: Path) -> None:
    """The help of each command shows examples and what its exit codes mean."""
    for command in ("bench", "emulate"):
        done = lambdadb(command, "--help", folder=tmp_path)
        assert done.code == 0
        assert "Examples:" in done.stdout
        assert "Exit codes:" in done.stdout


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


def test_progress_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Where standard error is no terminal, each invocation is one plain line."""
    with terminal.progress(3) as show:
        for row in rehearsed():
            show(row)
    lines = capsys.readouterr().err.splitlines()
    assert lines[1] == "cold, hand-written, invocation 1: id 793 in 15.5 s"
    assert "\x1b" not in "".join(lines)
