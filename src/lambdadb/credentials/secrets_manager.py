"""
Logins from AWS Secrets Manager, read by the shortest way there is, and right in the middle of a
rotation too.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from lambdadb.credentials import Login, LoginUnavailable, aws
from lambdadb.deadline import Clock
from lambdadb.errors import InvalidSettings
from lambdadb.faults import Fault

if TYPE_CHECKING:
    from http.client import HTTPConnection

logger = logging.getLogger("lambdadb")

Answer = Mapping[str, Any]
Source = Callable[[str], Answer]

TIMEOUT = 2.0
"""Seconds after which an answer is no longer waited for; a secret's takes milliseconds."""

# Bytes: a secret has 64 KiB at most, some of it escaped.
_LONGEST = 1 << 20

# The keys of the JSON that RDS and its rotation functions write, and libpq's names for them.
_LIBPQ = {"username": "user", "password": "password", "host": "host", "port": "port", "dbname": "dbname"}

# What lambdadb's own request leaves to botocore.
_ASKS_FOR_MORE = (
    *(
        "HTTPS_PROXY",
        "https_proxy",
        "AWS_CA_BUNDLE",
        "AWS_PROFILE",
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    ),
    *("AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT"),
)
# An answer to a caller that came too often; any other 4xx would be the same a second later.
_PASSING = ("Throttl", "TooManyRequests", "RequestLimit")
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


class SecretsManager:
    """
    Log in with a secret of AWS Secrets Manager, also while it is rotated.

    The secret is a password alone, or JSON with `password` and, as RDS writes it, `username`, `host`,
    `port` and `dbname`. Its username wins over the URL's, to which its password does not belong; the
    rest fills what the URL leaves out.

    Args:
        secret_id: Name or ARN.
        region: By default the ARN's, else the function's.
        max_age: Seconds for which a secret is kept in memory. A login that the server refuses is read
            anew at once, whatever its age; one that cannot be read anew, since nobody answers, is used
            for as long again.
        client: A boto3 client to read with, instead of choosing among the Parameters and Secrets
            extension, a request of lambdadb's own, and botocore.
        clock: Tells a kept secret's age.

    Raises:
        InvalidSettings: `secret_id` is empty, or `max_age` is no number of seconds.

    **Costs:** one request in `max_age` seconds; up to three more where the server refuses the login.
    """

    def __init__(
        self,
        secret_id: str,
        *,
        region: str | None = None,
        max_age: float = 3600.0,
        client: Any = None,
        clock: Clock | None = None,
    ) -> None:
        if not secret_id:
            raise InvalidSettings("secret_id is empty. Is the environment variable that holds it set?")
        if not (isinstance(max_age, (int, float)) and max_age >= 0):
            raise InvalidSettings(f"SecretsManager(max_age={max_age!r}): use 0 or more seconds.")
        self._secret_id = secret_id
        arn = secret_id.split(":")
        self._region = region or (arn[3] if len(arn) > 3 else None) or aws.environment_region()
        self._max_age = max_age
        self._given = client
        self._made: Any = None
        self._clock = clock or Clock()
        self._kept: _Kept | None = None
        aws.prepare()

    def __repr__(self) -> str:
        return f"SecretsManager({self._secret_id!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_kept": None, "_made": None}

    def logins(self, parameters: Mapping[str, object]) -> Iterator[Login]:
        """
        The login in memory or the current one; then, if refused, what a rotation may have made of it.

        Raises:
            LoginUnavailable: The secret cannot be read, or is not a login.
        """
        yield self._login(self._first(), parameters)
        # Refused: the server has another password than the one that was read. A rotation makes the new
        # one AWSPENDING (createSecret), gives it to the server (setSecret), then makes it AWSCURRENT
        # (finishSecret). So if AWSCURRENT, read just now, is refused, setSecret has been, and the server
        # has the new one. AWSPENDING is that one, unless finishSecret was before it was read; then
        # AWSCURRENT is. AWSPENDING cannot come first: before setSecret it is too early.
        #
        # Alternating users: setSecret changes the user that is not AWSCURRENT's, so that AWSCURRENT,
        # read just now, is right. Only a second rotation during one connect could outrun all of this.
        yield self._login(self._read("AWSCURRENT", fresh=True), parameters)
        try:
            pending = self._read("AWSPENDING", fresh=True)
        except LoginUnavailable as error:  # usually there is none, since no rotation is going on
            logger.info("No pending login to try: %s", error)
        else:
            yield self._login(pending, parameters)
        yield self._login(self._read("AWSCURRENT", fresh=True), parameters)
        self._kept = None

    def _first(self) -> _Kept:
        kept = self._kept
        if kept is not None and self._clock.idle_since(kept.moment) < self._max_age:
            return kept
        try:
            return self._read("AWSCURRENT")
        except _NobodyAnswered as error:
            if kept is None:
                raise
            # Most likely it is still right, and the server refuses it if not.
            logger.warning("%s The login that was read before is tried.", error)
            return _Kept(kept.secret, self._clock.moment())

    def _login(self, kept: _Kept, parameters: Mapping[str, object]) -> Login:
        self._kept = kept
        secret = kept.secret
        login = {k: v for k, v in secret.items() if k in ("user", "password") or not parameters.get(k)}
        if parameters.get("hostaddr"):
            login.pop("host", None)
        if not login.get("user") and not parameters.get("user"):
            raise LoginUnavailable(
                f"Secret {self._secret_id!r} has no username, and the URL has none either: add one, "
                "as in postgresql+psycopg://app@host/database."
            )
        return login

    def _read(self, stage: str, *, fresh: bool = False) -> _Kept:
        """The secret, from the first source that answers; if `fresh`, from none that has a cache."""
        failures = []
        for source in self._sources(fresh):
            moment = self._clock.moment()
            try:
                return _Kept(self._secret(source(stage)), moment)
            except _Unanswered as failure:
                failures.append(str(failure))
                logger.log(failure.level, "Secret %r: %s", self._secret_id, failure)
        raise _NobodyAnswered(
            f"Secret {self._secret_id!r} could not be read: {'; '.join(failures)}. {Fault.LOGIN.remedy}"
        )

    def _sources(self, fresh: bool) -> Iterator[Source]:
        if self._given is not None:
            yield partial(self._asked, lambda: self._given)
            return
        token, keys = os.environ.get("AWS_SESSION_TOKEN"), aws.environment_keys()
        if not fresh and token and os.environ.get("AWS_LAMBDA_FUNCTION_NAME"):
            yield partial(self._from_extension, token)
        if keys and self._region and not any(map(os.environ.get, _ASKS_FOR_MORE)):
            yield partial(self._requested, keys, self._region)
        yield partial(self._asked, self._client)

    def _from_extension(self, token: str, stage: str) -> Answer:
        from http.client import HTTPConnection

        port = int(os.environ.get("PARAMETERS_SECRETS_EXTENSION_HTTP_PORT") or 2773)
        connection = HTTPConnection("localhost", port, timeout=TIMEOUT)
        path = f"/secretsmanager/get?secretId={quote(self._secret_id, safe='')}&versionStage={stage}"
        status, answer = exchange(connection, "GET", path, {"X-Aws-Parameters-Secrets-Token": token})
        # Not ready, another token: whatever it is, the API itself gives the secret or says why not.
        if status != 200:
            raise _Unanswered(f"the extension answered {status}")
        return answer

    def _requested(self, keys: aws.Keys, region: str, stage: str) -> Answer:
        from http.client import HTTPConnection, HTTPSConnection

        domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
        url = urlsplit(
            os.environ.get("AWS_ENDPOINT_URL_SECRETS_MANAGER")
            or os.environ.get("AWS_ENDPOINT_URL")
            or f"https://secretsmanager.{region}.{domain}"
        )
        kind = HTTPConnection if url.scheme == "http" else HTTPSConnection
        headers = {
            "host": url.netloc,
            "content-type": "application/x-amz-json-1.1",
            "x-amz-target": "secretsmanager.GetSecretValue",
        }
        body = json.dumps({"SecretId": self._secret_id, "VersionStage": stage}).encode()
        _, at = self._clock.moment()
        headers = aws.signed(keys, headers, body, scope=(region, "secretsmanager"), at=at)
        status, answer = exchange(kind(url.netloc, timeout=TIMEOUT), "POST", "/", headers, body)
        if status != 200:
            code = str(answer.get("__type", "")).rpartition("#")[2]
            raise self._failure(status, code, answer.get("message") or answer.get("Message"))
        return answer

    def _client(self) -> Any:
        if self._made is None:
            self._made = aws.botocore_client("secretsmanager", self._region, TIMEOUT)
        return self._made

    def _asked(self, client: Callable[[], Any], stage: str) -> Answer:
        try:
            answer: Answer = client().get_secret_value(SecretId=self._secret_id, VersionStage=stage)
            return answer
        except LoginUnavailable as error:
            response, text = None, str(error)
        except Exception as error:
            response, text = getattr(error, "response", None), f"{type(error).__name__}: {error}"
        if not response:
            raise _Unanswered(text)
        said = response.get("Error", {})
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400)
        raise self._failure(status, said.get("Code", ""), said.get("Message"))

    def _failure(self, status: int, code: str, message: object) -> Exception:
        if not code or not 400 <= status < 500 or any(word in code for word in _PASSING):
            return _Unanswered(f"Secrets Manager answered {status} {code}".rstrip())
        # Other messages are not shown: one for a wrong signature repeats the request, token included.
        said = f" ({str(message).rstrip('.')})" if message and code in _REMEDIES else ""
        remedy = _REMEDIES.get(code, "Check the function's AWS keys and the region.")
        return LoginUnavailable(f"Secret {self._secret_id!r} could not be read: {code}{said}. {remedy}")

    def _secret(self, answer: Answer) -> dict[str, str]:
        """What the secret says of a login, by libpq's names."""
        if not {"SecretString", "SecretBinary"} & answer.keys():
            raise _Unanswered("an answer without a secret")
        text = text_of(answer)
        if not text:
            raise LoginUnavailable(f"Secret {self._secret_id!r} is empty, or binary and not text.")
        values = json_object(text)
        if values is None:
            return {"password": re.sub(r"\r?\n\Z", "", text)}
        if not isinstance(values.get("password"), str) or not values["password"]:
            raise LoginUnavailable(
                f"Secret {self._secret_id!r} has no password. It is JSON with the keys "
                f"{', '.join(sorted(values)) or '(none)'}; lambdadb reads {', '.join(_LIBPQ)}."
            )
        found = {name: values.get(key) for key, name in _LIBPQ.items()}
        return {name: value for name, value in found.items() if value and isinstance(value, str)}


class _NobodyAnswered(LoginUnavailable):
    """No source could say; another time one may."""


class _Unanswered(Exception):
    """A source that could not say; the next one is asked."""

    level = logging.INFO


class _NotThere(_Unanswered):
    """Nobody listens, which is usual for an extension that was not added."""

    level = logging.DEBUG


@dataclass(repr=False, eq=False)
class _Kept:
    """A secret, and when it was asked for."""

    secret: dict[str, str]
    moment: tuple[float, float]


def exchange(
    connection: HTTPConnection,
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes | None = None,
) -> tuple[int, Answer]:
    """The status and the JSON object of an answer; the object is empty if there is none."""
    connection.set_debuglevel(0)  # which would print the headers
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        status, text = response.status, response.read(_LONGEST)
    except Exception as error:
        # Only of an OSError is it certain that its text repeats nothing of request and answer.
        why = f": {error}" if isinstance(error, OSError) else ""
        kind = _NotThere if isinstance(error, ConnectionRefusedError) else _Unanswered
        failure = kind(f"{connection.host}:{connection.port}: {type(error).__name__}{why}")
    else:
        answer = json_object(text.decode(errors="replace"))
        if answer is not None or status != 200:
            return status, answer or {}
        failure = _Unanswered(f"{connection.host}:{connection.port} answered something else than JSON")
    finally:
        connection.close()
    raise failure


def text_of(answer: Answer) -> str | None:
    """The secret of an answer of GetSecretValue; None if it is not text."""
    text, binary = answer.get("SecretString"), answer.get("SecretBinary")
    if isinstance(text, str) or binary is None:
        return text
    try:
        return (binary if isinstance(binary, bytes) else base64.b64decode(binary)).decode()
    except ValueError:  # the error knows the secret
        return None


def json_object(text: str) -> dict[str, Any] | None:
    """The object that `text` is, its numbers as they are written; None if it is none."""
    if text.lstrip()[:1] != "{":
        return None  # a password such as 123456 is JSON too
    try:
        found: dict[str, Any] = json.loads(text, parse_int=str, parse_float=str)
    except ValueError:  # the error knows the secret
        return None
    return found
