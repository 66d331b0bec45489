"""Real clusters by URL: checked before the first round, prepared, and left clean."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import datetime

from sqlalchemy import Engine

import lambdadb
from lambdadb.credentials import Credentials
from lambdadb.credentials.rds_iam import RdsIam
from lambdadb.credentials.secrets_manager import SecretsManager
from lambdadb.extras import install_command
from lambdadb.lab.bench.capacity import await_capacity
from lambdadb.lab.bench.cluster_url import cluster_of, place, region_in, with_tls
from lambdadb.lab.bench.config import OWN_TABLES, BenchConfig
from lambdadb.lab.bench.records import CapacityRecord, NoteRecord, Record
from lambdadb.lab.bench.table import clean_up, make_missing, problems
from lambdadb.operate.checks import Finding

# Seconds for the first connect: a cluster that slept for a day needs 30 and more, and two minutes
# were reported.
CONNECT = 150.0


def engine_of(config: BenchConfig, cluster: str) -> Engine:
    """An engine on one of the clusters, with the login that the functions use."""
    url = config.urls[cluster]
    credentials: Credentials | None = None
    if config.secret:
        credentials = SecretsManager(config.secret, region=region_in(url))
    elif config.iam:
        credentials = RdsIam()
    return lambdadb.create_engine(
        with_tls(url, always=config.iam),
        policy=lambdadb.PerInvocation(),
        retry=lambdadb.ResumeRetry(timeout=CONNECT),
        credentials=credentials,
    )


def problems_of(config: BenchConfig, cluster: str) -> list[Finding]:
    """What keeps the benchmark from running against one of the clusters. Nothing is changed there."""
    engine = engine_of(config, cluster)
    return problems(engine, OWN_TABLES[cluster], create=config.create, clean_up=config.clean_up)


class RealClusters:
    """
    The clusters of a run, prepared.

    Attributes:
        versions: Of each cluster's server.
    """

    def __init__(self, config: BenchConfig) -> None:
        self.config = config
        self.versions: dict[str, dict[str, str]] = {}
        self._made: dict[str, bool] = {}
        for cluster in config.urls:
            engine = engine_of(config, cluster)
            self.versions[cluster], self._made[cluster] = make_missing(engine, OWN_TABLES[cluster])

    def clean_up(self) -> list[str]:
        """Leave the clusters as they were found; what was done, a sentence for each."""
        return [
            clean_up(
                engine_of(self.config, cluster),
                OWN_TABLES[cluster],
                self.config.experiment,
                made=made,
            )
            for cluster, made in self._made.items()
        ]


def login_variables(config: BenchConfig, url: str, environment: Mapping[str, str]) -> dict[str, str]:
    """
    What a function needs to read its login, where the URL does not hold it.

    On Lambda a function has its role. Here it has what this shell has for AWS: variables, and the files
    in the home folder, but no password file of libpq.
    """
    if not config.secret and not config.iam:
        return {}
    aws = {
        name: value
        for name, value in environment.items()
        if name.startswith("AWS_") and not name.startswith("AWS_LAMBDA_")
    }
    found = {"HOME": environment.get("HOME", ""), "PGPASSFILE": os.devnull, **aws}
    if region := region_in(url):
        found |= {"AWS_REGION": region, "AWS_DEFAULT_REGION": region}
    return {**found, **({"SECRET_NAME": config.secret} if config.secret else {"AURORA_IAM": "true"})}


def read_capacity(
    config: BenchConfig, begin: datetime, end: datetime, wait: Callable[[float], object]
) -> list[Record]:
    """The capacity of each real cluster, from CloudWatch; why it is not known, where it is not."""
    records: list[Record] = []
    for cluster, url in config.urls.items():
        dimension, region = cluster_of(url), region_in(url)
        if dimension is None:
            host = place(url)
            records.append(unknown(cluster, f"{host} is not the name of an RDS endpoint"))
            continue
        try:
            from boto3 import Session
        except ImportError:
            records.append(unknown(cluster, f"boto3 is not installed: {install_command('aws')}"))
            continue
        try:
            client = Session().client("cloudwatch", region_name=region)
            found = await_capacity(client, dimension, begin, end, wait)
        except Exception as error:  # whatever keeps it away, the run's own figures are worth more
            records.append(unknown(cluster, f"{type(error).__name__}: {error}"))
            continue
        if not found:
            records.append(
                unknown(cluster, f"CloudWatch has no ServerlessDatabaseCapacity of {dimension[1]}")
            )
        records += [
            CapacityRecord(aurora_type=cluster, timestamp=at.isoformat(), acu=acu) for at, acu in found
        ]
    return records


def unknown(cluster: str, reason: str) -> NoteRecord:
    return NoteRecord(text=f"How long the {cluster} cluster was paused is n/a: {reason}.")
