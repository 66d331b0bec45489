"""The group of all commands, and how it ends: exit codes and signals."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from lambdadb.cli import COMMANDS, INTERRUPTED, install_text, missing_modules


class LazyGroup(click.Group):
    """Imports a command's module when the command is asked for, and says which extra it lacks."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 click's own form
        """The names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """
        The command of that name.

        Raises:
            click.UsageError: What it needs is not installed; names the extra.
        """
        command = COMMANDS.get(cmd_name)
        if command is None:
            return None
        if missing := missing_modules(command.modules):
            raise click.UsageError(install_text(f"lambdadb {cmd_name}", missing, command.extra))
        found: click.Command = getattr(import_module(f"lambdadb.cli.{cmd_name}"), cmd_name)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write a line about each command, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help) for name, command in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sqlalchemy-lambdadb")
def lambdadb() -> None:
    """
    SQLAlchemy on AWS Lambda with Aurora that pauses: measure it, try it without AWS, deploy it.

    \b
    Examples:
      lambdadb bench                      measure four handlers, hot and cold, in a minute or two
      lambdadb emulate --cold --speed 20  a cluster that pauses, to point your own code at
      lambdadb fleet --resume 15          300 environments meet a cluster that sleeps
      lambdadb layer                      the Lambda layer, for any Python and architecture
      lambdadb sessions URL               who holds the connections
      lambdadb doctor URL                 what keeps it awake, what will break, and what to do
      lambdadb advise --per-hour 5        which policy, and what it costs
      lambdadb wake URL --wait            wake a paused cluster, before a deployment
      lambdadb deadline | psql URL        let the server end what a killed function left
    """


def run(arguments: Sequence[str] | None) -> int:
    """Run a command and give its exit code."""
    options: dict[str, Any] = {"prog_name": "lambdadb", "standalone_mode": False}
    try:
        return int(lambdadb(None if arguments is None else list(arguments), **options) or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return INTERRUPTED
