"""
Which way to connect a workload should have: the policy with its reasons, and the rates at which another
way becomes the cheapest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

from lambdadb.operate.cost_model import (
    HOUR,
    Capacity,
    Choice,
    Prices,
    Workload,
    predict,
    predict_all,
    reconnects,
)


@dataclass(frozen=True, kw_only=True)
class BreakEven:
    """A rate from which on another way to connect is the cheapest."""

    per_hour: float
    before: Choice
    after: Choice

    def __str__(self) -> str:
        rate = f"{self.per_hour:,.0f}" if self.per_hour >= 100 else f"{self.per_hour:.2g}"
        after, before = self.after.value, self.before.value
        return f"From {rate} invocations an hour on, {after} is cheaper than {before}."


def cheapest(workload: Workload, capacity: Capacity, prices: Prices) -> Choice:
    """The cheapest way to connect. Of those that differ by less than 1 %, the first."""
    found = predict_all(workload, capacity, prices)
    least = min(one.cost for one in found)
    return next(one.choice for one in found if one.cost <= 1.01 * least)


def break_evens(
    workload: Workload,
    capacity: Capacity,
    prices: Prices,
    *,
    least: float = 0.01,
    most: float = 100_000.0,
    steps: int = 281,
) -> list[BreakEven]:
    """The rates between `least` and `most` an hour at which the cheapest way changes, to 0.1 %."""

    def at(rate: float) -> Choice:
        return cheapest(replace(workload, per_hour=rate), capacity, prices)

    rates = [least * (most / least) ** (step / (steps - 1)) for step in range(steps)]
    found: list[BreakEven] = []
    for low, end in pairwise(rates):
        # Two changes may lie between two steps.
        while (before := at(low)) is not at(end):
            high = end
            while high / low > 1.001:
                middle = math.sqrt(low * high)
                low, high = (middle, high) if at(middle) is before else (low, middle)
            low = high
            if found and high < 1.02 * found[-1].per_hour:  # one change, with a moment in between
                before = found.pop().before
            found.append(BreakEven(per_hour=high, before=before, after=at(high)))
    return found


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What to write in the code and in the cluster's settings, and why."""

    policy: str
    reasons: tuple[str, ...]


def advise(workload: Workload, capacity: Capacity, prices: Prices) -> Advice:
    """Which policy, with which idle timeout, and whether the connections suffice."""
    per_invocation = predict(Choice.PER_INVOCATION, workload, capacity, prices)
    per_environment = predict(Choice.PER_ENVIRONMENT, workload, capacity, prices)
    interval = HOUR * workload.burst / workload.per_hour
    always = predict(Choice.ALWAYS_ON, workload, capacity, prices)
    reasons = []
    never = per_invocation.paused < 0.01
    if never or cheapest(workload, capacity, prices) is Choice.ALWAYS_ON:
        policy = "PerEnvironment()"
        if not never:
            waiting = per_invocation.costs["waiting for resumes"]
            reasons.append(
                f"A cluster that never pauses is cheaper ({always.cost:.2f} against "
                f"{per_invocation.cost:.2f}): {waiting:.2f} would be paid for functions that wait for "
                "resumes. Set min_capacity = 0.5."
            )
        elif capacity.min_acu == 0:
            reasons.append(
                "The cluster is practically never paused. min_capacity = 0.5 costs about the same, and "
                "no invocation would wait for a resume."
            )
        if capacity.idle_timeout < interval < 900:
            policy = f"PerEnvironment(idle_session_timeout={math.ceil(2 * interval / 60) * 60})"
            reasons.append(
                f"An invocation comes every {interval:.0f} s: with a longer idle timeout the next one "
                "finds the session open."
            )
    elif reconnects(workload, capacity) > 0.5 or per_invocation.cost < per_environment.cost:
        policy = "PerInvocation()"
        reasons.append(
            f"The cluster is paused for {per_invocation.paused:.0%} of the time, with PerEnvironment "
            f"for {per_environment.paused:.0%}. The session that this keeps is rarely used again."
        )
    else:
        policy = "PerEnvironment()"
        reasons.append("Most invocations find the last session open, and the cluster still pauses.")
    if per_invocation.waits > 0.005 and always.cost >= per_invocation.cost:
        reasons.append(
            f"{per_invocation.waits:.0%} of the invocations wait about {capacity.resume:.0f} s for a "
            "resume. Give the function a timeout of 30 s or more, and HTTP callers a 503."
        )
    if per_invocation.connections > capacity.slots:
        reasons.append(
            f"At the peak {per_invocation.connections} environments want a connection each, and there "
            f"are {capacity.slots}. Lower the reserved concurrency, or raise max_capacity."
        )
    return Advice(policy=policy, reasons=tuple(reasons))
