"""
All that is wrong with a database, its cluster and its functions, in order of weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from lambdadb.operate.checks import Finding, Weight
from lambdadb.operate.cluster import (
    ClusterFacts,
    FunctionFacts,
    examine_cluster,
    examine_functions,
)
from lambdadb.operate.mysql_server import MySQLFacts, examine_mysql
from lambdadb.operate.postgresql_server import ServerFacts, examine_server
from lambdadb.operate.sessions import SessionView, examine


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What is known of a database. None: that part could not be asked."""

    view: SessionView | None = None
    server: ServerFacts | MySQLFacts | None = None
    cluster: ClusterFacts | None = None
    functions: Sequence[FunctionFacts] = ()

    @property
    def pauses(self) -> bool | None:
        """Whether the cluster is set to pause; None: unknown."""
        return None if self.cluster is None else self.cluster.pauses


def diagnose(facts: Examination, now: datetime) -> list[Finding]:
    """All findings, the worst first. Of equal weight, what costs now comes before what may break."""
    found: list[Finding] = []
    if facts.cluster is not None:
        found += examine_cluster(facts.cluster, now)
    if isinstance(facts.server, ServerFacts) and facts.view is not None:
        found += examine_server(facts.server, facts.view, pauses=facts.pauses)
    if isinstance(facts.server, MySQLFacts) and facts.view is not None:
        found += examine_mysql(facts.server, facts.view, pauses=facts.pauses)
    if facts.view is not None:
        found += examine(facts.view)
    found += examine_functions(facts.functions, facts.view, pauses=facts.pauses)
    return sorted(found, key=lambda finding: finding.weight.rank)


def worst(findings: Sequence[Finding]) -> Weight | None:
    """The weight of the worst; None if there is none."""
    return min((finding.weight for finding in findings), key=lambda one: one.rank, default=None)
