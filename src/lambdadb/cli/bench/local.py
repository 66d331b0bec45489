"""`lambdadb bench` on this machine: what it says before it writes to somebody's cluster, and the run."""

from __future__ import annotations

from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path

import click
from sqlalchemy.exc import SQLAlchemyError

from lambdadb.cli.bench.results import FAILED, Results, confirm, finish, probe
from lambdadb.cli.signals import call_instead
from lambdadb.extras import install_command
from lambdadb.lab import LabError
from lambdadb.lab.bench.cluster_url import place, redacted
from lambdadb.lab.bench.config import OWN_TABLES, BenchConfig
from lambdadb.lab.bench.real import RealClusters, problems_of, read_capacity
from lambdadb.lab.bench.runner import Bench
from lambdadb.lab.bench.terminal import progress
from lambdadb.lab.mariadb import find_server

# Seconds without a connection after which Aurora pauses a cluster, at least (Aurora User Guide).
LEAST_AUTO_PAUSE = 300.0


def run(config: BenchConfig, out: Path, *, yes: bool, as_json: bool) -> int:
    """
    Say what will be done, find what would keep it from working, do it, and give the exit code.

    Raises:
        LabError: Nothing was run.
        click.UsageError: The same.
    """
    if config.urls:
        announce(config, yes=yes)
    probe(out)
    check(config)
    return measure(config, out, as_json=as_json)


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
    confirm("Real clusters are written to", yes=yes)


def check(config: BenchConfig) -> None:
    """Find what would make every invocation fail, before the first one."""
    if config.engine == "mysql":
        find_server()
    if (config.secret or config.iam) and find_spec("boto3") is None:
        raise LabError(
            "the hand-written handlers read their login with boto3, which is not installed: "
            f"{install_command('aws')}; nothing was run"
        )
    found = []
    for kind, url in config.urls.items():
        click.echo(f"Connecting to {place(url)}; a cluster that pauses has to wake up.", err=True)
        found += [f"{kind}: {finding.name}: {finding}" for finding in problems_of(config, kind)]
    if found:
        raise LabError("\n".join(["nothing was run.", *found]))


def measure(config: BenchConfig, out: Path, *, as_json: bool) -> int:
    """
    Run the benchmark on this machine, and give the exit code.

    Raises:
        LabError: A real cluster could not be prepared.
    """
    results = Results(out)
    try:
        real = RealClusters(config)
    except SQLAlchemyError as error:  # it was reached a moment ago: LambdaDBError is one, too
        said = redacted(f"{type(error).__name__}: {error}", config.urls.values())
        raise LabError(f"nothing was run, as a cluster could not be prepared: {said}") from error
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
