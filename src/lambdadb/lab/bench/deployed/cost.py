"""What a run costs, by the reader's own prices."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path

from lambdadb.lab import LabError
from lambdadb.lab.bench.deployed.infra import Infra
from lambdadb.lab.bench.deployed.invocations import minutes

PRICES = Path(__file__).with_name("prices.json")

# What an invocation needs at most: the memory that Terraform gives it, in GB, and the time of a resume.
MEMORY, SECONDS = 0.5, 20.0
# The capacity of an awake cluster that does next to nothing, in ACU: the least above a pause.
IDLE_ACU = 0.5
# A log line and what the platform writes beside it, in GB, with room to spare.
LINE = 4e-6


@dataclass(frozen=True)
class Prices:
    """Prices per unit, and where they are from."""

    date: str
    region: str
    currency: str
    source: str
    acu_hour: float
    lambda_gb_second: float
    lambda_million_requests: float
    insights_gb: float
    thousand_metrics: float


@dataclass(frozen=True)
class Cost:
    """One part of a run's cost, from the least to the most."""

    what: str
    least: float
    most: float


def read_prices(file: Path = PRICES) -> Prices:
    """
    Read the prices.

    Raises:
        LabError: The file cannot be read, or one of them is missing or no number of 0 or more.
    """
    try:
        found = json.loads(file.read_text())
        prices = Prices(**{field.name: found[field.name] for field in fields(Prices)})
    except OSError as error:
        raise LabError(f"--prices {file} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise LabError(f"--prices {file} is no file of prices ({error}): begin with {PRICES}") from error
    for name, value in vars(prices).items():
        is_price = isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0
        if Prices.__annotations__[name] == "float" and not is_price:
            raise LabError(f"--prices {file}: {name} is {value!r}, and a price is a number of 0 or more")
    return prices


def cost_of_invocations(infra: Infra, rounds: int, interval: float | None, prices: Prices) -> list[Cost]:
    """
    The cost of a run that invokes the functions: the clusters for as long as it takes, and the rest.

    A cold cluster that always pauses is awake from each invocation until it has paused again.
    """
    hours = minutes(infra, rounds, interval) / 60
    parts = []
    for kind, cluster in infra.clusters.items():
        awake = 1.0
        if cluster.auto_pause is not None:
            awake = min(1.0, (SECONDS + cluster.auto_pause) / (interval or cluster.interval))
        least = max(cluster.min_capacity, IDLE_ACU) * awake * hours * prices.acu_hour
        most = cluster.max_capacity * hours * prices.acu_hour
        parts.append(Cost(f"{kind} cluster, {hours:.1f} h", min(least, most), most))
    number = rounds * len(infra.functions)
    lambdas = number * (
        MEMORY * SECONDS * prices.lambda_gb_second + prices.lambda_million_requests / 1e6
    )
    return [*parts, Cost(f"{number} invocations", 0.0, lambdas), cost_of_metrics(infra, prices)]


def cost_of_collection(infra: Infra, hours: float, prices: Prices) -> list[Cost]:
    """The cost of reading what the functions logged on their schedule: two queries of each log group."""
    lines = sum(
        hours * 3600 / infra.clusters[function.aurora_type].interval for function in infra.functions
    )
    logs = 2 * lines * LINE * prices.insights_gb
    return [Cost("queries of the log", 0.0, logs), cost_of_metrics(infra, prices)]


def cost_of_metrics(infra: Infra, prices: Prices) -> Cost:
    return Cost("metrics", 0.0, 2 * len(infra.clusters) * prices.thousand_metrics / 1000)


def described(parts: list[Cost], prices: Prices) -> list[str]:
    """The cost in sentences: the parts that can be seen in cents, the rest together, and the sum."""
    large = [part for part in parts if part.most >= 0.005]
    lines = [f"  {part.what}: {part.least:.2f} to {part.most:.2f} {prices.currency}" for part in large]
    if len(large) < len(parts):
        rest = sum(part.most for part in parts if part not in large)
        names = ", ".join(part.what for part in parts if part not in large)
        lines.append(f"  {names}: under {max(0.01, rest):.2f} {prices.currency}")
    least, most = sum(part.least for part in parts), sum(part.most for part in parts)
    lines.append(f"  together: {least:.2f} to {max(0.01, most):.2f} {prices.currency}")
    lines.append(
        f"Prices of {prices.region}, {prices.date}. Yours: --prices FILE. Begin with a copy of {PRICES}"
    )
    return lines
