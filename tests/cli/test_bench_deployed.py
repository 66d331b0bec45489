"""`lambdadb bench --on lambda`, end to end: real functions, real boto3, and an emulated AWS."""

from __future__ import annotations

import io
import json
import signal
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from lambdadb.cli.bench.deployed import Moment
from lambdadb.cli.group import run
from lambdadb.lab.bench.records import EventRecord, InvocationRecord, read
from lambdadb.lab.emulated_aws import EmulatedAWS
from lambdadb.lab.emulated_aws.experiment import (
    EmulatedExperiment,
    EmulatedSettings,
    lasting,
    write_infra,
)

from ..lab.aws import KEYS, variables
from ..lab.bench.deployed.conftest import GROUP, line, minute, output
from .processes import Started

QUICK = EmulatedSettings(policies=["hand_written"], interval={"cold": 720.0}, resume=0.3, speed=1000.0)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmulatedAWS]:
    with EmulatedAWS() as aws:
        variables(monkeypatch, **KEYS, **aws.variables)
        yield aws


@pytest.fixture
def file(aws: EmulatedAWS, tmp_path: Path) -> Path:
    """What Terraform would write about functions that answer at once, with ids that count up."""
    found = output()
    ids = iter(range(1, 1000))
    for function in found["functions"]:
        aws.groups.add(function["log_group"])
        answer = {"elapsed": 0.5, "connects": 1, "retries": 0, "resume_wait": 0.0}
        aws.function(function["name"], lambda answer=answer: {**answer, "new_id": next(ids)})
    path = tmp_path / "experiment.json"
    path.write_text(json.dumps(found))
    return path


def bench(arguments: list[str]) -> int:
    """Run the command in this process, and give its exit code."""
    try:
        return run(["bench", *arguments])
    except SystemExit as end:
        return int(str(end.code))


def rows_of(folder: Path) -> list[InvocationRecord]:
    return [one for one in read(folder / "results.jsonl") if isinstance(one, InvocationRecord)]


def test_what_was_logged_comes_home(
    aws: EmulatedAWS, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two invocations of the deployed function on a cold cluster: the published ids, the pause between
    them and its events; and the report says what is emulated."""
    began = datetime.now(timezone.utc) - lasting(QUICK)
    with EmulatedExperiment(aws, QUICK, began) as experiment:
        experiment.run()
        infra = write_infra(experiment, tmp_path / "experiment.json")
    out = tmp_path / "out"
    command = ["--on", "lambda", "--infra", str(infra), "--out", str(out), "--yes"]
    assert bench([*command, "--since", began.isoformat()]) == 0
    printed = capsys.readouterr()
    assert "It costs:" in printed.err
    assert "793, 826" in printed.out
    facts = json.loads((out / "summary.json").read_text())
    (cell,) = facts["cells"]
    assert cell["id_steps"] == [33]
    assert cell["elapsed_min"] >= 0.3
    assert 0.1 < cell["paused_share"] < 0.7
    kinds = [one.kind for one in read(out / "results.jsonl") if isinstance(one, EventRecord)]
    assert kinds[:5] == ["resuming", "available", "pausing", "paused", "resuming"]
    page = (out / "report.html").read_text()
    assert "repeated on Lambda, emulated" in page
    assert "measured; pause emulated" in page
    assert (out / "capacity.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.sweep
def test_real_functions_are_invoked_from_here(
    aws: EmulatedAWS, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lambda's API runs the functions, hot and cold, with a pause between two. A failed one is an error
    of the report, and its line in the log says the same."""
    settings = EmulatedSettings(
        policies=["hand_written"],
        interval={"hot": 600.0, "cold": 720.0},
        resume=0.3,
        speed=400.0,
        variables={"PGSSLMODE": "disable"},
    )
    out = tmp_path / "out"
    # The clusters' time flies; it should not reach the present.
    began = datetime.now(timezone.utc) - timedelta(hours=20)
    with EmulatedExperiment(aws, settings, began) as experiment:
        infra = write_infra(experiment, tmp_path / "experiment.json")
        command = ["--on", "lambda", "--infra", str(infra), "--out", str(out), "--yes", "--invoke"]
        assert bench([*command, "--rounds", "2", "--interval", "5"]) == 0
        experiment.stages["hot"].cluster.server.stop()
        assert bench([*command, "--rounds", "3", "--interval", "5"]) == 1
    ids = {
        kind: [one.new_id for one in rows_of(out) if one.aurora_type == kind] for kind in ("hot", "cold")
    }
    assert ids == {"hot": [50, 51, None], "cold": [793, 826, 859]}
    assert "OperationalError" in capsys.readouterr().out
    read_back = ["--on", "lambda", "--infra", str(infra), "--yes", "--since", "21"]
    assert bench([*read_back, "--out", str(tmp_path / "log")]) == 1
    assert {one.error for one in rows_of(tmp_path / "log")} == {one.error for one in rows_of(out)}


def test_interrupted_while_reading(
    file: Path,
    aws: EmulatedAWS,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C stops the query, and the same command reads the rest."""
    aws.log(GROUP, minute(1), line(793))
    command = ["--on", "lambda", "--infra", str(file), "--out", str(tmp_path / "out"), "--yes"]

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("lambdadb.cli.bench.deployed.time.sleep", interrupt)
        assert bench(command) == 130
    assert aws.requests[-1] == "logs:StopQuery"
    assert "The same command goes on from here" in capsys.readouterr().err
    assert bench(command) == 0
    assert [one.new_id for one in rows_of(tmp_path / "out")] == [793]


def test_invoked_from_here_and_interrupted(
    start: type[Started], aws: EmulatedAWS, file: Path, tmp_path: Path
) -> None:
    """Ctrl-C keeps and reports what was done, and the same command goes on from there."""
    out = tmp_path / "out"
    command = ["--on", "lambda", "--infra", str(file), "--invoke", "--yes", "--out", str(out)]
    interrupted = start("bench", *command, "--rounds", "1", "--interval", "600", read="stderr")  # type: ignore[call-arg]
    interrupted.until("hot, hand-written, invocation 1: id 1 .*")
    interrupted.process.send_signal(signal.SIGINT)
    assert interrupted.process.wait(30) == 130
    assert 1 <= len(rows_of(out)) < 4
    assert json.loads((out / "summary.json").read_text())["complete"] is False
    assert bench([*command, "--rounds", "1", "--interval", "1"]) == 0
    rows = rows_of(out)
    assert sorted(one.new_id or 0 for one in rows) == [1, 2, 3, 4]
    assert {one.number for one in rows} == {1}
    assert bench([*command, "--rounds", "1", "--beside", str(out)]) == 0
    assert len(rows_of(out)) == 4
    assert "beside" in json.loads((out / "summary.json").read_text())


@pytest.mark.parametrize(
    ("change", "options", "why"),
    [
        ({}, [], "Reading from AWS costs money, and there is no terminal to ask on: add --yes"),
        ({}, ["--invoke"], "Functions are invoked and cost money, and there is no terminal"),
        ({"scheduled": "hand_written"}, ["--invoke", "--yes"], "hand_written is on schedule"),
        ({}, ["--yes"], "the log has no line of experiment_02. Is a policy on schedule"),
        ({}, ["--yes", "--beside", "nowhere"], "--beside nowhere: there is no results.jsonl"),
        ({}, ["--yes", "--rounds", "2"], "--rounds needs --invoke"),
        ({}, ["--yes", "--speed", "2"], "--speed is for functions on this machine"),
        ({}, ["--since", "soon"], "soon is neither a number of hours nor"),
    ],
)
def test_what_is_refused(
    change: dict[str, object],
    options: list[str],
    why: str,
    file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is invoked and no report is written; the exit code is 2 and the text says what to do."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    monkeypatch.setattr("sys.stdin", io.StringIO())
    out = tmp_path / "out"
    assert bench(["--on", "lambda", "--infra", str(file), "--out", str(out), *options]) == 2
    assert why in " ".join(capsys.readouterr().err.split())
    assert not (out / "report.html").exists()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--on", "lambda"], "--on lambda needs --infra FILE. Write it with `terraform output"),
        (["--infra", "x"], "--infra needs --on lambda"),
        (["--invoke"], "--invoke needs --on lambda"),
    ],
)
def test_options_of_the_other_place(
    options: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An option that would mean nothing is refused."""
    assert bench(options) == 2
    assert why in " ".join(capsys.readouterr().err.split())


def test_a_missing_right_keeps_what_was_read(
    aws: EmulatedAWS, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The action is named; the part of the log that was read before stays."""
    aws.denied.add("logs:GetQueryResults")
    out = tmp_path / "out"
    assert bench(["--on", "lambda", "--infra", str(file), "--out", str(out), "--yes"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "these credentials need logs:GetQueryResults" in said
    assert "unfinished.jsonl; the same command goes on from there" in said
    assert "logs:StopQuery" in aws.requests


def test_without_boto3(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extra that is missing is named."""
    monkeypatch.setitem(sys.modules, "boto3", None)
    out = str(tmp_path / "out")
    assert bench(["--on", "lambda", "--infra", str(file), "--out", out, "--yes"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "needs boto3, which is not installed: pip install '.[lab,aws]'" in said


def test_since() -> None:
    """Hours ago, or an ISO time, in UTC unless it says otherwise."""
    moment = Moment()
    noon = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
    assert moment.convert("2026-01-31T12:00", None, None) == noon
    assert moment.convert("2026-01-31T13:00+01:00", None, None) == noon
    ago = datetime.now(timezone.utc) - moment.convert("1.5", None, None)
    assert timedelta(hours=1.4) < ago < timedelta(hours=1.6)
