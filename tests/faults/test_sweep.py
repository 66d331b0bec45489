"""
Units of work, damaged at every place: no row lost, none doubled, nothing denied, no needless doubt.

Each sweep runs at a sample of its places. `pytest -m sweep` runs it at all of them.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from random import Random

import psycopg
import pytest
from sqlalchemy import text

import lambdadb
from lambdadb import CommitInDoubt, run_transaction
from lambdadb.lab.faultproxy.fault_clients import MARKER, SILENT_TIME
from lambdadb.lab.faultproxy.fault_point import Action, Direction, FaultPoint, points_at_boundaries
from lambdadb.lab.faultproxy.fault_sweep import (
    byte_points,
    open_testbed,
    ours,
    peers,
    random_sweep,
    sweep,
)
from lambdadb.lab.faultproxy.unit_shapes import HALF, INSERT, SHAPES

CLIENTS = pytest.mark.parametrize("number", range(4), ids=[client.name for client in ours()])


def sample(places):
    """Parametrizes with a number of places, and with all of them in the full sweep."""
    full = pytest.param(None, marks=[pytest.mark.sweep, pytest.mark.timeout(1200)])
    return pytest.mark.parametrize("sample", [places, full], ids=["sample", "all"])


@pytest.fixture(scope="module")
def testbed():
    """A server behind a proxy, for all sweeps of this file."""
    with open_testbed() as testbed:
        yield testbed


def answer_points(messages, action):
    """Every boundary in what the server sends."""
    points = points_at_boundaries(messages, action)
    return [point for point in points if point.direction is Direction.SERVER_TO_CLIENT]


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
    """Closed or reset anywhere while the server lives: committed once, and the client knows."""
    trials = check(sweep(testbed, ours()[number], action, sample=sample), least=sample or 45)
    assert [trial for trial in trials if trial.is_needless] == []


@sample(20)
@pytest.mark.parametrize("number", [0, 2], ids=["sync", "async"])
def test_every_byte(number, sample, testbed):
    """The same at every single byte of a unit of work on a warm connection."""
    client = ours()[number]
    trials = check(sweep(testbed, client, Action.CLOSE, byte_points, sample=sample), least=sample or 500)
    assert [trial for trial in trials if trial.is_needless] == []


@CLIENTS
@sample(2)
def test_a_crash_of_the_server_at_every_place(number, sample, testbed):
    """With a crash in that moment, doubt is left only where the row is there and no key proves it."""
    random = Random(number)
    trials = check(
        sweep(testbed, ours()[number], Action.CLOSE, crash=True, sample=sample, random=random),
        least=sample or 45,
    )
    for trial in trials:
        assert trial.claim == "committed" or (trial.claim == "in doubt" and trial.rows == (1,)), trial


@sample(1)
@pytest.mark.parametrize("shape", [s for s in SHAPES if s.claim == HALF], ids=lambda shape: shape.name)
def test_a_crash_after_a_commit_of_the_units_own(shape, sample, testbed):
    """What the unit committed itself is never done twice, also when no answer proves it."""
    client = replace(ours()[0], shape=shape)
    check(
        sweep(testbed, client, Action.CLOSE, answer_points, crash=True, sample=sample),
        least=sample or 5,
    )


@CLIENTS
@sample(2)
def test_a_crash_with_a_key_leaves_no_doubt(number, sample, testbed):
    """A key's row survives a crash together with its transaction: exactly once, and known."""
    client, random = ours(key=True)[number], Random(number)
    trials = check(
        sweep(testbed, client, Action.CLOSE, crash=True, sample=sample, random=random),
        least=sample or 45,
    )
    assert [trial for trial in trials if trial.claim != "committed"] == []


@sample(2)
@pytest.mark.parametrize("number", [0, 3], ids=["PerEnvironment", "PerInvocation async"])
@pytest.mark.parametrize("action", [Action.STALL, Action.DROP])
def test_a_silent_network_never_holds_a_handler_beyond_its_time(number, action, sample, testbed):
    """When nothing is heard any more the invocation's time ends it, in doubt only after COMMIT."""
    client = ours(time=SILENT_TIME)[number]
    trials = check(
        sweep(testbed, client, action, points_at_boundaries, sample=sample), least=sample or 20
    )
    for trial in trials:
        if trial.claim == "in doubt":
            assert "could not be asked" in trial.error, trial


# SQLAlchemy leaves the server-side cursor of a lost connection to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.sweep)])
def test_units_drawn_at_random(seed, testbed):
    """Clients, shapes of units, settings of sessions and faults: what is told is what is there."""
    trials = check(itertools.islice(random_sweep(testbed, Random(seed), places=3), 40), least=40)
    assert [trial for trial in trials if trial.is_needless] == []


def test_a_reused_transaction_id_proves_nothing(testbed):
    """
    After a crash the id of a lost transaction is given to another one, which commits: the server then
    says "committed" of a row that is not there. That is doubt without a marker, and none with one.
    """
    server, proxy = testbed.server, testbed.proxy

    def crash_and_reuse():
        server.crash()
        with psycopg.connect(server.url().replace("+psycopg", ""), autocommit=True) as other:
            for _ in range(20):
                other.execute("SELECT pg_current_xact_id()")

    proxy.on_fault = crash_and_reuse
    engine = lambdadb.create_engine(testbed.url)
    for marker in (None, (MARKER.c.name, "proof")):
        run_transaction(engine, lambda connection: connection.execute(text("SELECT 1")))
        # Before the server hears of COMMIT.
        last = (
            sum(m.direction is Direction.CLIENT_TO_SERVER for m in recorded(proxy, engine, marker)) - 1
        )
        proxy.arm(FaultPoint(Direction.CLIENT_TO_SERVER, Action.CLOSE, message=last))
        if marker is None:
            with pytest.raises(CommitInDoubt):
                run_transaction(engine, insert, idempotency_key=marker)
            assert server.count_rows("unit") == 0
        else:
            run_transaction(engine, insert, idempotency_key=marker)
            assert server.count_rows("unit") == 1
    engine.dispose()


def insert(connection):
    connection.execute(INSERT, {"name": "unit"})


def recorded(proxy, engine, marker):
    """The messages of one faithful unit with the same shape."""
    proxy.arm(None)
    other = marker and (marker[0], "recorded")
    run_transaction(engine, lambda c: c.execute(INSERT, {"name": "recorded"}), idempotency_key=other)
    return proxy.messages


def test_the_sweep_sees_what_a_naive_client_does(testbed):
    """The harness can fail: plain retries lose or double rows in it."""
    trials = list(sweep(testbed, peers()[0], Action.CLOSE, sample=20))
    assert any(trial.doubled for trial in trials)


def test_a_byte_of_the_recording_is_the_same_byte_in_a_trial(testbed):
    """Units are of one length on the wire, so that the sweep reaches every byte of COMMIT."""
    client = ours()[0]
    client.open(testbed.url, testbed.server)
    shapes = {tuple((m.kind, m.length) for m in testbed.recording(client)[6:]) for _ in range(3)}
    client.close()
    assert len(shapes) == 1
