"""What comes home from AWS: invocations, failures, capacity, connections and events, each once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

import pytest

from lambdadb.lab.bench.deployed.clients import Clients
from lambdadb.lab.bench.deployed.collection import LATE, Collection, kind_of
from lambdadb.lab.bench.deployed.infra import Infra
from lambdadb.lab.bench.records import (
    CapacityRecord,
    ConnectionsRecord,
    EventRecord,
    FetchedRecord,
    InvocationRecord,
    NoteRecord,
    Record,
)
from lambdadb.lab.emulated_aws import EmulatedAWS

from .conftest import GROUP, line, minute


def collected(
    infra: Infra, clients: Clients, known: Sequence[Record] = (), end: float = 60
) -> list[Record]:
    collection = Collection(infra, clients, minute(0), minute(end), known, lambda seconds: None)
    return [*collection.log(), *collection.metrics()]


def invocations(records: Sequence[Record]) -> list[InvocationRecord]:
    return [record for record in records if isinstance(record, InvocationRecord)]


def test_lines_of_this_experiment(infra: Infra, aws: EmulatedAWS, clients: Clients) -> None:
    """Those of another series of measurements, of another cluster and of no JSON are left out."""
    aws.log(GROUP, minute(1), line(793, elapsed=17.25, resume_wait=15.5))
    aws.log(GROUP, minute(2), line(1, experiment="experiment_01"))
    aws.log(GROUP, minute(3), "START RequestId: 1")
    (record,) = invocations(collected(infra, clients))
    assert (record.aurora_type, record.policy, record.new_id) == ("cold", "hand_written", 793)
    assert (record.elapsed, record.connects, record.resume_wait) == (17.25, 1, 15.5)
    assert datetime.fromisoformat(record.timestamp) == minute(1)


def test_failures(infra: Infra, aws: EmulatedAWS, clients: Clients) -> None:
    """A handler's error and an invocation that the platform ended are failures of that function."""
    error = {"level": "ERROR", "errorType": "ConnectFailed", "errorMessage": "no way"}
    aws.log(GROUP, minute(1), json.dumps(error))
    ended = {"type": "platform.report", "record": {"status": "timeout", "requestId": "r"}}
    aws.log("/aws/lambda/lambdadb-hot-per-invocation", minute(2), json.dumps(ended))
    done = {"type": "platform.report", "record": {"status": "success"}}
    aws.log(GROUP, minute(3), json.dumps(done))
    found = {(one.aurora_type, one.policy): one.error for one in invocations(collected(infra, clients))}
    assert found == {
        ("cold", "hand_written"): "ConnectFailed: no way",
        ("hot", "per_invocation"): "Lambda: timeout",
    }


def test_metrics_and_events(infra: Infra, aws: EmulatedAWS, clients: Clients) -> None:
    """A minute's average capacity and most connections, and the events by their documented texts."""
    for second, acu in ((0, 0.0), (30, 1.0)):
        at = minute(5) + timedelta(seconds=second)
        aws.value("ServerlessDatabaseCapacity", "lambdadb-cold", at, acu)
        aws.value("DatabaseConnections", "lambdadb-cold", at, second / 10)
    aws.event("lambdadb-cold-writer", minute(5), "Initiated resume for the DB instance.")
    aws.event("lambdadb-cold-writer", minute(6), "DB instance restarted")
    records = collected(infra, clients)
    assert CapacityRecord(aurora_type="cold", timestamp=minute(5).isoformat(), acu=0.5) in records
    assert ConnectionsRecord(aurora_type="cold", timestamp=minute(5).isoformat(), most=3.0) in records
    events = [(one.kind, one.text) for one in records if isinstance(one, EventRecord)]
    assert events == [
        ("resuming", "Initiated resume for the DB instance."),
        ("other", "DB instance restarted"),
    ]


def test_pages_of_metrics(infra: Infra, aws: EmulatedAWS, clients: Clients) -> None:
    """An answer in several pages is read to its end."""
    for number in range(1200):
        at = minute(0) + timedelta(minutes=number - 1100)
        aws.value("ServerlessDatabaseCapacity", "lambdadb-cold", at, 0.0)
    collection = Collection(infra, clients, minute(-1100), minute(60), [], lambda seconds: None)
    found = [one for one in collection.metrics() if isinstance(one, CapacityRecord)]
    assert len(found) == 1160


def test_texts_of_the_events() -> None:
    """The five events of auto-pause, RDS-EVENT-0370 to 0374, as the Aurora User Guide has them."""
    texts = [
        "Initiated pause for the DB instance.",
        "Pause was canceled for the DB instance.",
        "Successfully paused the DB instance.",
        "Initiated resume for the DB instance.",
        "Successfully resumed the DB instance.",
    ]
    kinds = [kind_of(text) for text in texts]
    assert kinds == ["pausing", "not paused", "paused", "resuming", "available"]


@pytest.mark.parametrize(
    ("action", "what"),
    [
        ("cloudwatch:GetMetricData", "capacity"),
        ("cloudwatch:GetMetricData", "connections"),
        ("rds:DescribeEvents", "events"),
    ],
)
def test_a_metric_that_is_denied_is_a_note(
    action: str, what: str, infra: Infra, aws: EmulatedAWS, clients: Clients
) -> None:
    """The rest is read all the same, and the note names the right."""
    aws.denied.add(action)
    aws.log(GROUP, minute(1), line(793))
    records = collected(infra, clients)
    notes = [one.text for one in records if isinstance(one, NoteRecord)]
    assert any(f"cold cluster's {what} are n/a" in text and action in text for text in notes)
    assert len(invocations(records)) == 1
    fetched = [one for one in records if isinstance(one, FetchedRecord)]
    assert not any(one.what == what for one in fetched)


def test_what_was_read_is_not_read_again(infra: Infra, aws: EmulatedAWS, clients: Clients) -> None:
    """A second reading asks for nothing that the first one had; a later one asks for the rest."""
    aws.log(GROUP, minute(1), line(793))
    known = collected(infra, clients)
    before = len(aws.requests)
    assert collected(infra, clients, known) == []
    assert len(aws.requests) == before
    aws.log(GROUP, minute(61), line(826))
    later = collected(infra, clients, known, end=90)
    assert [one.new_id for one in invocations(later)] == [826]


def test_the_last_minutes_are_read_again(infra: Infra, aws: EmulatedAWS, clients: Clients) -> None:
    """A line may come later than its time says, so what is younger than some minutes is not done."""
    now = datetime.now(timezone.utc)
    collection = Collection(infra, clients, minute(0), now, [], lambda seconds: None)
    (mark, _) = [one for one in collection.log() if isinstance(one, FetchedRecord)]
    assert timedelta(0) <= datetime.fromisoformat(mark.end) - (now - LATE) < timedelta(minutes=1)


def test_gaps(infra: Infra, aws: EmulatedAWS, clients: Clients) -> None:
    """What lies before, between and after what was read."""
    known = [
        FetchedRecord(
            what="log", aurora_type="hot", begin=minute(a).isoformat(), end=minute(b).isoformat()
        )
        for a, b in ((30, 40), (10, 20), (15, 25))
    ]
    collection = Collection(infra, clients, minute(0), minute(60), known, lambda seconds: None)
    assert collection.gaps("log", "hot") == [
        (minute(0), minute(10)),
        (minute(25), minute(30)),
        (minute(40), minute(60)),
    ]
    assert collection.gaps("log", "cold") == [(minute(0), minute(60))]
