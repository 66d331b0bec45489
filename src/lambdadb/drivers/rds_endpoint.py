"""
Read the name of an RDS endpoint: its region, and whether it is an RDS Proxy.
"""

from __future__ import annotations

import re

# The DNS suffix of each AWS partition, by how its regions begin (botocore, partitions.json).
# The first match counts; every region that matches nothing else is in the last one.
_DNS_SUFFIXES = {
    "cn-": "amazonaws.com.cn",
    "eusc-": "amazonaws.eu",
    "us-iso-": "c2s.ic.gov",
    "us-isob-": "sc2s.sgov.gov",
    "us-isof-": "csp.hci.ic.gov",
    "eu-isoe-": "cloud.adc-e.uk",
    "": "amazonaws.com",
}
_SUFFIX = "|".join(re.escape(suffix) for suffix in _DNS_SUFFIXES.values())

# Clusters, instances and proxies; in China there is also a form with the region after `rds`.
_ENDPOINT = re.compile(
    r"(?P<proxy>\.proxy-[^.]+)?\."
    rf"(?:(?P<region>[a-z]+(?:-[a-z]+)+-\d+)\.rds\.(?:{_SUFFIX})"
    r"|rds\.(?P<china>cn-[a-z]+-\d+)\.amazonaws\.com\.cn)\.?$",
    re.IGNORECASE,
)


def dns_suffix(region: str) -> str:
    """Return the DNS suffix of AWS's endpoints in a region, such as `amazonaws.com`."""
    return next(suffix for start, suffix in _DNS_SUFFIXES.items() if region.startswith(start))


def region_of(host: str) -> str | None:
    """Return the region in the name of an RDS endpoint; None for any other name."""
    found = _ENDPOINT.search(host)
    return (found["region"] or found["china"]).lower() if found else None


def reader_endpoint(host: str) -> str | None:
    """Return the reader endpoint that belongs to a cluster endpoint; None for any other name."""
    if not _ENDPOINT.search(host):
        return None
    reader = re.sub(r"^([^.]+)\.cluster-(?!ro-|custom-)", r"\1.cluster-ro-", host, flags=re.IGNORECASE)
    return None if reader == host else reader


def is_proxy(host: str) -> bool:
    """Whether it is the endpoint of an RDS Proxy."""
    found = _ENDPOINT.search(host)
    return bool(found and found["proxy"])
