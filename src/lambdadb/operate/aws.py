"""
What AWS says about a cluster and its functions, read with boto3, as data.

Nothing here wakes a paused cluster, except reading its log, which is done only when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, TypeVar

from lambdadb.drivers.rds_endpoint import is_proxy, region_of
from lambdadb.operate.cluster import ClusterFacts, FunctionFacts, InstanceFacts

T = TypeVar("T")
DAY = timedelta(days=1)
RECENT = timedelta(minutes=15)
FIVE_MINUTES = 300
LOG = "instance/instance.log"
ABOUT_PAUSES = ("paus", "resum")
IN_THE_LOG = ("auto-pause blockers registered", "unable to pause database")


class ClusterNotFound(Exception):
    """AWS does not know the cluster, or may not be asked for it."""


class Asking:
    """Asks AWS, and notes what could not be asked."""

    def __init__(self) -> None:
        self.unseen: list[str] = []

    def ask(self, what: str, question: Callable[[], T], otherwise: T) -> T:
        """The answer; `otherwise`, and a note, if there is none."""
        try:
            return question()
        except Exception as error:  # whatever keeps it away, the other answers are worth having
            self.unseen.append(f"{what}: {describe(error)}")
            return otherwise


def describe(error: Exception) -> str:
    """Why AWS did not answer, in a few words."""
    answer = getattr(error, "response", {})
    code = answer.get("Error", {}).get("Code") if isinstance(answer, dict) else None
    return str(code or f"{type(error).__name__}: {error}")


def cluster_of(host: str) -> str | None:
    """The cluster that an endpoint's name names; None for an instance, a proxy or any other host."""
    if region_of(host) is None or is_proxy(host):
        return None
    name, kind, *_ = host.split(".")
    return name if kind.startswith("cluster-") and not kind.startswith("cluster-custom-") else None


def read_cluster(session: Any, name: str, now: datetime, *, logs: bool = False) -> ClusterFacts:
    """
    Describe a cluster.

    Args:
        session: A boto3 session, with the region of the cluster.
        logs: Read the log of its writer too. That wakes a paused cluster.

    Raises:
        ClusterNotFound: It cannot be described at all.
    """
    rds = session.client("rds")
    try:
        (cluster,) = rds.describe_db_clusters(DBClusterIdentifier=name)["DBClusters"]
    except Exception as error:
        raise ClusterNotFound(f"rds:DescribeDBClusters of {name}: {describe(error)}") from error
    asking = Asking()
    arn = cluster["DBClusterArn"]
    instances: tuple[InstanceFacts, ...] = asking.ask(
        "rds:DescribeDBInstances", lambda: read_instances(rds, cluster), otherwise=()
    )
    capacity: list[tuple[datetime, float]] = asking.ask(
        "cloudwatch:GetMetricData",
        lambda: read_metric(
            session,
            ("AWS/RDS", "ServerlessDatabaseCapacity", "DBClusterIdentifier", name),
            now - DAY,
            now,
            "Maximum",
        ),
        otherwise=[],
    )
    recent = [value for at, value in capacity if at >= now - RECENT]
    scaling = cluster.get("ServerlessV2ScalingConfiguration", {})
    writer = next((one.name for one in instances if one.writer), None)
    facts = ClusterFacts(
        name=name,
        arn=arn,
        engine=cluster["Engine"],
        version=cluster.get("EngineVersion", ""),
        min_capacity=scaling.get("MinCapacity"),
        max_capacity=scaling.get("MaxCapacity"),
        seconds_until_auto_pause=scaling.get("SecondsUntilAutoPause"),
        capacity_now=recent[-1] if recent else None,
        paused_share=sum(value == 0 for _, value in capacity) / len(capacity) if capacity else None,
        activity_stream=cluster.get("ActivityStreamStatus", "stopped") in ("started", "starting"),
        instances=instances,
        proxies=asking.ask("rds:DescribeDBProxies", lambda: read_proxies(rds, name), ()),
        global_clusters=asking.ask("rds:DescribeGlobalClusters", lambda: read_global(rds, arn), ()),
        zero_etl=asking.ask("rds:DescribeIntegrations", lambda: read_integrations(rds, arn), ()),
        events=asking.ask("rds:DescribeEvents", lambda: read_events(rds, instances, now), ()),
        blocker_lines=asking.ask(
            "rds:DownloadDBLogFilePortion",
            lambda: read_log(rds, writer) if logs and writer else (),
            (),
        ),
        unseen=(),
    )
    return ClusterFacts(**{**vars(facts), "unseen": tuple(asking.unseen)})


def is_paused(session: Any, name: str, now: datetime) -> bool | None:
    """
    Whether a cluster is paused now, by its capacity of the last minutes; None: AWS did not say.

    It does not wake the cluster. CloudWatch is some minutes late.
    """
    metric = ("AWS/RDS", "ServerlessDatabaseCapacity", "DBClusterIdentifier", name)
    values: list[tuple[datetime, float]] = Asking().ask(
        "cloudwatch:GetMetricData",
        lambda: read_metric(session, metric, now - RECENT, now, "Maximum"),
        otherwise=[],
    )
    return values[-1][1] == 0 if values else None


def read_instances(rds: Any, cluster: dict[str, Any]) -> tuple[InstanceFacts, ...]:
    """The instances of a cluster."""
    members = {one["DBInstanceIdentifier"]: one for one in cluster.get("DBClusterMembers", [])}
    filters = [{"Name": "db-cluster-id", "Values": [cluster["DBClusterIdentifier"]]}]
    found = []
    for one in pages(rds, "describe_db_instances", "DBInstances", Filters=filters):
        member = members.get(one["DBInstanceIdentifier"], {})
        found.append(
            InstanceFacts(
                name=one["DBInstanceIdentifier"],
                instance_class=one["DBInstanceClass"],
                writer=member.get("IsClusterWriter", False),
                tier=member.get("PromotionTier"),
                certificate_authority=one.get("CACertificateIdentifier", ""),
                certificate_until=one.get("CertificateDetails", {}).get("ValidTill"),
            )
        )
    return tuple(found)


def read_proxies(rds: Any, cluster: str) -> tuple[str, ...]:
    """The RDS Proxies of a cluster."""
    return tuple(
        proxy["DBProxyName"]
        for proxy in pages(rds, "describe_db_proxies", "DBProxies")
        if any(
            cluster in (target.get("TrackedClusterId"), target.get("RdsResourceId"))
            for target in rds.describe_db_proxy_targets(DBProxyName=proxy["DBProxyName"])["Targets"]
        )
    )


def read_global(rds: Any, arn: str) -> tuple[str, ...]:
    """The global databases that a cluster is a part of."""
    return tuple(
        one["GlobalClusterIdentifier"]
        for one in pages(rds, "describe_global_clusters", "GlobalClusters")
        if any(member.get("DBClusterArn") == arn for member in one.get("GlobalClusterMembers", []))
    )


def read_integrations(rds: Any, arn: str) -> tuple[str, ...]:
    """The zero-ETL integrations that read from a cluster."""
    return tuple(
        one["IntegrationName"]
        for one in pages(rds, "describe_integrations", "Integrations")
        if one.get("SourceArn") == arn
    )


def read_events(rds: Any, instances: Iterable[InstanceFacts], now: datetime) -> tuple[str, ...]:
    """Pauses and resumes of the last 24 hours, the oldest first."""
    found = []
    for one in instances:
        for event in rds.describe_events(
            SourceIdentifier=one.name, SourceType="db-instance", StartTime=now - DAY, EndTime=now
        )["Events"]:
            if any(word in event["Message"].lower() for word in ABOUT_PAUSES):
                found.append((event["Date"], f"{one.name}: {event['Message']}"))
    return tuple(f"{at:%Y-%m-%d %H:%M} {text}" for at, text in sorted(found))


def read_log(rds: Any, instance: str) -> tuple[str, ...]:
    """Lines of an instance's log about what blocks the pause."""
    text = rds.download_db_log_file_portion(
        DBInstanceIdentifier=instance, LogFileName=LOG, NumberOfLines=1000
    )["LogFileData"]
    return tuple(line for line in text.splitlines() if any(one in line.lower() for one in IN_THE_LOG))


def read_function(session: Any, name: str, now: datetime) -> FunctionFacts | None:
    """Describe a function; None if there is none of that name, or it may not be described."""
    functions = session.client("lambda")
    asking = Asking()
    settings = asking.ask(
        "lambda:GetFunctionConfiguration",
        lambda: functions.get_function_configuration(FunctionName=name),
        otherwise=None,
    )
    if settings is None:
        return None
    reserved: dict[str, Any] = asking.ask(
        "lambda:GetFunctionConcurrency",
        lambda: functions.get_function_concurrency(FunctionName=name),
        otherwise={},
    )
    metric = ("AWS/Lambda", "ConcurrentExecutions", "FunctionName", name)
    values: list[tuple[datetime, float]] = asking.ask(
        "cloudwatch:GetMetricData",
        lambda: read_metric(session, metric, now - timedelta(hours=3), now, "Maximum"),
        otherwise=[],
    )
    return FunctionFacts(
        name=name,
        concurrency=reserved.get("ReservedConcurrentExecutions"),
        peak=int(max((value for _, value in values), default=0)) or None,
        timeout=float(settings["Timeout"]) if "Timeout" in settings else None,
        runtime=settings.get("Runtime"),
    )


def read_metric(
    session: Any, metric: tuple[str, str, str, str], begin: datetime, end: datetime, statistic: str
) -> list[tuple[datetime, float]]:
    """
    A metric's values in periods of five minutes, the oldest first.

    Args:
        metric: Namespace, name, and the dimension's name and value.
    """
    namespace, name, key, value = metric
    query = {
        "Id": "m",
        "MetricStat": {
            "Metric": {
                "Namespace": namespace,
                "MetricName": name,
                "Dimensions": [{"Name": key, "Value": value}],
            },
            "Period": FIVE_MINUTES,
            "Stat": statistic,
        },
    }
    client = session.client("cloudwatch")
    found: list[tuple[datetime, float]] = []
    for page in client.get_paginator("get_metric_data").paginate(
        MetricDataQueries=[query], StartTime=begin, EndTime=end, ScanBy="TimestampAscending"
    ):
        for result in page["MetricDataResults"]:
            found += zip(result["Timestamps"], result["Values"], strict=True)
    return sorted(found)


def pages(client: Any, operation: str, key: str, **arguments: Any) -> list[Any]:
    """All items of a paginated operation."""
    return [item for page in client.get_paginator(operation).paginate(**arguments) for item in page[key]]


def read_workload(session: Any, name: str, now: datetime) -> dict[str, Any]:
    """
    Invocations an hour, duration and the highest concurrency of a function in the last two weeks.

    Empty if it was never invoked. The names are those of `advise.Workload`.
    """
    found = {}
    begin = now - 14 * DAY
    for metric, statistic in (
        ("Invocations", "Sum"),
        ("Duration", "Average"),
        ("ConcurrentExecutions", "Maximum"),
    ):
        values = read_metric(
            session, ("AWS/Lambda", metric, "FunctionName", name), begin, now, statistic
        )
        found[metric] = [value for _, value in values]
    if not sum(found["Invocations"]):
        return {}
    return {
        "per_hour": sum(found["Invocations"]) / (14 * 24),
        "duration": sum(found["Duration"]) / len(found["Duration"]) / 1000,
        "concurrency": int(max(found["ConcurrentExecutions"], default=0)) or None,
    }
