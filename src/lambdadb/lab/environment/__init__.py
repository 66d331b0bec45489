"""Execution environments of Lambda: AWS's own runtime client in real processes."""

from __future__ import annotations

from lambdadb.lab.environment.environment import (
    Environment,
    FunctionError,
    FunctionTimeout,
    new_trace_id,
)

__all__ = ["Environment", "FunctionError", "FunctionTimeout", "new_trace_id"]
