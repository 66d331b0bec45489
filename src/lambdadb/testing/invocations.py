"""Invocations of a handler: in this process, or in execution environments as on Lambda."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from lambdadb.lab.context import LambdaContext
from lambdadb.lab.environment import Environment


class Invoke:
    """
    Invokes handlers, as Lambda does.

    A function is called in this process. A handler that is named, as in the function's configuration
    (`module.function`), runs in an execution environment: AWS's runtime client in a process of its own,
    which is frozen between invocations, and begins cold in each test.

    Args:
        context: What a function in this process gets as its context. Its `seconds_left` is also the
            timeout of environments, and its `function_name` their name.
        root: The folder in which the function's process starts.
        variables: Gives the variables that the function gets beside Lambda's own.

    Attributes:
        environments: The environments of this test, by the names of their handlers.
    """

    def __init__(
        self, context: LambdaContext, *, root: Path, variables: Callable[[], Mapping[str, str]] = dict
    ) -> None:
        self.environments: dict[str, Environment] = {}
        self._context = context
        self._root = root
        self._variables = variables

    def __call__(self, handler: Callable[[Any, Any], Any] | str, event: object = None) -> Any:
        """
        Invoke a handler with an event, and return what it returns.

        Args:
            handler: A function, or the name of one.
            event: By name it has to be JSON, as on Lambda.

        Raises:
            FunctionError: By name: the handler failed. The error has its type and its message.
            FunctionTimeout: By name: it took longer than `lambda_context.seconds_left`.
        """
        if not isinstance(handler, str):
            return handler(event, self._context)
        environment = self.environments.get(handler) or self._start(handler)
        environment.timeout = self._context.seconds_left
        return environment.invoke(event)

    def _start(self, handler: str) -> Environment:
        # Modules are found where this process finds them.
        path = [Path(entry) for entry in sys.path if entry and Path(entry).is_dir()]
        environment = self.environments[handler] = Environment(
            handler,
            function_name=self._context.function_name,
            environment=self._variables(),
            path=[self._root, *path],
            on_log=print,
        )
        return environment

    def close(self) -> None:
        """End the environments."""
        for environment in self.environments.values():
            environment.close()
        self.environments.clear()

    def __enter__(self) -> Invoke:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def variables_set_since(before: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that were set or changed since `before`, without pytest's own."""
    return {
        name: value
        for name, value in os.environ.items()
        if before.get(name) != value and not name.startswith("PYTEST_")
    }
