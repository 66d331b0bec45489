"""A trace as a picture: what was inside what, when, and for how long."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lambdadb.lab.xray.daemon import Node

# Okabe and Ito's colours, told apart by colour-blind readers.
COLOURS = {"resume": "#E69F00", "wait": "#E69F00", "attempt": "#D55E00", "login": "#F0E442"}
SUCCESS = "#009E73"  # the attempt that logged in
CONNECT, STATEMENT, OTHER = "#0072B2", "#56B4E9", "#BBBBBB"
DPI = 130
LONGEST = 60


def draw(traces: Sequence[tuple[str, Sequence[Node]]], *, width: float = 12.0) -> bytes:
    """The traces below each other as PNG, each with its title, all on one scale."""
    rows = [list(ordered(nodes)) for _, nodes in traces]
    winners = {id(node) for _, nodes in traces for node in winning_attempts(nodes)}
    longest = max(length_of(lines) for lines in rows)
    heights = [0.22 * len(lines) + 0.9 for lines in rows]
    figure = Figure(figsize=(width, sum(heights)), layout="constrained")
    panels = figure.subplots(len(traces), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (title, _), lines in zip(panels, traces, rows, strict=True):
        waterfall(axes, lines, longest, winners)
        axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
    FigureCanvasAgg(figure)
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=DPI)
    return target.getvalue()


def ordered(nodes: Sequence[Node], depth: int = 0) -> Iterator[tuple[int, Node]]:
    """Each with its depth, parents before children."""
    for node in nodes:
        yield depth, node
        yield from ordered(node.children, depth + 1)


def length_of(rows: Sequence[tuple[int, Node]]) -> float:
    """Seconds from the beginning of the first to the end of the last."""
    end = max(float(node.document["end_time"]) for _, node in rows)
    return end - min(float(node.document["start_time"]) for _, node in rows)


def winning_attempts(nodes: Sequence[Node]) -> Iterator[Node]:
    """
    The attempt of each connect that logged in: of those without a fault, the first to end.

    Attempts that were still open then are ended by it, a moment later.
    """
    for _, node in ordered(nodes):
        if is_connect(node) and not node.document.get("fault"):
            attempts = [one for _, one in ordered(node.children) if one.name == "attempt"]
            open_ones = [one for one in attempts if not fault_of(one)]
            if open_ones:
                yield min(open_ones, key=lambda one: float(one.document["end_time"]))


def waterfall(
    axes: Axes, rows: Sequence[tuple[int, Node]], end: float, winners: Collection[int]
) -> None:
    """One line per subsegment: its name at the left, its time as a bar on a scale that is `end` long."""
    zero = min(node.document["start_time"] for _, node in rows)
    unit, factor = ("s", 1.0) if end >= 1 else ("ms", 1000.0)
    for position, (_, node) in enumerate(rows):
        began = (node.document["start_time"] - zero) * factor
        length = (node.document["end_time"] - zero) * factor - began
        axes.barh(
            position,
            max(length, end * factor / 500),
            left=began,
            height=0.72,
            color=colour(node, winners),
        )
        inside = length > 0.12 * end * factor
        axes.annotate(
            time_of(node),
            (began + length / 2 if inside else began + length, position),
            (0 if inside else 4, 0),
            textcoords="offset points",
            ha="center" if inside else "left",
            va="center",
            fontsize=7,
        )
    labels = [label(depth, node, winners) for depth, node in rows]
    axes.set_yticks(range(len(rows)), labels, fontsize=7.5)
    # Left-aligned, so that the indentation shows what is inside what.
    for tick in axes.get_yticklabels():
        tick.set(ha="left", family="monospace")
    axes.tick_params(axis="y", length=0, pad=max(map(len, labels)) * 4.6)
    axes.tick_params(axis="x", labelsize=7.5)
    axes.set_xlim(0, end * factor * 1.08)
    axes.set_xlabel(f"{unit} since the first one began", fontsize=7.5)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)


def is_connect(node: Node) -> bool:
    return (node.document.get("annotations") or {}).get("lambdadb") == "connect"


def fault_of(node: Node) -> str | None:
    """What lambdadb called the fault that ended it."""
    annotations = node.document.get("annotations") or {}
    told = node.document.get("metadata", {}).get("lambdadb", {})
    fault: str | None = annotations.get("fault") or told.get("fault")
    return fault


def colour(node: Node, winners: Collection[int]) -> str:
    if is_connect(node):
        return CONNECT
    if id(node) in winners:
        return SUCCESS
    return COLOURS.get(node.name, STATEMENT if "sql" in node.document else OTHER)


def label(depth: int, node: Node, winners: Collection[int]) -> str:
    """What X-Ray shows when it is selected: the statement, or what was done and why; else its name."""
    document = node.document
    annotations = document.get("annotations") or {}
    outcome = fault_of(node)
    if node.name == "attempt" and outcome is None:
        outcome = "logged in" if id(node) in winners else "no longer needed"
    query = " ".join(str(document.get("sql", {}).get("sanitized_query", "")).split())
    # X-Ray's own instrumentation of SQLAlchemy names the method in an annotation.
    detail = annotations.get("lambdadb") or annotations.get("sqlalchemy") or query or node.name
    text = "  " * depth + detail + (f" ({outcome})" if outcome else "")
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def time_of(node: Node) -> str:
    seconds = node.document["end_time"] - node.document["start_time"]
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.2g} ms"
