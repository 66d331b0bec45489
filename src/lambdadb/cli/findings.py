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
        parts = [
            ("", finding.problem),
            ("", finding.meaning),
            ("do: ", finding.remedy),
            ("see: ", finding.source),
        ]
        for label, text in parts:
            if text:
                line = Text(label, style="dim").append(
                    Text(text, style="dim" if label == "see: " else "")
                )
                console.print(Padding(line, (0, 0, 0, 9)))


def finding_facts(finding: Finding) -> dict[str, Any]:
    """A finding as JSON has it."""
    return {**asdict(finding), "weight": finding.weight.value}
