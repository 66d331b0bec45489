"""
An emulation of the AWS services that `lambdadb bench --on lambda` reads. It is not AWS.

It answers real boto3: CloudWatch Logs Insights, CloudWatch metrics, RDS events and Lambda invocations.
moto, which plays other services in the tests, gives a query's rows without looking at the query.
"""

from __future__ import annotations

from lambdadb.lab.emulated_aws.server import EmulatedAWS

__all__ = ["EmulatedAWS"]
