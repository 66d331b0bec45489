"""The deployed experiment without AWS: its real functions on their schedule, on emulated clusters."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from lambdadb import PerInvocation, create_engine
from lambdadb.lab.aurora import Cluster, ClusterEvent, State
from lambdadb.lab.bench.config import FIRST_ID, IDLE_SESSION_TIMEOUT, INTERVAL, TABLE
from lambdadb.lab.bench.deployed.collection import EVENT_TEXTS
from lambdadb.lab.bench.records import WITH_CONNECTIONS
from lambdadb.lab.bench.runner import FUNCTIONS
from lambdadb.lab.bench.table import prepare
from lambdadb.lab.clock import LabClock
from lambdadb.lab.emulated_aws.server import EmulatedAWS, FunctionFailed
from lambdadb.lab.environment import Environment, FunctionError, FunctionTimeout
from lambdadb.lab.postgres import Postgres

# Seconds of the lab between two samples of a cluster's metrics.
SAMPLE = 6.0
# The capacity of an awake cluster, and of one around an invocation. How Aurora scales is not emulated.
IDLE_ACU, BUSY_ACU = 0.5, 1.0
TEXT_OF = {kind: f"{text}." for text, kind in EVENT_TEXTS.items()}
# A cluster of the lab pauses and resumes at once, and tells it with one event; RDS begins with another.
EVENTS_OF = {"paused": ("pausing", "paused"), "resuming": ("resuming",), "available": ("available",)}


@dataclass(frozen=True, kw_only=True)
class EmulatedSettings:
    """What is emulated, and how. Durations are seconds: of the lab, but for the network's."""

    policies: Sequence[str] = WITH_CONNECTIONS
    rounds: int = 2
    speed: float = 120.0
    """How many times as fast the time between invocations passes."""
    interval: Mapping[str, float] = field(
        default_factory=lambda: {k: INTERVAL[k] for k in ("hot", "cold")}
    )
    """Seconds between two invocations of a function, for each cluster that there is."""
    auto_pause: float = 420.0
    resume: float = 15.0
    round_trip: float = 0.0
    """The network's delay between a function and its cluster."""
    tls: ssl.SSLContext | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    """The functions' own."""
    login: Callable[[str, Postgres], Mapping[str, str]] | None = None
    """The functions' variables for a cluster's login; by default libpq's own."""
    emulated: Mapping[str, str] = field(default_factory=dict)
    """More to say about what is emulated, in the report."""


@dataclass
class Stage:
    """A cluster with its functions."""

    kind: str
    cluster: Cluster
    clock: LabClock
    environments: dict[str, Environment]
    busy_until: float = -1.0


class EmulatedExperiment:
    """
    Clusters and functions, whose log, metrics and events reach the emulated AWS.

    Entering starts them; `run()` invokes the functions as their schedule does, one policy after the
    other. Lambda's API of the emulated AWS invokes them, too.

    Args:
        aws: Where everything is reported.
        settings: What is emulated.
        began: The moment of the lab's second 0. All of it should be over by now, if it is read at once.
    """

    def __init__(self, aws: EmulatedAWS, settings: EmulatedSettings, began: datetime) -> None:
        self.aws = aws
        self.settings = settings
        self.began = began
        self.name = f"emulated_{began:%Y%m%d_%H%M%S}"
        self.stages: dict[str, Stage] = {}
        self._stack = ExitStack()
        self._stop = threading.Event()

    def __enter__(self) -> EmulatedExperiment:
        try:
            for kind in self.settings.interval:
                self.stages[kind] = self._open(kind)
                sampler = threading.Thread(target=self._sample, args=(self.stages[kind],), daemon=True)
                sampler.start()
                self._stack.callback(sampler.join)
            self._stack.callback(self._stop.set)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def run(self, tell: Callable[[str], object] = lambda _: None) -> None:
        """Invoke every function on its schedule; both clusters at the same time."""
        threads = [
            threading.Thread(target=self._follow_schedule, args=(stage, tell), daemon=True)
            for stage in self.stages.values()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def infra(self, **more: object) -> dict[str, Any]:
        """What `terraform output -json experiment` would write, and what is emulated."""
        return {
            "experiment": self.name,
            "region": "us-east-1",
            "scheduled": None,
            "clusters": {
                kind: {
                    "identifier": f"lambdadb-{kind}",
                    "instance": f"lambdadb-{kind}-writer",
                    "min_capacity": 0 if kind == "cold" else IDLE_ACU,
                    "max_capacity": BUSY_ACU,
                    "seconds_until_auto_pause": 300 if kind == "cold" else None,
                    "schedule": f"rate({self.settings.interval[kind] / 60:g} minutes)",
                }
                for kind in self.stages
            },
            "functions": [
                {
                    "name": environment.function_name,
                    "log_group": group_of(environment),
                    "aurora_type": kind,
                    "policy": policy,
                    "handler": environment.handler,
                }
                for kind, stage in self.stages.items()
                for policy, environment in stage.environments.items()
            ],
            "emulated": {**self._emulated(), **self.settings.emulated},
            **more,
        }

    def invoke(self, stage: Stage, policy: str) -> object:
        """
        Invoke a function, at the speed of real time.

        Raises:
            FunctionFailed: It failed.
        """
        environment = stage.environments[policy]
        stage.clock.speed = 1.0
        stage.busy_until = stage.clock.now() + 60.0
        try:
            return environment.invoke({})
        except FunctionError as error:
            if isinstance(error, FunctionTimeout):
                record = {"type": "platform.report", "record": {"status": "timeout"}}
                self._log(environment, stage, json.dumps(record))
            raise FunctionFailed({"errorType": error.type, "errorMessage": error.message}) from error
        finally:
            stage.busy_until = stage.clock.now() + 30.0
            stage.clock.speed = self.settings.speed

    def _emulated(self) -> dict[str, str]:
        settings = self.settings
        found = {
            "time": "idle time passed "
            f"{settings.speed:g} times as fast; connects, resumes and statements in real time",
            "Lambda": "AWS's runtime client in processes of this machine, frozen between invocations. "
            "They end with their turn",
            "Aurora": f"PostgreSQL behind a proxy of the lab; the cold one pauses after "
            f"{settings.auto_pause:g} s without a connection and needs {settings.resume:g} s to resume",
            "CloudWatch": "the lab's, with the functions' own lines. A cluster's capacity is 0 while it "
            f"is paused, {BUSY_ACU:g} around an invocation, else {IDLE_ACU:g}: how Aurora scales is not "
            "emulated",
        }
        if settings.round_trip:
            found["network"] = f"{settings.round_trip * 1000:g} ms for each round trip to a cluster"
        if settings.tls:
            found["TLS"] = "the proxy's, with a certificate that each function verifies"
        return found

    def _open(self, kind: str) -> Stage:
        settings, stack = self.settings, self._stack
        server = stack.enter_context(Postgres())
        engine = create_engine(server.url(), policy=PerInvocation())
        prepare(engine, TABLE, first_id=FIRST_ID[kind])
        clock = LabClock()  # until the schedule begins
        cold = kind == "cold"
        cluster = stack.enter_context(
            Cluster(
                server,
                auto_pause=settings.auto_pause if cold else None,
                resume=settings.resume,
                clock=clock,
                round_trip=settings.round_trip,
                tls=settings.tls,
                paused=cold,
                on_event=partial(self._report, kind, clock),
            )
        )
        stage = Stage(kind, cluster, clock, {})
        for policy in settings.policies:
            environment = stack.enter_context(self._environment(stage, server, policy))
            stage.environments[policy] = environment
            self.aws.groups.add(group_of(environment))
            self.aws.function(environment.function_name, partial(self.invoke, stage, policy))
        return stage

    def _environment(self, stage: Stage, server: Postgres, policy: str) -> Environment:
        settings = self.settings
        own = {"AURORA_USER": "postgres", "PGPASSWORD": server.password}
        login = settings.login(stage.kind, server) if settings.login else own
        variables = {
            "AURORA_HOST": "127.0.0.1",
            "AURORA_PORT": str(stage.cluster.port),
            "AURORA_TYPE": stage.kind,
            "EXPERIMENT": self.name,
            "IDLE_SESSION_TIMEOUT": str(IDLE_SESSION_TIMEOUT / settings.speed),
            "AWS_LAMBDA_LOG_FORMAT": "JSON",
            **({} if settings.tls else {"PGSSLMODE": "disable"}),
            **login,
            **settings.variables,
        }
        environment = Environment(
            f"insert.{policy}",
            path=[FUNCTIONS],
            function_name=f"lambdadb-{stage.kind}-{policy.replace('_', '-')}",
            environment=variables,
        )
        environment.on_log = partial(self._log, environment, stage)
        return environment

    def _log(self, environment: Environment, stage: Stage, line: str) -> None:
        self.aws.log(group_of(environment), self._moment(stage.clock), line)

    def _report(self, kind: str, clock: LabClock, event: ClusterEvent) -> None:
        for one in EVENTS_OF.get(event.kind, ()):
            self.aws.event(f"lambdadb-{kind}-writer", self._moment(clock), TEXT_OF[one])

    def _sample(self, stage: Stage) -> None:
        """Report the cluster's metrics every few seconds of the lab's time."""
        name, last = f"lambdadb-{stage.kind}", -SAMPLE
        while not self._stop.wait(0.01):
            now = stage.clock.now()
            if now < last + SAMPLE:
                continue
            last = now - now % SAMPLE
            at = self._moment(stage.clock)
            if stage.cluster.state is not State.AVAILABLE:
                self.aws.value("ServerlessDatabaseCapacity", name, at, 0.0)
                continue
            acu = BUSY_ACU if now < stage.busy_until else IDLE_ACU
            self.aws.value("ServerlessDatabaseCapacity", name, at, acu)
            self.aws.value("DatabaseConnections", name, at, len(stage.cluster.sessions()))

    def _follow_schedule(self, stage: Stage, tell: Callable[[str], object]) -> None:
        interval = self.settings.interval[stage.kind]
        next_at = stage.clock.now()
        for policy, environment in stage.environments.items():
            for _ in range(self.settings.rounds):
                if self._stop.wait(max(0.0, next_at - stage.clock.now()) / self.settings.speed):
                    return
                next_at = stage.clock.now() + interval
                try:
                    tell(f"{stage.kind}: {json.dumps(self.invoke(stage, policy))}")
                except FunctionFailed as failed:
                    tell(f"{stage.kind}, {policy}: {failed}")
            # Another policy's session would keep the cluster awake.
            environment.end()
        stage.clock.speed = 1.0

    def _moment(self, clock: LabClock) -> datetime:
        return self.began + timedelta(seconds=clock.now())


def lasting(settings: EmulatedSettings) -> timedelta:
    """How long the schedule takes in the lab's time, at most: with a minute more for each invocation."""
    number = len(settings.policies) * settings.rounds
    longest = max(settings.interval.values()) + settings.resume + 60.0
    return timedelta(seconds=longest * number)


def group_of(environment: Environment) -> str:
    return f"/aws/lambda/{environment.function_name}"


def write_infra(experiment: EmulatedExperiment, file: Path) -> Path:
    """Write the file for `lambdadb bench --on lambda --infra`."""
    file.write_text(json.dumps(experiment.infra(), indent=2))
    return file
