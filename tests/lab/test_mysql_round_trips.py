"""What each callable costs on MySQL's wire is what the page of round trips says."""

from __future__ import annotations

import mysql_round_trips
import pytest

from lambdadb.lab import LabError


@pytest.fixture(scope="module")
def cluster():
    """A hot cluster before a MariaDB, whose wire is counted; skips where MariaDB is not installed."""
    counting = mysql_round_trips.counting()
    try:
        cluster = counting.__enter__()
    except LabError as error:
        pytest.skip(str(error))
    yield cluster
    counting.__exit__(None, None, None)


@pytest.mark.parametrize(
    "case", mysql_round_trips.CASES, ids=lambda case: f"{case.callable}: {case.situation}"
)
def test_a_callable_costs_what_the_page_says(case, cluster):
    """Each row of the page, counted anew, beside SQLAlchemy's."""
    row = mysql_round_trips.row(case, mysql_round_trips.counted(case, cluster))
    assert row in mysql_round_trips.PAGE.read_text()


def test_the_page_has_no_other_rows():
    """What is no longer counted is no longer claimed."""
    table = (
        mysql_round_trips.PAGE.read_text().partition(mysql_round_trips.HEADER)[2].partition("\n\n")[0]
    )
    assert len(table.strip().splitlines()) == len(mysql_round_trips.CASES)
