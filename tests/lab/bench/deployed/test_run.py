"""A run that goes on where an earlier one ended: which records count, and in what order."""

from __future__ import annotations

from dataclasses import replace

from lambdadb.lab.bench.deployed.clients import Clients
from lambdadb.lab.bench.deployed.infra import Infra
from lambdadb.lab.bench.deployed.run import description, done_of, earlier_of, in_order
from lambdadb.lab.bench.records import CapacityRecord, InvocationRecord, NoteRecord, RunRecord

from .conftest import minute


def invocation(at: float, new_id: int | None, number: int = 0, kind: str = "cold") -> InvocationRecord:
    return InvocationRecord(
        aurora_type=kind,
        policy="hand_written",
        number=number,
        at=0.0,
        timestamp=minute(at).isoformat(),
        experiment="experiment_02",
        new_id=new_id,
        error=None if new_id else "gone",
    )


def first(infra: Infra, clients: Clients) -> RunRecord:
    return description(infra, clients, started=minute(0), rounds=0)


def test_each_once_and_numbered_by_time(infra: Infra, clients: Clients) -> None:
    """A row read twice counts once; failures without an id are told apart by their time."""
    records = [
        first(infra, clients),
        invocation(24, 859),
        invocation(12, None),
        CapacityRecord(aurora_type="cold", timestamp=minute(1).isoformat(), acu=0.2),
        invocation(0, 793),
        invocation(24, 859),
        invocation(5, 50, kind="hot"),
        CapacityRecord(aurora_type="cold", timestamp=minute(1).isoformat(), acu=0.5),
    ]
    run, *rest = in_order(records)
    assert isinstance(run, RunRecord)
    done = [one for one in rest if isinstance(one, InvocationRecord)]
    assert [(one.aurora_type, one.number, one.at / 60, one.new_id) for one in done] == [
        ("cold", 1, 0, 793),
        ("hot", 1, 5, 50),
        ("cold", 2, 12, None),
        ("cold", 3, 24, 859),
    ]
    assert [one.acu for one in rest if isinstance(one, CapacityRecord)] == [0.5]


def test_what_an_earlier_run_has(infra: Infra, clients: Clients) -> None:
    """Only of the same experiment on the same clusters on Lambda, and without its notes."""
    mine = first(infra, clients)
    rest = [invocation(0, 793, number=1), NoteRecord(text="n/a")]
    assert earlier_of([mine, *rest], infra) == [mine, rest[0]]
    assert done_of([mine, *rest]) == {("cold", "hand_written", 1)}
    for other in (
        replace(mine, experiment="experiment_01"),
        replace(mine, place="this machine"),
        replace(mine, clusters={"cold": "another"}),
    ):
        assert earlier_of([other, *rest], infra) == []
    assert earlier_of([], infra) == []


def test_an_endpoint_that_is_not_of_aws_is_told(infra: Infra, clients: Clients) -> None:
    """Where Terraform's file says nothing of an emulation, the address that boto3 asks does."""
    clients.of("logs")
    said = first(infra, clients).emulated["AWS"]
    assert said.startswith("answered by http://127.0.0.1:")
    assert said.endswith("not by AWS")
