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
# Okabe and Ito's colours, told apart by colour-blind readers; the kinds of line differ as well.
STYLES = [
    (colour, line) for line in ("-", "--") for colour in ("#009E73", "#D55E00", "#0072B2", "#CC79A7")
]


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
    """Draw the sessions over time, a line for each client, as SVG."""
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots()
    for (name, result), (colour, line) in zip(results.items(), STYLES * 9, strict=False):
        moments = [0.0, *(moment for moment, _ in result.timeline)]
        counts = [0, *(count for _, count in result.timeline)]
        axes.step(moments, counts, where="post", label=name, color=colour, linestyle=line)
    axes.axhline(slots, color="black", linewidth=0.8, linestyle=":")
    axes.annotate(f"{slots} slots", (0.0, slots), (4, 3), textcoords="offset points", fontsize=9)
    axes.set_xlabel("seconds since the first environment started")
    axes.set_ylabel("open sessions")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def _share(values: Sequence[float], share: float) -> float:
    return values[min(len(values) - 1, int(len(values) * share))] if values else 0.0
