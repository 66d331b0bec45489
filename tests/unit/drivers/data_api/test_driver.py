"""The driver: what it refuses, and what it says of a statement."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from lambdadb import InvalidSettings
from lambdadb.drivers.data_api import dbapi
from lambdadb.drivers.data_api.backends import POSTGRESQL
from lambdadb.drivers.data_api.driver import DataApiDriver
from lambdadb.drivers.data_api.target import region_of

ARN = "arn:aws:rds:eu-west-1:123456789012:cluster:orders"


def test_a_span_has_the_request_and_its_seconds(connection, api):
    """The id is the one that AWS's support asks for; the seconds are those of the call alone."""
    api.request_id, api.seconds = "r1", 0.0123456789
    error = dbapi.IntegrityError("x")
    error.sqlstate = "23505"
    assert DataApiDriver(POSTGRESQL).describe_session(connection, error) == {
        "db.system.name": "postgresql",
        "db.namespace": "orders",
        "db.response.status_code": "23505",
        "server.address": "aws",
        "server.port": 443,
        "aws.request_id": "r1",
        "lambdadb.call_seconds": 0.012346,
    }


def test_a_span_without_an_answer_has_no_request(connection, api):
    """Nor an SQLSTATE where there was no error."""
    api.request_id, api.seconds = None, 1.0
    attributes = DataApiDriver(POSTGRESQL).describe_session(connection, None)
    assert "aws.request_id" not in attributes
    assert "db.response.status_code" not in attributes


def test_a_proxy_cannot_be_chosen():
    """No connection leads to one."""
    DataApiDriver(POSTGRESQL).choose_proxy("none")
    with pytest.raises(InvalidSettings, match="no proxy"):
        DataApiDriver(POSTGRESQL).choose_proxy("rds-proxy")


@pytest.mark.parametrize(
    ("closed", "transaction_id", "liveness", "reusable"),
    [(False, None, "quiet", True), (False, "t1", "quiet", False), (True, None, "closed", False)],
)
def test_a_connection_is_reusable_outside_of_a_transaction(closed, transaction_id, liveness, reusable):
    """Nothing else of it exists anywhere."""
    connection = SimpleNamespace(closed=closed, transaction_id=transaction_id)
    assert DataApiDriver(POSTGRESQL).liveness(connection) == liveness
    assert DataApiDriver(POSTGRESQL).is_reusable(connection) == reusable


@pytest.mark.parametrize(
    ("arn", "region"),
    [(ARN, "eu-west-1"), (ARN.replace("aws", "aws-us-gov").replace("eu", "us-gov"), "us-gov-west-1")],
)
def test_the_region_is_the_clusters(arn, region):
    """In each partition of AWS."""
    assert region_of(arn) == region


@pytest.mark.parametrize("wrong", [None, "", "orders", ARN.replace("cluster:", "db:"), ARN + " "])
def test_what_is_no_cluster_is_refused(wrong):
    """With an example of one."""
    with pytest.raises(InvalidSettings, match="ARN of an Aurora cluster"):
        region_of(wrong)
