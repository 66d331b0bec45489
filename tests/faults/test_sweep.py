"""A connection cut at every place of a unit of work: no row lost, none doubled, no needless doubt."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy import text

import lambdadb
from lambdadb import CommitInDoubt, run_transaction
from lambdadb.lab.faultproxy.fault_point import Action, Direction, FaultPoint, points_at_boundaries
from lambdadb.lab.faultproxy.fault_sweep import (
    INSERT,
    MARKER,
    byte_points,
    commit_points,
    open_testbed,
    ours,
    sweep,
)

pytestmark = pytest.mark.timeout(600)
CLIENTS = pytest.mark.parametrize("number", range(4), ids=[client.name for client in ours()])


def check(trials, least):
    """What holds for every trial, whatever was cut; how many of them there were."""
    trials = list(trials)
    for trial in trials:
        assert [trial.lost, trial.doubled, trial.denied] == [False, False, False], trial
        assert trial.claim != "hung", trial
    assert len(trials) >= least, "the sweep has become smaller"
    return trials


@CLIENTS
@pytest.mark.parametrize("action", [Action.CLOSE, Action.RESET])
def test_every_boundary_and_every_byte_of_the_commit(number, action):
    """Closed or reset anywhere while the server lives: committed once, and the client knows."""
    with open_testbed() as ground:
        trials = check(sweep(ground, ours()[number], action), least=45)
    assert [trial for trial in trials if trial.claim != "committed"] == []


@pytest.mark.parametrize("number", [0, 2], ids=["sync", "async"])
def test_every_byte(number):
    """The same at every single byte of a unit of work on a warm connection."""
    with open_testbed() as ground:
        trials = check(sweep(ground, ours()[number], Action.CLOSE, byte_points), least=500)
    assert [trial for trial in trials if trial.claim != "committed"] == []


@CLIENTS
def test_a_crash_of_the_server_at_every_place(number):
    """With a crash in that moment, doubt is left only where the row is there and no marker proves it."""
    with open_testbed() as ground:
        trials = check(sweep(ground, ours(time=10.0)[number], Action.CLOSE, crash=True), least=45)
    for trial in trials:
        assert trial.claim == "committed" or (trial.claim == "in doubt" and trial.rows == 1), trial


@CLIENTS
def test_a_crash_with_a_marker_leaves_no_doubt(number):
    """A marker row survives a crash together with its transaction: exactly once, and known."""
    with open_testbed() as ground:
        trials = check(
            sweep(ground, ours(marked=True, time=10.0)[number], Action.CLOSE, crash=True), least=45
        )
    assert [trial for trial in trials if trial.claim != "committed"] == []


@pytest.mark.parametrize("number", [0, 3], ids=["PerEnvironment", "PerInvocation async"])
@pytest.mark.parametrize("action", [Action.STALL, Action.DROP])
def test_a_silent_network_never_holds_a_handler_beyond_its_time(number, action):
    """When nothing is heard any more the invocation's time ends it, in doubt only after COMMIT."""
    with open_testbed() as ground:
        trials = check(sweep(ground, ours(time=0.9)[number], action, points_at_boundaries), least=20)
    for trial in trials:
        if trial.claim == "in doubt":
            assert "could not be asked" in trial.error, trial


def test_a_reused_transaction_id_proves_nothing():
    """
    After a crash the id of a lost transaction is given to another one, which commits: the server then
    says "committed" of a row that is not there. That is doubt without a marker, and none with one.
    """
    with open_testbed() as ground:
        server, proxy = ground.server, ground.proxy

        def crash_and_reuse():
            server.stop("immediate")
            server.start()
            with psycopg.connect(server.url().replace("+psycopg", ""), autocommit=True) as other:
                for _ in range(20):
                    other.execute("SELECT pg_current_xact_id()")

        proxy.on_fault = crash_and_reuse
        engine = lambdadb.create_engine(ground.url)
        for marker in (None, (MARKER.c.name, "proof")):
            run_transaction(engine, lambda connection: connection.execute(text("SELECT 1")))
            # Before the server hears of COMMIT.
            last = (
                sum(m.direction is Direction.CLIENT_TO_SERVER for m in recorded(proxy, engine, marker))
                - 1
            )
            proxy.arm(FaultPoint(Direction.CLIENT_TO_SERVER, Action.CLOSE, message=last))
            if marker is None:
                with pytest.raises(CommitInDoubt):
                    run_transaction(engine, insert, idempotency_key=marker)
                assert ground.rows("unit") == 0
            else:
                run_transaction(engine, insert, idempotency_key=marker)
                assert ground.rows("unit") == 1
        engine.dispose()


def insert(connection):
    connection.execute(INSERT, {"name": "unit"})


def recorded(proxy, engine, marker):
    """The messages of one faithful unit with the same shape."""
    proxy.arm(None)
    other = marker and (marker[0], "recorded")
    run_transaction(engine, lambda c: c.execute(INSERT, {"name": "recorded"}), idempotency_key=other)
    return proxy.messages


def test_the_sweep_sees_what_a_naive_client_does():
    """The harness can fail: plain retries lose or double rows in it."""
    from lambdadb.lab.faultproxy.fault_sweep import peers

    with open_testbed() as ground:
        trials = list(sweep(ground, peers()[0], Action.CLOSE, commit_points))
    assert any(trial.doubled for trial in trials)


def test_a_byte_of_the_recording_is_the_same_byte_in_a_trial():
    """Units are of one length on the wire, so that the sweep reaches every byte of COMMIT."""
    with open_testbed() as ground:
        client = ours()[0]
        client.open(ground.url)
        shapes = {tuple((m.kind, m.length) for m in ground.recording(client)[6:]) for _ in range(3)}
        client.close()
    assert len(shapes) == 1
