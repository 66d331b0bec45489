"""What a running benchmark and its result look like on a terminal, or in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from lambdadb.lab.rows import Invocation, Row, Run
from lambdadb.lab.summary import (
    NAMES,
    PUBLISHED,
    CellSummary,
    cells,
    failures,
    known,
    label,
    listed,
    percent,
    run_of,
    seconds,
)

WIDE = 104  # columns of a terminal from which on all figures fit in a line
DETAILS = ("connects", "retries", "left")


@contextmanager
def progress(invocations: int) -> Iterator[Callable[[Row], None]]:
    """Show each row on standard error: a bar on a terminal, else plain lines."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield tell
        return
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        bar = bars.add_task("starting the servers", total=invocations)

        def show(row: Row) -> None:
            step = 1 if isinstance(row, Invocation) else 0
            bars.update(bar, advance=step, description=told(row) or bars.tasks[0].description)

        yield show


def tell(row: Row) -> None:
    if line := told(row):
        click.echo(line, err=True)


def told(row: Row) -> str:
    """One line about a row; empty for those that are not news."""
    if isinstance(row, Run):
        return label(row)
    if not isinstance(row, Invocation):
        return ""
    what = (
        f"id {row.new_id} in {seconds(row.elapsed)}"
        if row.error is None
        else row.error.partition("\n")[0]
    )
    return f"{row.aurora_type}, {NAMES[row.policy]}, invocation {row.number}: {what}"


def print_table(rows: list[Row], out: Path, *, complete: bool) -> None:
    """The figures per cell, on standard output."""
    table = Table(title="Hot and cold Aurora from Lambda", caption=label(run_of(rows)))
    for heading in ("cluster", "handler"):
        table.add_column(heading, no_wrap=True)
    # A pipe has no width; a table of a screen's would be cut there.
    console = Console(width=None if sys.stdout.isatty() else 120)
    wide = console.width >= WIDE
    for heading in ("elapsed", "ids", "paused", "errors", *(DETAILS if wide else ())):
        table.add_column(heading, justify="right", no_wrap=True)
    for kind in run_of(rows).interval:
        lines = PUBLISHED[kind]["lines"]
        elapsed = seconds(median(line["elapsed"] for line in lines))
        ids = listed([line["new_id"] for line in lines])
        table.add_row(kind, "published", elapsed, ids, style="dim")
        for one in cells(rows):
            if one.aurora_type == kind:
                details = (str(one.connects), str(one.retries), known(one.sessions_left))
                table.add_row(kind, NAMES[one.policy], *figures(one), *(details if wide else ()))
        table.add_section()
    console.print(table)
    for cell, message in sorted(
        {(f"{r.aurora_type}, {NAMES[r.policy]}", str(r.error)) for r in failures(rows)}
    ):
        console.print(f"Error: {cell}: {message}", markup=False)
    if not complete:
        console.print("Interrupted: this is what was measured until then.")
    console.print(f"Report: {out / 'report.html'}", markup=False, soft_wrap=True)


def figures(one: CellSummary) -> tuple[str, ...]:
    return (
        seconds(one.elapsed_median),
        listed(one.ids),
        percent(one.paused_share),
        str(one.errors),
    )
