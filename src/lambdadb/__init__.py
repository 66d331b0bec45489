"""
SQLAlchemy connection policies for AWS Lambda and Amazon Aurora.

```python
from lambdadb import create_engine, handler

engine = create_engine("postgresql+psycopg://app@host/orders")


@handler(engine)
def lambda_handler(event, context):
    with engine.begin() as connection:
        ...
```
"""

from lambdadb.engine import create_engine
from lambdadb.errors import (
    ConnectFailed,
    ConnectionInUse,
    DatabaseResuming,
    InvalidSettings,
    LambdaDBError,
    OutOfTime,
)
from lambdadb.faults import Fault
from lambdadb.invocation import handler, invocation
from lambdadb.policy import PerEnvironment, PerInvocation
from lambdadb.retry import ResumeRetry
from lambdadb.tracing import Connect, Tracer

__all__ = [
    "Connect",
    "ConnectFailed",
    "ConnectionInUse",
    "DatabaseResuming",
    "Fault",
    "InvalidSettings",
    "LambdaDBError",
    "OutOfTime",
    "PerEnvironment",
    "PerInvocation",
    "ResumeRetry",
    "Tracer",
    "create_engine",
    "handler",
    "invocation",
]
