"""Which versions of libpq are warned of, and the lowest that the project admits."""

from __future__ import annotations

import pytest
from psycopg import pq

from lambdadb.drivers.psycopg.libpq import warn_of_old_libpq


@pytest.mark.parametrize(
    ("version", "spoofed", "blocking"),
    [
        (120020, True, True),
        (120021, False, True),
        (150008, True, True),
        (160003, True, True),
        (160004, True, True),
        (160005, False, True),
        (170000, True, False),
        (170001, False, False),
        (170006, False, False),
        (180000, False, False),
    ],
)
def test_a_libpq_with_a_fault_is_named_once(version, spoofed, blocking, log):
    """One line with its version, what the fault does, and what to install; none for a good one."""
    warn_of_old_libpq(version)
    assert len(log.records) == (spoofed or blocking)
    assert ("CVE-2024-10977" in log.text) is spoofed
    assert ("cancelling" in log.text) is blocking
    if log.records:
        assert log.records[0].levelname == "WARNING"
        assert f"libpq {version // 10000}.{version % 10000} is old" in log.text
        assert "psycopg[binary]>=3.2.4" in log.text


def test_the_libpq_of_the_admitted_versions_is_good(log):
    """The floor of pyproject.toml: the lowest psycopg brings no libpq that is warned of."""
    assert pq.version() >= 170001
    warn_of_old_libpq()
    assert not log.records
