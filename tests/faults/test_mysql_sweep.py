"""
Units of work on MariaDB, damaged at every place: no row lost, none doubled, nothing denied.

Each sweep runs at a sample of its places. `pytest -m sweep` runs it at all of them.
"""

from __future__ import annotations

import gc
import itertools
from random import Random

import pytest

from lambdadb.lab import LabError
from lambdadb.lab.faultproxy.fault_clients import SILENT_TIME
from lambdadb.lab.faultproxy.fault_point import Action, Direction, points_at_boundaries
from lambdadb.lab.faultproxy.fault_sweep import (
    byte_points,
    open_testbed,
    ours,
    peers,
    random_sweep,
    sweep,
)
from lambdadb.lab.mariadb import find_server

CLIENTS = pytest.mark.parametrize("number", range(4), ids=[client.name for client in ours()])
# PyMySQL leaves the unbuffered rows of a lost connection to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def sample(places):
    """Parametrizes with a number of places, and with all of them in the full sweep."""
    full = pytest.param(None, marks=[pytest.mark.sweep, pytest.mark.timeout(1200)])
    return pytest.mark.parametrize("sample", [places, full], ids=["sample", "all"])


@pytest.fixture(scope="module")
def testbed():
    """A MariaDB behind a proxy, for all sweeps of this file; skips where it is not installed."""
    try:
        find_server()
    except LabError as error:
        pytest.skip(str(error))
    with open_testbed("mysql") as testbed:
        yield testbed
    gc.collect()  # while the warnings of this file are ignored


def check(trials, least):
    """What holds for every trial, whatever was damaged; the trials."""
    trials = list(trials)
    assert [trial for trial in trials if trial.is_wrong] == []
    assert len(trials) >= least, "the sweep has become smaller"
    return trials


@CLIENTS
@sample(8)
@pytest.mark.parametrize("action", [Action.CLOSE, Action.RESET])
def test_every_boundary_and_every_byte_of_the_commit(number, action, sample, testbed):
    """Without a key a lost COMMIT is in doubt; anything else that is lost is repeated."""
    trials = check(sweep(testbed, ours()[number], action, sample=sample), least=sample or 30)
    assert {trial.claim for trial in trials} <= {"committed", "in doubt"}


@CLIENTS
@sample(8)
def test_a_key_leaves_no_doubt(number, sample, testbed):
    """With an idempotency key a unit is committed exactly once, wherever its connection is closed."""
    trials = check(
        sweep(testbed, ours(key=True)[number], Action.CLOSE, sample=sample), least=sample or 30
    )
    assert [trial for trial in trials if trial.claim != "committed"] == []


@sample(10)
@pytest.mark.parametrize("number", [0, 2], ids=["sync", "async"])
def test_doubt_begins_with_the_commit(number, sample, testbed):
    """Closed at any byte before COMMIT was sent, a unit is committed once, and its client knows."""
    client = ours()[number]

    def before_commit(messages, action):
        sent = [m for m in messages if m.direction is Direction.CLIENT_TO_SERVER]
        heard = [m for m in messages if m.direction is Direction.SERVER_TO_CLIENT]
        ends = {
            Direction.CLIENT_TO_SERVER: sum(m.length for m in sent[:-1]),
            Direction.SERVER_TO_CLIENT: sum(m.length for m in heard[:-1]),
        }
        points = byte_points(messages, action)
        return [point for point in points if point.byte < ends[point.direction]]

    trials = check(
        sweep(testbed, client, Action.CLOSE, before_commit, sample=sample), least=sample or 100
    )
    assert [trial for trial in trials if trial.claim != "committed"] == []


@CLIENTS
@sample(3)
def test_a_crash_of_the_server_at_every_place(number, sample, testbed):
    """With a crash in that moment and a key, a unit is committed exactly once all the same."""
    client, random = ours(key=True)[number], Random(number)
    trials = check(
        sweep(testbed, client, Action.CLOSE, crash=True, sample=sample, random=random),
        least=sample or 30,
    )
    assert [trial for trial in trials if trial.claim != "committed"] == []


@sample(1)
@pytest.mark.parametrize("number", [0, 3], ids=["PerEnvironment", "PerInvocation async"])
@pytest.mark.parametrize("action", [Action.STALL, Action.DROP])
def test_a_silent_network_never_holds_a_handler_beyond_its_time(number, action, sample, testbed):
    """When nothing is heard any more the invocation's time ends it, in doubt only after COMMIT."""
    client = ours(time=SILENT_TIME)[number]
    check(sweep(testbed, client, action, points_at_boundaries, sample=sample), least=sample or 12)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.sweep)])
def test_units_drawn_at_random(seed, testbed):
    """Clients, shapes of units, settings of sessions and faults: what is told is what is there."""
    trials = check(itertools.islice(random_sweep(testbed, Random(seed), places=3), 60), least=60)
    assert [trial for trial in trials if trial.is_needless] == []


def test_the_sweep_sees_what_a_naive_client_does(testbed):
    """The harness can fail: plain retries double rows in it."""
    trials = list(sweep(testbed, peers()[0], Action.CLOSE))
    assert any(trial.doubled for trial in trials)
