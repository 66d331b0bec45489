"""The zigzag of a real cluster's capacity, with its pauses, resumes, connections and invocations."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lambdadb.lab.bench.records import POLICIES, CapacityRecord, Record
from lambdadb.lab.bench.summary import (
    NAMES,
    capacity_of,
    connections_of,
    events_of,
    invocations_of,
    run_of,
    successes,
)

CAPACITY, CONNECTIONS = "#0072B2", "#D55E00"
# The events that are drawn, as a line of this style each.
MARKS = {"paused": ("#56B4E9", "-"), "resuming": ("#E69F00", "--"), "available": ("#009E73", ":")}


def has_capacity(records: Sequence[Record]) -> bool:
    """Whether there is something to draw."""
    return bool(successes(records)) and any(isinstance(record, CapacityRecord) for record in records)


def draw(records: Sequence[Record], styles: dict[str, tuple[str, str]]) -> Figure:
    """
    A panel for each cluster.

    Args:
        styles: Colour and marker of each handler.
    """
    kinds = [kind for kind in run_of(records).clusters if capacity_of(records, kind)]
    zero = min(datetime.fromisoformat(record.timestamp) for record in successes(records))
    figure = Figure(figsize=(12, 3.2 * len(kinds) + 0.9), layout="constrained")
    panels = figure.subplots(len(kinds), 1, sharex=True, squeeze=False)[:, 0]
    for axes, kind in zip(panels, kinds, strict=True):
        panel(axes, records, kind, zero, styles)
    panels[-1].set_xlabel(f"minutes since the first invocation, {zero:%Y-%m-%d %H:%M} UTC")
    entries: dict[str, Artist] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        entries.update(zip(labels, handles, strict=True))
    figure.legend(
        list(entries.values()), list(entries), loc="outside lower center", ncols=5, frameon=False
    )
    return figure


def panel(
    axes: Axes,
    records: Sequence[Record],
    kind: str,
    zero: datetime,
    styles: dict[str, tuple[str, str]],
) -> None:
    """One cluster: capacity at the left, connections at the right, events and invocations marked."""

    def minutes(moment: datetime) -> float:
        return (moment - zero).total_seconds() / 60

    capacity = [(minutes(at), acu) for at, acu in capacity_of(records, kind)]
    times, values = steps(capacity)
    axes.fill_between(times, values, step="post", color=CAPACITY, alpha=0.15)
    axes.step(times, values, where="post", color=CAPACITY, label="capacity (ACU)")
    top = max([1.0, *(acu for _, acu in capacity)])
    axes.set_ylim(0, top * 1.35)
    axes.set_ylabel("ServerlessDatabaseCapacity\n(ACU, average of a minute)", color=CAPACITY)
    axes.set_title(f"{kind} cluster: {run_of(records).clusters[kind]}", fontsize=11)
    beside = axes.twinx()
    connections = connections_of(records, kind)
    at = [minutes(moment) for moment, _ in connections]
    most = [value for _, value in connections]
    beside.plot(at, most, ".", color=CONNECTIONS, markersize=4, label="connections")
    beside.set_ylim(0, 1.35 * max([2.0, *most]))
    beside.set_ylabel("DatabaseConnections\n(most of a minute)", color=CONNECTIONS)
    for moment, event in events_of(records, kind):
        if event in MARKS:
            colour, line = MARKS[event]
            name = f"event: {event}"
            axes.axvline(minutes(moment), color=colour, linestyle=line, linewidth=1.2, label=name)
    for policy in POLICIES:
        if done := invocations_of(records, kind, policy):
            moments = [minutes(datetime.fromisoformat(record.timestamp)) for record in done]
            colour, marker = styles[policy]
            name = f"invocation: {NAMES[policy]}"
            axes.plot(moments, [top * 1.2] * len(moments), marker, color=colour, label=name)


def steps(capacity: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Each minute's value, to the end of its minute; a minute without a value interrupts the line."""
    times: list[float] = []
    values: list[float] = []
    for number, (at, acu) in enumerate(capacity):
        following = capacity[number + 1][0] if number + 1 < len(capacity) else None
        times.append(at)
        values.append(acu)
        if following is None or following - at > 1.01:
            times.append(at + 1)
            values.append(acu if following is None else float("nan"))
    return times, values
