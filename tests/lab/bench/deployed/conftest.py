"""The deployed experiment for tests: an emulated AWS, its clients, and what Terraform would say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from lambdadb.lab.bench.deployed.clients import Clients
from lambdadb.lab.bench.deployed.infra import Infra, read_infra
from lambdadb.lab.emulated_aws import EmulatedAWS

from ...aws import KEYS, variables

EXPERIMENT = "experiment_02"
GROUP = "/aws/lambda/lambdadb-cold-hand-written"


def output(**more: object) -> dict[str, Any]:
    """What `terraform output -json experiment` writes."""
    names = [(kind, policy) for kind in ("hot", "cold") for policy in ("hand_written", "per_invocation")]
    return {
        "experiment": EXPERIMENT,
        "region": "us-east-1",
        "scheduled": None,
        "clusters": {
            kind: {
                "identifier": f"lambdadb-{kind}",
                "instance": f"lambdadb-{kind}-writer",
                "min_capacity": 0.5 if kind == "hot" else 0,
                "max_capacity": 1,
                "seconds_until_auto_pause": 300 if kind == "cold" else None,
                "schedule": "rate(10 minutes)" if kind == "hot" else "rate(12 minutes)",
            }
            for kind in ("hot", "cold")
        },
        "functions": [
            {
                "name": f"lambdadb-{kind}-{policy.replace('_', '-')}",
                "log_group": f"/aws/lambda/lambdadb-{kind}-{policy.replace('_', '-')}",
                "aurora_type": kind,
                "policy": policy,
                "handler": f"insert.{policy}",
            }
            for kind, policy in names
        ],
        **more,
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The file of --infra."""
    path = tmp_path / "experiment.json"
    path.write_text(json.dumps(output()))
    return path


@pytest.fixture
def infra(file: Path) -> Infra:
    return read_infra(file)


@pytest.fixture
def aws(infra: Infra, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmulatedAWS]:
    """An emulated AWS with the functions' empty log groups, where boto3 asks."""
    with EmulatedAWS() as aws:
        variables(monkeypatch, **KEYS, **aws.variables)
        aws.groups |= {function.log_group for function in infra.functions}
        yield aws


@pytest.fixture
def clients(aws: EmulatedAWS) -> Clients:
    return Clients("us-east-1", timeout=10.0)


BEGIN = datetime.now(timezone.utc).replace(second=0, microsecond=0) - timedelta(hours=3)


def minute(number: float) -> datetime:
    return BEGIN + timedelta(minutes=number)


def line(new_id: int, **more: object) -> str:
    """What a function prints."""
    fields = {"elapsed": 16.5, "aurora_type": "cold", "new_id": new_id, "experiment": EXPERIMENT}
    counted = {"connects": 1, "retries": 0, "resume_wait": 0.0}
    return json.dumps({**fields, "policy": "hand_written", **counted, **more})
