"""The records of a run in memory and in a file, and what is made of them at its end."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from lambdadb.lab.bench import report
from lambdadb.lab.bench.records import Record, as_line, read
from lambdadb.lab.bench.summary import failures, successes, summary
from lambdadb.lab.bench.terminal import print_table

FAILED, INTERRUPTED = 1, 130
LASTING, UNFINISHED = "results.jsonl", "unfinished.jsonl"
# Bytes written before a run to see that the folder takes its report: more than a report has.
PROBE = 4_000_000


class Results:
    """
    All records, in memory and in a file, line by line; a file that fails loses no record in memory.

    A run without one success never replaces an earlier report: its lines stay in `unfinished.jsonl`.

    Args:
        folder: Where the files are.
        beside: The records of another run, for the report.
    """

    def __init__(self, folder: Path, beside: Sequence[Record] = ()) -> None:
        self.folder = folder
        self.file = folder / UNFINISHED
        self.records: list[Record] = []
        self.beside = beside
        self.missing: list[str] = []

    def add(self, record: Record) -> None:
        """Keep a record, here and in the file."""
        self.records.append(record)
        if self.missing:
            return
        try:
            with self.file.open("w" if len(self.records) == 1 else "a") as file:
                file.write(as_line(record) + "\n")
        except OSError as error:
            self.missing.append(f"{self.file}, from line {len(self.records)} on: {error.strerror}")

    def replace(self, records: Sequence[Record]) -> None:
        """Have these records in place of those so far, in their order; the file changes at once."""
        self.records = list(records)
        new = self.file.with_suffix(".new")
        try:
            new.write_text("".join(as_line(record) + "\n" for record in records))
            new.replace(self.file)
        except OSError as error:
            self.missing.append(f"{self.file}: {error.strerror}")

    def finish(self, *, complete: bool) -> bool:
        """Write the report, unless an earlier one is worth more; says whether it was written."""
        lasting = self.folder / LASTING
        if not successes(self.records) and lasting.exists():
            self.missing.append(
                f"a report: no invocation succeeded, so the earlier one in {self.folder} is kept. The "
                f"lines of this run are in {self.file}"
            )
            return False
        if not self.missing:
            try:
                self.file.replace(lasting)
            except OSError as error:
                self.missing.append(f"{lasting}: {error.strerror}")
        self.missing += report.write(self.records, self.folder, complete=complete, beside=self.beside)
        return True


def finish(results: Results, *, complete: bool, as_json: bool) -> int:
    """Write and print the results, and give the exit code."""
    written = results.finish(complete=complete)
    if as_json:
        facts = summary(results.records, complete=complete, beside=results.beside)
        click.echo(json.dumps(facts, indent=2))
    else:
        folder = results.folder if written else None
        print_table(results.records, folder, complete=complete, beside=results.beside)
    for line in results.missing:
        click.echo(f"Not written: {line}", err=True)
    if not complete:
        return INTERRUPTED
    return FAILED if results.missing or failures(results.records) else 0


def read_results(folder: Path, name: str = LASTING) -> list[Record]:
    """
    The records that are in a file of a folder; none where there is no such file.

    Raises:
        click.UsageError: It has a line that is none of this version's.
    """
    try:
        return read(folder / name)
    except (OSError, ValueError) as error:
        raise click.UsageError(
            f"{folder / name} cannot be read: {error}. Choose another folder, or move it away."
        ) from error


def probe(folder: Path) -> None:
    """
    See that the folder takes a report, before anything is measured for it.

    Raises:
        click.UsageError: It does not.
    """
    file = folder / ".probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            file.write_bytes(bytes(PROBE))
        finally:
            file.unlink(missing_ok=True)
    except OSError as error:
        raise click.UsageError(
            f"--out {folder} cannot be written ({error.strerror}), so the results would be lost; "
            "nothing was run. Choose another folder."
        ) from error


def confirm(what: str, *, yes: bool) -> None:
    """
    Ask whether to go on, unless that was said with --yes.

    Args:
        what: What would happen, for the error where there is no terminal to ask on.

    Raises:
        click.UsageError: No, or there is no terminal.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{what}, and there is no terminal to ask on: add --yes to agree.")
    if not click.confirm("Go on?", err=True):
        raise click.UsageError("Nothing was run.")
