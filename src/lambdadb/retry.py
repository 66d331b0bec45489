"""
How long a connect may take, when it tries again, and when it gives up. tenacity runs the loops.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum
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

# Seconds that a resume takes at least, as users have reported. Until then attempts are rare. Pauses of
# several seconds end earlier, so that none lasts until a short resume is over.
_SHORTEST_RESUME = 12.0
_LONG_PAUSES = 10.0

# The part of the wait that may be lost after a longer resume, as the pause between two attempts.
_LOST_PART = 0.05

# Seconds without an answer, after which another attempt is started: when the network has accepted the
# connection, at least, and if the server counts attempts; when the server was full before.
_ACCEPTED, _COUNTED = 2.0, 5.0
_BUSY = 15.0

# Seconds before its end at which a connect makes a last attempt.
_LAST_ATTEMPT = 1.0

# The pauses of a full server: the first is random, from nothing to the seconds that the refusal took,
# within these limits. Attempts that a resume has held are refused at one moment. The later ones are half
# of the wait so far, within the other limits. `nox -s fleet` shows what the figures do.
_FIRST_LEAST, _FIRST_MOST = 0.5, 2.5
_LATER_LEAST, _LATER_MOST = 0.25, 3.0

# Seconds after which a client is asked to try again when no connection was free. Nobody knows when one
# will be. It is about the longest pause, so that clients come no faster than connects.
_EXHAUSTED_AFTER = 5


class Silence(Enum):
    """How far an attempt came that has got no answer to its login so far."""

    UNREACHED = "unreached"
    """The network has not accepted the connection."""
    ACCEPTED = "accepted"
    """It was accepted, and no byte of the server has come."""
    COUNTED = "counted"
    """The same, and the server counts attempts that are given up. After many it blocks this host."""
    ANSWERED = "answered"
    """The server has begun to answer."""
    BUSY = "busy"
    """All connections of the server were in use before, so it is awake."""


@dataclass(frozen=True, kw_only=True)
class ResumeRetry:
    """
    Keep trying to connect while the database wakes up, inside the invocation's time.

    Only connects are repeated, never SQL. Only faults that can pass are waited for: a wrong password,
    an unknown host or a missing database fails at once.

    If an attempt gets no answer, a second one is started beside it. The first is kept, because a
    resuming Aurora is documented to hold a connection and to answer late. The second is renewed, because
    a packet or a connection may be lost. The first to log in is used, and the other is closed.

    No resume is known to take less than 12 s. Until a connect has waited for 10 s its attempts are rare.
    From then on at most `max_backoff` passes between two of them, or a twentieth of the wait.
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
    Seconds after which a second attempt is started if the network has not accepted the first. If it has,
    there are new attempts after 2 s, 6 s and 12 s, and then every second. One that the server has begun
    to answer gets 15 s. A database that wakes up may hold it, and a busy one answers late. A second
    before its end a connect makes a last attempt.
    """

    max_backoff: float = 1.0
    """
    Longest pause, in seconds, after a refusal by a database that may be about to be awake. In the first
    10 s, when no resume can be over, pauses grow from half of it to three times as much. Each pause is a
    random time from its upper half. How long a full server is left alone does not depend on it.
    """

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

    def patience(self, silence: Silence, waited: float, left: float) -> float:
        """
        Return the seconds without an answer after which another attempt is started.

        A connection that the network has accepted is held by a database that wakes up, or by one that is
        busy; more attempts would make it busier.

        Args:
            silence: How far the attempt came.
            waited: Seconds for which the connect had waited when the attempt came so far.
            left: Seconds that the connect had left then.
        """
        early = _SHORTEST_RESUME - waited
        if silence is Silence.BUSY:
            seconds = _BUSY
        elif silence is Silence.ANSWERED:
            seconds = min(max(_TYPICAL_RESUMES[0] - waited, waited / 2.0), left - _LAST_ATTEMPT)
        elif silence is Silence.COUNTED:
            seconds = _COUNTED
        elif silence is Silence.ACCEPTED and early > 0:
            seconds = min(max(_ACCEPTED, min(2.0 * waited, early)), left - _LAST_ATTEMPT)
        elif silence is Silence.ACCEPTED:
            seconds = max(self.max_backoff, waited * _LOST_PART)
        else:
            seconds = waited * _LOST_PART
        return max(self.hedge_after, seconds)

    def backoff(self, fault: Fault, waited: float, random: Random) -> float:
        """
        Return the seconds to pause after a refusal.

        Args:
            fault: What it said.
            waited: Seconds since the connect began; of a full server, since its first refusal.
            random: Spreads the attempts of many environments.
        """
        if fault is Fault.EXHAUSTED:
            longest = min(max(_LATER_LEAST, waited / 2.0), _LATER_MOST + waited * _LOST_PART)
            return longest * random.uniform(0.8, 1.0)
        if waited < _LONG_PAUSES:
            longest = min(max(self.max_backoff / 2.0, waited), 3.0 * self.max_backoff)
        else:
            longest = max(self.max_backoff, waited * _LOST_PART)
        return longest * random.uniform(0.5, 1.0)

    def first_exhausted_backoff(self, took: float, random: Random) -> float:
        """Return the seconds to pause after the first refusal of a full server, which took so long."""
        return random.uniform(0.0, min(max(_FIRST_LEAST, took), _FIRST_MOST))

    def retry_after(self, waited: float, fault: Fault = Fault.RESUMING) -> int:
        """Return the whole seconds until another try is worthwhile, after `waited` seconds in vain."""
        if fault is Fault.EXHAUSTED:
            return _EXHAUSTED_AFTER
        expected = next((typical for typical in _TYPICAL_RESUMES if typical > waited), waited + 5.0)
        return max(1, math.ceil(expected - waited))

    def retrying(
        self,
        can_wait: Callable[[AttemptFailed], bool],
        pause: Callable[[AttemptFailed], float],
        deadline: Deadline,
        clock: Clock,
        sleep: Callable[[float], None],
    ) -> Retrying:
        """Return a tenacity loop over attempts that ends before `deadline` and pauses with `sleep`."""

        def last_pause(failure: AttemptFailed, number: int) -> float:
            # A long pause before the end would use up the time of the last attempts.
            del number
            return min(pause(failure), max(self.max_backoff, deadline.remaining(clock) / 2.0))

        return retrying(
            again=lambda error: isinstance(error, AttemptFailed) and can_wait(error),
            pause=last_pause,
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
