"""How findings look on a terminal and as JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from lambdadb.operate.checks import Finding, Weight

STYLES = {Weight.CRITICAL: "bold red", Weight.WARNING: "bold yellow", Weight.NOTE: "cyan"}
WIDTH_IN_PIPES = 120
INDENT = (0, 0, 0, 9)


def make_console() -> Console:
    """Standard output. A pipe has no width, and a table of a screen's width would be cut there."""
    width = None if sys.stdout.isatty() else WIDTH_IN_PIPES
    return Console(width=width, markup=False, highlight=False)


def print_findings(console: Console, findings: Sequence[Finding]) -> None:
    """Each finding: weight and rule, what was seen, what it means, what to do, the source."""
    for finding in findings:
        head = Text(f"{finding.weight.value.upper():<9}", style=STYLES[finding.weight])
        head.append(f"{finding.name}", style="bold")
        console.print(head)
        for text in (finding.problem, finding.meaning):
            if text:
                console.print(Padding(Text(text), INDENT))
        if finding.remedy:  # not wrapped, so that a command can be copied
            line = Text(" " * INDENT[3]).append("do: ", style="dim").append(finding.remedy)
            console.print(line, soft_wrap=True)
        if finding.source:
            console.print(Padding(Text(f"see: {finding.source}", style="dim"), INDENT))


def finding_facts(finding: Finding) -> dict[str, Any]:
    """A finding as JSON has it."""
    return {**asdict(finding), "weight": finding.weight.value}
