"""
AWS Signature Version 4: a presigned URL, and the headers of a signed request.

The names are those of AWS's documentation ("Create a signed AWS API request").
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from urllib.parse import quote

from lambdadb.aws.keys import Keys

_ALGORITHM = "AWS4-HMAC-SHA256"


def presign_url(
    keys: Keys, endpoint: str, query: Mapping[str, str], *, scope: tuple[str, str], at: float
) -> str:
    """
    The URL, without `https://`, of a GET request that `keys` allow for 15 minutes.

    Args:
        endpoint: Host and port.
        scope: Region and service.
        at: Seconds since the epoch.
    """
    date, credential_scope = _format_scope(scope, at)
    signed_query = {
        **query,
        "X-Amz-Algorithm": _ALGORITHM,
        "X-Amz-Credential": f"{keys.access}/{credential_scope}",
        "X-Amz-Date": date,
        "X-Amz-Expires": "900",
        "X-Amz-SignedHeaders": "host",
    }
    if keys.token is not None:
        signed_query["X-Amz-Security-Token"] = keys.token
    pairs = [f"{name}={quote(value, safe='-_.~')}" for name, value in signed_query.items()]
    host = endpoint.lower().removesuffix(":443")
    canonical = ["GET", "/", "&".join(sorted(pairs)), f"host:{host}", "", "host", _hash(b"")]
    signature = _sign(keys, date, credential_scope, canonical)
    return f"{endpoint}/?{'&'.join(pairs)}&X-Amz-Signature={signature}"


def sign_request(
    keys: Keys,
    headers: Mapping[str, str],
    body: bytes,
    *,
    scope: tuple[str, str],
    at: float,
    path: str = "/",
) -> dict[str, str]:
    """
    The headers of a POST request to `path` that prove who sends it.

    Args:
        headers: By lower-case names, `host` among them.
        scope: Region and service.
        at: Seconds since the epoch.
    """
    date, credential_scope = _format_scope(scope, at)
    headers = {**headers, "x-amz-date": date}
    if keys.token is not None:
        headers["x-amz-security-token"] = keys.token
    names = ";".join(sorted(headers))
    lines = [f"{name}:{headers[name]}" for name in sorted(headers)]
    canonical = ["POST", path, "", *lines, "", names, _hash(body)]
    signature = _sign(keys, date, credential_scope, canonical)
    fields = f"Credential={keys.access}/{credential_scope}, SignedHeaders={names}, Signature={signature}"
    return {**headers, "authorization": f"{_ALGORITHM} {fields}"}


def _format_scope(scope: tuple[str, str], at: float) -> tuple[str, str]:
    """The date, and the credential scope that the signature is valid for."""
    date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at))
    return date, "/".join([date[:8], *scope, "aws4_request"])


def _sign(keys: Keys, date: str, credential_scope: str, canonical: list[str]) -> str:
    key = b"AWS4" + keys.secret.encode()
    for part in credential_scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    text = "\n".join([_ALGORITHM, date, credential_scope, _hash("\n".join(canonical).encode())])
    return hmac.digest(key, text.encode(), "sha256").hex()


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
