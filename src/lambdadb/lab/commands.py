"""What the commands do: options, progress, tables and exit codes."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from lambdadb.errors import LambdaDBError
from lambdadb.lab import LabError
from lambdadb.lab.aurora import Cluster, ClusterEvent, Shape
from lambdadb.lab.bench.config import OWN_TABLE, BenchConfig, place
from lambdadb.lab.bench.records import Record, as_line
from lambdadb.lab.bench.runner import Bench
from lambdadb.lab.bench.summary import failures, summary
from lambdadb.lab.bench.terminal import print_table, progress
from lambdadb.lab.clock import LabClock
from lambdadb.lab.layer_command import layer
from lambdadb.lab.postgres import Postgres

FAILED, USAGE, INTERRUPTED = 1, 2, 130
# Bytes written before a run to see that the folder takes its report: more than a report has.
PROBE = 4_000_000
SHAPES = click.Choice([shape.value for shape in Shape], case_sensitive=False)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lambdadb")
def lambdadb() -> None:
    """
    SQLAlchemy on AWS Lambda with Aurora that pauses: measure it, and try it without AWS.

    \b
    Examples:
      lambdadb bench                     measure four handlers, hot and cold, in a minute or two
      lambdadb emulate --cold --speed 20 a cluster that pauses, to point your own code at
      lambdadb layer                     the Lambda layer, for any Python and architecture
    """


lambdadb.add_command(layer)


@lambdadb.command()
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
    help="How many times as fast the idle time between invocations passes: 120 unless "
    "told. Connects, resumes and statements always run in real time. Real clusters: 1.",
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
    type=SHAPES,
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
    help="Where the results go; an earlier report there is replaced.",
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

    FOLDER gets results.jsonl (a line per measurement, written as it comes), summary.json,
    report.html and its pictures as PNG.

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
    """Say what will be created on somebody's cluster, and ask unless told not to."""
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
        raise click.UsageError("Real clusters are written to: say --yes where nobody can be asked.")
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
    # matplotlib takes its time: not before it is certain to be needed.
    from lambdadb.lab.bench import report

    results = Results(out / "results.jsonl")
    with Bench(config) as running, progress(config.invocations) as show:
        with on_interrupt(running.interrupt):
            for record in running.records():
                results.add(record)
                show(record)
        complete = not running.interrupted
    missing = results.missing + report.write(results.records, out, complete=complete)
    if as_json:
        click.echo(json.dumps(summary(results.records, complete=complete), indent=2))
    else:
        print_table(results.records, out, complete=complete)
    for line in missing:
        click.echo(f"Not written: {line}", err=True)
    if not complete:
        return INTERRUPTED
    return FAILED if missing or failures(results.records) else 0


@contextmanager
def on_interrupt(act: Callable[[], None]) -> Iterator[None]:
    """Meanwhile Ctrl-C and SIGTERM only call this, so that no row is lost between two lines."""
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: act()) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


class Results:
    """All rows, in memory and in a file, line by line; a file that fails loses no row in memory."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.records: list[Record] = []
        self.missing: list[str] = []

    def add(self, record: Record) -> None:
        self.records.append(record)
        if self.missing:
            return
        try:
            # The first row replaces the results of an earlier run.
            with self.file.open("w" if len(self.records) == 1 else "a") as file:
                file.write(as_line(record) + "\n")
        except OSError as error:
            self.missing.append(f"{self.file}, from line {len(self.records)} on: {error.strerror}")


@lambdadb.command()
@click.option(
    "--cold/--hot",
    default=True,
    show_default=True,
    help="A cluster that pauses, or one that never does.",
)
@click.option(
    "--port", default=0, type=click.IntRange(0, 65535), help="Loopback port; a free one unless told."
)
@click.option(
    "--auto-pause",
    default=300.0,
    show_default=True,
    type=click.FloatRange(0.1),
    help="Seconds without a connection until it pauses.",
)
@click.option(
    "--resume", default=15.0, show_default=True, type=click.FloatRange(0), help="Seconds to wake up."
)
@click.option(
    "--deep-resume",
    default=30.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Seconds to wake up after 24 hours of pause.",
)
@click.option(
    "--shape",
    default=Shape.HOLD.value,
    show_default=True,
    type=SHAPES,
    help="What a connect meets while it wakes up.",
)
@click.option(
    "--speed",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0.01, 10_000),
    help="How many times as fast the cluster's time passes, resumes included.",
)
@click.option(
    "--round-trip",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0, 10),
    help="Seconds of network delay per round trip.",
)
@click.option("--paused", is_flag=True, help="Start in the paused state.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
def emulate(
    cold: bool,
    port: int,
    auto_pause: float,
    resume: float,
    deep_resume: float,
    shape: str,
    speed: float,
    round_trip: float,
    paused: bool,
    as_json: bool,
) -> None:
    """
    Run an emulated Aurora serverless v2 cluster in front of a real PostgreSQL with pgvector.

    It prints its URL, then each pause and resume and what keeps it from pausing, until Ctrl-C. Its
    data is gone afterwards. Only this machine can reach it.

    \b
    Examples:
      lambdadb emulate --paused                  the first connect waits 15 s
      lambdadb emulate --speed 20 --shape close  pauses after 15 s; EOF while it wakes up
      lambdadb emulate --hot --round-trip 0.002

    \b
    Exit codes:
      0    ended by Ctrl-C or SIGTERM
      2    nothing was run: a wrong option, a port in use, a missing extra
    """
    if paused and not cold:
        raise click.UsageError("--paused: a hot cluster never pauses; leave out one of the two.")

    ended = threading.Event()

    def tell(event: ClusterEvent) -> None:
        fields = {"at": round(event.at, 3), "kind": event.kind, "reason": event.reason}
        try:
            say(fields, f"{event.at:10.1f} s  {event.kind:<10} {event.reason}", as_json=as_json)
        except OSError:  # nobody reads any more
            ended.set()
        if event.kind == "failed":
            ended.set()

    try:
        with (
            Postgres() as server,
            Cluster(
                server,
                auto_pause=auto_pause if cold else None,
                resume=resume,
                deep_resume=deep_resume,
                shape=Shape(shape),
                clock=LabClock(speed),
                round_trip=round_trip,
                port=port,
                paused=paused,
                on_event=tell,
            ) as cluster,
        ):
            facts = {"url": cluster.url(), "state": cluster.state.value, "speed": speed}
            fast = f", its time passes {speed:g} times as fast" if speed != 1 else ""
            say(facts, f"{cluster.url()}  ({cluster.state.value}{fast})", as_json=as_json)
            ended.wait()
    except LabError as error:
        raise click.UsageError(str(error)) from error
    except KeyboardInterrupt:
        sys.exit(0)


def say(fields: dict[str, Any], line: str, *, as_json: bool) -> None:
    """One line now, not when a buffer is full: somebody, or some program, waits for it."""
    click.echo(json.dumps(fields) if as_json else line)
    sys.stdout.flush()
