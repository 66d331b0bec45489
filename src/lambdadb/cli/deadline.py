"""The command `lambdadb deadline`: the SQL of the function that limits a transaction's time."""

from __future__ import annotations

import click

from lambdadb.errors import InvalidSettings
from lambdadb.operate.deadline_function import make_deadline_function
from lambdadb.settings import Settings


@click.command()
@click.option(
    "--name",
    default="lambdadb_deadline",
    show_default=True,
    help="The function's name, or SCHEMA.NAME.",
)
def deadline(name: str) -> None:
    """
    Print the SQL of a function that ends a transaction at its invocation's end.

    An engine calls it with each BEGIN if it is told to: create_engine(url, deadline_function=NAME).
    The server then ends the transaction also if the function's environment is killed or frozen, or if
    RDS Proxy passes no cancel on. This command connects to nothing. Create the function once in each
    database, as a role that may create functions there.

    \b
    Examples:
      lambdadb deadline | psql "$ADMIN_URL"
      lambdadb deadline --name app.lambdadb_deadline > migrations/deadline.sql

    \b
    Exit codes:
      0    printed
      2    the name cannot be one
    """
    try:
        Settings(deadline_function=name)
    except InvalidSettings as error:
        raise click.UsageError(str(error)) from error
    click.echo(make_deadline_function(name), nl=False)
