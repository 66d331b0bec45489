"""What the benchmark runs: the published experiment's numbers, and what the caller chose."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.metadata import version
from platform import python_version

from lambdadb.lab import LabError
from lambdadb.lab.aurora import MYSQL_SHAPES, POSTGRES_SHAPES, Shape
from lambdadb.lab.bench.cluster_url import check_login, database_of, place
from lambdadb.lab.bench.records import AURORA_TYPES, POLICIES, WITH_CONNECTIONS, RunRecord
from lambdadb.operate.cost_model import PRICES

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
# The table as published; on somebody's own cluster one for each, under names that can only be this
# benchmark's. So two cells never share a sequence of ids, also where two URLs are one database.
TABLE = "vector_table"
OWN_TABLES = {"hot": "lambdadb_bench_hot", "cold": "lambdadb_bench_cold"}
# Steady traffic follows the hot cell, against the same cluster.
CLUSTER = {"hot": "hot", "cold": "cold", "steady": "hot"}
# PerEnvironment's default, in seconds of the lab.
IDLE_SESSION_TIMEOUT = 60.0
DATA_API_PRICE: float = json.loads(PRICES.read_text())["prices"]["data_api_million"]
PACKAGES = ("sqlalchemy-lambdadb", "sqlalchemy", "awslambdaric")
DRIVERS = {"postgresql": "psycopg", "mysql": "pymysql"}
SHAPES = {"postgresql": POSTGRES_SHAPES, "mysql": MYSQL_SHAPES}
# How many times as fast idle time passes. MySQL's idle timer has whole seconds: one of them is then the
# policy's minute.
SPEED = {"postgresql": 120.0, "mysql": IDLE_SESSION_TIMEOUT}


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """What is run."""

    engine: str = "postgresql"
    """Of the embedded clusters: "postgresql", or "mysql" for a MariaDB that is installed here."""
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
    secret: str | None = None
    """Name or ARN of the secret with the login to real clusters."""
    iam: bool = False
    """Log in to real clusters by IAM, as the URL's user."""
    create: bool = True
    """Whether a table that a real cluster lacks is made there."""
    clean_up: bool = False
    """Whether real clusters are left as they were found."""
    interval: float | None = None
    """Seconds between invocations, hot and cold; by default the published ones."""
    steady: bool = True
    """Whether steady traffic follows on the hot cluster."""
    data_api_price: float = DATA_API_PRICE
    """Of a million requests of the Data API, in USD."""
    experiment: str = EXPERIMENT
    """The run's name: in each log line, and in the column `content` of each row."""

    def __post_init__(self) -> None:
        if not self.speed >= 1 or not self.resume > 0:
            raise LabError(
                f"speed {self.speed} and resume {self.resume}: the speed is 1 or more, and a resume "
                "takes more than 0 seconds"
            )
        self.check_engine()
        if self.urls and self.speed != 1:
            raise LabError("real clusters run in real time: leave the speed at 1")
        if self.secret and self.iam:
            raise LabError("--secret and --iam: give one of the two, as a login comes from one place")
        for_urls = [self.secret, self.iam, not self.create, self.clean_up]
        if any(for_urls) and not self.urls:
            raise LabError("--secret, --iam, --no-create and --clean-up are for a cluster given by URL")
        for kind, url in self.urls.items():
            database_of(kind, url)
            check_login(kind, url, secret=self.secret, iam=self.iam)

    def check_engine(self) -> None:
        """Refuse what the engine of the embedded clusters does not have."""
        if self.shape not in SHAPES[self.engine]:
            shapes = ", ".join(shape.value for shape in SHAPES[self.engine])
            raise LabError(f"shape {self.shape.value} is none of {self.engine}'s: {shapes}")
        if self.engine != "mysql":
            return
        if self.urls:
            raise LabError(
                "--engine mysql is for embedded clusters: leave it out, or leave out --hot and --cold"
            )
        if self.speed > SPEED["mysql"]:
            raise LabError(
                f"speed {self.speed:g}: on MySQL it is {SPEED['mysql']:g} at most, as wait_timeout has "
                "whole seconds"
            )

    @property
    def aurora_types(self) -> tuple[str, ...]:
        kinds = AURORA_TYPES if self.steady else AURORA_TYPES[:2]
        return tuple(kind for kind in kinds if not self.urls or CLUSTER[kind] in self.urls)

    @property
    def policies(self) -> tuple[str, ...]:
        """The handlers. The Data API is emulated over an embedded PostgreSQL only."""
        return WITH_CONNECTIONS if self.urls or self.engine == "mysql" else POLICIES

    @property
    def is_one_database(self) -> bool:
        """Whether the hot and the cold URL are the same database."""
        databases = [database_of(kind, url) for kind, url in self.urls.items()]
        return len(set(databases)) < len(databases)

    def interval_of(self, aurora_type: str) -> float:
        """Seconds between two invocations."""
        return (
            INTERVAL[aurora_type] if aurora_type == "steady" else self.interval or INTERVAL[aurora_type]
        )

    def rounds_of(self, aurora_type: str) -> int:
        """Invocations of each handler against that cluster."""
        return STEADY_ROUNDS if aurora_type == "steady" else self.rounds

    @property
    def minutes(self) -> float:
        """How long real clusters take: a cold one has to pause before each handler's first, too."""
        waits = {"hot": self.rounds - 1, "steady": STEADY_ROUNDS - 1, "cold": self.rounds}
        lasting = {kind: waits[kind] * self.interval_of(kind) for kind in self.aurora_types}
        by_cluster = [
            sum(lasting[kind] for kind in self.aurora_types if CLUSTER[kind] == cluster)
            for cluster in self.urls
        ]
        return len(self.policies) * (sum if self.is_one_database else max)(by_cluster) / 60

    @property
    def invocations(self) -> int:
        return len(self.policies) * sum(self.rounds_of(kind) for kind in self.aurora_types)


@dataclass(frozen=True)
class Cell:
    """One handler against one cluster."""

    aurora_type: str
    policy: str


def lanes(config: BenchConfig) -> list[list[Cell]]:
    """
    Cells that run one after the other, for each thread.

    Embedded ones have a server each. Steady traffic waits for the hot cell, so that fewer start at once.
    On a real cluster all take turns; on one database for both, too, the cold cells first.
    """
    if config.urls:
        kinds = sorted(config.aurora_types, key=("cold", "hot", "steady").index)
        cells = [Cell(kind, policy) for kind in kinds for policy in config.policies]
        if config.is_one_database:
            return [cells]
        return [
            [cell for cell in cells if CLUSTER[cell.aurora_type] == cluster] for cluster in config.urls
        ]
    short = [kind for kind in config.aurora_types if CLUSTER[kind] == "hot"]
    return [
        [Cell(kind, policy) for kind in kinds]
        for kinds in (short, ["cold"])
        for policy in config.policies
    ]


def description(config: BenchConfig) -> RunRecord:
    embedded = not config.urls
    return RunRecord(
        started=timestamp(),
        speed=config.speed,
        rounds=config.rounds,
        resume=config.resume if embedded else None,
        shape=config.shape.value if embedded else None,
        auto_pause=AUTO_PAUSE if embedded else None,
        interval={kind: config.interval_of(kind) for kind in config.aurora_types},
        clusters={kind: place(config.urls.get(CLUSTER[kind])) for kind in config.aurora_types},
        experiment=config.experiment,
        data_api_price=config.data_api_price if "data_api" in config.policies else None,
        versions={
            "python": python_version(),
            **{name: version(name) for name in (*PACKAGES, DRIVERS[config.engine])},
        },
    )


def idle_session_timeout(config: BenchConfig) -> float:
    """The policy's default for a server whose idle timer runs in real time while idle time flies."""
    return IDLE_SESSION_TIMEOUT / config.speed


def timestamp() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
