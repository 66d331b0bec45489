"""The command `lambdadb bench`: options, progress, tables and exit codes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from lambdadb.cli.signals import call_instead
from lambdadb.errors import LambdaDBError
from lambdadb.lab import LabError
from lambdadb.lab.aurora import Shape
from lambdadb.lab.bench import report
from lambdadb.lab.bench.config import OWN_TABLE, BenchConfig, place
from lambdadb.lab.bench.records import Record, as_line
from lambdadb.lab.bench.runner import Bench
from lambdadb.lab.bench.summary import failures, successes, summary
from lambdadb.lab.bench.terminal import print_table, progress

FAILED, INTERRUPTED = 1, 130
# Bytes written before a run to see that the folder takes its report: more than a report has.
PROBE = 4_000_000


@click.command()
@click.option(
    "--rounds",
    default=3,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="Invocations of each handler against each cluster.",
)
@click.option(
    "--speed",
    type=click.FloatRange(1, 10_000),
    help="How many times as fast the idle time between invocations passes: 120 by "
    "default. Connects, resumes and statements always run in real time. Real clusters: 1.",
)
@click.option(
    "--resume",
    default=15.0,
    show_default=True,
    type=click.FloatRange(0.1, 600),
    help="Seconds that the embedded cold cluster needs to wake up.",
)
@click.option(
    "--shape",
    default=Shape.HOLD.value,
    show_default=True,
    type=click.Choice([shape.value for shape in Shape], case_sensitive=False),
    help="What a connect meets while the embedded cold cluster wakes up.",
)
@click.option(
    "--hot",
    metavar="URL",
    envvar="LAMBDADB_BENCH_HOT",
    show_envvar=True,
    help="A real hot cluster instead of the embedded ones.",
)
@click.option(
    "--cold",
    metavar="URL",
    envvar="LAMBDADB_BENCH_COLD",
    show_envvar=True,
    help="A real auto-pausing cluster instead of the embedded ones.",
)
@click.option(
    "--out",
    default="lambdadb-bench",
    show_default=True,
    metavar="FOLDER",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the results. An earlier report there is replaced, unless every invocation fails.",
)
@click.option("--yes", is_flag=True, help="Do not ask before real clusters are written to.")
@click.option("--json", "as_json", is_flag=True, help="Print summary.json instead of the table.")
def bench(
    rounds: int,
    speed: float | None,
    resume: float,
    shape: str,
    hot: str | None,
    cold: str | None,
    out: Path,
    yes: bool,
    as_json: bool,
) -> None:
    """
    Run the published experiment: one row with a 1536-dimension vector per invocation, every 10
    minutes against a hot cluster and every 12 minutes against a cold (auto-pausing) one.

    Four handlers are compared: hand-written psycopg as published, plain SQLAlchemy with its default
    pool, and lambdadb's PerEnvironment and PerInvocation. Each runs in a real process under AWS's
    own runtime client, frozen between invocations, against a real PostgreSQL with pgvector behind
    an emulated Aurora. Nothing leaves this machine.

    Steady traffic comes beside it: an invocation every 20 seconds, against a hot cluster with a
    millisecond of network delay.

    FOLDER gets results.jsonl (a line per measurement; unfinished.jsonl while they come),
    summary.json, report.html and its pictures as PNG.

    With --hot or --cold, real clusters are measured instead, in real time, one handler after the
    other. All that is created there is one table, lambdadb_bench_vector_table; it stays.

    \b
    Examples:
      lambdadb bench
      lambdadb bench --speed 1 --rounds 2        in real time: over 12 minutes
      lambdadb bench --shape refuse --json | jq .cells
      LAMBDADB_BENCH_COLD=postgresql+psycopg://... lambdadb bench --rounds 2

    \b
    Exit codes:
      0    all invocations succeeded
      1    an invocation failed, or a result could not be written; the rest is reported
      2    nothing was run: a wrong option, a missing extra, a folder that cannot be written
      130  interrupted by Ctrl-C or SIGTERM; what was measured is reported
    """
    urls = {kind: url for kind, url in (("hot", hot), ("cold", cold)) if url}
    try:
        config = BenchConfig(
            rounds=rounds,
            speed=speed or (1.0 if urls else 120.0),
            resume=resume,
            shape=Shape(shape),
            urls=urls,
        )
    except (LabError, LambdaDBError) as error:
        raise click.UsageError(str(error)) from error
    if urls:
        announce(config, yes=yes)
    probe(out)
    sys.exit(measure(config, out, as_json=as_json))


def announce(config: BenchConfig, *, yes: bool) -> None:
    """Say what will be created on a real cluster, and ask for confirmation without --yes."""
    for kind, url in config.urls.items():
        click.echo(
            f"The {kind} cluster {place(url)} gets one table, {OWN_TABLE}, with a row per "
            "invocation. It stays there; nothing else is created or changed.",
            err=True,
        )
    click.echo(f"It takes about {config.minutes:.0f} minutes.", err=True)
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(
            "Real clusters are written to, and there is no terminal to ask on: add --yes to agree."
        )
    if not click.confirm("Go on?", err=True):
        raise click.UsageError("Nothing was run.")


def probe(folder: Path) -> None:
    """See that the folder takes a report, before anything is measured for it."""
    file = folder / ".probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            file.write_bytes(bytes(PROBE))
        finally:
            file.unlink(missing_ok=True)
    except OSError as error:
        raise click.UsageError(
            f"--out {folder} cannot be written ({error.strerror}), so the results would be lost; "
            "nothing was run. Choose another folder."
        ) from error


def measure(config: BenchConfig, out: Path, *, as_json: bool) -> int:
    """Run the benchmark, write and print its results, and give the exit code."""
    results = Results(out)
    with Bench(config) as running, call_instead(running.interrupt):
        with progress(config.invocations) as show:
            for record in running.records():
                results.add(record)
                show(record)
        complete = not running.interrupted
        written = results.finish(complete=complete)
        if as_json:
            click.echo(json.dumps(summary(results.records, complete=complete), indent=2))
        else:
            print_table(results.records, out if written else None, complete=complete)
    for line in results.missing:
        click.echo(f"Not written: {line}", err=True)
    if not complete:
        return INTERRUPTED
    return FAILED if results.missing or failures(results.records) else 0


class Results:
    """
    All records, in memory and in a file, line by line; a file that fails loses no record in memory.

    A run without one success never replaces an earlier report: its lines stay in `unfinished.jsonl`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "unfinished.jsonl"
        self.records: list[Record] = []
        self.missing: list[str] = []

    def add(self, record: Record) -> None:
        self.records.append(record)
        if self.missing:
            return
        try:
            with self.file.open("w" if len(self.records) == 1 else "a") as file:
                file.write(as_line(record) + "\n")
        except OSError as error:
            self.missing.append(f"{self.file}, from line {len(self.records)} on: {error.strerror}")

    def finish(self, *, complete: bool) -> bool:
        """Write the report, unless an earlier one is worth more; says whether it was written."""
        lasting = self.folder / "results.jsonl"
        if not successes(self.records) and lasting.exists():
            self.missing.append(
                f"a report: no invocation succeeded, so the earlier one in {self.folder} is kept. The "
                f"lines of this run are in {self.file}"
            )
            return False
        if not self.missing:
            try:
                self.file.replace(lasting)
            except OSError as error:
                self.missing.append(f"{lasting}: {error.strerror}")
        self.missing += report.write(self.records, self.folder, complete=complete)
        return True
