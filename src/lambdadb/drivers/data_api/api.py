"""
The calls of the RDS Data API. Each is sent once.

boto3 by default sends a call again, up to twice, after an error 500, 503 or 504, a closed connection and
a timeout. The API has no idempotency token, so an INSERT could be carried out three times. What may be
repeated is decided above, by what the call does.
"""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from urllib.parse import urlsplit

from lambdadb.aws.keys import Keys, create_botocore_session, get_session_keys, read_environment_keys
from lambdadb.aws.sigv4 import sign_request
from lambdadb.deadline import Clock
from lambdadb.drivers.data_api.http import HttpConnection, NoAnswer, NotSent
from lambdadb.drivers.rds_endpoint import dns_suffix
from lambdadb.errors import InvalidSettings, LoginUnavailable

LONGEST_TAG = 50
LARGEST_REQUEST = 4 << 20
_ENDPOINTS = ("AWS_ENDPOINT_URL_RDS_DATA", "AWS_ENDPOINT_URL")
# 500 may come after the effect, and 503 and 504 too, for all that AWS documents. A timeout hides whether
# the statement was carried out.
_UNCERTAIN = ("StatementTimeoutException", "InternalServerErrorException", "ServiceUnavailableError")


class CallFailed(Exception):
    """
    A call was answered by an error, or by nothing.

    Attributes:
        code: The error's name at AWS; empty if no answer came. `NoKeys`, `RequestTooLarge` and
            `Untrusted` are lambdadb's own: nothing was sent.
        status: The HTTP status; 0 if no answer came.
        effect: "none" if it is certain that the call has no effect, "unknown" if it may have one.
    """

    def __init__(self, text: str, *, code: str = "", status: int = 0, certain: bool = True) -> None:
        super().__init__(text)
        self.code = code
        self.status = status
        self.effect = "none" if certain else "unknown"


@dataclass(frozen=True)
class Endpoint:
    """Where the API of a region is."""

    url: tuple[str, str, int]
    host_header: str
    region: str


@dataclass(repr=False, eq=False)
class DataApi:
    """
    The API for one cluster, one secret and one caller.

    Attributes:
        request_id: AWS's id of the last call.
        seconds: How long the last call took.
    """

    endpoint: Endpoint
    cluster_arn: str
    secret_arn: str
    tag: str | None
    http: HttpConnection
    request_id: str | None = None
    seconds: float = 0.0

    def call(
        self, name: str, request: Mapping[str, Any], *, clock: Clock, until: float
    ) -> dict[str, Any]:
        """
        Make one call and return its answer.

        Args:
            until: The moment, on `clock`, at which it ends.

        Raises:
            CallFailed: Its `effect` says whether it may have been carried out.

        **Costs:** one request; the first one, and one after 5 s without any, also connects with TLS.
        """
        arns = {"resourceArn": self.cluster_arn, "secretArn": self.secret_arn}
        body = json.dumps({**arns, **request}, allow_nan=False).encode()
        if len(body) > LARGEST_REQUEST - 4096:
            raise CallFailed(
                f"The request has {len(body)} bytes, and the Data API takes 4 MiB. Send fewer rows at a "
                "time, for example with insertmanyvalues_page_size=100 in create_engine, and large "
                "values through Amazon S3.",
                code="RequestTooLarge",
                status=413,
            )
        path, began = f"/{name}", clock.now()
        headers = {
            "host": self.endpoint.host_header,
            "content-type": "application/json",
            "user-agent": f"lambdadb/{_version()}" + (f" app/{self.tag}" if self.tag else ""),
        }
        self.request_id = None
        try:
            signed = sign_request(
                _find_keys(),
                headers,
                body,
                scope=(self.endpoint.region, "rds-data"),
                at=clock.moment()[1],
                path=path,
            )
            answer = self.http.post(path, signed, body, clock=clock, until=until)
        except LoginUnavailable as error:
            raise CallFailed(str(error), code="NoKeys") from error
        except NotSent as error:
            code = "Untrusted" if isinstance(error.__cause__, ssl.SSLCertVerificationError) else ""
            raise CallFailed(f"no request was sent: {error}", code=code) from error
        except NoAnswer as error:
            raise CallFailed(f"no answer came: {error}", certain=False) from error
        finally:
            self.seconds = clock.now() - began
        self.request_id = answer.headers.get("x-amzn-requestid")
        try:
            content = json.loads(answer.body)
        except ValueError:
            content = None
        if answer.status == 200 and isinstance(content, dict):
            return content
        raise self._describe(answer.status, answer.headers, content)

    def _describe(self, status: int, headers: Mapping[str, str], content: Any) -> CallFailed:
        said = content if isinstance(content, dict) else {}
        code = str(headers.get("x-amzn-errortype") or said.get("code") or "").partition(":")[0]
        text = str(said.get("message") or said.get("Message") or "")
        if code in ("InvalidSignatureException", "IncompleteSignature"):
            text = text.split("\n")[0]  # the rest repeats the request, the token included
        return CallFailed(
            f"{code or 'HTTP'} ({status}): {text}" if text else f"{code or 'HTTP'} ({status})",
            code=code,
            status=status,
            certain=status < 500 and status != 200 and code not in _UNCERTAIN,
        )


def find_endpoint(region: str) -> Endpoint:
    """
    Return the API's endpoint: that of the environment variables, or the region's own.

    Raises:
        InvalidSettings: The environment variable holds no URL.
    """
    given = next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), None)
    text = given or f"https://rds-data.{region}.{dns_suffix(region)}"
    try:
        parts = urlsplit(text)
        host, port, scheme = parts.hostname, parts.port, parts.scheme
    except ValueError:
        host, port, scheme = None, None, ""
    if not host or scheme not in ("http", "https") or "@" in text:
        raise InvalidSettings(
            f"{_ENDPOINTS[0]} (not shown) is not a URL of a host and a port, such as "
            "https://rds-data.us-east-1.amazonaws.com."
        )
    usual = 443 if scheme == "https" else 80
    header = host if port in (None, usual) else f"{host}:{port}"
    return Endpoint((scheme, host, port or usual), header, region)


def _find_keys() -> Keys:
    """The keys of the environment variables, as in Lambda; else those that botocore finds."""
    return read_environment_keys() or get_session_keys(_session())


@lru_cache(maxsize=1)
def _session() -> Any:
    return create_botocore_session()


@lru_cache(maxsize=1)
def _version() -> str:
    try:
        return version("sqlalchemy-lambdadb")
    except PackageNotFoundError:  # a copy of the package alone
        return "0"
