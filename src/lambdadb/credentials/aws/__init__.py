"""
AWS's side of the stores: keys, regions, and requests signed with Signature Version 4. botocore has all
of it too, for a tenth of a second of each cold start.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from urllib.parse import quote

from lambdadb.credentials import LoginUnavailable

_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, repr=False)
class Keys:
    """AWS credentials; `token` is the session's, of temporary ones."""

    access: str
    secret: str
    token: str | None


def environment_keys() -> Keys | None:
    """The keys of the environment variables, which is where Lambda puts the role's."""
    access = os.environ.get("AWS_ACCESS_KEY_ID")
    secret = os.environ.get("AWS_SECRET_ACCESS_KEY")
    token = os.environ.get("AWS_SESSION_TOKEN") or None
    return Keys(access, secret, token) if access and secret else None


def environment_region() -> str | None:
    """The function's own region."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")


def prepare() -> None:
    """Import botocore now if connects will need it anyway: SnapStart then has it in its snapshot."""
    if "AWS_CONTAINER_CREDENTIALS_FULL_URI" in os.environ and environment_keys() is None:
        with contextlib.suppress(ImportError):  # botocore_session() says so if it is ever needed
            import_module("botocore.session")


def botocore_session() -> Any:
    """
    A session of botocore, which finds keys wherever AWS's tools do and renews those that expire.

    Raises:
        LoginUnavailable: botocore is not installed.
    """
    try:
        return import_module("botocore.session").Session()
    except ImportError:
        pass
    raise LoginUnavailable(
        "botocore is not installed, which finds AWS keys that are in no environment variable, and knows "
        "proxies and profiles: pip install botocore"
    )


def botocore_client(service: str, region: str | None, timeout: float) -> Any:
    """
    A client of botocore that answers within some `timeout` seconds or raises.

    Raises:
        LoginUnavailable: botocore is not installed.
    """
    session = botocore_session()
    config = import_module("botocore.config").Config(
        connect_timeout=timeout,
        read_timeout=timeout,
        retries={"mode": "standard", "total_max_attempts": 3},
    )
    return session.create_client(service, region_name=region, config=config)


def botocore_keys(session: Any) -> Keys:
    """
    The keys that botocore has at this moment.

    Raises:
        LoginUnavailable: It has none.
    """
    try:
        found = session.get_credentials()
        keys = found and found.get_frozen_credentials()
        text = "the environment variables hold none, and botocore found none"
    except Exception as error:
        keys, text = None, f"{type(error).__name__}: {error}"
    if keys is None:
        raise LoginUnavailable(
            f"No AWS credentials: {text}. Inside Lambda the function's role brings them; elsewhere set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
        )
    return Keys(keys.access_key, keys.secret_key, keys.token or None)


def presigned(
    keys: Keys, endpoint: str, query: Mapping[str, str], *, scope: tuple[str, str], at: float
) -> str:
    """
    The URL, without `https://`, of a GET request that `keys` allow for 15 minutes.

    Args:
        endpoint: Host and port.
        scope: Region and service.
        at: Seconds since the epoch.
    """
    stamp, place = _when_and_where(scope, at)
    proof = {
        "X-Amz-Algorithm": _ALGORITHM,
        "X-Amz-Credential": f"{keys.access}/{place}",
        "X-Amz-Date": stamp,
        "X-Amz-Expires": "900",
        "X-Amz-SignedHeaders": "host",
    }
    if keys.token is not None:
        proof["X-Amz-Security-Token"] = keys.token
    pairs = [f"{name}={quote(value, safe='-_.~')}" for name, value in {**query, **proof}.items()]
    host = endpoint.lower().removesuffix(":443")
    request = ["GET", "/", "&".join(sorted(pairs)), f"host:{host}", "", "host", _digest(b"")]
    signature = _signature(keys, stamp, place, request)
    return f"{endpoint}/?{'&'.join(pairs)}&X-Amz-Signature={signature}"


def signed(
    keys: Keys, headers: Mapping[str, str], body: bytes, *, scope: tuple[str, str], at: float
) -> dict[str, str]:
    """
    The headers of a POST request to `/` that prove who sends it.

    Args:
        headers: By lower-case names, `host` among them.
        scope: Region and service.
        at: Seconds since the epoch.
    """
    stamp, place = _when_and_where(scope, at)
    headers = {**headers, "x-amz-date": stamp}
    if keys.token is not None:
        headers["x-amz-security-token"] = keys.token
    names = ";".join(sorted(headers))
    lines = [f"{name}:{headers[name]}" for name in sorted(headers)]
    signature = _signature(keys, stamp, place, ["POST", "/", "", *lines, "", names, _digest(body)])
    proof = f"Credential={keys.access}/{place}, SignedHeaders={names}, Signature={signature}"
    return {**headers, "authorization": f"{_ALGORITHM} {proof}"}


def _when_and_where(scope: tuple[str, str], at: float) -> tuple[str, str]:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at))
    return stamp, "/".join([stamp[:8], *scope, "aws4_request"])


def _signature(keys: Keys, stamp: str, place: str, request: list[str]) -> str:
    key = b"AWS4" + keys.secret.encode()
    for part in place.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    text = "\n".join([_ALGORITHM, stamp, place, _digest("\n".join(request).encode())])
    return hmac.digest(key, text.encode(), "sha256").hex()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
