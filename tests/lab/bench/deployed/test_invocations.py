"""Deployed functions invoked from here: in turns, each once, with their answers and their errors."""

from __future__ import annotations

import pytest

from lambdadb.lab.bench.deployed.clients import Clients, Refused
from lambdadb.lab.bench.deployed.infra import Infra
from lambdadb.lab.bench.deployed.invocations import Invocations, check, minutes
from lambdadb.lab.bench.records import InvocationRecord
from lambdadb.lab.emulated_aws import EmulatedAWS
from lambdadb.lab.emulated_aws.server import FunctionFailed


class Functions:
    """Functions that answer with ids that count up, and the order in which they were invoked."""

    def __init__(self, aws: EmulatedAWS, infra: Infra) -> None:
        self.called: list[str] = []
        for function in infra.functions:
            aws.function(function.name, lambda name=function.name: self.answer(name))

    def answer(self, name: str) -> object:
        self.called.append(name)
        if name == "lambdadb-hot-per-invocation":
            raise FunctionFailed({"errorType": "ConnectFailed", "errorMessage": "no way"})
        numbers = {"connects": 1, "retries": 0, "resume_wait": 0.0}
        return {"elapsed": 0.5, "new_id": len(self.called), **numbers}


@pytest.fixture
def functions(aws: EmulatedAWS, infra: Infra) -> Functions:
    return Functions(aws, infra)


def test_each_function_in_its_turn(infra: Infra, clients: Clients, functions: Functions) -> None:
    """A cluster's functions take turns; an error is a record; what was done before is left out."""
    done = {("cold", "hand_written", 1), ("cold", "hand_written", 2)}
    with Invocations(infra, clients, rounds=2, interval=0.05, done=done) as running:
        records = [one for one in running.records() if isinstance(one, InvocationRecord)]
    found = {
        kind: [(one.policy, one.number) for one in records if one.aurora_type == kind]
        for kind in ("hot", "cold")
    }
    assert found["hot"] == [
        ("hand_written", 1),
        ("hand_written", 2),
        ("per_invocation", 1),
        ("per_invocation", 2),
    ]
    assert found["cold"] == [("per_invocation", 1), ("per_invocation", 2)]
    errors = {one.error for one in records if (one.aurora_type, one.policy) == ("hot", "per_invocation")}
    assert errors == {"ConnectFailed: no way"}
    assert len(functions.called) == 6


def test_an_interrupted_run_ends_at_once(infra: Infra, clients: Clients, functions: Functions) -> None:
    """However long the interval is, nothing more is invoked after an interrupt."""
    with Invocations(infra, clients, rounds=5, interval=600.0, done=set()) as running:
        for _ in running.records():
            running.interrupt()
    assert running.interrupted
    assert functions.called == ["lambdadb-hot-hand-written"]


def test_what_cannot_be_invoked_is_found_before(
    infra: Infra, aws: EmulatedAWS, clients: Clients, functions: Functions
) -> None:
    """A missing right or function is named, and nothing was invoked."""
    check(infra, clients)
    del aws.functions["lambdadb-cold-hand-written"]
    with pytest.raises(Refused, match="invoke lambdadb-cold-hand-written: there is no such thing"):
        check(infra, clients)
    aws.denied.add("lambda:InvokeFunction")
    with pytest.raises(Refused, match="need lambda:InvokeFunction"):
        check(infra, clients)
    assert functions.called == []


def test_how_long_it_takes(infra: Infra) -> None:
    """The longer cluster decides; a cold one gets the time to pause before each function's first."""
    assert minutes(infra, 2, None) == 2 * 2 * 12
    assert minutes(infra, 2, 60.0) == 4
