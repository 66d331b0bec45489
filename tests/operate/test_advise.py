"""The command `lambdadb advise`: table, JSON, prices of one's own, a picture, and inputs from AWS."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from .conftest import REGION

Run = Callable[..., Result]


def test_the_table(lambdadb: Run) -> None:
    """Five ways side by side, the policy, and whose prices these are."""
    done = lambdadb("advise", "--per-hour", "5", "--shape", "regular", "--pause", "420")
    assert done.exit_code == 0, done.output
    for shown in ("PerInvocation", "39.6%", "26.93", "Policy: PerInvocation()", "not AWS's price list"):
        assert shown in done.stdout


def test_json(lambdadb: Run) -> None:
    """All figures, with the inputs that they came from."""
    done = lambdadb("advise", "--per-hour", "2000", "--burst", "200", "--json")
    facts = json.loads(done.stdout)
    assert facts["capacity"]["slots"] == 184
    assert facts["predictions"][0]["connections"] == 200
    assert facts["break_evens"][0]["after"] == "always on"


def test_prices_of_ones_own(lambdadb: Run, tmp_path: Path) -> None:
    """A copy is written once, can be edited, and is used."""
    file = tmp_path / "prices.json"
    assert lambdadb("advise", "--copy-prices", str(file)).exit_code == 0
    assert lambdadb("advise", "--copy-prices", str(file)).exit_code == 2
    file.write_text(file.read_text().replace('"acu_hour": 0.12', '"acu_hour": 0.24'))
    done = lambdadb("advise", "--per-hour", "5", "--prices", str(file), "--json")
    always = json.loads(done.stdout)["predictions"][-1]
    assert always["cost"] == pytest.approx(87.6)
    file.write_text("{}")
    refused = lambdadb("advise", "--per-hour", "5", "--prices", str(file))
    assert refused.exit_code == 2
    assert "cannot be read" in refused.output


def test_the_picture(lambdadb: Run, tmp_path: Path) -> None:
    """A PNG; a name whose ending is no picture's is refused."""
    file = tmp_path / "costs.png"
    assert lambdadb("advise", "--per-hour", "5", "--picture", str(file)).exit_code == 0
    assert file.read_bytes().startswith(b"\x89PNG")
    wrong = lambdadb("advise", "--per-hour", "5", "--picture", str(tmp_path / "costs.doc"))
    assert wrong.exit_code == 2
    assert "cannot be written" in wrong.stderr


def test_inputs_from_aws(lambdadb: Run, session: Any) -> None:
    """The rate and the duration of a function, and the capacity of a cluster; an option wins."""
    now = datetime.now(timezone.utc)
    values = {"Invocations": 3360.0, "Duration": 250.0, "ConcurrentExecutions": 3.0}
    session.client("cloudwatch").put_metric_data(
        Namespace="AWS/Lambda",
        MetricData=[
            {
                "MetricName": name,
                "Dimensions": [{"Name": "FunctionName", "Value": "orders-api"}],
                "Timestamp": now - timedelta(days=3),
                "Value": value,
            }
            for name, value in values.items()
        ],
    )
    names = ("advise", "--function", "orders-api", "--cluster", "orders", "--region", REGION)
    done = lambdadb(*names, "--max-acu", "4", "--json")
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert facts["workload"]["per_hour"] == 10
    assert (facts["workload"]["duration"], facts["workload"]["concurrency"]) == (0.25, 3)
    assert facts["predictions"][0]["connections"] == 3
    assert (facts["capacity"]["pause"], facts["capacity"]["max_acu"]) == (300, 4)
    unknown = lambdadb("advise", "--function", "nobody", "--region", REGION)
    assert unknown.exit_code == 2
    assert "no invocation of nobody" in unknown.output


@pytest.mark.parametrize("arguments", [[], ["--per-hour", "0"], ["--per-hour", "5", "--max-acu", "0.5"]])
def test_inputs_that_cannot_be(arguments: list[str], lambdadb: Run) -> None:
    """A usage error that names the input."""
    done = lambdadb("advise", *arguments)
    assert done.exit_code == 2
    assert "Error" in done.output
