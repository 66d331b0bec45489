"""
A warning about old versions of libpq, PostgreSQL's client library.
"""

from __future__ import annotations

import logging

from psycopg import pq

logger = logging.getLogger("lambdadb")

# CVE-2024-10977: the first release of each major version with the fix. 17.0 does not have it, 17.1 does.
_FIXED = {12: 21, 13: 17, 14: 14, 15: 9, 16: 5}


def warn_of_old_libpq(version: int | None = None) -> None:
    """
    Log one WARNING if libpq has a fault that affects lambdadb. It is called while an engine is made.

    Args:
        version: libpq's version number, such as 160003 for 16.3; by default that of the loaded libpq.

    **Costs:** no round trip; a microsecond.
    """
    version = pq.version() if version is None else version
    major, minor = divmod(version, 10000)
    faults = []
    if version < 170001 and minor < _FIXED.get(major, 10000):
        faults.append(
            "somebody on the way to the server can send an error message before the server is verified, "
            "and so choose how lambdadb reacts (CVE-2024-10977)"
        )
    if major < 17:
        faults.append("cancelling a statement blocks the process until the server answers")
    if faults:
        logger.warning(
            "libpq %d.%d is old: %s. Install libpq 17.1 or later: psycopg[binary]>=3.2.4 brings it.",
            major,
            minor,
            "; ".join(faults),
        )
