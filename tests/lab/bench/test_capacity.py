"""The paused share of a real cluster, from CloudWatch's minutes; against moto's server."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import boto3
import pytest

from lambdadb.lab.bench.capacity import TRIES, await_capacity
from lambdadb.lab.bench.config import BenchConfig
from lambdadb.lab.bench.real import read_capacity
from lambdadb.lab.bench.records import CapacityRecord, InvocationRecord, NoteRecord, as_line, from_line
from lambdadb.lab.bench.summary import cell, paused_share_of

from ..aws import KEYS, secret_server, variables

BEGIN = datetime.now(timezone.utc).replace(second=0, microsecond=0) - timedelta(minutes=30)
RDS = "postgresql://u@db.cluster-x.us-east-1.rds.amazonaws.com/d"


def minute(number: float) -> datetime:
    return BEGIN + timedelta(minutes=number)


@pytest.fixture
def cloudwatch(monkeypatch: pytest.MonkeyPatch):
    """CloudWatch with ten minutes of one cluster: awake, paused for five, awake."""
    with secret_server() as server:
        variables(monkeypatch, **KEYS, AWS_ENDPOINT_URL=server.endpoint)
        client = boto3.client("cloudwatch", region_name="us-east-1")
        for number, acu in enumerate([0.5, 1.0, 0.5, 0, 0, 0, 0, 0, 0.3, 1.0]):
            client.put_metric_data(
                Namespace="AWS/RDS",
                MetricData=[
                    {
                        "MetricName": "ServerlessDatabaseCapacity",
                        "Dimensions": [{"Name": "DBClusterIdentifier", "Value": "db"}],
                        "Timestamp": minute(number),
                        "Value": acu,
                    }
                ],
            )
        yield client


def test_capacity_of_a_cluster_by_url(cloudwatch) -> None:
    """Each minute becomes a record, and the minutes of 0 are the paused share."""
    config = BenchConfig(speed=1, urls={"cold": RDS})
    records = read_capacity(config, minute(0), minute(10), lambda seconds: None)
    assert [one.acu for one in records if isinstance(one, CapacityRecord)] == [
        *(0.5, 1.0, 0.5, 0, 0, 0, 0, 0, 0.3, 1.0)
    ]
    done = [
        InvocationRecord(
            aurora_type="cold",
            policy="per_invocation",
            number=number,
            at=0,
            timestamp=minute(at).isoformat(),
            experiment="x",
        )
        for number, at in ((1, 0), (2, 10))
    ]
    assert cell([*records, *done], "cold", "per_invocation").paused_share == 0.5
    assert paused_share_of(records, "cold", done[:1]) is None
    assert [from_line(as_line(record)) for record in [*records, *done]] == [*records, *done]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("postgresql://u@db.example.com/d", "is not the name of an RDS endpoint"),
        (RDS.replace("db.", "other."), "CloudWatch has no ServerlessDatabaseCapacity of other"),
    ],
)
def test_a_share_that_is_not_known_says_why(cloudwatch, url: str, why: str) -> None:
    """A name that is no endpoint, or a cluster without values, is a note and no error."""
    waits: list[float] = []
    config = BenchConfig(speed=1, urls={"cold": url})
    (note,) = read_capacity(config, minute(0), minute(10), waits.append)
    assert isinstance(note, NoteRecord)
    assert why in note.text
    assert len(waits) in (0, TRIES - 1)


def test_no_credentials_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without credentials the run's own figures stay, and the reason is said."""
    variables(monkeypatch, AWS_EC2_METADATA_DISABLED="true")
    config = BenchConfig(speed=1, urls={"cold": RDS})
    (note,) = read_capacity(config, minute(0), minute(10), lambda seconds: None)
    assert isinstance(note, NoteRecord)
    assert "NoCredentialsError" in note.text


def test_late_values_are_waited_for() -> None:
    """CloudWatch has a minute a little later; the wait for it is bounded."""

    class Late:
        def __init__(self) -> None:
            self.asked = 0

        def get_metric_data(self, **_: object):
            self.asked += 1
            known = [minute(number) for number in range(min(self.asked + 6, 9))]
            return {"MetricDataResults": [{"Timestamps": known, "Values": [0.0] * len(known)}]}

    waits: list[float] = []
    found = await_capacity(Late(), ("a", "b"), minute(0), minute(10), waits.append)
    assert (len(found), waits) == (9, [30.0, 30.0])
