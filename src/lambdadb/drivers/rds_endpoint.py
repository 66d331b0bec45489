"""
What the name of an RDS endpoint tells: the region, and whether an RDS Proxy answers there.
"""

from __future__ import annotations

import re

# Clusters, instances and proxies; in China there is a form with the region after `rds`.
_ENDPOINT = re.compile(
    r"(?P<proxy>\.proxy-[^.]+)?\."
    r"(?:(?P<region>[a-z]+(?:-[a-z]+)+-\d+)\.rds\.amazonaws\.com(?:\.cn)?"
    r"|rds\.(?P<china>cn-[a-z]+-\d+)\.amazonaws\.com\.cn)\.?$",
    re.IGNORECASE,
)


def region_of(host: str) -> str | None:
    """The region in the name of an RDS endpoint; None for any other name."""
    found = _ENDPOINT.search(host)
    return (found["region"] or found["china"]).lower() if found else None


def is_proxy(host: str) -> bool:
    """Whether it is the endpoint of an RDS Proxy."""
    found = _ENDPOINT.search(host)
    return bool(found and found["proxy"])
