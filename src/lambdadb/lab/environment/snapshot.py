"""SnapStart: an environment that is initialised once, and restored as often as wanted."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from lambdadb.lab.environment.environment import INIT_LIMIT, LONG_INIT_LIMIT, Environment

# Under SnapStart these are absent (Lambda Developer Guide, environment variables).
ABSENT = ("AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME")


class Snapshot:
    """
    A function's process after its init and its hooks before the snapshot, and copies of it.

    AWS's runtime client runs the hooks of `snapshot_restore_py` around the snapshot. A copy is a fork of
    the process, without Python's hooks for forks. It is an `Environment` of its own.

    Args:
        handler, function_name, timeout, environment, path: As for `Environment`.

    Raises:
        LabError: AWS's runtime client is not installed.
        FunctionError: The init or a hook raised.
    """

    def __init__(
        self,
        handler: str,
        *,
        function_name: str,
        timeout: float = 60.0,
        environment: Mapping[str, str] | None = None,
        path: Sequence[Path] = (),
    ) -> None:
        self.source = Environment(
            handler,
            function_name=function_name,
            timeout=timeout,
            environment={"AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start", **(environment or {})},
            path=path,
        )
        for name in ABSENT:
            del self.source.variables[name]
        self.copies: list[Environment] = []
        self.numbers = itertools.count(1)
        self.source.start_process()
        runtime = self.source.runtime
        assert runtime is not None
        deadline = time.monotonic() + max(timeout, LONG_INIT_LIMIT)
        if not runtime.wait(lambda: runtime.api.snapshot_taken, deadline):
            raise self.source.timed_out("snapshot")
        if not runtime.api.snapshot_taken:
            raise self.source.exited(runtime, request_id=None)

    def restore(self) -> Environment:
        """
        Make an environment from the snapshot, with its own process, ready for its first invocation.

        Raises:
            FunctionError: A hook after the restore raised.
        """
        runtime = self.source.runtime
        assert runtime is not None
        source = self.source
        copy = Environment(source.handler, function_name=source.function_name, timeout=source.timeout)
        self.copies.append(copy)
        copy.variables, copy.root, copy.init_count = source.variables, source.root, 1
        copied = copy.runtime = runtime.copy(source.folder.path / f"copy-{next(self.numbers)}")
        deadline = time.monotonic() + INIT_LIMIT
        if not copied.wait(lambda: copied.api.asking, deadline):
            raise copy.timed_out("restore")
        if not copied.api.asking:
            raise copy.exited(copied, request_id=None)
        copy.freeze(copied)
        return copy

    def close(self) -> None:
        """End the process with the snapshot and every copy."""
        for environment in (*self.copies, self.source):
            environment.close()

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
