"""Pauses, budgets and estimates of `ResumeRetry`."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdadb import Fault, InvalidSettings, ResumeRetry
from lambdadb.deadline import Deadline
from lambdadb.drivers.base import AttemptFailed


@given(st.integers(1, 50), st.integers(0, 2**32), st.sampled_from([Fault.RESUMING, Fault.UNREACHABLE]))
def test_a_refusal_is_followed_by_a_jittered_pause(number, seed, fault):
    """Between half and all of `pause`, however many attempts there were."""
    pause = ResumeRetry(max_backoff=0.5).backoff(AttemptFailed(fault, ""), number, Random(seed))
    assert 0.25 <= pause <= 0.5


def test_a_thousand_environments_do_not_come_back_together():
    """Jitter spreads environments that failed at the same moment over half of the pause."""
    retry = ResumeRetry()
    failure = AttemptFailed(Fault.RESUMING, "")
    pauses = sorted(retry.backoff(failure, 1, Random(seed)) for seed in range(1000))
    assert pauses[900] - pauses[100] > 0.15


def test_pauses_grow_while_connections_are_taken():
    """Exhausted: the more attempts failed, the longer the pause, up to 4 s."""
    failure = AttemptFailed(Fault.EXHAUSTED, "")
    longest = [
        max(ResumeRetry().backoff(failure, number, Random(seed)) for seed in range(200))
        for number in (1, 2, 3, 10)
    ]
    assert longest == sorted(longest)
    assert 3.9 < longest[-1] <= 4.0


def test_silence_needs_no_pause():
    """After `silence` seconds without an answer the next attempt starts at once."""
    assert ResumeRetry().backoff(AttemptFailed(Fault.RESUMING, "", silent=True), 1, Random(0)) == 0.0


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


def test_a_server_that_was_full_is_given_time_to_answer():
    """Late answers of a full server mean that it is busy: no second attempt is started beside it."""
    retry = ResumeRetry(hedge_after=0.6)
    assert retry.patience() == 0.6
    assert retry.patience(exhausted=True) == 5.0
    assert ResumeRetry(hedge_after=8.0).patience(exhausted=True) == 8.0


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
