"""What AWS says: against moto, and against botocore's own shapes where moto does not answer."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import boto3
import pytest
from botocore.stub import ANY, Stubber
from click.testing import CliRunner

from lambdadb.cli.group import lambdadb as group
from lambdadb.operate import aws
from lambdadb.operate.checks import Weight
from lambdadb.operate.cluster import (
    ClusterFacts,
    FunctionFacts,
    InstanceFacts,
    examine_cluster,
    examine_functions,
)

from .conftest import REGION

NOW = datetime.now(timezone.utc)


def put_capacity(session: Any, values: list[float]) -> None:
    """Values of every five minutes, the last one five minutes ago."""
    session.client("cloudwatch").put_metric_data(
        Namespace="AWS/RDS",
        MetricData=[
            {
                "MetricName": "ServerlessDatabaseCapacity",
                "Dimensions": [{"Name": "DBClusterIdentifier", "Value": "orders"}],
                "Timestamp": NOW - timedelta(minutes=5 * (len(values) - number)),
                "Value": value,
            }
            for number, value in enumerate(values)
        ],
    )


def rules(facts: ClusterFacts) -> set[str]:
    return {finding.name for finding in examine_cluster(facts, NOW)}


def test_a_cluster_that_pauses(session: Any) -> None:
    """Its scaling, its instance and its capacity are read; nothing is wrong with it."""
    put_capacity(session, [0.5, 0.0, 0.0, 0.5])
    facts = aws.read_cluster(session, "orders", NOW)
    assert (facts.min_capacity, facts.max_capacity, facts.seconds_until_auto_pause) == (0, 1, 300)
    assert facts.pauses
    assert [(one.name, one.instance_class) for one in facts.instances] == [("orders-1", "db.serverless")]
    assert facts.paused_share == 0.5
    assert facts.capacity_now == 0.5
    assert rules(facts) == set()


def test_a_cluster_that_never_paused(session: Any) -> None:
    """By CloudWatch, with the log as the next step."""
    put_capacity(session, [0.5] * 4)
    facts = aws.read_cluster(session, "orders", NOW)
    assert rules(facts) == {"never paused"}


def test_what_blocks_the_pause(session: Any) -> None:
    """A provisioned instance, by name."""
    rds = session.client("rds")
    rds.create_db_instance(
        DBInstanceIdentifier="orders-2",
        DBClusterIdentifier="orders",
        Engine="aurora-postgresql",
        DBInstanceClass="db.r6g.large",
    )
    facts = aws.read_cluster(session, "orders", NOW)
    found = {finding.name: finding.problem for finding in examine_cluster(facts, NOW)}
    assert "orders-2" in found["provisioned instance"]


def test_a_minimum_above_zero(session: Any) -> None:
    """It never pauses, so nothing else about the pause is said."""
    session.client("rds").modify_db_cluster(
        DBClusterIdentifier="orders",
        ServerlessV2ScalingConfiguration={"MinCapacity": 0.5, "MaxCapacity": 1},
    )
    facts = aws.read_cluster(session, "orders", NOW)
    assert not facts.pauses
    (finding,) = examine_cluster(facts, NOW)
    assert (finding.name, finding.weight) == ("minimum capacity", Weight.NOTE)


def test_what_may_not_be_asked(session: Any) -> None:
    """Each question that AWS refuses is named; the rest is there."""
    facts = aws.read_cluster(session, "orders", NOW)
    assert facts.name == "orders"
    assert all(":" in line for line in facts.unseen)
    with pytest.raises(aws.ClusterNotFound, match="DBClusterNotFound"):
        aws.read_cluster(session, "other", NOW)


def test_a_function(session: Any) -> None:
    """Its concurrency, its peak and its timeout; None for a name that is no function's."""
    assert aws.read_function(session, "psql", NOW) is None
    iam = session.client("iam")
    role = iam.create_role(RoleName="r", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    functions = session.client("lambda")
    functions.create_function(
        FunctionName="orders-api",
        Runtime="python3.9",
        Role=role,
        Handler="orders.handler",
        Timeout=10,
        Code={"ZipFile": b"x"},
    )
    functions.put_function_concurrency(FunctionName="orders-api", ReservedConcurrentExecutions=7)
    session.client("cloudwatch").put_metric_data(
        Namespace="AWS/Lambda",
        MetricData=[
            {
                "MetricName": "ConcurrentExecutions",
                "Dimensions": [{"Name": "FunctionName", "Value": "orders-api"}],
                "Timestamp": NOW - timedelta(minutes=30),
                "Value": 5,
            }
        ],
    )
    found = aws.read_function(session, "orders-api", NOW)
    assert found == FunctionFacts(
        name="orders-api", concurrency=7, peak=5, timeout=10.0, runtime="python3.9"
    )
    names = {one.name for one in examine_functions([found], None, pauses=True)}
    assert names == {"function timeout", "runtime"}
    assert examine_functions([FunctionFacts(name="f", concurrency=1, peak=1)], None, pauses=True) == []


INSTANCE = InstanceFacts(
    name="orders-1",
    instance_class="db.serverless",
    writer=True,
    tier=1,
    certificate_authority="rds-ca-rsa2048-g1",
    certificate_until=NOW + timedelta(days=300),
)


@pytest.fixture
def stubbed() -> Iterator[tuple[Any, Stubber]]:
    """An RDS client whose answers are checked against botocore's shapes: moto has none of these."""
    client = boto3.client("rds", region_name=REGION, aws_access_key_id="x", aws_secret_access_key="x")
    with Stubber(client) as stubber:
        yield client, stubber
        stubber.assert_no_pending_responses()


def test_zero_etl(stubbed: tuple[Any, Stubber]) -> None:
    """An integration that reads from the cluster counts, another one does not."""
    client, stubber = stubbed
    arn = "arn:aws:rds:eu-west-1:123456789012:cluster:orders"
    stubber.add_response(
        "describe_integrations",
        {
            "Integrations": [
                {"IntegrationName": "to-redshift", "SourceArn": arn},
                {"IntegrationName": "other", "SourceArn": f"{arn}-2"},
            ]
        },
    )
    assert aws.read_integrations(client, arn) == ("to-redshift",)


def test_proxies(stubbed: tuple[Any, Stubber]) -> None:
    """The proxy with a target in the cluster counts."""
    client, stubber = stubbed
    stubber.add_response(
        "describe_db_proxies", {"DBProxies": [{"DBProxyName": "mine"}, {"DBProxyName": "other"}]}
    )
    for name, cluster in (("mine", "orders"), ("other", "billing")):
        stubber.add_response(
            "describe_db_proxy_targets",
            {"Targets": [{"TrackedClusterId": cluster, "Type": "RDS_INSTANCE"}]},
            {"DBProxyName": name},
        )
    assert aws.read_proxies(client, "orders") == ("mine",)


def test_global_databases(stubbed: tuple[Any, Stubber]) -> None:
    """The one that has the cluster as a member counts."""
    client, stubber = stubbed
    stubber.add_response(
        "describe_global_clusters",
        {
            "GlobalClusters": [
                {
                    "GlobalClusterIdentifier": "world",
                    "GlobalClusterMembers": [{"DBClusterArn": "arn-1"}],
                },
                {"GlobalClusterIdentifier": "empty", "GlobalClusterMembers": []},
            ]
        },
    )
    assert aws.read_global(client, "arn-1") == ("world",)


def test_events(stubbed: tuple[Any, Stubber]) -> None:
    """Pauses and resumes, the oldest first, without other events."""
    client, stubber = stubbed
    messages = ["Successfully resumed", "Backing up DB instance", "DB instance paused"]
    stubber.add_response(
        "describe_events",
        {
            "Events": [
                {"Message": message, "Date": NOW - timedelta(minutes=number)}
                for number, message in enumerate(messages)
            ]
        },
        {"SourceIdentifier": "orders-1", "SourceType": "db-instance", "StartTime": ANY, "EndTime": ANY},
    )
    found = aws.read_events(client, [INSTANCE], NOW)
    assert [line.partition(": ")[2] for line in found] == ["DB instance paused", "Successfully resumed"]


def test_the_log(stubbed: tuple[Any, Stubber]) -> None:
    """The lines that the Aurora User Guide documents; the last one is the finding."""
    client, stubber = stubbed
    lines = [
        "[INFO] No auto-pause blockers registered since 2026-11-28T01:00:00Z",
        "other",
        "[INFO] Auto-pause blockers registered since 2026-11-28T02:00:00Z: replication",
    ]
    stubber.add_response("download_db_log_file_portion", {"LogFileData": "\n".join(lines)})
    assert aws.read_log(client, "orders-1") == (lines[0], lines[2])


def cluster(**values: Any) -> ClusterFacts:
    known: dict[str, Any] = {
        "name": "orders",
        "arn": "arn",
        "engine": "aurora-postgresql",
        "version": "16.6",
        "min_capacity": 0,
        "max_capacity": 1,
        "seconds_until_auto_pause": 300,
        "capacity_now": 0.5,
        "paused_share": 0.5,
        "activity_stream": False,
        "instances": (INSTANCE,),
    }
    empty = dict.fromkeys(
        ("proxies", "global_clusters", "zero_etl", "events", "blocker_lines", "unseen"), ()
    )
    return ClusterFacts(**{**known, **empty, **values})


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, set()),
        ({"proxies": ("p",)}, {"proxy"}),
        ({"zero_etl": ("z",)}, {"zero-ETL"}),
        ({"global_clusters": ("g",)}, {"global database"}),
        ({"activity_stream": True}, {"activity stream"}),
        ({"seconds_until_auto_pause": 3600}, {"pause time"}),
        ({"min_capacity": None, "max_capacity": None}, {"no serverless"}),
        ({"blocker_lines": ("[INFO] Auto-pause blockers registered since x: y",)}, {"instance.log"}),
        (
            {
                "instances": (
                    InstanceFacts(**{**vars(INSTANCE), "certificate_authority": "rds-ca-2019"}),
                )
            },
            {"certificate"},
        ),
        (
            {"instances": (InstanceFacts(**{**vars(INSTANCE), "certificate_until": NOW}),)},
            {"certificate"},
        ),
    ],
)
def test_rules_on_a_cluster(values: dict[str, Any], expected: set[str]) -> None:
    """One finding for each cause, none without."""
    assert rules(cluster(**values)) == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("orders.cluster-c1.eu-west-1.rds.amazonaws.com", "orders"),
        ("orders.cluster-ro-c1.eu-west-1.rds.amazonaws.com", "orders"),
        ("p.proxy-c1.eu-west-1.rds.amazonaws.com", None),
        ("orders-1.c1.eu-west-1.rds.amazonaws.com", None),
        ("localhost", None),
    ],
)
def test_the_cluster_in_a_hosts_name(host: str, expected: str | None) -> None:
    """Of a cluster's endpoints alone."""
    assert aws.cluster_of(host) == expected


def test_the_command_asks_aws_alone(session: Any) -> None:
    """Without a URL nothing is connected to; a paused cluster is not asked without --wake."""
    put_capacity(session, [0.5, 0.0])
    done = CliRunner().invoke(group, ["doctor", "--cluster", "orders", "--region", REGION])
    assert done.exit_code == 0, done.output
    assert "paused now" in done.stdout
    assert "no URL was given" in done.stdout
    url = f"postgresql://ops@orders.cluster-c1.{REGION}.rds.amazonaws.com/shop"
    asleep = CliRunner().invoke(group, ["doctor", url, "--timeout", "1"])
    assert "a connect would wake it; add --wake" in asleep.stdout
    assert "Connecting" not in asleep.stderr


def test_who_is_connected_to_a_paused_cluster(session: Any) -> None:
    """Nobody: it is not woken to find that out, and a cluster that is awake, or unknown, is asked."""
    url = f"postgresql://ops@orders.cluster-c1.{REGION}.rds.amazonaws.com/shop"
    put_capacity(session, [0.5, 0.0])
    done = CliRunner().invoke(group, ["sessions", url, "--timeout", "1"])
    assert done.exit_code == 0
    assert "paused, so nobody is connected" in done.stdout
    assert "Connecting" not in done.stderr
    assert aws.is_paused(session, "orders", NOW) is True
    assert aws.is_paused(session, "other", NOW) is None
