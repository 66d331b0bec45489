"""`lambdadb bench --on lambda`: the deployed functions' results, brought home."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import click

from lambdadb.cli.bench.results import (
    INTERRUPTED,
    LASTING,
    UNFINISHED,
    Results,
    confirm,
    finish,
    probe,
    read_results,
)
from lambdadb.cli.signals import call_instead
from lambdadb.lab import LabError
from lambdadb.lab.bench.deployed import cost, run
from lambdadb.lab.bench.deployed.clients import Clients, Refused
from lambdadb.lab.bench.deployed.collection import Collection
from lambdadb.lab.bench.deployed.infra import Infra, read_infra
from lambdadb.lab.bench.deployed.invocations import Invocations, check, minutes
from lambdadb.lab.bench.records import InvocationRecord, Record, RunRecord
from lambdadb.lab.bench.summary import run_of
from lambdadb.lab.bench.terminal import progress

# Where nobody says since when: a day.
SINCE = 24.0
# CloudWatch has a minute's value a little later.
LATE = 90.0


@dataclass(frozen=True, kw_only=True)
class DeployedOptions:
    """What the command line said."""

    infra: Path
    out: Path
    invoke: bool = False
    rounds: int = 3
    interval: float | None = None
    since: datetime | None = None
    prices: Path = cost.PRICES
    beside: Path | None = None
    yes: bool = False
    as_json: bool = False


class Moment(click.ParamType):  # type: ignore[type-arg]
    """A time: an ISO one, in UTC unless it says otherwise, or so many hours ago."""

    name = "time"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """The moment, with its time zone."""
        if isinstance(value, datetime):
            return value
        try:
            ago = timedelta(hours=float(str(value).removesuffix("h")))
            return run.now() - ago
        except (ValueError, OverflowError):
            pass
        try:
            found = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value} is neither a number of hours nor 2026-01-31T08:00", param, ctx)
        return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


def measure(options: DeployedOptions) -> int:
    """
    Invoke or collect, and give the exit code.

    Raises:
        LabError: Nothing was done: a file, a right, a log group or boto3 is missing.
    """
    infra = read_infra(options.infra)
    prices = cost.read_prices(options.prices)
    beside = read_results(options.beside) if options.beside else []
    if options.beside and not beside:
        raise LabError(f"--beside {options.beside}: there is no {LASTING} in it")
    probe(options.out)
    clients = Clients(infra.region)
    earlier = [
        record
        for name in (LASTING, UNFINISHED)
        for record in run.earlier_of(read_results(options.out, name), infra)
    ]
    results = Results(options.out, beside)
    if options.invoke:
        return invoke(options, infra, clients, prices, results, earlier)
    return collect(options, infra, clients, prices, results, earlier)


def collect(
    options: DeployedOptions,
    infra: Infra,
    clients: Clients,
    prices: cost.Prices,
    results: Results,
    earlier: Sequence[Record],
) -> int:
    """Read what the functions logged on their schedule."""
    until = run.now()
    since = options.since or begin_of(earlier) or until - timedelta(hours=SINCE)
    if since >= until:
        raise LabError(f"--since {since.isoformat()} is not in the past")
    hours = (until - since).total_seconds() / 3600
    names = ", ".join(sorted({function.policy for function in infra.functions}))
    click.echo(
        f"Reads what {infra.experiment} logged since {since:%Y-%m-%d %H:%M} UTC ({hours:.1f} h): "
        f"{names}. Nothing is invoked. It costs:",
        err=True,
    )
    parts = cost.cost_of_collection(infra, hours, prices)
    say(cost.described(parts, prices))
    confirm("Reading from AWS costs money", yes=options.yes)
    clients.of("logs")
    begin(results, earlier, run.description(infra, clients, started=since, rounds=0))
    complete = bring_home(results, infra, clients, since, until, log=True)
    return end(options, results, complete=complete)


def invoke(
    options: DeployedOptions,
    infra: Infra,
    clients: Clients,
    prices: cost.Prices,
    results: Results,
    earlier: Sequence[Record],
) -> int:
    """Invoke the functions from here, and read the metrics afterwards."""
    if infra.scheduled:
        raise LabError(
            f"{infra.scheduled} is on schedule and would keep the clusters busy meanwhile. Stop it with "
            "`terraform apply` without -var scheduled, and write --infra again; or leave out --invoke"
        )
    done = run.done_of(earlier)
    number = options.rounds * len(infra.functions)
    lasting = minutes(infra, options.rounds, options.interval)
    there = f" {options.out} has {len(done)} of them already." if done else ""
    click.echo(
        f"Makes {number} invocations, each a row in its cluster.{there} In all it takes about "
        f"{lasting:.0f} minutes, and costs, whether or not the clusters would be there anyway:",
        err=True,
    )
    parts = cost.cost_of_invocations(infra, options.rounds, options.interval, prices)
    say(cost.described(parts, prices))
    confirm("Functions are invoked and cost money", yes=options.yes)
    check(infra, clients)
    since = begin_of(earlier) or run.now()
    begin(results, earlier, run.description(infra, clients, started=since, rounds=options.rounds))
    invocations = Invocations(
        infra, clients, rounds=options.rounds, interval=options.interval, done=done
    )
    with invocations, call_instead(invocations.interrupt), progress(number - len(done)) as show:
        for record in invocations.records():
            results.add(record)
            show(record)
    complete = not invocations.interrupted
    if complete:
        click.echo("Waiting for the last minute's metrics.", err=True)
        complete = bring_home(results, infra, clients, since, None, log=False)
    return end(options, results, complete=complete)


def begin_of(earlier: Sequence[Record]) -> datetime | None:
    """Since when an earlier run measured."""
    runs = [record for record in earlier if isinstance(record, RunRecord)]
    return datetime.fromisoformat(runs[0].started) if runs else None


def begin(results: Results, earlier: Sequence[Record], first: RunRecord) -> None:
    """Take over what an earlier run has, below the record of this one."""
    kept = [record for record in earlier if not isinstance(record, RunRecord)]
    results.replace([first, *kept])


def bring_home(
    results: Results,
    infra: Infra,
    clients: Clients,
    since: datetime,
    until: datetime | None,
    *,
    log: bool,
) -> bool:
    """Read the log and the metrics; False: interrupted. What was read by then is kept."""
    try:
        if until is None:
            time.sleep(LATE if not clients.foreign_endpoints() else 0.0)
            until = run.now()
        collection = Collection(infra, clients, since, until, tuple(results.records), time.sleep)
        with progress(0) if log else nullcontext(lambda _: None) as show:
            for part in (collection.log, collection.metrics) if log else (collection.metrics,):
                for record in part():
                    results.add(record)
                    show(record)
    except KeyboardInterrupt:
        return False
    except Refused as error:
        kept = f"What was read is in {results.file}; the same command goes on from there."
        raise LabError(f"{error}. {kept}") from error
    return True


def end(options: DeployedOptions, results: Results, *, complete: bool) -> int:
    """Write the report, where there is something to report, and give the exit code."""
    results.replace(run.in_order(results.records))
    if complete and not any(isinstance(record, InvocationRecord) for record in results.records):
        raise LabError(
            f"the log has no line of {run_of(results.records).experiment}. Is a policy on schedule "
            "(`terraform apply -var scheduled=per_invocation`), and is --since early enough?"
        )
    code = finish(results, complete=complete, as_json=options.as_json)
    if not complete:
        click.echo("Interrupted. The same command goes on from here.", err=True)
        return INTERRUPTED
    return code


def say(lines: Sequence[str]) -> None:
    for line in lines:
        click.echo(line, err=True)
