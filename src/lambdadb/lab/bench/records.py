"""What a benchmark measures, record by record: the lines of results.jsonl."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import get_args

POLICIES = ("hand_written", "sqlalchemy_default", "per_environment", "per_invocation", "data_api")
WITH_CONNECTIONS = POLICIES[:4]
"""The handlers that a URL is enough for. Terraform deploys these."""
AURORA_TYPES = ("hot", "cold", "steady")
"""A hot cluster, one that pauses, and a hot one under steady traffic."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What was run, with what, and when; the first record of the results."""

    started: str
    speed: float
    rounds: int
    resume: float | None
    shape: str | None
    auto_pause: float | None
    interval: Mapping[str, float]
    clusters: Mapping[str, str]
    versions: Mapping[str, str]
    experiment: str = "lambdadb_bench"
    place: str = "this machine"
    """Where the functions ran."""
    data_api_price: float | None = None
    """Of a million requests of the Data API, in USD; None: no handler uses it."""
    emulated: Mapping[str, str] = field(default_factory=dict)
    """What was not real in a run of deployed functions, and how it was emulated."""


@dataclass(frozen=True, kw_only=True)
class ServerRecord:
    """The server behind one cell."""

    aurora_type: str
    policy: str
    versions: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class InvocationRecord:
    """One invocation: the log line of its handler, or its error, and what was seen from outside."""

    aurora_type: str
    policy: str
    number: int
    """From 1; 0: the cell failed before it could invoke."""
    at: float
    """Seconds of the lab's time since the cell began."""
    timestamp: str
    experiment: str
    elapsed: float | None = None
    new_id: int | None = None
    connects: int | None = None
    retries: int | None = None
    resume_wait: float | None = None
    round_trips: int | None = None
    """Counted on the wire; None: a real cluster, as in the next two, or the Data API."""
    sessions_left: int | None = None
    """Sessions that the cluster still had when the environment was frozen."""
    paused_share: float | None = None
    """Share of the lab's time since the first invocation that the cluster was paused: 0 to 1."""
    calls: int | None = None
    """Calls of the Data API; None: another handler."""
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class ChangeRecord:
    """A change of an embedded cluster's state, or what blocks its pause."""

    aurora_type: str
    policy: str
    at: float
    kind: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class CapacityRecord:
    """A real cluster's capacity over a minute, as CloudWatch has it."""

    aurora_type: str
    timestamp: str
    """The minute's beginning."""
    acu: float
    """Average of `ServerlessDatabaseCapacity`; 0 only if it was paused for the whole minute."""


@dataclass(frozen=True, kw_only=True)
class ConnectionsRecord:
    """The connections of a real cluster in a minute, as CloudWatch has them."""

    aurora_type: str
    timestamp: str
    """The minute's beginning."""
    most: float
    """Maximum of `DatabaseConnections`. A paused cluster has no value."""


@dataclass(frozen=True, kw_only=True)
class EventRecord:
    """A pause or a resume of a real cluster's instance, as RDS reports it."""

    aurora_type: str
    timestamp: str
    kind: str
    """"pausing", "not paused", "paused", "resuming", "available", or "other"."""
    text: str


@dataclass(frozen=True, kw_only=True)
class FetchedRecord:
    """What was read from AWS for a stretch of time, so that it is not read again."""

    what: str
    """"log", "capacity", "connections" or "events"."""
    aurora_type: str
    begin: str
    end: str


@dataclass(frozen=True, kw_only=True)
class NoteRecord:
    """Something about the run that its reader has to know, such as why a figure is not there."""

    text: str


Record = (
    RunRecord
    | ServerRecord
    | InvocationRecord
    | ChangeRecord
    | CapacityRecord
    | ConnectionsRecord
    | EventRecord
    | FetchedRecord
    | NoteRecord
)
KINDS: tuple[type[Record], ...] = get_args(Record)


def from_line(line: str) -> Record:
    """
    Read a line of results.jsonl.

    Raises:
        ValueError: It is none.
    """
    fields = json.loads(line)
    name = fields.pop("record", None)
    for kind in KINDS:
        if name_of(kind) == name:
            try:
                return kind(**fields)
            except TypeError as error:
                raise ValueError(f"a line of results.jsonl does not fit: {error}") from error
    raise ValueError(f"a line of results.jsonl is of an unknown kind: {name}")


def read(file: Path) -> list[Record]:
    """
    Read results.jsonl; nothing where there is no such file. A last line without its end is left out.

    Raises:
        ValueError: A line of it is none.
    """
    if not file.exists():
        return []
    *lines, _ = file.read_text().split("\n")
    return [from_line(line) for line in lines]


def name_of(kind: type[Record]) -> str:
    return kind.__name__.removesuffix("Record").lower()


def as_line(record: Record) -> str:
    """One line of results.jsonl; `record` names its kind."""
    return json.dumps({"record": name_of(type(record)), **asdict(record)})
