"""The command `lambdadb wake`: start the resume of a paused cluster."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import click
from sqlalchemy import Engine

from lambdadb.cli.login import login_options
from lambdadb.errors import ConnectFailed, LambdaDBError
from lambdadb.operate.login import connected, make_engine, place
from lambdadb.resume import wake as wake_engine

FAILED = 1
TEXTS = {
    "awake": "awake",
    "resuming": "resuming; it should be awake in about {} s",
    "unanswered": "no answer from the network yet; if it resumes, it should be awake in about {} s",
}


@click.command()
@click.argument("url")
@login_options
@click.option("--wait", is_flag=True, help="Wait until it answers, for --timeout seconds at most.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def wake(url: str, secret: str | None, iam: bool, timeout: float, wait: bool, as_json: bool) -> None:
    """
    Wake a paused cluster: start its resume, and say when it should be awake.

    Any attempt to connect does that. The resume goes on after this command. With --wait it ends when
    the cluster answers. The session that is opened is closed at once.

    \b
    Examples:
      lambdadb wake postgresql://app@orders.cluster-x.eu-west-1.rds.amazonaws.com/shop --iam
      lambdadb wake "$DATABASE_URL" --wait --timeout 120 && alembic upgrade head

    \b
    Exit codes:
      0    awake, or, without --wait, its resume has begun
      1    the login was refused or the address is wrong; with --wait: not awake in time
      2    nothing was sent: a wrong URL or option
      130  ended by Ctrl-C or SIGTERM; a resume that has begun goes on
    """
    try:
        engine = make_engine(url, secret=secret, iam=iam, tag="lambdadb wake", timeout=timeout)
    except LambdaDBError as error:
        raise click.UsageError(str(error)) from error
    began = time.monotonic()
    try:
        if wait:
            wait_for(engine)
            found: dict[str, Any] = {"state": "awake", "retry_after": None}
        else:
            state = wake_engine(engine)
            found = {"state": state.state, "retry_after": state.retry_after}
    except ConnectFailed as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(FAILED)
    found["waited"] = round(time.monotonic() - began, 3)
    text = f"{place(url)}: {TEXTS[found['state']].format(found['retry_after'])}"
    if wait:
        text += f", after {found['waited']:.1f} s"
    click.echo(json.dumps({"server": place(url), **found}) if as_json else text)


def wait_for(engine: Engine) -> None:
    """Connect, however long the cluster takes, within the engine's own limit."""
    with connected(engine):
        pass
