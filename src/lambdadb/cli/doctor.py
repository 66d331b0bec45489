"""The command `lambdadb doctor`: what is wrong, what it means, and what to do."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

import click
from rich.console import Console
from rich.text import Text
from sqlalchemy.exc import SQLAlchemyError

from lambdadb.cli.findings import finding_facts, make_console, print_findings
from lambdadb.cli.login import WAKE, login_options
from lambdadb.drivers.rds_endpoint import region_of
from lambdadb.engine import parse_url
from lambdadb.errors import ConnectFailed, LambdaDBError
from lambdadb.extras import install_command
from lambdadb.operate.aws import ClusterNotFound, cluster_of, read_cluster, read_function
from lambdadb.operate.checks import Finding, Weight, check_connect
from lambdadb.operate.cluster import ClusterFacts, FunctionFacts
from lambdadb.operate.doctor import Examination, diagnose, worst
from lambdadb.operate.login import connected, make_engine, place
from lambdadb.operate.session_view import read_server, read_session_view
from lambdadb.operate.sessions import SessionView, holders

CODES = {None: 0, Weight.NOTE: 0, Weight.WARNING: 1, Weight.CRITICAL: 3}
TAG = "lambdadb doctor"
FUNCTIONS = 20
"""Holders, the largest first, that are looked for among the functions of the account."""


@click.command()
@click.argument("url", required=False)
@click.option(
    "--cluster",
    metavar="NAME",
    help="The cluster to ask AWS about. By default the one that the URL's host names.",
)
@click.option("--region", metavar="NAME", help="Its region. By default the host's, else boto3's own.")
@click.option(
    "--function",
    "given",
    metavar="NAME=N",
    multiple=True,
    help="A function may run so many environments at a time: where AWS cannot be asked. Repeatable.",
)
@click.option("--wake", is_flag=True, help="Ask the database also if the cluster is paused now.")
@click.option("--logs", is_flag=True, help="Read instance.log, too. That wakes a paused cluster.")
@login_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(
    url: str | None,
    cluster: str | None,
    region: str | None,
    given: tuple[str, ...],
    wake: bool,
    logs: bool,
    secret: str | None,
    iam: bool,
    timeout: float,
    as_json: bool,
) -> None:
    """
    Find what is wrong with a database, its cluster and the functions that use it.

    Each finding has what was seen, what it means, what to do, and where this can be read. The worst
    comes first. Three questions are asked: what keeps the cluster from pausing, what will break, and
    what is wrong with the functions. Nothing is changed.

    The database is asked with the URL. AWS is asked with boto3 (extra aws), by the URL's host or
    --cluster. What could not be asked is listed at the end. Asking the database wakes a paused cluster.
    If AWS says that it is paused now, the database is asked only with --wake.

    \b
    Permissions:
      database  pg_read_all_stats (or pg_monitor); as a superuser it also sees the kinds of passwords
      AWS       rds:DescribeDBClusters, DescribeDBInstances, DescribeDBProxies, DescribeDBProxyTargets,
                DescribeGlobalClusters, DescribeIntegrations, DescribeEvents;
                cloudwatch:GetMetricData; lambda:GetFunctionConfiguration, GetFunctionConcurrency;
                rds:DownloadDBLogFilePortion for --logs

    \b
    Examples:
      lambdadb doctor postgresql://ops@orders.cluster-x.eu-west-1.rds.amazonaws.com/shop --iam
      lambdadb doctor --cluster orders --region eu-west-1       asks AWS alone: wakes nothing
      lambdadb doctor "$URL" --function orders=200 --json | jq '.findings[].name'

    \b
    Exit codes:
      0    nothing is wrong; there may be notes
      1    warnings
      2    nothing was asked: a wrong URL or option
      3    something fails now, the login included
      130  interrupted by Ctrl-C or SIGTERM
    """
    if url is None and cluster is None:
        raise click.UsageError("Give a URL, or --cluster NAME to ask AWS alone.")
    now = datetime.now(timezone.utc)
    unseen: list[str] = []
    functions = parse_functions(given)
    try:
        host = parse_url(url).host or "" if url else ""
        engine = url and make_engine(url, secret=secret, iam=iam, tag=TAG, timeout=timeout)
    except LambdaDBError as error:
        raise click.UsageError(str(error)) from error
    session = open_session(region or region_of(host), unseen)
    found_cluster = ask_cluster(session, cluster or cluster_of(host), now, unseen, logs=logs)
    view = server = None
    findings: list[Finding] = []
    if engine and url:
        if found_cluster is not None and found_cluster.capacity_now == 0 and not wake:
            unseen.append("the database: it is paused, and a connect would wake it; add --wake")
        else:
            click.echo(f"Connecting to {place(url)} for a moment. {WAKE}", err=True)
            try:
                with connected(engine) as connection:
                    view = read_session_view(connection, place(url))
                    server = read_server(connection)
            except ConnectFailed as error:
                findings.append(check_connect(error))
            except SQLAlchemyError as error:
                unseen.append(f"the database: {error}")
    else:
        unseen.append("the database: no URL was given")
    if session is not None and view is not None:
        functions += ask_functions(session, view, now, {one.name for one in functions})
    facts = Examination(view=view, server=server, cluster=found_cluster, functions=functions)
    findings += diagnose(facts, now)
    if found_cluster is not None:
        unseen += found_cluster.unseen
    if as_json:
        click.echo(json.dumps(as_facts(facts, findings, unseen), default=str))
    else:
        show(make_console(), facts, findings, unseen)
    sys.exit(CODES[worst(findings)])


def parse_functions(given: tuple[str, ...]) -> list[FunctionFacts]:
    """The functions of the command line."""
    found = []
    for one in given:
        name, _, number = one.partition("=")
        if not name or not number.isdigit() or int(number) < 1:
            raise click.UsageError(f"--function {one}: write NAME=N, as in orders=200.")
        found.append(FunctionFacts(name=name, concurrency=int(number), peak=int(number)))
    return found


def open_session(region: str | None, unseen: list[str]) -> Any:
    """A boto3 session; None, and a note, where boto3 is missing."""
    try:
        from boto3 import Session
    except ImportError:
        unseen.append(f"AWS: boto3 is not installed; {install_command('aws')}")
        return None
    return Session(region_name=region)


def ask_cluster(
    session: Any, name: str | None, now: datetime, unseen: list[str], *, logs: bool
) -> ClusterFacts | None:
    """What AWS says about the cluster; None, and a note, if it says nothing."""
    if name is None:
        unseen.append("AWS: the host is not the endpoint of a cluster; name it with --cluster")
        return None
    if session is None:
        return None
    click.echo(f"Asking AWS about {name}.", err=True)
    try:
        return read_cluster(session, name, now, logs=logs)
    except ClusterNotFound as error:
        unseen.append(f"AWS: {error}")
    except Exception as error:  # no region, no credentials: boto3 says which
        unseen.append(f"AWS: {type(error).__name__}: {error}")
    return None


def ask_functions(
    session: Any, view: SessionView, now: datetime, known: set[str]
) -> list[FunctionFacts]:
    """The functions among the holders of sessions."""
    names = [holder.name for holder in holders(view) if holder.name.isascii()]
    asked = [name for name in names if name not in known and " " not in name][:FUNCTIONS]
    try:
        found = [read_function(session, name, now) for name in asked]
    except Exception:  # no region or no credentials, which was said about the cluster
        return []
    return [one for one in found if one is not None]


def as_facts(facts: Examination, findings: list[Finding], unseen: list[str]) -> dict[str, Any]:
    """All that was found, for programs."""
    return {
        "findings": [finding_facts(finding) for finding in findings],
        "not_seen": unseen,
        "cluster": None if facts.cluster is None else asdict(facts.cluster),
        "server": None if facts.server is None else asdict(facts.server),
        "functions": [asdict(one) for one in facts.functions],
    }


def show(console: Console, facts: Examination, findings: list[Finding], unseen: list[str]) -> None:
    """Headline, findings, events, and what was not seen."""
    console.print(headline(facts))
    if findings:
        print_findings(console, findings)
    else:
        console.print(Text("Nothing is wrong, as far as it was seen.", style="green"))
    if facts.cluster is not None and facts.cluster.events:
        console.print(Text("\nPauses and resumes of the last 24 hours:", style="bold"))
        for event in facts.cluster.events[-10:]:
            console.print(f"  {event}")
    if unseen:
        console.print(Text("\nNot seen:", style="bold"))
        for line in unseen:
            console.print(f"  {line}")


def headline(facts: Examination) -> Text:
    """What was examined, in a line or two."""
    text = Text()
    if facts.view is not None:
        slots = facts.view.slots
        text.append(f"\n{facts.view.server}", style="bold").append(
            f"  {facts.view.kind} {facts.view.version}, {slots.used} of {slots.limit} connections used\n"
        )
    if facts.cluster is not None:
        one = facts.cluster
        capacity = f"{one.min_capacity:g} to {one.max_capacity:g} ACU" if one.max_capacity else ""
        now = {None: "", 0.0: ", paused now"}.get(one.capacity_now, f", {one.capacity_now} ACU now")
        share = "" if one.paused_share is None else f", paused for {one.paused_share:.0%} of 24 h"
        text.append(f"{one.name}", style="bold").append(
            f"  {one.engine} {one.version}, {capacity}{now}{share}\n"
        )
    return text
