"""
Which root certificates a server's certificate is verified with, and what to do if they do not fit.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from pathlib import Path

from lambdadb.drivers.base import AttemptFailed
from lambdadb.drivers.rds_endpoint import dns_suffix, is_proxy, region_of
from lambdadb.drivers.resolver import is_address
from lambdadb.faults import Fault

ROOTS = Path(__file__).parents[1] / "roots"
"""The directory of RDS's root certificates, a file for each region."""
PROXY_ROOTS = ROOTS / "proxy.pem"
"""Amazon's public roots, which sign the certificates of RDS Proxy."""

SYSTEM_ROOTS = (
    "/etc/pki/tls/certs/ca-bundle.crt",  # Amazon Linux
    "/etc/ssl/certs/ca-certificates.crt",  # Debian
    "/etc/ssl/cert.pem",  # Alpine, macOS
)
"""Files of public root certificates, for a Python that knows none."""

RDS_ROOT = re.compile(r"Amazon RDS ([a-z]+-[a-z0-9-]+) Root CA")


def is_this_machine(place: str) -> bool:
    """Whether it is a socket or a loopback address. Without a host a driver uses this machine."""
    if not place or place.startswith(("/", "@")) or place.lower() == "localhost":
        return True
    return is_address(place) and (place == "::1" or place.startswith("127."))


def find_roots(host: str, environment: Mapping[str, str], parameter: str) -> str:
    """
    Return the file of the roots that belong to a host.

    Those of RDS in its region, Amazon's public ones for an RDS Proxy, the system's for any other host.

    Args:
        host: One host name.
        environment: The environment variables.
        parameter: The driver's parameter that names such a file, for the error's text.

    Raises:
        AttemptFailed: There is no such file; `UNTRUSTED`.
    """
    region = region_of(host)
    if region is None:
        return find_system_roots(environment, parameter)
    if is_proxy(host):
        return str(PROXY_ROOTS)
    file = ROOTS / f"{region}.pem"
    if not file.exists():
        raise AttemptFailed(
            Fault.UNTRUSTED,
            f"this version of lambdadb has no root certificates of RDS in {region}: download "
            f"{published_url(region)} into the function's package and add "
            f"?{parameter}=/var/task/{region}-bundle.pem",
        )
    return str(file)


def find_system_roots(environment: Mapping[str, str], parameter: str) -> str:
    """Return the file of the public roots. Raises `AttemptFailed` if there is none."""
    if named := environment.get("SSL_CERT_FILE"):
        return named
    for place in (ssl.get_default_verify_paths().cafile, *SYSTEM_ROOTS):
        if place and Path(place).exists():
            return place
    raise AttemptFailed(
        Fault.UNTRUSTED,
        f"this system has no public root certificates in any of {', '.join(SYSTEM_ROOTS)}: "
        f"{own_file(parameter)}",
    )


def own_file(parameter: str) -> str:
    """Return the advice for a server whose authority is the user's own."""
    return (
        "ship the server's root certificate with the function and name it: "
        f"?{parameter}=/var/task/root.pem"
    )


def published_url(region: str) -> str:
    """Return where AWS publishes the roots of a region (Aurora User Guide, "Using SSL/TLS")."""
    store = "truststore.pki.rds.amazonaws.com"
    if region.startswith("us-gov-"):
        store = "truststore.pki.us-gov-west-1.rds.amazonaws.com"
    elif region.startswith("cn-"):
        store = "rds-truststore.s3.cn-north-1.amazonaws.com.cn"
    elif dns_suffix(region) != "amazonaws.com":
        return f"{region}-bundle.pem, from where AWS publishes it for that partition,"
    return f"https://{store}/{region}/{region}-bundle.pem"
