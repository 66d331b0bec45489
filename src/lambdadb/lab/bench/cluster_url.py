"""The URL of somebody's cluster: what it has to name, and what of it may be shown."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote

from sqlalchemy import make_url

from lambdadb.drivers.psycopg import tls
from lambdadb.drivers.rds_endpoint import region_of
from lambdadb.engine import parse_url
from lambdadb.lab import LabError

TLS: tuple[str, ...] = ("sslmode", "sslrootcert")


def place(url: str | None) -> str:
    """Where a cluster is, without user, password or options."""
    if url is None:
        return "embedded"
    parts = parse_url(url)
    return f"{parts.host}:{parts.port or 5432}/{parts.database}"


def database_of(kind: str, url: str) -> tuple[str, int, str]:
    """
    Host, port and database of a real cluster.

    Raises:
        LabError: It is no PostgreSQL. Or the URL leaves the host or the database to libpq, which takes
            them from variables that the functions do not have.
    """
    parts = parse_url(url)
    if parts.get_backend_name() != "postgresql":
        backend = parts.get_backend_name()
        raise LabError(f"the {kind} URL is of {backend}; the benchmark needs PostgreSQL")
    if not parts.host or not parts.database:
        raise LabError(
            f"the {kind} URL needs a host and a database: "
            "postgresql+psycopg://user:password@host:5432/database"
        )
    return parts.host.lower(), parts.port or 5432, parts.database


def check_login(kind: str, url: str, *, secret: str | None, iam: bool) -> None:
    """
    Refuse a URL whose login contradicts the store that the login is to come from.

    Raises:
        LabError: It has a password beside a store, or no user for IAM.
    """
    parts = parse_url(url)
    if parts.password and (secret or iam):
        store = "--secret" if secret else "--iam"
        raise LabError(f"the {kind} URL has a password, and {store} was given: leave out one of the two")
    if iam and not parts.username:
        raise LabError(
            f"the {kind} URL names no user, whom --iam needs: postgresql://user@host/database"
        )


def with_tls(url: str, *, always: bool = False) -> str:
    """
    The URL with what verifies the server, written out.

    lambdadb's handlers would add it by themselves. libpq alone, as in the other two, would give the
    login to a server that nobody has verified.

    Args:
        always: Verify this machine too, as a token of IAM needs it.
    """
    parts = parse_url(url).set(drivername="postgresql+psycopg")
    query = {name: value for name, value in parts.query.items() if isinstance(value, str)}
    chosen = tls.apply_tls_defaults({**query, "host": parts.host}, {}, always=always)
    added = {name: str(chosen[name]) for name in TLS if name in chosen}
    return parts.update_query_dict(added).render_as_string(hide_password=False)


def cluster_of(url: str) -> tuple[str, str] | None:
    """
    The dimension under which CloudWatch knows the endpoint, and its value; None for any other name.

    An endpoint is NAME.cluster-ID.REGION.rds.amazonaws.com, NAME.cluster-ro-ID... or, of an instance,
    NAME.ID.REGION...
    """
    host = (parse_url(url).host or "").lower()
    if region_of(host) is None:
        return None
    name, kind, *_ = host.split(".")
    return ("DBClusterIdentifier" if kind.startswith("cluster-") else "DBInstanceIdentifier"), name


def region_in(url: str) -> str | None:
    """The region that the URL's host names."""
    return region_of((parse_url(url).host or "").lower())


def redacted(message: str, urls: Iterable[str]) -> str:
    """The message without the password of any of the URLs."""
    for url in urls:
        parts = make_url(url)
        for password in (parts.password, parts.query.get("password")):
            for secret in {str(password or ""), quote(str(password or ""), safe="")} - {""}:
                message = message.replace(secret, "***")
    return message
