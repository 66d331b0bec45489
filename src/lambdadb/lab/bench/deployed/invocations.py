"""The deployed functions invoked from here, one handler after the other for each cluster."""

from __future__ import annotations

import json
import time
from datetime import datetime, timezone
from functools import partial
from typing import Any

from lambdadb.lab.bench.deployed.clients import Clients, Refused, explained
from lambdadb.lab.bench.deployed.infra import DeployedFunction, Infra
from lambdadb.lab.bench.lanes import Lanes
from lambdadb.lab.bench.records import InvocationRecord


class Invocations(Lanes):
    """
    Invokes each function `rounds` times: iterate over `records()`.

    The clusters are used at the same time. The functions of one cluster take turns, and SQLAlchemy's
    default pool is the last: its session outlives its turn, and keeps the cluster awake. Before the
    first invocation of a turn the cold cluster gets the time to pause.

    Args:
        infra: What was deployed.
        clients: Of AWS's services.
        rounds: Invocations of each function.
        interval: Seconds between two of them, in place of their schedule's.
        done: Invocations that an earlier, interrupted run has: cluster, policy and number.
    """

    def __init__(
        self,
        infra: Infra,
        clients: Clients,
        *,
        rounds: int,
        interval: float | None,
        done: set[tuple[str, str, int]],
    ) -> None:
        # An invocation under way is waited for: it cannot be taken back, and its row should be known.
        super().__init__(
            [partial(self.take_turns, kind) for kind in infra.clusters], patience=clients.timeout
        )
        self.infra = infra
        self.rounds = rounds
        self.interval = interval
        self.done = done
        self.client = clients.of("lambda")

    def take_turns(self, kind: str) -> None:
        for function in self.infra.functions_of(kind):
            left = [
                number
                for number in range(1, self.rounds + 1)
                if (kind, function.policy, number) not in self.done
            ]
            # What came before, a run that was interrupted too, may have left the cluster awake.
            next_at = time.monotonic() + (self.interval_of(kind) if kind == "cold" and left else 0.0)
            for number in left:
                if self.stop.wait(max(0.0, next_at - time.monotonic())):
                    return
                next_at = time.monotonic() + self.interval_of(kind)
                self.queue.put(invoke(self.client, function, number, self.infra.experiment))

    def interval_of(self, kind: str) -> float:
        return self.interval or self.infra.clusters[kind].interval


def check(infra: Infra, clients: Clients) -> None:
    """
    Ask Lambda whether it would run each function; none is run.

    Raises:
        Refused: There is no such function, or no right to invoke it.
    """
    for function in infra.functions:
        with explained(f"invoke {function.name}", "lambda:InvokeFunction"):
            clients.of("lambda").invoke(FunctionName=function.name, InvocationType="DryRun")


def minutes(infra: Infra, rounds: int, interval: float | None) -> float:
    """How long the invocations take: on a cold cluster each turn begins with the time for a pause."""
    lasting = [
        len(infra.functions_of(kind))
        * (rounds if kind == "cold" else rounds - 1)
        * (interval or cluster.interval)
        for kind, cluster in infra.clusters.items()
    ]
    return max(lasting) / 60


def invoke(client: Any, function: DeployedFunction, number: int, experiment: str) -> InvocationRecord:
    """One invocation: the line that the function answers with, or why there is none."""
    moment = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    found: dict[str, Any] = {}
    try:
        with explained(f"invoke {function.name}", "lambda:InvokeFunction"):
            answer = client.invoke(FunctionName=function.name, Payload=b"{}")
            body = json.loads(answer["Payload"].read())
    except Refused as error:
        found = {"error": str(error)}
    else:
        if "FunctionError" in answer:
            found = {"error": f"{body.get('errorType', '')}: {body.get('errorMessage', '')}"}
        else:
            names = ("elapsed", "new_id", "connects", "retries", "resume_wait")
            found = {name: body[name] for name in names}
    return InvocationRecord(
        aurora_type=function.aurora_type,
        policy=function.policy,
        number=number,
        at=0.0,
        timestamp=moment,
        experiment=experiment,
        **found,
    )
