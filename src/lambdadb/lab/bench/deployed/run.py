"""A run of the deployed experiment: its records, and how an interrupted one goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone

from lambdadb.lab.bench.deployed.clients import Clients
from lambdadb.lab.bench.deployed.infra import Infra
from lambdadb.lab.bench.records import InvocationRecord, NoteRecord, Record, RunRecord

PLACE = "Lambda"
# Deployed by somebody else's endpoint: what it answers is not AWS's.
NOT_AWS = "answered by {}, not by AWS"


def description(infra: Infra, clients: Clients, *, started: datetime, rounds: int) -> RunRecord:
    """The run's first record."""
    emulated = dict(infra.emulated)
    if not emulated and (foreign := clients.foreign_endpoints()):
        emulated["AWS"] = NOT_AWS.format(", ".join(foreign))
    return RunRecord(
        started=started.isoformat(timespec="seconds"),
        speed=1.0,
        rounds=rounds,
        resume=None,
        shape=None,
        auto_pause=None,
        interval={kind: cluster.interval for kind, cluster in infra.clusters.items()},
        clusters={kind: places(infra, kind) for kind in infra.clusters},
        versions={},
        experiment=infra.experiment,
        place=PLACE,
        emulated=emulated,
    )


def places(infra: Infra, kind: str) -> str:
    cluster = infra.clusters[kind]
    return (
        f"{cluster.identifier} in {infra.region}, "
        f"{cluster.min_capacity:g} to {cluster.max_capacity:g} ACU"
    )


def earlier_of(records: Sequence[Record], infra: Infra) -> list[Record]:
    """
    What an earlier run of the same experiment in the same place has; nothing if it was another.

    Its notes are left out: what they miss is read again.
    """
    run = next((record for record in records if isinstance(record, RunRecord)), None)
    if run is None or run.place != PLACE or run.experiment != infra.experiment:
        return []
    if run.clusters != {kind: places(infra, kind) for kind in infra.clusters}:
        return []
    return [record for record in records if not isinstance(record, NoteRecord)]


def done_of(records: Sequence[Record]) -> set[tuple[str, str, int]]:
    """The invocations that need not be made again: cluster, policy and number."""
    return {
        (record.aurora_type, record.policy, record.number)
        for record in records
        if isinstance(record, InvocationRecord) and record.number > 0
    }


def in_order(records: Sequence[Record]) -> list[Record]:
    """The records, each once, with the invocations of each function numbered by their time."""
    run = next(record for record in reversed(records) if isinstance(record, RunRecord))
    others = {key_of(record): record for record in records if not isinstance(record, RunRecord)}
    done = sorted(
        (record for record in others.values() if isinstance(record, InvocationRecord)),
        key=lambda record: datetime.fromisoformat(record.timestamp),
    )
    rest = [record for record in others.values() if not isinstance(record, InvocationRecord)]
    return [run, *numbered(done), *rest]


def numbered(done: Sequence[InvocationRecord]) -> list[InvocationRecord]:
    counts: Counter[tuple[str, str]] = Counter()
    found = []
    for record in done:
        counts[record.aurora_type, record.policy] += 1
        passed = datetime.fromisoformat(record.timestamp) - datetime.fromisoformat(done[0].timestamp)
        number = counts[record.aurora_type, record.policy]
        found.append(replace(record, number=number, at=passed.total_seconds()))
    return found


def key_of(record: Record) -> tuple[object, ...]:
    """What makes two records the same: one read twice, or an invocation and its own log line."""
    if isinstance(record, InvocationRecord):
        same = record.timestamp if record.new_id is None else record.new_id
        return (InvocationRecord, record.aurora_type, record.policy, same)
    if isinstance(record, NoteRecord):
        return (NoteRecord, record.text)
    fields = vars(record)
    same_fields = [fields[name] for name in ("what", "kind", "begin", "end") if name in fields]
    return (type(record), fields.get("aurora_type"), fields.get("timestamp"), *same_fields)


def now() -> datetime:
    return datetime.now(timezone.utc)
