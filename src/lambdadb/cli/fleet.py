"""The command `lambdadb fleet`: many environments against one database, real or simulated."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from lambdadb.lab import LabError
from lambdadb.lab.fleet.clients import CLIENTS
from lambdadb.lab.fleet.real import measure_machine, run_fleet
from lambdadb.lab.fleet.report import POLICIES, Row, draw, row_of, simulate
from lambdadb.lab.fleet.server import ServerSettings
from lambdadb.lab.fleet.simulation import FleetResult, FleetSettings

MOST_REAL = 1000


@click.command()
@click.option("--environments", default=300, show_default=True, type=click.IntRange(1))
@click.option("--slots", default=189, show_default=True, type=click.IntRange(1), help="max_connections.")
@click.option(
    "--client", "clients", multiple=True, type=click.Choice(list(CLIENTS)), help="Repeatable. [lambdadb]"
)
@click.option("--all-clients", is_flag=True, help="lambdadb and all others, one after the other.")
@click.option("--policy", default="per-invocation", show_default=True, type=click.Choice(list(POLICIES)))
@click.option("--resume", type=float, help="Seconds of a resume. Without it the database is awake.")
@click.option(
    "--shape",
    default="hold",
    show_default=True,
    type=click.Choice(["hold", "refuse"]),
    help="What clients meet until it is awake.",
)
@click.option("--timeout", default=30.0, show_default=True, help="Seconds of an invocation.")
@click.option("--work", default=0.05, show_default=True, help="Seconds for which a session is used.")
@click.option(
    "--over", type=float, help="Seconds in which all start. [1,000 in 10 s, as Lambda starts them]"
)
@click.option("--simulate", "virtual", is_flag=True, help="In virtual time, without any process.")
@click.option("--compare", is_flag=True, help="Real and simulated, side by side.")
@click.option("--clusters", default=1, show_default=True, help="Databases. [with --simulate]")
@click.option(
    "--invocations", default=1, show_default=True, help="Of each environment. [with --simulate]"
)
@click.option(
    "--interval", default=60.0, show_default=True, help="Mean seconds between them. [with --simulate]"
)
@click.option(
    "--login",
    type=float,
    help="The server's seconds for a login. [0.0088; with --compare what it takes here]",
)
@click.option("--seed", default=1, show_default=True, help="Decides the random numbers.")
@click.option("--picture", type=click.Path(path_type=Path, dir_okay=False), help="Write an SVG.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each row.")
def fleet(
    environments: int,
    slots: int,
    clients: Sequence[str],
    all_clients: bool,
    policy: str,
    resume: float | None,
    shape: str,
    timeout: float,
    work: float,
    over: float | None,
    virtual: bool,
    compare: bool,
    clusters: int,
    invocations: int,
    interval: float,
    login: float | None,
    seed: int,
    picture: Path | None,
    as_json: bool,
) -> None:
    """
    Start many environments against one database, and count who got a session when.

    Each environment is a real process; the database is a real PostgreSQL with this many slots, behind an
    emulated cluster that pauses. With --simulate the same decisions run in virtual time, for fleets that
    no machine holds. Nothing is sent beyond this machine.

    \b
    Examples:
      lambdadb fleet --environments 300 --slots 189 --resume 15
      lambdadb fleet --environments 60 --slots 40 --resume 8 --compare
      lambdadb fleet --simulate --environments 1000 --resume 15 --all-clients --picture fleet.svg
      lambdadb fleet --simulate --environments 1000000 --clusters 1000 --over 86400

    \b
    Exit codes:
      0    the fleet ran; environments may have failed, which the table says
      1    the lab failed
      2    an option is wrong
      130  ended by Ctrl-C or SIGTERM
    """
    if not virtual and (clusters > 1 or invocations > 1 or environments > MOST_REAL):
        raise click.UsageError(
            f"--clusters, --invocations and more than {MOST_REAL} environments need --simulate."
        )
    settings = FleetSettings(
        environments=environments,
        invocations=invocations,
        starts_per_second=environments / over if over else 100.0 * clusters,
        interval=interval,
        timeout=timeout,
        work=work,
        seed=seed,
    )
    server = ServerSettings(slots=slots, resume=resume, shape=shape)
    if login is not None:
        server = replace(server, login=login)
    elif compare:
        with lab_errors():
            server = measure_machine(server)
    console = Console(stderr=True)
    rows: dict[str, Row] = {}
    drawn: dict[str, FleetResult] = {}
    for client in list(CLIENTS) if all_clients else clients or ["lambdadb"]:
        if compare or not virtual:
            result = run_real(settings, server, client, policy, console)
            rows[client] = row_of([result])
            drawn[client] = result
        if compare or virtual:
            name = f"{client}, simulated" if compare else client
            results = simulate(settings, server, client, policy, clusters)
            rows[name] = row_of(results)
            drawn[name] = results[0]
    if picture is not None:
        picture.write_bytes(draw(drawn, slots))
    if as_json:
        for name, row in rows.items():
            click.echo(json.dumps({"client": name, **asdict(row)}))
    else:
        Console(width=100).print(table_of(rows))


def run_real(
    settings: FleetSettings, server: ServerSettings, client: str, policy: str, console: Console
) -> FleetResult:
    """Run a real fleet, and show how many environments have ended."""
    with Progress(console=console, transient=True) as progress, lab_errors():
        task = progress.add_task(client, total=settings.environments)
        return run_fleet(
            settings, server, client, policy, lambda done: progress.update(task, completed=done)
        )


@contextmanager
def lab_errors() -> Iterator[None]:
    """Show an error of the lab as one of the command."""
    try:
        yield
    except LabError as error:
        raise click.ClickException(str(error)) from error


def table_of(rows: dict[str, Row]) -> Table:
    """A table with a line for each client."""
    table = Table(
        caption=(
            "Tries: attempts to log in. Wasted: those beyond one for each session.\n"
            "Median, 99 %: seconds until the session. Last: seconds from the resume to the last session."
        )
    )
    table.add_column("client", no_wrap=True)
    for name in ("served", "failed", "tries", "wasted", "peak/s", "median", "99 %", "last"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, row in rows.items():
        counts = (row.served, row.failed, row.attempts, row.wasted, row.peak_attempts)
        times = (row.wait_median, row.wait_99, row.after_resume)
        nothing = not row.served
        table.add_row(
            name,
            *(f"{count:,}" for count in counts),
            *("-" if nothing else f"{seconds:.1f}" for seconds in times),
        )
    return table
