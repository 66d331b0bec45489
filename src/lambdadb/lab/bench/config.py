"""What the benchmark runs: the published experiment's numbers, and what the caller chose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.metadata import version
from platform import python_version

from lambdadb.engine import parse_url
from lambdadb.lab import LabError
from lambdadb.lab.aurora import Shape
from lambdadb.lab.bench.records import AURORA_TYPES, POLICIES, RunRecord

EXPERIMENT = "lambdadb_bench"

# The published experiment: seconds between invocations, and the first ids of its log lines. Steady
# traffic is this benchmark's own: so frequent that PerEnvironment's session outlives the pauses.
INTERVAL = {"hot": 600.0, "cold": 720.0, "steady": 20.0}
FIRST_ID = {"hot": 50, "cold": 793, "steady": 1}
STEADY_ROUNDS = 10
# Seconds of network delay per round trip under steady traffic: about that of one Availability Zone.
STEADY_ROUND_TRIP = 0.001
# Published: 300 s configured, a pause after 420 s observed.
AUTO_PAUSE = 420.0
# The table as published; on somebody's own cluster under a name that can only be this benchmark's.
TABLE = "vector_table"
OWN_TABLE = "lambdadb_bench_vector_table"
# PerEnvironment's default, in seconds of the lab.
IDLE_SESSION_TIMEOUT = 60.0
PACKAGES = ("sqlalchemy-lambdadb", "sqlalchemy", "psycopg", "awslambdaric")


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """What is run."""

    rounds: int = 3
    """Invocations of each handler against each cluster."""
    speed: float = 120.0
    """How many times as fast the time between invocations passes; 1 against real clusters."""
    resume: float = 15.0
    """Seconds that the embedded cold cluster needs to wake up."""
    shape: Shape = Shape.HOLD
    """What a connect meets while the embedded cold cluster wakes up."""
    urls: Mapping[str, str] = field(default_factory=dict)
    """Real clusters, `hot` and `cold`; none: both are embedded."""

    def __post_init__(self) -> None:
        if not self.speed >= 1 or not self.resume > 0:
            raise LabError(
                f"speed {self.speed} and resume {self.resume}: the speed is 1 or more, and a resume "
                "takes more than 0 seconds"
            )
        if self.urls and self.speed != 1:
            raise LabError("real clusters run in real time: leave the speed at 1")
        databases = [database_of(kind, url) for kind, url in self.urls.items()]
        if len(set(databases)) < len(databases):
            raise LabError(
                f"the hot and the cold URL are the same database, {place(self.urls['hot'])}: one cannot "
                "be hot and pause. Give two clusters, or one of the two options"
            )

    @property
    def aurora_types(self) -> tuple[str, ...]:
        return tuple(kind for kind in AURORA_TYPES if not self.urls or kind in self.urls)

    def rounds_of(self, aurora_type: str) -> int:
        """Invocations of each handler against that cluster."""
        return STEADY_ROUNDS if aurora_type == "steady" else self.rounds

    @property
    def minutes(self) -> float:
        """How long real clusters take: a cold one has to pause before each handler's first, too."""
        waits = {"hot": self.rounds - 1, "cold": self.rounds}
        return max(len(POLICIES) * waits[kind] * INTERVAL[kind] / 60 for kind in self.aurora_types)

    @property
    def invocations(self) -> int:
        return len(POLICIES) * sum(self.rounds_of(kind) for kind in self.aurora_types)


@dataclass(frozen=True)
class Cell:
    """One handler against one cluster."""

    aurora_type: str
    policy: str


def lanes(config: BenchConfig) -> list[list[Cell]]:
    """
    Cells that run one after the other, for each thread.

    Embedded ones have a server each. Steady traffic waits for the hot cell, so that fewer start at once.
    """
    if config.urls:
        return [[Cell(kind, policy) for policy in POLICIES] for kind in config.aurora_types]
    short = [[Cell("hot", policy), Cell("steady", policy)] for policy in POLICIES]
    return [*short, *([Cell("cold", policy)] for policy in POLICIES)]


def description(config: BenchConfig) -> RunRecord:
    embedded = not config.urls
    return RunRecord(
        started=timestamp(),
        speed=config.speed,
        rounds=config.rounds,
        resume=config.resume if embedded else None,
        shape=config.shape.value if embedded else None,
        auto_pause=AUTO_PAUSE if embedded else None,
        interval={kind: INTERVAL[kind] for kind in config.aurora_types},
        clusters={kind: place(config.urls.get(kind)) for kind in config.aurora_types},
        versions={"python": python_version(), **{name: version(name) for name in PACKAGES}},
    )


def place(url: str | None) -> str:
    """Where a cluster is, without user, password or options."""
    if url is None:
        return "embedded"
    parts = parse_url(url)
    return f"{parts.host}:{parts.port or 5432}/{parts.database}"


def database_of(kind: str, url: str) -> tuple[str, int, str]:
    """
    Host, port and database of a real cluster.

    Raises:
        LabError: It is no PostgreSQL. Or the URL leaves the host or the database to libpq, which takes
            them from variables that the functions do not have.
    """
    parts = parse_url(url)
    if parts.get_backend_name() != "postgresql":
        backend = parts.get_backend_name()
        raise LabError(f"the {kind} URL is of {backend}; the benchmark needs PostgreSQL")
    if not parts.host or not parts.database:
        raise LabError(
            f"the {kind} URL needs a host and a database: "
            "postgresql+psycopg://user:password@host:5432/database"
        )
    return parts.host.lower(), parts.port or 5432, parts.database


def idle_session_timeout(config: BenchConfig) -> float:
    """The policy's default for a server whose idle timer runs in real time while idle time flies."""
    return IDLE_SESSION_TIMEOUT / config.speed


def timestamp() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
