"""The model of `lambdadb advise`, beside arrivals that are walked through one by one."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdadb import InvalidSettings
from lambdadb.operate.advise import advise, break_evens, cheapest
from lambdadb.operate.cost_model import (
    PRICES,
    Capacity,
    Choice,
    Workload,
    interpolate,
    peak_concurrency,
    predict,
    predict_all,
    random_share,
    read_prices,
    regular_shares,
)

PRICE = read_prices()
CLUSTER = Capacity(pause=420.0)


def walk(arrivals: Iterable[float], awake: float, resume: float) -> tuple[float, float]:
    """Share of the time paused, and of the arrivals that wait, by the rules of auto-pause alone."""
    pauses_at, paused, cold, count, last = 0.0, 0.0, 0, 0, 0.0
    for at in arrivals:
        count, last = count + 1, at
        ready = at
        if at > pauses_at:
            paused += at - pauses_at
            cold += 1
            ready = at + resume
        pauses_at = max(pauses_at, ready + awake)
    return paused / last, cold / count


@pytest.mark.parametrize("interval", [300.0, 421.0, 430.0, 437.0, 720.0, 3600.0])
def test_regular_arrivals(interval: float) -> None:
    """The formula says what the walk finds, also where every other arrival waits."""
    arrivals = (interval * number for number in range(1, 4001))
    assert regular_shares(interval, 421.0, 15.0) == pytest.approx(walk(arrivals, 421.0, 15.0), abs=2e-3)


@pytest.mark.parametrize("interval", [60.0, 300.0, 720.0, 3600.0])
def test_random_arrivals(interval: float) -> None:
    """The formula says what the walk finds, of the time and of the arrivals."""
    random, at, arrivals = Random(7), 0.0, []
    for _ in range(200_000):
        at += random.expovariate(1 / interval)
        arrivals.append(at)
    expected = random_share(interval, 420.2, 15.0)
    assert walk(arrivals, 420.2, 15.0) == pytest.approx((expected, expected), abs=0.004)


def test_the_published_benchmark() -> None:
    """Every 12 minutes, a pause after 7: 39 % and 31 %, as the benchmark's page has it."""
    every_12 = Workload(per_hour=5, shape="regular", duration=0.1)
    assert round(predict(Choice.PER_INVOCATION, every_12, CLUSTER, PRICE).paused, 2) == 0.40
    assert round(predict(Choice.PER_ENVIRONMENT, every_12, CLUSTER, PRICE).paused, 2) == 0.31


@given(
    st.floats(0.001, 1e6),
    st.sampled_from(["regular", "random"]),
    st.integers(1, 1000),
    st.floats(0.001, 900),
    st.floats(0.1, 24),
)
def test_shares_and_costs_are_possible(
    rate: float, shape: str, burst: int, duration: float, hours: float
) -> None:
    """For all inputs: shares between 0 and 1, costs of 0 or more, connections for a whole burst."""
    workload = Workload(per_hour=rate, shape=shape, burst=burst, duration=duration, hours=hours)  # type: ignore[arg-type]
    for one in predict_all(workload, Capacity(), PRICE):
        assert 0 <= one.paused <= 1
        assert 0 <= one.waits <= 1
        assert min(one.costs.values()) >= 0
        assert math.isfinite(one.cost)
    per_invocation = predict(Choice.PER_INVOCATION, workload, Capacity(), PRICE)
    assert per_invocation.connections >= burst
    assert per_invocation.paused >= predict(Choice.PER_ENVIRONMENT, workload, Capacity(), PRICE).paused


def test_what_never_pauses() -> None:
    """A proxy, a minimum capacity, and traffic without gaps."""
    rare = Workload(per_hour=1)
    assert predict(Choice.PROXY, rare, Capacity(), PRICE).paused == 0
    assert predict(Choice.PER_INVOCATION, rare, Capacity(min_acu=0.5), PRICE).paused == 0
    assert predict(Choice.PER_INVOCATION, Workload(per_hour=1e6), Capacity(), PRICE).paused == 0


def test_costs_of_a_month() -> None:
    """Published examples: 0.5 ACU around the clock 43.80, a proxy's minimum 87.60."""
    rare = Workload(per_hour=0.001)
    assert predict(Choice.ALWAYS_ON, rare, Capacity(), PRICE).cost == pytest.approx(43.80, abs=0.01)
    assert predict(Choice.PROXY, rare, Capacity(), PRICE).costs["proxy"] == pytest.approx(87.60)
    assert predict(Choice.PER_INVOCATION, rare, Capacity(), PRICE).cost < 0.1


def test_hours_of_a_day() -> None:
    """The hours in which nothing comes are paused, but for the first minutes."""
    busy = Workload(per_hour=3600, hours=8)
    assert predict(Choice.PER_INVOCATION, busy, Capacity(), PRICE).paused == pytest.approx(
        (16 * 3600 - 300.2) / 86400, abs=1e-3
    )


def test_environments_at_a_time() -> None:
    """A burst needs one each; random arrivals more than their average."""
    assert peak_concurrency(Workload(per_hour=5, shape="regular", burst=200)) == 200
    assert peak_concurrency(Workload(per_hour=3600, shape="regular", duration=2.5)) == 3
    load = Workload(per_hour=36_000, duration=1.0)  # 10 on average
    assert 20 <= peak_concurrency(load) <= 35
    assert peak_concurrency(replace(load, duration=100.0)) == pytest.approx(1150, abs=20)


@pytest.mark.parametrize(
    ("acu", "limit"), [(1, 189), (4, 823), (8, 1669), (16, 3360), (32, 5000), (128, 5000)]
)
def test_connections_by_capacity(acu: float, limit: int) -> None:
    """The table of the Aurora User Guide; a minimum of 0 or 0.5 ACU admits 2,000 at most."""
    assert interpolate(acu) == limit
    assert 189 < interpolate(2) < 823
    assert Capacity(max_acu=acu).slots == min(limit, 2000) - 5
    assert Capacity(min_acu=1, max_acu=acu).slots == limit - 5


def test_where_the_cheapest_changes() -> None:
    """At each break-even point another way is the cheapest than just before."""
    workload = Workload(per_hour=1, burst=200)
    points = break_evens(workload, Capacity(), PRICE)
    assert points
    for point in points:
        assert point.before is not point.after
        rate = replace(workload, per_hour=point.per_hour * 1.03)
        assert cheapest(rate, Capacity(), PRICE) is point.after


@pytest.mark.parametrize(
    ("workload", "policy", "said"),
    [
        (Workload(per_hour=5), "PerInvocation()", "wait about 15 s"),
        (Workload(per_hour=3600), "PerEnvironment()", "never paused"),
        (Workload(per_hour=30, shape="regular"), "PerEnvironment(idle_session_timeout=240)", "120 s"),
        (Workload(per_hour=2000, burst=200), "PerEnvironment", "there are 184"),
        (Workload(per_hour=2000, burst=200), "PerEnvironment", "never pauses is cheaper"),
    ],
)
def test_advice(workload: Workload, policy: str, said: str) -> None:
    """The policy, and what to know about it."""
    found = advise(workload, Capacity(), PRICE)
    assert found.policy.startswith(policy)
    assert said in " ".join(found.reasons)


def test_prices_of_ones_own(tmp_path: Path) -> None:
    """A copy can be edited; what cannot be read is named."""
    file = tmp_path / "prices.json"
    facts = json.loads(PRICES.read_text())
    facts["prices"]["acu_hour"] = 0.2
    file.write_text(json.dumps(facts))
    assert read_prices(file).acu_hour == 0.2
    assert "check" in PRICE.source
    del facts["prices"]["acu_hour"]
    file.write_text(json.dumps(facts))
    for path in (file, tmp_path / "none.json"):
        with pytest.raises(InvalidSettings, match="cannot be read"):
            read_prices(path)


@pytest.mark.parametrize(
    "values", [{"per_hour": 0}, {"per_hour": 1, "burst": 0}, {"per_hour": 1, "hours": 25}]
)
def test_workloads_that_cannot_be(values: dict[str, float]) -> None:
    """A number out of its range is named."""
    with pytest.raises(InvalidSettings, match="="):
        Workload(**values)  # type: ignore[arg-type]
    with pytest.raises(InvalidSettings, match="max_acu"):
        Capacity(max_acu=0.5)
