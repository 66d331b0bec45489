"""
IAM database authentication: a fresh token as the password of each connect.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any

from lambdadb.credentials import Login, LoginUnavailable, aws
from lambdadb.deadline import Clock
from lambdadb.drivers.rds_endpoint import region_of

logger = logging.getLogger("lambdadb")

_MAY_BE_PLAIN = ("disable", "allow", "prefer")


class RdsIam:
    """
    Log in with the function's role instead of a password.

    Nothing has to be kept, rotated or read from elsewhere. AWS advises against more than 200 new
    connections a second; then, or where the database user has a password, use `SecretsManager`.

    Args:
        region: Of the database; by default the one in its host name, else the function's.
        user: The database user, who was granted `rds_iam`; by default the URL's.
        host: The endpoint that the token is for, where the URL's host is another name for it.
        port: The endpoint's port, where the URL's is another one.
        clock: Tells the time of signing.

    **Costs:** no round trip of its own; signing takes a fraction of a millisecond.
    """

    def __init__(
        self,
        region: str | None = None,
        user: str | None = None,
        *,
        host: str | None = None,
        port: int | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._region = region
        self._user = user
        self._host = host
        self._port = port
        self._clock = clock or Clock()
        self._session: Any = None
        self._warned = False
        aws.prepare()

    def __repr__(self) -> str:
        given = {"region": self._region, "user": self._user, "host": self._host, "port": self._port}
        return f"RdsIam({', '.join(f'{k}={v!r}' for k, v in given.items() if v is not None)})"

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_session": None}

    def logins(self, parameters: Mapping[str, object]) -> Iterator[Login]:
        """
        One login, with a token that was signed just now.

        Raises:
            LoginUnavailable: The connection would not be encrypted, or something to sign is missing.
        """
        sslmode = encrypted(parameters)
        host = self._endpoint(parameters)
        user = self._user or parameters.get("user")
        if not user:
            raise LoginUnavailable("RdsIam needs a user: name it in the URL, or as RdsIam(user=...).")
        region = self._region or region_of(host) or aws.environment_region()
        if not region:
            raise LoginUnavailable(
                f"The region of {host} is not known: use RdsIam(region=...), or set AWS_REGION."
            )
        endpoint = f"{host}:{self._port or parameters.get('port') or 5432}"
        query = {"Action": "connect", "DBUser": str(user)}
        _, at = self._clock.moment()
        token = aws.presigned(self._keys(), endpoint, query, scope=(region, "rds-db"), at=at)
        yield {"user": user, "password": token, "sslmode": sslmode}

    def _endpoint(self, parameters: Mapping[str, object]) -> str:
        host = str(parameters.get("host") or "")
        if not host or host.startswith(("/", "@")) or "," in host:
            raise LoginUnavailable(
                "RdsIam needs the one host in the URL that its token is for: a token is not sent to a "
                "socket, and of several hosts it would fit one."
            )
        if self._host:
            return self._host
        if region_of(host) is None and not self._warned:
            self._warned = True
            logger.warning(
                "RdsIam: %s is not the name of an RDS endpoint, and AWS refuses tokens for other names. "
                "Name the endpoint in the URL, or as RdsIam(host=...).",
                host,
            )
        return host

    def _keys(self) -> aws.Keys:
        keys = aws.environment_keys()
        if keys is None:
            self._session = self._session or aws.botocore_session()
            keys = aws.botocore_keys(self._session)
        return keys


def encrypted(parameters: Mapping[str, object]) -> str:
    """
    The sslmode to connect with, since whoever sees a token can use it for 15 minutes.

    Raises:
        LoginUnavailable: The one that was chosen allows a connection without TLS.
    """
    sslmode = str(parameters.get("sslmode") or os.environ.get("PGSSLMODE") or "verify-full")
    if sslmode in _MAY_BE_PLAIN:
        raise LoginUnavailable(
            f"sslmode={sslmode} may send the IAM token over an unencrypted connection. Remove it, or "
            "use sslmode=verify-full."
        )
    return sslmode
