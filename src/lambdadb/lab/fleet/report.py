"""The table and the picture of fleets."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lambdadb.lab.fleet.clients import CLIENTS
from lambdadb.lab.fleet.server import ServerSettings
from lambdadb.lab.fleet.simulation import FleetResult, FleetSettings, Simulation
from lambdadb.policy import PerEnvironment, PerInvocation, Policy

POLICIES: dict[str, Policy] = {"per-environment": PerEnvironment(), "per-invocation": PerInvocation()}
COLOUR = "#0072B2"
BIN = 0.02  # seconds: the most sessions in each are drawn


@dataclass(frozen=True)
class Row:
    """One fleet's figures: counts, and seconds."""

    served: int
    failed: int
    attempts: int
    wasted: int
    """Attempts beyond one for each session."""
    peak_attempts: int
    """The most attempts in one second, on one database."""
    wait_median: float
    wait_99: float
    after_resume: float
    """Seconds from the end of the resume until the last session was opened."""


def row_of(results: Sequence[FleetResult]) -> Row:
    """Return the figures of fleets on databases of their own, taken together."""
    waits = sorted(wait for result in results for wait in result.waits)
    return Row(
        served=sum(result.served for result in results),
        failed=sum(result.failed for result in results),
        attempts=sum(result.attempts for result in results),
        wasted=sum(result.wasted for result in results),
        peak_attempts=max(result.peak_attempts for result in results),
        wait_median=_share(waits, 0.5),
        wait_99=_share(waits, 0.99),
        after_resume=max(result.after_resume for result in results),
    )


def simulate(
    fleet: FleetSettings, server: ServerSettings, client: str, policy: str, clusters: int = 1
) -> list[FleetResult]:
    """Simulate a fleet that is divided among databases, on all processors of this machine."""
    each = ceil(fleet.environments / clusters)
    sizes = [min(each, fleet.environments - start) for start in range(0, fleet.environments, each)]
    jobs = [
        (
            replace(
                fleet,
                environments=size,
                seed=fleet.seed + number,
                starts_per_second=fleet.starts_per_second * size / fleet.environments,
            ),
            server,
            client,
            policy,
            clusters == 1,
        )
        for number, size in enumerate(sizes)
    ]
    if clusters == 1:
        return [_simulate_one(jobs[0])]
    with ProcessPoolExecutor() as executor:
        return list(executor.map(_simulate_one, jobs, chunksize=ceil(len(jobs) / 64)))


def _simulate_one(job: tuple[FleetSettings, ServerSettings, str, str, bool]) -> FleetResult:
    fleet, server, client, policy, with_timeline = job
    result = Simulation(fleet, server, CLIENTS[client], POLICIES[policy]).run()
    return result if with_timeline else replace(result, timeline=[])


def draw(results: Mapping[str, FleetResult], slots: int) -> bytes:
    """Draw the sessions over time, a row for each client, as SVG."""
    figure = Figure(figsize=(8, 0.5 + 0.75 * len(results)), layout="constrained")
    FigureCanvasAgg(figure)
    rows: Any = figure.subplots(len(results), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, (name, result) in zip(rows, results.items(), strict=True):
        most: dict[float, int] = {}
        for moment, count in result.timeline:
            most[moment // BIN * BIN] = max(count, most.get(moment // BIN * BIN, 0))
        axes.fill_between(list(most), list(most.values()), step="post", color=COLOUR, linewidth=0.0)
        axes.axhline(slots, color="black", linewidth=0.8, linestyle=":")
        axes.set_ylabel(name, rotation=0, ha="right", va="center", labelpad=6)
        told = f"{result.served:,} served" + f", {result.failed:,} failed" * bool(result.failed)
        axes.annotate(told, (1.0, 0.5), xycoords="axes fraction", ha="right", va="center", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    moments = [moment for result in results.values() for moment, _ in result.timeline]
    first, last = (min(moments), max(moments)) if moments else (0.0, 1.0)
    # Room on the right for the words.
    rows[-1].set_xlim(max(first - 1.0, 0.0), last + 0.25 * (last - first))
    rows[0].set_ylim(0, slots * 1.1)
    rows[0].set_yticks([0, slots])
    figure.align_ylabels(rows)
    rows[-1].set_xlabel("seconds since the first environment started (dotted: the slots)")
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def _share(values: Sequence[float], share: float) -> float:
    return values[min(len(values) - 1, int(len(values) * share))] if values else 0.0
