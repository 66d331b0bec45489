"""
IAM database authentication: a fresh token as the password of each connect.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from lambdadb.aws.keys import (
    Keys,
    create_botocore_session,
    get_session_keys,
    import_botocore_for_snapshot,
    read_environment_keys,
    read_environment_region,
    read_session_region,
)
from lambdadb.aws.sigv4 import presign_url
from lambdadb.credentials import Login, LoginUnavailable
from lambdadb.deadline import Clock
from lambdadb.drivers.rds_endpoint import region_of
from lambdadb.errors import InvalidSettings

logger = logging.getLogger("lambdadb")


class RdsIam:
    """
    Log in with the function's role instead of a password.

    Nothing has to be kept, rotated or read from elsewhere. AWS advises against more than 200 new
    connections a second; then, or where the database user has a password, use `SecretsManager`.

    Args:
        region: Of the database; by default that in its host name, else the session's or the function's.
        user: The database user, who was granted `rds_iam`; by default the URL's.
        host: The endpoint that the token is for, where the URL's host is another name for it.
        port: The endpoint's port, where the URL's is another one.
        session: A boto3 or botocore session to sign with, for example of an assumed role.
        client: A boto3 client of RDS to sign with.
        clock: Tells the time of signing.

    Raises:
        InvalidSettings: An argument cannot work.

    **Costs:** no round trip of its own; signing takes a fraction of a millisecond.
    """

    requires_verified_server = True
    """A token is a password for whoever receives it, on this machine too."""

    def __init__(
        self,
        region: str | None = None,
        user: str | None = None,
        *,
        host: str | None = None,
        port: int | None = None,
        session: Any = None,
        client: Any = None,
        clock: Clock | None = None,
    ) -> None:
        if session is not None and client is not None:
            raise InvalidSettings("RdsIam(session=..., client=...): give one of the two.")
        if client is not None and not hasattr(client, "generate_db_auth_token"):
            raise InvalidSettings('RdsIam(client=...): use boto3.client("rds").')
        if session is not None and not hasattr(session, "get_credentials"):
            raise InvalidSettings("RdsIam(session=...): use boto3.Session().")
        self._region = region
        self._user = user
        self._host = host
        self._port = port
        self._session = session
        self._client = client
        self._clock = clock or Clock()
        self._made: Any = None
        self._warned = False
        import_botocore_for_snapshot()

    def __repr__(self) -> str:
        given = {"region": self._region, "user": self._user, "host": self._host, "port": self._port}
        return f"RdsIam({', '.join(f'{k}={v!r}' for k, v in given.items() if v is not None)})"

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_made": None}

    def forget(self) -> None:
        """Drop the role's keys from memory; the next connect finds them again."""
        self._made = None

    def logins(self, parameters: Mapping[str, object]) -> Iterator[Login]:
        """
        One login, with a token that was signed just now.

        Raises:
            LoginUnavailable: Something to sign is missing.
        """
        host = self._find_endpoint(parameters)
        user = self._user or parameters.get("user")
        if not user:
            raise LoginUnavailable("RdsIam needs a user: name it in the URL, or as RdsIam(user=...).")
        port = self._port or parameters.get("port") or parameters.get("default_port")
        if not port:
            raise LoginUnavailable("RdsIam needs a port: name it in the URL, or as RdsIam(port=...).")
        yield {"user": user, "password": self._sign(host, str(port), str(user))}

    def _sign(self, host: str, port: str, user: str) -> str:
        region = self._find_region(host)
        if self._client is not None:
            token: str = self._client.generate_db_auth_token(
                DBHostname=host, Port=port, DBUsername=user, Region=region
            )
            return token
        query = {"Action": "connect", "DBUser": user}
        _, at = self._clock.moment()
        return presign_url(self._get_keys(), f"{host}:{port}", query, scope=(region, "rds-db"), at=at)

    def _find_endpoint(self, parameters: Mapping[str, object]) -> str:
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

    def _find_region(self, host: str) -> str:
        given = self._region or region_of(host)
        if given is None and self._session is not None:
            given = read_session_region(self._session)
        region = given or read_environment_region()
        if not region:
            raise LoginUnavailable(
                f"The region of {host} is not known: use RdsIam(region=...), or set AWS_REGION."
            )
        return region

    def _get_keys(self) -> Keys:
        if self._session is not None:
            return get_session_keys(self._session)
        keys = read_environment_keys()
        if keys is None:
            self._made = self._made or create_botocore_session()
            keys = get_session_keys(self._made)
        return keys
