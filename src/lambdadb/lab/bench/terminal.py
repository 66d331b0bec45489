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

from lambdadb.lab.bench.records import InvocationRecord, Record, RunRecord
from lambdadb.lab.bench.summary import (
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
def progress(invocations: int) -> Iterator[Callable[[Record], None]]:
    """Show each record on standard error: a bar on a terminal, else plain lines."""
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

        def show(record: Record) -> None:
            step = 1 if isinstance(record, InvocationRecord) else 0
            bars.update(bar, advance=step, description=told(record) or bars.tasks[0].description)

        yield show


def tell(record: Record) -> None:
    if line := told(record):
        click.echo(line, err=True)


def told(record: Record) -> str:
    """One line about a record; empty for those that are not news."""
    if isinstance(record, RunRecord):
        return label(record)
    if not isinstance(record, InvocationRecord):
        return ""
    what = (
        f"id {record.new_id} in {seconds(record.elapsed)}"
        if record.error is None
        else record.error.partition("\n")[0]
    )
    return f"{record.aurora_type}, {NAMES[record.policy]}, invocation {record.number}: {what}"


def print_table(records: list[Record], out: Path, *, complete: bool) -> None:
    """The figures per cell, on standard output."""
    table = Table(title="Hot and cold Aurora from Lambda", caption=label(run_of(records)))
    for heading in ("cluster", "handler"):
        table.add_column(heading, no_wrap=True)
    # A pipe has no width; a table of a screen's would be cut there.
    console = Console(width=None if sys.stdout.isatty() else 120)
    wide = console.width >= WIDE
    for heading in ("elapsed", "ids", "paused", "errors", *(DETAILS if wide else ())):
        table.add_column(heading, justify="right", no_wrap=True)
    for kind in run_of(records).interval:
        lines = PUBLISHED[kind]["lines"]
        elapsed = seconds(median(line["elapsed"] for line in lines))
        ids = listed([line["new_id"] for line in lines])
        table.add_row(kind, "published", elapsed, ids, style="dim")
        for one in cells(records):
            if one.aurora_type == kind:
                details = (str(one.connects), str(one.retries), known(one.sessions_left))
                table.add_row(kind, NAMES[one.policy], *figures(one), *(details if wide else ()))
        table.add_section()
    console.print(table)
    for cell, message in sorted(
        {(f"{r.aurora_type}, {NAMES[r.policy]}", str(r.error)) for r in failures(records)}
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
