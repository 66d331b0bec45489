"""The command `lambdadb sessions`: who holds the connections of a server."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.util import find_spec
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from lambdadb.cli.findings import finding_facts, make_console, print_findings
from lambdadb.cli.login import WAKE, login_options
from lambdadb.drivers.rds_endpoint import region_of
from lambdadb.engine import parse_url
from lambdadb.errors import ConnectFailed, LambdaDBError
from lambdadb.faults import Fault
from lambdadb.operate.aws import cluster_of, is_paused
from lambdadb.operate.login import connected, make_engine, place
from lambdadb.operate.session_view import read_session_view
from lambdadb.operate.sessions import (
    Holder,
    SessionView,
    Wakefulness,
    duration,
    examine,
    holders,
    keeps_awake,
)

TAG = "lambdadb sessions"
FAILED = 1
BAR = 12
FULL = (
    " A user with reserved connections can still log in: on Aurora the master user, or one with "
    "rds_superuser; elsewhere a superuser, or one with pg_use_reserved_connections."
)


@click.command()
@click.argument("urls", metavar="URL...", nargs=-1, required=True)
@login_options
@click.option(
    "--watch",
    metavar="SECONDS",
    type=click.FloatRange(0.2, 3600),
    help="Look again after so many seconds, until Ctrl-C. The connection stays open meanwhile.",
)
@click.option("--wake", is_flag=True, help="Look also if the cluster is paused now.")
@click.option("--all", "every", is_flag=True, help="A line for each session, too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: an object a line, one for each look.")
def sessions(
    urls: tuple[str, ...],
    secret: str | None,
    iam: bool,
    timeout: float,
    watch: float | None,
    wake: bool,
    every: bool,
    as_json: bool,
) -> None:
    """
    Show who holds the connections of a server: by function, state, age and idle time.

    A holder is a session's own name (application_name, program_name): with lambdadb, the function's.
    The one that holds most is marked. Below the table stands what is wrong: sessions that others wait
    for, long transactions, a server that is nearly full, sessions without a name. The last part says
    who would keep an auto-pausing cluster awake from now on.

    Several URLs are shown one below the other, such as a writer and its readers.

    Looking needs one connection, for a moment, and nothing is changed. A paused cluster would wake up by
    it. So where boto3 (extra aws) can ask CloudWatch, a cluster that is paused now is left alone: it has
    no sessions. --wake looks anyway. Statements are shown without their literals.

    \b
    Permissions:
      database  pg_read_all_stats (or pg_monitor); PROCESS in MySQL. Without it other users' sessions
                have a name and no state.
      AWS       secretsmanager:GetSecretValue (--secret), rds-db:connect (--iam),
                cloudwatch:GetMetricData (whether it is paused)

    \b
    Examples:
      lambdadb sessions postgresql://ops@orders.cluster-x.eu-west-1.rds.amazonaws.com/shop --iam
      lambdadb sessions "$WRITER" "$READER" --secret shop/ops --watch 2
      lambdadb sessions "$URL" --json | jq '.holders[0]'

    \b
    Exit codes:
      0    shown, or paused, with no session to show
      1    a server could not be asked; the others are shown
      2    nothing was asked: a wrong URL or option
      130  ended by Ctrl-C or SIGTERM
    """
    try:
        engines = {
            place(url): make_engine(url, secret=secret, iam=iam, tag=TAG, timeout=timeout)
            for url in urls
        }
    except LambdaDBError as error:
        raise click.UsageError(str(error)) from error
    asleep = {} if wake else {place(url): url for url in urls if sleeps(url)}
    for server in asleep:
        text = f"{server}: paused, so nobody is connected. It was not woken; --wake looks anyway."
        click.echo(json.dumps({"server": server, "paused": True}) if as_json else text)
        del engines[server]
    for server in engines:
        how = "and stays connected" if watch else "for a moment"
        click.echo(f"Connecting to {server} {how}. {WAKE}", err=True)
    console = make_console()
    failed = False
    with ExitStack() as stack:
        connections: dict[str, Connection] = {}
        for server, engine in engines.items():
            try:
                connections[server] = stack.enter_context(connected(engine))
            except SQLAlchemyError as error:
                failed = True
                click.echo(f"{server}: {explain(error)}", err=True)
                continue
            if not watch:
                # Shown at once, and closed before the next server is asked.
                show(console, [read_session_view(connections[server], server)], every, as_json=as_json)
                connections.pop(server).close()
        if watch and connections:
            follow(console, connections, watch, every, as_json=as_json)
    sys.exit(FAILED if failed else 0)


def sleeps(url: str) -> bool:
    """Whether CloudWatch says that the cluster at this URL is paused now."""
    host = parse_url(url).host or ""
    name = cluster_of(host)
    if name is None or find_spec("boto3") is None:
        return False
    from boto3 import Session

    session = Session(region_name=region_of(host))
    return is_paused(session, name, datetime.now(timezone.utc)) is True


def explain(error: SQLAlchemyError) -> str:
    """Why a server could not be asked, and the way in if it is full."""
    full = isinstance(error, ConnectFailed) and error.fault is Fault.EXHAUSTED
    return f"{error}{FULL if full else ''}"


def follow(
    console: Console, connections: dict[str, Connection], pause: float, every: bool, *, as_json: bool
) -> None:
    """Look again and again, in place on a terminal, until a signal ends it."""
    if as_json or not console.is_terminal:
        while True:
            for server, connection in connections.items():
                show(console, [read_session_view(connection, server)], every, as_json=as_json)
            time.sleep(pause)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            found = [read_session_view(connection, server) for server, connection in connections.items()]
            with console.capture() as captured:
                show(console, found, every, as_json=False)
            live.update(Text.from_ansi(captured.get()), refresh=True)
            time.sleep(pause)


def show(console: Console, views: Sequence[SessionView], every: bool, *, as_json: bool) -> None:
    """Print session views: tables, or an object a line."""
    for view in views:
        if as_json:
            click.echo(json.dumps(facts(view)))
            sys.stdout.flush()
            continue
        console.print(headline(view))
        console.print(holder_table(holders(view)))
        if every:
            console.print(session_table(view))
        print_findings(console, examine(view))
        console.print(awake_lines(keeps_awake(view)))


def facts(view: SessionView) -> dict[str, Any]:
    """All that is known, for programs."""
    slots = {**asdict(view.slots), "ordinary": view.slots.ordinary, "free": view.slots.free}
    return {
        **asdict(view),
        "slots": slots,
        "holders": [asdict(holder) for holder in holders(view)],
        "findings": [finding_facts(finding) for finding in examine(view)],
        "keeps_awake": [asdict(one) for one in keeps_awake(view)],
    }


def headline(view: SessionView) -> Group:
    """Which server it is, and how full."""
    slots = view.slots
    kind = "reader" if view.reader else "writer"
    first = Text(view.server, style="bold").append(f"  {view.kind} {view.version}, {kind}", style="dim")
    style = "red" if slots.free == 0 else "yellow" if slots.free < 0.2 * slots.ordinary else "green"
    second = Text(bar(slots.used / slots.limit, 30), style=style).append(
        f"  {slots.used} of {slots.limit} connections used, {slots.free} free for ordinary users, "
        f"{slots.reserved} reserved",
        style="default",
    )
    return Group(Text(""), first, second)


def holder_table(found: Sequence[Holder]) -> Table:
    """A row for each holder; the one that stands out is marked, in colour and by an arrow."""
    table = Table(box=SIMPLE_HEAD)
    table.add_column("", width=1)
    table.add_column("holder", overflow="ellipsis", no_wrap=True)
    table.add_column("user", overflow="ellipsis", no_wrap=True)
    table.add_column("sessions", justify="right")
    table.add_column("share", no_wrap=True)
    table.add_column("states")
    table.add_column("oldest", justify="right", no_wrap=True)
    table.add_column("idle for", justify="right", no_wrap=True)
    for holder in found:
        states = ", ".join(f"{count} {state}" for state, count in holder.states.items())
        table.add_row(
            "▶" if holder.stands_out else "",
            holder.name,
            ", ".join(holder.users),
            str(holder.count),
            f"{bar(holder.share, BAR)} {holder.share:>4.0%}",
            states,
            duration(holder.age) if holder.age is not None else "",
            duration(holder.idle) if holder.idle is not None else "",
            style="bold red" if holder.stands_out else "",
        )
    if not found:
        table.add_row("", "nobody else is connected")
    return table


def session_table(view: SessionView) -> Table:
    """A row for each session, the oldest first."""
    table = Table(box=SIMPLE_HEAD)
    for heading in ("id", "holder", "client", "state", "age", "idle for", "waits for", "statement"):
        table.add_column(heading, overflow="ellipsis", no_wrap=heading != "statement")
    for one in view.sessions:
        table.add_row(
            str(one.id),
            one.holder,
            one.client,
            one.state,
            duration(one.age),
            duration(one.idle) if one.idle is not None else "",
            ", ".join(map(str, one.waits_for)),
            one.statement[:80],
        )
    return table


def awake_lines(found: Sequence[Wakefulness]) -> Text:
    """Who keeps an auto-pausing cluster awake from now on, the longest first."""
    text = Text("Would keep an auto-pausing cluster awake: ", style="bold")
    if not found:
        return text.append("nobody.\n", style="not bold")
    for one in found[:3]:
        when = "with no end" if one.seconds is None else f"for {duration(one.seconds)}"
        many = f" ({one.count} sessions)" if one.count > 1 else ""
        text.append(f"\n  {one.holder}{many}: {when}; {one.reason}.", style="not bold")
    if len(found) > 3:
        text.append(f"\n  and {len(found) - 3} more.", style="not bold")
    return text.append("\n")


def bar(share: float, width: int) -> str:
    """A share as a bar of characters; something for each that is not 0."""
    full = max(round(min(share, 1.0) * width), 1 if share > 0 else 0)
    return "█" * full + "░" * (width - full)
