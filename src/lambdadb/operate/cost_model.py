"""
What a workload makes of an auto-pausing cluster: how long it is paused, what it costs, and how many
connections it takes, for each way to connect.

The model has no memory and no randomness: formulas, checked against the emulated cluster by
`nox -s advise`. docs/advise.md derives them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from lambdadb.errors import InvalidSettings

HOURS_A_MONTH = 730.0
DAY, HOUR = 86_400.0, 3_600.0
# Connections of an Aurora PostgreSQL cluster by its maximum capacity, and by 0 or 0.5 ACU as its minimum
# at most 2,000 (Aurora User Guide, "Setting the capacity range"). Between two rows: on a straight line.
MAX_CONNECTIONS = ((1, 189), (4, 823), (8, 1669), (16, 3360), (32, 5000), (256, 5000))
MAX_WITH_LOW_MINIMUM = 2000
RESERVED = 5
"""superuser_reserved_connections and rds.rds_superuser_reserved_connections, by default."""
ACU_GIB = 2.0
CONNECTION_GIB = 0.01
"""Memory of a connection for planning: 10 MB (field reports, not documented)."""
# The share of moments that the highest concurrency of random arrivals may be exceeded.
RARE = 1e-6
ABOUT = ("region", "currency", "collected", "source")
PRICES = Path(__file__).with_name("prices.json")

Shape = Literal["regular", "random"]


class Choice(str, Enum):
    """A way to connect. The members are in the order in which they are shown."""

    PER_INVOCATION = "PerInvocation"
    PER_ENVIRONMENT = "PerEnvironment"
    DATA_API = "Data API"
    PROXY = "RDS Proxy"
    ALWAYS_ON = "always on"


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Invocations of one function. Durations are in seconds."""

    per_hour: float
    """Invocations, while it is used."""
    shape: Shape = "random"
    """`regular`: at equal distances, as a schedule makes them. `random`: independent of each other."""
    burst: int = 1
    """Invocations that come at the same moment."""
    duration: float = 0.2
    """Of an invocation, without the wait for a resume."""
    concurrency: int | None = None
    """Environments at a time, at the peak; None: estimated from the others."""
    hours: float = 24.0
    """A day in which it is used; in the others nothing comes."""
    statements: int = 3
    """An invocation, BEGIN and COMMIT included: the Data API charges each."""
    memory: float = 512.0
    """Of the function, in MB."""
    connect: float = 0.03
    """That a connect adds to an invocation."""

    def __post_init__(self) -> None:
        check(self, above_zero=("per_hour", "duration", "hours", "memory"), at_least_zero=("connect",))
        few = min(self.burst, self.statements, 1 if self.concurrency is None else self.concurrency)
        if few < 1 or self.hours > 24 or self.shape not in SHAPES:
            raise InvalidSettings(
                f"burst={self.burst}, statements={self.statements}, concurrency={self.concurrency}, "
                f"hours={self.hours}, shape={self.shape}: use 1 or more, at most 24 hours, and one of "
                f"{', '.join(SHAPES)}."
            )


SHAPES = ("regular", "random")


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """An Aurora serverless cluster. Capacities are in ACU, durations in seconds."""

    min_acu: float = 0.0
    max_acu: float = 1.0
    awake_acu: float = 0.5
    """The average while it is awake: an assumption, unless it was measured."""
    pause: float = 300.0
    """Without a session until it pauses. 420 were observed where 300 were set."""
    resume: float = 15.0
    idle_timeout: float = 60.0
    """Until the server ends an idle session of PerEnvironment."""

    def __post_init__(self) -> None:
        check(
            self,
            above_zero=("max_acu", "awake_acu", "pause"),
            at_least_zero=("min_acu", "resume", "idle_timeout"),
        )
        if self.max_acu < max(self.min_acu, 1.0):
            raise InvalidSettings(f"max_acu={self.max_acu:g}: use 1 or more, and no less than min_acu.")

    @property
    def slots(self) -> int:
        """Connections for ordinary users, by default."""
        limit = interpolate(self.max_acu)
        return (min(limit, MAX_WITH_LOW_MINIMUM) if self.min_acu <= 0.5 else limit) - RESERVED


@dataclass(frozen=True, kw_only=True)
class Prices:
    """The reader's own prices, of one region."""

    region: str
    currency: str
    collected: str
    source: str
    acu_hour: float
    proxy_acu_hour: float
    proxy_least_acu: float
    data_api_million: float
    lambda_gb_second: float


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a way to connect makes of a workload."""

    choice: Choice
    paused: float
    """Share of the time, 0 to 1."""
    waits: float
    """Share of the invocations that wait for a resume."""
    connections: int
    """At the peak, at the database."""
    connection_memory: float
    """Of these connections, as a share of the memory at the maximum capacity."""
    costs: Mapping[str, float]
    """A month, by what is paid for."""

    @property
    def cost(self) -> float:
        """A month."""
        return sum(self.costs.values())


def check(value: Any, *, above_zero: tuple[str, ...], at_least_zero: tuple[str, ...]) -> None:
    """Refuse what is not a number in its range."""
    for name in (*above_zero, *at_least_zero):
        number = getattr(value, name)
        least = number > 0 if name in above_zero else number >= 0
        if not math.isfinite(number) or not least:
            raise InvalidSettings(
                f"{name}={number}: use a number {'above 0' if name in above_zero else 'of 0 or more'}."
            )


def read_prices(file: Path = PRICES) -> Prices:
    """
    Read a file of prices.

    Raises:
        InvalidSettings: It cannot be read, or a price is missing or no number.
    """
    try:
        found = json.loads(file.read_text())
        about: dict[str, Any] = {name: str(found[name]) for name in ABOUT}
        numbers = {name: float(value) for name, value in found["prices"].items()}
        prices = Prices(**{**about, **numbers})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidSettings(
            f"The prices in {file} cannot be read: {error}. {PRICES} shows how they are written."
        ) from error
    check(prices, above_zero=(), at_least_zero=tuple(numbers))
    return prices


def predict(choice: Choice, workload: Workload, capacity: Capacity, prices: Prices) -> Prediction:
    """What one way to connect makes of the workload."""
    pauses = capacity.min_acu == 0 and choice not in (Choice.PROXY, Choice.ALWAYS_ON)
    tail = capacity.idle_timeout if choice is Choice.PER_ENVIRONMENT else 0.0
    paused, waits = pause_shares(workload, capacity, tail) if pauses else (0.0, 0.0)
    connections = 0 if choice is Choice.DATA_API else peak_concurrency(workload)
    if choice is Choice.PROXY:  # it lets the others wait
        connections = min(connections, capacity.slots)
    return Prediction(
        choice=choice,
        paused=paused,
        waits=waits,
        connections=connections,
        connection_memory=connections * CONNECTION_GIB / (capacity.max_acu * ACU_GIB),
        costs=costs(choice, workload, capacity, prices, paused=paused, waits=waits),
    )


def predict_all(workload: Workload, capacity: Capacity, prices: Prices) -> list[Prediction]:
    """All ways to connect, side by side."""
    return [predict(choice, workload, capacity, prices) for choice in Choice]


def pause_shares(workload: Workload, capacity: Capacity, tail: float) -> tuple[float, float]:
    """
    Share of the time in which the cluster is paused, and share of the arrivals that find it paused.

    Args:
        tail: Seconds that the last session outlives its invocation.
    """
    interval = HOUR * workload.burst / workload.per_hour
    awake = workload.duration + tail + capacity.pause
    if workload.shape == "regular":
        paused, waits = regular_shares(interval, awake, capacity.resume)
    else:
        paused = waits = random_share(interval, awake, capacity.resume)
    used = workload.hours * HOUR
    if used == DAY:
        return paused, waits
    quiet = max(DAY - used - awake, 0.0)
    # The first arrival of the day finds it paused.
    first = min(interval / used, 1.0) if quiet else 0.0
    return (paused * used + quiet) / DAY, max(waits, first)


def regular_shares(interval: float, awake: float, resume: float) -> tuple[float, float]:
    """The shares of arrivals at equal distances, `awake` seconds after each of which it would pause."""
    if interval <= awake:
        return 0.0, 0.0
    if interval >= awake + resume:
        return (interval - awake - resume) / interval, 1.0
    # The resume's seconds make the time after a cold arrival too short for a pause: every other is cold.
    return (interval - awake) / (2 * interval), 0.5


def random_share(interval: float, awake: float, resume: float) -> float:
    """
    The share for arrivals of a Poisson process, which is the same of the time and of the arrivals.

    A pause lasts for `interval` on average. The time between two pauses is the busy period of a server
    for whom each arrival is work of `awake` seconds, and the resume.
    """
    exponent = awake / interval
    return 0.0 if exponent > 700 else 1.0 / (math.exp(exponent) + resume / interval)


def peak_concurrency(workload: Workload) -> int:
    """
    Environments at a time: the most that is to be expected, if it is not known.

    Of random arrivals that number which is exceeded in one of a million moments.
    """
    if workload.concurrency is not None:
        return workload.concurrency
    interval = HOUR * workload.burst / workload.per_hour
    load = workload.duration / interval
    if workload.shape == "regular":
        return workload.burst * max(math.ceil(load - 1e-9), 1)
    most, term = 0, math.exp(-load) if load < 700 else 0.0
    if not term:  # so many that the distribution is normal
        return workload.burst * math.ceil(load + 4.75 * math.sqrt(load))
    beyond = 1.0 - term
    while beyond > RARE:
        most += 1
        term *= load / most
        beyond -= term
    return workload.burst * max(most, 1)


def costs(
    choice: Choice,
    workload: Workload,
    capacity: Capacity,
    prices: Prices,
    *,
    paused: float,
    waits: float,
) -> dict[str, float]:
    """What is paid for in a month."""
    invocations = workload.per_hour * workload.hours / 24 * HOURS_A_MONTH
    gb_second = prices.lambda_gb_second * workload.memory / 1024
    acu = max(capacity.awake_acu, capacity.min_acu)
    if choice is Choice.ALWAYS_ON:
        acu = max(acu, 0.5)
    connects = 1.0 if choice is Choice.PER_INVOCATION else 0.0
    if choice is Choice.PER_ENVIRONMENT:
        connects = reconnects(workload, capacity)
    found = {
        "capacity": (1.0 - paused) * HOURS_A_MONTH * acu * prices.acu_hour,
        "waiting for resumes": invocations * waits * capacity.resume * gb_second,
        "connecting": invocations * connects * workload.connect * gb_second,
    }
    if choice is Choice.PROXY:
        billed = max(capacity.max_acu, prices.proxy_least_acu)
        found["proxy"] = HOURS_A_MONTH * billed * prices.proxy_acu_hour
    if choice is Choice.DATA_API:
        found["requests"] = invocations * workload.statements * prices.data_api_million / 1e6
    return found


def reconnects(workload: Workload, capacity: Capacity) -> float:
    """Share of the invocations whose environment has lost its session, being idle for too long."""
    interval = HOUR * workload.burst / workload.per_hour
    if workload.shape == "regular":
        return 1.0 if interval > workload.duration + capacity.idle_timeout else 0.0
    return math.exp(-capacity.idle_timeout / interval)


def interpolate(acu: float) -> int:
    """max_connections by default, of a maximum capacity."""
    for (low, least), (high, most) in pairwise(MAX_CONNECTIONS):
        if acu <= high:
            return int(least + (most - least) * (acu - low) / (high - low))
    return MAX_CONNECTIONS[-1][1]
