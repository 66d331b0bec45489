"""A real cluster's capacity, minute by minute, as CloudWatch has it: 0 while it is paused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

MINUTE = 60
# Pages of one answer; a page holds days.
PAGES = 20
# CloudWatch has a minute's value a little later. Tries, and seconds between them.
TRIES, PAUSE = 7, 30.0


def read_metric(
    client: Any,
    dimension: tuple[str, str],
    name: str,
    begin: datetime,
    end: datetime,
    *,
    statistic: str = "Average",
) -> list[tuple[datetime, float]]:
    """
    A cluster's metric: each minute's beginning, and the value.

    Args:
        client: A boto3 client of CloudWatch. It needs `cloudwatch:GetMetricData`.
        dimension: `DBClusterIdentifier` or `DBInstanceIdentifier`, and its value.
        statistic: CloudWatch's name of what is made of the values within a minute.
    """
    key, value = dimension
    metric = {
        "Namespace": "AWS/RDS",
        "MetricName": name,
        "Dimensions": [{"Name": key, "Value": value}],
    }
    query = {"Id": "m", "MetricStat": {"Metric": metric, "Period": MINUTE, "Stat": statistic}}
    found: list[tuple[datetime, float]] = []
    page: dict[str, str] = {}
    for _ in range(PAGES):
        answer = client.get_metric_data(
            MetricDataQueries=[query], StartTime=begin, EndTime=end, ScanBy="TimestampAscending", **page
        )
        for result in answer["MetricDataResults"]:
            found += zip(result["Timestamps"], result["Values"], strict=True)
        if not answer.get("NextToken"):
            break
        page = {"NextToken": answer["NextToken"]}
    return sorted(found)


def await_capacity(
    client: Any,
    dimension: tuple[str, str],
    begin: datetime,
    end: datetime,
    wait: Callable[[float], object],
) -> list[tuple[datetime, float]]:
    """
    The capacity up to the last whole minute before `end`, or what there is of it after some minutes.

    Args:
        wait: Waits for so many seconds.
    """
    found: list[tuple[datetime, float]] = []
    for number in range(TRIES):
        found = read_metric(client, dimension, "ServerlessDatabaseCapacity", begin, end)
        if found and found[-1][0] + timedelta(seconds=2 * MINUTE) >= end:
            break
        if number < TRIES - 1:
            wait(PAUSE)
    return found
