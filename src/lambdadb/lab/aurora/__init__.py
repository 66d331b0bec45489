"""Aurora serverless v2 in front of a real PostgreSQL: it pauses, wakes, and fails on the way."""

from __future__ import annotations

from lambdadb.lab.aurora.cluster import Cluster, ClusterEvent, State
from lambdadb.lab.aurora.frontend import SessionInfo, Shape

__all__ = ["Cluster", "ClusterEvent", "SessionInfo", "Shape", "State"]
