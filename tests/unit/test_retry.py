"""Pauses, budgets and estimates of `ResumeRetry`."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdadb import Fault, InvalidSettings, ResumeRetry
from lambdadb.deadline import Deadline
from lambdadb.drivers.base import AttemptFailed
from lambdadb.retry import Silence


@given(
    st.floats(10.0, 60.0), st.integers(0, 2**32), st.sampled_from([Fault.RESUMING, Fault.UNREACHABLE])
)
def test_little_is_lost_when_a_resume_may_be_over(waited, seed, fault):
    """A pause is at most `max_backoff`, or a twentieth of the wait, and at least half of that."""
    longest = max(0.5, waited / 20)
    pause = ResumeRetry(max_backoff=0.5).backoff(fault, waited, Random(seed))
    assert longest / 2 <= pause <= longest


def test_attempts_are_rare_while_no_resume_can_be_over():
    """In the first 10 s a pause is as long as the wait so far, from half of `max_backoff` to thrice."""
    retry = ResumeRetry()
    longest = [
        max(retry.backoff(Fault.RESUMING, waited, Random(seed)) for seed in range(200))
        for waited in (0.0, 1.0, 5.0, 9.9)
    ]
    assert longest == pytest.approx([0.5, 1.0, 3.0, 3.0], rel=0.02)


def test_a_thousand_environments_do_not_come_back_together():
    """Jitter spreads environments that failed at the same moment over half of the pause."""
    retry = ResumeRetry()
    pauses = sorted(retry.backoff(Fault.RESUMING, 15.0, Random(seed)) for seed in range(1000))
    assert pauses[900] - pauses[100] > 0.15


@pytest.mark.parametrize(("took", "most"), [(0.01, 0.5), (1.6, 1.6), (20.0, 2.5)])
def test_a_first_refusal_of_a_full_server_spreads_the_fleet(took, most):
    """Up to 0.5 s if it refuses at once, up to the seconds that it took if it is busy, or 2.5 s."""
    retry = ResumeRetry()
    pauses = sorted(retry.first_exhausted_backoff(took, Random(seed)) for seed in range(1000))
    assert pauses[0] < most / 100
    assert 0.98 * most < pauses[-1] <= most


def test_pauses_grow_while_connections_are_taken():
    """Exhausted: half of the wait so far, up to 3 s and a twentieth of the wait."""
    retry = ResumeRetry()
    longest = [
        max(retry.backoff(Fault.EXHAUSTED, waited, Random(seed)) for seed in range(200))
        for waited in (0.1, 1.0, 4.0, 20.0, 100.0)
    ]
    assert longest == pytest.approx([0.25, 0.5, 2.0, 4.0, 8.0], rel=0.01)


def test_the_budget_is_the_smaller_of_limit_and_remaining_time(clock):
    """Lambda's time less the reserve, or the retry's own limit, whichever ends first."""
    retry = ResumeRetry(timeout=20, reserve=2)
    now = clock.now()
    assert retry.connect_deadline(clock, None).at == now + 20
    assert retry.connect_deadline(clock, Deadline(now + 10)).at == now + 8
    assert retry.connect_deadline(clock, Deadline(now + 900)).at == now + 20


@pytest.mark.parametrize(
    ("waited", "expected"), [(0, 15), (2.5, 13), (14.9, 1), (15, 15), (29, 1), (45, 15), (200, 5)]
)
def test_retry_after_follows_the_known_resume_times(waited, expected):
    """15 s typical, 30 s after a day of pause, up to 2 min reported; always a whole second ahead."""
    assert ResumeRetry().retry_after(waited) == expected


@pytest.mark.parametrize(
    "wrong", [{"timeout": 0}, {"timeout": -1}, {"reserve": -0.1}, {"hedge_after": 0}, {"max_backoff": 0}]
)
def test_numbers_that_cannot_work_are_refused(wrong):
    """A bad number is found while building, and named."""
    with pytest.raises(InvalidSettings, match=next(iter(wrong))):
        ResumeRetry(**wrong)


@pytest.mark.parametrize(
    ("errors", "text", "found"),
    [
        ([1105], "1105: Unknown error", True),
        ([110], "1105: Unknown error", False),
        (["57P04"], "ERROR: database dropped; SQLState: 57P04", True),
        (["is not ready"], "FATAL:  the instance is not ready\n\thint", True),
        (["instance is not ready"], "FATAL:  the instance\nis not ready.", True),
        ([], "1105: Unknown error", False),
    ],
)
def test_further_errors_of_a_resume(errors, text, found):
    """Their words are looked for in the text, in one line as `ConnectFailed` shows it."""
    failure = AttemptFailed(Fault.MISCONFIGURED, text)
    ResumeRetry(resuming_errors=errors).diagnose(failure)
    assert failure.fault is (Fault.RESUMING if found else Fault.MISCONFIGURED)
    assert failure.remedy == failure.fault.remedy


@pytest.mark.parametrize("errors", ["1105", 1105, None, [""], [": "], [1105.0], [True], b"1105"])
def test_errors_that_are_no_list_of_numbers_and_texts(errors):
    """They are refused while building. An empty text would be found in every error."""
    with pytest.raises(InvalidSettings, match="resuming_errors"):
        ResumeRetry(resuming_errors=errors)


def test_errors_are_kept_as_they_were_given():
    """A list that changes later changes nothing, and the settings can be compared."""
    errors = [1105]
    retry = ResumeRetry(resuming_errors=errors)
    errors.append("all")
    assert retry == ResumeRetry(resuming_errors=(1105,))
    assert hash(retry) == hash(ResumeRetry(resuming_errors=(1105,)))


@pytest.mark.parametrize(
    ("silence", "waited", "seconds"),
    [
        (Silence.UNREACHED, 0.0, 0.6),
        (Silence.UNREACHED, 15.0, 0.75),
        (Silence.ACCEPTED, 0.0, 2.0),
        (Silence.ACCEPTED, 2.0, 4.0),
        (Silence.ACCEPTED, 6.0, 6.0),
        (Silence.ACCEPTED, 11.0, 2.0),
        (Silence.ACCEPTED, 12.0, 1.0),
        (Silence.ACCEPTED, 40.0, 2.0),
        (Silence.ANSWERED, 0.0, 15.0),
        (Silence.ANSWERED, 12.0, 6.0),
        (Silence.BUSY, 0.0, 15.0),
    ],
)
def test_the_further_an_attempt_came_the_longer_it_is_waited_for(silence, waited, seconds):
    """An unreached server is tried again soon. One that may be busy, or that wakes up, is not."""
    assert ResumeRetry().patience(silence, waited, 60.0) == pytest.approx(seconds)
    assert ResumeRetry(hedge_after=40.0).patience(silence, waited, 60.0) == 40.0


@pytest.mark.parametrize("silence", [Silence.ACCEPTED, Silence.ANSWERED])
def test_a_connect_makes_a_last_attempt(silence):
    """A second before its end it tries again, as far as `hedge_after` allows."""
    assert ResumeRetry().patience(silence, 5.0, 3.0) == 2.0
    assert ResumeRetry().patience(silence, 5.0, 1.2) == 0.6
