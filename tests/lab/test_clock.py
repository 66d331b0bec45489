from __future__ import annotations

import pytest

from lambdadb.lab import LabError
from lambdadb.lab.clock import LabClock


class Time:
    """Real time, moved by hand."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def test_lab_time_starts_at_zero_and_passes_at_the_given_speed() -> None:
    """A clock at speed 120 shows two minutes after one real second."""
    time = Time()
    clock = LabClock(120.0, monotonic=time)
    assert clock.now() == 0.0
    time.seconds += 1.0
    assert clock.now() == 120.0


def test_a_change_of_speed_keeps_the_time_continuous() -> None:
    """Changing the speed neither jumps nor rewrites the time that has passed."""
    time = Time()
    clock = LabClock(10.0, monotonic=time)
    time.seconds += 2.0
    clock.speed = 1.0
    assert clock.now() == 20.0
    time.seconds += 3.0
    assert clock.now() == 23.0
    assert clock.speed == 1.0


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_speed_is_refused(speed: float) -> None:
    """A speed at which time stands still or runs back is an error, also when set later."""
    with pytest.raises(LabError, match="above 0"):
        LabClock(speed)
    clock = LabClock()
    with pytest.raises(LabError, match="above 0"):
        clock.speed = speed
    assert clock.speed == 1.0
