"""Invocations of a handler: in this process, or in execution environments as on Lambda."""

from __future__ import annotations

import importlib
import os
import sys
import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from lambdadb.lab.context import LambdaContext
from lambdadb.lab.environment import Environment
from lambdadb.pool import GuardedPool


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
        self, context: LambdaContext, root: Path, variables: Callable[[], Mapping[str, str]] = dict
    ) -> None:
        self.environments: dict[str, Environment] = {}
        self._modules: dict[str, ModuleType] = {}
        self._context = context
        self._root = root
        self._variables = variables

    def __call__(
        self,
        handler: Callable[[Any, Any], Any] | str,
        event: object = None,
        *,
        in_process: bool = False,
    ) -> Any:
        """
        Invoke a handler with an event, and return what it returns.

        Args:
            handler: A function, or the name of one.
            event: In an environment it has to be JSON, as on Lambda.
            in_process: Import a named handler into this process, for a debugger, for `no_waiting` and
                `spans`. Its modules are imported anew in each test, so that they find its database.

        Raises:
            FunctionError: In an environment: the handler failed. The error has its type and its message.
            FunctionTimeout: In an environment: it took longer than `lambda_context.seconds_left`.
        """
        if isinstance(handler, str) and in_process:
            handler = getattr(self.module(handler), handler.rpartition(".")[2])
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

    def module(self, handler: str) -> ModuleType:
        """The module of a named handler in this process, imported anew in each test."""
        name = handler.rpartition(".")[0]
        if name not in self._modules:
            sys.modules.pop(name, None)
            before = set(sys.modules)
            importlib.import_module(name)
            new = {one for one in sys.modules.keys() - before if is_own(one)}
            self._modules |= {one: sys.modules[one] for one in {name, *new}}
        return self._modules[name]

    def close(self) -> None:
        """End the environments, and forget the modules that were imported; close their engines."""
        for name, module in self._modules.items():
            sys.modules.pop(name, None)
            for thing in vars(module).values():
                if isinstance(pool := getattr(thing, "pool", None), GuardedPool):
                    pool.close_all()
        self._modules.clear()
        for environment in self.environments.values():
            environment.close()
        self.environments.clear()


def is_own(name: str) -> bool:
    """Whether a module is the project's own: neither Python's nor installed."""
    file = getattr(sys.modules[name], "__file__", None)
    if file is None or name.partition(".")[0] == "lambdadb":
        return False
    return not any(Path(file).is_relative_to(place) for place in sysconfig.get_paths().values())


def variables_set_since(before: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that were set or changed since `before`, without pytest's own."""
    return {
        name: value
        for name, value in os.environ.items()
        if before.get(name) != value and not name.startswith("PYTEST_")
    }
