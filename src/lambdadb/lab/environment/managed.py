"""Lambda Managed Instances: one environment with a forked process for each concurrent request."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from lambdadb.lab.environment.environment import (
    LONG_INIT_LIMIT,
    Environment,
    FunctionTimeout,
    context_headers,
    encoded,
    new_trace_id,
    result_of,
)
from lambdadb.lab.environment.runtime_api import RuntimeEvent


class ManagedEnvironment(Environment):
    """
    An environment of Managed Instances: never frozen, and several invocations at a time.

    AWS's runtime client forks its processes before it imports the handler. Which of them gets an event
    is open. The timeout ends the wait for an answer, and not the handler, as on Managed Instances.

    Args:
        concurrency: `AWS_LAMBDA_MAX_CONCURRENCY`, the number of processes.

    Raises:
        LabError: AWS's runtime client is not installed.
    """

    def __init__(
        self,
        handler: str,
        *,
        function_name: str,
        concurrency: int,
        timeout: float = 60.0,
        environment: Mapping[str, str] | None = None,
        path: Sequence[Path] = (),
    ) -> None:
        super().__init__(
            handler,
            function_name=function_name,
            timeout=timeout,
            environment={
                "AWS_LAMBDA_INITIALIZATION_TYPE": "lambda-managed-instances",
                "AWS_LAMBDA_MAX_CONCURRENCY": str(concurrency),
                **(environment or {}),
            },
            path=path,
        )
        self.concurrency = concurrency

    def start(self) -> None:
        """
        Start the processes, and wait until each asks for an event.

        Raises:
            FunctionError: The init raised, or the processes exited.
            FunctionTimeout: It took longer than the timeout.
        """
        self.start_process()
        runtime = self.runtime
        assert runtime is not None
        deadline = time.monotonic() + max(self.timeout, LONG_INIT_LIMIT)
        if not runtime.wait(lambda: runtime.api.pollers == self.concurrency, deadline):
            raise self.timed_out("init")
        if not runtime.api.pollers:
            raise self.exited(runtime, request_id=None)

    def invoke(self, event: object, *, trace_id: str | None = None) -> object:
        """
        Run the handler with the event, in a process that is free, and return its result.

        Several threads may call it at the same time.

        Raises:
            LabError: The event is not JSON, or this was not started.
            FunctionError: The handler raised.
            FunctionTimeout: The timeout was over. The handler goes on.
        """
        body = encoded(event)
        self.refuse_closed()
        runtime = self.runtime
        if runtime is None:
            self.start()
            runtime = self.runtime
        assert runtime is not None
        request_id = str(uuid.uuid4())
        headers = context_headers(
            request_id, trace_id or new_trace_id(), self.variables, time.time() + self.timeout
        )
        runtime.api.hand_out(RuntimeEvent(request_id, body, headers))
        if not runtime.api.wait_for(lambda: request_id in runtime.api.answers, self.timeout):
            raise FunctionTimeout(
                "Sandbox.Timedout",
                f"RequestId: {request_id} Error: Task timed out after {self.timeout:.2f} seconds",
            )
        return result_of(runtime.api.answers[request_id])
