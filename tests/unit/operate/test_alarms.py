"""The alarms as data: the same in Terraform, in CloudWatch and on the page."""

from __future__ import annotations

from pathlib import Path

import boto3
import pytest
from botocore.stub import Stubber

from lambdadb.operate.alarms import FILE, Alarm, read_alarms

ROOT = Path(__file__).parents[3]


def test_terraform_has_the_same_data() -> None:
    """The module is used by itself, so it has a copy."""
    copy = ROOT / "infra" / "terraform" / "modules" / "function" / "alarms.json"
    assert copy.read_text() == FILE.read_text()


@pytest.mark.parametrize("alarm", read_alarms(), ids=lambda alarm: alarm.name)
def test_cloudwatch_takes_it(alarm: Alarm) -> None:
    """Its arguments fit the shapes of the API, a day of evaluation at most, and the page shows it."""
    client = boto3.client(
        "cloudwatch", region_name="eu-west-1", aws_access_key_id="x", aws_secret_access_key="x"
    )
    request = alarm.request("orders", whole=150)
    with Stubber(client) as stubber:
        stubber.add_response("put_metric_alarm", {}, request)
        client.put_metric_alarm(**request)
    assert alarm.period * alarm.evaluation_periods <= 86_400
    page = (ROOT / "docs" / "operate.md").read_text()
    assert alarm.metric in page
    assert alarm.reason in page


def test_shares_become_thresholds() -> None:
    """Of the timeout in milliseconds, and of the connections."""
    requests = {alarm.name: alarm.request("x", whole=150) for alarm in read_alarms()}
    assert requests["duration"]["Threshold"] == 120_000
    assert requests["connections"]["Threshold"] == 120
    assert requests["awake"]["Threshold"] == 0.5
