"""
How long a connect may take, when it tries again, and when it gives up. tenacity runs the loops.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from lambdadb.deadline import Clock, Deadline
from lambdadb.drivers.base import AttemptFailed
from lambdadb.errors import InvalidSettings
from lambdadb.faults import Fault, one_line

if TYPE_CHECKING:
    from tenacity import RetryCallState, Retrying

# Seconds that a resume usually takes: after less than 24 h of pause, and after more (Aurora User
# Guide, "Scaling to zero"). The other two are the longest that users have reported.
_TYPICAL_RESUMES = (15.0, 30.0, 60.0, 120.0)

OUTSIDE_INVOCATION = 60.0
"""Seconds that a connect may take outside of an invocation, without a `timeout`."""

# Seconds to pause after "too many connections". The pause doubles from the first value to the second.
_EXHAUSTED_FIRST, _EXHAUSTED_MOST = 0.25, 4.0

# Seconds without an answer, where more attempts would do harm.
_LONG_PATIENCE = 5.0

# Seconds after which a client is asked to try again when no connection was free. Nobody knows when one
# will be. It is about the longest pause, so that clients come no faster than connects.
_EXHAUSTED_AFTER = 5


@dataclass(frozen=True, kw_only=True)
class ResumeRetry:
    """
    Keep trying to connect while the database wakes up, inside the invocation's time.

    Only connects are repeated, never SQL. Only faults that can pass are waited for: a wrong password,
    an unknown host or a missing database fails at once.

    If an attempt gets no answer for `hedge_after` seconds, a second one is started beside it. The first
    is kept, because a resuming Aurora is documented to hold a connection and to answer late. The second
    is renewed, because a packet or a connection may be lost. The first to log in is used, and the other
    is closed.
    """

    timeout: float | None = None
    """
    Seconds that one connect may take. None: the time that the invocation has left, less `reserve`; 60 s
    outside of an invocation. A resume typically takes 15 s, and 30 s or more after a day of pause.
    """

    reserve: float = 1.0
    """Seconds of the invocation that are kept for the handler's answer."""

    hedge_after: float = 0.6
    """
    Seconds without an answer after which a second attempt is started. It should be longer than a healthy
    server takes for its first byte. With thousands of environments a longer time makes fewer attempts.
    """

    max_backoff: float = 0.5
    """Longest pause, in seconds, after a refusal. Each pause is a random time from its upper half."""

    exhausted_timeout: float | None = None
    """
    Seconds for which a connect waits while all connections of the server, or of its role, are in use.
    None: as long as for a resume. With a few seconds an HTTP caller gets its 503 soon, and waiting does
    not use up the function's concurrency.
    """

    resuming_errors: Collection[int | str] = ()
    """
    Further errors of a connect that mean a database that is waking up, and are waited for. Each is a
    part of the text of `ConnectFailed`: a number such as MySQL's 1105, or words. AWS does not publish
    what a resuming cluster answers. So you may meet an error that lambdadb does not know.
    """

    def __post_init__(self) -> None:
        for name in ("timeout", "hedge_after", "max_backoff", "exhausted_timeout"):
            value = getattr(self, name)
            if value is None and name.endswith("timeout"):
                continue
            if not (isinstance(value, (int, float)) and value > 0):
                raise InvalidSettings(
                    f"ResumeRetry({name}={getattr(self, name)!r}): use seconds above 0."
                )
        if not (isinstance(self.reserve, (int, float)) and self.reserve >= 0):
            raise InvalidSettings(f"ResumeRetry(reserve={self.reserve!r}): use 0 or more seconds.")
        errors = self.resuming_errors
        is_list = isinstance(errors, Collection) and not isinstance(errors, (str, bytes))
        if not is_list or not all(map(_can_be_found, errors)):
            raise InvalidSettings(
                f"ResumeRetry(resuming_errors={errors!r}): use a list of numbers and texts, such as "
                "[1105] or ['is not ready']."
            )
        object.__setattr__(self, "resuming_errors", tuple(errors))  # a list may change, and has no hash

    def diagnose(self, failure: AttemptFailed) -> None:
        """Change the fault of a failure that is one of `resuming_errors`."""
        text = one_line(failure.text)
        if any(_has_words(text, str(one)) for one in self.resuming_errors):
            failure.change_fault(Fault.RESUMING)

    def connect_deadline(self, clock: Clock, invocation: Deadline | None) -> Deadline:
        """Return the deadline of a connect that starts now. `invocation` is its invocation's end."""
        if invocation is None:
            return Deadline(clock.now() + (OUTSIDE_INVOCATION if self.timeout is None else self.timeout))
        left = Deadline(invocation.at - self.reserve)
        return left if self.timeout is None else left.earlier(Deadline(clock.now() + self.timeout))

    def patience(self, *, exhausted: bool = False, counted: bool = False) -> float:
        """
        Return the seconds without an answer after which another attempt is started.

        Args:
            exhausted: Whether the server has answered "too many connections". Then it is awake. If it
                answers late, it is busy, and more attempts would make it busier.
            counted: Whether the server counts attempts that are given up, and blocks this host after
                many.
        """
        return max(self.hedge_after, _LONG_PATIENCE) if exhausted or counted else self.hedge_after

    def backoff(self, failure: AttemptFailed, number: int, random: Random) -> float:
        """
        Return the seconds to pause after failed attempt `number`, from 1.

        After the refusal of a full server, only its refusals are counted.
        """
        if failure.silent:
            return 0.0  # the attempt has already waited for `hedge_after`
        longest = self.max_backoff
        if failure.fault is Fault.EXHAUSTED:
            # Other clients wait for a free connection too, so the pauses grow.
            longest = min(_EXHAUSTED_FIRST * 2.0**number, _EXHAUSTED_MOST)
        return longest * random.uniform(0.5, 1.0)

    def retry_after(self, waited: float, fault: Fault = Fault.RESUMING) -> int:
        """Return the whole seconds until another try is worthwhile, after `waited` seconds in vain."""
        if fault is Fault.EXHAUSTED:
            return _EXHAUSTED_AFTER
        expected = next((typical for typical in _TYPICAL_RESUMES if typical > waited), waited + 5.0)
        return max(1, math.ceil(expected - waited))

    def retrying(
        self,
        can_wait: Callable[[AttemptFailed], bool],
        deadline: Deadline,
        clock: Clock,
        random: Random,
        sleep: Callable[[float], None],
    ) -> Retrying:
        """Return a tenacity loop over attempts that ends before `deadline` and pauses with `sleep`."""
        refusals = itertools.count(1)

        def pause(failure: AttemptFailed, number: int) -> float:
            # Attempts before the server was awake say nothing about how full it is.
            exhausted = failure.fault is Fault.EXHAUSTED
            return self.backoff(failure, next(refusals) if exhausted else number, random)

        return retrying(
            again=lambda error: isinstance(error, AttemptFailed) and can_wait(error),
            pause=pause,
            deadline=deadline,
            clock=clock,
            sleep=sleep,
        )


def _has_words(text: str, words: str) -> bool:
    """Whether the text has these words: 110 is not in 1105."""
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text) is not None


def _can_be_found(error: object) -> bool:
    """Whether it is a number, or a text that has a word."""
    if isinstance(error, str):
        return re.search(r"\w", error) is not None
    return isinstance(error, int) and not isinstance(error, bool)


def conflict_backoff(number: int, random: Random) -> float:
    """Return the seconds to pause before run `number` + 1 of a transaction: 10 ms, doubled up to 1 s."""
    return min(0.01 * 2.0**number, 1.0) * random.uniform(0.5, 1.0)


def retrying(
    *,
    again: Callable[[BaseException], bool],
    pause: Callable[[Any, int], float],
    deadline: Deadline,
    clock: Clock,
    sleep: Callable[[float], None],
) -> Retrying:
    """
    Return a tenacity loop that never sleeps beyond `deadline`, and then raises the last error.

    Args:
        again: Whether to try again after this error.
        pause: Seconds to pause after an error; also gets the number of the attempt, from 1.
    """
    # Imported here, because a connect to a database that is awake does not need it.
    from tenacity import Retrying, retry_if_exception

    def wait(state: RetryCallState) -> float:
        return pause(state.outcome.exception() if state.outcome else None, state.attempt_number)

    return Retrying(
        retry=retry_if_exception(again),
        wait=wait,
        stop=lambda state: state.upcoming_sleep >= deadline.remaining(clock),
        sleep=sleep,
        reraise=True,
    )
