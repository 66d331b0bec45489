"""The command `lambdadb layer`: options, progress, table and exit codes."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from lambdadb.layer import (
    ARCHITECTURES,
    PYTHONS,
    UNZIPPED_LIMIT,
    ZIPPED_LIMIT,
    Layer,
    LayerError,
    Target,
    build,
    find_interpreter,
    mebibytes,
)

FAILED = 1


@click.command()
@click.option(
    "--python",
    default=f"{sys.version_info.major}.{sys.version_info.minor}",
    show_default="this Python's",
    type=click.Choice(PYTHONS),
    help="The function's runtime.",
)
@click.option(
    "--arch",
    default="x86_64",
    show_default=True,
    type=click.Choice(list(ARCHITECTURES)),
    help="The function's architecture.",
)
@click.option("--asyncio", is_flag=True, help="Add greenlet, which asynchronous engines need.")
@click.option(
    "--requirement",
    "requirements",
    multiple=True,
    metavar="REQUIREMENT",
    help="One more package, such as aws-xray-sdk, or a version, such as sqlalchemy==2.1.9. Repeatable.",
)
@click.option(
    "--interpreter",
    metavar="PATH",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A Python of that version, which makes the bytecode. Default: the first one found of this "
    "Python, PATH, pyenv and uv.",
)
@click.option(
    "--no-bytecode",
    is_flag=True,
    help="Leave the bytecode out: cold starts take more than twice as long.",
)
@click.option(
    "--output",
    default="layer.zip",
    show_default=True,
    metavar="FILE",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="The file to write. An earlier file is replaced.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of the table.")
def layer(
    python: str,
    arch: str,
    asyncio: bool,
    requirements: tuple[str, ...],
    interpreter: Path | None,
    no_bytecode: bool,
    output: Path,
    as_json: bool,
) -> None:
    """
    Build the Lambda layer: psycopg with its libpq, SQLAlchemy, pgvector, tenacity and this lambdadb.

    It can be for another Python and another architecture than this machine's. Its bytecode stays
    valid whatever dates the unzipped files get, so nothing is compiled at a cold start. Tests, C
    sources and lambdadb's lab are left out. The same packages give the same file, byte for byte.

    Packages come as wheels from the index that uv is configured with; the newest that lambdadb
    admits, unless --requirement says otherwise.

    \b
    Examples:
      lambdadb layer
      lambdadb layer --python 3.13 --arch arm64 --output arm64.zip
      lambdadb layer --requirement sqlalchemy==2.1.9 --requirement aws-xray-sdk

    \b
    Exit codes:
      0    the layer is within Lambda's limits
      1    it was written, but is above a limit
      2    nothing was written: a wrong option, no such wheel, no Python of that version, no uv
      130  interrupted by Ctrl-C or SIGTERM; nothing was written
    """
    if interpreter and no_bytecode:
        raise click.UsageError("--interpreter makes bytecode, --no-bytecode wants none: leave out one.")
    check_folder(output.parent)
    target = Target(python=python, architecture=arch)
    try:
        built = build(
            target,
            output,
            requirements=requirements,
            asyncio=asyncio,
            interpreter=None if no_bytecode else find_interpreter(target, interpreter),
            tell=lambda line: click.echo(line, err=True),
        )
    except (LayerError, OSError) as error:
        raise click.UsageError(str(error)) from error
    if as_json:
        fields = {**asdict(built), "file": str(built.file), "problems": built.problems}
        click.echo(json.dumps({**fields, "publish": publish(built)}, indent=2))
    else:
        print_layer(built)
    for problem in built.problems:
        click.echo(f"Error: {problem}", err=True)
    sys.exit(FAILED if built.problems else 0)


def check_folder(folder: Path) -> None:
    """
    See that the folder takes a file, before anything is built for it.

    Raises:
        click.UsageError: There is none, or it takes none.
    """
    if not folder.is_dir():
        raise click.UsageError(f"--output: there is no folder {folder}. Make it first.")
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise click.UsageError(
            f"--output: the folder {folder} cannot be written to ({error.strerror}). Choose another one."
        ) from error


def publish(built: Layer) -> str:
    """The command that makes it a layer of an account."""
    return (
        f"aws lambda publish-layer-version --layer-name lambdadb --zip-file fileb://{built.file} "
        f"--compatible-runtimes python{built.target.python} "
        f"--compatible-architectures {built.target.architecture}"
    )


def print_layer(built: Layer) -> None:
    """What is in it, how large it is, and how to publish it."""
    table = Table(title=f"Layer for Python {built.target.python} on {built.target.architecture}")
    table.add_column("package", no_wrap=True)
    table.add_column("version", no_wrap=True)
    table.add_column("unzipped", justify="right", no_wrap=True)
    for package in built.packages:
        table.add_row(package.name, package.version, mebibytes(package.size))
    table.add_section()
    table.add_row("all", f"limit {mebibytes(UNZIPPED_LIMIT)}", mebibytes(built.unzipped))
    table.add_row("zipped", f"limit {mebibytes(ZIPPED_LIMIT)}", mebibytes(built.zipped))
    Console(markup=False).print(table)
    if built.uncompiled:
        click.echo(f"Modules without bytecode: {len(built.uncompiled)} (--json names them)")
    click.echo(f"Written: {built.file}\nPublish: {publish(built)}")
