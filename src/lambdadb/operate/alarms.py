"""
What to watch in CloudWatch, with thresholds and their reasons.

The data are `alarms.json`. infra/terraform makes its alarms of the same data.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

FILE = Path(__file__).with_name("alarms.json")
NAMESPACES = {"function": "AWS/Lambda", "cluster": "AWS/RDS"}
DIMENSIONS = {"function": "FunctionName", "cluster": "DBClusterIdentifier"}

Kind = Literal["function", "cluster"]


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """An alarm on a metric: raised at the threshold or above."""

    name: str
    kind: Kind
    metric: str
    statistic: str
    threshold: float
    """Of the metric; with `of`, a share of that."""
    period: int
    """Seconds."""
    evaluation_periods: int
    description: str
    """What happened and what to do: for the person who is woken."""
    reason: str
    """Why this threshold."""
    of: str = ""
    """`timeout`: of the function. `connections`: those that the cluster has for ordinary users."""

    def request(self, target: str, whole: float = 1.0) -> dict[str, Any]:
        """
        The arguments of CloudWatch's PutMetricAlarm.

        Args:
            target: Name of the function or of the cluster.
            whole: What the threshold is a share of: the timeout in seconds, or the connections.
        """
        unit = 1000.0 if self.of == "timeout" else 1.0  # the metric is in milliseconds
        return {
            "AlarmName": f"{target}-{self.name}",
            "AlarmDescription": self.description,
            "Namespace": NAMESPACES[self.kind],
            "MetricName": self.metric,
            "Dimensions": [{"Name": DIMENSIONS[self.kind], "Value": target}],
            "Statistic": self.statistic,
            "Period": self.period,
            "EvaluationPeriods": self.evaluation_periods,
            "Threshold": self.threshold * (whole * unit if self.of else 1.0),
            "ComparisonOperator": "GreaterThanOrEqualToThreshold",
            "TreatMissingData": "notBreaching",
        }


def read_alarms() -> list[Alarm]:
    """All alarms, those of functions first."""
    found = json.loads(FILE.read_text())
    return [
        Alarm(name=name, kind=kind, **values)
        for kind, alarms in found.items()
        for name, values in alarms.items()
    ]
