"""Fleets: in virtual time under random schedules, and beside a real one."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lambdadb import PerEnvironment, PerInvocation
from lambdadb.lab.fleet.clients import CLIENTS
from lambdadb.lab.fleet.real import measure_machine, run_fleet
from lambdadb.lab.fleet.server import ServerSettings
from lambdadb.lab.fleet.simulation import FleetResult, FleetSettings, Simulation


def simulate(fleet: FleetSettings, server: ServerSettings, client: str = "lambdadb") -> FleetResult:
    return Simulation(fleet, server, CLIENTS[client], PerInvocation()).run()


@settings(max_examples=60)
@given(
    environments=st.integers(1, 20),
    invocations=st.integers(1, 3),
    slots=st.integers(1, 20),
    resume=st.none() | st.floats(0.0, 20.0),
    shape=st.sampled_from(["hold", "hold-unseen", "refuse"]),
    keeps=st.booleans(),
    rate=st.floats(0.5, 1000.0),
    work=st.floats(0.0, 2.0),
    seed=st.integers(),
)
def test_nobody_is_lost_whatever_the_schedule(
    environments: int,
    invocations: int,
    slots: int,
    resume: float | None,
    shape: str,
    keeps: bool,
    rate: float,
    work: float,
    seed: int,
) -> None:
    """Each environment is served or fails, once; slots are never exceeded, and all are given back."""
    fleet = FleetSettings(
        environments=environments,
        invocations=invocations,
        starts_per_second=rate,
        interval=5.0,
        work=work,
        seed=seed,
        timeout=60.0,
    )
    policy = PerEnvironment() if keeps else PerInvocation()
    server = ServerSettings(slots=slots, resume=resume, shape=shape)
    simulation = Simulation(fleet, server, CLIENTS["lambdadb"], policy)
    result = simulation.run()
    assert result.served + result.failed == environments * invocations
    assert result.attempts == result.wasted + result.connects
    assert result.peak_sessions <= slots
    assert simulation.server.sessions == 0
    assert result.neglected < 7.0  # seconds with a free slot: the longest pause, and a login
    if environments <= slots:
        assert result.failed == 0  # nobody starves while slots are free
        assert all(wait <= (resume or 0.0) + 5.0 for wait in result.waits)


def test_a_full_server_is_shared() -> None:
    """A thousand environments that use 20 slots for 50 ms each are all served."""
    result = simulate(FleetSettings(environments=1000), ServerSettings(slots=20))
    assert (result.served, result.failed) == (1000, 0)


def test_a_simulation_can_be_repeated() -> None:
    """The seed decides every random number."""
    fleet, server = FleetSettings(environments=50), ServerSettings(slots=20, resume=5.0)
    assert simulate(fleet, server) == simulate(fleet, server)


def test_peers_that_do_not_wait_fail() -> None:
    """The simulation shows losses: without a retry, nobody who is refused gets a session."""
    server = ServerSettings(resume=5.0, shape="refuse")
    assert simulate(FleetSettings(environments=100), server, "no retry").served == 0
    assert simulate(FleetSettings(environments=100), server).failed == 0


@pytest.mark.sweep
def test_a_real_fleet_is_served() -> None:
    """Real processes and a real server: everybody has a session, and nobody before the resume's end."""
    fleet = FleetSettings(environments=60)
    server = measure_machine(ServerSettings(slots=40, resume=8.0))
    real = run_fleet(fleet, server, "lambdadb", "per-invocation")
    simulated = simulate(fleet, server)
    assert (real.served, simulated.served) == (60, 60)
    # How long they wait depends on the machine too: `lambdadb fleet --compare` shows both.
    assert min(min(real.waits), min(simulated.waits)) > server.resume - 2


def test_the_command() -> None:
    """`lambdadb fleet --simulate --json` prints a line for each client."""
    command = [sys.executable, "-m", "lambdadb", "fleet", "--simulate", "--environments", "20", "--json"]
    done = subprocess.run(
        [*command, "--client", "lambdadb", "--client", "every 3 s"],
        capture_output=True,
        text=True,
        check=True,
        env=dict(os.environ),
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["client"], row["served"]) for row in rows] == [("lambdadb", 20), ("every 3 s", 20)]
