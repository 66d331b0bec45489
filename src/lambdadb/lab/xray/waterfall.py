"""A trace as a picture: what was inside what, when, and for how long."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lambdadb.lab.xray.daemon import Node

# Okabe and Ito's colours, told apart by colour-blind readers.
COLOURS = {"resume": "#E69F00", "wait": "#E69F00", "attempt": "#D55E00", "login": "#F0E442"}
CONNECT, STATEMENT, OTHER = "#0072B2", "#56B4E9", "#BBBBBB"
DPI = 130
LONGEST = 60


def draw(traces: Sequence[tuple[str, Sequence[Node]]], *, width: float = 12.0) -> bytes:
    """The traces below each other as PNG, each with its title and a scale of its own."""
    rows = [list(ordered(nodes)) for _, nodes in traces]
    heights = [0.22 * len(lines) + 0.9 for lines in rows]
    figure = Figure(figsize=(width, sum(heights)), layout="constrained")
    panels = figure.subplots(len(traces), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (title, _), lines in zip(panels, traces, rows, strict=True):
        waterfall(axes, lines)
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


def waterfall(axes: Axes, rows: Sequence[tuple[int, Node]]) -> None:
    """One line per subsegment: its name at the left, its time as a bar."""
    zero = min(node.document["start_time"] for _, node in rows)
    end = max(node.document["end_time"] for _, node in rows) - zero
    unit, factor = ("s", 1.0) if end >= 1 else ("ms", 1000.0)
    for position, (_, node) in enumerate(rows):
        began = (node.document["start_time"] - zero) * factor
        length = (node.document["end_time"] - zero) * factor - began
        axes.barh(position, max(length, end * factor / 500), left=began, height=0.72, color=colour(node))
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
    axes.set_yticks(range(len(rows)), [label(depth, node) for depth, node in rows], fontsize=7.5)
    # Left-aligned, so that the indentation shows what is inside what.
    for tick in axes.get_yticklabels():
        tick.set(ha="left", family="monospace")
    longest = max(len(label(depth, node)) for depth, node in rows)
    axes.tick_params(axis="y", length=0, pad=longest * 4.6)
    axes.tick_params(axis="x", labelsize=7.5)
    axes.set_xlim(0, end * factor * 1.08)
    axes.set_xlabel(f"{unit} since the first one began", fontsize=7.5)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)


def colour(node: Node) -> str:
    if (node.document.get("annotations") or {}).get("lambdadb") == "connect":
        return CONNECT
    return COLOURS.get(node.name, STATEMENT if "sql" in node.document else OTHER)


def label(depth: int, node: Node) -> str:
    """What X-Ray shows when it is selected: the statement, or what was done and why; else its name."""
    document = node.document
    annotations = document.get("annotations") or {}
    fault = annotations.get("fault") or document.get("metadata", {}).get("lambdadb", {}).get("fault")
    query = " ".join(str(document.get("sql", {}).get("sanitized_query", "")).split())
    # X-Ray's own instrumentation of SQLAlchemy names the method in an annotation.
    detail = annotations.get("lambdadb") or annotations.get("sqlalchemy") or query or node.name
    text = "  " * depth + detail + (f" ({fault})" if fault else "")
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def time_of(node: Node) -> str:
    seconds = node.document["end_time"] - node.document["start_time"]
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.2g} ms"
