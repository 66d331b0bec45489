"""The command `lambdadb advise`: the ways to connect, side by side, for one workload."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from lambdadb.cli import install_text
from lambdadb.cli.findings import make_console
from lambdadb.errors import InvalidSettings
from lambdadb.operate.advise import Advice, break_evens
from lambdadb.operate.advise import advise as advise_on
from lambdadb.operate.aws import ClusterNotFound, read_cluster, read_workload
from lambdadb.operate.cost_model import (
    PRICES,
    SHAPES,
    Capacity,
    Prediction,
    Prices,
    Workload,
    predict_all,
    read_prices,
)

SECONDS = "SECONDS"


@click.command()
@click.option("--per-hour", type=float, help="Invocations an hour, while the function is used.")
@click.option(
    "--shape",
    default="random",
    show_default=True,
    type=click.Choice(SHAPES),
    help="Whether they come at equal distances, as by a schedule, or independently of each other.",
)
@click.option("--burst", default=1, show_default=True, help="Invocations that come together.")
@click.option(
    "--concurrency",
    type=click.IntRange(1),
    help="Environments at a time, at the peak. [default: estimated from rate and duration]",
)
@click.option("--duration", type=float, metavar=SECONDS, help="Of an invocation. [default: 0.2]")
@click.option("--hours", default=24.0, show_default=True, help="Hours a day in which it is used.")
@click.option("--statements", default=3, show_default=True, help="Of an invocation, for the Data API.")
@click.option("--memory", default=512.0, show_default=True, metavar="MB", help="Of the function.")
@click.option("--min-acu", type=float, help="Of the cluster. [default: 0, which lets it pause]")
@click.option("--max-acu", type=float, help="Of the cluster. [default: 1]")
@click.option("--awake-acu", default=0.5, show_default=True, help="The average while it is awake.")
@click.option("--pause", type=float, metavar=SECONDS, help="Its pause time. [default: 300]")
@click.option("--resume", default=15.0, show_default=True, metavar=SECONDS, help="Of a resume.")
@click.option(
    "--idle-timeout",
    default=60.0,
    show_default=True,
    metavar=SECONDS,
    help="After which the server ends an idle session of PerEnvironment.",
)
@click.option("--function", metavar="NAME", help="Read rate and duration from CloudWatch.")
@click.option("--cluster", metavar="NAME", help="Read the capacity from RDS.")
@click.option("--region", metavar="NAME", help="Of both. By default boto3's own.")
@click.option(
    "--prices",
    "file",
    default=PRICES,
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Prices of your own.",
)
@click.option(
    "--copy-prices",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write lambdadb's prices to a file, to be edited, and end.",
)
@click.option(
    "--picture",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw cost and paused share by rate, with the break-even points, as PNG or SVG (extra lab).",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def advise(
    file: Path, copy_prices: Path | None, picture: Path | None, as_json: bool, **given: Any
) -> None:
    """
    Compare the ways to connect for one workload: how long the cluster is paused, how many connections
    are open at the peak, and what a month costs.

    The table has PerInvocation, PerEnvironment, the Data API, RDS Proxy, and a cluster that never
    pauses. Below it stand the policy for this workload, the reasons, and the rates at which another way
    becomes the cheapest.

    The prices come from a file that names its date and its source. Copy it, correct it for your region
    and your contract, and give it with --prices.

    \b
    Permissions for --function and --cluster:
      cloudwatch:GetMetricData, rds:DescribeDBClusters, rds:DescribeDBInstances

    \b
    Examples:
      lambdadb advise --per-hour 5 --shape regular --pause 420
      lambdadb advise --per-hour 2000 --burst 200 --max-acu 2 --picture costs.png
      lambdadb advise --function orders --cluster orders --prices prices.json
      lambdadb advise --copy-prices prices.json

    \b
    Exit codes:
      0    compared
      2    nothing was compared: a wrong option or file, no answer of AWS, a missing extra
      130  interrupted by Ctrl-C or SIGTERM
    """
    if copy_prices:
        copy(copy_prices)
        return
    if picture and find_spec("matplotlib") is None:
        raise click.UsageError(install_text("--picture", ["matplotlib"], "lab"))
    try:
        workload, capacity = inputs(given)
        prices = read_prices(file)
    except (InvalidSettings, ClusterNotFound) as error:
        raise click.UsageError(str(error)) from error
    predictions = predict_all(workload, capacity, prices)
    advice = advise_on(workload, capacity, prices)
    if as_json:
        click.echo(json.dumps(facts(workload, capacity, prices, predictions, advice), indent=2))
    else:
        show(make_console(), workload, capacity, prices, predictions, advice)
    if picture:
        draw(picture, workload, capacity, prices)


def copy(target: Path) -> None:
    """Write lambdadb's prices to a file that does not exist yet."""
    if target.exists():
        raise click.UsageError(f"{target} exists: choose another name.")
    try:
        shutil.copyfile(PRICES, target)
    except OSError as error:
        raise click.UsageError(f"{target} cannot be written: {error.strerror}.") from error
    click.echo(f"Wrote {target}. Edit it, then: lambdadb advise --prices {target} …")


def inputs(given: dict[str, Any]) -> tuple[Workload, Capacity]:
    """The workload and the cluster: from the options, and for what they leave out from AWS."""
    measured: dict[str, Any] = {}
    scaling: dict[str, Any] = {}
    if given["function"] or given["cluster"]:
        session = open_session(given["region"])
        now = datetime.now(timezone.utc)
        if given["function"]:
            measured = ask(lambda: read_workload(session, given["function"], now))
            if not measured:
                raise InvalidSettings(f"CloudWatch has no invocation of {given['function']} in 14 days.")
        if given["cluster"]:
            found = ask(lambda: read_cluster(session, given["cluster"], now))
            scaling = {
                "min_acu": found.min_capacity,
                "max_acu": found.max_capacity,
                "pause": found.seconds_until_auto_pause,
            }
    if given["per_hour"] is None and "per_hour" not in measured:
        raise InvalidSettings("Say how often it is invoked: --per-hour N, or --function NAME.")
    names = ("per_hour", "shape", "burst", "concurrency", "duration", "hours", "statements", "memory")
    workload = Workload(**chosen(names, given, measured))
    names_of_capacity = ("min_acu", "max_acu", "awake_acu", "pause", "resume", "idle_timeout")
    return workload, Capacity(**chosen(names_of_capacity, given, scaling))


def chosen(names: Sequence[str], given: dict[str, Any], read: dict[str, Any]) -> dict[str, Any]:
    """What was given, else what was read; the rest is left to the defaults."""
    found = {name: read.get(name) if given[name] is None else given[name] for name in names}
    return {name: value for name, value in found.items() if value is not None}


def open_session(region: str | None) -> Any:
    """A boto3 session."""
    try:
        from boto3 import Session
    except ImportError as error:
        text = install_text("--function and --cluster", ["boto3"], "aws")
        raise click.UsageError(text) from error
    return Session(region_name=region)


def ask(question: Any) -> Any:
    """AWS's answer."""
    try:
        return question()
    except ClusterNotFound:
        raise
    except Exception as error:  # boto3 says what is missing: a region, credentials, a right
        raise InvalidSettings(f"AWS did not answer: {type(error).__name__}: {error}") from error


def facts(
    workload: Workload,
    capacity: Capacity,
    prices: Prices,
    predictions: Sequence[Prediction],
    advice: Advice,
) -> dict[str, Any]:
    """All figures, for programs."""
    return {
        "workload": asdict(workload),
        "capacity": {**asdict(capacity), "slots": capacity.slots},
        "prices": asdict(prices),
        "predictions": [{**asdict(one), "cost": one.cost} for one in predictions],
        "advice": asdict(advice),
        "break_evens": [asdict(one) for one in break_evens(workload, capacity, prices)],
    }


def show(
    console: Console,
    workload: Workload,
    capacity: Capacity,
    prices: Prices,
    predictions: Sequence[Prediction],
    advice: Advice,
) -> None:
    """The table, the advice, the break-even points, and where the prices come from."""
    console.print(
        f"{workload.per_hour:g} invocations an hour ({workload.shape}), {workload.duration:g} s each; "
        f"{capacity.min_acu:g} to {capacity.max_acu:g} ACU, a pause after {capacity.pause:g} s"
    )
    table = Table(box=SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    for heading in ("paused", "invocations that wait", "connections", "their memory"):
        table.add_column(heading, justify="right")
    table.add_column(f"{prices.currency} a month", justify="right")
    table.add_column("of these, capacity", justify="right")
    cheapest = min(one.cost for one in predictions)
    for one in predictions:
        over = one.connections > capacity.slots
        table.add_row(
            one.choice.value,
            f"{one.paused:.1%}",
            f"{one.waits:.1%}",
            f"{one.connections} of {capacity.slots}{' !' if over else ''}",
            f"{one.connection_memory:.1%}",
            f"{one.cost:.2f}",
            f"{one.costs['capacity']:.2f}",
            style="bold" if one.cost <= 1.01 * cheapest else "",
        )
    console.print(table)
    console.print(f"Policy: {advice.policy}", style="bold")
    for reason in advice.reasons:
        console.print(f"  {reason}")
    for point in break_evens(workload, capacity, prices):
        console.print(str(point))
    console.print(
        f"Prices of {prices.region}, collected {prices.collected}: {prices.source}. Storage, I/O, "
        "invocations and backups cost the same in each row, and are left out.",
        style="dim",
    )


def draw(file: Path, workload: Workload, capacity: Capacity, prices: Prices) -> None:
    """Cost and paused share of each way, by rate, with the break-even points and the present rate."""
    from lambdadb.cli.break_even import plot

    try:
        plot(file, workload, capacity, prices)
    except (OSError, ValueError) as error:
        click.echo(f"--picture {file} cannot be written: {error}", err=True)
        sys.exit(2)
    click.echo(f"Wrote {file}.", err=True)
