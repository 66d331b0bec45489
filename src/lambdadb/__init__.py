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

from typing import TYPE_CHECKING, Any

from lambdadb.gc_pause import gc_paused

if TYPE_CHECKING:
    from lambdadb.resume import wake

with gc_paused():
    from lambdadb.engine import create_engine
    from lambdadb.errors import (
        CommitInDoubt,
        ConnectFailed,
        ConnectionInUse,
        DatabaseResuming,
        InvalidSettings,
        InvocationEnded,
        LambdaDBError,
        OutOfTime,
        TransactionEnded,
    )
    from lambdadb.faults import Fault
    from lambdadb.invocation import handler, invocation
    from lambdadb.policy import PerEnvironment, PerInvocation
    from lambdadb.retry import ResumeRetry
    from lambdadb.tracing import trace
    from lambdadb.transaction import run_transaction, transactional

__all__ = [
    "CommitInDoubt",
    "ConnectFailed",
    "ConnectionInUse",
    "DatabaseResuming",
    "Fault",
    "InvalidSettings",
    "InvocationEnded",
    "LambdaDBError",
    "OutOfTime",
    "PerEnvironment",
    "PerInvocation",
    "ResumeRetry",
    "TransactionEnded",
    "create_engine",
    "handler",
    "invocation",
    "run_transaction",
    "trace",
    "transactional",
    "wake",
]


def __getattr__(name: str) -> Any:
    if name == "wake":
        from lambdadb.resume import wake  # few functions need it

        return wake
    if name == "__version__":
        from importlib.metadata import version  # takes time, and a cold start does not need it

        return version("sqlalchemy-lambdadb")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
