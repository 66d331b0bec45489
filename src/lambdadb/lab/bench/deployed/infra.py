"""What Terraform deployed: the file of `terraform output -json experiment`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lambdadb.lab import LabError
from lambdadb.lab.bench.config import INTERVAL
from lambdadb.lab.bench.records import WITH_CONNECTIONS

RATE = re.compile(r"rate\((\d+) (minute|hour|day)s?\)")
SECONDS = {"minute": 60.0, "hour": 3600.0, "day": 86400.0}
TYPES = ("hot", "cold")


@dataclass(frozen=True)
class DeployedCluster:
    """A cluster: its names, its capacity in ACU, and how often its functions are invoked."""

    aurora_type: str
    identifier: str
    instance: str
    min_capacity: float
    max_capacity: float
    auto_pause: float | None
    """Seconds; None: it never pauses."""
    interval: float
    """Seconds between invocations on its schedule."""


@dataclass(frozen=True)
class DeployedFunction:
    """A function: its name, its log group, and what it measures."""

    name: str
    log_group: str
    aurora_type: str
    policy: str


@dataclass(frozen=True)
class Infra:
    """What was deployed."""

    experiment: str
    region: str
    scheduled: str | None
    """The policy that is on schedule."""
    clusters: Mapping[str, DeployedCluster]
    functions: tuple[DeployedFunction, ...]
    emulated: Mapping[str, str]
    """What is not AWS's own, and what stands in for it. Empty where Terraform wrote the file."""

    def functions_of(self, aurora_type: str) -> list[DeployedFunction]:
        """The functions of a cluster, in the order in which they take turns."""
        order = ("hand_written", "per_invocation", "per_environment", "sqlalchemy_default")
        return sorted(
            (function for function in self.functions if function.aurora_type == aurora_type),
            key=lambda function: order.index(function.policy),
        )


def read_infra(file: Path) -> Infra:
    """
    Read the file.

    Raises:
        LabError: It cannot be read, or is not what `terraform output -json experiment` writes.
    """
    try:
        found = json.loads(file.read_text())
    except OSError as error:
        raise LabError(f"--infra {file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise LabError(f"--infra {file} is not JSON: {error}. {HOW}") from error
    try:
        return infra_of(found)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise LabError(f"--infra {file} is not this experiment's output: {what}. {HOW}") from error


HOW = "Write it with `terraform output -json experiment` in infra/terraform/experiment"


def infra_of(found: Mapping[str, Any]) -> Infra:
    clusters = {kind: cluster_of(kind, found["clusters"][kind]) for kind in found["clusters"]}
    functions = tuple(
        DeployedFunction(
            one["name"], one["log_group"], checked(one["aurora_type"], TYPES), policy_of(one)
        )
        for one in found["functions"]
    )
    if not functions:
        raise ValueError("it has no functions")
    return Infra(
        experiment=found["experiment"],
        region=found["region"],
        scheduled=found.get("scheduled"),
        clusters={kind: clusters[kind] for kind in TYPES if kind in clusters},
        functions=functions,
        emulated=found.get("emulated", {}),
    )


def cluster_of(kind: str, found: Mapping[str, Any]) -> DeployedCluster:
    rate = RATE.fullmatch(found.get("schedule") or "")
    pause = found.get("seconds_until_auto_pause")
    return DeployedCluster(
        aurora_type=checked(kind, TYPES),
        identifier=found["identifier"],
        instance=found["instance"],
        min_capacity=float(found["min_capacity"]),
        max_capacity=float(found["max_capacity"]),
        auto_pause=float(pause) if pause else None,
        interval=int(rate[1]) * SECONDS[rate[2]] if rate else INTERVAL[kind],
    )


def policy_of(found: Mapping[str, Any]) -> str:
    """The handler that a function runs: `insert.POLICY`, as the log line names it."""
    return checked(found["handler"].rpartition(".")[2], WITH_CONNECTIONS)


def checked(value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ValueError(f"{value} is none of {', '.join(known)}")
    return value
