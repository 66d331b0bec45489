"""
What AWS says about an Aurora cluster and its functions: facts, and the rules that read them.

`aws.read_cluster` and `aws.read_function` make the facts. Nothing here asks AWS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from lambdadb.operate.checks import Finding, Weight
from lambdadb.operate.postgresql_server import AUTO_PAUSE, listed
from lambdadb.operate.sessions import SessionView, holders

LONGEST_QUIET_PAUSE = 900.0
"""Seconds of pause time from which its idle tail is worth a word."""
CA_LEFT = timedelta(days=90)
UNRESERVED = 1000
"""Environments of a function without reserved concurrency: the account's default quota."""
SHORTEST_TIMEOUT = 20.0
"""Seconds below which a function cannot wait for a usual resume of 15 s and do its work."""
# Lambda Developer Guide, Lambda runtimes, as of November 2026.
ENDED_RUNTIMES = ("python3.6", "python3.7", "python3.8", "python3.9", "python3.10")


@dataclass(frozen=True, kw_only=True)
class InstanceFacts:
    """An instance of a cluster."""

    name: str
    instance_class: str
    writer: bool
    tier: int | None
    certificate_authority: str
    certificate_until: datetime | None


@dataclass(frozen=True, kw_only=True)
class ClusterFacts:
    """An Aurora cluster as AWS describes it. None: AWS did not say."""

    name: str
    arn: str
    engine: str
    version: str
    min_capacity: float | None
    """ACU; None: no serverless cluster."""
    max_capacity: float | None
    seconds_until_auto_pause: float | None
    capacity_now: float | None
    """ACU in the last minutes; 0: it is paused."""
    paused_share: float | None
    """Of the last 24 hours, 0 to 1."""
    activity_stream: bool
    instances: tuple[InstanceFacts, ...]
    proxies: tuple[str, ...]
    global_clusters: tuple[str, ...]
    zero_etl: tuple[str, ...]
    events: tuple[str, ...]
    """What happened around pauses and resumes in the last 24 hours."""
    blocker_lines: tuple[str, ...]
    """Lines of instance.log about what blocks the pause; empty unless the log was read."""
    unseen: tuple[str, ...]
    """What could not be asked, and why."""

    @property
    def pauses(self) -> bool:
        """Whether it is set to pause."""
        return self.min_capacity == 0


@dataclass(frozen=True, kw_only=True)
class FunctionFacts:
    """A function that has sessions, by its name. None: AWS did not say."""

    name: str
    concurrency: int | None
    """Reserved concurrency; None: it has none, or it is unknown."""
    peak: int | None
    """The most environments that ran at a time in the last three hours."""
    timeout: float | None = None
    runtime: str | None = None


def examine_cluster(facts: ClusterFacts, now: datetime) -> list[Finding]:
    """All that is wrong with the cluster."""
    return [*check_capacity(facts), *check_blockers(facts), *check_certificates(facts, now)]


def check_capacity(facts: ClusterFacts) -> list[Finding]:
    """Whether it is set to pause, and does."""
    if facts.min_capacity is None:
        return [
            Finding(
                "no serverless",
                f"{facts.name} has no serverless capacity: it never pauses.",
                "",
                weight=Weight.NOTE,
            )
        ]
    if not facts.pauses:
        return [
            Finding(
                "minimum capacity",
                f"The minimum capacity is {facts.min_capacity:g} ACU, so it never pauses.",
                "If it should, in serverlessv2_scaling_configuration (Terraform): min_capacity = 0",
                f"{facts.min_capacity:g} ACU are billed around the clock.",
                AUTO_PAUSE,
                Weight.NOTE,
            )
        ]
    found = []
    if facts.paused_share == 0:
        found.append(
            Finding(
                "never paused",
                "It was never paused in the last 24 hours, although its minimum capacity is 0.",
                "Other findings say what keeps it awake, as far as that can be seen. instance.log names "
                "every cause: lambdadb doctor --logs (reading it wakes the cluster).",
                "It is billed around the clock.",
                "CloudWatch, ServerlessDatabaseCapacity",
                Weight.WARNING,
            )
        )
    if (facts.seconds_until_auto_pause or 0) > LONGEST_QUIET_PAUSE:
        found.append(
            Finding(
                "pause time",
                f"It pauses only after {facts.seconds_until_auto_pause:.0f} s without a session.",
                "In serverlessv2_scaling_configuration (Terraform): seconds_until_auto_pause = 300",
                "Each wake is billed for so long after its last session.",
                AUTO_PAUSE,
                Weight.NOTE,
            )
        )
    return found


def check_blockers(facts: ClusterFacts) -> list[Finding]:
    """What keeps a cluster from pausing, by AWS's own list. It raises no error there."""
    if not facts.pauses:
        return []
    provisioned = [one.name for one in facts.instances if one.instance_class != "db.serverless"]
    blockers = (
        (
            "proxy",
            facts.proxies,
            "An RDS Proxy keeps a connection to each instance",
            "aws rds deregister-db-proxy-targets --db-proxy-name {0}, or delete it.",
        ),
        (
            "provisioned instance",
            provisioned,
            "A provisioned instance keeps the writer awake",
            'instance_class = "db.serverless" for {0}, or delete it.',
        ),
        (
            "global database",
            facts.global_clusters,
            "A global database keeps its clusters awake",
            "aws rds remove-from-global-cluster --global-cluster-identifier {0} …",
        ),
        (
            "zero-ETL",
            facts.zero_etl,
            "A zero-ETL integration keeps the cluster awake",
            "aws rds delete-integration --integration-identifier {0}",
        ),
        (
            "activity stream",
            [facts.name] if facts.activity_stream else [],
            "A database activity stream keeps the cluster awake",
            f"aws rds stop-activity-stream --resource-arn {facts.arn}",
        ),
    )
    found = [
        Finding(
            name,
            f"{meaning}: {listed(names)}.",
            remedy.format(names[0]),
            "The cluster never pauses while it is there.",
            AUTO_PAUSE,
            Weight.WARNING,
        )
        for name, names, meaning, remedy in blockers
        if names
    ]
    if facts.blocker_lines:
        found.append(
            Finding(
                "instance.log",
                f"Aurora's own log: {facts.blocker_lines[-1]}",
                "",
                "These are the causes that Aurora has noted last.",
                "Aurora User Guide, Administration of Aurora serverless",
                Weight.NOTE if "No auto-pause blockers" in facts.blocker_lines[-1] else Weight.WARNING,
            )
        )
    return found


def check_certificates(facts: ClusterFacts, now: datetime) -> list[Finding]:
    """The server's certificate should be of an authority that clients still trust."""
    found = []
    for one in facts.instances:
        old = one.certificate_authority == "rds-ca-2019"
        soon = one.certificate_until is not None and one.certificate_until < now + CA_LEFT
        if old or soon:
            until = f", valid until {one.certificate_until:%Y-%m-%d}" if one.certificate_until else ""
            found.append(
                Finding(
                    "certificate",
                    f"{one.name} has a certificate of {one.certificate_authority}{until}.",
                    f"aws rds modify-db-instance --db-instance-identifier {one.name} "
                    "--ca-certificate-identifier rds-ca-rsa2048-g1",
                    "Clients that verify the server refuse it once it has expired. The roots of 2019 "
                    "have expired, and are not in lambdadb.",
                    "Aurora User Guide, Using SSL/TLS",
                    Weight.WARNING,
                )
            )
    return found


def examine_functions(
    functions: Sequence[FunctionFacts], view: SessionView | None, *, pauses: bool | None
) -> list[Finding]:
    """All that is wrong with the functions that have sessions."""
    return [
        *check_budget(functions, view),
        *check_environments(functions, view),
        *check_timeouts(functions, pauses=pauses),
        *check_runtimes(functions),
    ]


def check_budget(functions: Sequence[FunctionFacts], view: SessionView | None) -> list[Finding]:
    """All environments together should find a connection each."""
    if view is None or not functions:
        return []
    most = {one.name: UNRESERVED if one.concurrency is None else one.concurrency for one in functions}
    slots = view.slots.ordinary
    if sum(most.values()) <= slots:
        return []
    each = ", ".join(f"{name} {count}" for name, count in most.items())
    first = max(most, key=lambda name: most[name])
    return [
        Finding(
            "connection budget",
            f"The functions that are connected may run {sum(most.values())} environments ({each}), and "
            f"there are {slots} connections for ordinary users.",
            f"aws lambda put-function-concurrency --function-name {first} "
            f"--reserved-concurrent-executions {max(slots // (2 * len(most)), 1)}; or raise the maximum "
            "capacity, which gives more connections after a reboot.",
            "In a burst the last ones get: too many connections. A function without reserved "
            f"concurrency counts as {UNRESERVED}, the account's default.",
            "Lambda Developer Guide, Understanding concurrency",
            Weight.WARNING,
        )
    ]


def check_environments(functions: Sequence[FunctionFacts], view: SessionView | None) -> list[Finding]:
    """A function should have about one session for each environment."""
    counts = {} if view is None else {one.name: one.count for one in holders(view)}
    return [
        Finding(
            "sessions of an environment",
            f"{one.name} has {counts[one.name]} sessions, and at most {one.peak} environments ran at a "
            "time in the last three hours.",
            "Make the engine in module scope, with lambdadb.create_engine: one session for each "
            "environment.",
            "An environment has several sessions. Usual causes: an engine that is made in the handler, "
            "or SQLAlchemy's default pool of 5 and 10 more.",
            "CloudWatch, ConcurrentExecutions; docs/which-policy.md",
            Weight.WARNING,
        )
        for one in functions
        if one.peak and counts.get(one.name, 0) >= 2 * one.peak
    ]


def check_timeouts(functions: Sequence[FunctionFacts], *, pauses: bool | None) -> list[Finding]:
    """A function in front of a cluster that pauses needs the time for a resume."""
    return [
        Finding(
            "function timeout",
            f"{one.name} has a timeout of {one.timeout:.0f} s, and the cluster pauses.",
            f"aws lambda update-function-configuration --function-name {one.name} --timeout 30",
            "A usual resume takes 15 s: the first invocation after a pause fails.",
            AUTO_PAUSE,
            Weight.WARNING,
        )
        for one in functions
        if pauses and one.timeout is not None and one.timeout < SHORTEST_TIMEOUT
    ]


def check_runtimes(functions: Sequence[FunctionFacts]) -> list[Finding]:
    """A function should run on a Python that Lambda still maintains."""
    return [
        Finding(
            "runtime",
            f"{one.name} runs on {one.runtime}, which Lambda has deprecated.",
            f"aws lambda update-function-configuration --function-name {one.name} --runtime python3.13 "
            "(build its layer anew: lambdadb layer --python 3.13)",
            "It gets no security fixes any more.",
            "Lambda Developer Guide, Lambda runtimes",
            Weight.WARNING,
        )
        for one in functions
        if one.runtime in ENDED_RUNTIMES
    ]
