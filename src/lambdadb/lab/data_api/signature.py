"""The check of a request's AWS Signature Version 4, as the service makes it."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import datetime, timezone

from lambdadb.lab.data_api.answers import ApiError

ALGORITHM = "AWS4-HMAC-SHA256"
VALID_FOR = 300.0  # seconds that the date of a request may differ from the server's
_FIELDS = re.compile(
    rf"{ALGORITHM} Credential=(?P<access>[^/]+)/(?P<date>\d{{8}})/(?P<region>[^/]+)/(?P<service>[^/]+)"
    r"/aws4_request, ?SignedHeaders=(?P<headers>[^,]+), ?Signature=(?P<signature>[0-9a-f]{64})"
)


def check_signature(
    path: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    keys: Mapping[str, str],
    region: str,
    service: str = "rds-data",
    now: datetime | None = None,
) -> None:
    """
    Check who sent a POST request.

    Args:
        headers: By lower-case names.
        keys: Secret keys by access keys.

    Raises:
        ApiError: It was signed with another key, for another region or service, at another time, or
            is not what was signed.
    """
    given = headers.get("authorization", "")
    if not given:
        raise ApiError("MissingAuthenticationTokenException", "Missing Authentication Token")
    fields = _FIELDS.fullmatch(given)
    if fields is None:
        raise ApiError("IncompleteSignature", "Authorization header requires a Signature Version 4.")
    if (secret := keys.get(fields["access"])) is None:
        text = "The security token included in the request is invalid."
        raise ApiError("UnrecognizedClientException", text)
    if fields["region"] != region:
        _refuse("Credential should be scoped to a valid region.")
    if fields["service"] != service:
        _refuse(f"Credential should be scoped to correct service: '{service}'.")
    signed = fields["headers"].split(";")
    date = headers.get("x-amz-date", "")
    if not {"host", "x-amz-date"} <= set(signed) or date[:8] != fields["date"]:
        _refuse("The host and the date have to be signed.")
    try:
        at = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
    except ValueError:
        _refuse("X-Amz-Date is not a date.")
    if abs(((now or datetime.now(timezone.utc)) - at).total_seconds()) > VALID_FOR:
        _refuse(f"Signature expired: {date} is too far from the server's time.")
    lines = [f"{name}:{' '.join(headers.get(name, '').split())}" for name in signed]
    canonical = "\n".join(["POST", path, "", *lines, "", fields["headers"], _hash(body)])
    scope = f"{fields['date']}/{region}/{service}/aws4_request"
    key = b"AWS4" + secret.encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    text = "\n".join([ALGORITHM, date, scope, _hash(canonical.encode())])
    if not hmac.compare_digest(hmac.digest(key, text.encode(), "sha256").hex(), fields["signature"]):
        _refuse(
            "The request signature we calculated does not match the signature you provided. Check your "
            "AWS Secret Access Key and signing method."
        )


def _refuse(message: str) -> None:
    raise ApiError("InvalidSignatureException", message)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
