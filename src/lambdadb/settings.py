"""
The settings of one engine, as one frozen value.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

from sqlalchemy import URL

from lambdadb.drivers.base import Proxy
from lambdadb.errors import InvalidSettings
from lambdadb.policy import PerEnvironment, PerInvocation, Policy
from lambdadb.retry import ResumeRetry
from lambdadb.session_tag import check_template
from lambdadb.tracing import Tracer

if TYPE_CHECKING:
    from lambdadb.credentials import AsyncCredentials, Credentials

_FUNCTION = r"(?a)[A-Za-z_]\w*(\.[A-Za-z_]\w*)?"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """
    The keywords that `create_engine` and `create_async_engine` add to SQLAlchemy's.

    Raises:
        InvalidSettings: A value is of the wrong type, or cannot work.
    """

    policy: Policy = field(default_factory=PerEnvironment)
    """When connections are opened and closed: `PerEnvironment` or `PerInvocation`."""
    retry: ResumeRetry = field(default_factory=ResumeRetry)
    """How long a connect waits for a database that is waking up."""
    credentials: Credentials | AsyncCredentials | None = None
    """The store that is asked for logins at each connect; None uses the URL's login."""
    allow_unverified_server: bool = False
    """Whether a server that is not verified may get a login of `credentials`."""
    tracer: Tracer | None = None
    """Records each connect, and the statements that it selects."""
    tag: str = "{name}"
    """The session's `application_name`, made of `{name}`, `{version}` and `{alias}`."""

    proxy: Proxy | None = None
    """What shares the server's sessions among its clients; None finds out."""
    proxy_check: bool = False
    """Whether statements that would pin a client of RDS Proxy are logged."""
    deadline_function: str | None = None
    """The function in the database that limits a transaction's time; None: the server gets no limit."""

    @classmethod
    def from_keywords(cls, **keywords: Any) -> Settings:
        """Make settings from the keywords that are not None, with defaults for the rest."""
        return cls(**{name: value for name, value in keywords.items() if value is not None})

    @property
    def requires_verified_server(self) -> bool:
        """Whether the store's logins need a verified server on this machine too."""
        return bool(getattr(self.credentials, "requires_verified_server", False))

    def __post_init__(self) -> None:
        if not isinstance(self.policy, Policy) or type(self.policy) is Policy:
            raise InvalidSettings(f"policy={self.policy!r}: use PerEnvironment() or PerInvocation().")
        if not isinstance(self.retry, ResumeRetry):
            raise InvalidSettings(f"retry={self.retry!r}: use ResumeRetry(timeout=..., reserve=...).")
        if not isinstance(self.allow_unverified_server, bool):
            raise InvalidSettings(
                f"allow_unverified_server={self.allow_unverified_server!r}: use True or False."
            )
        if not isinstance(self.proxy_check, bool):
            raise InvalidSettings(f"proxy_check={self.proxy_check!r}: use True or False.")
        if self.proxy not in (None, *get_args(Proxy)):
            names = ", ".join(map(repr, get_args(Proxy)))
            raise InvalidSettings(f"proxy={self.proxy!r}: use one of {names}, or None to find out.")
        function = self.deadline_function
        if function is not None and not (
            isinstance(function, str) and re.fullmatch(_FUNCTION, function)
        ):
            raise InvalidSettings(
                f"deadline_function={function!r}: use the name of a function, or SCHEMA.FUNCTION, as "
                "SQL has it without quotation marks."
            )
        for name, value in (("credentials", self.credentials), ("tracer", self.tracer)):
            if isinstance(value, type):
                raise InvalidSettings(f"{name}={value.__name__} is a class: use {value.__name__}(...).")
        if inspect.iscoroutinefunction(getattr(self.credentials, "logins", None)):
            raise InvalidSettings(
                f"{type(self.credentials).__name__}.logins is a coroutine function: make it an "
                "asynchronous generator, with yield instead of return."
            )
        if self.credentials is not None and not callable(getattr(self.credentials, "logins", None)):
            kind = type(self.credentials).__name__
            raise InvalidSettings(f"credentials is {kind}, which has no logins(parameters) method.")
        is_tracer = isinstance(self.tracer, Tracer) and type(self.tracer).record is not Tracer.record
        if self.tracer is not None and not is_tracer:
            raise InvalidSettings(
                f"tracer is {type(self.tracer).__name__}: use XRay, OpenTelemetry or JsonLog "
                "of lambdadb.tracing.xray, .opentelemetry and .json_log, or derive a class from "
                "lambdadb.tracing.Tracer that has record(span)."
            )
        check_template(self.tag)


_URL_PREFIX = "lambdadb_"


def read_url_settings(url: URL) -> tuple[URL, dict[str, Any]]:
    """
    Take lambdadb's settings out of a URL's query. Returns the URL without them, and the settings.

    `lambdadb_policy` (`per-environment` or `per-invocation`), `lambdadb_connections`,
    `lambdadb_timeout` (seconds that a connect may take), `lambdadb_tag`, `lambdadb_secret` (the name or
    ARN of a secret in AWS Secrets Manager), `lambdadb_iam` (`true`), `lambdadb_proxy` (`rds-proxy`,
    `pgbouncer` or `none`) and `lambdadb_deadline_function` (a function's name). The others are keywords
    only.

    Raises:
        InvalidSettings: A name or a value is unknown.
    """
    given = {name: value for name, value in url.query.items() if name.startswith(_URL_PREFIX)}
    settings: dict[str, Any] = {}
    policy: type[Policy] = PerEnvironment
    policy_keywords: dict[str, Any] = {}
    for name, value in given.items():
        if not isinstance(value, str):
            raise InvalidSettings(f"{name} is in the url more than once.")
        if name == "lambdadb_policy":
            if value not in _POLICIES:
                raise InvalidSettings(f"{name}={value}: use one of {', '.join(_POLICIES)}.")
            policy = _POLICIES[value]
        elif name == "lambdadb_connections":
            policy_keywords["connections"] = int(_parse_number(name, value))
        elif name == "lambdadb_timeout":
            settings["retry"] = ResumeRetry(timeout=_parse_number(name, value))
        elif name == "lambdadb_tag":
            settings["tag"] = value
        elif name in ("lambdadb_proxy", "lambdadb_deadline_function"):
            settings[name.removeprefix(_URL_PREFIX)] = value
        elif name == "lambdadb_secret":
            from lambdadb.credentials.secrets_manager import SecretsManager

            settings["credentials"] = SecretsManager(value)
        elif name == "lambdadb_iam" and value == "true":
            from lambdadb.credentials.rds_iam import RdsIam

            settings["credentials"] = RdsIam()
        else:
            raise InvalidSettings(f"{name}={value} in the url is no setting: see docs/by-url.md.")
    if "lambdadb_policy" in given or policy_keywords:
        settings["policy"] = policy(**policy_keywords)
    return url.difference_update_query(given), settings


def _parse_number(name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise InvalidSettings(f"{name}={value}: use a number.") from None


_POLICIES: dict[str, type[Policy]] = {"per-environment": PerEnvironment, "per-invocation": PerInvocation}
