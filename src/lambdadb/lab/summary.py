"""What the rows of a benchmark say: figures per cell, and the cold cluster's states over time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from lambdadb.lab.rows import (
    AURORA_TYPES,
    POLICIES,
    Change,
    Invocation,
    Row,
    Run,
    Server,
)

PUBLISHED: dict[str, Any] = json.loads(Path(__file__).with_name("published.json").read_text())
NAMES = {
    "handwritten": "hand-written",
    "defaults": "SQLAlchemy defaults",
    "per_environment": "PerEnvironment",
    "per_invocation": "PerInvocation",
}


@dataclass(frozen=True)
class CellSummary:
    """What one handler did against one cluster."""

    aurora_type: str
    policy: str
    invocations: int
    errors: int
    elapsed_median: float | None
    elapsed_min: float | None
    elapsed_max: float | None
    ids: list[int]
    id_steps: list[int]
    connects: int
    retries: int
    resume_wait: float
    round_trips: float | None
    """Median of the invocations after the first; all of an invocation's, connecting included."""
    sessions_left: int | None
    """The most that the cluster had when the environment was frozen; None: not known."""
    paused_share: float | None
    """0 to 1, over whole intervals between invocations; None: not known."""


def invocations_of(rows: Sequence[Row], aurora_type: str, policy: str) -> list[Invocation]:
    """One cell's invocations, without a failure to set it up."""
    return [
        row
        for row in rows
        if isinstance(row, Invocation)
        and (row.aurora_type, row.policy) == (aurora_type, policy)
        and row.number > 0
    ]


def failures(rows: Sequence[Row]) -> list[Invocation]:
    """The invocations, and the cells, that failed."""
    return [row for row in rows if isinstance(row, Invocation) and row.error is not None]


def cells(rows: Sequence[Row]) -> list[CellSummary]:
    """A summary of each cell that has a row, hot before cold."""
    return [
        cell(rows, kind, policy)
        for kind in AURORA_TYPES
        for policy in POLICIES
        if any(
            isinstance(row, Invocation) and (row.aurora_type, row.policy) == (kind, policy)
            for row in rows
        )
    ]


def cell(rows: Sequence[Row], aurora_type: str, policy: str) -> CellSummary:
    """The summary of one cell."""
    done = invocations_of(rows, aurora_type, policy)
    elapsed = [row.elapsed for row in done if row.elapsed is not None]
    ids = [row.new_id for row in done if row.new_id is not None]
    later = [row.round_trips for row in done[1:] if row.round_trips is not None and not row.error]
    left = [row.sessions_left for row in done if row.sessions_left is not None]
    shares = [row.paused_share for row in done if row.paused_share is not None]
    return CellSummary(
        aurora_type=aurora_type,
        policy=policy,
        invocations=len(done),
        errors=sum((row.aurora_type, row.policy) == (aurora_type, policy) for row in failures(rows)),
        elapsed_median=median(elapsed) if elapsed else None,
        elapsed_min=min(elapsed, default=None),
        elapsed_max=max(elapsed, default=None),
        ids=ids,
        id_steps=[after - before for before, after in pairwise(ids)],
        connects=sum(row.connects or 0 for row in done),
        retries=sum(row.retries or 0 for row in done),
        resume_wait=sum(row.resume_wait or 0.0 for row in done),
        round_trips=median(later) if later else None,
        sessions_left=max(left, default=None),
        paused_share=shares[-1] if shares else None,
    )


def run_of(rows: Sequence[Row]) -> Run:
    return next(row for row in rows if isinstance(row, Run))


def label(run: Run) -> str:
    """How time passed: said wherever a time is shown."""
    if run.speed == 1:
        return "all in real time"
    return f"idle time passed {run.speed:g} times as fast; connects, resumes and statements in real time"


def summary(rows: Sequence[Row], *, complete: bool) -> dict[str, Any]:
    """What summary.json holds; `complete` is False when the run was interrupted."""
    run = run_of(rows)
    servers = sorted(
        {
            json.dumps({"aurora_type": row.aurora_type, **row.versions})
            for row in rows
            if isinstance(row, Server)
        }
    )
    return {
        "complete": complete,
        "time": label(run),
        "run": asdict(run),
        "servers": [json.loads(server) for server in servers],
        "cells": [asdict(one) for one in cells(rows)],
        "published": PUBLISHED,
    }


def timeline(rows: Sequence[Row], policy: str) -> list[tuple[str, float, float]]:
    """The cold cluster's states as (state, begin, end) in lab seconds, over the measured time."""
    done = invocations_of(rows, "cold", policy)
    if not done:
        return []
    end = done[-1].at + (done[-1].elapsed or 0.0)
    changes = [
        row
        for row in rows
        if isinstance(row, Change)
        and (row.aurora_type, row.policy) == ("cold", policy)
        and row.kind in ("paused", "resuming", "available")
    ]
    state, begin, spans = "paused", done[0].at, []
    for change in [*changes, None]:
        at = end if change is None else min(max(change.at, done[0].at), end)
        if at > begin:
            spans.append((state, begin, at))
        state, begin = (change.kind if change else state), max(at, begin)
    return spans


def seconds(value: float | None) -> str:
    """A duration to three digits that mean something."""
    if value is None:
        return "n/a"
    return (
        f"{value:.1f} s"
        if value >= 9.95
        else f"{value:.2f} s"
        if value >= 1
        else (f"{value * 1000:.0f} ms" if value else "0")
    )


def listed(values: Sequence[int]) -> str:
    """The first values of a row of numbers."""
    return ", ".join(str(value) for value in values[:4]) + (", …" if len(values) > 4 else "")


def known(value: float | None) -> str:
    return "n/a" if value is None else f"{value:g}"


def percent(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.0%}"
