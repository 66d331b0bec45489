"""The report's pictures: elapsed, id steps, and when the cold cluster was paused."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from lambdadb.lab.bench import zigzag
from lambdadb.lab.bench.records import POLICIES, Record
from lambdadb.lab.bench.summary import (
    NAMES,
    PUBLISHED,
    CellSummary,
    cells,
    invocations_of,
    label,
    percent,
    run_of,
    seconds,
    timeline,
)

# Okabe and Ito's colours, told apart by colour-blind readers; markers differ as well.
STYLE = {
    "hand_written": ("#0072B2", "o"),
    "sqlalchemy_default": ("#D55E00", "s"),
    "per_environment": ("#009E73", "^"),
    "per_invocation": ("#CC79A7", "v"),
    "data_api": ("#E69F00", "P"),
}
STATES = {"paused": ("#56B4E9", ""), "resuming": ("#F0E442", "///"), "available": ("#999999", "")}
DPI = 130
BESIDE: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 8}
"""A text beside a bar."""
SOURCE = "published, January 2025"


def draw(records: Sequence[Record]) -> dict[str, bytes]:
    """All pictures as PNG, by file name; one that has nothing to show is left out."""
    pictures = {}
    if any(timeline(records, policy) for policy in POLICIES) and run_of(records).auto_pause is not None:
        pictures["paused.png"] = paused(records)
    if zigzag.has_capacity(records):
        pictures["capacity.png"] = png(zigzag.draw(records, STYLE), records)
    return {**pictures, "elapsed.png": elapsed(records), "id-steps.png": id_steps(records)}


def elapsed(records: Sequence[Record]) -> bytes:
    """Seconds of each invocation, hot and cold on one scale, beside the published ones."""
    kinds = list(run_of(records).interval)
    figure, panels = panels_of(kinds)
    for axes, kind in zip(panels, kinds, strict=True):
        most = 2
        for position, policy in enumerate(POLICIES):
            done = [
                record for record in invocations_of(records, kind, policy) if record.elapsed is not None
            ]
            colour, marker = STYLE[policy]
            # Set apart a little: equal values would hide each other.
            x = [record.number + (position - 2) * 0.12 for record in done]
            y = [record.elapsed for record in done if record.elapsed is not None]
            axes.plot(x, y, marker, color=colour, label=NAMES[policy], markersize=7)
            most = max([most, *(record.number for record in done)])
        for number, line in enumerate(lines_of(kind), start=1):
            point = (number + 0.38, line["elapsed"])
            name = SOURCE if number == 1 else None
            axes.plot(*point, "D", color="black", fillstyle="none", label=name, markersize=7)
            axes.annotate(
                seconds(line["elapsed"]),
                point,
                (0, 8),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
        numbered(axes, most)
        axes.set_yscale("log")
        axes.set_ylim(0.001, 100)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_title("steady traffic" if kind == "steady" else f"{kind} cluster")
    panels[0].set_ylabel("elapsed: connect to COMMIT\n(seconds, log scale)")
    legend(figure, panels[0])
    return png(figure, records)


def lines_of(kind: str) -> list[dict[str, Any]]:
    """The published log lines of a cluster; none of steady traffic."""
    lines: list[dict[str, Any]] = PUBLISHED.get(kind, {}).get("lines", [])
    return lines


def id_steps(records: Sequence[Record]) -> bytes:
    """How far the serial id moved on, between one invocation and the next."""
    kinds = [kind for kind in run_of(records).interval if kind in PUBLISHED]
    figure, panels = panels_of(kinds)
    top = 40.0  # the published steps are 1 and 33
    for axes, kind in zip(panels, kinds, strict=True):
        most = 2
        for position, policy in enumerate(POLICIES):
            done = [
                record for record in invocations_of(records, kind, policy) if record.new_id is not None
            ]
            steps = [(b.new_id or 0) - (a.new_id or 0) for a, b in pairwise(done)]
            x = [record.number + (position - 2) * 0.16 for record in done[1:]]
            axes.bar(x, steps, 0.14, color=STYLE[policy][0], label=NAMES[policy])
            for where, step in zip(x, steps, strict=True):
                axes.annotate(
                    str(step),
                    (where, step),
                    (0, 5),
                    textcoords="offset points",
                    ha="center",
                    fontsize=8,
                )
            most = max([most, *(record.number for record in done)])
            top = max([top, *(step * 1.2 for step in steps)])
        ids = [line["new_id"] for line in PUBLISHED[kind]["lines"]]
        axes.axhline(ids[1] - ids[0], color="black", linestyle="--", linewidth=1, label=SOURCE)
        numbered(axes, most, first=2)
        axes.set_title(f"{kind} cluster")
    panels[0].set_ylim(0, top)  # for all panels: they share it
    panels[0].set_ylabel("id step since the\nlast invocation that succeeded")
    legend(figure, panels[0])
    return png(figure, records)


def paused(records: Sequence[Record]) -> bytes:
    """When each cold cluster was paused, and beside it what steady traffic costs each handler."""
    policies = [policy for policy in POLICIES if timeline(records, policy)]
    shares = {one.policy: one.paused_share for one in cells(records) if one.aurora_type == "cold"}
    steady = {one.policy: one for one in cells(records) if one.aurora_type == "steady"}
    figure = Figure(figsize=(12, 0.75 * len(policies) + 2.1), layout="constrained")
    if steady:
        axes, beside = figure.subplots(1, 2, sharey=True, width_ratios=(1.6, 1))
        cost_bars(beside, policies, steady)
        interval = run_of(records).interval["steady"]
        beside.set_title(f"steady traffic: an invocation every {interval:g} s", fontsize=11)
    else:
        axes = figure.subplots()
    for position, policy in enumerate(policies):
        state_bar(axes, position, records, policy)
    axes.set_yticks(range(len(policies)))
    axes.set_yticklabels(
        [f"{NAMES[policy]}\npaused: {percent(shares.get(policy))}" for policy in policies]
    )
    axes.invert_yaxis()
    axes.margins(x=0.01)
    axes.set_xlabel("minutes since the first invocation (▼ = an invocation)")
    interval = run_of(records).interval["cold"]
    axes.set_title(f"{PUBLISHED['name']}: every {interval / 60:g} minutes, cold cluster", fontsize=11)
    handles = [
        Patch(facecolor=colour, hatch=hatch, edgecolor="black", linewidth=0.4, label=state)
        for state, (colour, hatch) in STATES.items()
    ]
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, frameon=False)
    return png(figure, records)


def cost_bars(axes: Axes, policies: Sequence[str], steady: Mapping[str, CellSummary]) -> None:
    """A bar for each handler: round trips of an invocation, with what its logins were."""
    for position, policy in enumerate(policies):
        one = steady.get(policy)
        if one is not None and one.calls is not None:
            axes.annotate(f"{one.calls:g} calls of the Data API", (0, position), (5, 0), **BESIDE)
        if one is None or one.round_trips is None:
            continue
        axes.barh(position, one.round_trips, 0.5, color=STYLE[policy][0])
        logins = f"{one.connects} login{'s' if one.connects != 1 else ''} in {one.invocations}"
        text = f"{one.round_trips:g} round trips,\n{logins} invocations"
        axes.annotate(text, (one.round_trips, position), (5, 0), **BESIDE)
    # Room for the text beside the longest bar.
    longest = max([1.0, *(one.round_trips or 0.0 for one in steady.values())])
    axes.set_xlim(0, longest * 1.75)
    axes.set_xlabel("round trips of an invocation, median, login included")
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right"]].set_visible(False)


def state_bar(axes: Axes, position: int, records: Sequence[Record], policy: str) -> None:
    """One cluster's states as a bar, in minutes, and a mark for each invocation."""
    done = invocations_of(records, "cold", policy)
    zero = done[0].at
    for state, begin, end in timeline(records, policy):
        colour, hatch = STATES[state]
        span = [((begin - zero) / 60, (end - begin) / 60)]
        axes.broken_barh(
            span,
            (position - 0.32, 0.64),
            facecolors=colour,
            hatch=hatch,
            edgecolor="black",
            linewidth=0.4,
        )
    axes.plot(
        [(record.at - zero) / 60 for record in done],
        [position - 0.42] * len(done),
        "v",
        color="black",
        markersize=6,
        clip_on=False,
    )


def panels_of(kinds: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """A figure with a panel per cluster, hot at the left, on one scale."""
    figure = Figure(figsize=(6 * len(kinds), 4.4), layout="constrained")
    panels: list[Axes] = []
    for number in range(len(kinds)):
        share = panels[0] if panels else None
        panels.append(figure.add_subplot(1, len(kinds), number + 1, sharey=share))
        panels[-1].grid(axis="y", color="#dddddd", linewidth=0.6)
        panels[-1].set_axisbelow(True)
    return figure, panels


def numbered(axes: Axes, most: int, *, first: int = 1) -> None:
    axes.set_xlim(first - 0.6, most + 0.6)
    # At most about ten numbers, however many invocations.
    axes.set_xticks(range(first, most + 1, most // 10 + 1))
    axes.set_xlabel("invocation")


def legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)


def png(figure: Figure, records: Sequence[Record]) -> bytes:
    figure.suptitle(label(run_of(records)), fontsize=9, color="#444444", x=0.01, ha="left")
    FigureCanvasAgg(figure)
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=DPI)
    return target.getvalue()
