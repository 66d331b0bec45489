"""
Reads a secret's value by the shortest way there is: the extension, a request of its own, or botocore.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any
from urllib.parse import quote, urlsplit

from lambdadb.aws.keys import (
    Keys,
    create_botocore_session,
    create_client,
    read_environment_keys,
    read_environment_region,
    read_session_region,
)
from lambdadb.aws.sigv4 import sign_request
from lambdadb.credentials import LoginUnavailable
from lambdadb.credentials.aws.secret_value import parse_json_object, parse_secret
from lambdadb.deadline import Clock
from lambdadb.drivers.rds_endpoint import dns_suffix
from lambdadb.faults import Fault

logger = logging.getLogger("lambdadb")

Answer = Mapping[str, Any]
Source = Callable[[str], Answer]

TIMEOUT = 2.0
"""Seconds for one request from its beginning to the end of its answer; a secret's takes milliseconds."""
CLIENT_TIMEOUT = 6.0
"""Seconds for a client that lambdadb makes, which may try twice and fetch its keys first."""

# With one of these set, the request needs more than this module knows: botocore makes it.
_NEEDS_BOTOCORE = (
    *("HTTPS_PROXY", "https_proxy", "AWS_CA_BUNDLE", "AWS_PROFILE"),
    *("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT"),
)
_ENDPOINTS = ("AWS_ENDPOINT_URL_SECRETS_MANAGER", "AWS_ENDPOINT_URL")
# The codes of an answer to a caller that comes too often.
_THROTTLED = ("Throttl", "TooManyRequests", "RequestLimit")
_REMEDIES = {
    "AccessDeniedException": (
        "Allow the function's role secretsmanager:GetSecretValue on the secret's ARN and, if it is "
        "encrypted with a key of your own, kms:Decrypt on that key."
    ),
    "ResourceNotFoundException": (
        "Check its name, the region, and that it has a value; in another account, name its ARN."
    ),
    "InvalidRequestException": "Is it marked for deletion, or has it no value yet?",
    "DecryptionFailure": "Check that its KMS key is enabled, and that the role may kms:Decrypt with it.",
}


class NobodyAnswered(LoginUnavailable):
    """No source gave the secret this time; another time one may."""


class Throttled(NobodyAnswered):
    """Secrets Manager refused the request because too many come: no other source is asked."""


class _SourceFailed(Exception):
    """One source did not give the secret; the next one is asked."""

    def __init__(self, text: str, level: int = logging.INFO) -> None:
        super().__init__(text)
        self.level = level


class SecretReader:
    """Reads one secret of Secrets Manager."""

    def __init__(
        self, secret_id: str, region: str | None, *, session: Any, client: Any, clock: Clock
    ) -> None:
        self._secret_id = secret_id
        self._region = region
        self._session = session
        self._client = client
        self._made: Any = None
        self._clock = clock

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_made": None}

    def read(self, stage: str, *, fresh: bool = False) -> dict[str, str | int]:
        """
        The login in the secret's version `stage`, from the first source that answers.

        Args:
            fresh: Ask no source that has a cache.

        Raises:
            LoginUnavailable: The secret cannot be read, or is not a login; `NobodyAnswered` if that may
                pass.

        **Costs:** one request; one more for each source that does not answer.
        """
        failures = []
        for source in self._sources(fresh):
            try:
                answer = source(stage)
            except _SourceFailed as failure:
                failures.append(str(failure))
                logger.log(failure.level, "Secret %r: %s", self._secret_id, failure)
            else:
                return parse_secret(answer, self._secret_id)
        raise NobodyAnswered(
            f"Secret {self._secret_id!r} could not be read: {'; '.join(failures)}. {Fault.LOGIN.remedy}"
        )

    def _sources(self, fresh: bool) -> Iterator[Source]:
        if self._client is not None or self._session is not None:
            yield self._ask_client
            return
        token, keys = os.environ.get("AWS_SESSION_TOKEN"), read_environment_keys()
        if not fresh and token and os.environ.get("AWS_LAMBDA_FUNCTION_NAME"):
            yield partial(self._ask_extension, token)
        region = self._region or read_environment_region()
        if keys and region and not any(map(os.environ.get, _NEEDS_BOTOCORE)):
            yield partial(self._ask_api, keys, region)
        yield self._ask_client

    def _ask_extension(self, token: str, stage: str) -> Answer:
        port = os.environ.get("PARAMETERS_SECRETS_EXTENSION_HTTP_PORT") or "2773"
        if not re.fullmatch(r"[0-9]{1,5}", port):
            raise _SourceFailed("PARAMETERS_SECRETS_EXTENSION_HTTP_PORT is not a port number")
        path = f"/secretsmanager/get?secretId={quote(self._secret_id, safe='')}&versionStage={stage}"
        url = ("http", "localhost", int(port))
        status, answer = self._exchange("GET", url, path, {"X-Aws-Parameters-Secrets-Token": token})
        # Not ready, another token: whatever it is, the API itself gives the secret or says why not.
        if status != 200:
            raise _SourceFailed(f"the extension answered {status}")
        return check_answer(answer)

    def _ask_api(self, keys: Keys, region: str, stage: str) -> Answer:
        url, host = parse_endpoint(
            os.environ.get(_ENDPOINTS[0])
            or os.environ.get(_ENDPOINTS[1])
            or f"https://secretsmanager.{region}.{dns_suffix(region)}"
        )
        headers = {
            "host": host,
            "content-type": "application/x-amz-json-1.1",
            "x-amz-target": "secretsmanager.GetSecretValue",
        }
        body = json.dumps({"SecretId": self._secret_id, "VersionStage": stage}).encode()
        _, at = self._clock.moment()
        headers = sign_request(keys, headers, body, scope=(region, "secretsmanager"), at=at)
        status, answer = self._exchange("POST", url, "/", headers, body)
        if status != 200:
            code = str(answer.get("__type", "")).rpartition("#")[2]
            raise self._explain(status, code, answer.get("message") or answer.get("Message"))
        return check_answer(answer)

    def _exchange(
        self,
        method: str,
        url: tuple[str, str, int],
        path: str,
        headers: dict[str, str],
        body: bytes | None = None,
    ) -> tuple[int, Answer]:
        from lambdadb.credentials.aws import transport

        try:
            status, text = transport.exchange(
                method, url, path, headers, body, seconds=TIMEOUT, clock=self._clock
            )
        except transport.NobodyListens as failure:  # usual for an extension that was not added
            raise _SourceFailed(str(failure), logging.DEBUG) from None
        except transport.NoAnswer as failure:
            raise _SourceFailed(str(failure)) from None
        answer = parse_json_object(text)
        if answer is None and status == 200:
            raise _SourceFailed(f"{url[1]}:{url[2]} answered something else than JSON")
        return status, answer or {}

    def _ask_client(self, stage: str) -> Answer:
        try:
            keywords = {"SecretId": self._secret_id, "VersionStage": stage}
            if self._client is not None:
                answer = self._client.get_secret_value(**keywords)
            else:
                # In a thread: the timeouts of a client are for each wait, and have no sum.
                ask = partial(self._make_client().get_secret_value, **keywords)
                answer = self._clock.result(ask, CLIENT_TIMEOUT)
        except LoginUnavailable as error:
            response, text = None, str(error)
        except Exception as error:
            response = getattr(error, "response", None)
            text = f"{type(error).__name__}: {hide_userinfo(str(error))}"
        else:
            return check_answer(answer)
        if not response:
            raise _SourceFailed(text)
        said = response.get("Error", {})
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400)
        raise self._explain(status, said.get("Code", ""), said.get("Message"))

    def forget(self) -> None:
        """Drop the client, which has the role's keys."""
        self._made = None

    def _make_client(self) -> Any:
        if self._made is None:
            for name in _ENDPOINTS:  # botocore would show a wrong one
                if endpoint := os.environ.get(name):
                    parse_endpoint(endpoint)
            session = self._session or create_botocore_session()
            region = self._region or read_session_region(session) or read_environment_region()
            self._made = create_client(session, "secretsmanager", region, TIMEOUT)
        return self._made

    def _explain(self, status: int, code: str, message: object) -> Exception:
        """The exception for an answer that is not the secret."""
        start = f"Secret {self._secret_id!r} could not be read: "
        if status == 429 or any(word in code for word in _THROTTLED):
            return Throttled(
                f"{start}Secrets Manager answered {status} {code}: too many requests of this account. "
                "Try again a little later; a larger max_age and the Parameters and Secrets extension "
                "make fewer."
            )
        if not code or not 400 <= status < 500:
            return _SourceFailed(f"Secrets Manager answered {status} {code}".rstrip())
        # Other messages are not shown: one for a wrong signature repeats the request, token included.
        said = f" ({str(message).rstrip('.')})" if message and code in _REMEDIES else ""
        return LoginUnavailable(
            f"{start}{code}{said}. {_REMEDIES.get(code, 'Check the AWS keys and the region.')}"
        )


def check_answer(answer: object) -> Answer:
    """
    `answer`, if it is one of GetSecretValue.

    Raises:
        _SourceFailed: It holds no secret.
    """
    if isinstance(answer, Mapping) and any(
        answer.get(n) is not None for n in ("SecretString", "SecretBinary")
    ):
        return answer
    raise _SourceFailed("an answer without a secret")


def parse_endpoint(endpoint: str) -> tuple[tuple[str, str, int], str]:
    """
    Scheme, host and port of the endpoint of an API, and the `host` header of a request to it.

    Raises:
        LoginUnavailable: It is not a URL, or it holds a user or a password.
    """
    if "@" in endpoint:
        raise LoginUnavailable(
            "AWS_ENDPOINT_URL holds a user or a password (it is not shown), which lambdadb does not "
            "use: name only the host and the port."
        )
    try:
        parts = urlsplit(endpoint)
        host, port = parts.hostname, parts.port
    except ValueError:  # whose text shows a part of the URL
        host, port = None, None
    if host is None or parts.scheme not in ("http", "https"):
        raise LoginUnavailable(
            "AWS_ENDPOINT_URL is not a URL such as https://host:port (it is not shown): correct it."
        )
    return (parts.scheme, host, port or (80 if parts.scheme == "http" else 443)), parts.netloc


def hide_userinfo(text: str) -> str:
    """`text` without the user and the password of any URL in it."""
    return re.sub(r"(?<=//)[^\s\"']*@", "***@", text)
