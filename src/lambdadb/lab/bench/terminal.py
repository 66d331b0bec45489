"""What a running benchmark and its result look like on a terminal, or in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from lambdadb.lab.bench.records import InvocationRecord, Record, RunRecord
from lambdadb.lab.bench.summary import (
    NAMES,
    PUBLISHED,
    CellSummary,
    cells,
    counted,
    emulated_of,
    failures,
    known,
    label,
    listed,
    notes_of,
    percent,
    run_of,
    seconds,
)

# The columns after the first two; where they do not fit, the last ones are left out.
COLUMNS: dict[str, Callable[[CellSummary], str]] = {
    "elapsed": lambda one: seconds(one.elapsed_median),
    "ids": lambda one: listed(one.ids),
    "paused": lambda one: percent(one.paused_share),
    "errors": lambda one: str(one.errors),
    "trips": lambda one: known(one.round_trips),
    "calls": lambda one: counted(one.calls),
    "connects": lambda one: str(one.connects),
    "retries": lambda one: str(one.retries),
    "left": lambda one: known(one.sessions_left),
}


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
        TextColumn("{task.description}", markup=False),
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
    which = f"invocation {record.number}" if record.number else record.timestamp
    return f"{record.aurora_type}, {NAMES[record.policy]}, {which}: {what}"


def print_table(
    records: list[Record], out: Path | None, *, complete: bool, beside: Sequence[Record] = ()
) -> None:
    """
    The figures per cell, and where the report is, on standard output.

    Args:
        out: The report's folder; None: it was not written.
        complete: False when the run was interrupted.
        beside: The records of another run, whose table comes below.
    """
    # A pipe has no width; a table of a screen's would be cut there.
    console = Console(width=None if sys.stdout.isatty() else 120, markup=False, highlight=False)
    left_out: list[str] = []
    for of_run in (records, list(beside)) if beside else (records,):
        table, left_out = fitting_table(of_run, console)
        console.print(table)
    if left_out:
        console.print(
            f"Left out, as they do not fit into {console.width} columns: {', '.join(left_out)}. "
            "summary.json has them."
        )
    for message, where in grouped_errors(records).items():
        console.print(f"Error: {'; '.join(where)}: {message}")
    for name, how in emulated_of(run_of(records)):
        console.print(f"Emulated: {name}: {how}")
    for note in notes_of(records):
        console.print(f"Note: {note}")
    if not complete:
        console.print("Interrupted: this is what was measured until then.")
    if out is not None:
        console.print(f"Report: {out / 'report.html'}", soft_wrap=True)


def fitting_table(records: list[Record], console: Console) -> tuple[Table, list[str]]:
    """The table with as many columns as fit, and the names of those that do not."""
    wanted = list(COLUMNS)
    left_out: list[str] = []
    unlimited = console.options.update(max_width=1000)
    while True:
        table = table_of(records, wanted)
        if Measurement.get(console, unlimited, table).maximum <= console.width or not wanted:
            return table, left_out
        left_out.insert(0, wanted.pop())


def table_of(records: list[Record], wanted: Sequence[str]) -> Table:
    run = run_of(records)
    caption = f"{label(run)}\n{PUBLISHED['name']}, Aurora PostgreSQL 16.6"
    title = f"Hot and cold Aurora from {run.place}{', emulated' if run.emulated else ''}"
    table = Table(title=title, caption=caption, box=SIMPLE_HEAD)
    for heading in ("cluster", "handler"):
        table.add_column(heading, no_wrap=True)
    for heading in wanted:
        table.add_column(heading, justify="right", no_wrap=True)
    for kind in run.interval:
        if kind in PUBLISHED:
            lines = PUBLISHED[kind]["lines"]
            known_ones = {
                "elapsed": seconds(median(line["elapsed"] for line in lines)),
                "ids": listed([line["new_id"] for line in lines]),
            }
            cells_of = [known_ones.get(heading, "") for heading in wanted]
            table.add_row(kind, "published", *cells_of, style="dim")
        for one in cells(records):
            if one.aurora_type == kind:
                table.add_row(kind, NAMES[one.policy], *(COLUMNS[name](one) for name in wanted))
        table.add_section()
    return table


def grouped_errors(records: list[Record]) -> dict[str, list[str]]:
    """Each message once, with the cells that it came from."""
    found: dict[str, list[str]] = {}
    for failure in failures(records):
        where = f"{failure.aurora_type}, {NAMES[failure.policy]}"
        places = found.setdefault(str(failure.error), [])
        if where not in places:
            places.append(where)
    return found
