"""
A cluster behind the Data API, and one question to it that never blocks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from selectors import EVENT_READ
from typing import TYPE_CHECKING, Any

from lambdadb.background import BackgroundCall
from lambdadb.deadline import Clock, StatementDeadline
from lambdadb.drivers.base import AttemptFailed, Parameters
from lambdadb.drivers.data_api.api import CallFailed, DataApi, Endpoint, find_endpoint
from lambdadb.drivers.data_api.backends import Answers, Backend
from lambdadb.drivers.data_api.calls import CALL_LIMIT
from lambdadb.drivers.data_api.connection import DataApiConnection
from lambdadb.drivers.data_api.faults import diagnose
from lambdadb.drivers.data_api.http import HttpConnection
from lambdadb.errors import InvalidSettings
from lambdadb.faults import Fault

if TYPE_CHECKING:
    from lambdadb.policy import Policy
    from lambdadb.tracing.span import Attributes

_CLUSTER = re.compile(r"arn:aws[\w-]*:rds:(?P<region>[a-z0-9-]+):\d{12}:cluster:[\w-]+")


def region_of(cluster_arn: object) -> str:
    """
    Return the region in a cluster's ARN.

    Raises:
        InvalidSettings: It is not the ARN of a cluster.
    """
    found = _CLUSTER.fullmatch(str(cluster_arn or ""))
    if found is None:
        raise InvalidSettings(
            f"cluster_arn={cluster_arn!r}: use the ARN of an Aurora cluster, such as "
            "arn:aws:rds:us-east-1:123456789012:cluster:orders."
        )
    return found["region"]


class Attempt:
    """
    One call that asks the database, in a thread. It is a `lambdadb.drivers.base.Attempt`.

    With `asks=False` nothing is sent: a connection is open as soon as it is made.
    """

    event = EVENT_READ
    end_is_counted = False

    def __init__(self, api: DataApi, backend: Backend, database: str, *, asks: bool) -> None:
        self.api = api
        self._backend = backend
        self.socket = -1
        self.got_first_byte = False
        self._call: BackgroundCall[dict[str, Any]] | None = None
        self.answers: Answers | None = None
        if asks:
            clock = Clock()
            request = {"sql": backend.question, "database": database}
            until = clock.now() + CALL_LIMIT
            self._call = BackgroundCall(lambda: api.call("Execute", request, clock=clock, until=until))
            self.socket = self._call.socket

    def advance(self) -> bool:
        """Whether the database has answered, or was not asked."""
        if self._call is None:
            return True
        if not self._call.ended:
            return False
        try:
            self.answers = self._backend.read_answers(self._call.result()["records"])
        except CallFailed as failure:
            raise diagnose(failure) from failure
        self._call.close()
        return True

    def describe_silence(self) -> AttemptFailed:
        """Return the failure that an attempt without an answer stands for."""
        return AttemptFailed(Fault.RESUMING, "the Data API has not answered so far", silent=True)

    def close(self) -> None:
        """Stop waiting for the answer."""
        if self._call is not None:
            self._call.close()
            if not self._call.ended:
                self.api.http.shut_down()  # its thread, which waits for it, closes it
                return
        self.api.http.close()


@dataclass(frozen=True)
class DataApiTarget:
    """`lambdadb.drivers.base.Target` for a cluster behind the Data API."""

    parameters: Parameters
    backend: Backend
    endpoint: Endpoint
    asks: bool
    """Whether an attempt sends a call. One is needed once for an engine, and to wait for a resume."""
    tag: str | None = None
    on_answers: Callable[[Answers], None] = lambda _: None
    """Gets the database's answers."""

    def __str__(self) -> str:
        return f"{self.endpoint.url[1]}:{self.endpoint.url[2]}"

    @property
    def database(self) -> str:
        """The name of the database."""
        return str(self.parameters.get("database") or self.backend.default_database)

    @property
    def attributes(self) -> Attributes:
        """Span attributes of a connect."""
        _, host, port = self.endpoint.url
        return {
            "db.system.name": self.backend.system,
            "db.namespace": self.database,
            "server.address": host,
            "server.port": port,
        }

    @property
    def login_parameters(self) -> Mapping[str, object]:
        """The argument of a store of logins. The Data API takes no login."""
        return {}

    @property
    def is_local(self) -> bool:
        """Whether it is the lab's emulation, on this machine."""
        host = self.endpoint.url[1]
        return host in ("localhost", "::1") or host.startswith("127.")

    @property
    def tls_warning(self) -> str | None:
        """A warning if the endpoint of the environment variable has no TLS."""
        if self.endpoint.url[0] == "https" or self.is_local:
            return None
        return "The endpoint has no TLS: statements and rows can be read, and answers be changed."

    def add_login(self, login: Mapping[str, object]) -> DataApiTarget:
        """Return the target: the Data API reads the login in the secret itself."""
        del login
        return self

    def add_session_settings(self, policy: Policy, tag: str | None) -> DataApiTarget:
        """Return the target with the session's tag. The service ends transactions that nobody uses."""
        del policy
        return replace(self, tag=tag)

    def add_tls_defaults(self, *, always: bool) -> DataApiTarget:
        """Return the target. AWS's certificate is always verified, with the system's roots."""
        del always
        return self

    def check_verified(self, *, always: bool, allow_unverified: bool) -> None:
        """Refuse a store of logins."""
        del always, allow_unverified
        raise AttemptFailed(
            Fault.MISCONFIGURED,
            "credentials=... cannot be used with the Data API, which reads the secret itself. Put "
            "secret_arn=ARN in the URL",
        )

    def learn(self, failure: AttemptFailed) -> bool:
        """Return False: no proxy is in the way."""
        del failure
        return False

    def begin_attempt(self, number: int) -> Attempt:
        """Start attempt `number` to reach the database."""
        del number
        api = DataApi(
            self.endpoint,
            str(self.parameters["cluster_arn"]),
            str(self.parameters["secret_arn"]),
            self.tag,
            HttpConnection(self.endpoint.url),
        )
        return Attempt(api, self.backend, self.database, asks=self.asks)

    def explain_rejection(self, text: str, seconds: float) -> str:
        """Return the text, and which roots were used."""
        del seconds
        return (
            f"{text}. The system's root certificates have to verify the endpoint. For one of your own "
            "or behind a company's proxy, SSL_CERT_FILE names the file of its root"
        )

    def to_dbapi_connection(
        self, attempt: Attempt, deadline: StatementDeadline, connect_until: float
    ) -> DataApiConnection:
        """Return the connection of a successful attempt."""
        if attempt.answers is not None:
            self.on_answers(attempt.answers)
        return DataApiConnection(attempt.api, self.backend, self.database, deadline, connect_until)


def make_target(
    parameters: Parameters, backend: Backend, *, asks: bool, on_answers: Callable[[Answers], None]
) -> DataApiTarget:
    """
    Return the target that a URL's parameters name.

    Raises:
        InvalidSettings: They name something else, or too much.
    """
    check_parameters(parameters, backend)
    endpoint = find_endpoint(region_of(parameters["cluster_arn"]))
    return DataApiTarget(parameters, backend, endpoint, asks, on_answers=on_answers)


_NAMES = ("cluster_arn", "secret_arn", "database")


def check_parameters(parameters: Mapping[str, Any], backend: Backend) -> None:
    """Raise `InvalidSettings` for parameters that cannot work."""
    region_of(parameters.get("cluster_arn"))
    if not parameters.get("secret_arn"):
        raise InvalidSettings(
            "secret_arn is missing: add &secret_arn=ARN of the secret in AWS Secrets Manager that holds "
            "the database's user and password."
        )
    if unknown := sorted(set(parameters) - set(_NAMES)):
        raise InvalidSettings(
            f"{', '.join(unknown)}: the Data API has no such parameter. The URL is "
            f"{backend.system}+data_api:///DATABASE?cluster_arn=ARN&secret_arn=ARN, without user "
            "and host."
        )
