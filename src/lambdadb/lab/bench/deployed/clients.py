"""Clients of AWS's services, and what their refusals mean."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from lambdadb.extras import install_command
from lambdadb.lab import LabError

DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError"}
MISSING = {"ResourceNotFoundException", "DBInstanceNotFound"}
AWS_DOMAINS = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")


class Refused(LabError):
    """AWS did not answer as it should: no right, no such thing, no credentials, no way there."""


class Clients:
    """
    boto3's clients of one region, each made when it is first asked for.

    Args:
        region: Where the experiment is deployed.
        timeout: Seconds that an invocation may take. An invocation is never sent twice, as each is a
            row.

    Raises:
        LabError: boto3 is not installed.
    """

    def __init__(self, region: str, *, timeout: float = 180.0) -> None:
        try:
            from boto3 import Session
        except ImportError as error:
            raise LabError(
                f"--on lambda needs boto3, which is not installed: {install_command('lab,aws')}"
            ) from error
        self.session = Session(region_name=region)
        self.timeout = timeout
        self.made: dict[str, Any] = {}

    def of(self, service: str) -> Any:
        """The client of a service."""
        if service not in self.made:
            from botocore.config import Config

            once = Config(read_timeout=self.timeout, retries={"total_max_attempts": 1})
            again = Config(retries={"mode": "standard", "total_max_attempts": 5})
            with explained(f"a client of {service}"):
                config = once if service == "lambda" else again
                self.made[service] = self.session.client(service, config=config)
        return self.made[service]

    def foreign_endpoints(self) -> list[str]:
        """Endpoints in use that are not AWS's own: what they answer is emulated."""
        places = {client.meta.endpoint_url for client in self.made.values()}
        return sorted(
            place for place in places if not (urlsplit(place).hostname or "").endswith(AWS_DOMAINS)
        )


@contextmanager
def explained(what: str, right: str = "") -> Iterator[None]:
    """
    Turn boto3's errors into one that says what to do.

    Args:
        what: What was asked for.
        right: The IAM action that it needs.

    Raises:
        Refused: In place of any error of boto3.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code, text = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
        if code in DENIED:
            raise Refused(
                f"no right to {what}: these credentials need {right}. docs/benchmark.md has the policy. "
                f"AWS says: {text}"
            ) from error
        if code in MISSING:
            raise Refused(
                f"{what}: there is no such thing in this region. Is it deployed, and is the file of "
                f"--infra its own? AWS says: {text}"
            ) from error
        raise Refused(f"{what}: {code}: {text}") from error
    except BotoCoreError as error:
        raise Refused(f"{what}: {type(error).__name__}: {error}") from error
