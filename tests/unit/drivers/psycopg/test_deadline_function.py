"""The call that limits a transaction: its milliseconds, and when there is none."""

from __future__ import annotations

import pytest

from lambdadb.deadline import ActiveInvocations, Deadline, RunningInvocation, StatementDeadline
from lambdadb.drivers.psycopg.deadline_function import make_call


@pytest.mark.parametrize(
    ("left", "call"),
    [
        (30.0, b"SELECT app.f(29500)"),  # half of the reserve before the end
        (0.6004, b"SELECT app.f(101)"),
        (0.5, b"SELECT app.f(1)"),  # 0 would be no limit
        (-9.0, b"SELECT app.f(1)"),
        (1e9, b"SELECT app.f(2147483647)"),
    ],
)
def test_it_is_the_time_until_this_side_closes(left, call, clock):
    """In milliseconds of PostgreSQL's integer, rounded up."""
    invocations = ActiveInvocations()
    running = RunningInvocation(deadline=Deadline(clock.now() + left))
    invocations.enter(running)
    assert make_call(StatementDeadline(invocations, clock, 1.0, "app.f")) == call


def test_of_overlapping_invocations_the_last_to_end_counts(clock):
    """As on a development server: the end of one may not end the transaction of another."""
    invocations = ActiveInvocations()
    running = [RunningInvocation(deadline=Deadline(clock.now() + left)) for left in (9.0, 30.0, 5.0)]
    for one in running:
        invocations.enter(one)
    assert make_call(StatementDeadline(invocations, clock, 1.0, "f")) == b"SELECT f(29500)"
    assert invocations.deadline is running[2].deadline


def test_nothing_is_called_without_a_name_or_a_deadline(clock):
    """Outside of an invocation, in one without a time, and in engines that have no function."""
    invocations = ActiveInvocations()
    assert make_call(StatementDeadline(invocations, clock, 1.0, "f")) == b""
    timeless, timed = RunningInvocation(), RunningInvocation(deadline=Deadline(clock.now() + 9.0))
    invocations.enter(timeless)
    assert make_call(StatementDeadline(invocations, clock, 1.0, "f")) == b""
    invocations.enter(timed)
    assert make_call(StatementDeadline(invocations, clock, 1.0)) == b""
