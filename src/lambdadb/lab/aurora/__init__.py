"""Aurora serverless v2 in front of a real server: it pauses, wakes, and fails on the way."""

from __future__ import annotations

from lambdadb.lab.aurora.cluster import Cluster, ClusterEvent, State
from lambdadb.lab.aurora.frontend import MYSQL_SHAPES, POSTGRES_SHAPES, Server, SessionInfo, Shape

__all__ = [
    "MYSQL_SHAPES",
    "POSTGRES_SHAPES",
    "Cluster",
    "ClusterEvent",
    "Server",
    "SessionInfo",
    "Shape",
    "State",
]
