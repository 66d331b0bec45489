"""The published hot/cold experiment as a benchmark: its handlers against a hot and a cold cluster.

Time between invocations may pass faster; connects, resumes and statements run in real time, so that
every figure in seconds means the same at any speed.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lambdadb import PerInvocation, create_engine
from lambdadb.lab import LabError
from lambdadb.lab.aurora import Cluster, ClusterEvent, State
from lambdadb.lab.bench.cluster_url import redacted, with_tls
from lambdadb.lab.bench.config import (
    AUTO_PAUSE,
    CLUSTER,
    FIRST_ID,
    OWN_TABLES,
    STEADY_ROUND_TRIP,
    TABLE,
    BenchConfig,
    Cell,
    description,
    idle_session_timeout,
    lanes,
    timestamp,
)
from lambdadb.lab.bench.lanes import Lanes
from lambdadb.lab.bench.real import login_variables
from lambdadb.lab.bench.records import (
    ChangeRecord,
    InvocationRecord,
    NoteRecord,
    Record,
    ServerRecord,
)
from lambdadb.lab.bench.table import prepare, prepare_mariadb
from lambdadb.lab.clock import LabClock
from lambdadb.lab.data_api import DataApi
from lambdadb.lab.environment import Environment
from lambdadb.lab.mariadb import MariaDB
from lambdadb.lab.postgres import Postgres

# The code of the functions, as Lambda would unzip it: not modules of this package.
FUNCTIONS = Path(__file__).with_name("functions")
# What the reader of a run on MariaDB has to know.
NOTES_OF_MYSQL = (
    "The server is MariaDB, as Aurora MySQL does not run outside of AWS. The published figures are of "
    "Aurora PostgreSQL.",
    "MariaDB 10.11 and MySQL 8 have no type for vectors: each row's vector is JSON, without an index.",
    "AUTO_INCREMENT survives a restart. So the ids of a cluster that pauses go up by 1, too, and do not "
    "show its pauses.",
)


NOTE_OF_DATA_API = (
    "The Data API is emulated on this machine: what AWS's service adds to each call is not measured."
)


@dataclass(frozen=True)
class Stage:
    """What a cell runs against: its cluster's URL, the lab's time, and emulators if there are any."""

    url: str
    table: str
    clock: LabClock
    cluster: Cluster | None
    api: DataApi | None = None


class Bench(Lanes):
    """
    The experiment, running: iterate over `records()`, each comes as soon as it is measured.

    Embedded cells have their own server and run at the same time. Cells of a real cluster run one
    after the other, as one open session of another cell would keep the cluster awake. Leaving the
    context ends everything that was started, in mid-invocation too.

    Args:
        config: What is run.
        versions: Of the servers of real clusters, as `RealClusters` found them.
    """

    def __init__(
        self, config: BenchConfig, versions: Mapping[str, Mapping[str, str]] | None = None
    ) -> None:
        super().__init__([partial(self.run_lane, lane) for lane in lanes(config)])
        self.config = config
        self.versions = versions or {}
        self.environments: list[Environment] = []

    def records(self) -> Iterator[Record]:
        """Run the experiment, giving each record as it comes."""
        yield description(self.config)
        if self.config.engine == "mysql":
            yield from (NoteRecord(text=text) for text in NOTES_OF_MYSQL)
        if "data_api" in self.config.policies:
            yield NoteRecord(text=NOTE_OF_DATA_API)
        yield from super().records()

    def close(self) -> None:
        """End all cells now, in mid-invocation too."""
        self.stop.set()
        for environment in list(self.environments):
            environment.close()
        super().close()

    def run_lane(self, lane: list[Cell]) -> None:
        """Run cells one after the other; what fails in one is a record, and the next one begins."""
        for cell in lane:
            if self.stop.is_set():
                return
            try:
                self.run_cell(cell)
            except Exception as error:
                self.report_failure(cell, error)

    def report_failure(self, cell: Cell, error: Exception) -> None:
        if self.stop.is_set():
            return
        self.queue.put(
            InvocationRecord(
                aurora_type=cell.aurora_type,
                policy=cell.policy,
                number=0,
                at=0.0,
                timestamp=timestamp(),
                experiment=self.config.experiment,
                error=redacted(f"{type(error).__name__}: {error}", self.config.urls.values()),
            )
        )

    def run_cell(self, cell: Cell) -> None:
        with ExitStack() as stack:
            stage = self.stage(cell, stack)
            environment = stack.enter_context(self.environment(cell, stage))
            self.environments.append(environment)
            stack.callback(self.environments.remove, environment)
            if stage.cluster is None and cell.aurora_type == "cold":
                # Preparing the table woke the cluster: give it the time to pause again.
                self.stop.wait(self.config.interval_of("cold"))
            self.invoke_all(cell, stage, environment)

    def invoke_all(self, cell: Cell, stage: Stage, environment: Environment) -> None:
        began = stage.clock.now()
        measured_from: float | None = None
        rounds = self.config.rounds_of(cell.aurora_type)
        for number in range(1, rounds + 1):
            if self.stop.is_set():
                return
            record = self.invocation(cell, stage, environment, number, measured_from)
            if record.error and self.stop.is_set():
                return
            self.queue.put(record)
            # From the end of the first invocation to the end of a later one are whole intervals.
            measured_from = measured_from or stage.clock.now()
            if number < rounds:
                self.sleep_until(stage.clock, began + number * self.config.interval_of(cell.aurora_type))

    def stage(self, cell: Cell, stack: ExitStack) -> Stage:
        cluster_name = CLUSTER[cell.aurora_type]
        if cluster_name in self.config.urls:
            url = with_tls(self.config.urls[cluster_name], always=self.config.iam)
            versions = self.versions.get(cluster_name, {})
            stage = Stage(url, OWN_TABLES[cluster_name], LabClock(), None)
        else:
            server: Postgres | MariaDB = MariaDB() if self.config.engine == "mysql" else Postgres()
            stack.enter_context(server)
            engine = create_engine(server.url(), policy=PerInvocation())
            make_table = prepare_mariadb if self.config.engine == "mysql" else prepare
            versions = make_table(engine, TABLE, first_id=FIRST_ID[cell.aurora_type])
            clock = LabClock()
            cluster = stack.enter_context(self.cluster(cell, server, clock))
            if isinstance(server, Postgres) and cell.policy == "data_api":
                api = stack.enter_context(DataApi(server, cluster=cluster, clock=clock))
                stage = Stage(api.url(), TABLE, clock, cluster, api)
            else:
                stage = Stage(cluster.url(), TABLE, clock, cluster)
        self.queue.put(ServerRecord(aurora_type=cell.aurora_type, policy=cell.policy, versions=versions))
        return stage

    def cluster(self, cell: Cell, server: Postgres | MariaDB, clock: LabClock) -> Cluster:
        if cell.aurora_type == "hot":
            return Cluster(server, clock=clock)
        if cell.aurora_type == "steady":
            return Cluster(server, clock=clock, round_trip=STEADY_ROUND_TRIP)
        return Cluster(
            server,
            auto_pause=AUTO_PAUSE,
            resume=self.config.resume,
            shape=self.config.shape,
            clock=clock,
            paused=True,
            on_event=self.changes_of(cell),
        )

    def changes_of(self, cell: Cell) -> Callable[[ClusterEvent], None]:
        def put(event: ClusterEvent) -> None:
            self.queue.put(
                ChangeRecord(
                    aurora_type=cell.aurora_type,
                    policy=cell.policy,
                    at=event.at,
                    kind=event.kind,
                    reason=event.reason,
                )
            )

        return put

    def environment(self, cell: Cell, stage: Stage) -> Environment:
        return Environment(
            f"{'insert' if stage.api is None else 'data_api'}.{cell.policy}",
            path=[FUNCTIONS],
            function_name=f"lambdadb-bench-{cell.aurora_type}-{cell.policy.replace('_', '-')}",
            environment={
                "DATABASE_URL": stage.url,
                "TABLE": stage.table,
                "AURORA_TYPE": cell.aurora_type,
                "EXPERIMENT": self.config.experiment,
                "IDLE_SESSION_TIMEOUT": str(idle_session_timeout(self.config)),
                # For a cluster on this machine; the URL of any other says how it is verified.
                "PGSSLMODE": "prefer",
                **(stage.api.environment() if stage.api else {}),
                **login_variables(self.config, stage.url, os.environ),
            },
        )

    def invocation(
        self,
        cell: Cell,
        stage: Stage,
        environment: Environment,
        number: int,
        measured_from: float | None,
    ) -> InvocationRecord:
        cluster = stage.cluster
        stage.clock.speed = 1.0
        at, moment = stage.clock.now(), timestamp()
        trips = cluster.round_trips if cluster else 0
        calls = len(stage.api.calls) if stage.api else 0
        record: dict[str, Any] = {"number": number, "at": at, "timestamp": moment}
        try:
            environment.invoke({"round": number})
            record.update(log_line(environment.log))
        except LabError as failure:
            record["error"] = redacted(str(failure), self.config.urls.values())
            self.await_resume(cluster)
        if stage.api:
            record["calls"] = len(stage.api.calls) - calls
        elif cluster:
            record["round_trips"] = cluster.round_trips - trips
        stage.clock.speed = self.config.speed
        if cluster:
            # The goodbye of a closed connection takes a moment to reach the cluster.
            self.stop.wait(min(0.1, idle_session_timeout(self.config) / 4))
            record["sessions_left"] = len(cluster.sessions())
            if measured_from is not None:
                record["paused_share"] = cluster.paused_share(measured_from)
        return InvocationRecord(
            **{
                "aurora_type": cell.aurora_type,
                "policy": cell.policy,
                "experiment": self.config.experiment,
                **record,
            }
        )

    def await_resume(self, cluster: Cluster | None) -> None:
        """After a handler that did not wait: the resume that it began takes its real time, too."""
        end = time.monotonic() + self.config.resume + 10.0
        self.stop.wait(0.1)  # a resume begins a moment after the attempt
        while cluster and cluster.state is State.RESUMING and time.monotonic() < end:
            if self.stop.wait(0.05):
                return

    def sleep_until(self, clock: LabClock, at: float) -> None:
        self.stop.wait(max(0.0, at - clock.now()) / self.config.speed)


def log_line(log: Sequence[str]) -> dict[str, Any]:
    """The handler's last JSON line."""
    for entry in reversed(log):
        if entry.startswith("{"):
            fields: dict[str, Any] = json.loads(entry)
            return fields
    raise LabError("the handler returned, but logged no JSON line")
