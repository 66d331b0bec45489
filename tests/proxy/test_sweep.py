"""
Units of work through pgbouncer, damaged at every place on either side of it: none lost, none doubled.

pgbouncer has one session of the server. Each sweep runs at a sample of its places. `nox -s proxy` runs
it at all of them.
"""

from __future__ import annotations

from random import Random

import pytest

from lambdadb.lab.faultproxy.fault_clients import SILENT_TIME
from lambdadb.lab.faultproxy.fault_point import Action, points_at_boundaries
from lambdadb.lab.faultproxy.fault_sweep import (
    byte_points,
    open_pgbouncer_testbed,
    ours,
    peers,
    sweep,
)

CLIENTS = pytest.mark.parametrize("number", range(4), ids=[client.name for client in ours()])


def sample(places):
    """Parametrizes with a number of places, and with all of them in the full sweep."""
    full = pytest.param(None, marks=[pytest.mark.sweep, pytest.mark.timeout(1200)])
    return pytest.mark.parametrize("sample", [places, full], ids=["sample", "all"])


@pytest.fixture(scope="module", params=["client", "server"])
def testbed(request):
    """A server behind pgbouncer, whose connection to the client or to the server is damaged."""
    with open_pgbouncer_testbed(request.param) as testbed:
        yield testbed


def check(trials, least):
    """What holds for every trial, whatever was damaged; the trials."""
    trials = list(trials)
    assert [trial for trial in trials if trial.is_wrong] == []
    assert len(trials) >= least, "the sweep has become smaller"
    return trials


@CLIENTS
@sample(4)
@pytest.mark.parametrize("action", [Action.CLOSE, Action.RESET])
def test_every_boundary_and_every_byte_of_the_commit(number, action, sample, testbed):
    """Closed or reset anywhere while the server lives: committed once, and the client knows."""
    trials = check(sweep(testbed, ours()[number], action, sample=sample), least=sample or 45)
    assert [trial for trial in trials if trial.is_needless] == []


@sample(4)
@pytest.mark.parametrize("number", [0, 3], ids=["PerEnvironment", "PerInvocation async"])
def test_every_byte(number, sample, testbed):
    """The same at every single byte of a unit of work."""
    trials = check(
        sweep(testbed, ours()[number], Action.CLOSE, byte_points, sample=sample), least=sample or 500
    )
    assert [trial for trial in trials if trial.is_needless] == []


@CLIENTS
@pytest.mark.sweep
@pytest.mark.timeout(1200)
def test_a_crash_of_the_server_with_a_key_leaves_no_doubt(number, testbed):
    """A key's row survives a crash together with its transaction: exactly once, and known."""
    trials = check(
        sweep(
            testbed, ours(key=True)[number], Action.CLOSE, crash=True, sample=12, random=Random(number)
        ),
        least=12,
    )
    assert [trial for trial in trials if trial.claim != "committed"] == []


@pytest.mark.sweep
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("number", [0, 3], ids=["PerEnvironment", "PerInvocation async"])
@pytest.mark.parametrize("action", [Action.STALL, Action.DROP])
def test_a_silence_never_holds_a_handler_beyond_its_time(number, action, testbed):
    """When nothing is heard any more the invocation's time ends it, in doubt only after COMMIT."""
    check(
        sweep(testbed, ours(time=SILENT_TIME)[number], action, points_at_boundaries, sample=6), least=6
    )


@pytest.mark.sweep
def test_the_sweep_sees_what_a_naive_client_does(testbed):
    """The harness can fail: plain retries lose or double rows in it."""
    trials = list(sweep(testbed, peers()[0], Action.CLOSE, sample=24, random=Random(1)))
    assert any(trial.doubled for trial in trials)
