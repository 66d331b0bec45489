"""What the records of a benchmark say: figures per cell, and the cold cluster's states over time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from lambdadb.lab.bench.records import (
    AURORA_TYPES,
    POLICIES,
    CapacityRecord,
    ChangeRecord,
    ConnectionsRecord,
    EventRecord,
    InvocationRecord,
    NoteRecord,
    Record,
    RunRecord,
    ServerRecord,
)

PUBLISHED: dict[str, Any] = json.loads(Path(__file__).with_name("published.json").read_text())
NAMES = {
    "hand_written": "hand-written",
    "sqlalchemy_default": "SQLAlchemy default",
    "per_environment": "PerEnvironment",
    "per_invocation": "PerInvocation",
    "data_api": "Data API",
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
    calls: float | None
    """Of the Data API: median of the invocations after the first; None: another handler."""
    request_cost: float | None
    """Of the Data API's requests in a million such invocations, in USD; None: another handler."""
    paused_share: float | None
    """0 to 1, over whole intervals between invocations; None: not known."""


def invocations_of(records: Sequence[Record], aurora_type: str, policy: str) -> list[InvocationRecord]:
    """One cell's invocations, without a failure to set it up."""
    return [
        record
        for record in records
        if isinstance(record, InvocationRecord)
        and (record.aurora_type, record.policy) == (aurora_type, policy)
        and record.number > 0
    ]


def failures(records: Sequence[Record]) -> list[InvocationRecord]:
    """The invocations, and the cells, that failed."""
    return [
        record for record in records if isinstance(record, InvocationRecord) and record.error is not None
    ]


def successes(records: Sequence[Record]) -> list[InvocationRecord]:
    """The invocations that stored their row."""
    return [
        record for record in records if isinstance(record, InvocationRecord) and record.error is None
    ]


def cells(records: Sequence[Record]) -> list[CellSummary]:
    """A summary of each cell that has a record, hot before cold."""
    return [
        cell(records, kind, policy)
        for kind in AURORA_TYPES
        for policy in POLICIES
        if any(
            isinstance(record, InvocationRecord)
            and (record.aurora_type, record.policy) == (kind, policy)
            for record in records
        )
    ]


def cell(records: Sequence[Record], aurora_type: str, policy: str) -> CellSummary:
    """The summary of one cell."""
    done = invocations_of(records, aurora_type, policy)
    elapsed = [record.elapsed for record in done if record.elapsed is not None]
    ids = [record.new_id for record in done if record.new_id is not None]
    later = [
        record.round_trips for record in done[1:] if record.round_trips is not None and not record.error
    ]
    calls = [record.calls for record in done[1:] if record.calls is not None and not record.error]
    price = next((one.data_api_price for one in records if isinstance(one, RunRecord)), None)
    left = [record.sessions_left for record in done if record.sessions_left is not None]
    shares = [record.paused_share for record in done if record.paused_share is not None]
    return CellSummary(
        aurora_type=aurora_type,
        policy=policy,
        invocations=len(done),
        errors=sum(
            (record.aurora_type, record.policy) == (aurora_type, policy) for record in failures(records)
        ),
        elapsed_median=median(elapsed) if elapsed else None,
        elapsed_min=min(elapsed, default=None),
        elapsed_max=max(elapsed, default=None),
        ids=ids,
        id_steps=[after - before for before, after in pairwise(ids)],
        connects=sum(record.connects or 0 for record in done),
        retries=sum(record.retries or 0 for record in done),
        resume_wait=sum(record.resume_wait or 0.0 for record in done),
        round_trips=median(later) if later else None,
        sessions_left=max(left, default=None),
        calls=median(calls) if calls else None,
        request_cost=median(calls) * price if calls and price is not None else None,
        paused_share=shares[-1] if shares else paused_share_of(records, aurora_type, done),
    )


def capacity_of(records: Sequence[Record], aurora_type: str) -> list[tuple[datetime, float]]:
    """A real cluster's capacity: each minute's beginning, and the average in ACU."""
    return sorted(
        (datetime.fromisoformat(record.timestamp), record.acu)
        for record in records
        if isinstance(record, CapacityRecord) and record.aurora_type == aurora_type
    )


def connections_of(records: Sequence[Record], aurora_type: str) -> list[tuple[datetime, float]]:
    """A real cluster's connections: each minute's beginning, and the most of that minute."""
    return sorted(
        (datetime.fromisoformat(record.timestamp), record.most)
        for record in records
        if isinstance(record, ConnectionsRecord) and record.aurora_type == aurora_type
    )


def events_of(records: Sequence[Record], aurora_type: str) -> list[tuple[datetime, str]]:
    """The pauses and resumes of a real cluster: when, and which."""
    return sorted(
        (datetime.fromisoformat(record.timestamp), record.kind)
        for record in records
        if isinstance(record, EventRecord) and record.aurora_type == aurora_type
    )


def paused_share_of(
    records: Sequence[Record], aurora_type: str, done: Sequence[InvocationRecord]
) -> float | None:
    """
    Share of the whole minutes from the first invocation to the last that a real cluster was paused.

    A minute counts as paused if CloudWatch has no capacity for it but 0, so each pause may be up to two
    minutes longer than it counts.
    """
    capacity = capacity_of(records, aurora_type)
    if not capacity or len(done) < 2:
        return None
    begin = datetime.fromisoformat(done[0].timestamp)
    end = datetime.fromisoformat(done[-1].timestamp) - timedelta(minutes=1)
    values = [acu for at, acu in capacity if begin <= at <= end]
    return sum(acu == 0 for acu in values) / len(values) if values else None


def notes_of(records: Sequence[Record]) -> list[str]:
    """What the reader of this run has to know, each once."""
    return list(dict.fromkeys(record.text for record in records if isinstance(record, NoteRecord)))


def run_of(records: Sequence[Record]) -> RunRecord:
    return next(record for record in records if isinstance(record, RunRecord))


def label(run: RunRecord) -> str:
    """How time passed: said wherever a time is shown."""
    if "time" in run.emulated:
        return run.emulated["time"]
    if run.speed == 1:
        return "all in real time"
    return f"idle time passed {run.speed:g} times as fast; connects, resumes and statements in real time"


def emulated_of(run: RunRecord) -> list[tuple[str, str]]:
    """What was not real in a run of deployed functions, and what stood in for it: all but time."""
    return [(name, how) for name, how in run.emulated.items() if name != "time"]


def summary(
    records: Sequence[Record], *, complete: bool, beside: Sequence[Record] = ()
) -> dict[str, Any]:
    """
    What summary.json holds.

    Args:
        complete: False when the run was interrupted.
        beside: The records of another run, which is shown beside this one.
    """
    run = run_of(records)
    servers = sorted(
        {
            json.dumps({"aurora_type": record.aurora_type, **record.versions})
            for record in records
            if isinstance(record, ServerRecord)
        }
    )
    return {
        "complete": complete,
        "time": label(run),
        "run": asdict(run),
        "servers": [json.loads(server) for server in servers],
        "cells": [asdict(one) for one in cells(records)],
        "notes": notes_of(records),
        "events": [asdict(record) for record in records if isinstance(record, EventRecord)],
        "published": PUBLISHED,
        **({"beside": summary(beside, complete=True)} if beside else {}),
    }


def timeline(records: Sequence[Record], policy: str) -> list[tuple[str, float, float]]:
    """The cold cluster's states as (state, begin, end) in lab seconds, over the measured time."""
    done = invocations_of(records, "cold", policy)
    if not done:
        return []
    end = done[-1].at + (done[-1].elapsed or 0.0)
    changes = [
        record
        for record in records
        if isinstance(record, ChangeRecord)
        and (record.aurora_type, record.policy) == ("cold", policy)
        and record.kind in ("paused", "resuming", "available")
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
    """The first values of a record of numbers."""
    return ", ".join(str(value) for value in values[:4]) + (", …" if len(values) > 4 else "")


def cost(value: float | None) -> str:
    """An amount; of a handler without one, nothing."""
    return "" if value is None else f"{value:.2f} USD"


def counted(value: float | None) -> str:
    """A number that not every handler has."""
    return "" if value is None else f"{value:g}"


def known(value: float | None) -> str:
    return "n/a" if value is None else f"{value:g}"


def percent(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.0%}"
