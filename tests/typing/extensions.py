"""Stores of logins and tracers: lambdadb's, and those of one's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext

import sqlalchemy

from lambdadb import create_engine
from lambdadb.aio import create_async_engine
from lambdadb.credentials import AsyncCredentials, Credentials, Login, LoginUnavailable
from lambdadb.credentials.rds_iam import RdsIam
from lambdadb.credentials.secrets_manager import SecretsManager
from lambdadb.tracing import Span, Tracer
from lambdadb.tracing.json_log import JsonLog
from lambdadb.tracing.opentelemetry import OpenTelemetry
from lambdadb.tracing.xray import XRay

URL = "postgresql+psycopg://host/orders"


class Vault:
    """A store of one's own."""

    def logins(self, parameters: Mapping[str, object]) -> Iterator[Login]:
        """A login, or why there is none."""
        if "host" not in parameters:
            raise LoginUnavailable("Name the host in the URL.")
        yield {"user": "app", "password": "from the vault"}


class AsyncVault:
    """A store of one's own for an event loop."""

    async def logins(self, parameters: Mapping[str, object]) -> AsyncIterator[Login]:
        """A login."""
        yield {"user": "app", "host": parameters["host"]}


class Counter(Tracer):
    """A tracer of one's own."""

    statements = "traced"

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def recording(self) -> bool:
        """Always."""
        return True

    def record(self, span: Span) -> None:
        """Add up."""
        self.seconds[span.name] = self.seconds.get(span.name, 0.0) + span.seconds
        for child in span.children:
            self.record(child)

    def block(self, name: str) -> AbstractContextManager[object]:
        """A span around a block."""
        return nullcontext(name)


vault: Credentials = Vault()
async_vault: AsyncCredentials = AsyncVault()
stores = [
    create_engine(URL, credentials=vault),
    create_engine(URL, credentials=SecretsManager("orders/app", region="eu-west-1", max_age=600)),
    create_engine(URL, credentials=RdsIam("eu-west-1", "app", host="cluster.example", port=5432)),
]
async_stores = [
    create_async_engine(URL, credentials=Vault()),
    create_async_engine(URL, credentials=async_vault),
]
tracers = [
    create_engine(URL, tracer=Counter()),
    create_engine(URL, tracer=XRay("traced")),
    create_engine(URL, tracer=OpenTelemetry(statements=0.5)),
    create_engine(URL, tracer=JsonLog("all", write=lambda line: None)),
]

# What SQLAlchemy makes, by the plugin.
by_plugin = sqlalchemy.create_engine(URL, plugins=["lambdadb"], tracer=Counter())
by_url = sqlalchemy.create_engine(f"{URL}?plugin=lambdadb&lambdadb_policy=per-invocation")
