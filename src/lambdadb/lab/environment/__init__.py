"""Execution environments of Lambda: AWS's own runtime client in real processes."""

from __future__ import annotations

from lambdadb.lab.environment.environment import (
    Environment,
    FunctionError,
    FunctionTimeout,
    new_trace_id,
)
from lambdadb.lab.environment.managed import ManagedEnvironment
from lambdadb.lab.environment.snapshot import Snapshot

__all__ = [
    "Environment",
    "FunctionError",
    "FunctionTimeout",
    "ManagedEnvironment",
    "Snapshot",
    "new_trace_id",
]
