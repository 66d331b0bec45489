"""The command `lambdadb emulate`: options, its line about each event, and exit codes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import click
import psycopg

from lambdadb.cli.signals import call_instead
from lambdadb.lab import LabError
from lambdadb.lab.aurora import Cluster, ClusterEvent, Shape
from lambdadb.lab.aurora.control import ClusterControl, ControlServer
from lambdadb.lab.clock import LabClock
from lambdadb.lab.listener import ANY_ADDRESS, LOOPBACK
from lambdadb.lab.mariadb import DATABASE, USER, MariaDB
from lambdadb.lab.postgres import Postgres

SHAPES = click.Choice([shape.value for shape in Shape], case_sensitive=False)


@click.command()
@click.option(
    "--engine",
    default="postgresql",
    show_default=True,
    type=click.Choice(["postgresql", "mysql"]),
    help="Aurora PostgreSQL, or Aurora MySQL in front of a MariaDB that is installed here (Debian: "
    "apt-get install mariadb-server).",
)
@click.option(
    "--cold/--hot",
    default=True,
    show_default=True,
    help="A cluster that pauses, or one that never does.",
)
@click.option(
    "--port",
    default=0,
    show_default="any free port",
    type=click.IntRange(0, 65535),
    help="Port to listen on.",
)
@click.option(
    "--host",
    default=LOOPBACK,
    show_default=True,
    metavar="ADDRESS",
    help="IPv4 address to listen on. 0.0.0.0 lets containers and other machines connect: "
    "everybody who has the password is then a superuser.",
)
@click.option(
    "--data",
    metavar="FOLDER",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the data, and the password, in this folder for the next run; PostgreSQL only. [default: "
    "nothing is kept]",
)
@click.option(
    "--init",
    "scripts",
    multiple=True,
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="SQL statements to run once, when the data are new. Repeatable.",
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
    help="What a connect meets while it wakes up. starting and no-hba are PostgreSQL's; error, "
    "login-close and login-silent are MySQL's.",
)
@click.option(
    "--error",
    default=1040,
    show_default=True,
    type=click.IntRange(1000, 65535),
    help="Number of MySQL's error packet, with --shape error.",
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
@click.option(
    "--control",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Let tests in any language pause it, and ask what keeps it awake, over HTTP on this port.",
)
@click.option("--paused", is_flag=True, help="Start in the paused state.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
def emulate(
    engine: str,
    cold: bool,
    port: int,
    host: str,
    data: Path | None,
    scripts: tuple[Path, ...],
    auto_pause: float,
    resume: float,
    deep_resume: float,
    shape: str,
    error: int,
    speed: float,
    round_trip: float,
    control: int | None,
    paused: bool,
    as_json: bool,
) -> None:
    """
    Run an emulated Aurora serverless v2 cluster in front of a real PostgreSQL, or MariaDB.

    It prints its URL, then each pause and resume and what keeps it from pausing, until Ctrl-C. The
    URL has a random password, or that of the variable LAMBDADB_PASSWORD: without it nobody can log in.
    On PostgreSQL the extension vector is there. What a resuming Aurora MySQL answers is not published:
    try every --shape. The data are gone afterwards, unless --data keeps them, and their password.

    \b
    Examples:
      lambdadb emulate --paused                  the first connect waits 15 s
      lambdadb emulate --speed 20 --shape close  pauses after 15 s; EOF while it wakes up
      lambdadb emulate --hot --round-trip 0.002
      lambdadb emulate --port 15432 --data shop --init schema.sql
      lambdadb emulate --host 0.0.0.0            for a client in a container
      lambdadb emulate --control 15433           curl -X POST http://127.0.0.1:15433/pause
      lambdadb emulate --engine mysql --paused --shape error --error 1053

    \b
    Exit codes:
      0    ended by Ctrl-C or SIGTERM
      1    the cluster failed while it ran
      2    nothing was run: a wrong option, a port in use, a missing extra, SQL that fails
    """
    if paused and not cold:
        raise click.UsageError("--paused: a hot cluster never pauses; leave out one of the two.")
    if data is not None and engine == "mysql":
        raise click.UsageError("--data keeps the data of PostgreSQL only; leave it out, or use --init.")
    password = os.environ.get("LAMBDADB_PASSWORD")
    if data is not None and password is not None:
        raise click.UsageError("LAMBDADB_PASSWORD: kept data have a password of their own; unset it.")
    for script in scripts:
        if not script.is_file():
            raise click.UsageError(f"--init: there is no file {script}.")

    # A SimpleQueue, as a signal handler may put into it whatever the main thread is doing.
    ended: SimpleQueue[int] = SimpleQueue()
    code: int | None = None

    def show(event: ClusterEvent) -> None:
        fields = {"at": round(event.at, 3), "kind": event.kind, "reason": event.reason}
        try:
            say(fields, f"{event.at:10.1f} s  {event.kind:<10} {event.reason}", as_json=as_json)
        except OSError:  # nobody reads any more
            ended.put(0)
        if event.kind == "failed":
            ended.put(1)

    try:
        with call_instead(lambda: ended.put(0)), make_server(engine, data, password) as server:
            prepare(server, scripts)
            cluster = Cluster(
                server,
                auto_pause=auto_pause if cold else None,
                resume=resume,
                deep_resume=deep_resume,
                shape=Shape(shape),
                error_number=error,
                clock=LabClock(speed),
                round_trip=round_trip,
                port=port,
                host=host,
                paused=paused,
                on_event=show,
            )
            with cluster, open_control(cluster, host, control) as address:
                if host != LOOPBACK:
                    warn(host, engine)
                facts = {"url": cluster.url(), "state": cluster.state.value, "speed": speed, **address}
                fast = f", its time passes {speed:g} times as fast" if speed != 1 else ""
                told = f", control it at {address['control']}" if address else ""
                say(facts, f"{cluster.url()}  ({cluster.state.value}{fast}{told})", as_json=as_json)
                # Not one wait without end: where the system hands a signal to another thread, Python
                # runs its handler only when this one wakes up.
                while code is None:
                    with suppress(Empty):
                        code = ended.get(timeout=0.2)
    except LabError as error:
        if code is None:
            raise click.UsageError(str(error)) from error
        raise click.ClickException(str(error)) from error
    sys.exit(code)


def make_server(engine: str, data: Path | None, password: str | None) -> Postgres | MariaDB:
    """Make the server of an engine; it is not started."""
    return MariaDB(password=password) if engine == "mysql" else Postgres(data=data, password=password)


@contextmanager
def open_control(cluster: Cluster, host: str, port: int | None) -> Iterator[dict[str, str]]:
    """Let the cluster be controlled over HTTP while the block runs; gives its address, if it has one."""
    if port is None:
        yield {}
        return
    with closing(ControlServer(ClusterControl(cluster), host, port)) as server:
        yield {"control": f"http://{LOOPBACK if host == ANY_ADDRESS else host}:{server.port}"}


def prepare(server: Postgres | MariaDB, scripts: Sequence[Path]) -> None:
    """
    Make the extension, and run the scripts if the data are new.

    Raises:
        LabError: A script failed; new data are removed, so that it runs again the next time.
    """
    if isinstance(server, MariaDB):
        prepare_mariadb(server, scripts)
        return
    with psycopg.connect(server.url().replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        for script in scripts if server.is_new else ():
            try:
                connection.execute(script.read_bytes())
            except psycopg.Error as error:
                server.discard()
                raise LabError(f"--init {script} failed, and nothing was kept: {error}") from error


def prepare_mariadb(server: MariaDB, scripts: Sequence[Path]) -> None:
    """
    Run the scripts.

    Raises:
        LabError: A script failed.
    """
    import pymysql
    from pymysql.constants import CLIENT

    with pymysql.connect(
        host=LOOPBACK,
        port=server.port,
        user=USER,
        password=server.password,
        database=DATABASE,
        autocommit=True,
        client_flag=CLIENT.MULTI_STATEMENTS,
    ) as connection:
        for script in scripts:
            try:
                with connection.cursor() as cursor:
                    cursor.execute(script.read_text())
                    while cursor.nextset():  # raises the error of the next statement
                        pass
            except pymysql.Error as error:
                raise LabError(f"--init {script} failed: {error}") from error


def warn(host: str, engine: str) -> None:
    """Say on standard error who can connect now, and how."""
    plain = "ssl_disabled=true" if engine == "mysql" else "sslmode=disable"
    click.echo(
        f"Warning: listening on {host}: everybody who reaches it and has the password is superuser. In "
        "a container, write this machine's address (host.docker.internal with Docker Desktop) in place "
        f"of the URL's, and add ?{plain}, as the emulator has no TLS.",
        err=True,
    )


def say(fields: dict[str, Any], line: str, *, as_json: bool) -> None:
    """One line now, not when a buffer is full: somebody, or some program, waits for it."""
    click.echo(json.dumps(fields) if as_json else line)
    sys.stdout.flush()
