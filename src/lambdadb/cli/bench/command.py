"""The options of `lambdadb bench`, and what they choose."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from lambdadb.cli.bench import deployed, local
from lambdadb.cli.bench.deployed import DeployedOptions, Moment
from lambdadb.errors import LambdaDBError
from lambdadb.lab import LabError
from lambdadb.lab.aurora import Shape
from lambdadb.lab.bench.config import DATA_API_PRICE, EXPERIMENT, SPEED, BenchConfig
from lambdadb.lab.bench.deployed.infra import HOW

FOLDER = click.Path(file_okay=False, path_type=Path)
# Options that mean something in one place only.
OF_LAMBDA = ("infra", "invoke", "since", "beside", "prices")
OF_LAPTOP = (
    *("engine", "speed", "resume", "shape"),
    *("hot", "cold", "secret", "iam", "create", "clean_up", "steady", "data_api_price"),
)
OF_INVOKE = ("rounds", "interval")


@click.command()
@click.option(
    "--on",
    "place",
    default="laptop",
    show_default=True,
    type=click.Choice(["laptop", "lambda"]),
    help="Where the functions run: on this machine, or on Lambda, where infra/terraform has deployed "
    "them.",
)
@click.option(
    "--engine",
    default="postgresql",
    show_default=True,
    type=click.Choice(["postgresql", "mysql"]),
    help="The embedded clusters: PostgreSQL, or a MariaDB that is installed here (Debian: apt-get "
    "install mariadb-server).",
)
@click.option(
    "--infra",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="With --on lambda: what was deployed, as `terraform output -json experiment` writes it.",
)
@click.option(
    "--invoke",
    is_flag=True,
    help="With --on lambda: invoke the functions from here, --rounds times each. Without it, what they "
    "logged on their schedule is read.",
)
@click.option(
    "--since",
    metavar="TIME",
    type=Moment(),
    help="With --on lambda: read the log from then on. A number of hours ago, or an ISO time. By "
    "default from where the folder's last report began, or 24 hours ago.",
)
@click.option(
    "--beside",
    metavar="FOLDER",
    type=FOLDER,
    help="With --on lambda: show the results of that folder, of a run on this machine, beside them.",
)
@click.option(
    "--prices",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="With --on lambda: your prices, from which the cost is told. By default list prices, dated.",
)
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
    "default, and 60 with --engine mysql, which is the most there. Connects, resumes and statements "
    "always run in real time. Real clusters: 1.",
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
    help="What a connect meets while the embedded cold cluster wakes up. starting and no-hba are "
    "PostgreSQL's; error (1040), login-close and login-silent are MySQL's.",
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
    "--data-api-price",
    default=DATA_API_PRICE,
    show_default=True,
    metavar="USD",
    type=click.FloatRange(min=0),
    help="Price of a million requests of the Data API, for the report. The default is from secondary "
    "pages, for us-east-1, and not verified.",
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
    metavar="FOLDER",
    type=FOLDER,
    help="Folder for the results: lambdadb-bench by default, lambdadb-bench-lambda with --on lambda. An "
    "earlier report there is replaced, unless every invocation fails.",
)
@click.option("--yes", is_flag=True, help="Do not ask before real clusters are used or money is spent.")
@click.option("--json", "as_json", is_flag=True, help="Print summary.json instead of the table.")
@click.pass_context
def bench(
    context: click.Context,
    /,
    place: str,
    infra: Path | None,
    invoke: bool,
    since: datetime | None,
    beside: Path | None,
    prices: Path | None,
    out: Path | None,
    yes: bool,
    as_json: bool,
    rounds: int,
    interval: float | None,
    **chosen: Any,
) -> None:
    """
    Run the published experiment: one row with a 1536-dimension vector per invocation, every 10
    minutes against a hot cluster and every 12 minutes against a cold (auto-pausing) one.

    Five handlers are compared: hand-written psycopg as published, plain SQLAlchemy with its default
    pool, lambdadb's PerEnvironment and PerInvocation, and lambdadb over the emulated Data API, with
    what its requests cost. Each runs in a real process under AWS's
    own runtime client, frozen between invocations, against a real PostgreSQL with pgvector behind
    an emulated Aurora. Nothing leaves this machine.

    With --engine mysql it is a real MariaDB, without the Data API, and the hand-written handler uses
    PyMySQL. The vector is stored as JSON. The ids go up by 1 on a cold cluster, too, as AUTO_INCREMENT
    survives a pause.

    Steady traffic comes beside it: an invocation every 20 seconds, against a hot cluster with a
    millisecond of network delay.

    FOLDER gets results.jsonl (a line per measurement; unfinished.jsonl while they come),
    summary.json, report.html and its pictures as PNG.

    With --hot or --cold, real clusters are measured instead, by the four handlers that connect, from
    this machine and in real time, one after the other. All that is created there is a table in each,
    lambdadb_bench_hot and lambdadb_bench_cold. What would make every invocation fail is said before the
    first one. How long the cluster was paused comes from CloudWatch, where boto3 finds credentials.

    With --on lambda, nothing runs here: what the deployed functions logged on their schedule is read
    from CloudWatch, or they are invoked (--invoke). What it costs is said before it begins. After
    Ctrl-C the same command goes on from where it was. docs/benchmark.md has the permissions.

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
      lambdadb bench --engine mysql --shape login-close
      lambdadb bench --on lambda --infra experiment.json --since 48 --beside lambdadb-bench
      LAMBDADB_BENCH_COLD=postgresql+psycopg://... lambdadb bench --rounds 2

    \b
    Exit codes:
      0    all invocations succeeded
      1    an invocation failed, or a result could not be written; the rest is reported
      2    nothing was run: a wrong option, login, port or right, a missing extra, a folder that cannot
           be written
      130  interrupted by Ctrl-C or SIGTERM; what was measured is reported
    """
    try:
        if place == "lambda":
            refuse(context, (*OF_LAPTOP, "experiment"), "is for functions on this machine: leave it out")
            if not invoke:
                refuse(context, OF_INVOKE, "needs --invoke: a schedule has its own")
            if infra is None:
                raise click.UsageError("--on lambda needs --infra FILE. " + HOW)
            options = DeployedOptions(
                infra=infra,
                out=out or Path("lambdadb-bench-lambda"),
                invoke=invoke,
                rounds=rounds,
                interval=interval,
                since=since,
                beside=beside,
                yes=yes,
                as_json=as_json,
                **({"prices": prices} if prices else {}),
            )
            sys.exit(deployed.measure(options))
        refuse(context, OF_LAMBDA, "needs --on lambda")
        config = config_of(rounds=rounds, interval=interval, **chosen)
        sys.exit(local.run(config, out or Path("lambdadb-bench"), yes=yes, as_json=as_json))
    except (LabError, LambdaDBError) as error:
        raise click.UsageError(str(error)) from error


def config_of(
    *,
    engine: str,
    hot: str | None,
    cold: str | None,
    speed: float | None,
    shape: str,
    **chosen: Any,
) -> BenchConfig:
    """What is run on this machine."""
    urls = {kind: url for kind, url in (("hot", hot), ("cold", cold)) if url}
    speed = speed or (1.0 if urls else SPEED[engine])
    return BenchConfig(engine=engine, urls=urls, speed=speed, shape=Shape(shape), **chosen)


def refuse(context: click.Context, names: tuple[str, ...], why: str) -> None:
    """
    Refuse options that were given and would mean nothing.

    Raises:
        click.UsageError: Names the first of them.
    """
    for parameter in context.command.params:
        given = context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
        if given and parameter.name in names:
            raise click.UsageError(f"{parameter.opts[0]} {why}.")
