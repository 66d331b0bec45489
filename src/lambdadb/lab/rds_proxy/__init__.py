"""
An emulated RDS Proxy in front of a `Postgres`, for tests of what RDS Proxy refuses, pins and times out.

Its rules are those of the RDS User Guide's pages on RDS Proxy. What no page says is marked "unverified"
here, and can be changed where it matters.
"""

from lambdadb.lab.rds_proxy.iam import IamLogins
from lambdadb.lab.rds_proxy.proxy import RdsProxy

__all__ = ["IamLogins", "RdsProxy"]
