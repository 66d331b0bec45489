"""The picture of a cluster's capacity."""

from __future__ import annotations

import math

from lambdadb.lab.bench.zigzag import steps


def test_steps() -> None:
    """Each value lasts for its minute, and a minute without a value interrupts the line."""
    times, values = steps([(0, 0.5), (1, 1.0), (5, 0.0)])
    assert times == [0, 1, 2, 5, 6]
    assert values[:2] == [0.5, 1.0]
    assert math.isnan(values[2])
    assert values[3:] == [0.0, 0.0]
