"""The cost of a run by the reader's prices."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lambdadb.lab import LabError
from lambdadb.lab.bench.deployed import cost
from lambdadb.lab.bench.deployed.infra import Infra


def test_of_a_run_that_invokes(infra: Infra) -> None:
    """Both clusters for the whole time, a cold one at least for as long as it cannot pause."""
    prices = cost.read_prices()
    hot, cold, invocations, _ = cost.cost_of_invocations(infra, 5, None, prices)
    hours = 2 * 5 * 720 / 3600
    assert (hot.least, hot.most) == (0.5 * hours * 0.12, 1 * hours * 0.12)
    assert cold.least == pytest.approx(0.5 * hours * 0.12 * 320 / 720)
    assert cold.most == 1 * hours * 0.12
    assert 0 < invocations.most < 0.01


def test_prices_of_the_reader(infra: Infra, tmp_path: Path) -> None:
    """Another price makes another sum, and its date and region are told."""
    mine = {**json.loads(cost.PRICES.read_text()), "acu_hour": 12.0, "region": "eu-west-1"}
    file = tmp_path / "prices.json"
    file.write_text(json.dumps(mine))
    prices = cost.read_prices(file)
    lines = cost.described(cost.cost_of_invocations(infra, 5, None, prices), prices)
    assert lines[0] == "  hot cluster, 2.0 h: 12.00 to 24.00 USD"
    assert "together: 17.33 to 48.00 USD" in lines[-2]
    assert "eu-west-1" in lines[-1]


def test_of_reading_alone(infra: Infra) -> None:
    """Queries and metrics of a day are under a cent, and said to be."""
    prices = cost.read_prices()
    lines = cost.described(cost.cost_of_collection(infra, 24, prices), prices)
    assert "queries of the log, metrics: under 0.01 USD" in lines[0]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"acu_hour": -1}, "acu_hour is -1"),
        ({"acu_hour": "cheap"}, "acu_hour is 'cheap'"),
        (None, "acu_hour"),
    ],
)
def test_a_file_that_is_wrong(change: dict[str, object] | None, why: str, tmp_path: Path) -> None:
    """The price that is missing or none is named."""
    found = json.loads(cost.PRICES.read_text())
    if change is None:
        del found["acu_hour"]
    file = tmp_path / "prices.json"
    file.write_text(json.dumps({**found, **(change or {})}))
    with pytest.raises(LabError, match=why):
        cost.read_prices(file)
