"""The command `lambdadb bench`: its options, progress, tables and exit codes."""

from __future__ import annotations

from lambdadb.cli.bench.command import bench

__all__ = ["bench"]
