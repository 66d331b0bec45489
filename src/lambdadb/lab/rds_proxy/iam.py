"""Which tokens of IAM database authentication a proxy accepts."""

from __future__ import annotations

import calendar
import time
from dataclasses import dataclass
from urllib.parse import parse_qsl

from lambdadb.aws.keys import Keys
from lambdadb.aws.sigv4 import presign_url

VALID = 900  # seconds: RDS User Guide, "IAM database authentication"


@dataclass(frozen=True, kw_only=True, repr=False)
class IamLogins:
    """
    The role whose tokens a proxy accepts as passwords, for any of the proxy's users.

    Args:
        endpoint: `HOST:PORT` of the proxy, for which a token has to be signed.
        region: Of the proxy.
        access_key: Of the role.
        secret_key: Of the role.
        session_token: Of the role's temporary keys.
    """

    endpoint: str
    region: str
    access_key: str
    secret_key: str
    session_token: str | None = None

    def accepts(self, token: str, user: str, *, at: float) -> bool:
        """Whether a token is signed with these keys, for this endpoint and user, and still valid."""
        given = _parse(token)
        try:
            signed = calendar.timegm(time.strptime(given.get("X-Amz-Date", ""), "%Y%m%dT%H%M%SZ"))
        except ValueError:
            return False
        keys = Keys(self.access_key, self.secret_key, self.session_token)
        query = {"Action": "connect", "DBUser": user}
        expected = presign_url(keys, self.endpoint, query, scope=(self.region, "rds-db"), at=signed)
        return given == _parse(expected) and abs(at - signed) < VALID


def _parse(token: str) -> dict[str, str]:
    """The parts of a token, which may be in any order."""
    endpoint, _, query = token.partition("/?")
    return {"endpoint": endpoint.lower(), **dict(parse_qsl(query))}
