"""The command `lambdadb bench`: options, progress, tables and exit codes."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path

import click
from sqlalchemy.exc import SQLAlchemyError

from lambdadb.cli.signals import call_instead
from lambdadb.errors import LambdaDBError
from lambdadb.lab import LabError
from lambdadb.lab.aurora import Shape
from lambdadb.lab.bench import report
from lambdadb.lab.bench.cluster_url import place
from lambdadb.lab.bench.config import EXPERIMENT, OWN_TABLES, BenchConfig
from lambdadb.lab.bench.real import RealClusters, problems_of, read_capacity
from lambdadb.lab.bench.records import Record, as_line
from lambdadb.lab.bench.runner import Bench
from lambdadb.lab.bench.summary import failures, successes, summary
from lambdadb.lab.bench.terminal import print_table, progress

FAILED, INTERRUPTED = 1, 130
# Bytes written before a run to see that the folder takes its report: more than a report has.
PROBE = 4_000_000
# Seconds without a connection after which Aurora pauses a cluster, at least (Aurora User Guide).
LEAST_AUTO_PAUSE = 300.0


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
    "--secret",
    metavar="NAME",
    help="The Secrets Manager secret with the login to --hot and --cold: name or ARN.",
)
@click.option("--iam", is_flag=True, help="Log in to --hot and --cold by IAM, as the URL's user.")
@click.option(
    "--create/--no-create",
    default=True,
    show_default=True,
    help="Make the table in --hot and --cold where it is missing. A role without CREATE needs "
    "--no-create, and a table that its owner has made.",
)
@click.option(
    "--clean-up",
    is_flag=True,
    help="Afterwards drop the table that this run made. In one that was there before, delete the rows "
    "of this experiment.",
)
@click.option(
    "--interval",
    metavar="SECONDS",
    type=click.FloatRange(1, 86_400),
    help="Seconds between invocations, by default the published 600 hot and 720 cold.",
)
@click.option(
    "--steady/--no-steady",
    default=True,
    show_default=True,
    help="Whether steady traffic follows on the hot cluster: 10 invocations of each handler, one every "
    "20 seconds.",
)
@click.option(
    "--experiment",
    default=EXPERIMENT,
    show_default=True,
    metavar="NAME",
    help="The run's name, in each log line and in each row.",
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
    secret: str | None,
    iam: bool,
    create: bool,
    clean_up: bool,
    interval: float | None,
    steady: bool,
    experiment: str,
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

    With --hot or --cold, real clusters are measured instead, from this machine and in real time, one
    handler after the other. All that is created there is a table in each, lambdadb_bench_hot and
    lambdadb_bench_cold. What would make every invocation fail is said before the first one. How long
    the cluster was paused comes from CloudWatch, where boto3 finds credentials.

    \b
    Permissions for --hot and --cold:
      database  the extension vector; CREATE in the schema, or the table with SELECT, INSERT and USAGE
                of its sequence (--no-create), and DELETE for --clean-up there
      AWS       secretsmanager:GetSecretValue (--secret), rds-db:connect (--iam),
                cloudwatch:GetMetricData (paused share)

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
      2    nothing was run: a wrong option, login, port or right, a missing extra, a folder that cannot
           be written
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
            secret=secret,
            iam=iam,
            create=create,
            clean_up=clean_up,
            interval=interval,
            steady=steady,
            experiment=experiment,
        )
        if urls:
            announce(config, yes=yes)
        probe(out)
        check(config)
    except (LabError, LambdaDBError) as error:
        raise click.UsageError(str(error)) from error
    sys.exit(measure(config, out, as_json=as_json))


def announce(config: BenchConfig, *, yes: bool) -> None:
    """Say what will be created on a real cluster, and ask for confirmation without --yes."""
    for kind, url in config.urls.items():
        makes = "gets one table" if config.create else "has to have one table"
        stays = "Afterwards it is left as it was" if config.clean_up else "It stays there"
        click.echo(
            f"The {kind} cluster {place(url)} {makes}, {OWN_TABLES[kind]}, with a row per "
            f"invocation. {stays}; nothing else is created or changed.",
            err=True,
        )
    if config.is_one_database:
        click.echo(
            "Both URLs are one database: its cold part runs first, then its hot one. It is hot only if "
            "it does not pause within the interval.",
            err=True,
        )
    if "cold" in config.urls and config.interval_of("cold") <= LEAST_AUTO_PAUSE:
        click.echo(
            f"The cold cluster will not pause: Aurora waits {LEAST_AUTO_PAUSE:.0f} s at least, and an "
            f"invocation comes every {config.interval_of('cold'):g} s.",
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


def check(config: BenchConfig) -> None:
    """Find what would make every invocation fail, before the first one."""
    if (config.secret or config.iam) and find_spec("boto3") is None:
        raise LabError(
            "the hand-written handlers read their login with boto3, which is not installed: "
            "pip install '.[aws]' in a clone of lambdadb; nothing was run"
        )
    found = []
    for kind, url in config.urls.items():
        click.echo(f"Connecting to {place(url)}; a cluster that pauses has to wake up.", err=True)
        found += [f"{kind}: {finding.name}: {finding}" for finding in problems_of(config, kind)]
    if found:
        raise LabError("\n".join(["nothing was run.", *found]))


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
    """Run the benchmark on this machine, and give the exit code."""
    results = Results(out)
    real = RealClusters(config)
    with Bench(config, real.versions) as running, call_instead(running.interrupt):
        with progress(config.invocations) as show:
            began = datetime.now(timezone.utc)
            for record in running.records():
                results.add(record)
                show(record)
        complete = not running.interrupted
        if complete and config.urls:
            click.echo("Reading the capacity from CloudWatch, a few minutes at most.", err=True)
            until = datetime.now(timezone.utc)
            for record in read_capacity(config, began, until, running.stop.wait):
                results.add(record)
    code = finish(results, complete=complete, as_json=as_json)
    if config.clean_up:
        try:
            for line in real.clean_up():
                click.echo(line, err=True)
        except SQLAlchemyError as error:
            click.echo(f"Not cleaned up: {error}", err=True)
            return code or FAILED
    return code


def finish(results: Results, *, complete: bool, as_json: bool) -> int:
    """Write and print the results, and give the exit code."""
    written = results.finish(complete=complete)
    if as_json:
        click.echo(json.dumps(summary(results.records, complete=complete), indent=2))
    else:
        print_table(results.records, results.folder if written else None, complete=complete)
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
