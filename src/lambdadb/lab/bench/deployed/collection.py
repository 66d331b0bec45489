"""What AWS knows of the experiment, brought home: the functions' log, metrics, and events."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from itertools import chain

from lambdadb.lab.bench.capacity import read_metric
from lambdadb.lab.bench.deployed.clients import Clients, Refused, explained
from lambdadb.lab.bench.deployed.infra import DeployedCluster, DeployedFunction, Infra
from lambdadb.lab.bench.deployed.insights import Row, query
from lambdadb.lab.bench.records import (
    CapacityRecord,
    ConnectionsRecord,
    EventRecord,
    FetchedRecord,
    InvocationRecord,
    NoteRecord,
    Record,
)

# A line or a value may come so much later than its own time; the last minutes are read again next time.
LATE = timedelta(minutes=5)
# RDS keeps an event for 14 days (RDS API reference, DescribeEvents).
EVENTS_KEPT = timedelta(days=14)
# Pages of events; a page holds a hundred.
PAGES = 100

# What the functions print, and what the runtime client and the platform write of those that fail. All
# are JSON lines: the functions log in JSON.
LINES = """fields @timestamp, elapsed, new_id, policy, connects, retries, resume_wait
| filter experiment = "{experiment}" and aurora_type = "{aurora_type}"
| sort @timestamp asc"""
FAILURES = """fields @timestamp, @log, errorType, errorMessage, record.errorType, record.status
| filter ispresent(errorType) or record.status in ["timeout", "error"]
| sort @timestamp asc"""

# RDS gives no number of an event through its API. These are the texts of RDS-EVENT-0370 to 0374, in this
# order (Aurora User Guide, "Amazon RDS event categories and event messages for Aurora").
EVENT_TEXTS = {
    "Initiated pause for the DB instance": "pausing",
    "Pause was canceled for the DB instance": "not paused",
    "Successfully paused the DB instance": "paused",
    "Initiated resume for the DB instance": "resuming",
    "Successfully resumed the DB instance": "available",
}


class Collection:
    """
    Reads what happened between two moments, without what was read before.

    Args:
        infra: What was deployed.
        clients: Of AWS's services.
        begin: The earliest moment.
        end: The latest one.
        known: Records of an earlier reading: its stretches of time are left out.
        wait: Waits for so many seconds.
    """

    def __init__(
        self,
        infra: Infra,
        clients: Clients,
        begin: datetime,
        end: datetime,
        known: Sequence[Record],
        wait: Callable[[float], object],
    ) -> None:
        self.infra = infra
        self.clients = clients
        self.begin = begin
        self.end = end
        self.fetched = [one for one in known if isinstance(one, FetchedRecord)]
        self.wait = wait

    def log(self) -> Iterator[Record]:
        """
        The invocations of each cluster's functions, as their log has them.

        Raises:
            Refused: A right is missing, or a log group.
        """
        for kind in self.infra.clusters:
            for begin, end in self.gaps("log", kind):
                yield from self.invocations(kind, begin, end)
                yield self.mark("log", kind, begin, end)

    def metrics(self) -> Iterator[Record]:
        """Capacity, connections and events of each cluster; where one is not to be had, why."""
        for cluster in self.infra.clusters.values():
            for what, read in (
                ("capacity", self.capacity),
                ("connections", self.connections),
                ("events", self.events),
            ):
                for begin, end in self.gaps(what, cluster.aurora_type):
                    try:
                        yield from read(cluster, begin, end)
                    except Refused as error:
                        text = f"The {cluster.aurora_type} cluster's {what} are n/a: {error}."
                        yield NoteRecord(text=text)
                        break
                    yield self.mark(what, cluster.aurora_type, begin, end)

    def invocations(self, kind: str, begin: datetime, end: datetime) -> Iterator[Record]:
        functions = self.infra.functions_of(kind)
        lines = LINES.format(experiment=self.infra.experiment, aurora_type=kind)
        found = [self.ask(functions, text, begin, end) for text in (lines, FAILURES)]
        for row in sorted(chain(*found), key=lambda row: row["@timestamp"]):
            yield self.invocation(kind, row)

    def ask(
        self, functions: Sequence[DeployedFunction], text: str, begin: datetime, end: datetime
    ) -> list[Row]:
        groups = [function.log_group for function in functions]
        first, last = int(begin.timestamp()), int(end.timestamp()) + 1
        return list(query(self.clients.of("logs"), groups, text, first, last, self.wait))

    def invocation(self, kind: str, row: Row) -> InvocationRecord:
        moment = datetime.fromisoformat(row["@timestamp"]).replace(tzinfo=timezone.utc)
        common = {
            "aurora_type": kind,
            "number": 0,
            "at": 0.0,
            "timestamp": moment.isoformat(timespec="milliseconds"),
            "experiment": self.infra.experiment,
        }
        if "policy" not in row:
            return InvocationRecord(**common, policy=self.policy_of(row), error=failure_in(row))  # type: ignore[arg-type]
        return InvocationRecord(
            **common,  # type: ignore[arg-type]
            policy=row["policy"],
            elapsed=float(row["elapsed"]),
            new_id=int(float(row["new_id"])),
            connects=int(float(row.get("connects", 0))),
            retries=int(float(row.get("retries", 0))),
            resume_wait=float(row.get("resume_wait", 0)),
        )

    def policy_of(self, row: Row) -> str:
        """The policy of the function whose log group the row is from: `ACCOUNT:GROUP` in `@log`."""
        group = row.get("@log", "").partition(":")[2]
        return next(one.policy for one in self.infra.functions if one.log_group == group)

    def capacity(self, cluster: DeployedCluster, begin: datetime, end: datetime) -> Iterator[Record]:
        for at, acu in self.metric(cluster, "ServerlessDatabaseCapacity", begin, end, "Average"):
            yield CapacityRecord(aurora_type=cluster.aurora_type, timestamp=at.isoformat(), acu=acu)

    def connections(self, cluster: DeployedCluster, begin: datetime, end: datetime) -> Iterator[Record]:
        for at, most in self.metric(cluster, "DatabaseConnections", begin, end, "Maximum"):
            yield ConnectionsRecord(aurora_type=cluster.aurora_type, timestamp=at.isoformat(), most=most)

    def metric(
        self, cluster: DeployedCluster, name: str, begin: datetime, end: datetime, statistic: str
    ) -> list[tuple[datetime, float]]:
        dimension = ("DBClusterIdentifier", cluster.identifier)
        with explained(f"read {name} of {cluster.identifier}", "cloudwatch:GetMetricData"):
            client = self.clients.of("cloudwatch")
            return read_metric(client, dimension, name, begin, end, statistic=statistic)

    def events(self, cluster: DeployedCluster, begin: datetime, end: datetime) -> Iterator[Record]:
        oldest = datetime.now(timezone.utc) - EVENTS_KEPT + timedelta(minutes=1)
        if begin < oldest:
            yield NoteRecord(
                text=f"RDS keeps an event for 14 days: those of the {cluster.aurora_type} cluster "
                f"before {oldest:%Y-%m-%d %H:%M} are gone."
            )
        page: dict[str, str] = {}
        for _ in range(PAGES):
            with explained(f"read the events of {cluster.instance}", "rds:DescribeEvents"):
                answer = self.clients.of("rds").describe_events(
                    SourceIdentifier=cluster.instance,
                    SourceType="db-instance",
                    StartTime=max(begin, oldest),
                    EndTime=end,
                    **page,
                )
            for event in answer["Events"]:
                yield EventRecord(
                    aurora_type=cluster.aurora_type,
                    timestamp=event["Date"].astimezone(timezone.utc).isoformat(),
                    kind=kind_of(event["Message"]),
                    text=event["Message"],
                )
            if not answer.get("Marker"):
                return
            page = {"Marker": answer["Marker"]}

    def gaps(self, what: str, aurora_type: str) -> list[tuple[datetime, datetime]]:
        """The stretches of time that were not read yet, in order."""
        begin, found = self.begin, []
        done = sorted(
            (datetime.fromisoformat(one.begin), datetime.fromisoformat(one.end))
            for one in self.fetched
            if (one.what, one.aurora_type) == (what, aurora_type)
        )
        for first, last in done:
            if begin < first < self.end:
                found.append((begin, first))
            begin = max(begin, last)
        if begin < self.end:
            found.append((begin, self.end))
        return found

    def mark(self, what: str, aurora_type: str, begin: datetime, end: datetime) -> FetchedRecord:
        """What was read for good: without the last minutes, which may still get more."""
        last = max(begin, min(end, datetime.now(timezone.utc) - LATE))
        return FetchedRecord(
            what=what, aurora_type=aurora_type, begin=begin.isoformat(), end=last.isoformat()
        )


def kind_of(text: str) -> str:
    """What an event of RDS says, by its documented text."""
    return next((kind for start, kind in EVENT_TEXTS.items() if text.startswith(start)), "other")


def failure_in(row: Row) -> str:
    """The error of a failed invocation: the runtime client's, or the platform's where it was ended."""
    if "errorType" in row:
        return f"{row['errorType']}: {row.get('errorMessage', '')}"
    return f"{row.get('record.errorType') or 'Lambda'}: {row['record.status']}"
